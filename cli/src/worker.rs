//! `sqs-etl worker`: the function's pipeline without Lambda. It assembles; the conductor runs what it makes.
//!
//! A received message is in one of three places: gathered for a batch, in a batch, or settled. Only what the database has
//! committed is deleted, everything else goes back to the queue. So whatever kills the worker, each message is still in
//! the queue or in the table, and a message that is in both changes nothing when it comes again.

mod batch;
mod conductor;
mod gather;
pub mod health;
mod lease;
mod tally;

use std::future::pending;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use sqs_etl::assembly::{self, Assembly};
use sqs_etl::config::Config;
use sqs_etl::report;
use sqs_etl::secrets::Secrets;
use sqs_etl::telemetry::{self, Telemetry};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use crate::INTERRUPTED;
use crate::backoff::Backoff;
use crate::dry_run;
use crate::interrupt::Interrupt;
use crate::log;
use crate::sqs::{Attributes, Aws, CALL, LONGEST_INVISIBLE, Queue};

use batch::{BATCH_ERROR, Work};
use conductor::{Conductor, End};
use health::Pulse;
use lease::Leases;
use tally::Tally;

/// With less, a message would be visible again before the worker could ask for more time.
const SHORTEST_VISIBILITY: Duration = Duration::from_secs(5);
/// Of the time to stop in, what is kept back to tell SQS.
const SETTLE_RESERVE: Duration = Duration::from_secs(3);
/// Messages of one queue that may be invisible at once, by the quotas of SQS.
const IN_FLIGHT: usize = 120_000;
const IN_FLIGHT_FIFO: usize = 20_000;
/// Eight calls at once, of 40 ms each.
const RENEWALS_A_SECOND: f64 = 200.0;
const TELL_LIMIT: Duration = Duration::from_secs(3);
const HANDED_BACK: u8 = 3;
const OUT_OF_SERVICE: u8 = 4;

const EXIT_CODES: &str = "\
Exit codes:
    0  stopped by SIGTERM or Ctrl-C; with --drain: the queue stayed empty, and all that was received is stored; with
       --dry-run: all messages that were looked at fit the contract
    1  could not start, or the queue cannot be used; the last line says why. With --dry-run also: not all could be given back
    2  the command line was wrong
    3  with --drain: the queue stayed empty, but messages were handed back; with --dry-run: some message does not fit
    4  with --drain: the database stayed out of service; its messages were handed back untouched
  130  with --drain or --dry-run: stopped by SIGTERM or Ctrl-C before the end; without: stopped by a second signal

Settings come from the environment, the same as the function's: DATABASE_URL or DB_SECRET_ARN, MASKING_KEY or
MASKING_SECRET_ARN, CONTRACT_PATH, DB_SSLMODE, RUST_LOG and the others that README.md lists. AWS credentials, region and
endpoint are looked for where AWS's own tools look.";

/// Take messages off a queue into PostgreSQL without Lambda: on ECS, Kubernetes, a VM, or once by --drain
///
/// The same contract, masks and guarantees as the function's. Messages are gathered to batches, written, and deleted when
/// they are committed. A message that fails is handed back, each time for longer, until the queue moves it to its
/// dead-letter queue. While the database is away the worker keeps what it has, takes no more, and tries again.
/// SIGTERM or Ctrl-C: it takes no more, finishes what is in hand and ends; what cannot be finished in time is given back. A second
/// time: it ends at once, and what was in hand comes back after the queue's visibility timeout.
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
          value_parser = clap::value_parser!(u32).range(1..=43_200))]
    retry_delay: u32,

    /// The most that it doubles to, in seconds; by default the queue's visibility timeout
    #[arg(long, value_name = "SECONDS", env = "MAX_RETRY_DELAY_SECONDS",
          value_parser = clap::value_parser!(u32).range(1..=43_200))]
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
    ///
    /// Bad messages of a queue without a dead-letter queue come back for ever: such a drain ends only if --max-retry-delay is
    /// longer than --drain-after.
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

    /// Messages that a dry run looks at; stderr says if it stopped there
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

/// Once we are to stop: by when.
type Stop = watch::Receiver<Option<Ending>>;

/// Ends when it is time to tell SQS of all that is in hand, lest we are killed before.
async fn settling(stop: &Stop) {
    let asked = stop.clone().wait_for(Option::is_some).await.map(|ending| *ending);
    let Ok(Some(ending)) = asked else { return pending().await };
    sleep_until(ending.settle).await;
}

/// Tells everybody to stop, whatever the cause.
#[derive(Clone)]
struct Stopping {
    told: Arc<watch::Sender<Option<Ending>>>,
    grace: Duration,
}

impl Stopping {
    fn new(grace: Duration) -> Self {
        Self { told: Arc::new(watch::Sender::new(None)), grace }
    }

    fn stop(&self) -> Stop {
        self.told.subscribe()
    }

    /// The time to stop in, which begins when the first calls this.
    fn begin(&self) -> Ending {
        self.told.send_if_modified(|ending| {
            let is_new = ending.is_none();
            ending.get_or_insert_with(|| Ending::within(self.grace));
            is_new
        });
        self.told.borrow().expect("it was just set")
    }
}

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
    // From here on: a container's first process would not even hear a signal that nobody listens to.
    interrupt.listen()?;
    let end = event_loop.block_on(async {
        if options.dry_run { rehearse(options, interrupt).await } else { work(options, interrupt).await }
    });
    // What is still under way was given up; nobody waits for it.
    event_loop.shutdown_background();
    end
}

async fn rehearse(options: &Options, interrupt: &Interrupt) -> Result<ExitCode> {
    let contract = assembly::contract(options.contract.as_deref())?;
    let queue = tokio::select! {
        aws = Aws::load(&options.queue_url) => aws?.queue(&options.queue_url)?,
        () = interrupt.raised() => return Ok(INTERRUPTED.into()),
    };
    Ok(dry_run::run(&queue, contract, options.limit as usize, interrupt).await?.exit_code())
}

async fn work(options: &Options, interrupt: &Interrupt) -> Result<ExitCode> {
    let (conductor, telemetry) = tokio::select! {
        started = start(options) => started?,
        // Nothing is in hand yet.
        () = interrupt.raised() => return Ok(stopped(options.drain)),
    };
    let stopping = conductor.stopping();
    let (interrupt, told) = (interrupt.clone(), stopping.clone());
    tokio::spawn(async move {
        interrupt.raised().await;
        info!(grace_s = told.grace.as_secs(), "asked to stop");
        told.begin();
    });
    let pulse = options.health_file.as_deref().map(Pulse::start).transpose()?;
    let queue = conductor.queue().clone();
    let mut tally = Tally::new(telemetry);
    let end = conductor.run(&mut tally, pulse.as_ref()).await;
    tally.tell(queue.name());
    if matches!(end, End::Drained) {
        tell_invisible(&queue).await;
    }
    conclude(end, &tally, options.drain)
}

/// All that can fail before the first message is received.
async fn start(options: &Options) -> Result<(Conductor, Telemetry)> {
    let mut config = Config::from_env()?;
    config.database.pool_size = options.concurrency.into();
    config.contract_path = options.contract.clone();
    let aws = Aws::load(&options.queue_url).await?;
    let queue = aws.queue(&options.queue_url)?;
    let telemetry = telemetry::init(&telemetry::Settings {
        rust_log: config.rust_log.as_deref().or(log::for_a_person().then_some("warn")),
        namespace: &config.metrics_namespace,
        dimension: ("QueueName", queue.name()),
        units: &[&report::METRICS[..], &[BATCH_ERROR]].concat(),
        write: if log::for_a_person() { log::to_a_person } else { telemetry::stdout },
    });
    let attributes = queue.attributes().await?;
    let limits = options.limits(&queue, &attributes)?;
    config.aws.region = config.aws.region.or_else(|| aws.config.region().map(ToString::to_string));
    let secrets = match aws.config.credentials_provider() {
        Some(identity) => Secrets::with_identity(&config, identity),
        None => Secrets::new(&config),
    };
    let Assembly { pipeline, .. } = Assembly::new(&config, secrets).await?;
    if attributes.max_receive_count.is_none() {
        warn!("the queue has no dead-letter queue: a bad message comes back until it is too old");
    }
    let stopping = Stopping::new(limits.grace);
    let leases = Leases::new(queue.clone(), limits.visibility);
    tokio::spawn(Arc::clone(&leases).keep(stopping.stop()));
    tell_start(&queue, &attributes, &limits);
    let work = Work {
        queue: queue.clone(),
        pipeline,
        leases: Arc::clone(&leases),
        backoff: limits.backoff,
        batch_timeout: limits.batch_timeout,
        reserve: config.deadline_reserve,
        patience: limits.patience,
        stop: stopping.stop(),
        writes: AtomicU64::new(0),
        pausing: AtomicUsize::new(0),
    };
    Ok((Conductor::new(queue, limits, Arc::new(work), leases, stopping), telemetry))
}

impl Options {
    fn limits(&self, queue: &Queue, attributes: &Attributes) -> Result<Limits> {
        let seconds = |number: u32| Duration::from_secs(number.into());
        let visibility = self.visibility_timeout.map_or(attributes.visibility_timeout, seconds);
        if visibility < SHORTEST_VISIBILITY {
            bail!(
                "the queue makes messages visible again after {} s, before they could be stored: give it a visibility \
                 timeout of 30 s or more, or the worker one by --visibility-timeout",
                visibility.as_secs()
            );
        }
        let longest = self.max_retry_delay.map_or(visibility, seconds).min(LONGEST_INVISIBLE);
        let limits = Limits {
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
        };
        limits.check(queue)?;
        Ok(limits)
    }
}

impl Limits {
    /// Batches that are written, and one that waits.
    fn most_in_hand(&self) -> usize {
        (self.concurrency + 1) * self.batch_size.max(CALL)
    }

    /// What is in hand must be kept invisible, and SQS lets a queue have so many invisible messages only.
    fn check(&self, queue: &Queue) -> Result<()> {
        let most = self.most_in_hand();
        let allowed = if queue.is_fifo() { IN_FLIGHT_FIFO } else { IN_FLIGHT };
        let renewals = (most / CALL) as f64 / (self.visibility.as_secs_f64() / 3.0);
        if most > allowed || renewals > RENEWALS_A_SECOND {
            bail!(
                "up to {most} messages would be in hand, too many to keep invisible to others: a queue has at most {allowed} \
                 such messages, and each is renewed every {} s; lower --batch-size or --concurrency, or raise the \
                 visibility timeout",
                self.visibility.as_secs() / 3
            );
        }
        Ok(())
    }
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

/// What a drain has not seen.
async fn tell_invisible(queue: &Queue) {
    let Ok(Ok(attributes)) = timeout(TELL_LIMIT, queue.attributes()).await else { return };
    let (in_flight, delayed) = (attributes.in_flight, attributes.delayed);
    if in_flight + delayed > 0 {
        warn!(
            in_flight,
            delayed, "messages of the queue are invisible for now: with somebody else, or to be tried later"
        );
    }
}

fn stopped(drain: bool) -> ExitCode {
    if drain { INTERRUPTED.into() } else { ExitCode::SUCCESS }
}

fn conclude(end: End, tally: &Tally, drain: bool) -> Result<ExitCode> {
    Ok(match end {
        End::Stopped => stopped(drain),
        End::Drained if tally.released > 0 => OUT_OF_SERVICE.into(),
        End::Drained if tally.handed_back > 0 => HANDED_BACK.into(),
        End::Drained => ExitCode::SUCCESS,
        End::OutOfService => OUT_OF_SERVICE.into(),
        End::QueueFailed(error) => return Err(error.into()),
        End::Undeletable(refused) => {
            bail!("messages are stored, but cannot be deleted (sqs:DeleteMessage): {}", refused.reason())
        }
    })
}
