//! What was measured, as tables for people and as JSON for the pictures.

use std::fmt::Write as _;

use serde::Serialize;

use crate::curve::Curve;
use crate::events::Mix;
use crate::machine::Machine;
use crate::measure::{Measurement, Sample};
use crate::pgbench::SingleRows;
use crate::plan::{FULL_ROUNDS, Group, SIZES};
use crate::targets::Target;
use crate::trips::Trips;

/// All of it.
#[derive(Serialize)]
pub struct Report {
    pub machine: Machine,
    pub short: bool,
    pub seconds: f64,
    pub targets: Vec<Target>,
    pub measurements: Vec<Measurement>,
    pub single_rows: Option<SingleRows>,
    /// Each contender's peak memory at a batch of 10,000, in KiB.
    pub memory: Vec<(&'static str, u64)>,
    pub trips: Vec<Trips>,
    pub curves: Vec<Curve>,
}

impl Report {
    /// For the terminal: a table a group, then memory, then the targets.
    pub fn text(&self, groups: &[Group]) -> String {
        let mut text = format!("{}\n{}\n", self.machine.line(), self.conditions());
        for group in groups {
            text += &self.group(group);
        }
        if let Some(rows) = &self.single_rows {
            let _ = writeln!(
                text,
                "\npgbench, single ready-made rows, a commit each: {:.0} rows a second",
                rows.rows_a_second
            );
        }
        if !self.memory.is_empty() {
            text += "\nPeak memory of the process, MiB, after one batch of 10,000\n";
        }
        for (label, kib) in &self.memory {
            let _ = writeln!(text, "  {label:<28} {:>8.1}", *kib as f64 / 1024.0);
        }
        if !self.trips.is_empty() {
            text += "\nRound trips of one batch\n";
        }
        for Trips { label, size, round_trips, .. } in &self.trips {
            let _ = writeln!(text, "  {label:<28} {size:>8} in a batch {round_trips:>6}");
        }
        for curve in &self.curves {
            text += &curve.text();
        }
        text + &self.targets()
    }

    fn conditions(&self) -> String {
        let mut text = String::from("fsync is off but where it says \"durable\"; ");
        text += if self.machine.pinned { "processes are pinned to cores" } else { "processes are NOT pinned to cores" };
        if self.machine.debug_build {
            text += "; THIS IS A DEBUG BUILD: its figures mean nothing";
        }
        if self.short {
            let _ = write!(text, "; short form: mostly fewer than {FULL_ROUNDS} rounds, for a first look");
        }
        text
    }

    fn group(&self, group: &Group) -> String {
        let mut text = String::new();
        for mix in [Mix::Clean, Mix::Bad, Mix::Redelivered, Mix::Refused] {
            let of_group = |found: &&Measurement| {
                (found.durable, found.placement, found.trip) == (group.durable, group.placement, group.trip)
                    && found.mix == mix
                    && group.cells.iter().any(|cell| cell.mix == mix)
            };
            let found: Vec<&Measurement> = self.measurements.iter().filter(of_group).collect();
            if !found.is_empty() {
                text += &table(group.title, mix, &found);
            }
        }
        text
    }

    fn targets(&self) -> String {
        let mut text = String::from("\nTargets\n");
        let _ = writeln!(text, "  {:<52} {:>6} {:>9} {:>9}", "", "batch", "target", "measured");
        for target in &self.targets {
            let Target { what, size, unit, at_most, .. } = target;
            let sign = if *at_most { "<=" } else { ">=" };
            let measured = target.measured.map_or("-".to_owned(), |measured| format!("{measured:.2}"));
            let _ = write!(text, "  {what:<52} {size:>6} {sign}{:>7} {measured:>9} {unit:<12}", target.target);
            let _ = match (target.is_met(), target.margin()) {
                (Some(true), Some(margin)) => writeln!(text, " met, {:.0} % to spare", margin * 100.0),
                (Some(false), Some(margin)) => writeln!(text, " MISSED by {:.0} %", -margin * 100.0),
                _ => writeln!(text, " not measured in this run"),
            };
        }
        text + "  Elsewhere: allocations, `make test`; instructions, `make instructions`; start, `make bench-cold`; binary size, `make size`.\n"
    }
}

/// Rows a second, and the CPU time behind them.
fn table(title: &str, mix: Mix, found: &[&Measurement]) -> String {
    let special = match mix {
        Mix::Clean => "",
        Mix::Bad => ": it breaks the contract",
        Mix::Redelivered => ": it is in the table already",
        Mix::Refused => ": a constraint of the table refuses it",
    };
    let mut text = format!("\n{title}{special}\n  {:<28}", "");
    let columns = [("rows/s", 10), ("CPU us/row, contender + Postgres", 14)];
    for (what, width) in columns {
        let _ = write!(text, " {what:>0$}", (width + 1) * SIZES.len());
    }
    let _ = write!(text, "\n  {:<28}", "in a batch");
    for (_, width) in columns {
        for size in SIZES {
            let _ = write!(text, " {size:>width$}");
        }
    }
    text += "\n";
    let mut whos: Vec<_> = found.iter().map(|found| (found.who, found.label)).collect();
    whos.sort();
    whos.dedup();
    for &(who, label) in &whos {
        let cell = |size| found.iter().find(|found| found.who == who && found.size == size);
        let _ = write!(text, "  {label:<28}");
        for size in SIZES {
            let _ = write!(text, " {:>10}", cell(size).map_or("-".to_owned(), |found| speed(found)));
        }
        for size in SIZES {
            let _ = write!(text, " {:>14}", cell(size).map_or("-".to_owned(), |found| cpu(found)));
        }
        text += "\n";
    }
    for (who, label) in whos {
        let failed = found.iter().filter(|found| found.who == who && found.fails.is_some());
        if let Some((size, why)) =
            failed.max_by_key(|found| found.size).and_then(|found| Some((found.size, found.fails.as_ref()?)))
        {
            let _ = writeln!(text, "  {label} at {size}: {why}");
        }
    }
    text
}

/// A star says that there were fewer rounds than a median needs.
fn speed(found: &Measurement) -> String {
    let star = if found.samples.len() < FULL_ROUNDS { "*" } else { "" };
    match found.rows_a_second() {
        Some(speed) if found.fails.is_none() => format!("{speed:.0}{star}"),
        _ => "fails".to_owned(),
    }
}

fn cpu(found: &Measurement) -> String {
    let us = |number: fn(&Sample) -> Option<u64>| found.per_row(number).map(|ns| format!("{:.2}", ns / 1e3));
    let ours = us(|sample| Some(sample.cpu_ns));
    let backend = us(|sample| sample.backend_cpu_ns);
    match (ours, backend) {
        (Some(ours), backend) => format!("{ours} + {}", backend.unwrap_or_default()),
        _ => "-".to_owned(),
    }
}
