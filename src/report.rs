//! What is told of a batch that was done: a log line for each failure, one for the batch, and metrics.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{Unit, counter, histogram};
use tracing::{info, warn};

use crate::pipeline::message::{Batch, Message};
use crate::pipeline::outcome::{Outcome, Reason};

/// The metrics of a batch, with their units.
pub const METRICS: [(&str, Unit); 7] = [
    (RECEIVED, Unit::Count),
    (COMMITTED, Unit::Count),
    (ALREADY_PRESENT, Unit::Count),
    (FAILED, Unit::Count),
    (BATCH_TIME, Unit::Milliseconds),
    (WRITE_TIME, Unit::Milliseconds),
    (OLDEST_MESSAGE, Unit::Milliseconds),
];
const RECEIVED: &str = "Received";
const COMMITTED: &str = "Committed";
const ALREADY_PRESENT: &str = "AlreadyPresent";
const FAILED: &str = "Failed";
const BATCH_TIME: &str = "BatchTime";
const WRITE_TIME: &str = "WriteTime";
const OLDEST_MESSAGE: &str = "OldestMessageAge";

/// Tells what became of each message of a batch that took so long.
pub fn batch(batch: &Batch<'_>, outcome: &Outcome, took: Duration) {
    for failed in &outcome.failures {
        failure(&batch.messages[failed.position], &failed.reason);
    }
    let oldest_ms = oldest_age(batch);
    let (received, failed) = (batch.messages.len(), outcome.failures.len());
    let Outcome { committed, already_present, statements, write_time, .. } = outcome;
    let batch_ms = millis(took);
    let write_ms = millis(*write_time);
    info!(received, committed, already_present, failed, statements, batch_ms, write_ms, oldest_ms, "batch done");
    for (name, count) in
        [(RECEIVED, received), (COMMITTED, *committed), (ALREADY_PRESENT, *already_present), (FAILED, failed)]
    {
        counter!(name).increment(count as u64);
    }
    histogram!(BATCH_TIME).record(batch_ms);
    histogram!(WRITE_TIME).record(write_ms);
    if let Some(age) = oldest_ms {
        histogram!(OLDEST_MESSAGE).record(age);
    }
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Tells of a message that is handed back.
pub fn failure(message: &Message<'_>, reason: &Reason) {
    let code = reason.code();
    warn!(
        message_id = %message.id,
        receive_count = message.receive_count,
        reason = code,
        detail = %reason,
        "message handed back"
    );
    counter!(FAILED, "Reason" => code).increment(1);
}

/// Milliseconds with microseconds behind the point.
fn millis(duration: Duration) -> f64 {
    (duration.as_micros() as f64) / 1_000.0
}

fn oldest_age(batch: &Batch<'_>) -> Option<f64> {
    let sent = batch.messages.iter().filter_map(|message| message.sent_at).min()?;
    let sent = Duration::from_millis(u64::try_from(sent).ok()?);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Some(millis(now.saturating_sub(sent)))
}
