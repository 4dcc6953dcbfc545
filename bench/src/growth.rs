//! How the cost of our handler grows: one curve a dimension. Time is that of the whole handler, contender and Postgres on
//! one core; memory is the most that the process ever had.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use serde_json::{Map, Value, json};

use crate::contender::{Contender, Setup, Who};
use crate::curve::{Curve, Measured, Point};
use crate::events::{self, EventFile, Mix};
use crate::measure::{Bench, TABLE};
use crate::placement::Placement;
use crate::plan::Extent;
use crate::protocol::nanos;
use crate::server::{Server, Trip};

/// What Lambda hands over at most.
const EVENT_LIMIT: usize = 6_000_000;
/// Of an event's record, without its body.
const ENVELOPE: usize = 900;
const FILL_STEP: usize = 500_000;

type Measure = fn(&Bench, &mut Server, Extent) -> Result<Curve>;
type Body<'a> = &'a dyn Fn(&mut Rng) -> Map<String, Value>;

/// What is run at one place of a curve.
struct Scene<'a> {
    x: usize,
    table: &'a str,
    contract: Option<PathBuf>,
    size: usize,
    batches: usize,
    body: Body<'a>,
    /// The rows of earlier runs stay.
    keeps_rows: bool,
}

/// Seconds that all curves take, roughly.
pub fn estimate(extent: Extent) -> f64 {
    if extent.short { 15.0 } else { 330.0 }
}

/// All curves.
pub fn all(bench: &mut Bench, server: &mut Server, extent: Extent) -> Result<Vec<Curve>> {
    let (one_core, anywhere) = (Placement::OneCore, Placement::Anywhere);
    let steps: [(Placement, f64, Measure); 6] = [
        (one_core, 0.1, by_batch),
        (one_core, 0.1, by_columns),
        (one_core, 0.15, by_message),
        (anywhere, 0.1, by_processes),
        (anywhere, 0.05, by_pool),
        (one_core, 0.5, by_table),
    ];
    let mut curves = Vec::new();
    for (placement, share, measure) in steps {
        bench.cores.pin_postgres(server.postmaster(), placement);
        curves.push(measure(bench, server, extent)?);
        bench.progress.finish(share * estimate(extent));
    }
    Ok(curves)
}

fn by_batch(bench: &Bench, server: &mut Server, extent: Extent) -> Result<Curve> {
    bench.progress.say("growth with the size of the batch");
    let long = [1, 5, 10, 50, 100, 500, 1_000, 2_000, 5_000, 10_000];
    let sizes: &[usize] = if extent.short { &[1, 10, 100, 1_000, 10_000] } else { &long };
    let scene = |&size: &usize| Scene {
        x: size,
        table: TABLE,
        contract: None,
        size,
        batches: (4_000 / size).clamp(1, 200),
        body: &events::login,
        keeps_rows: false,
    };
    let points = sizes.iter().map(|size| point(bench, server, extent, &scene(size))).collect::<Result<_>>()?;
    Ok(Curve { name: "batch", x: "messages in a batch", points })
}

fn by_columns(bench: &Bench, server: &mut Server, extent: Extent) -> Result<Curve> {
    bench.progress.say("growth with the number of columns");
    let counts: &[usize] = if extent.short { &[1, 20, 200] } else { &[1, 5, 10, 20, 50, 100, 200] };
    let mut points = Vec::new();
    for &count in counts {
        let names: Vec<String> = (1..=count).map(|number| format!("c{number}")).collect();
        let contract = generic_table(bench, server, "bench_columns", &names)?;
        let value = |rng: &mut Rng| json!(events::text(rng, 16));
        let body = |rng: &mut Rng| names.iter().map(|name| (name.clone(), value(rng))).collect();
        let scene = Scene {
            x: count,
            table: "bench_columns",
            contract: Some(contract),
            size: 100,
            batches: 10,
            body: &body,
            keeps_rows: false,
        };
        points.push(point(bench, server, extent, &scene)?);
    }
    Ok(Curve { name: "columns", x: "columns of 16 characters", points })
}

fn by_message(bench: &Bench, server: &mut Server, extent: Extent) -> Result<Curve> {
    bench.progress.say("growth with the size of a message");
    let long = [256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 128 << 10, 255 << 10];
    let lengths: &[usize] = if extent.short { &[256, 16 << 10, 255 << 10] } else { &long };
    let contract = generic_table(bench, server, "bench_message", &["note".to_owned()])?;
    let mut points = Vec::new();
    for &length in lengths {
        let body = |rng: &mut Rng| Map::from_iter([("note".to_owned(), json!(events::text(rng, length)))]);
        let scene = Scene {
            x: length,
            table: "bench_message",
            contract: Some(contract.clone()),
            size: (EVENT_LIMIT / (length + ENVELOPE)).min(100),
            batches: 5,
            body: &body,
            keeps_rows: false,
        };
        points.push(point(bench, server, extent, &scene)?);
    }
    Ok(Curve { name: "message", x: "bytes of a message's text", points })
}

fn by_table(bench: &Bench, server: &mut Server, extent: Extent) -> Result<Curve> {
    let long = [0, 10_000, 100_000, 1_000_000, 3_000_000, 10_000_000];
    let rows: &[usize] = if extent.short { &[0, 100_000] } else { &long };
    server.refill(TABLE, &[])?;
    let mut points = Vec::new();
    for &rows in rows {
        fill(bench, server, rows)?;
        bench.progress.say(&format!("growth with the size of the table: {rows} rows"));
        let (table, body): (_, Body<'_>) = (TABLE, &events::login);
        let scene = Scene { x: rows, table, contract: None, size: 100, batches: 10, body, keeps_rows: true };
        points.push(point(bench, server, extent, &scene)?);
    }
    server.refill(TABLE, &[])?;
    Ok(Curve { name: "table", x: "rows in the table before", points })
}

/// Adds rows to the login table until there are so many, and lets Postgres write them before anybody is measured.
fn fill(bench: &Bench, server: &mut Server, rows: usize) -> Result<()> {
    let mut there = server.rows(TABLE)?;
    while there < rows {
        bench.interrupt.check()?;
        bench.progress.say(&format!("filling the table: {there} of {rows} rows"));
        let step = (rows - there).min(FILL_STEP);
        server.sql(&format!(
            "insert into {TABLE} select gen_random_uuid(), gen_random_uuid()::text, 'android', \
             'k1:' || repeat(md5(n::text), 2), 'k1:' || repeat(md5((-n)::text), 2), 'RU', 2003000, date '2026-01-01' \
             from generate_series({there} + 1, {there} + {step}) as n"
        ))?;
        there += step;
    }
    server.sql("checkpoint")
}

/// A table of text columns and the contract for it.
fn generic_table(bench: &Bench, server: &mut Server, table: &str, columns: &[String]) -> Result<PathBuf> {
    let (mut sql, mut contract) = (String::new(), format!("table = \"{table}\"\n[once]\ncolumn = \"message_id\"\n"));
    for column in columns {
        let _ = write!(sql, ", {column} text");
        let _ = write!(contract, "[columns.{column}]\ntype = \"text\"\n");
    }
    server.sql(&format!("drop table if exists {table}; create table {table} (message_id uuid primary key{sql})"))?;
    let path = bench.folder.join("contract.toml");
    fs::write(&path, contract).context("write a contract")?;
    Ok(path)
}

/// Batches that only tell memory: the first of a connection is inserted, the second is copied.
const FOR_MEMORY: usize = 2;

/// A process of its own, so that its memory is that of this point.
fn point(bench: &Bench, server: &mut Server, extent: Extent, scene: &Scene<'_>) -> Result<Point> {
    let Scene { size, batches, .. } = *scene;
    let contract = scene.contract.clone();
    let setup = Setup { contract, ..Setup::new(server.port(Trip::Direct), server.database()) };
    let start = || Contender::start(Who::Ours, &setup, &bench.interrupt);
    let mut contender = bench.cores.starting(Placement::OneCore, start)?;
    server.note_backends()?;
    let mut measured = Measured::default();
    for round in 0..FOR_MEMORY + extent.growth_rounds() {
        bench.interrupt.check()?;
        let file = file(bench, scene, if round < FOR_MEMORY { 1 } else { batches }, round as u64)?;
        if !scene.keeps_rows {
            server.refill(scene.table, &[])?;
        }
        let backend = server.backend_cpu_ns();
        let tally = contender.run(&file.path)?;
        let backend = backend.and_then(|before| Some(server.backend_cpu_ns()? - before));
        ensure!(tally.stored == file.messages, "stored {} of {} messages", tally.stored, file.messages);
        if !scene.keeps_rows {
            ensure!(server.rows(scene.table)? == file.messages, "not all rows are in the table");
        }
        if round < FOR_MEMORY {
            measured.peak_kib = tally.peak_kib;
        } else {
            measured.add(tally.wall_ns, tally.cpu_ns, backend);
        }
    }
    Ok(measured.point(scene.x, size, batches, 1))
}

/// A file of its own for each round: where rows stay, its ids must be new.
fn file(bench: &Bench, scene: &Scene<'_>, batches: usize, round: u64) -> Result<EventFile> {
    let path = bench.folder.join("growth.jsonl");
    let seed = (scene.x as u64) << 8 | round;
    events::file(&path, batches, scene.size, Mix::Clean, seed, scene.body)
}

fn by_processes(bench: &Bench, server: &mut Server, extent: Extent) -> Result<Curve> {
    bench.progress.say("growth with concurrent functions: processes");
    by_functions(bench, server, extent, false)
}

fn by_pool(bench: &Bench, server: &mut Server, extent: Extent) -> Result<Curve> {
    bench.progress.say("growth with concurrent functions: one process with a pool");
    by_functions(bench, server, extent, true)
}

/// Many functions, each with a connection: processes of their own, or one with a pool.
fn by_functions(bench: &Bench, server: &mut Server, extent: Extent, is_pool: bool) -> Result<Curve> {
    let counts: &[usize] = if extent.short { &[1, 8] } else { &[1, 2, 4, 8, 16, 32, 64] };
    let mut points = Vec::new();
    for &count in counts {
        let (processes, pool_size) = if is_pool { (1, count) } else { (count, 1) };
        let setup = Setup { pool_size, ..Setup::new(server.port(Trip::Direct), server.database()) };
        let start = || Contender::start(Who::Ours, &setup, &bench.interrupt);
        let start = |_| bench.cores.starting(Placement::Anywhere, start);
        let mut contenders = (0..processes).map(start).collect::<Result<Vec<_>>>()?;
        points.push(crowd(bench, server, extent, &mut contenders, count)?);
    }
    let x = if is_pool { "connections of one process's pool" } else { "processes with a connection each" };
    Ok(Curve { name: if is_pool { "pool" } else { "processes" }, x, points })
}

/// The same number of batches in all, whatever the number of those that share them.
fn crowd(bench: &Bench, server: &mut Server, extent: Extent, contenders: &mut [Contender], x: usize) -> Result<Point> {
    let (size, all) = (100, if extent.short { 64 } else { 256 });
    let batches = all / contenders.len();
    let files = (0..contenders.len()).map(|number| {
        let path = bench.folder.join(format!("crowd-{number}.jsonl"));
        events::login_file(&path, batches, size, Mix::Clean, number as u64)
    });
    let files = files.collect::<Result<Vec<_>>>()?;
    let mut measured = Measured::default();
    for round in 0..=extent.growth_rounds() {
        bench.interrupt.check()?;
        server.refill(TABLE, &[])?;
        server.note_backends()?;
        let backend = server.backend_cpu_ns();
        let started = Instant::now();
        for (contender, file) in contenders.iter_mut().zip(&files) {
            contender.order(&file.path)?;
        }
        let tallies = contenders.iter_mut().map(Contender::result).collect::<Result<Vec<_>>>()?;
        let wall = nanos(started.elapsed());
        let backend = backend.and_then(|before| Some(server.backend_cpu_ns()? - before));
        let rows = server.rows(TABLE)?;
        ensure!(rows == batches * contenders.len() * size, "{rows} rows are in the table");
        if round > 0 {
            measured.add(wall, tallies.iter().map(|tally| tally.cpu_ns).sum(), backend);
        }
        measured.peak_kib = tallies.iter().map(|tally| tally.peak_kib).sum();
    }
    for file in files {
        crate::measure::remove(&file.path)?;
    }
    Ok(measured.point(x, size, batches * contenders.len(), x))
}
