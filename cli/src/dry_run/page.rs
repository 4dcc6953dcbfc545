//! What a dry run prints: a table on a terminal, JSON lines anywhere else; and the sum of it.

use std::io::{self, IsTerminal};

use anyhow::{Context, Result};
use aws_sdk_sqs::primitives::{DateTime, DateTimeFormat};
use aws_sdk_sqs::types::MessageSystemAttributeName;
use serde::Serialize;
use sqs_etl::pipeline::outcome::Reason;

use crate::sqs::Received;
use crate::terminal::{self, Paint};
use crate::words::{counted, number};

use super::DryRunReport;

const FITS: &str = "fits the contract; only the database could still refuse it";

/// Lines on stdout.
pub struct Page {
    paint: Paint,
    pub is_table: bool,
    has_head: bool,
}

/// One message.
#[derive(Serialize)]
struct Line<'a> {
    message_id: &'a str,
    receive_count: u32,
    sent_at: Option<String>,
    fits: bool,
    reason: Option<&'static str>,
    detail: String,
}

impl Page {
    pub fn new() -> Self {
        Self { paint: Paint::stdout(), is_table: io::stdout().is_terminal(), has_head: false }
    }

    /// A line for each message; all reasons are in their messages' places.
    pub fn print(&mut self, received: &[Received], reasons: &[Option<Reason>]) -> Result<()> {
        let mut text = String::new();
        if self.is_table && !self.has_head && !received.is_empty() {
            self.has_head = true;
            let head =
                format!("{:<36}  {:>8}  {:<20}  {:<15}  {}", "message id", "received", "sent", "reason", "detail");
            text += &self.paint.bold(head.trim_end());
            text.push('\n');
        }
        for (message, reason) in received.iter().zip(reasons) {
            let line = line(message, reason.as_ref());
            text += &if self.is_table { self.row(&line) } else { serde_json::to_string(&line)? };
            text.push('\n');
        }
        terminal::print(&text).context("print the messages")
    }

    fn row(&self, line: &Line<'_>) -> String {
        let reason = format!("{:<15}", line.reason.unwrap_or("fits"));
        let reason = if line.fits { self.paint.green(&reason) } else { self.paint.red(&reason) };
        let sent = line.sent_at.as_deref().unwrap_or_default();
        format!("{:<36}  {:>8}  {sent:<20}  {reason}  {}", line.message_id, line.receive_count, line.detail)
    }
}

fn line<'a>(message: &'a Received, reason: Option<&Reason>) -> Line<'a> {
    Line {
        message_id: &message.id,
        receive_count: message.receive_count(),
        sent_at: message.system(&MessageSystemAttributeName::SentTimestamp).and_then(second),
        fits: reason.is_none(),
        reason: reason.map(Reason::code),
        detail: reason.map_or_else(|| FITS.to_owned(), Reason::to_string),
    }
}

/// Milliseconds since 1970 as `2026-11-22T16:14:20Z`.
fn second(milliseconds: &str) -> Option<String> {
    let milliseconds: i64 = milliseconds.parse().ok()?;
    DateTime::from_secs(milliseconds.div_euclid(1_000)).fmt(DateTimeFormat::DateTime).ok()
}

/// How many there are of each kind.
pub fn summary(report: &DryRunReport, queue: &str) -> Vec<String> {
    let begin = if report.is_interrupted { "interrupted: " } else { "" };
    let whole = format!("{begin}{} of {queue} looked at", counted(report.seen, "message"));
    let mut lines = vec![whole];
    let mut line = |count: usize, what: &str| lines.push(format!("{:>9}  {what}", number(count)));
    if report.fit > 0 {
        line(report.fit, "fit the contract; only the database could still refuse them");
    }
    let mut reasons: Vec<_> = report.reasons.iter().collect();
    reasons.sort_by(|a, b| b.1.cmp(a.1));
    for (reason, count) in reasons {
        line(*count, reason);
    }
    if report.kept == 0 {
        lines.push(format!("nothing was written, and all are visible again in {queue}"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_to_the_second() {
        assert_eq!(second("1795364060720").as_deref(), Some("2026-11-22T16:14:20Z"));
        assert_eq!(second("x"), None);
    }

    #[test]
    fn the_most_frequent_reason_comes_first() {
        let reasons = [("missing", 1), ("not_json", 1_200)].into();
        let report = DryRunReport { seen: 1_204, fit: 3, reasons, ..DryRunReport::default() };
        let expected = [
            "1,204 messages of dead looked at",
            "        3  fit the contract; only the database could still refuse them",
            "    1,200  not_json",
            "        1  missing",
            "nothing was written, and all are visible again in dead",
        ];
        assert_eq!(summary(&report, "dead"), expected);
    }
}
