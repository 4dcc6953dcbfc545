//! Keeps messages invisible to others for as long as they are in hand.
//!
//! SQS makes a message visible again when its time is up, however far we are. So every message in hand is renewed when a third
//! of its time is over. One that cannot be renewed is somebody else's by then, or will be: it is stored once all the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::debug;

use crate::sqs::Queue;

use super::batch::tell_refusal;
use super::gather::Held;
use super::{Stop, settling};

/// How often is looked for leases to renew, at least.
const LOOK: Duration = Duration::from_secs(1);
/// Whoever lets go of a message waits for a round of renewals, so none may take long. What it does not reach is due again.
const ROUND_LIMIT: Duration = Duration::from_secs(5);

/// What is in hand.
pub struct Leases {
    queue: Queue,
    visibility: Duration,
    held: Mutex<HashMap<u64, Lease>>,
    /// Held while renewals are on their way.
    round: tokio::sync::Mutex<()>,
}

struct Lease {
    handle: String,
    renewed: Instant,
}

impl Leases {
    pub fn new(queue: Queue, visibility: Duration) -> Arc<Self> {
        Arc::new(Self { queue, visibility, held: Mutex::default(), round: tokio::sync::Mutex::default() })
    }

    /// From here on the message is renewed.
    pub fn hold(&self, held: &Held) {
        let lease = Lease { handle: held.received.handle.clone(), renewed: held.since };
        self.locked().insert(held.serial, lease);
    }

    /// From here on the messages are not renewed any more: no renewal on its way can undo what SQS is told of them next.
    pub async fn let_go(&self, held: impl IntoIterator<Item = &Held>) {
        {
            let mut locked = self.locked();
            for held in held {
                locked.remove(&held.serial);
            }
        }
        drop(self.round.lock().await);
    }

    /// Renews until it is time to tell SQS of all that is in hand.
    pub async fn keep(self: Arc<Self>, stop: Stop) {
        loop {
            sleep(LOOK.min(self.visibility / 10)).await;
            tokio::select! {
                () = self.renew() => {}
                () = settling(&stop) => return,
            }
        }
    }

    async fn renew(&self) {
        let _round = self.round.lock().await;
        let now = Instant::now();
        let end = now + ROUND_LIMIT.min(self.visibility / 3);
        let due: Vec<(u64, String)> = {
            let locked = self.locked();
            let due = locked.iter().filter(|(_, lease)| now - lease.renewed >= self.visibility / 3);
            due.map(|(serial, lease)| (*serial, lease.handle.clone())).collect()
        };
        if due.is_empty() {
            return;
        }
        let changes: Vec<_> = due.iter().map(|(_, handle)| (handle.as_str(), self.visibility)).collect();
        let refused = self.queue.change_visibility(&changes, end).await;
        tell_refusal(&refused);
        let mut locked = self.locked();
        for (serial, _) in &due {
            locked.entry(*serial).and_modify(|lease| lease.renewed = now);
        }
        for refused in refused {
            let serial = due[refused.position].0;
            debug!(code = refused.code, "a message in hand could not be kept invisible");
            if refused.is_lasting {
                locked.remove(&serial);
            } else {
                // Looked at again at once.
                locked.entry(serial).and_modify(|lease| lease.renewed = now - self.visibility / 2);
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<u64, Lease>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
