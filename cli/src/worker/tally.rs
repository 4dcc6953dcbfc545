//! What has become of all messages so far: counted, shown while the worker runs, told at its end.

use std::time::{Duration, Instant};

use sqs_etl::telemetry::Telemetry;
use tracing::info;

use crate::log;
use crate::terminal::{Paint, Progress, print};
use crate::words::{counted, number};

use super::batch::Done;

/// CloudWatch counts in minutes.
const METRICS_EVERY: Duration = Duration::from_secs(10);
/// The rate that is shown is that of about so long.
const RATE_OVER: Duration = Duration::from_secs(2);

/// Counts, and who shows them.
pub struct Tally {
    pub stored: usize,
    pub already_present: usize,
    /// Times that a message was handed back because of what it says.
    pub handed_back: usize,
    /// Messages that were given back untouched when the worker stopped.
    pub released: usize,
    /// Stored, but not deleted: they come back, and change nothing.
    pub undeleted: usize,
    telemetry: Telemetry,
    flushed: Instant,
    progress: Progress,
    started: Instant,
    rate: f64,
    looked: (Instant, usize),
}

impl Tally {
    pub fn new(telemetry: Telemetry) -> Self {
        let now = Instant::now();
        Self {
            stored: 0,
            already_present: 0,
            handed_back: 0,
            released: 0,
            undeleted: 0,
            telemetry,
            flushed: now,
            progress: Progress::new(),
            started: now,
            rate: 0.0,
            looked: (now, 0),
        }
    }

    pub fn add(&mut self, done: &Done) {
        self.stored += done.stored;
        self.already_present += done.already_present;
        self.handed_back += done.handed_back;
        self.released += done.released;
        self.undeleted += done.undeleted;
    }

    /// Shows how far we are, and sends metrics on their way from time to time.
    pub fn show(&mut self, in_hand: usize, state: &str) {
        let settled = self.stored + self.already_present;
        let elapsed = self.looked.0.elapsed();
        if elapsed >= RATE_OVER {
            self.rate = (settled - self.looked.1) as f64 / elapsed.as_secs_f64();
            self.looked = (Instant::now(), settled);
        }
        let rate = number(self.rate as usize);
        self.progress
            .counting("worker", &format!("{}, {} in hand, {rate} a second{state}", self.counts(), number(in_hand)));
        if self.flushed.elapsed() >= METRICS_EVERY {
            self.flush();
        }
    }

    /// The last word: a line on a terminal, a line of JSON elsewhere, and the last metrics.
    pub fn tell(&mut self, queue: &str) {
        self.progress.clear();
        let Self { stored, already_present, handed_back, released, undeleted, .. } = *self;
        let seconds = self.started.elapsed().as_secs_f64();
        if log::for_a_person() {
            let line = format!("{}  {} in {seconds:.1} s\n", Paint::stdout().bold("      done"), self.counts());
            let _ = print(&line);
        }
        info!(queue, stored, already_present, handed_back, released, undeleted, seconds, "worker done");
        self.flush_metrics();
    }

    fn counts(&self) -> String {
        let mut text = format!("{} stored", counted(self.stored, "message"));
        for (count, what) in [
            (self.already_present, "there already"),
            (self.handed_back, "handed back"),
            (self.released, "given back untouched"),
            (self.undeleted, "not deleted"),
        ] {
            if count > 0 {
                text += &format!(", {} {what}", number(count));
            }
        }
        text
    }

    fn flush(&mut self) {
        self.flushed = Instant::now();
        self.flush_metrics();
    }

    /// They are lines for CloudWatch, not for a person.
    fn flush_metrics(&self) {
        if !log::for_a_person() {
            self.telemetry.flush();
        }
    }
}
