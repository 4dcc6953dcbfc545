//! The SQS event source mapping: it receives batches, makes the event, has the function invoked and
//! deletes what succeeded. It does not scale, back off, filter or poll by itself, and while the
//! function runs its clock stands still.

mod event;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::milliseconds;
use crate::function::{Function, Invocation, InvocationResult};
use crate::queue::{Queue, Received};
use crate::response::{Verdict, verdict};

use event::Event;

/// The largest event that Lambda takes, in bytes.
pub const LARGEST_EVENT: usize = 6 * 1024 * 1024;

/// The mapping's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingConfig {
    /// Messages in one event: up to 10, or up to 10,000 from a standard queue with a batching window.
    pub batch_size: usize,
    /// How long to gather a batch that is not full, in whole seconds up to 300. Standard queues only.
    pub batching_window: Duration,
    /// `FunctionResponseTypes: [ReportBatchItemFailures]`.
    pub report_batch_item_failures: bool,
    /// The function's timeout.
    pub function_timeout: Duration,
    /// How many invocations may run at once.
    pub concurrency: usize,
    /// After how many deliveries of one message [`Mapping::run_until_idle`] gives up. It matters only
    /// without a dead-letter queue, where poison would go round for ever.
    pub delivery_limit: u32,
}

impl Default for MappingConfig {
    /// AWS's defaults (10 messages, no window), but with partial batch responses on; a timeout of 5
    /// seconds, one invocation at a time, and 100 deliveries.
    fn default() -> Self {
        Self {
            batch_size: 10,
            batching_window: Duration::ZERO,
            report_batch_item_failures: true,
            function_timeout: Duration::from_secs(5),
            concurrency: 1,
            delivery_limit: 100,
        }
    }
}

/// A setting that AWS refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MappingError {
    /// It depends on the kind of queue.
    #[error("batch_size is {size}, but {queue} allows 1 to {most}")]
    BatchSize {
        /// What was asked for.
        size: usize,
        /// The queue's name.
        queue: String,
        /// What it allows.
        most: usize,
    },
    /// Above 10 messages.
    #[error("a batch_size above 10 needs a batching_window of at least 1 second")]
    WindowTooShort,
    /// 0 to 300 whole seconds.
    #[error("batching_window must be whole seconds, 300 at most")]
    BadWindow,
    /// FIFO queues have none.
    #[error("{0} is a FIFO queue, which takes no batching_window")]
    WindowOnFifo(String),
    /// A message would be delivered again while its first invocation still runs.
    #[error(
        "the visibility timeout of {queue} is {visibility:?}, but it must be at least \
         the batching window and the function's timeout together, {needed:?}"
    )]
    VisibilityTooShort {
        /// The queue's name.
        queue: String,
        /// Its visibility timeout.
        visibility: Duration,
        /// The batching window and the function's timeout. AWS asks for the latter only; a longer
        /// window would let a batch's own messages come back while it is gathered.
        needed: Duration,
    },
    /// None at all.
    #[error("concurrency must be at least 1")]
    NoConcurrency,
}

/// What became of one batch.
#[derive(Clone, Debug)]
pub struct BatchReport {
    /// Its messages, in the event's order.
    pub message_ids: Vec<String>,
    /// What the mapping did with them.
    pub verdict: Verdict,
    /// The function's side of it.
    pub invocation: Invocation,
    /// The event's size.
    pub event_bytes: usize,
    /// When it was received, by the queue's clock, in milliseconds since the epoch.
    pub received_ms: u64,
}

/// What became of all.
#[derive(Clone, Debug, Default)]
pub struct RunReport {
    /// Batches delivered.
    pub batches: usize,
    /// Messages deleted.
    pub deleted: usize,
    /// How often each message was delivered, by its id.
    pub deliveries: HashMap<String, u32>,
    /// False if a message was delivered [`MappingConfig::delivery_limit`] times: the queue is not empty.
    pub idle: bool,
}

/// Between one queue and one function.
#[derive(Clone, Debug)]
pub struct Mapping {
    queue: Arc<Queue>,
    config: MappingConfig,
}

impl Mapping {
    /// Checks the settings as AWS does when a mapping is created.
    pub fn new(queue: &Arc<Queue>, config: MappingConfig) -> Result<Self, MappingError> {
        check(queue, &config)?;
        Ok(Self { queue: Arc::clone(queue), config })
    }

    /// Receives one batch at the clock's time, has it invoked and applies the verdict. `None` if no
    /// message is visible. The clock stays where it is, but for a batching window.
    pub fn run_once(&self, invoke: impl FnOnce(String) -> Invocation) -> Option<BatchReport> {
        let batch = self.gather(true)?;
        let Batch { event, received, received_ms } = batch;
        let (event_bytes, invocation) = (event.len(), invoke(event));
        Some(self.settle(&received, received_ms, event_bytes, invocation).0)
    }

    /// Delivers until the queue is empty: whenever nothing is visible, the clock goes on to where the
    /// next message comes back, so that poison reaches the dead-letter queue without any waiting.
    /// `on_batch` hears of every batch as it ends.
    pub fn run_until_idle(&self, function: &Function, on_batch: impl FnMut(&BatchReport) + Send) -> RunReport {
        let timeout = self.config.function_timeout;
        self.run_until_idle_with(|event| function.invoke(event, timeout), on_batch)
    }

    /// The same with anything in the function's place.
    pub fn run_until_idle_with(
        &self,
        invoke: impl Fn(String) -> Invocation + Sync,
        on_batch: impl FnMut(&BatchReport) + Send,
    ) -> RunReport {
        let run = Run {
            progress: Mutex::new(Progress { busy: 0, over: false, report: RunReport::default(), on_batch }),
            changed: Condvar::new(),
        };
        std::thread::scope(|scope| {
            for _ in 0..self.config.concurrency {
                scope.spawn(|| self.poll(&run, &invoke));
            }
        });
        run.progress.into_inner().unwrap_or_else(PoisonError::into_inner).report
    }

    fn poll<F: FnMut(&BatchReport)>(&self, run: &Run<F>, invoke: impl Fn(String) -> Invocation) {
        while let Some(batch) = self.next_batch(run) {
            let _busy = Busy { run };
            let Batch { event, received, received_ms } = batch;
            let (event_bytes, invocation) = (event.len(), invoke(event));
            let (report, deleted) = self.settle(&received, received_ms, event_bytes, invocation);
            let mut progress = run.progress();
            progress.report.batches += 1;
            progress.report.deleted += deleted;
            (progress.on_batch)(&report);
        }
    }

    /// Waits for a batch, and moves the clock on if nobody else has one. `None`: all is over.
    fn next_batch<F: FnMut(&BatchReport)>(&self, run: &Run<F>) -> Option<Batch> {
        let mut progress = run.progress();
        while !progress.over {
            let alone = progress.busy == 0;
            if let Some(batch) = self.gather(alone) {
                progress.busy += 1;
                progress.over = progress.report.count(&batch.received, self.config.delivery_limit);
                return Some(batch);
            }
            match self.queue.next_visible_ms() {
                Some(at_ms) if alone => self.queue.clock().advance_to(at_ms),
                None if alone => {
                    progress.over = true;
                    progress.report.idle = true;
                }
                _ => progress = run.changed.wait(progress).unwrap_or_else(PoisonError::into_inner),
            }
        }
        run.changed.notify_all();
        None
    }

    /// Only somebody who is `alone` waits out the batching window: for an invocation that is under
    /// way the time must not pass.
    fn gather(&self, alone: bool) -> Option<Batch> {
        let (queue, clock) = (&self.queue, self.queue.clock());
        let received_ms = clock.now_ms();
        let mut event = Event::of(queue);
        let mut received = queue.receive(self.config.batch_size, |next| event.push(next));
        if received.is_empty() {
            return None;
        }
        let window_ends = received_ms + milliseconds(self.config.batching_window);
        while alone && received.len() < self.config.batch_size && !event.is_full() {
            let next = queue.next_visible_ms().unwrap_or(u64::MAX);
            clock.advance_to(next.min(window_ends));
            if next > window_ends {
                break;
            }
            let room = self.config.batch_size - received.len();
            received.extend(queue.receive(room, |next| event.push(next)));
        }
        Some(Batch { event: event.finish(), received, received_ms })
    }

    /// Deletes what succeeded, and says how many that were.
    fn settle(
        &self,
        received: &[Received],
        received_ms: u64,
        event_bytes: usize,
        invocation: Invocation,
    ) -> (BatchReport, usize) {
        let ids: Vec<&str> = received.iter().map(|received| received.message_id.as_str()).collect();
        let why = why_no_answer(&invocation.result);
        let answer = match (&invocation.result, &why) {
            (InvocationResult::Response(body), _) => Ok(body.as_slice()),
            (_, why) => Err(why.as_str()),
        };
        let verdict = verdict(answer, &ids, self.config.report_batch_item_failures);
        let failed: HashSet<&str> = match &verdict {
            Verdict::Succeeded => HashSet::new(),
            Verdict::Partial { failed } => failed.iter().map(String::as_str).collect(),
            Verdict::AllFailed { .. } => ids.iter().copied().collect(),
        };
        let succeeded = received.iter().filter(|one| !failed.contains(one.message_id.as_str()));
        let deleted = succeeded.filter(|one| self.queue.delete(&one.receipt_handle)).count();
        let message_ids = received.iter().map(|received| received.message_id.clone()).collect();
        (BatchReport { message_ids, verdict, invocation, event_bytes, received_ms }, deleted)
    }
}

struct Batch {
    event: String,
    received: Vec<Received>,
    received_ms: u64,
}

/// What the pollers of one run share.
struct Run<F> {
    progress: Mutex<Progress<F>>,
    changed: Condvar,
}

struct Progress<F> {
    /// Pollers with a batch in hand.
    busy: usize,
    over: bool,
    report: RunReport,
    on_batch: F,
}

impl<F> Run<F> {
    fn progress(&self) -> MutexGuard<'_, Progress<F>> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RunReport {
    /// Notes the deliveries; true once a message has had too many.
    fn count(&mut self, received: &[Received], limit: u32) -> bool {
        let mut too_many = false;
        for received in received {
            let delivered = self.deliveries.entry(received.message_id.clone()).or_default();
            *delivered += 1;
            too_many |= *delivered >= limit;
        }
        too_many
    }
}

/// A batch in hand. It is put down even if the function's stand-in panics: the other pollers end
/// then, instead of waiting for ever.
struct Busy<'a, F> {
    run: &'a Run<F>,
}

impl<F> Drop for Busy<'_, F> {
    fn drop(&mut self) {
        let mut progress = self.run.progress();
        progress.busy -= 1;
        progress.over |= std::thread::panicking();
        self.run.changed.notify_all();
    }
}

fn why_no_answer(result: &InvocationResult) -> String {
    match result {
        InvocationResult::Response(_) => String::new(),
        InvocationResult::Error(json) => format!("the function returned an error: {json}"),
        InvocationResult::TimedOut => "the function timed out".to_owned(),
        InvocationResult::Crashed(Some(status)) => format!("the function crashed: {status}"),
        InvocationResult::Crashed(None) => "the function crashed".to_owned(),
        InvocationResult::InitFailed(failure) => failure.to_string(),
    }
}

fn check(queue: &Queue, config: &MappingConfig) -> Result<(), MappingError> {
    let (size, window, name) = (config.batch_size, config.batching_window, queue.name().to_owned());
    let most = if queue.is_fifo() { 10 } else { 10_000 };
    if !(1..=most).contains(&size) {
        return Err(MappingError::BatchSize { size, queue: name, most });
    }
    if queue.is_fifo() && !window.is_zero() {
        return Err(MappingError::WindowOnFifo(name));
    }
    if size > 10 && window < Duration::from_secs(1) {
        return Err(MappingError::WindowTooShort);
    }
    if window.subsec_nanos() != 0 || window > Duration::from_secs(300) {
        return Err(MappingError::BadWindow);
    }
    let (visibility, needed) = (queue.visibility_timeout(), window + config.function_timeout);
    if visibility < needed {
        return Err(MappingError::VisibilityTooShort { queue: name, visibility, needed });
    }
    if config.concurrency == 0 {
        return Err(MappingError::NoConcurrency);
    }
    Ok(())
}
