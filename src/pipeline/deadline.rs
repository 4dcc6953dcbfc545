//! How the time that is left for a batch is divided. Nothing here knows who set it.

use std::time::Duration;

use tokio::time::Instant;

/// Until when a batch must be answered, and how much of that time is kept back to do so.
///
/// Three moments, one behind the other: Postgres gives up by itself ([`Deadline::statement_end`]); a timer gives up on
/// Postgres and cancels ([`Deadline::write_end`]); the answer goes out (the deadline).
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    at: Instant,
    reserve: Duration,
}

/// The reserve is at most this part of the time there is, so that short time-outs leave time to work.
const RESERVE_PART: u32 = 5;

impl Deadline {
    /// A deadline `left` from now; `reserve` of it is kept back, but a fifth at most.
    pub fn after(left: Duration, reserve: Duration) -> Self {
        Self { at: Instant::now() + left, reserve: reserve.min(left / RESERVE_PART) }
    }

    /// When Postgres should have given up by its own `statement_timeout`.
    pub fn statement_end(&self) -> Instant {
        self.at - self.reserve
    }

    /// When to stop waiting for Postgres.
    pub fn write_end(&self) -> Instant {
        self.at - self.reserve / 2
    }

    /// When to stop waiting for anything.
    pub fn answer_end(&self) -> Instant {
        self.at - self.reserve / 4
    }
}
