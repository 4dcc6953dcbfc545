//! An SQS queue in memory, standard or FIFO, with visibility timeout, receive counts and a
//! dead-letter queue. It has no HTTP API, no retention, no delay and no deduplication, and a
//! standard queue is kinder than AWS's: it keeps the order and delivers nothing twice by chance.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use crate::clock::{Clock, milliseconds};
use crate::invocation::ACCOUNT;

/// The largest message that SQS takes, in bytes.
pub const LARGEST_MESSAGE: usize = 1024 * 1024;

/// A message to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// A UUID is made if there is none.
    pub id: Option<String>,
    /// SQS sends none without; a test may.
    pub body: Option<String>,
    /// The message group. A FIFO queue wants one; a standard queue may have one (fair queues).
    pub group: Option<String>,
    /// FIFO only; a UUID is made if there is none. Nothing is deduplicated by it.
    pub deduplication_id: Option<String>,
    /// Message attributes, all of type `String`.
    pub attributes: BTreeMap<String, String>,
    /// Milliseconds since the epoch; the clock's time if there is none.
    pub sent_ms: Option<u64>,
}

impl Message {
    /// A message with this body.
    pub fn new(body: impl Into<String>) -> Self {
        Self { body: Some(body.into()), ..Self::default() }
    }

    /// Gives it an id of the caller's choice.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Puts it into a message group.
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Adds a message attribute.
    pub fn attribute(mut self, name: &str, value: &str) -> Self {
        self.attributes.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Has it sent at this time, in milliseconds since the epoch.
    pub fn sent_ms(mut self, epoch_ms: u64) -> Self {
        self.sent_ms = Some(epoch_ms);
        self
    }
}

/// A message as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The same at each receive, and in the dead-letter queue.
    pub message_id: String,
    /// Another one at each receive.
    pub receipt_handle: String,
    /// What was sent.
    pub message: Message,
    /// How often it was received, this time included.
    pub receive_count: u32,
    /// Milliseconds since the epoch.
    pub sent_ms: u64,
    /// Milliseconds since the epoch.
    pub first_received_ms: u64,
    /// FIFO only: 20 digits that grow.
    pub sequence_number: Option<String>,
}

/// How many messages are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Ready to be received.
    pub visible: usize,
    /// Received and neither deleted nor come back.
    pub in_flight: usize,
}

/// What SQS would refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// FIFO queues order by group.
    #[error("a message to the FIFO queue {0} needs a message group")]
    NoGroup(String),
    /// More than [`LARGEST_MESSAGE`].
    #[error("a message has {0} bytes, but SQS takes at most {LARGEST_MESSAGE}")]
    TooLarge(usize),
    /// A FIFO queue's dead-letter queue is a FIFO queue, a standard queue's a standard one.
    #[error("{queue} and its dead-letter queue {dead_letters} must both be FIFO or both be standard")]
    MixedKinds {
        /// The source queue.
        queue: String,
        /// Its dead-letter queue.
        dead_letters: String,
    },
    /// SQS allows 1 to 1,000.
    #[error("maxReceiveCount is {0}, but SQS allows 1 to 1000")]
    BadMaxReceiveCount(u32),
}

/// How a [`Queue`] shall be.
#[derive(Clone, Debug)]
pub struct Builder {
    name: String,
    region: String,
    visibility_timeout: Duration,
    redrive: Option<Redrive>,
}

#[derive(Clone, Debug)]
struct Redrive {
    queue: Arc<Queue>,
    max_receive_count: u32,
}

impl Builder {
    /// How long a received message stays invisible. 30 seconds by default.
    pub fn visibility_timeout(mut self, timeout: Duration) -> Self {
        self.visibility_timeout = timeout;
        self
    }

    /// Where a message goes that was received `max_receive_count` times and would be once more.
    pub fn dead_letters(mut self, queue: &Arc<Queue>, max_receive_count: u32) -> Self {
        self.redrive = Some(Redrive { queue: Arc::clone(queue), max_receive_count });
        self
    }

    /// The region in its ARN. `us-east-1` by default.
    pub fn region(mut self, region: &str) -> Self {
        region.clone_into(&mut self.region);
        self
    }

    /// Makes the queue. It lives by `clock`.
    pub fn create(self, clock: &Clock) -> Result<Arc<Queue>, QueueError> {
        let queue = Queue { settings: self, clock: clock.clone(), state: Mutex::default() };
        if let Some(redrive) = &queue.settings.redrive {
            if redrive.queue.is_fifo() != queue.is_fifo() {
                let dead_letters = redrive.queue.name().to_owned();
                return Err(QueueError::MixedKinds { queue: queue.settings.name, dead_letters });
            }
            if !(1..=1000).contains(&redrive.max_receive_count) {
                return Err(QueueError::BadMaxReceiveCount(redrive.max_receive_count));
            }
        }
        Ok(Arc::new(queue))
    }
}

/// A queue. It is a FIFO queue if its name ends in `.fifo`.
#[derive(Debug)]
pub struct Queue {
    settings: Builder,
    clock: Clock,
    state: Mutex<State>,
}

/// **Invariant:** a message is in exactly one of `ready` and `in_flight`, and whatever is in flight
/// has one entry in `returning`.
#[derive(Debug, Default)]
struct State {
    /// By place, which is the order of sending and stays a message's own.
    ready: BTreeMap<u64, Stored>,
    /// By receipt handle.
    in_flight: HashMap<String, InFlight>,
    /// Receipt handles by the time of coming back, in milliseconds since the epoch, and place.
    returning: BTreeMap<(u64, u64), String>,
    last_place: u64,
}

#[derive(Debug)]
struct Stored {
    message_id: String,
    message: Message,
    sent_ms: u64,
    receive_count: u32,
    first_received_ms: Option<u64>,
}

#[derive(Debug)]
struct InFlight {
    place: u64,
    stored: Stored,
    visible_at_ms: u64,
}

impl Queue {
    /// A queue with this name and the defaults.
    pub fn builder(name: &str) -> Builder {
        Builder {
            name: name.to_owned(),
            region: "us-east-1".to_owned(),
            visibility_timeout: Duration::from_secs(30),
            redrive: None,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Its region.
    pub fn region(&self) -> &str {
        &self.settings.region
    }

    /// Its ARN, which ends in its name.
    pub fn arn(&self) -> String {
        format!("arn:aws:sqs:{}:{ACCOUNT}:{}", self.region(), self.name())
    }

    /// Whether it keeps the order within message groups.
    pub fn is_fifo(&self) -> bool {
        self.name().ends_with(".fifo")
    }

    /// How long a received message stays invisible.
    pub fn visibility_timeout(&self) -> Duration {
        self.settings.visibility_timeout
    }

    /// Where its poison goes.
    pub fn dead_letters(&self) -> Option<&Arc<Queue>> {
        self.settings.redrive.as_ref().map(|redrive| &redrive.queue)
    }

    /// The clock it lives by.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Appends a message and returns its id.
    pub fn send(&self, mut message: Message) -> Result<String, QueueError> {
        let size = message.body.as_ref().map_or(0, String::len);
        if size > LARGEST_MESSAGE {
            return Err(QueueError::TooLarge(size));
        }
        if self.is_fifo() {
            if message.group.is_none() {
                return Err(QueueError::NoGroup(self.name().to_owned()));
            }
            message.deduplication_id.get_or_insert_with(new_uuid);
        }
        let message_id = message.id.get_or_insert_with(new_uuid).clone();
        let sent_ms = *message.sent_ms.get_or_insert_with(|| self.clock.now_ms());
        self.store(Stored {
            message_id: message_id.clone(),
            message,
            sent_ms,
            receive_count: 0,
            first_received_ms: None,
        });
        Ok(message_id)
    }

    /// Receives up to `most` messages in the order of sending, as long as `take` wants the next one.
    /// What was received too often goes to the dead-letter queue instead. In a FIFO queue a group
    /// with a message in flight is left alone.
    pub fn receive(&self, most: usize, mut take: impl FnMut(&Received) -> bool) -> Vec<Received> {
        let now_ms = self.clock.now_ms();
        let mut state = self.state();
        state.bring_back(now_ms);
        let blocked = if self.is_fifo() { state.groups_in_flight() } else { HashSet::new() };
        let mut received = Vec::new();
        let mut from = 0;
        while received.len() < most {
            let Some((&place, stored)) = state.ready.range(from..).next() else {
                break;
            };
            from = place + 1;
            if stored.message.group.as_ref().is_some_and(|group| blocked.contains(group)) {
                continue;
            }
            if let Some(redrive) = self.redrive_of(stored) {
                if let Some(stored) = state.ready.remove(&place) {
                    redrive.queue.store(Stored { receive_count: 0, first_received_ms: None, ..stored });
                }
                continue;
            }
            let next = self.as_received(place, stored, now_ms);
            if !take(&next) {
                break;
            }
            let visible_at_ms = now_ms + milliseconds(self.visibility_timeout());
            state.send_off(place, &next, visible_at_ms);
            received.push(next);
        }
        received
    }

    /// Deletes what was received with this handle. False if it came back meanwhile, which SQS
    /// forgives a standard queue as long as nobody has received it again.
    pub fn delete(&self, receipt_handle: &str) -> bool {
        let mut state = self.state();
        let Some(gone) = state.in_flight.remove(receipt_handle) else {
            return false;
        };
        state.returning.remove(&(gone.visible_at_ms, gone.place));
        true
    }

    /// How many messages are ready and in flight at the clock's time.
    pub fn depth(&self) -> Depth {
        let mut state = self.state();
        state.bring_back(self.clock.now_ms());
        Depth { visible: state.ready.len(), in_flight: state.in_flight.len() }
    }

    /// When the next message in flight comes back, in milliseconds since the epoch.
    pub fn next_visible_ms(&self) -> Option<u64> {
        self.state().returning.first_key_value().map(|(&(at_ms, _), _)| at_ms)
    }

    /// The ready messages, in their order, without receiving them.
    pub fn peek(&self) -> Vec<Message> {
        let mut state = self.state();
        state.bring_back(self.clock.now_ms());
        state.ready.values().map(|stored| stored.message.clone()).collect()
    }

    /// Takes the ready messages out, to be sent elsewhere: a redrive by hand.
    pub fn drain(&self) -> Vec<Message> {
        let mut state = self.state();
        state.bring_back(self.clock.now_ms());
        std::mem::take(&mut state.ready).into_values().map(|stored| stored.message).collect()
    }

    fn store(&self, stored: Stored) {
        let mut state = self.state();
        state.last_place += 1;
        let place = state.last_place;
        state.ready.insert(place, stored);
    }

    fn redrive_of(&self, stored: &Stored) -> Option<&Redrive> {
        let redrive = self.settings.redrive.as_ref()?;
        (stored.receive_count >= redrive.max_receive_count).then_some(redrive)
    }

    fn as_received(&self, place: u64, stored: &Stored, now_ms: u64) -> Received {
        Received {
            message_id: stored.message_id.clone(),
            receipt_handle: new_uuid(),
            message: stored.message.clone(),
            receive_count: stored.receive_count + 1,
            sent_ms: stored.sent_ms,
            first_received_ms: stored.first_received_ms.unwrap_or(now_ms),
            sequence_number: self.is_fifo().then(|| format!("{place:020}")),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn bring_back(&mut self, now_ms: u64) {
        while let Some(entry) = self.returning.first_entry().filter(|entry| entry.key().0 <= now_ms) {
            if let Some(back) = self.in_flight.remove(&entry.remove()) {
                self.ready.insert(back.place, back.stored);
            }
        }
    }

    fn groups_in_flight(&self) -> HashSet<String> {
        self.in_flight.values().filter_map(|gone| gone.stored.message.group.clone()).collect()
    }

    fn send_off(&mut self, place: u64, received: &Received, visible_at_ms: u64) {
        let Some(mut stored) = self.ready.remove(&place) else {
            return;
        };
        stored.receive_count = received.receive_count;
        stored.first_received_ms = Some(received.first_received_ms);
        let handle = received.receipt_handle.clone();
        self.returning.insert((visible_at_ms, place), handle.clone());
        self.in_flight.insert(handle, InFlight { place, stored, visible_at_ms });
    }
}

fn new_uuid() -> String {
    Uuid::new_v4().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn queue_with(name: &str, bodies: &[&str]) -> Arc<Queue> {
        let queue = Queue::builder(name).create(&Clock::at(1_000)).unwrap();
        for body in bodies {
            // In `g1` the group is g.
            queue.send(Message::new(*body).group(&body[..1])).unwrap();
        }
        queue
    }

    fn bodies(received: &[Received]) -> Vec<&str> {
        received.iter().filter_map(|received| received.message.body.as_deref()).collect()
    }

    #[test]
    fn a_received_message_is_invisible_until_its_timeout_and_counts_its_receives() {
        let queue = queue_with("logins", &["a", "b"]);
        let first = queue.receive(10, |_| true);
        assert_eq!(bodies(&first), ["a", "b"]);
        assert_eq!(queue.depth(), Depth { visible: 0, in_flight: 2 });
        queue.clock().advance(TIMEOUT - Duration::from_millis(1));
        assert!(queue.receive(10, |_| true).is_empty());
        assert_eq!(queue.next_visible_ms(), Some(31_000));

        queue.clock().advance(Duration::from_millis(1));
        let second = queue.receive(1, |_| true);
        assert_eq!(bodies(&second), ["a"]);
        assert_eq!((second[0].receive_count, second[0].sent_ms), (2, 1_000));
        assert_eq!(second[0].first_received_ms, 1_000);
        assert_eq!(second[0].message_id, first[0].message_id);
        assert_ne!(second[0].receipt_handle, first[0].receipt_handle);
    }

    #[test]
    fn a_deleted_message_does_not_come_back_and_a_stale_handle_deletes_nothing() {
        let queue = queue_with("logins", &["a", "b"]);
        let first = queue.receive(10, |_| true);
        assert!(queue.delete(&first[0].receipt_handle));
        assert!(!queue.delete(&first[0].receipt_handle));
        queue.clock().advance(TIMEOUT);
        assert_eq!(bodies(&queue.receive(10, |_| true)), ["b"]);
        assert!(!queue.delete(&first[1].receipt_handle));
        assert_eq!(queue.depth(), Depth { visible: 0, in_flight: 1 });
    }

    #[test]
    fn what_the_receiver_does_not_take_stays() {
        let queue = queue_with("logins", &["a", "b", "c"]);
        let mut room = 2;
        let fits = |_: &Received| {
            room -= 1;
            room >= 0
        };
        assert_eq!(bodies(&queue.receive(10, fits)), ["a", "b"]);
        assert_eq!(bodies(&queue.receive(10, |_| true)), ["c"]);
    }

    #[test]
    fn after_its_last_receive_a_message_goes_to_the_dead_letter_queue_with_its_id() {
        let clock = Clock::at(0);
        let dead = Queue::builder("dead").create(&clock).unwrap();
        let queue = Queue::builder("logins").dead_letters(&dead, 2).create(&clock).unwrap();
        let id = queue.send(Message::new("poison").sent_ms(7)).unwrap();
        for count in 1..=2 {
            assert_eq!(queue.receive(1, |_| true)[0].receive_count, count);
            clock.advance(TIMEOUT);
        }
        assert!(queue.receive(1, |_| true).is_empty());
        assert_eq!(queue.depth(), Depth::default());
        assert_eq!(dead.peek(), [Message::new("poison").id(&id).sent_ms(7)]);
        assert_eq!(dead.drain().len(), 1);
        assert_eq!(dead.depth(), Depth::default());
    }

    #[test]
    fn in_a_fifo_queue_a_group_in_flight_is_blocked_and_the_others_go_on() {
        let queue = queue_with("logins.fifo", &["g1", "g2", "h1", "g3", "h2"]);
        let first = queue.receive(2, |_| true);
        assert_eq!(bodies(&first), ["g1", "g2"]);
        assert_eq!(bodies(&queue.receive(10, |_| true)), ["h1", "h2"]);
        assert!(queue.delete(&first[0].receipt_handle));
        assert!(queue.receive(10, |_| true).is_empty());
        queue.clock().advance(TIMEOUT);
        assert_eq!(bodies(&queue.receive(10, |_| true)), ["g2", "h1", "g3", "h2"]);
    }

    #[test]
    fn a_standard_queue_blocks_no_group() {
        let queue = queue_with("logins", &["g1", "g2"]);
        assert_eq!(queue.receive(1, |_| true).len(), 1);
        assert_eq!(queue.receive(1, |_| true).len(), 1);
    }

    #[test]
    fn what_sqs_refuses_is_refused() {
        let clock = Clock::at(0);
        let fifo = Queue::builder("a.fifo").create(&clock).unwrap();
        assert!(matches!(fifo.send(Message::new("x")), Err(QueueError::NoGroup(_))));
        let large = Message::new("x".repeat(LARGEST_MESSAGE + 1)).group("g");
        assert_eq!(fifo.send(large), Err(QueueError::TooLarge(LARGEST_MESSAGE + 1)));
        let mixed = Queue::builder("b").dead_letters(&fifo, 3).create(&clock);
        assert!(matches!(mixed, Err(QueueError::MixedKinds { .. })));
        let never = Queue::builder("b.fifo").dead_letters(&fifo, 0).create(&clock);
        assert!(matches!(never, Err(QueueError::BadMaxReceiveCount(0))));
    }
}
