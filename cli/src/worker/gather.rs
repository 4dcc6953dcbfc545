//! Gathers received messages to batches: full ones, or whatever there is when the first has waited long enough.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::sqs::Received;

/// A batch of Lambda's holds no more than that either.
pub const BATCH_BYTES: usize = 6 * 1024 * 1024;

/// A message that is ours for now.
pub struct Held {
    /// Told apart by this, as a message may be received twice.
    pub serial: u64,
    /// Messages with the same number came with one receive.
    pub receive: u64,
    pub received: Received,
    pub since: Instant,
}

/// Messages that wait for their batch, in the order they came.
pub struct Gather {
    most: usize,
    window: Duration,
    /// What was received together stays together.
    is_ordered: bool,
    waiting: VecDeque<Held>,
}

impl Gather {
    /// **Invariant (order):** SQS gives nothing more of a group while some of it is in flight, so all that is in hand of a group was
    /// received at once. In an ordered queue it must be in one batch, or a later message could be stored before an earlier one.
    pub fn new(most: usize, window: Duration, is_ordered: bool) -> Self {
        Self { most, window, is_ordered, waiting: VecDeque::new() }
    }

    pub fn push(&mut self, held: Held) {
        self.waiting.push_back(held);
    }

    /// When the first message will have waited long enough.
    pub fn due(&self) -> Option<Instant> {
        Some(self.waiting.front()?.since + self.window)
    }

    /// A batch that is full or due; with `hurry` any.
    pub fn next(&mut self, now: Instant, hurry: bool) -> Option<Vec<Held>> {
        let due = self.due()?;
        let (count, is_full) = self.first();
        let is_ready = is_full || hurry || now >= due;
        is_ready.then(|| self.waiting.drain(..count).collect())
    }

    /// All that wait.
    pub fn take(&mut self) -> Vec<Held> {
        std::mem::take(&mut self.waiting).into()
    }

    /// How many messages the next batch has, and whether it can take no more.
    fn first(&self) -> (usize, bool) {
        let (mut bytes, mut start) = (0, 0);
        for (count, held) in self.waiting.iter().enumerate() {
            if !self.is_ordered || count == 0 || self.waiting[count - 1].receive != held.receive {
                start = count;
            }
            bytes += held.received.size();
            if start > 0 && (count >= self.most || bytes > BATCH_BYTES) {
                return (start, true);
            }
        }
        (self.waiting.len(), self.waiting.len() >= self.most || bytes >= BATCH_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_sqs::types::Message;

    use super::*;

    const WINDOW: Duration = Duration::from_millis(200);

    /// So many messages of each receive, each of one byte.
    fn gather(most: usize, is_ordered: bool, receives: &[usize], since: Instant) -> Gather {
        let mut gather = Gather::new(most, WINDOW, is_ordered);
        let receives = receives.iter().enumerate().flat_map(|(receive, count)| vec![receive; *count]);
        for (serial, receive) in receives.enumerate() {
            gather.push(held(serial, receive, 1, since));
        }
        gather
    }

    fn held(serial: usize, receive: usize, size: usize, since: Instant) -> Held {
        let raw = Message::builder().body("x".repeat(size)).build();
        let received = Received { id: serial.to_string(), handle: String::new(), raw };
        Held { serial: serial as u64, receive: receive as u64, received, since }
    }

    #[track_caller]
    fn check(gather: &mut Gather, now: Instant, hurry: bool, expected: Option<&[u64]>) {
        let batch = gather.next(now, hurry).map(|batch| batch.iter().map(|held| held.serial).collect::<Vec<_>>());
        assert_eq!(batch.as_deref(), expected);
    }

    #[test]
    fn a_batch_is_full_or_has_waited_or_is_in_a_hurry() {
        let now = Instant::now();
        let mut full = gather(2, false, &[3], now);
        check(&mut full, now, false, Some(&[0, 1]));
        check(&mut full, now, false, None);
        check(&mut full, now + WINDOW, false, Some(&[2]));
        check(&mut full, now + WINDOW, false, None);
        check(&mut gather(2, false, &[1], now), now, true, Some(&[0]));
        check(&mut gather(2, false, &[], now), now, true, None);
    }

    #[test]
    fn what_was_received_together_from_an_ordered_queue_is_never_parted() {
        let now = Instant::now();
        let mut ordered = gather(4, true, &[3, 3, 1], now);
        check(&mut ordered, now, false, Some(&[0, 1, 2]));
        check(&mut ordered, now, false, Some(&[3, 4, 5, 6]));
        check(&mut ordered, now, true, None);
        let mut larger = gather(2, true, &[3, 1], now);
        check(&mut larger, now, false, Some(&[0, 1, 2]));
        check(&mut larger, now, false, None);
    }

    #[test]
    fn six_mebibytes_fill_a_batch_and_a_larger_message_is_one_of_its_own() {
        let now = Instant::now();
        let of_sizes = |sizes: [usize; 2]| {
            let mut gather = Gather::new(10, WINDOW, false);
            sizes.iter().enumerate().for_each(|(serial, size)| gather.push(held(serial, serial, *size, now)));
            gather
        };
        check(&mut of_sizes([BATCH_BYTES - 1, 1]), now, false, Some(&[0, 1]));
        check(&mut of_sizes([BATCH_BYTES - 1, 2]), now, false, Some(&[0]));
        let mut larger = of_sizes([BATCH_BYTES + 1, 1]);
        check(&mut larger, now, false, Some(&[0]));
        check(&mut larger, now, false, None);
    }
}
