//! Keeps receives and batches under way: more receives while there are messages, none while too many are in hand.
//!
//! What is in hand is bounded, so a slow database slows the receives down, and one that is away stops them: the messages
//! stay in the queue, where others may take them and their receives are not counted.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::{error, warn};

use crate::sqs::{CALL, Queue, QueueError, Received};

use super::batch::{Done, Work};
use super::gather::{Gather, Held};
use super::health::Pulse;
use super::lease::Leases;
use super::tally::Tally;
use super::{Limits, Stop};

/// As long as SQS lets a receive wait for a message.
const LONG_POLL: Duration = Duration::from_secs(20);
/// SQS counts in seconds, and asks only some of its servers if there is no waiting.
const SHORT_POLL: Duration = Duration::from_secs(1);
/// How long after the last message was done with the last receives may still bring something when we are to stop. What comes
/// later is visible again after the queue's timeout.
const LAST_RECEIVES: Duration = Duration::from_secs(1);
/// As often as progress is shown and health told.
const TICK: Duration = Duration::from_millis(100);
/// After a receive that failed.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

/// How it came to an end.
#[derive(Debug)]
pub enum End {
    /// By SIGTERM or Ctrl-C.
    Stopped,
    /// The queue stayed empty.
    Drained,
    /// The database stayed away for longer than a drain waits.
    OutOfService,
    /// The queue cannot be used.
    QueueFailed(QueueError),
    /// SQS lets us receive, but not delete, and gave this code.
    Undeletable(String),
}

/// Runs the worker.
pub struct Conductor {
    queue: Queue,
    limits: Limits,
    work: Arc<Work>,
    leases: Arc<Leases>,
    stop: Stop,
    gather: Gather,
    receives: JoinSet<Answer>,
    batches: JoinSet<Done>,
    /// Messages in hand, waiting or in a batch.
    held: usize,
    serial: u64,
    /// How many receives may be under way.
    wanted: usize,
    /// When a message was last seen, or done with.
    busy: Instant,
    empty_since: Option<Instant>,
    outage: Option<Outage>,
    end: Option<End>,
}

/// What a receive gave, and when it began.
type Answer = (Instant, Result<Vec<Received>, QueueError>);

/// Receives fail.
struct Outage {
    since: Instant,
    pause: Duration,
    until: Instant,
}

impl Conductor {
    pub fn new(queue: Queue, limits: Limits, work: Arc<Work>, leases: Arc<Leases>, stop: Stop) -> Self {
        Self {
            gather: Gather::new(limits.batch_size, limits.window),
            queue,
            limits,
            work,
            leases,
            stop,
            receives: JoinSet::new(),
            batches: JoinSet::new(),
            held: 0,
            serial: 0,
            wanted: 1,
            busy: Instant::now(),
            empty_since: None,
            outage: None,
            end: None,
        }
    }

    /// Runs until there is an end, and everything in hand is settled.
    pub async fn run(mut self, tally: &mut Tally, pulse: Option<&Pulse>) -> End {
        let mut stop = self.stop.clone();
        while self.end.is_none() {
            self.start_batches(false);
            self.start_receives();
            let wake = self.wake();
            tokio::select! {
                Some(done) = self.batches.join_next() => self.note(done, tally),
                Some(answer) = self.receives.join_next() => self.take(answer),
                _ = stop.wait_for(Option::is_some) => self.end = Some(End::Stopped),
                () = sleep_until(wake) => {}
            }
            self.show(tally, pulse);
        }
        self.finish(tally, pulse).await;
        self.end.expect("the loop ended by it")
    }

    /// Works on what is in hand, unless the database is away, and waits for it. The receives that are under way are waited for as
    /// long as something is in hand: what is given back meanwhile they would take, and nobody would hear of it.
    async fn finish(&mut self, tally: &mut Tally, pulse: Option<&Pulse>) {
        loop {
            if matches!(self.end, Some(End::OutOfService)) {
                self.give_back_waiting(tally).await;
            }
            self.start_batches(true);
            let is_over = self.stop.borrow().is_some_and(|ending| Instant::now() >= ending.end);
            if is_over || (self.held == 0 && (self.receives.is_empty() || self.busy.elapsed() >= LAST_RECEIVES)) {
                return;
            }
            let tick = Instant::now() + TICK;
            tokio::select! {
                Some(done) = self.batches.join_next() => self.note(done, tally),
                Some(answer) = self.receives.join_next() => self.take(answer),
                () = sleep_until(tick) => {}
            }
            self.show(tally, pulse);
        }
    }

    async fn give_back_waiting(&mut self, tally: &mut Tally) {
        let waiting = self.gather.take();
        self.held -= waiting.len();
        self.work.release(&waiting).await;
        tally.add(&Done { messages: waiting.len(), released: waiting.len(), ..Done::default() });
    }

    fn start_batches(&mut self, hurry: bool) {
        while self.batches.len() < self.limits.concurrency {
            let Some(batch) = self.gather.next(Instant::now(), hurry) else { return };
            let work = Arc::clone(&self.work);
            self.batches.spawn(async move { work.on(batch).await });
        }
    }

    fn start_receives(&mut self) {
        let is_paused = self.outage.as_ref().is_some_and(|outage| Instant::now() < outage.until);
        while !is_paused && self.receives.len() < self.wanted && self.has_room() {
            let (queue, wait, visibility) = (self.queue.clone(), self.wait(), self.limits.visibility);
            self.receives.spawn(async move { (Instant::now(), queue.receive(wait, visibility).await) });
        }
    }

    /// Whether one more receive, should all that are under way be full, would leave no more in hand than one batch that
    /// waits beside those that are written.
    fn has_room(&self) -> bool {
        let most = (self.limits.concurrency + 1) * self.limits.batch_size.max(CALL);
        self.held + (self.receives.len() + 1) * CALL <= most
    }

    fn take(&mut self, answer: Result<Answer, JoinError>) {
        let (began, answer) = answer.expect("a receive does not panic");
        let received = match answer {
            Ok(received) => received,
            Err(error) => return self.note_outage(error),
        };
        self.outage = None;
        let now = Instant::now();
        if received.is_empty() {
            self.wanted = 1;
            self.note_emptiness(began, now);
            return;
        }
        self.wanted = (self.wanted + 1).min(self.limits.receivers);
        self.note_business(now);
        self.held += received.len();
        for received in received {
            self.serial += 1;
            let held = Held { serial: self.serial, received, since: now };
            self.leases.hold(&held);
            self.gather.push(held);
        }
    }

    fn note_business(&mut self, now: Instant) {
        self.busy = now;
        self.empty_since = None;
    }

    /// A receive that brings nothing says that the queue was empty all the while; a drain ends when that was for long enough.
    fn note_emptiness(&mut self, began: Instant, now: Instant) {
        let since = *self.empty_since.get_or_insert(began.max(self.busy));
        let is_long_enough = self.limits.drain_after.is_some_and(|drain_after| now - since >= drain_after);
        if self.held == 0 && is_long_enough {
            self.end.get_or_insert(End::Drained);
        }
    }

    /// How long a receive waits for a message. Long, if nothing else goes on: a receive that waits while we are to stop may
    /// take what was just given back. A drain waits no longer than it must to know that the queue is empty.
    fn wait(&self) -> Duration {
        if self.held > 0 || !self.receives.is_empty() {
            return SHORT_POLL;
        }
        let drain_after = self.limits.drain_after.unwrap_or(LONG_POLL);
        let waited = self.empty_since.map_or(Duration::ZERO, |since| since.elapsed());
        drain_after.saturating_sub(waited).clamp(SHORT_POLL, LONG_POLL)
    }

    fn note_outage(&mut self, failure: QueueError) {
        let now = Instant::now();
        let outage = self.outage.get_or_insert(Outage { since: now, pause: FIRST_PAUSE, until: now });
        if now < outage.until {
            // Several receives failed of the same cause.
            return;
        }
        let is_over = self.limits.patience.is_some_and(|patience| now - outage.since >= patience);
        if failure.is_lasting || is_over {
            error!(%failure, "the queue cannot be used");
            self.end.get_or_insert(End::QueueFailed(failure));
            return;
        }
        warn!(%failure, pause_ms = outage.pause.as_millis() as u64, "receiving failed and is tried again");
        outage.until = now + outage.pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        outage.pause = (outage.pause * 2).min(LONGEST_PAUSE);
        self.wanted = 1;
    }

    fn note(&mut self, done: Result<Done, JoinError>, tally: &mut Tally) {
        let done = done.expect("panics of the pipeline are caught");
        self.held -= done.messages;
        self.note_business(Instant::now());
        tally.add(&done);
        if let Some(code) = done.undeletable {
            error!(code, "messages are stored, but may not be deleted");
            self.end.get_or_insert(End::Undeletable(code));
        }
        if done.is_out_of_service {
            self.end.get_or_insert(End::OutOfService);
        }
    }

    /// The next moment at which something is due without anything happening.
    fn wake(&self) -> Instant {
        let tick = Instant::now() + TICK;
        let due = self.gather.due().filter(|_| self.batches.len() < self.limits.concurrency);
        due.map_or(tick, |due| due.min(tick))
    }

    fn show(&self, tally: &mut Tally, pulse: Option<&Pulse>) {
        let state = match (&self.end, &self.outage) {
            (Some(_), _) => ", ending",
            (None, Some(_)) => ", the queue cannot be reached",
            (None, None) => "",
        };
        tally.show(self.held, state);
        if let Some(pulse) = pulse {
            pulse.beat();
        }
    }
}
