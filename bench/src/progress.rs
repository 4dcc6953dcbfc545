//! What is going on, on standard error, with the time that is left.

use std::time::Instant;

pub struct Progress {
    started: Instant,
    /// Estimated seconds of all steps, and of those that are done.
    total: f64,
    done: f64,
}

impl Progress {
    /// For steps that will take so many seconds, roughly.
    pub fn new(total: f64) -> Self {
        Self { started: Instant::now(), total, done: 0.0 }
    }

    /// A step begins.
    pub fn say(&self, what: &str) {
        eprintln!("[{:>4.0} s, about {:>4.0} s left] {what}", self.started.elapsed().as_secs_f64(), self.left());
    }

    /// A step that was estimated to take so many seconds has ended.
    pub fn finish(&mut self, seconds: f64) {
        self.done += seconds;
    }

    pub fn elapsed(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// The estimates correct themselves: they err by the same factor in what is left as in what is done.
    fn left(&self) -> f64 {
        let factor = if self.done > 5.0 { self.elapsed() / self.done } else { 1.0 };
        (self.total - self.done).max(0.0) * factor
    }
}
