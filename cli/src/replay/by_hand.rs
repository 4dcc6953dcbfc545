//! Moves messages where SQS does not: received, sent with all that a sender can set (message attributes, group and trace
//! header), and deleted once they are sent.
//!
//! **Invariant:** a message is deleted only after SQS took its copy. If the deletion fails, both are there; in a FIFO queue
//! the copy's deduplication id, the message's own id, keeps a next try within five minutes from making a third.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use anyhow::Result;
use aws_sdk_sqs::types::MessageSystemAttributeName;
use tokio::time::{Instant, sleep_until};

use crate::interrupt::Interrupt;
use crate::sqs::outgoing::{Delivered, LARGEST, LONGEST_DELIVERY, Outgoing, calls};
use crate::sqs::{Queue, Received};
use crate::terminal::Progress;
use crate::words::counted;

use super::Moved;

/// How long a receive waits; one that waits looks at all of SQS's servers.
const WAIT: Duration = Duration::from_secs(2);
/// How long messages are ours from their receive or renewal on. What is sent when they are not is in both queues.
const VISIBILITY: Duration = Duration::from_secs(300);
/// No call begins later than that without a renewal.
const RENEW_AFTER: Duration = Duration::from_secs(60);
const SETTLE_LIMIT: Duration = Duration::from_secs(30);

const _: () = assert!(
    RENEW_AFTER.as_secs() + LONGEST_DELIVERY.as_secs() + SETTLE_LIMIT.as_secs() < VISIBILITY.as_secs(),
    "a message must be ours until it is deleted"
);

/// A message, and how it is sent anew.
struct Pair {
    message: Received,
    copy: Outgoing,
}

/// One move.
struct Move<'a> {
    from: &'a Queue,
    to: &'a Queue,
    moved: usize,
    /// Ids of the copies: one that fails again and comes back meanwhile is not moved again.
    copies: HashSet<String>,
    came_back: usize,
    /// Handles of the messages that stay, by id. They are given back at the end; at once, they would be received again.
    kept: HashMap<String, String>,
    /// Message groups with a message that stays: the later ones must not overtake it.
    blocked: HashSet<String>,
    /// What was told of refusals already.
    told: HashSet<String>,
}

/// Moves until the queue is empty.
///
/// # Errors
/// If one of both queues cannot be used. What was not moved is given back.
pub async fn run(from: &Queue, to: &Queue, rate: Option<usize>, interrupt: &Interrupt) -> Result<Moved> {
    let mut the_move = Move::new(from, to);
    let result = the_move.all(rate, interrupt).await;
    let kept: Vec<_> = the_move.kept.values().map(|handle| (handle.as_str(), Duration::ZERO)).collect();
    // Those that SQS will not hear of now come back when their time is up.
    from.change_visibility(&kept, Instant::now() + SETTLE_LIMIT).await;
    let (count, failed) = (the_move.moved, kept.len() - the_move.came_back);
    if the_move.came_back > 0 {
        let came_back = counted(the_move.came_back, "message");
        eprintln!("sqs-etl: {came_back} of those moved came back to {} meanwhile, failed again", from.name());
    }
    let is_interrupted = result.map_err(|error| error.context(format!("{} moved", counted(count, "message"))))?;
    Ok(Moved { count, is_about: false, failed, is_interrupted })
}

impl<'a> Move<'a> {
    fn new(from: &'a Queue, to: &'a Queue) -> Self {
        let (copies, blocked, told) = (HashSet::new(), HashSet::new(), HashSet::new());
        Self { from, to, moved: 0, copies, came_back: 0, kept: HashMap::new(), blocked, told }
    }

    /// Tells whether it was interrupted.
    async fn all(&mut self, rate: Option<usize>, interrupt: &Interrupt) -> Result<bool> {
        let mut progress = Progress::new();
        let started = Instant::now();
        while !interrupt.is_raised() {
            let received = self.from.receive(WAIT, VISIBILITY).await?;
            if received.is_empty() {
                return Ok(false);
            }
            self.several(received).await?;
            progress.counting("move", &counted(self.moved, "message"));
            if let Some(rate) = rate {
                let due = started + Duration::from_secs(1).mul_f64(self.moved as f64 / rate as f64);
                tokio::select! {
                    () = sleep_until(due) => {}
                    () = interrupt.raised() => {}
                }
            }
        }
        Ok(true)
    }

    /// What one receive brought. Whatever cannot be moved is kept, also behind an error.
    async fn several(&mut self, received: Vec<Received>) -> Result<()> {
        let (mut held_since, mut failed) = (Instant::now(), Ok(()));
        let pairs = received.into_iter().map(|message| Pair { copy: copy(&message, self.to.is_fifo()), message });
        let mut left: VecDeque<_> = in_calls(pairs.collect(), self.from.is_fifo()).into();
        while let Some(call) = left.pop_front() {
            if held_since.elapsed() >= RENEW_AFTER {
                held_since = Instant::now();
                self.renew(call.iter().chain(left.iter().flatten())).await;
            }
            match failed {
                Ok(()) => failed = self.call(&call).await,
                Err(_) => call.iter().for_each(|pair| self.keep(&pair.message)),
            }
        }
        failed
    }

    /// What SQS does not leave to us any longer is kept, and so not sent.
    async fn renew(&mut self, pairs: impl Iterator<Item = &Pair>) {
        let messages: Vec<_> = pairs.map(|pair| &pair.message).collect();
        let changes: Vec<_> = messages.iter().map(|message| (message.handle.as_str(), VISIBILITY)).collect();
        for refused in self.from.change_visibility(&changes, Instant::now() + SETTLE_LIMIT).await {
            self.keep(messages[refused.position]);
            self.tell(&refused.code, "kept from others until it was sent");
        }
    }

    /// Sends what may be sent of these, deletes what was sent, and keeps the rest.
    async fn call(&mut self, pairs: &[Pair]) -> Result<()> {
        let (stay, go): (Vec<_>, Vec<_>) = pairs.iter().partition(|pair| self.stays(&pair.message));
        stay.into_iter().for_each(|pair| self.keep(&pair.message));
        if go.is_empty() {
            return Ok(());
        }
        let copies: Vec<_> = go.iter().map(|pair| &pair.copy).collect();
        let delivered = self.to.deliver(&copies).await;
        let taken: HashSet<_> = delivered.taken.iter().map(|taken| taken.position).collect();
        let (sent, unsent): (Vec<_>, Vec<_>) =
            go.iter().enumerate().partition(|(position, _)| taken.contains(position));
        unsent.into_iter().for_each(|(_, pair)| self.keep(&pair.message));
        self.tell_of(&delivered);
        self.copies.extend(delivered.taken.into_iter().map(|taken| taken.message_id));
        self.delete(sent.into_iter().map(|(_, pair)| &pair.message).collect()).await;
        delivered.error.map_or(Ok(()), |error| Err(error.into()))
    }

    fn stays(&self, message: &Received) -> bool {
        let is_behind = self.from.is_fifo() && message.group().is_some_and(|group| self.blocked.contains(group));
        is_behind || self.copies.contains(&message.id) || self.kept.contains_key(&message.id)
    }

    fn keep(&mut self, message: &Received) {
        if let Some(group) = message.group() {
            self.blocked.insert(group.to_owned());
        }
        let is_new = self.kept.insert(message.id.clone(), message.handle.clone()).is_none();
        self.came_back += usize::from(is_new && self.copies.contains(&message.id));
    }

    async fn delete(&mut self, sent: Vec<&Received>) {
        let handles: Vec<_> = sent.iter().map(|message| message.handle.as_str()).collect();
        let refused = self.from.delete(&handles, Instant::now() + SETTLE_LIMIT).await;
        self.moved += sent.len() - refused.len();
        for refused in refused {
            self.keep(sent[refused.position]);
            self.tell(&refused.code, "deleted after it was sent, so that it is in both queues");
        }
    }

    fn tell_of(&mut self, delivered: &Delivered) {
        for refused in &delivered.refused {
            self.tell(&refused.code, "sent");
        }
        if !delivered.perhaps.is_empty() {
            let count = counted(delivered.perhaps.len(), "message");
            eprintln!("sqs-etl: an answer is missing: {count} may be in both queues");
        }
    }

    fn tell(&mut self, code: &str, what: &str) {
        if self.told.insert(format!("{code} {what}")) {
            eprintln!("sqs-etl: SQS says {code} of a message that could not be {what}");
        }
    }
}

/// A message as it is sent anew.
fn copy(message: &Received, is_fifo: bool) -> Outgoing {
    Outgoing {
        body: message.raw.body().unwrap_or_default().to_owned(),
        attributes: message.raw.message_attributes.clone().unwrap_or_default(),
        group: message.group().map(str::to_owned),
        deduplication: is_fifo.then(|| message.id.clone()),
        trace: message.system(&MessageSystemAttributeName::AwsTraceHeader).map(str::to_owned),
    }
}

/// Divided into calls, in the order in which they are to be made.
fn in_calls(pairs: Vec<Pair>, is_ordered: bool) -> Vec<Vec<Pair>> {
    let mut divided = Vec::new();
    for round in rounds(pairs, is_ordered, |pair| pair.message.group()) {
        let calls = calls(round.iter().map(|pair| pair.copy.size().min(LARGEST)));
        let mut round = round.into_iter();
        divided.extend(calls.into_iter().map(|call| round.by_ref().take(call.len()).collect::<Vec<_>>()));
    }
    divided
}

/// What may be sent side by side: all, or where order counts one message of each group at a time.
fn rounds<T>(received: Vec<T>, is_ordered: bool, group: impl Fn(&T) -> Option<&str>) -> Vec<Vec<T>> {
    if !is_ordered {
        return vec![received];
    }
    let mut rounds: Vec<Vec<T>> = Vec::new();
    let mut next: HashMap<Option<String>, usize> = HashMap::new();
    for message in received {
        let round = next.entry(group(&message).map(str::to_owned)).or_default();
        if *round == rounds.len() {
            rounds.push(Vec::new());
        }
        rounds[*round].push(message);
        *round += 1;
    }
    rounds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_order_counts_no_two_of_a_group_are_sent_side_by_side() {
        let rounds = |is_ordered| rounds(vec!["a1", "a2", "b1", "a3", "b2"], is_ordered, |message| Some(&message[..1]));
        assert_eq!(rounds(true), [vec!["a1", "b1"], vec!["a2", "b2"], vec!["a3"]]);
        assert_eq!(rounds(false), [vec!["a1", "a2", "b1", "a3", "b2"]]);
    }
}
