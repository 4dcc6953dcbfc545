//! Gathers received messages to batches: full ones, or whatever there is when the first has waited long enough.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::sqs::Received;

/// A batch of Lambda's holds no more than that either.
const BATCH_BYTES: usize = 6 * 1024 * 1024;

/// A message that is ours for now.
pub struct Held {
    /// Told apart by this, as a message may be received twice.
    pub serial: u64,
    pub received: Received,
    pub since: Instant,
}

/// Messages that wait for their batch, in the order they came.
pub struct Gather {
    most: usize,
    window: Duration,
    waiting: VecDeque<Held>,
}

impl Gather {
    pub fn new(most: usize, window: Duration) -> Self {
        Self { most, window, waiting: VecDeque::new() }
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
        let mut bytes = 0;
        for (count, held) in self.waiting.iter().enumerate() {
            bytes += held.received.size();
            if count == self.most || (bytes > BATCH_BYTES && count > 0) {
                return (count, true);
            }
        }
        (self.waiting.len(), self.waiting.len() == self.most || bytes >= BATCH_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_sqs::types::Message;

    use super::*;

    const WINDOW: Duration = Duration::from_millis(200);

    fn gather(most: usize, sizes: &[usize], since: Instant) -> Gather {
        let mut gather = Gather::new(most, WINDOW);
        for (serial, size) in sizes.iter().enumerate() {
            let raw = Message::builder().body("x".repeat(*size)).build();
            let received = Received { id: serial.to_string(), handle: String::new(), raw };
            gather.push(Held { serial: serial as u64, received, since });
        }
        gather
    }

    #[track_caller]
    fn check(gather: &mut Gather, now: Instant, hurry: bool, expected: Option<&[u64]>) {
        let batch = gather.next(now, hurry).map(|batch| batch.iter().map(|held| held.serial).collect::<Vec<_>>());
        assert_eq!(batch.as_deref(), expected);
    }

    #[test]
    fn a_batch_is_full_or_has_waited_or_is_in_a_hurry() {
        let now = Instant::now();
        let mut full = gather(2, &[1, 1, 1], now);
        check(&mut full, now, false, Some(&[0, 1]));
        check(&mut full, now, false, None);
        check(&mut full, now + WINDOW, false, Some(&[2]));
        check(&mut full, now + WINDOW, false, None);
        check(&mut gather(2, &[1], now), now, true, Some(&[0]));
        check(&mut gather(2, &[], now), now, true, None);
    }

    #[test]
    fn six_mebibytes_fill_a_batch_and_a_larger_message_is_one_of_its_own() {
        let now = Instant::now();
        let mut large = gather(10, &[BATCH_BYTES - 1, 1, 1], now);
        check(&mut large, now, false, Some(&[0, 1]));
        let mut larger = gather(10, &[BATCH_BYTES + 1, 1], now);
        check(&mut larger, now, false, Some(&[0]));
        check(&mut larger, now, false, None);
    }
}
