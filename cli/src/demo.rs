//! `sqs-etl demo`: sends messages through a queue to the real function in front of a real Postgres, and shows what became
//! of them. It conducts; what it shows is gathered in `facts` and worded in `summary`.

mod delivery;
mod facts;
mod given;
mod invented;
mod journal;
mod plan;
mod summary;

use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use sqs_etl_local::function::{Function, FunctionConfig, InitFailure};
use sqs_etl_local::postgres::Kept;

use crate::IngestOption;
use crate::ingest::{self, Ingest, Profile};
use crate::interrupt::Interrupt;
use crate::scene::{DATABASE, Scene};
use crate::terminal::{self, Paint, Progress};
use crate::words::{counted, milliseconds, path};

use delivery::Delivery;
use facts::Facts;
use plan::Plan;

/// Watch login messages become masked rows: a queue, the real function and a real Postgres on this machine
///
/// Starts a temporary Postgres, puts the function's own binary behind a queue with a dead-letter queue (three deliveries),
/// sends messages, delivers until the queue is empty, and shows on one screen what became of them. The queue's clock
/// jumps: no visibility timeout is waited for. The exit code is 1 if a message got lost or was stored twice.
#[derive(Args)]
pub struct Options {
    /// Message bodies from a file, one JSON a line, `-` for stdin; without it, login messages are made up
    ///
    /// Each line is one body, sent as it stands. Blank lines are skipped, but counted in line numbers. A message's id
    /// follows from line number and body, so the same file has the same ids each time.
    #[arg(long, value_name = "FILE")]
    messages: Option<std::path::PathBuf>,

    /// How often the whole lot is sent, each time with the same message ids: the table must not change
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=100))]
    deliveries: u16,

    /// How many messages to make up
    #[arg(long, value_name = "N", default_value_t = 1_000, conflicts_with = "messages",
          value_parser = clap::value_parser!(u32).range(20..=1_000_000))]
    count: u32,

    /// Another seed makes up other messages
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "messages")]
    seed: u64,

    /// Messages in one invocation, up to 10,000
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch_size: u16,

    /// Leave Postgres running, and say how to look into it, stop it and delete it
    #[arg(long)]
    keep: bool,

    #[command(flatten)]
    ingest: IngestOption,
}

/// Runs the demo.
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<()> {
    let plan = match &options.messages {
        Some(file) => given::plan(file)?,
        None => invented::plan(options.count as usize, options.seed),
    };
    interrupt.listen()?;
    let mut progress = Progress::new();
    let ingest = ingest::find(options.ingest.ingest.as_deref(), Profile::ours(), interrupt)?;
    let scene = set_scene(&mut progress)?;
    interrupt.check()?;
    let function = start_function(&ingest, &scene, &plan, &mut progress)?;
    let mut delivery = Delivery::prepare(&plan, options.batch_size.into(), &function)?;
    let mut facts = Facts::default();
    for pass in 1..=options.deliveries {
        progress.step("send", &sending(&plan, pass));
        delivery.send(&plan, pass)?;
        delivery.run(&mut progress, interrupt)?;
        facts.note_pass(&scene)?;
    }
    facts.gather(&plan, &delivery, &scene)?;
    drop(delivery);
    drop(function);
    interrupt.check()?;
    drop(progress);
    let is_sound = facts.is_conserved();
    let kept = if options.keep { Some(scene.postgres.keep()?) } else { None };
    show(&facts, &plan, &ingest, kept.as_ref())?;
    if is_sound { Ok(()) } else { Err(anyhow!("messages sent, rows and dead letters do not add up: see above")) }
}

fn set_scene(progress: &mut Progress) -> Result<Scene> {
    progress.waiting("postgres", "starting a server of our own");
    let started = Instant::now();
    let scene = Scene::set()?;
    let version = scene.value("show server_version")?;
    let version = version.split_whitespace().next().unwrap_or_default();
    let (port, seconds) = (scene.postgres.port(), started.elapsed().as_secs_f64());
    progress.step("postgres", &format!("{version} on 127.0.0.1:{port}, up with its tables in {seconds:.1} s"));
    Ok(scene)
}

fn start_function(ingest: &Ingest, scene: &Scene, plan: &Plan, progress: &mut Progress) -> Result<Function> {
    let config = FunctionConfig::new(&ingest.path)
        .env("DATABASE_URL", &scene.url())
        .env("MASKING_KEY", &plan.masking_key)
        .env("RUST_LOG", "info");
    let function = Function::start(config)?;
    let init = function.warm_up().map_err(|failure| why_not_started(failure, &function))?;
    let took = milliseconds(init.context("the function was there before it was started")?.init);
    progress.step("function", &format!("{} is ready after {took} ms", path(&ingest.path)));
    Ok(function)
}

fn why_not_started(failure: InitFailure, function: &Function) -> anyhow::Error {
    let words = function.stdout() + &function.stderr();
    match words.trim() {
        "" => anyhow!(failure),
        words => anyhow!("{failure}\n{words}"),
    }
}

fn sending(plan: &Plan, pass: u16) -> String {
    let messages = counted(plan.messages.len(), "message");
    match (pass, plan.duplicates().len()) {
        (1, 0) => messages,
        (1, duplicates) => format!("{messages}, {duplicates} of them twice with the same id"),
        _ => format!("the same {messages} again, with the same ids"),
    }
}

fn show(facts: &Facts, plan: &Plan, ingest: &Ingest, kept: Option<&Kept>) -> Result<()> {
    let screen = summary::Screen {
        paint: Paint::stdout(),
        width: terminal::width(),
        command: own_command(),
        profile: ingest.profile.as_ref(),
        psql: kept.map(|kept| kept.psql(DATABASE)),
        stop: kept.map(|kept| kept.stop_command().to_owned()),
    };
    terminal::print(&summary::write(facts, plan, &screen)).context("write the summary")
}

/// How we were called, to call us again.
fn own_command() -> String {
    if ingest::is_cargo_run() {
        let profile = match Profile::ours() {
            Profile::Debug => String::new(),
            Profile::Release => "--release ".to_owned(),
            Profile::Other(name) => format!("--profile {name} "),
        };
        return format!("cargo run {profile}-p sqs-etl-cli --");
    }
    std::env::args().next().unwrap_or_else(|| "sqs-etl".to_owned())
}
