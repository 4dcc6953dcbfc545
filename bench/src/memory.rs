//! The most memory that each contender ever has, when it handles two batches of 10,000: of ours the first is inserted, the
//! second copied.

use anyhow::{Result, ensure};

use crate::contender::{Contender, Setup, Who};
use crate::events::{self, Mix};
use crate::measure::{Bench, TABLE};
use crate::placement::Placement;
use crate::plan::Extent;
use crate::server::{Server, Trip};

const SIZE: usize = 10_000;

/// Seconds that it takes, roughly.
pub fn estimate(extent: Extent) -> f64 {
    if extent.short { 3.0 } else { 8.0 }
}

/// Labels and KiB. Each contender is started for it: a process gives little back. The event itself, 10 MB, is part of it,
/// as it is on Lambda.
pub fn peaks(bench: &mut Bench, server: &mut Server, extent: Extent) -> Result<Vec<(&'static str, u64)>> {
    bench.progress.say("peak memory");
    let few = [Who::Ours, Who::Psycopg2Executemany];
    let whos: Vec<Who> = if extent.short { few.into() } else { [Who::Ours].into_iter().chain(Who::PEERS).collect() };
    let file = events::login_file(&bench.folder.join("memory.jsonl"), 1, SIZE, Mix::Clean, 5)?;
    let setup = Setup::new(server.port(Trip::Direct), server.database());
    let mut peaks = Vec::new();
    for who in whos {
        bench.interrupt.check()?;
        server.refill(TABLE, &[])?;
        let start = || Contender::start(who, &setup, &bench.interrupt);
        let mut contender = bench.cores.starting(Placement::OneCore, start)?;
        contender.run(&file.path)?;
        server.refill(TABLE, &[])?;
        let tally = contender.run(&file.path)?;
        ensure!(server.rows(TABLE)? == SIZE, "{} did not store all rows", who.label());
        peaks.extend(tally.peak_kib.map(|kib| (who.label(), kib)));
    }
    bench.progress.finish(estimate(extent));
    Ok(peaks)
}
