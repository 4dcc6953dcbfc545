//! What became of every message of a batch, and why a message or a whole batch failed. **Invariant (Silence):** every text
//! here is made of the contract's names, positions and codes, never of what a message says.

use std::time::Duration;

use super::contract::FieldName;
use super::value::Type;

/// What became of the messages of one batch. Each is in exactly one of `committed`, `already_present` and `failures`.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Rows that this batch put into the table.
    pub committed: usize,
    /// Messages whose row was there before.
    pub already_present: usize,
    pub failures: Vec<Failure>,
    /// How many copies and inserts Postgres was sent.
    pub statements: usize,
    /// How long the database took, connecting included.
    pub write_time: Duration,
}

/// A message that is handed back.
#[derive(Debug)]
pub struct Failure {
    /// The message's place in the batch, from 0.
    pub position: usize,
    pub reason: Reason,
}

/// Why one message is handed back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    #[error("the message has no body")]
    NoBody,
    #[error("the body is not JSON (line {line}, column {column})")]
    NotJson { line: usize, column: usize },
    #[error("the body is not a JSON object")]
    NotAnObject,
    #[error("the body is an SNS envelope: turn on raw message delivery for the subscription")]
    SnsEnvelope,
    #[error("the body is the test event that S3 sends when a notification is set up")]
    S3TestEvent,
    #[error("the contract does not know the object's field number {position}")]
    UnknownField { position: usize },
    #[error("{field} is there twice")]
    DuplicateField { field: FieldName },
    #[error("{field} is inside something that is not an object")]
    NotNested { field: FieldName },
    #[error("{field} is required, but absent, null or empty")]
    Missing { field: FieldName },
    #[error("{field} has the wrong JSON type for {expected}")]
    WrongType { field: FieldName, expected: Type },
    #[error("{field} is not a well-formed {expected}")]
    Malformed { field: FieldName, expected: Form },
    #[error("{field} is out of the range of {expected}")]
    OutOfRange { field: FieldName, expected: Type },
    #[error("{field} is longer than {max} characters")]
    TooLong { field: FieldName, max: u32 },
    #[error("{field} is shorter than {min} characters")]
    TooShort { field: FieldName, min: u32 },
    #[error("{field} holds a NUL character, which Postgres cannot store")]
    Nul { field: FieldName },
    #[error("{field} is none of the values that the contract allows")]
    NotOneOf { field: FieldName },
    #[error("{field} does not match the contract's pattern")]
    NoMatch { field: FieldName },
    #[error("{field} is below the contract's minimum")]
    BelowMin { field: FieldName },
    #[error("{field} is above the contract's maximum")]
    AboveMax { field: FieldName },
    #[error("the message id is not a uuid")]
    MessageId,
    /// A row that only Postgres found bad.
    #[error("postgres refuses the row with {}", .0.describe())]
    Refused(Refusal),
    /// Accepted, and yet not there: no error says why.
    #[error("postgres took the row and did not keep it: a trigger or a rule of the table drops it")]
    Dropped,
    #[error("an earlier message of its group failed, and the group's order is kept")]
    BehindFailure,
    #[error("postgres kept answering {sqlstate} until the time was up")]
    Busy { sqlstate: String },
    #[error("the function's time was up")]
    Deadline,
    /// Told by a runner that tries again: it is no outage if only one row meets it.
    #[error("the database gives it no outcome, tried alone and again, while other rows are written")]
    NoOutcome,
}

/// What a text should have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Type(Type),
    IpAddress,
    Version,
}

impl std::fmt::Display for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Form::Type(kind) => kind.fmt(f),
            Form::IpAddress => f.write_str("IP address"),
            Form::Version => f.write_str("version number"),
        }
    }
}

/// What may be told of Postgres's refusal of a row: codes and names of the schema. Its message and detail quote the row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub sqlstate: String,
    pub column: Option<String>,
    pub constraint: Option<String>,
}

impl Refusal {
    fn describe(&self) -> String {
        let mut text = format!("SQLSTATE {}", self.sqlstate);
        for (what, name) in [("column", &self.column), ("constraint", &self.constraint)] {
            if let Some(name) = name {
                text += &format!(", {what} {name}");
            }
        }
        text
    }
}

impl Reason {
    /// A short, stable name for metrics and logs.
    pub fn code(&self) -> &'static str {
        match self {
            Reason::NoBody => "no_body",
            Reason::NotJson { .. } => "not_json",
            Reason::NotAnObject => "not_an_object",
            Reason::SnsEnvelope => "sns_envelope",
            Reason::S3TestEvent => "s3_test_event",
            Reason::UnknownField { .. } => "unknown_field",
            Reason::DuplicateField { .. } => "duplicate_field",
            Reason::NotNested { .. } => "not_nested",
            Reason::Missing { .. } => "missing",
            Reason::WrongType { .. } => "wrong_type",
            Reason::Malformed { .. } => "malformed",
            Reason::OutOfRange { .. } => "out_of_range",
            Reason::TooLong { .. } => "too_long",
            Reason::TooShort { .. } => "too_short",
            Reason::Nul { .. } => "nul",
            Reason::NotOneOf { .. } => "not_one_of",
            Reason::NoMatch { .. } => "no_match",
            Reason::BelowMin { .. } => "below_min",
            Reason::AboveMax { .. } => "above_max",
            Reason::MessageId => "message_id",
            Reason::Refused(_) => "refused",
            Reason::Dropped => "dropped",
            Reason::BehindFailure => "behind_failure",
            Reason::Busy { .. } => "busy",
            Reason::Deadline => "deadline",
            Reason::NoOutcome => "no_outcome",
        }
    }
}
