//! How long a message that failed stays invisible, and how long is waited between two tries: each time twice as long, and never
//! two in step.

use std::time::Duration;

/// From the first pause to the longest.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    pub first: Duration,
    pub longest: Duration,
}

impl Backoff {
    /// The pause after so many receives, less up to half of it: `chance` is from 0 to 1.
    pub fn after(&self, receives: u32, chance: f64) -> Duration {
        let doublings = receives.saturating_sub(1).min(31);
        let whole = self.first.saturating_mul(1 << doublings).min(self.longest);
        whole.mul_f64(1.0 - chance / 2.0)
    }
}

/// The pause before the next try.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    backoff: Backoff,
    tries: u32,
}

impl Pause {
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { backoff: Backoff { first, longest }, tries: 0 }
    }

    pub const fn longest(&self) -> Duration {
        self.backoff.longest
    }

    /// The next one.
    pub fn next(&mut self) -> Duration {
        self.tries += 1;
        self.backoff.after(self.tries, fastrand::f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_up_to_the_longest_and_is_shortened_by_half_at_most() {
        let backoff = Backoff { first: Duration::from_secs(5), longest: Duration::from_secs(30) };
        for (receives, seconds) in [(0, 5), (1, 5), (2, 10), (3, 20), (4, 30), (1_000, 30)] {
            assert_eq!(backoff.after(receives, 0.0), Duration::from_secs(seconds), "{receives}");
            assert_eq!(backoff.after(receives, 1.0), Duration::from_secs(seconds) / 2, "{receives}");
        }
    }
}
