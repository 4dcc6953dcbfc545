//! One batch's walk: through the pipeline, again while nobody's record is to blame, then off the queue or back to it.
//!
//! What cannot be written for no record's fault is kept and tried again, in halves: a batch may be too much for the time there
//! is, and a row may be poison although it looks like an outage. The order of a FIFO queue forbids that.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use metrics::{Unit, counter};
use sqs_etl::pipeline::deadline::Deadline;
use sqs_etl::pipeline::message::Batch;
use sqs_etl::pipeline::outcome::{Failure, Outcome, Reason};
use sqs_etl::pipeline::write::WriteError;
use sqs_etl::pipeline::{BatchError, Pipeline};
use sqs_etl::report;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, error, warn};

use crate::backoff::{Backoff, Pause};
use crate::sqs::{Queue, Refused};

use super::gather::Held;
use super::lease::Leases;
use super::{Stop, settling};

/// The metric of tries at a batch that no record is to blame for.
pub const BATCH_ERROR: (&str, Unit) = ("BatchError", Unit::Count);

/// Between two tries at a batch that no record is to blame for.
const PAUSE: Pause = Pause::new(Duration::from_millis(500), Duration::from_secs(15));
/// As often messages are tried together; then in halves.
const TRIES_TOGETHER: u32 = 2;
/// As often must others have been written between two failures of a message, and of those that it was tried with, until it is
/// held to be the cause.
const EVIDENCE: u32 = 3;
/// How long deleting may take; what is not deleted by then comes back. Less than the time to stop in.
const SETTLE_LIMIT: Duration = Duration::from_secs(20);

/// What batches are worked on with.
pub struct Work {
    pub queue: Queue,
    pub pipeline: Pipeline,
    pub leases: Arc<Leases>,
    pub backoff: Backoff,
    pub batch_timeout: Duration,
    /// Of that, what the pipeline keeps back.
    pub reserve: Duration,
    /// How long a batch is tried again; for ever if there is none.
    pub patience: Option<Duration>,
    pub stop: Stop,
    /// How often anything was written, by any batch.
    pub writes: AtomicU64,
    /// How many batches wait for their next try.
    pub pausing: AtomicUsize,
}

/// What became of a batch's messages.
#[derive(Debug, Default)]
pub struct Done {
    pub messages: usize,
    /// Bytes of their bodies.
    pub bytes: usize,
    pub stored: usize,
    pub already_present: usize,
    pub handed_back: usize,
    pub released: usize,
    pub undeleted: usize,
    /// The database stayed away for longer than we were to wait.
    pub is_out_of_service: bool,
    /// Why nothing may be deleted: to go on would make dead letters of messages that are stored.
    pub undeletable: Option<Refused>,
}

/// Messages of a batch that are tried together.
struct Part {
    held: Vec<Held>,
    tries: u32,
    /// What `writes` was at their last failure, and how often it had grown since the one before.
    writes: u64,
    evidence: u32,
}

/// How a try at a part went.
#[derive(PartialEq, Eq)]
enum Tried {
    /// Nothing of it is left.
    Settled,
    /// Something has no outcome yet: there was no time, or no connection.
    Kept,
    /// The database did not take it, and does not say that a row is to blame.
    Failed,
}

/// Why a batch was not written.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("the pipeline panicked; this is a defect of sqs-etl")]
    Panic,
    #[error("the time to stop in was up")]
    TimeUp,
}

impl Fault {
    /// Another try would end like this one, and it is not the database's fault.
    fn is_defect(&self) -> bool {
        matches!(self, Fault::Panic | Fault::Batch(BatchError::Unaccounted { .. }))
    }
}

/// A batch's messages after a try.
struct Sorted {
    /// Those that have an outcome, and it.
    settled: Vec<Held>,
    outcome: Outcome,
    /// Those that no record is to blame for, and what is.
    again: Vec<Held>,
    reason: Option<Reason>,
}

impl Work {
    /// Works on a batch until none of its messages is in hand any more.
    pub async fn on(&self, held: Vec<Held>) -> Done {
        let started = Instant::now();
        let bytes = held.iter().map(|held| held.received.size()).sum();
        let mut done = Done { messages: held.len(), bytes, ..Done::default() };
        let mut parts = VecDeque::from([self.part(held)]);
        let mut trouble: Option<(Instant, Pause)> = None;
        while let Some(mut part) = parts.pop_front() {
            let before = part.held.len();
            let tried = self.attempt(&mut part, started, &mut done).await;
            if part.held.len() < before {
                trouble = None;
            }
            if tried == Tried::Settled {
                continue;
            }
            if tried == Tried::Failed && self.is_poison(&mut part) {
                self.hand_back_poison(&part.held, &mut done).await;
                continue;
            }
            parts.extend(self.halves(part));
            let (since, pauses) = trouble.get_or_insert((Instant::now(), PAUSE));
            let pause = pauses.next();
            let is_patient = self.patience.is_none_or(|patience| since.elapsed() + pause < patience);
            if !is_patient || !self.pause(pause).await {
                let left: Vec<_> = parts.drain(..).flat_map(|part| part.held).collect();
                done.is_out_of_service = !is_patient;
                done.released += left.len();
                self.release(&left).await;
            }
        }
        done
    }

    fn part(&self, held: Vec<Held>) -> Part {
        Part { held, tries: 0, writes: self.writes.load(Ordering::Relaxed), evidence: 0 }
    }

    /// Tries to write a part, and settles what has an outcome; what has none stays in the part.
    async fn attempt(&self, part: &mut Part, started: Instant, done: &mut Done) -> Tried {
        part.tries += 1;
        let messages = part.held.len();
        match self.run(&part.held).await {
            Ok(outcome) => {
                let Sorted { settled, outcome, again, reason } =
                    sort(std::mem::take(&mut part.held), outcome, self.queue.is_fifo());
                part.held = again;
                if outcome.committed + outcome.already_present > 0 {
                    self.writes.fetch_add(1, Ordering::Relaxed);
                }
                self.settle(&settled, outcome, started, done).await;
                let Some(reason) = reason else { return Tried::Settled };
                tell(&reason.to_string(), part.held.len());
                Tried::Kept
            }
            Err(Fault::TimeUp) => {
                warn!(messages, "the time to stop in is up: the batch is given back");
                Tried::Kept
            }
            Err(fault) if fault.is_defect() => {
                error!(error = report::chain(&fault), messages, "the batch failed and is handed back");
                counter!(BATCH_ERROR.0).increment(1);
                done.handed_back += messages;
                self.hand_back(&part.held).await;
                part.held.clear();
                Tried::Settled
            }
            Err(fault) => {
                tell(&report::chain(&fault), messages);
                let has_connection = !matches!(fault, Fault::Batch(BatchError::Write(WriteError::Connect(_))));
                if has_connection {
                    return Tried::Failed;
                }
                // Nobody has looked at the messages.
                part.tries -= 1;
                Tried::Kept
            }
        }
    }

    /// Whether a message that failed alone is held to be the cause: it, and whatever it was tried with, failed again and again
    /// while others were written, so that it is no outage, whatever Postgres says.
    fn is_poison(&self, part: &mut Part) -> bool {
        let writes = self.writes.load(Ordering::Relaxed);
        part.evidence += u32::from(writes > part.writes);
        part.writes = writes;
        part.held.len() == 1 && part.evidence >= EVIDENCE && !self.queue.is_fifo()
    }

    async fn hand_back_poison(&self, held: &[Held], done: &mut Done) {
        for held in held {
            report::failure(&held.received.message(), &Reason::NoOutcome);
        }
        done.handed_back += held.len();
        self.hand_back(held).await;
    }

    /// The part for the next try, or two.
    fn halves(&self, mut part: Part) -> impl Iterator<Item = Part> + use<> {
        let is_parted = part.tries >= TRIES_TOGETHER && part.held.len() > 1 && !self.queue.is_fifo();
        let second = is_parted.then(|| {
            part.tries = 0;
            let held = part.held.split_off(part.held.len() / 2);
            Part { held, tries: 0, writes: part.writes, evidence: part.evidence }
        });
        std::iter::once(part).chain(second)
    }

    /// Makes messages visible to others at once.
    pub async fn release(&self, held: &[Held]) {
        self.leases.let_go(held).await;
        let changes: Vec<_> = held.iter().map(|held| (held.received.handle.as_str(), Duration::ZERO)).collect();
        let refused = self.queue.change_visibility(&changes, self.settle_end()).await;
        tell_refusal(&refused);
        debug!(released = held.len(), refused = refused.len(), "messages given back untouched");
    }

    async fn run(&self, held: &[Held]) -> Result<Outcome, Fault> {
        let batch = batch(held, self.queue.is_fifo());
        let deadline = Deadline::after(self.batch_timeout, self.reserve);
        // A panic's message may quote a value; the panic hook tells the place.
        let run =
            AssertUnwindSafe(timeout_at(deadline.answer_end(), self.pipeline.run(&batch, deadline))).catch_unwind();
        tokio::select! {
            ran = run => match ran {
                Ok(Ok(outcome)) => Ok(outcome?),
                Ok(Err(_)) => Ok(all_failed(held.len(), &Reason::Deadline)),
                Err(_) => Err(Fault::Panic),
            },
            () = settling(&self.stop) => Err(Fault::TimeUp),
        }
    }

    async fn settle(&self, settled: &[Held], outcome: Outcome, started: Instant, done: &mut Done) {
        if settled.is_empty() {
            return;
        }
        report::batch(&batch(settled, self.queue.is_fifo()), &outcome, started.elapsed());
        let mut has_failed = vec![false; settled.len()];
        outcome.failures.iter().for_each(|failure| has_failed[failure.position] = true);
        let part = |wanted| settled.iter().zip(&has_failed).filter(move |(_, failed)| **failed == wanted);
        let stored: Vec<_> = part(false).map(|(held, _)| held).collect();
        let failed: Vec<_> = part(true).map(|(held, _)| held).collect();
        done.stored += outcome.committed;
        done.already_present += outcome.already_present;
        done.handed_back += failed.len();
        // Side by side: neither shall use up the other's time.
        tokio::join!(self.hand_back(failed), self.delete(&stored, done));
    }

    /// **Invariant (Conservation):** called for messages whose rows the database has committed, and for no others.
    async fn delete(&self, stored: &[&Held], done: &mut Done) {
        let handles: Vec<_> = stored.iter().map(|held| held.received.handle.as_str()).collect();
        let refused = self.queue.delete(&handles, self.settle_end()).await;
        self.leases.let_go(stored.iter().copied()).await;
        for refused in &refused {
            let message_id = &stored[refused.position].received.id;
            warn!(
                message_id,
                code = refused.code,
                "message stored, but not deleted: it comes back and changes nothing"
            );
        }
        done.undeleted += refused.len();
        let for_good = refused.into_iter().find(|refused| refused.is_of_call && refused.is_lasting);
        done.undeletable = done.undeletable.take().or(for_good);
    }

    /// Makes messages visible again after a while, the longer the more often they were received; those of a group together.
    async fn hand_back<'h>(&self, failed: impl IntoIterator<Item = &'h Held>) {
        let failed: Vec<_> = failed.into_iter().collect();
        if failed.is_empty() {
            return;
        }
        self.leases.let_go(failed.iter().copied()).await;
        let mut of_groups = HashMap::new();
        let delay = |held: &Held| {
            let own = self.backoff.after(held.received.receive_count(), fastrand::f64());
            match held.received.group().filter(|_| self.queue.is_fifo()) {
                Some(group) => *of_groups.entry(group.to_owned()).or_insert(own),
                None => own,
            }
        };
        let delays: Vec<_> = failed.iter().copied().map(delay).collect();
        let handles = failed.iter().map(|held| held.received.handle.as_str());
        let refused = self.queue.change_visibility(&handles.zip(delays).collect::<Vec<_>>(), self.settle_end()).await;
        tell_refusal(&refused);
        // They become visible all the same, when their time is up.
        debug!(handed_back = failed.len(), refused = refused.len(), "visibility of failed messages changed");
    }

    /// Waits, and says whether there is time for another try. Whoever is told to stop has tried often enough.
    async fn pause(&self, pause: Duration) -> bool {
        let mut stop = self.stop.clone();
        self.pausing.fetch_add(1, Ordering::Relaxed);
        let goes_on = tokio::select! {
            () = sleep(pause) => true,
            _ = stop.wait_for(Option::is_some) => false,
        };
        self.pausing.fetch_sub(1, Ordering::Relaxed);
        goes_on
    }

    fn settle_end(&self) -> Instant {
        let end = Instant::now() + SETTLE_LIMIT;
        self.stop.borrow().map_or(end, |ending| ending.end.min(end))
    }
}

/// A try that no record is to blame for.
fn tell(error: &str, messages: usize) {
    error!(error, messages, "the batch cannot be written: it is kept and tried again");
    counter!(BATCH_ERROR.0).increment(1);
}

/// Without this right, messages come back at their own time, and in an outage they use up their deliveries.
pub(super) fn tell_refusal(refused: &[Refused]) {
    if let Some(Refused { code, .. }) = refused.iter().find(|refused| refused.is_of_call && refused.is_lasting) {
        let messages = refused.len();
        warn!(code, messages, "SQS does not let us change the visibility: the role needs sqs:ChangeMessageVisibility");
    }
}

fn batch(held: &[Held], ordered: bool) -> Batch<'_> {
    Batch { messages: held.iter().map(|held| held.received.message()).collect(), ordered }
}

fn all_failed(count: usize, reason: &Reason) -> Outcome {
    let failures = (0..count).map(|position| Failure { position, reason: reason.clone() }).collect();
    Outcome { failures, ..Outcome::default() }
}

/// Tells what is settled from what is to be tried again. In an ordered batch the first failure of a group speaks for the others,
/// which failed because of it.
fn sort(held: Vec<Held>, outcome: Outcome, ordered: bool) -> Sorted {
    let mut passing_groups = HashMap::new();
    let mut is_again = vec![false; held.len()];
    let is_passing = |reason: &Reason| matches!(reason, Reason::Deadline | Reason::Busy { .. });
    let reason = outcome.failures.iter().map(|failure| &failure.reason).find(|reason| is_passing(reason)).cloned();
    for failure in &outcome.failures {
        let is_passing = is_passing(&failure.reason);
        is_again[failure.position] = match held[failure.position].received.group().filter(|_| ordered) {
            Some(group) => *passing_groups.entry(group.to_owned()).or_insert(is_passing),
            None => is_passing,
        };
    }
    let mut places = vec![None; held.len()];
    let (mut settled, mut again) = (Vec::with_capacity(held.len()), Vec::new());
    for (position, held) in held.into_iter().enumerate() {
        if is_again[position] {
            again.push(held);
        } else {
            places[position] = Some(settled.len());
            settled.push(held);
        }
    }
    let failures = outcome.failures.into_iter();
    let failures = failures.filter_map(|failure| Some(Failure { position: places[failure.position]?, ..failure }));
    let outcome = Outcome { failures: failures.collect(), ..outcome };
    Sorted { settled, outcome, again, reason }
}

#[cfg(test)]
mod tests {
    use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};

    use super::*;
    use crate::sqs::Received;

    fn held(serial: u64, group: Option<&str>) -> Held {
        let raw = Message::builder();
        let raw = match group {
            Some(group) => raw.attributes(MessageSystemAttributeName::MessageGroupId, group),
            None => raw,
        };
        let received = Received { id: serial.to_string(), handle: serial.to_string(), raw: raw.build() };
        Held { serial, receive: 0, received, since: Instant::now() }
    }

    #[track_caller]
    fn check(groups: &[Option<&str>], ordered: bool, failures: &[(usize, Reason)], settled: &[u64], failed: &[usize]) {
        let all: Vec<_> = groups.iter().enumerate().map(|(serial, group)| held(serial as u64, *group)).collect();
        let failures =
            failures.iter().map(|(position, reason)| Failure { position: *position, reason: reason.clone() });
        let sorted = sort(all, Outcome { failures: failures.collect(), ..Outcome::default() }, ordered);
        let serials = |held: &[Held]| held.iter().map(|held| held.serial).collect::<Vec<_>>();
        assert_eq!(serials(&sorted.settled), settled);
        let positions: Vec<_> = sorted.outcome.failures.iter().map(|failure| failure.position).collect();
        assert_eq!(positions, failed);
        let others: Vec<_> = (0..groups.len() as u64).filter(|serial| !settled.contains(serial)).collect();
        assert_eq!(serials(&sorted.again), others);
    }

    #[test]
    fn what_no_record_is_to_blame_for_is_tried_again() {
        let busy = || Reason::Busy { sqlstate: "40001".into() };
        check(&[None; 4], false, &[], &[0, 1, 2, 3], &[]);
        check(&[None; 4], false, &[(1, Reason::NoBody), (3, Reason::Deadline)], &[0, 1, 2], &[1]);
        check(&[None; 3], false, &[(0, busy()), (1, Reason::Dropped)], &[1, 2], &[0]);
    }

    #[test]
    fn a_group_is_tried_again_or_handed_back_as_a_whole() {
        let groups = [Some("a"), Some("b"), Some("a"), Some("b"), Some("c")];
        let behind = Reason::BehindFailure;
        let failures = [(0, Reason::Deadline), (1, Reason::NoBody), (2, behind.clone()), (3, behind)];
        check(&groups, true, &failures, &[1, 3, 4], &[0, 1]);
    }
}
