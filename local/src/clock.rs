//! A clock that stands still until it is told to go on, so that a visibility timeout of minutes
//! passes in no time. It is not the machine's clock and does not drift towards it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since the epoch. Clones are the same clock.
#[derive(Clone, Debug)]
pub struct Clock {
    now_ms: Arc<AtomicU64>,
}

impl Clock {
    /// A clock that shows this time, in milliseconds since the epoch.
    pub fn at(epoch_ms: u64) -> Self {
        Self { now_ms: Arc::new(AtomicU64::new(epoch_ms)) }
    }

    /// A clock that shows the machine's time as it is at this moment.
    pub fn starting_now() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::at(milliseconds(since_epoch))
    }

    /// What it shows, in milliseconds since the epoch.
    pub fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Acquire)
    }

    /// Moves it on. Parts of a millisecond are lost.
    pub fn advance(&self, by: Duration) {
        self.now_ms.fetch_add(milliseconds(by), Ordering::AcqRel);
    }

    /// Moves it on to this time, in milliseconds since the epoch; never back.
    pub fn advance_to(&self, epoch_ms: u64) {
        self.now_ms.fetch_max(epoch_ms, Ordering::AcqRel);
    }
}

pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
