//! `sqs-etl send`: sends the lines of a file to a queue. Whether a body is any good is for the receiver to say.

mod attribute;
mod ledger;

use std::cell::Cell;
use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use clap::error::ErrorKind;
use futures_util::{StreamExt, stream};
use tokio::runtime::Builder;
use tokio::time::sleep;
use uuid::Uuid;

use crate::INTERRUPTED;
use crate::bodies::{self, Body};
use crate::interrupt::Interrupt;
use crate::sqs::outgoing::{Delivered, LARGEST, Outgoing, calls};
use crate::sqs::{Aws, Queue, QueueError};
use crate::terminal::{self, Progress};
use crate::words::{counted, number};

use attribute::Attribute;
use ledger::Ledger;

/// Calls that are under way at once, where no order is to be kept.
const CALLS_AT_ONCE: usize = 8;
/// For calls that are under way when we are asked to stop.
const GRACE: Duration = Duration::from_secs(5);
/// Lines that are named before anything is sent; who mends these finds the others at the next try.
const FAULTS_TOLD: usize = 10;
const DEFAULT_GROUP: &str = "sqs-etl-send";

const EXIT_CODES: &str = "\
Exit codes:
    0  all messages were sent
    1  some were not, or none; stderr says which and why
    2  the command line was wrong
  130  Ctrl-C or SIGTERM; stderr says how many were sent";

/// Send the lines of a file to a queue, one message each
///
/// Each line is one body, sent as it stands: whether it fits a contract is for the function or the worker to say. Before
/// anything is sent, all lines are checked against what SQS takes: 1 MiB with attributes, or less if the queue is set so,
/// and no control characters.
///
/// Ten messages go in one call, and eight calls at once. A call has a minute, for large messages on a slow line, and what
/// SQS cannot take for the moment is tried again for 30 seconds. A call whose answer was lost is repeated, so a standard
/// queue may then hold some messages twice. A FIFO queue holds none twice; its messages are sent in order, one call at a
/// time, and the first that fails ends it (those behind it in the same call may be in the queue by then; what was not sent
/// is told by line). A file that is sent twice is there twice.
///
/// Region and credentials come from where AWS's own tools have them; AWS_ENDPOINT_URL or a queue URL that is none of AWS's
/// leads to an emulator.
#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub struct Options {
    /// The file with one body a line, `-` for stdin; blank lines are skipped, but counted in line numbers
    file: PathBuf,

    /// The queue
    #[arg(long, value_name = "URL", env = "QUEUE_URL", hide_env_values = true)]
    queue_url: String,

    /// A message attribute of all messages, of type String; can be given up to ten times
    #[arg(long = "attribute", value_name = "NAME=VALUE")]
    attributes: Vec<Attribute>,

    /// The message group of all messages: its order is kept in a FIFO queue (there it is sqs-etl-send by default), and a
    /// standard queue is fair to groups
    #[arg(long, value_name = "ID", value_parser = attribute::group)]
    group: Option<String>,
}

/// Sends, and says what became of it.
pub fn run(options: Options, interrupt: &Interrupt) -> Result<ExitCode> {
    if let Err(fault) = attribute::check(&options.attributes) {
        clap::Error::raw(ErrorKind::ValueValidation, format!("{fault}\n")).exit();
    }
    let given = bodies::read(&options.file)?;
    let event_loop = Builder::new_current_thread().enable_all().build().context("start the event loop")?;
    event_loop.block_on(async {
        let queue = Aws::load(&options.queue_url).await?.queue(&options.queue_url)?;
        let largest = largest_message(&queue).await?;
        let (lines, messages) = outgoing(given.bodies, &options, queue.is_fifo());
        check(&lines, &messages, largest)?;
        interrupt.listen()?;
        let (ledger, error) = send(&queue, &messages, interrupt).await;
        tell(&ledger, &lines, queue.name())?;
        match error {
            _ if ledger.sent() == lines.len() => Ok(ExitCode::SUCCESS),
            _ if interrupt.is_raised() => Ok(INTERRUPTED.into()),
            Some(error) => Err(error.into()),
            None => Ok(ExitCode::FAILURE),
        }
    })
}

/// What the queue is set to. Whoever may only send is not told, and finds out by sending.
async fn largest_message(queue: &Queue) -> Result<usize, QueueError> {
    match queue.attributes().await {
        Ok(attributes) => Ok(attributes.largest_message.unwrap_or(LARGEST).min(LARGEST)),
        Err(error) if error.short_code().starts_with("AccessDenied") => Ok(LARGEST),
        Err(error) => Err(error),
    }
}

/// The messages, and the line of each. A FIFO queue knows a repeated message by its deduplication id: run and line.
fn outgoing(bodies: Vec<Body>, options: &Options, is_fifo: bool) -> (Vec<usize>, Vec<Outgoing>) {
    let run = Uuid::new_v4();
    let group = options.group.clone().or_else(|| is_fifo.then(|| DEFAULT_GROUP.to_owned()));
    let attributes: HashMap<_, _> = options.attributes.iter().map(Attribute::pair).collect();
    let message = |Body { line, text }| {
        let deduplication = is_fifo.then(|| format!("{run}-{line}"));
        (
            line,
            Outgoing { body: text, attributes: attributes.clone(), group: group.clone(), deduplication, trace: None },
        )
    };
    bodies.into_iter().map(message).unzip()
}

/// An error that names the lines that SQS would refuse.
fn check(lines: &[usize], messages: &[Outgoing], largest: usize) -> Result<()> {
    let faults = lines.iter().zip(messages).filter_map(|(line, message)| Some((line, message.check(largest).err()?)));
    let faults: Vec<_> = faults.map(|(line, fault)| format!("line {line} {fault}")).collect();
    if faults.is_empty() {
        return Ok(());
    }
    let told = faults[..faults.len().min(FAULTS_TOLD)].join("; ");
    match faults.len().saturating_sub(FAULTS_TOLD) {
        0 => bail!("{told}; nothing was sent"),
        more => bail!("{told}; and {} more; nothing was sent", counted(more, "line")),
    }
}

/// Sends until all is sent, we are asked to stop, or it is of no use to go on.
async fn send(queue: &Queue, messages: &[Outgoing], interrupt: &Interrupt) -> (Ledger, Option<QueueError>) {
    let mut ledger = Ledger::new(messages.len());
    let (started, is_over) = (Cell::new(0), Cell::new(false));
    let calls = calls(messages.iter().map(Outgoing::size));
    let going_on = calls.iter().take_while(|_| !is_over.get() && !interrupt.is_raised());
    let under_way = stream::iter(going_on).map(|call| {
        started.set(call.end);
        let messages: Vec<_> = messages[call.clone()].iter().collect();
        async move { (call.clone(), queue.deliver(&messages).await) }
    });
    let mut under_way = under_way.buffer_unordered(if queue.is_fifo() { 1 } else { CALLS_AT_ONCE });
    let mut progress = Progress::new();
    let mut error = None;
    let mut given_up = pin!(given_up(interrupt));
    loop {
        let next = tokio::select! {
            next = under_way.next() => next,
            () = &mut given_up => None,
        };
        let Some((call, delivered)) = next else { break };
        is_over.set(is_over.get() || is_the_end(&delivered, queue.is_fifo()));
        ledger.note(call, &delivered);
        error = error.or(delivered.error);
        let counts = format!("{} of {}", number(ledger.sent()), counted(messages.len(), "message"));
        progress.advancing("send", ledger.sent(), messages.len(), &counts);
    }
    ledger.close(started.get());
    (ledger, error)
}

/// A call that failed as a whole will not be the last to do so; and where order counts, nothing may come behind a failure.
fn is_the_end(delivered: &Delivered, is_ordered: bool) -> bool {
    delivered.error.is_some() || (is_ordered && !delivered.refused.is_empty())
}

/// Calls that are under way when we are asked to stop get some time.
async fn given_up(interrupt: &Interrupt) {
    interrupt.raised().await;
    sleep(GRACE).await;
}

fn tell(ledger: &Ledger, lines: &[usize], queue: &str) -> Result<()> {
    let sent = match ledger.sent() {
        sent if sent == lines.len() => counted(sent, "message"),
        sent => format!("{} of {}", number(sent), counted(lines.len(), "message")),
    };
    terminal::print(&format!("{sent} sent to {queue}\n")).context("say what was sent")?;
    for line in ledger.left(lines) {
        eprintln!("sqs-etl: {line}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(arguments: &[&str]) -> Options {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            options: Options,
        }
        let fixed = ["send", "f", "--queue-url", "http://h/1/q"];
        <Line as clap::Parser>::parse_from(fixed.iter().chain(arguments)).options
    }

    fn messages(texts: &[&str], arguments: &[&str], is_fifo: bool) -> (Vec<usize>, Vec<Outgoing>) {
        let body = |(text, line): (&&str, usize)| Body { line, text: (*text).to_owned() };
        outgoing(texts.iter().zip(1..).map(body).collect(), &options(arguments), is_fifo)
    }

    #[test]
    fn in_a_fifo_queue_each_line_of_each_run_has_its_own_deduplication_id_and_all_have_one_group() {
        let ids = || {
            let (_, messages) = messages(&["a", "a"], &[], true);
            assert!(messages.iter().all(|message| message.group.as_deref() == Some(DEFAULT_GROUP)));
            messages.into_iter().filter_map(|message| message.deduplication).collect::<Vec<_>>()
        };
        let all: std::collections::HashSet<_> = ids().into_iter().chain(ids()).collect();
        assert_eq!(all.len(), 4);
        let (_, messages) = messages(&["a"], &["--group", "g"], true);
        assert_eq!(messages[0].group.as_deref(), Some("g"));
    }

    #[test]
    fn in_a_standard_queue_there_is_a_group_only_if_it_is_asked_for() {
        let (_, plain) = messages(&["a"], &[], false);
        assert_eq!((plain[0].group.as_deref(), plain[0].deduplication.as_deref()), (None, None));
        let (_, fair) = messages(&["a"], &["--group", "g"], false);
        assert_eq!((fair[0].group.as_deref(), fair[0].deduplication.as_deref()), (Some("g"), None));
    }

    #[test]
    fn lines_that_sqs_would_refuse_are_named_and_not_quoted() {
        let fault = |texts: &[&str]| {
            let (lines, messages) = messages(texts, &["--attribute", "a=1"], false);
            check(&lines, &messages, 20).unwrap_err().to_string()
        };
        assert_eq!(
            fault(&["fine", "sec\u{1}ret", "secret-secret-secret"]),
            "line 2 has a character that SQS refuses, U+0001, at column 4; line 3 has 28 bytes with its attributes, and the \
             queue takes 20; nothing was sent"
        );
        let many = fault(&["\u{1}"; 12]);
        assert!(many.contains("line 10 ") && !many.contains("line 11 ") && many.contains("2 lines more"), "{many}");
    }
}
