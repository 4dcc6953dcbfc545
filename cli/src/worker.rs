//! `sqs-etl worker`: the function's pipeline without Lambda. It assembles; the conductor runs what it makes.
//!
//! A received message is in one of three places: gathered for a batch, in a batch, or settled. Only what the database has
//! committed is deleted, everything else goes back to the queue. So whatever kills the worker, each message is still in
//! the queue or in the table, and a message that is in both changes nothing when it comes again.

mod backoff;
mod batch;
mod conductor;
mod gather;
pub mod health;
mod lease;
mod tally;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use sqs_etl::assembly::{self, Assembly};
use sqs_etl::config::Config;
use sqs_etl::report;
use sqs_etl::secrets::Secrets;
use sqs_etl::telemetry;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::INTERRUPTED;
use crate::dry_run;
use crate::interrupt::Interrupt;
use crate::log;
use crate::sqs::{Attributes, Aws, LONGEST_INVISIBLE, Queue};

use backoff::Backoff;
use batch::{BATCH_ERROR, Work};
use conductor::{Conductor, End};
use health::Pulse;
use lease::Leases;
use tally::Tally;

/// With less, a message would be visible again before the worker could ask for more time.
const SHORTEST_VISIBILITY: Duration = Duration::from_secs(5);
/// Of the time to stop in, what is kept back to tell SQS.
const SETTLE_RESERVE: Duration = Duration::from_secs(3);
const HANDED_BACK: u8 = 3;
const OUT_OF_SERVICE: u8 = 4;

const EXIT_CODES: &str = "\
Exit codes:
    0  stopped by SIGTERM or Ctrl-C with everything in hand settled; with --drain: the queue stayed empty, all is stored
    1  could not start, or the queue cannot be used; the last line says why
    2  the command line was wrong
    3  with --drain: the queue stayed empty, but messages were handed back; with --dry-run: some message does not fit
    4  with --drain: the database stayed out of service; its messages were handed back untouched
  130  with --drain: stopped by SIGTERM or Ctrl-C before the queue was empty; what was in hand is settled

Settings come from the environment, the same as the function's: DATABASE_URL or DB_SECRET_ARN, MASKING_KEY or
MASKING_SECRET_ARN, CONTRACT_PATH, DB_SSLMODE, RUST_LOG and the others that README.md lists. AWS credentials, region and
endpoint are looked for where AWS's own tools look.";

/// Take messages off a queue into PostgreSQL without Lambda: on ECS, Kubernetes, a VM, or once by --drain
///
/// The same contract, masks and guarantees as the function's. Messages are gathered to batches, written, and deleted when
/// they are committed. A message that fails is handed back, each time for longer, until the queue moves it to its
/// dead-letter queue. While the database is away the worker keeps what it has, takes no more, and tries again.
/// SIGTERM or Ctrl-C: it takes no more, finishes what is in hand and ends; a second time: it ends at once, and what was in hand
/// comes back after the queue's visibility timeout.
#[derive(Args)]
#[command(after_help = EXIT_CODES)]
pub struct Options {
    /// The queue's URL, as `aws sqs get-queue-url` tells it
    #[arg(long, value_name = "URL", env = "QUEUE_URL")]
    queue_url: String,

    /// Most messages in a batch; 6 MiB of bodies fill one as well
    #[arg(long, value_name = "N", env = "BATCH_SIZE", default_value_t = 1_000,
          value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch_size: u16,

    /// How long a message waits for its batch to fill, in milliseconds
    #[arg(long, value_name = "MS", env = "BATCH_WINDOW_MS", default_value_t = 200,
          value_parser = clap::value_parser!(u32).range(0..=300_000))]
    batch_window: u32,

    /// Batches that are written at once, each over a connection of its own
    #[arg(long, value_name = "N", env = "DB_POOL_SIZE", default_value_t = 2,
          value_parser = clap::value_parser!(u16).range(1..=100))]
    concurrency: u16,

    /// Most receives under way at once while there are messages; SQS gives up to 10 messages a receive
    #[arg(long, value_name = "N", env = "RECEIVERS", default_value_t = 8,
          value_parser = clap::value_parser!(u16).range(1..=200))]
    receivers: u16,

    /// How long the database may take for a batch before it is tried again, in seconds
    #[arg(long, value_name = "SECONDS", env = "BATCH_TIMEOUT_SECONDS", default_value_t = 30,
          value_parser = clap::value_parser!(u32).range(1..=3_600))]
    batch_timeout: u32,

    /// How long messages are invisible to others, in seconds, renewed while they are in hand; by default as the queue has it
    #[arg(long, value_name = "SECONDS", env = "VISIBILITY_TIMEOUT_SECONDS",
          value_parser = clap::value_parser!(u32).range(5..=43_200))]
    visibility_timeout: Option<u32>,

    /// How long a message that failed once stays invisible, in seconds, less up to half of it by chance; doubles each time
    #[arg(long, value_name = "SECONDS", env = "RETRY_DELAY_SECONDS", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(0..=43_200))]
    retry_delay: u32,

    /// The most that it doubles to, in seconds; by default the queue's visibility timeout
    #[arg(long, value_name = "SECONDS", env = "MAX_RETRY_DELAY_SECONDS",
          value_parser = clap::value_parser!(u32).range(0..=43_200))]
    max_retry_delay: Option<u32>,

    /// How long ending may take after SIGTERM, in seconds; less than ECS's stopTimeout or Kubernetes's grace period
    #[arg(long, value_name = "SECONDS", env = "GRACE_SECONDS", default_value_t = 25,
          value_parser = clap::value_parser!(u32).range(2..=3_600))]
    grace: u32,

    /// A file that is touched every few seconds for as long as the worker lives; see `sqs-etl worker-health`
    #[arg(long, value_name = "FILE", env = "HEALTH_FILE")]
    health_file: Option<PathBuf>,

    /// A contract in place of the built-in one
    #[arg(long, value_name = "FILE", env = "CONTRACT_PATH", hide_env_values = true)]
    contract: Option<PathBuf>,

    /// Stop when the queue has stayed empty
    #[arg(long)]
    drain: bool,

    /// How long the queue must have stayed empty, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5, requires = "drain",
          value_parser = clap::value_parser!(u32).range(1..=3_600))]
    drain_after: u32,

    /// How long the database, or the queue, may be away before a drain gives up, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120, requires = "drain",
          value_parser = clap::value_parser!(u32).range(0..=86_400))]
    give_up_after: u32,

    /// Store nothing: say of each message whether it fits the contract, and give all of them back
    ///
    /// As `sqs-etl replay --dry-run` does for dead letters: no database and no masking key is needed, and each look counts as
    /// a receive. The exit code is 3 if some message does not fit.
    #[arg(long, conflicts_with = "drain")]
    dry_run: bool,

    /// Messages that a dry run looks at
    #[arg(long, value_name = "N", default_value_t = 10_000, requires = "dry_run",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
}

/// What the options say, in the units that are counted with.
struct Limits {
    batch_size: usize,
    window: Duration,
    concurrency: usize,
    receivers: usize,
    batch_timeout: Duration,
    visibility: Duration,
    backoff: Backoff,
    grace: Duration,
    /// None: until we are told to stop.
    drain_after: Option<Duration>,
    /// How long a drain puts up with a database or a queue that is away.
    patience: Option<Duration>,
}

/// Once we are asked to stop: by when.
type Stop = watch::Receiver<Option<Ending>>;

/// The time there is to stop in.
#[derive(Clone, Copy)]
struct Ending {
    /// From here on nobody waits for the database any more: SQS is told what is done and what is not.
    settle: Instant,
    /// Whoever asked kills us from here on.
    end: Instant,
}

impl Ending {
    fn within(grace: Duration) -> Self {
        let end = Instant::now() + grace;
        Self { settle: end - SETTLE_RESERVE.min(grace / 2), end }
    }
}

/// Runs the worker, or its dry run.
pub fn run(options: &Options, interrupt: &Interrupt) -> Result<ExitCode> {
    let event_loop = Builder::new_multi_thread().enable_all().build().context("start the event loop")?;
    let end = event_loop.block_on(async {
        if options.dry_run { rehearse(options, interrupt).await } else { work(options, interrupt).await }
    });
    // What is still under way was given up; nobody waits for it.
    event_loop.shutdown_background();
    end
}

async fn rehearse(options: &Options, interrupt: &Interrupt) -> Result<ExitCode> {
    let contract = assembly::contract(filled(options.contract.as_ref()))?;
    let queue = Aws::load(&options.queue_url).await?.queue(&options.queue_url);
    interrupt.listen()?;
    Ok(dry_run::run(&queue, contract, options.limit as usize, interrupt).await?.exit_code())
}

async fn work(options: &Options, interrupt: &Interrupt) -> Result<ExitCode> {
    let mut config = Config::from_env()?;
    config.database.pool_size = options.concurrency.into();
    config.contract_path = filled(options.contract.as_ref()).map(Path::to_owned);
    let aws = Aws::load(&options.queue_url).await?;
    let queue = aws.queue(&options.queue_url);
    let telemetry = telemetry::init(&telemetry::Settings {
        rust_log: config.rust_log.as_deref().or(log::for_a_person().then_some("warn")),
        namespace: &config.metrics_namespace,
        dimension: ("QueueName", queue.name()),
        units: &[&report::METRICS[..], &[BATCH_ERROR]].concat(),
        write: if log::for_a_person() { log::to_a_person } else { telemetry::stdout },
    });
    let attributes = queue.attributes().await?;
    let limits = options.limits(&attributes)?;
    config.aws.region = config.aws.region.or_else(|| aws.config.region().map(ToString::to_string));
    let secrets = match aws.config.credentials_provider() {
        Some(identity) => Secrets::with_identity(&config, identity),
        None => Secrets::new(&config),
    };
    let Assembly { pipeline, .. } = Assembly::new(&config, secrets).await?;
    if attributes.max_receive_count.is_none() {
        warn!("the queue has no dead-letter queue: a bad message comes back until it is too old");
    }
    let stop = listen(interrupt, limits.grace)?;
    let leases = Leases::new(queue.clone(), limits.visibility);
    tokio::spawn(Arc::clone(&leases).keep());
    tell_start(&queue, &attributes, &limits);
    let work = Work {
        queue: queue.clone(),
        pipeline,
        leases: Arc::clone(&leases),
        backoff: limits.backoff,
        batch_timeout: limits.batch_timeout,
        reserve: config.deadline_reserve,
        patience: limits.patience,
        stop: stop.clone(),
    };
    let pulse = filled(options.health_file.as_ref()).map(Pulse::start).transpose()?;
    let mut tally = Tally::new(telemetry);
    let end = Conductor::new(queue.clone(), limits, Arc::new(work), leases, stop).run(&mut tally, pulse.as_ref()).await;
    tell_end(&queue, &tally, options.drain).await;
    conclude(end, &tally, options.drain)
}

/// An empty setting counts as none, as in all of the environment.
fn filled(path: Option<&PathBuf>) -> Option<&Path> {
    path.map(PathBuf::as_path).filter(|path| !path.as_os_str().is_empty())
}

impl Options {
    fn limits(&self, queue: &Attributes) -> Result<Limits> {
        let seconds = |number: u32| Duration::from_secs(number.into());
        let visibility = self.visibility_timeout.map_or(queue.visibility_timeout, seconds);
        if visibility < SHORTEST_VISIBILITY {
            bail!(
                "the queue makes messages visible again after {} s, before they could be stored: give it a visibility \
                 timeout of 30 s or more, or the worker one by --visibility-timeout",
                visibility.as_secs()
            );
        }
        let longest = self.max_retry_delay.map_or(queue.visibility_timeout, seconds).min(LONGEST_INVISIBLE);
        Ok(Limits {
            batch_size: self.batch_size.into(),
            window: Duration::from_millis(self.batch_window.into()),
            concurrency: self.concurrency.into(),
            receivers: self.receivers.into(),
            batch_timeout: seconds(self.batch_timeout),
            visibility,
            backoff: Backoff { first: seconds(self.retry_delay), longest },
            grace: seconds(self.grace),
            drain_after: self.drain.then(|| seconds(self.drain_after)),
            patience: self.drain.then(|| seconds(self.give_up_after)),
        })
    }
}

/// Listens for SIGTERM and Ctrl-C. Whoever asks twice does not want to wait: what was in hand becomes visible by itself.
fn listen(interrupt: &Interrupt, grace: Duration) -> Result<Stop> {
    interrupt.listen()?;
    let interrupt = interrupt.clone();
    let (asked, stop) = watch::channel(None);
    tokio::spawn(async move {
        interrupt.raised().await;
        info!(grace_s = grace.as_secs(), "asked to stop");
        asked.send_replace(Some(Ending::within(grace)));
    });
    Ok(stop)
}

fn tell_start(queue: &Queue, attributes: &Attributes, limits: &Limits) {
    info!(
        queue = queue.name(),
        visible = attributes.visible,
        in_flight = attributes.in_flight,
        max_receive_count = attributes.max_receive_count,
        batch_size = limits.batch_size,
        concurrency = limits.concurrency,
        visibility_s = limits.visibility.as_secs(),
        drain = limits.drain_after.is_some(),
        "worker started"
    );
}

async fn tell_end(queue: &Queue, tally: &Tally, drain: bool) {
    tally.tell(queue.name());
    if !drain {
        return;
    }
    let Ok(attributes) = queue.attributes().await else { return };
    if attributes.in_flight + attributes.delayed > 0 {
        let (in_flight, delayed) = (attributes.in_flight, attributes.delayed);
        warn!(
            in_flight,
            delayed, "messages of the queue are invisible for now: with somebody else, or to be tried later"
        );
    }
}

fn conclude(end: End, tally: &Tally, drain: bool) -> Result<ExitCode> {
    Ok(match end {
        End::Stopped if drain => INTERRUPTED.into(),
        End::Drained if tally.handed_back > 0 => HANDED_BACK.into(),
        End::Stopped | End::Drained => ExitCode::SUCCESS,
        End::OutOfService => OUT_OF_SERVICE.into(),
        End::QueueFailed(error) => return Err(error.into()),
        End::Undeletable(code) => bail!(
            "messages are stored, but SQS does not let us delete them ({code}): the role needs sqs:DeleteMessage on the queue"
        ),
    })
}
