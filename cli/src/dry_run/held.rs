//! Messages that were looked at and are to be given back.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::sqs::{Queue, Received};
use crate::words::counted;

/// How long a message stays invisible if nobody gives it back.
pub const HOLD: Duration = Duration::from_secs(120);
const RENEW_AFTER: Duration = Duration::from_secs(60);
/// One renewal, and giving back as a whole.
const RENEWAL_LIMIT: Duration = Duration::from_secs(10);
const GIVE_BACK_LIMIT: Duration = Duration::from_secs(30);

/// By message id.
#[derive(Default)]
pub struct Held(HashMap<String, Hold>);

struct Hold {
    handle: String,
    since: Instant,
}

impl Held {
    /// Holds a message; tells whether it was not held before. Of one that comes twice, the newer handle counts.
    pub fn add(&mut self, message: &Received) -> bool {
        let hold = Hold { handle: message.handle.clone(), since: Instant::now() };
        self.0.insert(message.id.clone(), hold).is_none()
    }

    /// Asks for more time for those that would come back soon. One that comes back nevertheless is not looked at twice.
    pub async fn renew(&mut self, queue: &Queue) {
        let due = self.0.values_mut().filter(|hold| hold.since.elapsed() >= RENEW_AFTER);
        let due: Vec<_> = due.collect();
        if due.is_empty() {
            return;
        }
        let changes: Vec<_> = due.iter().map(|hold| (hold.handle.as_str(), HOLD)).collect();
        let now = Instant::now();
        queue.change_visibility(&changes, now + RENEWAL_LIMIT).await;
        for hold in due {
            hold.since = now;
        }
    }

    /// Makes all visible again, and tells how many SQS would not hear of.
    pub async fn give_back(&self, queue: &Queue) -> usize {
        let changes: Vec<_> = self.0.values().map(|hold| (hold.handle.as_str(), Duration::ZERO)).collect();
        let refused = queue.change_visibility(&changes, Instant::now() + GIVE_BACK_LIMIT).await;
        if let Some(first) = refused.first() {
            let (count, code, seconds) = (counted(refused.len(), "message"), &first.code, HOLD.as_secs());
            eprintln!("sqs-etl: {count} could not be given back ({code}): visible again after {seconds} s at most");
        }
        refused.len()
    }
}
