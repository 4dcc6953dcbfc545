//! `sqs-etl start-time`: how large the function's binary is, and how fast it starts, with what a start needs: a masking
//! key, and a connection to a Postgres on this machine. Lambda's own share (download, sandbox) is not in it.

mod report;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::json;
use sqs_etl_local::clock::Clock;
use sqs_etl_local::function::{Function, FunctionConfig};
use sqs_etl_local::mapping::{Mapping, MappingConfig};
use sqs_etl_local::queue::{Message, Queue};
use sqs_etl_local::response::Verdict;
use sqs_etl_local::secrets::Secrets;
use uuid::Uuid;

use crate::IngestOption;
use crate::ingest::{self, Profile};
use crate::interrupt::Interrupt;
use crate::scene::{DATABASE, ROLE, Scene};
use crate::terminal::{self, Progress};
use crate::words::times;

use report::{Report, Series, Start};

const BATCH: usize = 10;
const FUNCTION_TIMEOUT: Duration = Duration::from_secs(5);
const DB_SECRET: &str = "sqs-etl-db";
const MASKING_SECRET: &str = "sqs-etl-masking";

/// Measure the function's release binary: its size, and how fast it starts
///
/// A start lasts from spawning the process to its first `next`, which is when Lambda hands over an event, and on to
/// the first ten messages stored. The binary is started again and again behind the Lambda Runtime API, in front of a
/// temporary Postgres: with key and password in the environment, and in turn with both in an imitation of Secrets
/// Manager on this machine.
#[derive(Args)]
pub struct Options {
    /// How often to start each
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    runs: u16,

    #[command(flatten)]
    ingest: IngestOption,

    /// A function to compare with, started in turn with ours; it answers that no message failed
    #[arg(long, value_name = "PATH")]
    hello: Option<PathBuf>,

    /// Write every start to this file too, as JSON
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

/// Measures and prints.
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<()> {
    interrupt.listen()?;
    if let Some(hello) = options.hello.as_ref().filter(|hello| !hello.is_file()) {
        bail!("there is no file {} (--hello)", hello.display());
    }
    let ingest = ingest::find(options.ingest.ingest.as_deref(), Profile::Release, interrupt)?;
    let mut progress = Progress::new();
    progress.waiting("postgres", "starting a server of our own");
    let scene = Scene::set()?;
    let key = Uuid::new_v4().simple().to_string();
    let secrets = secrets(&scene, &key)?;
    let from_environment = FunctionConfig::new(&ingest.path).env("DATABASE_URL", &scene.url()).env("MASKING_KEY", &key);
    let from_secrets = FunctionConfig::new(&ingest.path)
        .env("DB_SECRET_ARN", &Secrets::arn(DB_SECRET))
        .env("MASKING_SECRET_ARN", &Secrets::arn(MASKING_SECRET))
        .env("AWS_ENDPOINT_URL_SECRETS_MANAGER", &secrets.url())
        .env("DB_SSLMODE", "disable");
    let mut report = Report::new(&ingest.path)?;
    report.hello = options.hello.as_ref().map(|hello| Series::new("hello-world", FunctionConfig::new(hello)));
    report.ours = vec![
        Series::new("key and password from the environment", from_environment),
        Series::new("key and password from Secrets Manager", from_secrets),
    ];
    progress.waiting("start", &format!("{} each, in turn", times(options.runs.into())));
    measure(&mut report, options.runs, interrupt)?;
    let stored = scene.value("select count(*) from user_logins")?;
    ensure!(stored == (report.starts() * BATCH).to_string(), "{stored} rows stored in {} starts", report.starts());
    drop(scene);
    drop(progress);
    if let Some(path) = &options.json {
        report.write(path).with_context(|| format!("write {}", path.display()))?;
    }
    terminal::print(&report.to_string()).context("write the measurements")
}

/// In turn, so that whatever else the machine does meets all alike.
fn measure(report: &mut Report, runs: u16, interrupt: &Interrupt) -> Result<()> {
    for _ in 0..runs {
        for series in report.hello.iter_mut().chain(&mut report.ours) {
            series.starts.push(start(&series.config, interrupt)?);
        }
    }
    Ok(())
}

fn secrets(scene: &Scene, key: &str) -> Result<Secrets> {
    let secrets = Secrets::start()?;
    let login = json!({
        "engine": "postgres",
        "host": "127.0.0.1",
        "port": scene.postgres.port(),
        "username": ROLE,
        "password": scene.password,
        "dbname": DATABASE,
    });
    secrets.set(DB_SECRET, login.to_string());
    secrets.set(MASKING_SECRET, key);
    Ok(secrets)
}

fn start(config: &FunctionConfig, interrupt: &Interrupt) -> Result<Start> {
    interrupt.check()?;
    let function = Function::start(config.clone())?;
    let init = function.warm_up().with_context(|| function.stdout())?;
    let to_next = init.context("the function was there before it was started")?.init;
    let queue = Queue::builder("logins").create(&Clock::starting_now())?;
    for number in 0..BATCH {
        let body = json!({"user_id": "start-time", "ip": "192.0.2.1", "device_id": number.to_string()});
        queue.send(Message::new(body.to_string()))?;
    }
    let mapping = Mapping::new(&queue, MappingConfig { function_timeout: FUNCTION_TIMEOUT, ..Default::default() })?;
    let report = mapping.run_once(|event| function.invoke(event, FUNCTION_TIMEOUT));
    let report = report.context("the queue gave no batch")?;
    match report.verdict {
        Verdict::Succeeded => Ok(Start { to_next, to_answer: to_next + report.invocation.duration }),
        _ => bail!("the first batch was not stored: {}", function.stdout()),
    }
}
