//! What is measured: which contenders, at which sizes, how far away, how often.

use clap::ValueEnum;

use crate::contender::Who;
use crate::events::Mix;
use crate::placement::Placement;
use crate::server::Trip;

pub const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];
const BAD_MIXES: [Mix; 3] = [Mix::Bad, Mix::Redelivered, Mix::Refused];
/// The fewest rounds of a median that counts.
pub const FULL_ROUNDS: usize = 7;

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Contender and Postgres on one core
    OneCore,
    /// Contender and Postgres on two cores
    TwoCores,
    /// A network between them
    Far,
    /// Messages that are bad, redelivered or refused
    Mixes,
    /// Commits that are flushed to the disk
    Durable,
    /// Single ready-made rows, by pgbench
    Pgbench,
    /// Peak memory of each contender
    Memory,
    /// Round trips of a batch
    Trips,
    /// How cost grows with size, columns, message, table and concurrency
    Growth,
}

/// Cells for which the same processes serve.
pub struct Group {
    pub part: Part,
    pub title: &'static str,
    pub durable: bool,
    pub placement: Placement,
    pub trip: Trip,
    pub cells: Vec<Cell>,
}

/// One size of batches of one mix, handled by several contenders in turn.
pub struct Cell {
    pub size: usize,
    pub batches: usize,
    pub mix: Mix,
    pub entrants: Vec<Entrant>,
}

#[derive(Clone, Copy)]
pub struct Entrant {
    pub who: Who,
    pub rounds: usize,
}

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Extent {
    pub short: bool,
}

impl Extent {
    fn rounds(self) -> usize {
        if self.short { 3 } else { FULL_ROUNDS }
    }

    /// Of what has no target.
    fn side_rounds(self) -> usize {
        3
    }

    /// Of each point of a curve.
    pub fn growth_rounds(self) -> usize {
        3
    }

    /// Batches of a run, so that a run takes long enough to be measured.
    fn batches(self, size: usize) -> usize {
        let rows = if self.short { 500 } else { 1_000 };
        (rows / size).max(if size < 10_000 && !self.short { 4 } else { 1 })
    }

    /// Of what is not the main matter the short form leaves the dear size out.
    fn fewer_sizes(self) -> &'static [usize] {
        if self.short { &SIZES[..3] } else { &SIZES }
    }

    /// Where each batch waits for the network, there is no need of as many.
    fn far_batches(self, size: usize) -> usize {
        if size <= 100 { 10 } else { 1 }
    }
}

/// All groups, in the order in which they are measured.
pub fn groups(extent: Extent) -> Vec<Group> {
    let mut groups = vec![one_core(extent), two_cores(extent), far(extent, 1)];
    if !extent.short {
        groups.extend([far(extent, 0), far(extent, 5)]);
    }
    groups.extend([mixes(extent), durable(extent)]);
    groups
}

fn one_core(extent: Extent) -> Group {
    let mut whos = vec![Who::Ours, Who::LimitCopy, Who::LimitCopyMany, Who::Psycopg2Executemany, Who::AsyncpgCopy];
    if !extent.short {
        whos.extend([Who::Psycopg2ExecuteValues, Who::Psycopg3Copy, Who::PowertoolsInsert]);
    }
    let cells = SIZES.map(|size| clean(size, extent.batches(size), &whos, extent.rounds()));
    near(Part::OneCore, "One core", Placement::OneCore, cells.into())
}

fn two_cores(extent: Extent) -> Group {
    let mut whos = vec![Who::OursWrite, Who::LimitCopy, Who::LimitCopyMany, Who::Ours];
    if !extent.short {
        whos.extend([Who::Psycopg2Executemany, Who::AsyncpgCopy]);
    }
    let rounds = extent.rounds().max(FULL_ROUNDS);
    let cells = SIZES.map(|size| {
        let mut cell = clean(size, extent.batches(size), &whos, rounds);
        // A wake-up each message: it takes minutes and says no more.
        cell.entrants.retain(|entrant| size < 10_000 || !entrant.who.is_chatty());
        cell
    });
    near(Part::TwoCores, "Two cores", Placement::TwoCores, cells.into())
}

fn far(extent: Extent, millis: u32) -> Group {
    let mut whos = vec![Who::Ours, Who::LimitCopy, Who::Psycopg2Executemany, Who::AsyncpgCopy];
    if !extent.short && millis == 1 {
        whos.extend([Who::Psycopg2ExecuteValues, Who::Psycopg3Copy, Who::PowertoolsInsert]);
    }
    let cell = |size: usize| {
        let mut cell = clean(size, extent.far_batches(size), &whos, extent.rounds());
        cell.entrants.retain(|entrant| is_worth_it(entrant.who, size, millis, extent));
        for entrant in &mut cell.entrants {
            entrant.rounds = far_rounds(*entrant, size, millis, extent);
        }
        cell
    };
    let title = match millis {
        0 => "One core, through the proxy",
        1 => "One core, 1 ms away",
        _ => "One core, 5 ms away",
    };
    Group { trip: Trip::Proxied(millis), ..near(Part::Far, title, Placement::OneCore, SIZES.map(cell).into()) }
}

/// Ten thousand round trips of 5 ms are a minute: one of those contenders, once, tells enough.
fn is_worth_it(who: Who, size: usize, millis: u32, extent: Extent) -> bool {
    let minutes = size >= 10_000 && millis > 0;
    !(minutes && who == Who::PowertoolsInsert || minutes && millis > 1 && (extent.short || who.is_chatty()))
}

fn far_rounds(entrant: Entrant, size: usize, millis: u32, extent: Extent) -> usize {
    let round_trips = if entrant.who.is_chatty() { size * usize::try_from(millis).unwrap_or(0) } else { 0 };
    match round_trips {
        50_000.. => 1,
        10_000.. if extent.short => 1,
        10_000.. => FULL_ROUNDS,
        5_000.. => 3,
        _ => entrant.rounds,
    }
}

fn mixes(extent: Extent) -> Group {
    let peers = if extent.short { &[Who::Psycopg2Executemany, Who::AsyncpgCopy] } else { Who::PEERS.as_slice() };
    let whos = [&[Who::Ours], peers].concat();
    // Row by row, ten thousand take seconds, and say no more than a thousand do.
    let is_worth_it = |who: &Who, size| size < 10_000 || !who.is_chatty();
    let cell = |mix, size| {
        let whos: Vec<Who> = whos.iter().copied().filter(|who| is_worth_it(who, size)).collect();
        Cell { mix, ..clean(size, extent.batches(size), &whos, extent.side_rounds()) }
    };
    let cells = BAD_MIXES.iter().flat_map(|&mix| extent.fewer_sizes().iter().map(move |&size| (mix, size)));
    near(
        Part::Mixes,
        "One core, one message in a hundred is special",
        Placement::OneCore,
        cells.map(|(mix, size)| cell(mix, size)).collect(),
    )
}

fn durable(extent: Extent) -> Group {
    let whos = [Who::Ours, Who::LimitCopy, Who::Psycopg2Executemany, Who::AsyncpgCopy];
    let cell = |&size: &usize| clean(size, extent.batches(size), &whos, extent.side_rounds());
    let cells = extent.fewer_sizes().iter().map(cell).collect();
    Group { durable: true, ..near(Part::Durable, "One core, durable commits", Placement::OneCore, cells) }
}

fn near(part: Part, title: &'static str, placement: Placement, cells: Vec<Cell>) -> Group {
    Group { part, title, durable: false, placement, trip: Trip::Direct, cells }
}

fn clean(size: usize, batches: usize, whos: &[Who], rounds: usize) -> Cell {
    let entrants = whos.iter().map(|&who| Entrant { who, rounds }).collect();
    Cell { size, batches, mix: Mix::Clean, entrants }
}

impl Group {
    /// Who takes part in any cell, each once.
    pub fn whos(&self) -> Vec<Who> {
        let mut whos: Vec<Who> = self.cells.iter().flat_map(|cell| &cell.entrants).map(|entrant| entrant.who).collect();
        whos.sort();
        whos.dedup();
        whos
    }

    /// Seconds that a cell will take, roughly: enough to tell how much is left.
    pub fn estimate(&self, cell: &Cell) -> f64 {
        let millis = match self.trip {
            Trip::Direct => 0.0,
            Trip::Proxied(millis) => f64::from(millis) + 0.1,
        };
        let rows = (cell.size * cell.batches) as f64;
        let seconds = |entrant: &Entrant| {
            let trips = if entrant.who.is_chatty() { rows } else { cell.batches as f64 };
            let row = if entrant.who.is_chatty() { 90e-6 } else { 15e-6 };
            (rows * row + trips * millis / 1e3 + 0.03) * (entrant.rounds + usize::from(entrant.rounds > 1)) as f64
        };
        cell.entrants.iter().map(seconds).sum::<f64>() + rows * 30e-6
    }
}
