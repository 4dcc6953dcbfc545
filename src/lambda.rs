//! The Lambda runner: from an SQS event to a batch of messages, and from its outcome to the partial batch response.
//! What SQS and Lambda make of a response is in AWS's guide, "Using Lambda with Amazon SQS", error handling.

use std::borrow::Cow;
use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse};
use futures_util::FutureExt;
use lambda_runtime::{Diagnostic, LambdaEvent};
use lambda_runtime_api_client::Client;
use lambda_runtime_api_client::body::Body;
use metrics::{Unit, counter, histogram};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::pipeline::deadline::Deadline;
use crate::pipeline::message::{Batch, Message};
use crate::pipeline::outcome::{Failure, Outcome, Reason};
use crate::pipeline::{BatchError, Pipeline};

/// Feeds the pipeline with the events that Lambda hands us. State is per invocation: many may run at once.
pub struct Runner {
    pipeline: Pipeline,
    reserve: Duration,
}

/// The metrics that the runner records, with their units.
pub const METRICS: [(&str, Unit); 9] = [
    (COLD_START, Unit::Count),
    (RECEIVED, Unit::Count),
    (COMMITTED, Unit::Count),
    (ALREADY_PRESENT, Unit::Count),
    (FAILED, Unit::Count),
    (BATCH_TIME, Unit::Milliseconds),
    (WRITE_TIME, Unit::Milliseconds),
    (OLDEST_MESSAGE, Unit::Milliseconds),
    (INVOCATION_ERROR, Unit::Count),
];
/// Counted once for each start of the process.
pub const COLD_START: &str = "ColdStart";
const RECEIVED: &str = "Received";
const COMMITTED: &str = "Committed";
const ALREADY_PRESENT: &str = "AlreadyPresent";
const FAILED: &str = "Failed";
const BATCH_TIME: &str = "BatchTime";
const WRITE_TIME: &str = "WriteTime";
const OLDEST_MESSAGE: &str = "OldestMessageAge";
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
        Diagnostic { error_type: kind.to_owned(), error_message: chain(&error) }
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
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
    pub async fn handle(
        self: Arc<Self>,
        event: LambdaEvent<Box<RawValue>>,
    ) -> Result<SqsBatchResponse, InvocationError> {
        let left = time_left(event.context.deadline, since_1970());
        let deadline = Deadline::after(left, self.reserve);
        let answer = AssertUnwindSafe(self.answer(event.payload.get(), deadline)).catch_unwind().await;
        let answer = answer.unwrap_or(Err(InvocationError::Panic));
        if let Err(error) = &answer {
            error!(error = chain(error), "the batch failed and will be redelivered");
            counter!(INVOCATION_ERROR).increment(1);
        }
        answer
    }

    async fn answer(&self, event: &str, deadline: Deadline) -> Result<SqsBatchResponse, InvocationError> {
        let started = Instant::now();
        let event = Event::parse(event)?;
        let batch = event.into_batch()?;
        let run = tokio::time::timeout_at(deadline.answer_end(), self.pipeline.run(&batch, deadline));
        let outcome = match run.await {
            Ok(outcome) => outcome?,
            Err(_) => all_failed(&batch, Reason::Deadline),
        };
        report(&batch, &outcome, started.elapsed());
        Ok(response(&batch, &outcome))
    }
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

fn report(batch: &Batch<'_>, outcome: &Outcome, took: Duration) {
    for failure in &outcome.failures {
        let message = &batch.messages[failure.position];
        let reason = failure.reason.code();
        warn!(
            message_id = %message.id,
            receive_count = message.receive_count,
            reason,
            detail = %failure.reason,
            "message handed back"
        );
        counter!(FAILED, "Reason" => reason).increment(1);
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

/// Milliseconds with microseconds behind the point.
fn millis(duration: Duration) -> f64 {
    (duration.as_micros() as f64) / 1_000.0
}

fn oldest_age(batch: &Batch<'_>) -> Option<f64> {
    let sent = batch.messages.iter().filter_map(|message| message.sent_at).min()?;
    let sent = Duration::from_millis(u64::try_from(sent).ok()?);
    Some(millis(since_1970().saturating_sub(sent)))
}

/// An SQS event, borrowing from its text; only what the pipeline uses.
#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "Records", borrow)]
    records: Vec<EventRecord<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventRecord<'a> {
    #[serde(borrow, default)]
    message_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    body: Option<Text<'a>>,
    #[serde(borrow, default)]
    attributes: Option<Attributes<'a>>,
    #[serde(borrow, default)]
    message_attributes: Option<std::collections::HashMap<Text<'a>, MessageAttribute<'a>>>,
    #[serde(borrow, default, rename = "eventSourceARN")]
    event_source_arn: Option<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Attributes<'a> {
    #[serde(borrow)]
    approximate_receive_count: Option<Text<'a>>,
    #[serde(borrow)]
    sent_timestamp: Option<Text<'a>>,
    #[serde(borrow)]
    message_group_id: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MessageAttribute<'a> {
    #[serde(borrow, default)]
    string_value: Option<Text<'a>>,
}

/// A string of the event, borrowed where it has no escapes. Serde borrows a bare `Cow` only, not one in an `Option`.
#[derive(Deserialize, PartialEq, Eq, Hash)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Event<'a> {
    fn parse(event: &'a str) -> Result<Self, InvocationError> {
        // Only the position: the error's text may quote the event.
        serde_json::from_str(event).map_err(|e| InvocationError::NotSqs { line: e.line(), column: e.column() })
    }

    fn into_batch(self) -> Result<Batch<'a>, InvocationError> {
        // Not by MessageGroupId: standard queues may carry one too (fair queues).
        let is_fifo =
            |record: &EventRecord<'_>| record.event_source_arn.as_ref().is_some_and(|arn| arn.0.ends_with(".fifo"));
        let ordered = self.records.iter().any(is_fifo);
        let messages = self.records.into_iter().enumerate().map(|(i, record)| record.into_message(i));
        Ok(Batch { messages: messages.collect::<Result<_, _>>()?, ordered })
    }
}

impl<'a> EventRecord<'a> {
    fn into_message(self, position: usize) -> Result<Message<'a>, InvocationError> {
        let id = self.message_id.map(|id| id.0).filter(|id| !id.is_empty());
        let id = id.ok_or(InvocationError::NoMessageId { position })?;
        let attributes = self.attributes.unwrap_or_default();
        let number = |text: Option<Text<'_>>| text.and_then(|text| text.0.parse().ok());
        Ok(Message {
            id,
            body: self.body.map(|body| body.0),
            sent_at: number(attributes.sent_timestamp),
            group: attributes.message_group_id.map(|group| group.0),
            receive_count: number(attributes.approximate_receive_count),
            attributes: strings(self.message_attributes.unwrap_or_default()),
        })
    }
}

fn strings<'a>(
    attributes: std::collections::HashMap<Text<'a>, MessageAttribute<'a>>,
) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
    attributes.into_iter().filter_map(|(name, value)| Some((name.0, value.string_value?.0))).collect()
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
