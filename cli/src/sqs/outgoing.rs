//! Messages on their way to a queue: what SQS takes, how they are divided into calls, and what becomes of each.
//!
//! The limits are SQS's own: ten messages and 1 MiB a call, 1 MiB a message, attributes included, and the characters that
//! XML 1.0 has (its `SendMessageBatch` reference). A queue may be set to less, and emulators may lag behind.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use anyhow::Result;
use aws_sdk_sqs::types::{
    MessageAttributeValue, MessageSystemAttributeNameForSends, MessageSystemAttributeValue,
    SendMessageBatchRequestEntry,
};
use tokio::time::{Instant, sleep};

use super::calls::PAUSE;
use super::{Answer, CALL, Queue, QueueError, Refused, Taken};

/// The most bytes of one message, and of all messages of one call.
pub const LARGEST: usize = 1024 * 1024;
/// How long what SQS refuses for the moment is tried again.
const PATIENCE: Duration = Duration::from_secs(30);
/// One attempt at a call: time for a mebibyte at 20 kB a second.
pub const ATTEMPT_LIMIT: Duration = Duration::from_secs(60);
/// A call that goes on when patience ends, a pause, and the last one.
pub const LONGEST_DELIVERY: Duration =
    Duration::from_secs(PATIENCE.as_secs() + PAUSE.longest().as_secs() + 2 * ATTEMPT_LIMIT.as_secs());

/// A message to send.
pub struct Outgoing {
    pub body: String,
    pub attributes: HashMap<String, MessageAttributeValue>,
    pub group: Option<String>,
    /// FIFO queues drop a second message with the same one, for five minutes.
    pub deduplication: Option<String>,
    /// X-Ray's header, the only system attribute that a sender may set; it does not count in a message's size.
    pub trace: Option<String>,
}

/// What became of messages that were to be sent in one go. Those in no list were not sent: the call failed with `error`, or
/// it was on purpose, because one before them failed.
#[derive(Debug, Default)]
pub struct Delivered {
    pub taken: Vec<Taken>,
    pub refused: Vec<Refused>,
    /// Places of those that may be in the queue although it was not said: the answer to an attempt is missing, and no later
    /// one was taken.
    pub perhaps: BTreeSet<usize>,
    pub error: Option<QueueError>,
}

/// Why SQS would refuse a message. **Invariant (Silence):** numbers only.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("has {size} bytes with its attributes, and the queue takes {largest}")]
    TooLarge { size: usize, largest: usize },
    #[error("has a character that SQS refuses, U+{code:04X}, at column {column}")]
    Character { code: u32, column: usize },
}

impl Outgoing {
    /// Bytes as SQS counts them: the body, and of each attribute its name, type and value.
    pub fn size(&self) -> usize {
        let attribute = |(name, value): (&String, &MessageAttributeValue)| {
            let text = value.string_value().map_or(0, str::len);
            name.len() + value.data_type().len() + text + value.binary_value().map_or(0, |bytes| bytes.as_ref().len())
        };
        self.body.len() + self.attributes.iter().map(attribute).sum::<usize>()
    }

    /// An error if SQS would refuse it.
    pub fn check(&self, largest: usize) -> Result<(), Unfit> {
        let size = self.size();
        if size > largest {
            return Err(Unfit::TooLarge { size, largest });
        }
        match self.body.chars().zip(1..).find(|(character, _)| !is_allowed(*character)) {
            Some((character, column)) => Err(Unfit::Character { code: character.into(), column }),
            None => Ok(()),
        }
    }

    fn entry(&self, place: usize) -> SendMessageBatchRequestEntry {
        let attributes = if self.attributes.is_empty() { None } else { Some(self.attributes.clone()) };
        let entry = SendMessageBatchRequestEntry::builder().id(place.to_string()).message_body(&self.body);
        let entry = entry.set_message_attributes(attributes).set_message_group_id(self.group.clone());
        let entry = entry.set_message_deduplication_id(self.deduplication.clone());
        let entry = match self.trace() {
            Some(trace) => entry.message_system_attributes(MessageSystemAttributeNameForSends::AwsTraceHeader, trace),
            None => entry,
        };
        entry.build().expect("id and body are there")
    }

    fn trace(&self) -> Option<MessageSystemAttributeValue> {
        let value = MessageSystemAttributeValue::builder().data_type("String").string_value(self.trace.as_ref()?);
        Some(value.build().expect("the type is there"))
    }
}

/// Whether SQS takes a character. A Rust character is no surrogate.
pub fn is_allowed(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// Divides messages of these sizes into calls, in order: as many as go into one.
pub fn calls(sizes: impl IntoIterator<Item = usize>) -> Vec<Range<usize>> {
    let mut calls: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (position, size) in sizes.into_iter().enumerate() {
        match calls.last_mut() {
            Some(call) if call.len() < CALL && bytes + size <= LARGEST => {
                call.end += 1;
                bytes += size;
            }
            _ => {
                calls.push(position..position + 1);
                bytes = size;
            }
        }
    }
    calls
}

impl Queue {
    /// Sends messages that go into one call, and repeats what SQS could not take for the moment.
    pub async fn deliver(&self, messages: &[&Outgoing]) -> Delivered {
        let call = async |places: &[usize]| {
            self.send(places.iter().map(|&place| messages[place].entry(place)).collect()).await
        };
        deliver(messages.len(), self.is_fifo(), Instant::now() + PATIENCE, call).await
    }
}

/// Where `is_ordered`, nothing is sent behind what was refused.
async fn deliver<F>(count: usize, is_ordered: bool, until: Instant, call: F) -> Delivered
where
    F: AsyncFn(&[usize]) -> Result<Answer, QueueError>,
{
    let mut delivered = Delivered::default();
    let mut pieces = VecDeque::from([(0..count).collect::<Vec<_>>()]);
    let mut pauses = PAUSE;
    let mut pause = pauses.next();
    while let Some(places) = pieces.pop_front() {
        let is_last_try = Instant::now() + pause >= until;
        let again = match call(&places).await {
            Ok(answer) => delivered.settle(&places, answer, is_ordered, is_last_try),
            Err(error) if error.is_about_contents() && places.len() > 1 => {
                let (first, second) = places.split_at(places.len() / 2);
                pieces.push_front(second.to_vec());
                pieces.push_front(first.to_vec());
                continue;
            }
            Err(error) if error.is_about_contents() => {
                delivered.refused.push(error.refusal(places[0]));
                Vec::new()
            }
            Err(error) => {
                if may_be_taken(&error) {
                    delivered.perhaps.extend(&places);
                }
                if error.is_lasting || is_last_try {
                    delivered.error = Some(error);
                    return delivered;
                }
                places
            }
        };
        if is_ordered && !delivered.refused.is_empty() {
            return delivered;
        }
        if !again.is_empty() {
            pieces.push_front(again);
            sleep(pause).await;
            pause = pauses.next();
        }
    }
    delivered
}

impl Delivered {
    /// Takes an answer down; gives the places to send again.
    fn settle(&mut self, places: &[usize], answer: Answer, is_ordered: bool, is_last_try: bool) -> Vec<usize> {
        let mut refused = answer.refused;
        let is_answered = |place: &usize| {
            answer.taken.iter().any(|taken| taken.position == *place)
                || refused.iter().any(|refused| refused.position == *place)
        };
        let silent: Vec<_> =
            places.iter().filter(|place| !is_answered(place)).map(|&place| unanswered(place)).collect();
        refused.extend(silent);
        refused.sort_by_key(|refused| refused.position);
        for taken in &answer.taken {
            self.perhaps.remove(&taken.position);
        }
        self.taken.extend(answer.taken);
        let may_repeat = |refused: &Refused| !is_last_try && !refused.is_lasting;
        // In order: what is sent again comes behind what was taken, so nothing behind it may have been.
        let keeps_order = || places.ends_with(&positions(&refused)) && refused.iter().all(may_repeat);
        if is_ordered && !keeps_order() {
            self.refused.extend(refused);
            return Vec::new();
        }
        let (again, for_good): (Vec<_>, Vec<_>) = refused.into_iter().partition(may_repeat);
        self.refused.extend(for_good);
        positions(&again)
    }
}

/// Whether messages may be in the queue though their call failed: the answer is missing, or tells of a failure on SQS's side.
fn may_be_taken(error: &QueueError) -> bool {
    let is_refusal = |code: &str| code == "OverLimit" || code == "Credentials" || code.contains("Throttl");
    !error.is_lasting && !is_refusal(error.short_code())
}

fn positions(refused: &[Refused]) -> Vec<usize> {
    refused.iter().map(|refused| refused.position).collect()
}

/// An entry that an answer says nothing of; SQS never does that.
fn unanswered(position: usize) -> Refused {
    Refused::of_entry(position, "NoAnswer", false)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn outgoing(body: &str) -> Outgoing {
        Outgoing { body: body.to_owned(), attributes: HashMap::new(), group: None, deduplication: None, trace: None }
    }

    #[test]
    fn a_call_holds_ten_messages_and_a_mebibyte_at_most() {
        for (sizes, ends) in [
            (vec![], vec![]),
            (vec![1; 10], vec![10]),
            (vec![1; 11], vec![10, 11]),
            (vec![LARGEST, 1], vec![1, 2]),
            (vec![LARGEST / 2, LARGEST / 2, 1], vec![2, 3]),
            (vec![1, LARGEST, 1], vec![1, 2, 3]),
        ] {
            let calls = calls(sizes.iter().copied());
            assert_eq!(calls.iter().map(|call| call.end).collect::<Vec<_>>(), ends, "{sizes:?}");
            assert!(calls.windows(2).all(|pair| pair[0].end == pair[1].start), "{calls:?}");
        }
    }

    #[test]
    fn what_sqs_refuses_is_known_beforehand() {
        let check = |body: &str, expected| assert_eq!(outgoing(body).check(20), expected, "{body:?}");
        check("{\"a\":1}\t\r", Ok(()));
        check("\u{e000}\u{fffd}\u{10ffff}", Ok(()));
        for (character, code) in
            [('\0', 0), ('\u{b}', 0xb), ('\u{1f}', 0x1f), ('\u{fffe}', 0xfffe), ('\u{ffff}', 0xffff)]
        {
            check(&format!("ä{character}"), Err(Unfit::Character { code, column: 2 }));
        }
        check(&"x".repeat(20), Ok(()));
        check(&"ä".repeat(11), Err(Unfit::TooLarge { size: 22, largest: 20 }));
    }

    #[test]
    fn attributes_count_in_a_messages_size() {
        let value = MessageAttributeValue::builder().data_type("String").string_value("shop").build().unwrap();
        let message = Outgoing { attributes: HashMap::from([("tenant".to_owned(), value)]), ..outgoing("12345") };
        assert_eq!(message.size(), 5 + 6 + 6 + 4);
    }

    /// What a queue does to the messages of one call.
    type Behaviour = fn(calls_before: usize, place: usize) -> Option<(&'static str, bool)>;

    struct Seen {
        calls: Vec<Vec<usize>>,
        taken: Vec<usize>,
        perhaps: Vec<usize>,
        refused: Vec<(usize, String)>,
        failed: Option<String>,
    }

    async fn run(
        count: usize,
        is_ordered: bool,
        behaviour: Behaviour,
        fails: fn(&[usize]) -> Option<QueueError>,
    ) -> Seen {
        run_with(count, is_ordered, behaviour, |_, places| fails(places)).await
    }

    async fn run_with(
        count: usize,
        is_ordered: bool,
        behaviour: Behaviour,
        fails: impl Fn(usize, &[usize]) -> Option<QueueError>,
    ) -> Seen {
        let calls = RefCell::new(Vec::<Vec<usize>>::new());
        let call = async |places: &[usize]| {
            let before = calls.borrow().len();
            calls.borrow_mut().push(places.to_vec());
            if let Some(error) = fails(before, places) {
                return Err(error);
            }
            let mut answer = Answer::default();
            for &position in places {
                match behaviour(before, position) {
                    None => answer.taken.push(Taken { position, message_id: position.to_string() }),
                    Some((code, is_lasting)) => {
                        answer.refused.push(Refused::of_entry(position, code, is_lasting));
                    }
                }
            }
            Ok(answer)
        };
        let delivered = deliver(count, is_ordered, Instant::now() + PATIENCE, call).await;
        let mut taken: Vec<_> = delivered.taken.iter().map(|taken| taken.position).collect();
        if !is_ordered {
            taken.sort();
        }
        let refused = delivered.refused.into_iter().map(|refused| (refused.position, refused.code)).collect();
        let (perhaps, failed) = (delivered.perhaps.into_iter().collect(), delivered.error.map(|error| error.code));
        Seen { calls: calls.into_inner(), taken, perhaps, refused, failed }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_for_the_moment_is_sent_again_and_what_is_lasting_is_not() {
        let behaviour: Behaviour = |before, place| match place {
            1 if before < 3 => Some(("InternalError", false)),
            2 => Some(("InvalidMessageContents", true)),
            _ => None,
        };
        let seen = run(4, false, behaviour, |_| None).await;
        assert_eq!(seen.calls, [vec![0, 1, 2, 3], vec![1], vec![1], vec![1]]);
        assert_eq!(seen.taken, [0, 1, 3]);
        assert_eq!(seen.refused, [(2, "InvalidMessageContents".to_owned())]);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let seen = run(2, false, |_, place| (place == 1).then_some(("InternalError", false)), |_| None).await;
        assert_eq!((seen.taken, seen.refused), (vec![0], vec![(1, "InternalError".to_owned())]));
        let unreachable = |_: &[usize]| Some(QueueError::made_up("Unreachable", false));
        let seen = run(2, true, |_, _| None, unreachable).await;
        assert_eq!((seen.taken, seen.failed.as_deref()), (vec![], Some("Unreachable")));
        assert!(seen.calls.len() > 3);
    }

    #[tokio::test(start_paused = true)]
    async fn in_order_only_an_end_of_a_call_is_sent_again() {
        let seen =
            run(4, true, |before, place| (before == 0 && place > 1).then_some(("InternalError", false)), |_| None);
        let seen = seen.await;
        assert_eq!((seen.calls, seen.taken), (vec![vec![0, 1, 2, 3], vec![2, 3]], vec![0, 1, 2, 3]));

        let seen = run(4, true, |_, place| (place == 1).then_some(("InternalError", false)), |_| None).await;
        assert_eq!((seen.calls.len(), seen.taken), (1, vec![0, 2, 3]));
        assert_eq!(seen.refused, [(1, "InternalError".to_owned())]);

        let behaviour: Behaviour = |_, place| (place > 1).then_some(("Code", place == 2));
        let seen = run(4, true, behaviour, |_| None).await;
        assert_eq!((seen.calls.len(), seen.taken, seen.refused.len()), (1, vec![0, 1], 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_too_long_is_divided_until_the_message_is_found() {
        let fails = |places: &[usize]| {
            let is_too_long = places.len() > 2 || places.contains(&3);
            is_too_long.then(|| QueueError::made_up("AWS.SimpleQueueService.BatchRequestTooLong", true))
        };
        let seen = run(5, false, |_, _| None, fails).await;
        assert_eq!(seen.calls, [vec![0, 1, 2, 3, 4], vec![0, 1], vec![2, 3, 4], vec![2], vec![3, 4], vec![3], vec![4]]);
        assert_eq!(seen.taken, [0, 1, 2, 4]);
        assert_eq!(seen.refused, [(3, "AWS.SimpleQueueService.BatchRequestTooLong".to_owned())]);
        let seen = run(5, true, |_, _| None, fails).await;
        assert_eq!((seen.taken, seen.refused.len()), (vec![0, 1, 2], 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lasting_error_of_the_queue_ends_it() {
        let seen = run(3, false, |_, _| None, |_| Some(QueueError::made_up("AccessDenied", true))).await;
        assert_eq!((seen.calls.len(), seen.failed.as_deref()), (1, Some("AccessDenied")));
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_answer_is_missing_for_may_be_in_the_queue() {
        let fails = |first: &'static str, then: Option<&'static str>| {
            move |before: usize, _: &[usize]| match before {
                0 => Some(QueueError::made_up(first, false)),
                _ => then.map(|code| QueueError::made_up(code, true)),
            }
        };
        let seen = run_with(2, false, |_, _| None, fails("TimedOut", Some("AccessDenied"))).await;
        assert_eq!((seen.perhaps, seen.failed.as_deref()), (vec![0, 1], Some("AccessDenied")));
        let seen = run_with(2, false, |_, _| None, fails("RequestThrottled", Some("AccessDenied"))).await;
        assert_eq!((seen.perhaps, seen.failed.as_deref()), (vec![], Some("AccessDenied")));
        let seen = run_with(2, false, |_, place| (place == 1).then_some(("Code", true)), fails("TimedOut", None)).await;
        assert_eq!((seen.taken, seen.perhaps), (vec![0], vec![1]));
    }

    #[tokio::test]
    async fn a_message_that_an_answer_forgets_was_not_sent() {
        let until = Instant::now();
        let delivered = deliver(1, false, until, async |_: &[usize]| Ok(Answer::default())).await;
        assert_eq!(delivered.refused, [unanswered(0)]);
    }
}
