//! `sqs-etl replay`: moves the messages of a dead-letter queue back, or says why they fail.
//!
//! SQS moves them itself where it can (`task`). Where it cannot (a queue that is no other queue's dead-letter queue, an
//! emulator without that call), they are received, sent and deleted here (`by_hand`).

mod by_hand;
mod route;
mod task;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use sqs_etl::assembly;
use tokio::runtime::Builder;

use crate::INTERRUPTED;
use crate::dry_run;
use crate::interrupt::Interrupt;
use crate::sqs::{Aws, Queue};
use crate::terminal;
use crate::words::counted;

use route::Route;

const EXIT_CODES: &str = "\
Exit codes:
    0  all was moved, or there was nothing to move; with --dry-run: all that were looked at fit, up to --limit
    1  something failed; stderr says what, and whether SQS goes on moving
    2  the command line was wrong
    3  with --dry-run: some messages do not fit the contract
  130  Ctrl-C or SIGTERM; stdout says how many were moved. With --dry-run all were given back";

/// Move the messages of a dead-letter queue back, or see why each fails
///
/// Messages go back to the queue that they came from, or to another one with --to. SQS does it itself
/// (StartMessageMoveTask); where it has no such call, or the queue is nobody's dead-letter queue, they are received, sent
/// and deleted one call after the other, with their attributes and trace headers, and in the order of their groups. SQS
/// counts approximately what it moves, and goes on if this command is killed; Ctrl-C calls it off.
///
/// SQS makes a new message of each that is moved, with a new id and a new time of sending. A contract that knows rows by
/// the message id (`once`) cannot recognise one that was stored before, and `$sent_date` is the day of the move.
///
/// --dry-run takes the messages through decode, validate and mask on this machine, says of each why it fails, without
/// values, and gives all of them back. Nothing is written, no database and no masking key is needed. On a terminal that is
/// a table, anywhere else a JSON line each on stdout. It counts as a receive of each message, for 2 minutes at a time they
/// are invisible to others, and of a FIFO queue only the first messages of each group can be seen.
#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub struct Options {
    /// The dead-letter queue
    #[arg(long, value_name = "URL", env = "DEAD_LETTER_QUEUE_URL", hide_env_values = true)]
    queue_url: String,

    /// The queue to move to; by default the one that the messages came from
    #[arg(long, value_name = "URL", conflicts_with = "dry_run")]
    to: Option<String>,

    /// Messages to move in a second; by default as many as SQS sees fit
    #[arg(long, value_name = "N", conflicts_with = "dry_run", value_parser = clap::value_parser!(u16).range(1..=500))]
    rate: Option<u16>,

    /// Move nothing: say of each message whether it fits the contract
    #[arg(long)]
    dry_run: bool,

    /// The contract of the dry run; by default the built-in one
    #[arg(long, value_name = "FILE", env = "CONTRACT_PATH", hide_env_values = true)]
    contract: Option<PathBuf>,

    /// Messages that a dry run looks at; stderr says if it stopped there
    #[arg(long, value_name = "N", default_value_t = 10_000, requires = "dry_run",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

/// How a move ended.
#[derive(Debug, Default)]
struct Moved {
    count: usize,
    /// It was SQS that counted.
    is_about: bool,
    /// How many stay because of an error that was told already.
    failed: usize,
    is_interrupted: bool,
}

/// Moves, or looks.
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<ExitCode> {
    let event_loop = Builder::new_current_thread().enable_all().build().context("start the event loop")?;
    event_loop.block_on(async {
        let aws = Aws::load(&options.queue_url).await?;
        let queue = aws.queue(&options.queue_url)?;
        if options.dry_run {
            look(options, &queue, interrupt).await
        } else {
            move_back(options, &aws, &queue, interrupt).await
        }
    })
}

async fn look(options: &Options, queue: &Queue, interrupt: &Interrupt) -> Result<ExitCode> {
    let contract = options.contract.as_deref().filter(|path| !path.as_os_str().is_empty());
    let contract = assembly::contract(contract)?;
    interrupt.listen()?;
    Ok(dry_run::run(queue, contract, options.limit as usize, interrupt).await?.exit_code())
}

async fn move_back(options: &Options, aws: &Aws, queue: &Queue, interrupt: &Interrupt) -> Result<ExitCode> {
    let attributes = queue.attributes().await?;
    let waiting = attributes.visible + attributes.delayed + attributes.in_flight;
    if waiting == 0 {
        terminal::print(&format!("{} is empty by SQS's count\n", queue.name()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let to = options.to.as_deref().map(|url| aws.queue(url)).transpose()?;
    let route = Route::find(aws, queue, attributes, to).await?;
    interrupt.listen()?;
    let rate = options.rate.map(usize::from);
    let task = if route.is_for_sqs() { task::start(queue, &route, rate).await? } else { None };
    let moved = match task {
        Some(task) => {
            route.announce(waiting, "SQS moves them");
            task.follow(interrupt).await
        }
        None => {
            let to = route.single(aws)?;
            route.announce(waiting, route.why_by_hand());
            by_hand::run(queue, &to, rate, interrupt).await
        }
    };
    // Behind an error some may have been moved, and what SQS tells is about.
    if !matches!(moved, Ok(Moved { count: 0, is_about: false, .. })) {
        eprintln!(
            "Each that was moved has a new message id and time of sending: a contract that knows rows by the message id \
             cannot tell that it stored one before."
        );
    }
    tell(&moved?, queue, &route)
}

fn tell(moved: &Moved, queue: &Queue, route: &Route) -> Result<ExitCode> {
    let (from, to) = (queue.name(), route.destination());
    let about = if moved.is_about { "about " } else { "" };
    terminal::print(&format!("{about}{} moved from {from} to {to}\n", counted(moved.count, "message")))?;
    if moved.is_interrupted {
        eprintln!("sqs-etl: interrupted; the others are still in {from}");
        return Ok(INTERRUPTED.into());
    }
    if moved.failed > 0 {
        eprintln!("sqs-etl: {} could not be moved and stay in {from}", counted(moved.failed, "message"));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
