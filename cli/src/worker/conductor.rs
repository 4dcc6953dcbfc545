//! Keeps receives and batches under way: more receives while there are messages, none while too many are in hand.
//!
//! What is in hand is bounded, so a slow database slows the receives down, and one that is away stops them: the messages
//! stay in the queue, where others may take them and their receives are not counted.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tracing::{error, warn};

use crate::backoff::Pause;
use crate::sqs::{CALL, Queue, QueueError, Received, Refused};

use super::batch::{Done, Work};
use super::gather::{BATCH_BYTES, Gather, Held};
use super::health::Pulse;
use super::lease::Leases;
use super::tally::Tally;
use super::{Limits, Stopping};

/// As long as SQS lets a receive wait for a message.
const LONG_POLL: Duration = Duration::from_secs(20);
/// SQS counts in seconds, and asks only some of its servers if there is no waiting.
const SHORT_POLL: Duration = Duration::from_secs(1);
/// How long brief receives are waited for at the end, counted from the last message. What a long one brings after the end is visible
/// again after the queue's timeout.
const LAST_RECEIVES: Duration = Duration::from_secs(2);
/// As often as progress is shown and health told.
const TICK: Duration = Duration::from_millis(100);
/// After a receive that failed.
const PAUSE: Pause = Pause::new(Duration::from_millis(500), Duration::from_secs(20));

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
    /// SQS lets us receive, but not delete.
    Undeletable(Refused),
}

/// Runs the worker.
pub struct Conductor {
    queue: Queue,
    limits: Limits,
    work: Arc<Work>,
    leases: Arc<Leases>,
    stopping: Stopping,
    gather: Gather,
    receives: JoinSet<Answer>,
    batches: JoinSet<Done>,
    /// Messages in hand, waiting or in a batch, and the bytes of their bodies.
    held: usize,
    held_bytes: usize,
    /// Receives under way that are answered in a moment.
    short_polls: usize,
    serial: u64,
    receive: u64,
    /// How many receives may be under way.
    wanted: usize,
    /// When a message was last seen, or done with.
    busy: Instant,
    empty_since: Option<Instant>,
    outage: Option<Outage>,
    end: Option<End>,
}

/// What a receive gave.
struct Answer {
    began: Instant,
    /// Whether it may have waited for longer than a moment.
    is_long: bool,
    received: Result<Vec<Received>, QueueError>,
}

/// Receives fail.
struct Outage {
    since: Instant,
    pause: Pause,
    until: Instant,
}

impl Conductor {
    pub fn new(queue: Queue, limits: Limits, work: Arc<Work>, leases: Arc<Leases>, stopping: Stopping) -> Self {
        Self {
            gather: Gather::new(limits.batch_size, limits.window, queue.is_fifo()),
            queue,
            limits,
            work,
            leases,
            stopping,
            receives: JoinSet::new(),
            batches: JoinSet::new(),
            held: 0,
            held_bytes: 0,
            short_polls: 0,
            serial: 0,
            receive: 0,
            wanted: 1,
            busy: Instant::now(),
            empty_since: None,
            outage: None,
            end: None,
        }
    }

    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    pub fn stopping(&self) -> Stopping {
        self.stopping.clone()
    }

    /// Runs until there is an end, and everything in hand is settled, or the time to do so is up.
    pub async fn run(mut self, tally: &mut Tally, pulse: Option<&Pulse>) -> End {
        let mut stop = self.stopping.stop();
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
        if self.held > 0 {
            let messages = self.held;
            warn!(
                messages,
                "messages could be neither settled nor given back in time: they are visible again after the timeout"
            );
        }
        self.end.expect("the loop ended by it")
    }

    /// Works on what is in hand, unless the database is away or the time is up, and waits for it. Brief receives that are under way
    /// are waited for: what is given back meanwhile they would take, and nobody would hear of it.
    async fn finish(&mut self, tally: &mut Tally, pulse: Option<&Pulse>) {
        let ending = self.stopping.begin();
        let last_receives = Instant::now() + LAST_RECEIVES;
        loop {
            let now = Instant::now();
            if matches!(self.end, Some(End::OutOfService)) || now >= ending.settle {
                self.give_back_waiting();
            }
            self.start_batches(true);
            let may_receive = self.short_polls > 0 && now < last_receives.max(self.busy + LAST_RECEIVES);
            if (self.held == 0 && !may_receive) || now + TICK >= ending.end {
                return;
            }
            tokio::select! {
                Some(done) = self.batches.join_next() => self.note(done, tally),
                Some(answer) = self.receives.join_next() => self.take(answer),
                () = sleep_until(now + TICK) => {}
            }
            self.show(tally, pulse);
        }
    }

    /// What waits for a batch, without waiting for the ones that are under way.
    fn give_back_waiting(&mut self) {
        let waiting = self.gather.take();
        if waiting.is_empty() {
            return;
        }
        let work = Arc::clone(&self.work);
        self.batches.spawn(async move {
            work.release(&waiting).await;
            let bytes = waiting.iter().map(|held| held.received.size()).sum();
            Done { messages: waiting.len(), bytes, released: waiting.len(), ..Done::default() }
        });
    }

    /// A batch that waits for its next try leaves its place to another one, but only once: else, while the database is away, there
    /// would be more and more of them.
    fn has_place(&self) -> bool {
        let pausing = self.work.pausing.load(Ordering::Relaxed).min(self.limits.concurrency);
        self.batches.len() < self.limits.concurrency + pausing
    }

    fn start_batches(&mut self, hurry: bool) {
        while self.has_place() {
            let Some(batch) = self.gather.next(Instant::now(), hurry) else { return };
            let work = Arc::clone(&self.work);
            self.batches.spawn(async move { work.on(batch).await });
        }
    }

    fn start_receives(&mut self) {
        let is_paused = self.outage.as_ref().is_some_and(|outage| Instant::now() < outage.until);
        while !is_paused && self.receives.len() < self.wanted && self.has_room() {
            let (queue, wait, visibility) = (self.queue.clone(), self.wait(), self.limits.visibility);
            let (began, is_long, most) = (Instant::now(), wait > SHORT_POLL, self.receive_size());
            self.short_polls += usize::from(!is_long);
            self.receives.spawn(async move {
                Answer { began, is_long, received: queue.receive_some(most, wait, visibility).await }
            });
        }
    }

    /// What was received together from a FIFO queue becomes one batch.
    fn receive_size(&self) -> usize {
        if self.queue.is_fifo() { self.limits.batch_size.min(CALL) } else { CALL }
    }

    /// Whether one more receive, should all that are under way be full, would leave no more in hand than one batch that
    /// waits beside those that are written, by number and by size. How large a message will be is reckoned from those in hand.
    fn has_room(&self) -> bool {
        let batches = self.limits.concurrency + 1;
        let coming = (self.receives.len() + 1) * CALL;
        let coming_bytes = coming * self.held_bytes.checked_div(self.held).unwrap_or_default();
        self.held + coming <= self.limits.most_in_hand() && self.held_bytes + coming_bytes <= batches * BATCH_BYTES
    }

    fn take(&mut self, answer: Result<Answer, JoinError>) {
        let Answer { began, is_long, received } = answer.expect("a receive does not panic");
        self.short_polls -= usize::from(!is_long);
        let received = match received {
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
        self.receive += 1;
        self.held += received.len();
        for received in received {
            self.serial += 1;
            self.held_bytes += received.size();
            let held = Held { serial: self.serial, receive: self.receive, received, since: now };
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
        if self.held == 0 && self.receives.is_empty() && is_long_enough {
            self.end.get_or_insert(End::Drained);
        }
    }

    /// How long a receive waits for a message. Long, if nothing else goes on: a receive that waits while we are to stop may
    /// take what was just given back. A drain waits no longer than it must to know that the queue is empty.
    fn wait(&self) -> Duration {
        if self.held > 0 || !self.receives.is_empty() || self.wanted > 1 {
            return SHORT_POLL;
        }
        let drain_after = self.limits.drain_after.unwrap_or(LONG_POLL);
        let waited = self.empty_since.map_or(Duration::ZERO, |since| since.elapsed());
        drain_after.saturating_sub(waited).clamp(SHORT_POLL, LONG_POLL)
    }

    fn note_outage(&mut self, failure: QueueError) {
        let now = Instant::now();
        self.empty_since = None;
        let outage = self.outage.get_or_insert(Outage { since: now, pause: PAUSE, until: now });
        // Several receives fail of the same cause, and at the end it does not matter any more.
        if now < outage.until || self.end.is_some() {
            return;
        }
        let is_over = self.limits.patience.is_some_and(|patience| now - outage.since >= patience);
        if failure.is_lasting || is_over {
            error!(%failure, "the queue cannot be used");
            self.end = Some(End::QueueFailed(failure));
            return;
        }
        let pause = outage.pause.next();
        warn!(%failure, pause_ms = pause.as_millis() as u64, "receiving failed and is tried again");
        outage.until = now + pause;
        self.wanted = 1;
    }

    fn note(&mut self, done: Result<Done, JoinError>, tally: &mut Tally) {
        let done = done.expect("panics of the pipeline are caught");
        self.held -= done.messages;
        self.held_bytes -= done.bytes;
        self.note_business(Instant::now());
        tally.add(&done);
        if let Some(refused) = done.undeletable {
            error!(code = refused.code, "messages are stored, but may not be deleted");
            self.end.get_or_insert(End::Undeletable(refused));
        }
        if done.is_out_of_service {
            self.end.get_or_insert(End::OutOfService);
        }
    }

    /// The next moment at which something is due without anything happening.
    fn wake(&self) -> Instant {
        let tick = Instant::now() + TICK;
        let due = self.gather.due().filter(|_| self.has_place());
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
