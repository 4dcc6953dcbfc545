//! Measures the cells of a plan: contenders in turn, the table as it was before each run, and counted after it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::contender::{Contender, Setup, Who};
use crate::events::{self, EventFile, Mix};
use crate::interrupt::Interrupt;
use crate::placement::{Cores, Placement};
use crate::plan::{Cell, Entrant, Group};
use crate::progress::Progress;
use crate::protocol::Tally;
use crate::server::{Server, Trip};
use crate::stats::median;

pub const TABLE: &str = "user_logins";

/// What all measurements need.
pub struct Bench {
    pub cores: Cores,
    pub interrupt: Interrupt,
    pub progress: Progress,
    /// Where files of events are put, and removed.
    pub folder: PathBuf,
}

/// One contender in one cell.
#[derive(Clone, Debug, Serialize)]
pub struct Measurement {
    pub who: Who,
    pub label: &'static str,
    /// What it is made of.
    pub version: String,
    pub durable: bool,
    pub placement: Placement,
    pub trip: Trip,
    pub mix: Mix,
    pub size: usize,
    pub batches: usize,
    pub samples: Vec<Sample>,
    /// How it failed, if it did. Then there are no samples.
    pub fails: Option<String>,
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    pub wall_ns: u64,
    pub cpu_ns: u64,
    pub backend_cpu_ns: Option<u64>,
    pub peak_kib: Option<u64>,
}

impl Measurement {
    /// Wall-clock nanoseconds of each run.
    pub fn walls(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.wall_ns as f64).collect()
    }

    /// The median of a number that each run has, for one row.
    pub fn per_row(&self, number: impl Fn(&Sample) -> Option<u64>) -> Option<f64> {
        self.median(number).map(|median| median / (self.size * self.batches) as f64)
    }

    pub fn rows_a_second(&self) -> Option<f64> {
        self.per_row(|sample| Some(sample.wall_ns)).map(|ns| 1e9 / ns)
    }

    fn median(&self, number: impl Fn(&Sample) -> Option<u64>) -> Option<f64> {
        let numbers: Option<Vec<f64>> = self.samples.iter().map(|sample| number(sample).map(|n| n as f64)).collect();
        median(&numbers?)
    }
}

/// Measures all cells of a group, and tells what the contenders are made of.
pub fn group(bench: &mut Bench, server: &mut Server, group: &Group, found: &mut Vec<Measurement>) -> Result<()> {
    bench.progress.say(group.title);
    bench.cores.pin_postgres(server.postmaster(), group.placement);
    let added = server.lengthen(group.trip)?;
    if let Trip::Proxied(_) = group.trip {
        bench.progress.say(&format!("  a round trip takes {added:.2} ms longer, measured"));
    }
    let setup = Setup::new(server.port(group.trip), server.database());
    let start = |who| bench.cores.starting(group.placement, || Contender::start(who, &setup, &bench.interrupt));
    let mut contenders = group.whos().into_iter().map(start).collect::<Result<Vec<_>>>()?;
    server.note_backends()?;
    for cell in &group.cells {
        bench.progress.say(&format!("  {} in a batch, {:?}", cell.size, cell.mix));
        let path = bench.folder.join("cell.jsonl");
        let file = events::login_file(&path, cell.batches, cell.size, cell.mix, cell.size as u64)?;
        server.refuse_rows(cell.mix == Mix::Refused)?;
        let measured = rounds(bench, server, cell, &file, &mut contenders);
        server.refuse_rows(false)?;
        let measured = measured.with_context(|| format!("{}, {} in a batch", group.title, cell.size))?;
        found.extend(cell.entrants.iter().zip(measured).map(|(entrant, (samples, fails))| {
            Measurement {
                who: entrant.who,
                label: entrant.who.label(),
                version: contenders
                    .iter()
                    .find(|other| other.who == entrant.who)
                    .map(|it| it.version.clone())
                    .unwrap_or_default(),
                durable: group.durable,
                placement: group.placement,
                trip: group.trip,
                mix: cell.mix,
                size: cell.size,
                batches: cell.batches,
                samples,
                fails,
            }
        }));
        bench.progress.finish(group.estimate(cell));
    }
    Ok(())
}

type Rounds = (Vec<Sample>, Option<String>);

/// All rounds of a cell. Who runs once only is not warmed up: that run takes a minute.
fn rounds(
    bench: &Bench,
    server: &mut Server,
    cell: &Cell,
    file: &EventFile,
    contenders: &mut [Contender],
) -> Result<Vec<Rounds>> {
    let mut measured: Vec<Rounds> = vec![Rounds::default(); cell.entrants.len()];
    let most = cell.entrants.iter().map(|entrant| entrant.rounds).max().unwrap_or_default();
    for round in 0..=most {
        for (Entrant { who, rounds }, (samples, fails)) in cell.entrants.iter().zip(&mut measured) {
            if fails.is_some() || round > *rounds || (round == 0 && *rounds == 1) {
                continue;
            }
            bench.interrupt.check()?;
            let contender = contenders.iter_mut().find(|contender| contender.who == *who);
            let contender = contender.context("every entrant was started")?;
            match run(server, file, contender)? {
                Ok(sample) if round > 0 => samples.push(sample),
                Ok(_) => {}
                Err(why) if cell.mix == Mix::Clean || who.must_not_fail() => bail!("{} {why}", who.label()),
                Err(why) => *fails = Some(why),
            }
        }
    }
    Ok(measured)
}

/// One run, between a table as it must be before and a count after. The inner error says what is wrong with the table.
pub fn run(server: &mut Server, file: &EventFile, contender: &mut Contender) -> Result<Result<Sample, String>> {
    server.refill(TABLE, &file.redelivered)?;
    let backend = server.backend_cpu_ns();
    let tally = contender.run(&file.path)?;
    let backend_cpu_ns = backend.and_then(|before| Some(server.backend_cpu_ns()? - before));
    if let Some(fault) = fault(file, &tally, server.rows(TABLE)?) {
        return Ok(Err(fault));
    }
    let Tally { wall_ns, cpu_ns, peak_kib, .. } = tally;
    Ok(Ok(Sample { wall_ns, cpu_ns, backend_cpu_ns, peak_kib }))
}

/// What is wrong with a run's result.
fn fault(file: &EventFile, tally: &Tally, rows: usize) -> Option<String> {
    let is_right = rows == file.rows_after() && tally.failed == file.failing;
    let error = tally.error.as_ref().map(|error| format!(" ({error})")).unwrap_or_default();
    let (wanted, failing, failed) = (file.rows_after(), file.failing, tally.failed);
    (!is_right)
        .then(|| format!("left {rows} of {wanted} rows in the table and handed back {failed}, not {failing}{error}"))
}

/// The file is no longer needed.
pub fn remove(path: &Path) -> Result<()> {
    std::fs::remove_file(path).with_context(|| format!("remove {}", path.display()))
}
