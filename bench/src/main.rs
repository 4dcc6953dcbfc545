//! `make bench`: the function, its peers in Python and Postgres's own limits side by side, on this machine.

mod contender;
mod curve;
mod events;
mod growth;
mod interrupt;
mod limits;
mod machine;
mod measure;
mod memory;
mod ours;
mod pgbench;
mod picture;
mod placement;
mod plan;
mod progress;
mod protocol;
mod report;
mod server;
mod stats;
mod targets;
mod trips;
mod wire;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

use contender::{Who, python, root};
use interrupt::Interrupt;
use limits::Division;
use machine::Machine;
use measure::{Bench, Measurement};
use ours::Function;
use placement::Cores;
use plan::{Extent, Group, Part};
use progress::Progress;
use report::Report;
use server::Server;

const PGBENCH_SECONDS: f64 = 4.0;

/// Measure the function, its peers in Python and Postgres's own limits side by side, on this machine
///
/// Prints tables and the targets, writes target/bench/results.json and pictures. About 15 minutes on an idle machine;
/// the short form takes under 2.
#[derive(Parser)]
#[command(name = "sqs-etl-bench", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// Fewer rounds, contenders and sizes, for a first look
    #[arg(long)]
    short: bool,
    /// Put the pictures into docs/bench, to be kept, instead of target/bench
    #[arg(long)]
    save: bool,
    /// Measure nothing else; may be given several times
    #[arg(long, value_enum, value_name = "PART")]
    only: Vec<Part>,
}

#[derive(Subcommand)]
enum Role {
    /// One that is measured, started by the driver
    #[command(hide = true)]
    Contender { who: Who },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.role {
        Some(Role::Contender { who }) => contend(who),
        None => drive(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Serves the driver until it goes away.
fn contend(who: Who) -> Result<()> {
    let mut answers = protocol::take_output()?;
    let version = format!("sqs-etl {}", env!("CARGO_PKG_VERSION"));
    let division = match who {
        Who::Ours => return protocol::serve(&mut answers, &version, Function::start()?.into_handler()),
        Who::OursWrite => return protocol::serve(&mut answers, &version, Function::start()?.into_writer()),
        Who::LimitCopy => Division::OneCopy,
        Who::LimitCopyMany => Division::ManyCopies,
        _ => bail!("{} is not written in Rust", who.label()),
    };
    let url = std::env::var("DATABASE_URL").context("DATABASE_URL")?;
    let mut wire = wire::Wire::connect_to_url(&url)?;
    limits::prepare(&mut wire)?;
    protocol::serve(&mut answers, "COPY by hand", |events| limits::run(&mut wire, division, &events))
}

fn drive(arguments: &Arguments) -> Result<()> {
    let extent = Extent { short: arguments.short };
    let wants = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    let groups: Vec<Group> = plan::groups(extent).into_iter().filter(|group| wants(group.part)).collect();
    python()?;
    let cores = Cores::find();
    cores.pin_driver();
    let total = estimate(&groups, extent, &wants);
    let (interrupt, folder) = (Interrupt::listen()?, Folder::make()?);
    let mut bench = Bench { cores, interrupt, progress: Progress::new(total), folder: folder.0.clone() };
    if !bench.cores.can_pin() {
        bench.progress.say("there are no two cores to choose of: processes are not pinned");
    }
    let mut server = Server::start(false, &bench.cores)?;
    let machine = Machine::look(server.version()?, Server::settings(), &bench.cores);
    let mut measurements = Vec::new();
    for group in groups.iter().filter(|group| !group.durable) {
        measure::group(&mut bench, &mut server, group, &mut measurements)?;
    }
    let single_rows = if wants(Part::Pgbench) { pgbench::run(&bench, &mut server)? } else { None };
    let memory = if wants(Part::Memory) { memory::peaks(&mut bench, &mut server, extent)? } else { Vec::new() };
    let trips = if wants(Part::Trips) { trips::count(&mut bench, &mut server, extent)? } else { Vec::new() };
    let curves = if wants(Part::Growth) { growth::all(&mut bench, &mut server, extent)? } else { Vec::new() };
    drop(server);
    measure_durable(&mut bench, &groups, &mut measurements)?;
    let ours = memory.iter().find(|(label, _)| *label == Who::Ours.label());
    let targets = targets::all(&measurements, &trips, ours.map(|(_, kib)| *kib as f64 / 1024.0));
    let seconds = bench.progress.elapsed();
    let short = arguments.short;
    let report = Report { machine, short, seconds, targets, measurements, single_rows, memory, trips, curves };
    println!("{}", report.text(&groups));
    picture::publish(&report, &bench.progress, arguments.save)
}

/// Commits that wait for the disk need another server.
fn measure_durable(bench: &mut Bench, groups: &[Group], measurements: &mut Vec<Measurement>) -> Result<()> {
    for group in groups.iter().filter(|group| group.durable) {
        let mut server = Server::start(true, &bench.cores)?;
        measure::group(bench, &mut server, group, measurements)?;
    }
    Ok(())
}

/// Seconds that all of it takes, roughly.
fn estimate(groups: &[Group], extent: Extent, wants: &dyn Fn(Part) -> bool) -> f64 {
    let cells = groups.iter().flat_map(|group| group.cells.iter().map(|cell| group.estimate(cell)));
    let parts = [
        (Part::Pgbench, PGBENCH_SECONDS),
        (Part::Memory, memory::estimate(extent)),
        (Part::Trips, trips::estimate(extent)),
        (Part::Growth, growth::estimate(extent)),
    ];
    cells.sum::<f64>() + parts.iter().filter(|(part, _)| wants(*part)).map(|(_, seconds)| seconds).sum::<f64>()
}

/// A folder for events, removed with all that is in it.
struct Folder(PathBuf);

impl Folder {
    fn make() -> Result<Self> {
        let folder = root().join(format!("target/bench/events-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("make the folder {}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left lies in `target`, which `make clean` removes.
        let _ = fs::remove_dir_all(&self.0);
    }
}
