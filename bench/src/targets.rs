//! The targets, each with what was measured.

use serde::Serialize;

use crate::contender::Who;
use crate::events::Mix;
use crate::measure::Measurement;
use crate::placement::Placement;
use crate::plan::SIZES;
use crate::server::Trip;
use crate::stats::median_ratio;
use crate::trips::Trips;

/// One figure to be reached.
#[derive(Debug, Serialize)]
pub struct Target {
    pub what: &'static str,
    /// In a batch.
    pub size: usize,
    pub unit: &'static str,
    pub target: f64,
    /// Whether less is better.
    pub at_most: bool,
    pub measured: Option<f64>,
    pub rounds: usize,
}

impl Target {
    pub fn is_met(&self) -> Option<bool> {
        let measured = self.measured?;
        Some(if self.at_most { measured <= self.target } else { measured >= self.target })
    }

    /// By how much of the target it is missed or surpassed: 0.1 is a tenth better.
    pub fn margin(&self) -> Option<f64> {
        let ratio = self.measured? / self.target;
        Some(if self.at_most { 1.0 - ratio } else { ratio - 1.0 })
    }
}

const WRITE: &str = "write stage against Postgres's own COPY, two cores";
const EXECUTEMANY: &str = "handler against psycopg2 executemany, one core";
const FAR: &str = "handler against psycopg2 executemany, 1 ms away";
const ASYNCPG: &str = "handler against asyncpg COPY, one core";
const CPU: &str = "CPU of our process, event bytes to response";
const TRIPS: &str = "round trips a batch";
const MEMORY: &str = "peak memory";

/// All targets that are measured here. `peak_mib` is our process's at 10,000 records.
pub fn all(found: &[Measurement], trips: &[Trips], peak_mib: Option<f64>) -> Vec<Target> {
    let near = |who, placement| Wanted { who, placement, trip: Trip::Direct };
    let two = |who| near(who, Placement::TwoCores);
    let one = |who| near(who, Placement::OneCore);
    let far = |who| Wanted { who, placement: Placement::OneCore, trip: Trip::Proxied(1) };
    let mut targets = Vec::new();
    for (size, target) in [(10, 0.9), (100, 0.95), (1_000, 0.85), (10_000, 0.85)] {
        targets.push(ratio(found, WRITE, size, target, two(Who::LimitCopy), two(Who::OursWrite)));
    }
    for (size, target) in [(10, 12.0), (100, 14.0), (1_000, 11.0), (10_000, 13.0)] {
        targets.push(ratio(found, EXECUTEMANY, size, target, one(Who::Psycopg2Executemany), one(Who::Ours)));
    }
    for (size, target) in [(10, 10.0), (1_000, 180.0), (10_000, 300.0)] {
        targets.push(ratio(found, FAR, size, target, far(Who::Psycopg2Executemany), far(Who::Ours)));
    }
    for size in [1_000, 10_000] {
        targets.push(ratio(found, ASYNCPG, size, 3.0, one(Who::AsyncpgCopy), one(Who::Ours)));
    }
    for size in [1_000, 10_000] {
        let ours = one(Who::Ours).find(found, size);
        let us = ours.and_then(|ours| ours.per_row(|sample| Some(sample.cpu_ns))).map(|ns| ns / 1e3);
        targets.push(bound(CPU, size, "us a record", 1.3, us, ours));
    }
    for size in SIZES {
        let ours = trips.iter().find(|trips| (trips.who, trips.size) == (Who::Ours, size));
        let measured = ours.map(|ours| ours.round_trips as f64);
        targets.push(bound(TRIPS, size, "round trips", 1.0, measured, None));
    }
    targets.push(bound(MEMORY, 10_000, "MiB", 64.0, peak_mib, None));
    targets
}

/// A clean cell of one contender.
struct Wanted {
    who: Who,
    placement: Placement,
    trip: Trip,
}

impl Wanted {
    fn find<'m>(&self, found: &'m [Measurement], size: usize) -> Option<&'m Measurement> {
        found.iter().find(|found| {
            (found.who, found.placement, found.trip, found.size) == (self.who, self.placement, self.trip, size)
                && found.mix == Mix::Clean
                && !found.durable
        })
    }
}

/// How many times as long `slow` takes as `fast`.
fn ratio(found: &[Measurement], what: &'static str, size: usize, target: f64, slow: Wanted, fast: Wanted) -> Target {
    let (slow, fast) = (slow.find(found, size), fast.find(found, size));
    let measured = slow.zip(fast).and_then(|(slow, fast)| median_ratio(&slow.walls(), &fast.walls()));
    let rounds = slow.zip(fast).map_or(0, |(slow, fast)| slow.samples.len().min(fast.samples.len()));
    Target { what, size, unit: "times", target, at_most: false, measured, rounds }
}

fn bound(
    what: &'static str,
    size: usize,
    unit: &'static str,
    target: f64,
    measured: Option<f64>,
    of: Option<&Measurement>,
) -> Target {
    let rounds = of.map_or(1, |of| of.samples.len());
    Target { what, size, unit, target, at_most: true, measured, rounds }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Sample;

    fn measurement(who: Who, walls: &[u64]) -> Measurement {
        let sample = |&wall_ns| Sample { wall_ns, cpu_ns: 2_000_000, backend_cpu_ns: None, peak_kib: None };
        Measurement {
            who,
            label: who.label(),
            version: String::new(),
            durable: false,
            placement: Placement::OneCore,
            trip: Trip::Direct,
            mix: Mix::Clean,
            size: 1_000,
            batches: 1,
            samples: walls.iter().map(sample).collect(),
            fails: None,
        }
    }

    #[test]
    fn a_target_is_met_or_missed_by_a_part_of_itself() {
        let found = [
            measurement(Who::Ours, &[10, 20, 30]),
            measurement(Who::Psycopg2Executemany, &[220, 440, 600]),
            measurement(Who::AsyncpgCopy, &[15, 30, 45]),
        ];
        let targets = all(&found, &[], Some(80.0));
        let check = |what, size, measured: Option<f64>, is_met: Option<bool>, margin: Option<f64>| {
            let target = targets.iter().find(|target| target.what == what && target.size == size).unwrap();
            assert_eq!((target.measured, target.is_met()), (measured, is_met), "{what}");
            assert_eq!(target.margin().map(|margin| (margin * 100.0).round()), margin, "{what}");
        };
        check(EXECUTEMANY, 1_000, Some(22.0), Some(true), Some(100.0));
        check(ASYNCPG, 1_000, Some(1.5), Some(false), Some(-50.0));
        check(CPU, 1_000, Some(2.0), Some(false), Some(-54.0));
        check(MEMORY, 10_000, Some(80.0), Some(false), Some(-25.0));
        check(WRITE, 10, None, None, None);
    }
}
