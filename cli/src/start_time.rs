//! `sqs-etl start-time`: how large the function's binary is, and how fast it starts, with what a start needs: a masking
//! key, and a connection to a Postgres on this machine. Lambda's own share (download, sandbox) is not in it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
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
use crate::terminal::{self, Paint, Progress};
use crate::words::{median, milliseconds, number, path, times};

const BATCH: usize = 10;
const FUNCTION_TIMEOUT: Duration = Duration::from_secs(5);
const DB_SECRET: &str = "sqs-etl-db";
const MASKING_SECRET: &str = "sqs-etl-masking";

/// Measure the release binary: its size, and the time from spawn to the first `next` and to the first rows
///
/// Starts the function's binary again and again behind the Lambda Runtime API, in front of a temporary Postgres: once
/// with key and password in the environment, once with both in an imitation of Secrets Manager on this machine.
#[derive(Args)]
pub struct Options {
    /// How often to start it, for each of the two
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    runs: u16,

    #[command(flatten)]
    ingest: IngestOption,
}

/// Measures and prints.
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<()> {
    interrupt.listen()?;
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
    let mut lines = head(&ingest.path, options.runs.into())?;
    for (title, config) in [("from the environment", from_environment), ("from Secrets Manager", from_secrets)] {
        progress.waiting("start", &format!("{}, key and password {title}", times(options.runs.into())));
        let starts = (0..options.runs).map(|_| start(&config, interrupt)).collect::<Result<Vec<_>>>()?;
        lines += &section(title, &starts);
    }
    drop(scene);
    drop(progress);
    terminal::print(&lines).context("write the measurements")
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

/// How long one start took.
struct Start {
    to_next: Duration,
    to_rows: Duration,
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
        Verdict::Succeeded => Ok(Start { to_next, to_rows: to_next + report.invocation.duration }),
        _ => bail!("the first batch was not stored: {}", function.stdout()),
    }
}

fn head(binary: &Path, runs: usize) -> Result<String> {
    let size = binary.metadata().with_context(|| format!("measure {}", binary.display()))?.len();
    let megabytes = size as f64 / 1_000_000.0;
    let binary = path(binary);
    let size = number(usize::try_from(size).unwrap_or(usize::MAX));
    let columns = row(&format!("started {}, milliseconds", times(runs)), ["min", "median", "max"].map(str::to_owned));
    Ok(format!("{binary}: {size} bytes ({megabytes:.1} MB)\n\n{}\n", Paint::stdout().bold(&columns)))
}

fn section(title: &str, starts: &[Start]) -> String {
    let to_next = starts.iter().map(|start| start.to_next).collect();
    let to_rows = starts.iter().map(|start| start.to_rows).collect();
    let rows = [
        row("  spawn to first next", spread(to_next)),
        row(&format!("  spawn to first {BATCH} messages stored"), spread(to_rows)),
    ];
    format!("key and password {title}\n{}\n{}\n", rows[0], rows[1])
}

fn spread(mut durations: Vec<Duration>) -> [String; 3] {
    durations.sort_unstable();
    let end = |duration: Option<&Duration>| milliseconds(duration.copied().unwrap_or_default());
    [end(durations.first()), milliseconds(median(&durations)), end(durations.last())]
}

fn row(what: &str, values: [String; 3]) -> String {
    let [min, median, max] = values;
    format!("{what:<40}{min:>8}{median:>9}{max:>9}")
}
