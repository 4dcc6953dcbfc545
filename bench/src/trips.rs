//! How many round trips a batch makes, counted over a wire so long that no answer can overtake a flight.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::contender::{Contender, Setup, Who};
use crate::events::{self, Mix};
use crate::measure::{Bench, TABLE};
use crate::placement::Placement;
use crate::plan::{Extent, SIZES};
use crate::server::{Server, Trip};

/// Far longer than it takes to send 10,000 rows.
const DELAY: Duration = Duration::from_millis(100);
/// The largest batch for who makes a round trip a row.
const CHATTY_SIZE: usize = 10;

/// Round trips of one batch, on a connection that is warm.
#[derive(Debug, Serialize)]
pub struct Trips {
    pub who: Who,
    pub label: &'static str,
    pub size: usize,
    pub round_trips: u64,
}

/// Seconds that it takes, roughly.
pub fn estimate(extent: Extent) -> f64 {
    if extent.short { 6.0 } else { 20.0 }
}

/// Counts for us, and for our peers.
pub fn count(bench: &mut Bench, server: &mut Server, extent: Extent) -> Result<Vec<Trips>> {
    bench.progress.say("round trips");
    let peers = if extent.short { &[Who::Psycopg2Executemany] } else { Who::PEERS.as_slice() };
    let mut counted = Vec::new();
    for who in [&[Who::Ours], peers].concat() {
        server.proxy().set_delays(Duration::ZERO, Duration::ZERO);
        let setup = Setup::new(server.port(Trip::Proxied(0)), server.database());
        let start = || Contender::start(who, &setup, &bench.interrupt);
        let mut contender = bench.cores.starting(Placement::OneCore, start)?;
        server.proxy().set_delays(Duration::ZERO, DELAY);
        for size in SIZES.into_iter().filter(|&size| size <= CHATTY_SIZE || !who.is_chatty()) {
            let round_trips = of_batch(bench, server, &mut contender, size)?;
            counted.push(Trips { who, label: who.label(), size, round_trips });
        }
    }
    bench.progress.finish(estimate(extent));
    Ok(counted)
}

/// Of the second batch: the first one may ask what the table is like.
fn of_batch(bench: &Bench, server: &mut Server, contender: &mut Contender, size: usize) -> Result<u64> {
    let file = events::login_file(&bench.folder.join("trips.jsonl"), 1, size, Mix::Clean, size as u64)?;
    for _ in 0..2 {
        bench.interrupt.check()?;
        server.refill(TABLE, &[])?;
        server.proxy().reset();
        contender.run(&file.path)?;
        ensure!(server.rows(TABLE)? == size, "{} did not store all rows", contender.who.label());
    }
    Ok(server.proxy().round_trips())
}
