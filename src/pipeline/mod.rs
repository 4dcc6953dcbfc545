//! The conductor: takes a batch through decode, validate, mask and write, and says what became of each message.

pub mod array;
pub mod canonical;
pub mod contract;
pub mod deadline;
pub mod decode;
pub mod mask;
pub mod message;
pub mod outcome;
pub mod record;
pub mod validate;
pub mod value;
pub mod write;

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use contract::Contract;
use deadline::Deadline;
use decode::Decoder;
use mask::{KeyError, Keys, Masked, Masker};
use message::{Batch, Message};
use outcome::{Failure, Outcome, Reason};
use validate::Valid;
use write::{WriteError, Writer};

use crate::database::Database;

/// Everything that a batch goes through.
pub struct Pipeline {
    rehearsal: Rehearsal,
    writer: Writer,
}

/// All stages but the last: tells what would fail, without a database.
pub struct Rehearsal {
    contract: Contract,
    masker: Masker,
}

/// A batch before it is written.
#[doc(hidden)]
#[derive(Debug)]
pub struct Prepared {
    pub masked: Masked,
    /// Each row's place in the batch.
    pub positions: Vec<usize>,
    /// Each row's message group, numbered, in an ordered batch.
    pub groups: Vec<Option<usize>>,
    /// The messages that did not become rows.
    pub failures: Vec<Failure>,
}

/// For as long as a rehearsal may take.
const NO_HURRY: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a batch as a whole failed; nobody's record is to blame.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    #[error(transparent)]
    Write(#[from] WriteError),
    /// **Invariant (Conservation):** better to have the batch redelivered than to lose count of a message.
    #[error("of {received} messages only {accounted} have an outcome; this is a defect of sqs-etl")]
    Unaccounted { received: usize, accounted: usize },
}

impl Pipeline {
    /// A pipeline for one contract.
    ///
    /// # Errors
    /// If the contract's columns do not fit the key's pseudonyms.
    pub fn new(contract: Contract, keys: &Keys, database: Database) -> Result<Self, KeyError> {
        let writer = Writer::new(&contract, database);
        Ok(Self { rehearsal: Rehearsal::new(contract, keys)?, writer })
    }

    /// Takes a batch through all stages. Afterwards every message is in the table or among the failures.
    pub async fn run(&self, batch: &Batch<'_>, deadline: Deadline) -> Result<Outcome, BatchError> {
        let Prepared { masked, positions, groups, failures } = self.rehearsal.prepare(batch, deadline);
        let mut outcome = Outcome { failures, ..Outcome::default() };
        if !masked.is_empty() {
            let started = Instant::now();
            let written = self.writer.write(&masked, &groups, deadline).await?;
            outcome.write_time = started.elapsed();
            outcome.committed = written.committed;
            outcome.already_present = written.already_present;
            outcome.statements = written.statements;
            let failures = written.failed.into_iter();
            outcome.failures.extend(failures.map(|(row, reason)| Failure { position: positions[row], reason }));
        }
        outcome.failures.sort_by_key(|failure| failure.position);
        account(batch, outcome)
    }

    /// How many bytes the rows are on their way to Postgres. For measuring only.
    #[doc(hidden)]
    pub fn encode(&self, prepared: &Prepared) -> usize {
        self.writer.rehearse(&prepared.masked)
    }

    /// The batch before it is written. For measuring only: nobody outside can write what it gives.
    #[doc(hidden)]
    pub fn prepare(&self, batch: &Batch<'_>, deadline: Deadline) -> Prepared {
        self.rehearsal.prepare(batch, deadline)
    }
}

impl Rehearsal {
    /// The stages for one contract.
    ///
    /// # Errors
    /// If the contract's columns do not fit the key's pseudonyms.
    pub fn new(contract: Contract, keys: &Keys) -> Result<Self, KeyError> {
        let masker = Masker::new(&contract, keys)?;
        Ok(Self { contract, masker })
    }

    /// The messages that would fail, whatever Postgres thinks of the others.
    pub fn run(&self, batch: &Batch<'_>) -> Vec<Failure> {
        self.prepare(batch, Deadline::after(NO_HURRY, Duration::ZERO)).failures
    }

    /// Message by message, so that no more than one is held as record and row. In an ordered batch
    /// a group ends at its first invalid message.
    fn prepare(&self, batch: &Batch<'_>, deadline: Deadline) -> Prepared {
        let mut decoder = Decoder::new(&self.contract);
        let mut row = Valid::empty();
        let count = batch.messages.len();
        let (mut positions, mut row_groups) = (Vec::with_capacity(count), Vec::with_capacity(count));
        let mut failures = Vec::new();
        let mut masking = self.masker.start(count);
        let mut groups = Groups::of(batch);
        let mut clock = Clock { deadline, is_over: false, due: 0 };
        for (position, message) in batch.messages.iter().enumerate() {
            let in_time = clock.look(message);
            let group = groups.number(message);
            if groups.is_blocked(group) {
                failures.push(Failure { position, reason: Reason::BehindFailure });
                continue;
            }
            let filled = in_time.and_then(|()| {
                let body = message.body.as_deref().ok_or(Reason::NoBody)?;
                row.fill(decoder.decode(body)?, message, &self.contract)
            });
            match filled {
                Ok(()) => {
                    masking.push(&row);
                    positions.push(position);
                    row_groups.push(group);
                }
                Err(reason) => {
                    groups.block(group);
                    failures.push(Failure { position, reason: explained(reason, message) });
                }
            }
        }
        Prepared { masked: masking.finish(), positions, groups: row_groups, failures }
    }
}

/// The reason behind a reason: a body that is wrapped breaks the contract as well.
fn explained(reason: Reason, message: &Message<'_>) -> Reason {
    match reason {
        Reason::Deadline => reason,
        _ => message.body.as_deref().and_then(decode::envelope).unwrap_or(reason),
    }
}

/// The time, which nothing but a look at the clock can tell while no one waits.
struct Clock {
    deadline: Deadline,
    is_over: bool,
    /// Bytes of bodies until the next look.
    due: usize,
}

impl Clock {
    /// A look costs as much as a short field, and so much text takes some hundred microseconds.
    const EVERY: usize = 16 * 1024;

    fn look(&mut self, message: &Message<'_>) -> Result<(), Reason> {
        if self.due == 0 {
            self.is_over |= Instant::now() >= self.deadline.statement_end();
            self.due = Self::EVERY;
        }
        self.due = self.due.saturating_sub(1 + message.body.as_ref().map_or(0, |body| body.len()));
        if self.is_over { Err(Reason::Deadline) } else { Ok(()) }
    }
}

/// The message groups of an ordered batch, numbered; in an unordered one no message has a group.
struct Groups<'a> {
    is_ordered: bool,
    numbers: HashMap<Option<&'a str>, usize>,
    blocked: Vec<bool>,
}

impl<'a> Groups<'a> {
    fn of(batch: &Batch<'_>) -> Self {
        Self { is_ordered: batch.ordered, numbers: HashMap::new(), blocked: Vec::new() }
    }

    fn number(&mut self, message: &'a Message<'_>) -> Option<usize> {
        if !self.is_ordered {
            return None;
        }
        let next = self.numbers.len();
        let number = *self.numbers.entry(message.group.as_deref()).or_insert(next);
        self.blocked.resize(self.numbers.len(), false);
        Some(number)
    }

    fn is_blocked(&self, group: Option<usize>) -> bool {
        group.is_some_and(|group| self.blocked[group])
    }

    fn block(&mut self, group: Option<usize>) {
        if let Some(group) = group {
            self.blocked[group] = true;
        }
    }
}

/// **Invariant (Conservation):** as many outcomes as messages, and no message with two failures.
fn account(batch: &Batch<'_>, outcome: Outcome) -> Result<Outcome, BatchError> {
    let received = batch.messages.len();
    let is_double = outcome.failures.windows(2).any(|pair| pair[0].position == pair[1].position);
    let accounted = outcome.committed + outcome.already_present + outcome.failures.len();
    if accounted == received && !is_double { Ok(outcome) } else { Err(BatchError::Unaccounted { received, accounted }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_without_an_outcome_or_with_two_fails_the_batch() {
        let message = || Message {
            id: "id".into(),
            body: None,
            sent_at: None,
            group: None,
            receive_count: None,
            attributes: Vec::new(),
        };
        let batch = Batch { messages: vec![message(), message()], ordered: false };
        let check = |committed, already_present, failed: &[usize], is_sound: bool| {
            let failures = failed.iter().map(|&position| Failure { position, reason: Reason::NoBody }).collect();
            let outcome = Outcome { committed, already_present, failures, ..Outcome::default() };
            assert_eq!(account(&batch, outcome).is_ok(), is_sound, "{committed} {already_present} {failed:?}");
        };
        check(1, 1, &[], true);
        check(0, 1, &[1], true);
        check(0, 0, &[0, 1], true);
        check(1, 0, &[], false);
        check(2, 0, &[1], false);
        check(0, 0, &[1, 1], false);
    }
}
