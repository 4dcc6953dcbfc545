//! `sqs-etl`, the operator's tool: reads the command line and hands over to one command.

mod backoff;
mod bodies;
mod demo;
mod dry_run;
mod ingest;
mod interrupt;
mod log;
mod replay;
mod scene;
mod send;
mod sqs;
mod start_time;
mod terminal;
mod words;
mod worker;

use std::env;
use std::panic::PanicHookInfo;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::{OsStr, Resettable};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use interrupt::Interrupt;

/// The exit code of a run that Ctrl-C or SIGTERM ended, as shells have it for Ctrl-C.
const INTERRUPTED: u8 = 130;

const EXIT_CODES: &str = "\
Exit codes:
    0  all went well
    1  something failed; the last line on stderr says what
    2  the command line was wrong
  130  Ctrl-C or SIGTERM; nothing is left behind";

/// Try out and measure the sqs-etl Lambda function without AWS, run its pipeline as a worker, send messages and dead letters
#[derive(Parser)]
#[command(name = "sqs-etl", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Options),
    Replay(replay::Options),
    Send(send::Options),
    StartTime(start_time::Options),
    Worker(worker::Options),
    WorkerHealth(worker::health::Options),
}

/// Where the function's binary is.
#[derive(clap::Args)]
struct IngestOption {
    /// The function's binary; by default built by cargo if we run under it, else the one beside this program
    #[arg(long, value_name = "PATH")]
    ingest: Option<PathBuf>,
}

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(report_panic));
    let arguments = without_empty_variables(Arguments::command()).get_matches();
    let arguments = Arguments::from_arg_matches(&arguments).unwrap_or_else(|error| error.exit());
    let interrupt = Interrupt::default();
    let result = match arguments.command {
        Command::Demo(options) => demo::run(&options, &interrupt),
        // These say themselves what an interrupted run has done.
        Command::Replay(options) => return replay::run(&options, &interrupt).unwrap_or_else(|error| fail(&error)),
        Command::Send(options) => return send::run(options, &interrupt).unwrap_or_else(|error| fail(&error)),
        Command::StartTime(options) => start_time::run(&options, &interrupt),
        Command::Worker(options) => return worker::run(&options, &interrupt).unwrap_or_else(|error| fail(&error)),
        Command::WorkerHealth(options) => worker::health::check(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whatever failed then failed because of it: the terminal's Ctrl-C reaches our children too.
        Err(_) if interrupt.is_raised() => {
            eprintln!("sqs-etl: interrupted; nothing is left behind");
            INTERRUPTED.into()
        }
        Err(error) => fail(&error),
    }
}

/// An empty environment variable counts as none, in all of the project.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty = |arg: &clap::Arg| arg.get_env().and_then(env::var_os).is_some_and(|value| value.is_empty());
    command.mut_subcommands(|command| {
        command.mut_args(|arg| if is_empty(&arg) { arg.env(Resettable::<OsStr>::Reset) } else { arg })
    })
}

/// The place only: a panic's message may quote a message's body.
fn report_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    eprintln!("sqs-etl: panicked at {location}; this is a defect of sqs-etl");
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("sqs-etl: {error:#}");
    ExitCode::FAILURE
}
