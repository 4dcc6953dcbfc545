//! What the function says of its work: the lines of its log that tell what became of a batch and of each message handed
//! back.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde::Deserialize;
use sqs_etl_local::function::Function;

/// A line is written before the answer, but arrives by another way.
const ARRIVAL: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The log, read.
#[derive(Debug, Default)]
pub struct Journal {
    /// By request id.
    pub batches: HashMap<String, BatchDone>,
    /// One for each time that a message was handed back, in the order of the log.
    pub handed_back: Vec<HandedBack>,
}

/// How many messages of one batch had which outcome.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub struct BatchDone {
    pub committed: usize,
    pub already_present: usize,
    pub failed: usize,
}

/// A message that was handed back, and why.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct HandedBack {
    pub message_id: String,
    pub reason: String,
    pub detail: String,
}

impl Journal {
    /// Waits until the function's log tells of `answers` batches, and reads it.
    pub fn of(function: &Function, answers: usize) -> Result<Self> {
        let deadline = Instant::now() + ARRIVAL;
        loop {
            let journal = Self::read(&function.stdout());
            if journal.batches.len() >= answers {
                return Ok(journal);
            }
            if Instant::now() > deadline {
                let told = journal.batches.len();
                bail!("the function answered {answers} batches, but its log tells of {told} only");
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Lines of another kind, metrics among them, are passed over.
    fn read(log: &str) -> Self {
        let mut journal = Self::default();
        for line in log.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()) {
            match line {
                Line::BatchDone { batch, request_id } => drop(journal.batches.insert(request_id, batch)),
                Line::HandedBack(message) => journal.handed_back.push(message),
            }
        }
        journal
    }
}

#[derive(Deserialize)]
#[serde(tag = "message")]
enum Line {
    #[serde(rename = "batch done")]
    BatchDone {
        #[serde(flatten)]
        batch: BatchDone,
        #[serde(rename = "requestId")]
        request_id: String,
    },
    #[serde(rename = "message handed back")]
    HandedBack(HandedBack),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_batches_and_of_messages_handed_back_are_read_and_others_passed_over() {
        let log = r#"
            {"_aws":{"Timestamp":1},"Received":2}
            {"level":"WARN","message":"message handed back","message_id":"m","receive_count":2,"reason":"nul","detail":"d"}
            {"level":"WARN","message":"no database yet","error":"e"}
            {"message":"batch done","received":3,"committed":1,"already_present":0,"failed":1,"requestId":"r"}
            not JSON"#;
        let journal = Journal::read(log);
        assert_eq!(journal.batches["r"], BatchDone { committed: 1, already_present: 0, failed: 1 });
        let handed_back = HandedBack { message_id: "m".into(), reason: "nul".into(), detail: "d".into() };
        assert_eq!(journal.handed_back, [handed_back]);
    }
}
