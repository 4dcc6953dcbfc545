//! The Lambda runner: from an SQS event to a batch of messages, and from its outcome to the partial batch response.
//! What SQS and Lambda make of a response is in AWS's guide, "Using Lambda with Amazon SQS", error handling.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse};
use futures_util::FutureExt;
use lambda_runtime::{Diagnostic, LambdaEvent};
use lambda_runtime_api_client::Client;
use lambda_runtime_api_client::body::Body;
use metrics::{Unit, counter};
use tokio::time::Instant;
use tracing::error;

use crate::pipeline::deadline::Deadline;
use crate::pipeline::message::Batch;
use crate::pipeline::outcome::{Failure, Outcome, Reason};
use crate::pipeline::{BatchError, Pipeline, Prepared};
use crate::report;

mod event;
mod payload;

use event::Event;
pub use payload::{Payload, Untouched};

/// Feeds the pipeline with the events that Lambda hands us. State is per invocation: many may run at once.
pub struct Runner {
    pipeline: Pipeline,
    reserve: Duration,
}

/// The metrics that the runner records beside those of each batch, with their units.
pub const METRICS: [(&str, Unit); 2] = [(COLD_START, Unit::Count), (INVOCATION_ERROR, Unit::Count)];
/// Counted once for each start of the process.
pub const COLD_START: &str = "ColdStart";
const INVOCATION_ERROR: &str = "InvocationError";

/// Why an invocation fails as a whole, so that all its messages are redelivered and Lambda counts an error.
#[derive(Debug, thiserror::Error)]
pub enum InvocationError {
    #[error("the event is not one of SQS (line {line}, column {column})")]
    NotSqs { line: usize, column: usize },
    #[error("record {position} of the event has no messageId: handing back the others would delete it")]
    NoMessageId { position: usize },
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("the function panicked; this is a defect of sqs-etl")]
    Panic,
}

impl From<InvocationError> for Diagnostic {
    fn from(error: InvocationError) -> Self {
        let kind = match &error {
            InvocationError::NotSqs { .. } => "NotSqs",
            InvocationError::NoMessageId { .. } => "NoMessageId",
            InvocationError::Batch(BatchError::Write(_)) => "Database",
            InvocationError::Batch(BatchError::Unaccounted { .. }) | InvocationError::Panic => "Defect",
        };
        Diagnostic { error_type: kind.to_owned(), error_message: report::chain(&error) }
    }
}

impl Runner {
    /// A runner that keeps back `reserve` of each invocation's time to answer in.
    pub fn new(pipeline: Pipeline, reserve: Duration) -> Self {
        Self { pipeline, reserve }
    }

    /// Answers one invocation.
    ///
    /// **Invariant (Silence):** a panic's message may quote a value, and the runtime would send it to Lambda; so panics
    /// are caught here.
    pub async fn handle(self: Arc<Self>, event: LambdaEvent<Payload>) -> Result<SqsBatchResponse, InvocationError> {
        let left = time_left(event.context.deadline, since_1970());
        let deadline = Deadline::after(left, self.reserve);
        let answer = AssertUnwindSafe(self.answer(event.payload.bytes(), deadline)).catch_unwind().await;
        let answer = answer.unwrap_or(Err(InvocationError::Panic));
        if let Err(error) = &answer {
            error!(error = report::chain(error), "the batch failed and will be redelivered");
            counter!(INVOCATION_ERROR).increment(1);
        }
        answer
    }

    async fn answer(&self, event: &[u8], deadline: Deadline) -> Result<SqsBatchResponse, InvocationError> {
        let started = Instant::now();
        let mut event = Event::parse(event)?;
        let batch = event.batch();
        let run = tokio::time::timeout_at(deadline.answer_end(), self.pipeline.run(&batch, deadline));
        let outcome = match run.await {
            Ok(outcome) => outcome?,
            Err(_) => all_failed(&batch, Reason::Deadline),
        };
        report::batch(&batch, &outcome, started.elapsed());
        Ok(response(&batch, &outcome))
    }
}

/// What an invocation costs this process but for Postgres, log and metrics. For measuring only: nothing is stored, and the
/// response lacks what only Postgres refuses.
#[doc(hidden)]
pub fn rehearse(
    pipeline: &Pipeline,
    payload: &Payload,
    deadline: Deadline,
) -> Result<(Prepared, SqsBatchResponse), InvocationError> {
    let mut event = Event::parse(payload.bytes())?;
    let batch = event.batch();
    let mut prepared = pipeline.prepare(&batch, deadline);
    std::hint::black_box(pipeline.encode(&prepared));
    let outcome = Outcome { failures: std::mem::take(&mut prepared.failures), ..Outcome::default() };
    let response = response(&batch, &outcome);
    Ok((prepared, response))
}

/// An event's batch. For measuring only.
#[doc(hidden)]
pub fn rehearse_event<R>(payload: &Payload, see: impl FnOnce(&Batch<'_>) -> R) -> Result<R, InvocationError> {
    let mut event = Event::parse(payload.bytes())?;
    Ok(see(&event.batch()))
}

/// Tells Lambda why the function cannot start, so that whoever invokes it is told as well.
///
/// # Errors
/// If the Runtime API does not answer; then the log has to do.
pub async fn report_init_error(fault: &str) -> Result<(), lambda_runtime::Error> {
    let text = serde_json::json!({ "errorType": INIT_ERROR, "errorMessage": fault, "stackTrace": [] }).to_string();
    let request = lambda_runtime_api_client::build_request()
        .method("POST")
        .uri("/2018-06-01/runtime/init/error")
        .header("lambda-runtime-function-error-type", INIT_ERROR)
        .body(Body::from(text))?;
    Client::builder().build()?.call(request).await?;
    Ok(())
}

const INIT_ERROR: &str = "Function.InitError";

/// Lambda lets no invocation run for longer than 15 minutes, so a deadline that is a day old is none: `cargo lambda watch`
/// sends one of 1970. Then there is as much time as here.
const TIME_WITHOUT_DEADLINE: Duration = Duration::from_secs(60);
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// What is left of the invocation, whose end Lambda gives in milliseconds since 1970.
fn time_left(deadline_unix_millis: u64, since_1970: Duration) -> Duration {
    let deadline = Duration::from_millis(deadline_unix_millis);
    if deadline + STALE < since_1970 { TIME_WITHOUT_DEADLINE } else { deadline.saturating_sub(since_1970) }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn all_failed(batch: &Batch<'_>, reason: Reason) -> Outcome {
    let failures = (0..batch.messages.len()).map(|position| Failure { position, reason: reason.clone() }).collect();
    Outcome { failures, ..Outcome::default() }
}

/// The ids of the failed messages, each once.
fn response(batch: &Batch<'_>, outcome: &Outcome) -> SqsBatchResponse {
    let mut seen = HashSet::new();
    let ids = outcome.failures.iter().map(|failure| batch.messages[failure.position].id.as_ref());
    let batch_item_failures = ids
        .filter(|id| seen.insert(*id))
        .map(|id| {
            let mut failure = BatchItemFailure::default();
            failure.item_identifier = id.to_owned();
            failure
        })
        .collect();
    let mut response = SqsBatchResponse::default();
    response.batch_item_failures = batch_item_failures;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_of_long_ago_is_none() {
        let now = Duration::from_secs(1_767_225_600);
        let check = |deadline: Duration, expected| assert_eq!(time_left(deadline.as_millis() as u64, now), expected);
        check(now + Duration::from_secs(30), Duration::from_secs(30));
        check(now, Duration::ZERO);
        check(now - Duration::from_secs(1), Duration::ZERO);
        check(Duration::from_secs(600), TIME_WITHOUT_DEADLINE);
        check(Duration::ZERO, TIME_WITHOUT_DEADLINE);
    }
}
