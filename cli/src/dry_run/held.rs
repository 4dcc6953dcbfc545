//! Messages that were looked at and are to be given back. Until then they are renewed, in a task of its own.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::sqs::{Queue, Received};
use crate::words::counted;

/// How long a message stays invisible if nobody gives it back.
pub const HOLD: Duration = Duration::from_secs(120);
const RENEW_AFTER: Duration = Duration::from_secs(60);
/// How often is looked for messages to renew.
const LOOK: Duration = Duration::from_secs(5);
/// Renewals on their way at once; giving back waits for no more than these.
const RENEWALS: usize = 80;
/// One round of renewals, and giving back as a whole.
const RENEWAL_LIMIT: Duration = Duration::from_secs(10);
const GIVE_BACK_LIMIT: Duration = Duration::from_secs(30);

/// By message id. Clones are the same.
#[derive(Clone, Default)]
pub struct Held {
    messages: Arc<Mutex<HashMap<String, Hold>>>,
    /// Held while renewals are on their way.
    round: Arc<tokio::sync::Mutex<()>>,
}

struct Hold {
    handle: String,
    since: Instant,
}

impl Held {
    /// Holds a message; tells whether it was not held before. Of one that comes twice, the newer handle counts.
    pub fn add(&self, message: &Received) -> bool {
        self.hold(&message.id, &message.handle)
    }

    fn hold(&self, id: &str, handle: &str) -> bool {
        let hold = Hold { handle: handle.to_owned(), since: Instant::now() };
        self.locked().insert(id.to_owned(), hold).is_none()
    }

    /// Asks for more time for those that would come back soon, for ever. One that comes back nevertheless is not looked at
    /// twice.
    pub async fn keep(self, queue: Queue) {
        loop {
            sleep(LOOK).await;
            while self.renew(&queue).await {}
        }
    }

    /// Tells whether there was something to renew.
    async fn renew(&self, queue: &Queue) -> bool {
        let _round = self.round.lock().await;
        let due = self.due();
        let changes: Vec<_> = due.iter().map(|handle| (handle.as_str(), HOLD)).collect();
        queue.change_visibility(&changes, Instant::now() + RENEWAL_LIMIT).await;
        !due.is_empty()
    }

    /// Handles of those that are to be renewed, which from here on count as renewed.
    fn due(&self) -> Vec<String> {
        let now = Instant::now();
        let mut locked = self.locked();
        let due = locked.values_mut().filter(|hold| now - hold.since >= RENEW_AFTER).take(RENEWALS);
        due.map(|hold| {
            hold.since = now;
            hold.handle.clone()
        })
        .collect()
    }

    /// Makes all visible again, and tells how many SQS would not hear of. No renewal on its way can undo that.
    pub async fn give_back(&self, queue: &Queue) -> usize {
        let held = mem::take(&mut *self.locked());
        let _round = self.round.lock().await;
        let changes: Vec<_> = held.values().map(|hold| (hold.handle.as_str(), Duration::ZERO)).collect();
        let refused = queue.change_visibility(&changes, Instant::now() + GIVE_BACK_LIMIT).await;
        if let Some(first) = refused.first() {
            let (count, code, seconds) = (counted(refused.len(), "message"), &first.code, HOLD.as_secs());
            eprintln!("sqs-etl: {count} could not be given back ({code}): visible again after {seconds} s at most");
        }
        refused.len()
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<String, Hold>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_is_renewed_before_its_time_is_up_and_many_in_rounds() {
        let held = Held::default();
        for n in 0..RENEWALS + 1 {
            assert!(held.hold(&n.to_string(), "first"));
        }
        advance(RENEW_AFTER - LOOK).await;
        assert!(!held.hold("0", "second") && held.due().is_empty());
        advance(LOOK).await;
        assert_eq!((held.due(), held.due().len()), (vec!["first".to_owned(); RENEWALS], 0));
        assert!(held.hold("late", "late"));
        advance(RENEW_AFTER - LOOK).await;
        assert_eq!(held.due(), ["second"]);
        advance(LOOK).await;
        assert_eq!((held.due().len(), held.due().len(), held.due().len()), (RENEWALS, 1, 0));
    }
}
