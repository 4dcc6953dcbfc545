//! A dry run: looks at a queue's messages, says of each whether it fits the contract, and gives all of them back.
//!
//! Messages are held, invisible to others, until the last is looked at, so that each is seen once. They are given back
//! however it ends; after a `kill -9` they come back by themselves. Nothing is written, and no database is asked.
//!
//! **Invariant (Silence):** of a message only its id, its counts and a reason are told; bodies stay in the process.

mod held;
mod page;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sqs_etl::pipeline::Rehearsal;
use sqs_etl::pipeline::contract::Contract;
use sqs_etl::pipeline::mask::Keys;
use sqs_etl::pipeline::message::Batch;
use sqs_etl::pipeline::outcome::Reason;
use uuid::Uuid;

use crate::INTERRUPTED;
use crate::interrupt::Interrupt;
use crate::sqs::{Attributes, CALL, Queue, QueueError, Received};
use crate::terminal::Progress;
use crate::words::{counted, number};

use held::{HOLD, Held};
use page::Page;

/// How long a receive waits for a message: an answer to one that waits has looked at all of SQS's servers.
const WAIT: Duration = Duration::from_secs(2);
/// Receives under way at once. Each stops at its first answer without a new message: what comes back before its time, because
/// renewals are too slow, could otherwise be received for ever.
const RECEIVERS: usize = 4;
/// Some message does not fit the contract.
pub const UNFIT: u8 = 3;

/// What was seen, and whether all of it was given back.
#[derive(Debug, Default)]
pub struct DryRunReport {
    pub seen: usize,
    /// How many fit the contract.
    pub fit: usize,
    /// How many do not, by the reason's code.
    pub reasons: BTreeMap<&'static str, usize>,
    pub is_interrupted: bool,
    /// How many could not be given back at once.
    pub kept: usize,
}

/// What one look goes through.
struct Look<'a> {
    queue: &'a Queue,
    rehearsal: Rehearsal,
    limit: usize,
    held: Held,
    page: Page,
    report: DryRunReport,
    /// How many have been received as often as the queue allows.
    worn: usize,
    /// How often one came back that was held.
    back: usize,
    before: Attributes,
}

/// Looks at up to `limit` messages and prints a line for each on stdout; what else there is to say goes to stderr.
///
/// # Errors
/// If the queue cannot be used. What was received until then was given back.
pub async fn run(queue: &Queue, contract: Contract, limit: usize, interrupt: &Interrupt) -> Result<DryRunReport> {
    let before = queue.attributes().await?;
    let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    let keys = Keys::from_secret(&secret).context("make up a masking key")?;
    let rehearsal = Rehearsal::new(contract, &keys).context("fit a made-up masking key to the contract")?;
    warn_of_redrive(queue, &before);
    let (held, page, report) = (Held::default(), Page::new(), DryRunReport::default());
    let mut look = Look { queue, rehearsal, limit, held, page, report, worn: 0, back: 0, before };
    let renewals = tokio::spawn(look.held.clone().keep(queue.clone()));
    let looked = look.all(interrupt).await;
    look.report.is_interrupted = interrupt.is_raised();
    look.report.kept = look.held.give_back(queue).await;
    renewals.abort();
    looked?;
    look.sum_up();
    Ok(look.report)
}

impl DryRunReport {
    /// 0 if all that were looked at fit the contract, 3 if some do not.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self { is_interrupted: true, .. } => INTERRUPTED.into(),
            Self { kept: 1.., .. } => ExitCode::FAILURE,
            Self { seen, fit, .. } if fit < seen => UNFIT.into(),
            _ => ExitCode::SUCCESS,
        }
    }
}

impl Look<'_> {
    async fn all(&mut self, interrupt: &Interrupt) -> Result<()> {
        let mut progress = Progress::new();
        let queue = self.queue;
        let receive = async |most: usize| (most, queue.receive_some(most, WAIT, HOLD).await);
        let mut receives = FuturesUnordered::new();
        let mut asked = 0;
        for _ in 0..RECEIVERS {
            let most = self.room(asked);
            if most > 0 {
                asked += most;
                receives.push(receive(most));
            }
        }
        let mut failed: Result<()> = Ok(());
        // To the last answer, even when nobody wants it any more: what it brings must be given back.
        while let Some((most, answer)) = receives.next().await {
            asked -= most;
            let is_over = interrupt.is_raised() || failed.is_err();
            let found = self.take(answer, is_over);
            let is_empty = matches!(found, Ok(0));
            failed = failed.and(found.map(drop));
            let most = self.room(asked);
            if !is_over && !is_empty && failed.is_ok() && most > 0 {
                asked += most;
                receives.push(receive(most));
            }
            // A table's rows show it by themselves, and would be written into the live line.
            if !self.page.is_table {
                progress.counting("look", &counted(self.report.seen, "message"));
            }
        }
        failed
    }

    /// How many messages the next receive may ask for, while so many are asked for already.
    fn room(&self, asked: usize) -> usize {
        self.limit.saturating_sub(self.report.seen + asked).min(CALL)
    }

    /// Looks at what was received, or only keeps it to be given back; tells how many messages were new.
    fn take(&mut self, answer: Result<Vec<Received>, QueueError>, is_over: bool) -> Result<usize> {
        let mut received = answer?;
        let count = received.len();
        received.retain(|message| self.held.add(message));
        self.back += count - received.len();
        if !is_over {
            self.check(&received)?;
        }
        Ok(received.len())
    }

    /// As an unordered batch even from a FIFO queue: each message for its own reason, not for one before it.
    fn check(&mut self, received: &[Received]) -> Result<()> {
        let batch = Batch { messages: received.iter().map(Received::message).collect(), ordered: false };
        let mut reasons: Vec<Option<Reason>> = received.iter().map(|_| None).collect();
        for failure in self.rehearsal.run(&batch) {
            reasons[failure.position] = Some(failure.reason);
        }
        let most = self.before.max_receive_count.unwrap_or(u32::MAX);
        for (message, reason) in received.iter().zip(&reasons) {
            self.report.seen += 1;
            self.worn += usize::from(message.receive_count() >= most);
            match reason {
                None => self.report.fit += 1,
                Some(reason) => *self.report.reasons.entry(reason.code()).or_default() += 1,
            }
        }
        self.page.print(received, &reasons)
    }

    /// What it did not see of so many that were there, if it was not interrupted.
    fn rest(&self, visible: usize) -> Option<String> {
        let (limit, left) = (number(self.limit), visible.saturating_sub(self.report.seen));
        match (self.report.seen >= self.limit, left) {
            _ if self.report.is_interrupted => None,
            (true, 0) => Some(format!("stopped at the limit of {limit}; by SQS's count there were no more")),
            (true, left) => Some(format!("stopped at the limit of {limit}; about {} were not looked at", number(left))),
            (false, 1..) if self.queue.is_fifo() => Some(format!(
                "a FIFO queue shows only the first messages of each group while they are held: about {} more were there",
                number(left)
            )),
            (false, _) => None,
        }
    }

    fn sum_up(&self) {
        let (queue, report) = (self.queue.name(), &self.report);
        for line in page::summary(report, queue) {
            eprintln!("{line}");
        }
        if let Some(rest) = self.rest(usize::try_from(self.before.visible).unwrap_or(usize::MAX)) {
            eprintln!("{rest}");
        }
        if self.before.in_flight > 0 {
            eprintln!("about {} more were in somebody's hands and not looked at", self.before.in_flight);
        }
        if self.back > 0 {
            let back = counted(self.back, "message");
            eprintln!(
                "{back} came back while held, and counted as received once more; some others may not have been seen"
            );
        }
        if self.worn > 0 {
            eprintln!(
                "warning: {} now been received as often as {queue} allows; SQS moves them to {} when they are due again",
                have(self.worn),
                dead_letters(&self.before)
            );
        }
    }
}

fn have(count: usize) -> String {
    format!("{} {}", counted(count, "message"), if count == 1 { "has" } else { "have" })
}

/// Each look counts as a receive, also for a queue's own redrive policy.
fn warn_of_redrive(queue: &Queue, attributes: &Attributes) {
    if let Some(most) = attributes.max_receive_count {
        let (queue, target) = (queue.name(), dead_letters(attributes));
        eprintln!("warning: a look counts as a receive, and after {most} of them {queue} moves a message to {target}");
    }
}

fn dead_letters(attributes: &Attributes) -> &str {
    let arn = attributes.dead_letter_queue.as_deref().unwrap_or("its dead-letter queue");
    arn.rsplit(':').next().unwrap_or(arn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_says_whether_all_fit() {
        let check = |seen, fit, is_interrupted, kept, code: ExitCode| {
            let report = DryRunReport { seen, fit, is_interrupted, kept, ..DryRunReport::default() };
            assert_eq!(report.exit_code(), code, "{report:?}");
        };
        check(0, 0, false, 0, ExitCode::SUCCESS);
        check(2, 2, false, 0, ExitCode::SUCCESS);
        check(2, 1, false, 0, UNFIT.into());
        check(2, 1, false, 1, ExitCode::FAILURE);
        check(2, 1, true, 0, INTERRUPTED.into());
    }
}
