//! What the driver and a contender say to each other: JSON lines on the contender's standard input and output. Here is the
//! contender's side for those in Rust; `bench/peers/peer.py` is the same in Python.

use std::fs::{self, File};
use std::io::{self, BufRead, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Asks for one run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// A file of events, one a line.
    pub run: String,
}

/// The first line of a contender: it is connected, and what it is made of.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ready {
    pub ready: String,
}

/// What a run took and brought, as the contender believes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// From the event's bytes to the response's, all batches of the run.
    pub wall_ns: u64,
    /// Of the contender's process in that time, the kernel's part included.
    pub cpu_ns: u64,
    /// Messages that it did not hand back.
    pub stored: usize,
    pub failed: usize,
    /// The kind of the first error that failed a whole batch.
    pub error: Option<String>,
    /// The most memory that the process ever had, in KiB; Linux only.
    pub peak_kib: Option<u64>,
}

/// Measures one run.
pub struct Clock {
    wall: Instant,
    cpu: Duration,
}

impl Clock {
    pub fn start() -> Self {
        Self { cpu: cpu_time(), wall: Instant::now() }
    }

    /// Wall and CPU time so far, in nanoseconds.
    pub fn read(&self) -> (u64, u64) {
        let wall = self.wall.elapsed();
        (nanos(wall), nanos(cpu_time().saturating_sub(self.cpu)))
    }
}

pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Takes the answers' way out of standard output, which from now on leads nowhere: log lines are written as on Lambda,
/// and nobody reads them.
pub fn take_output() -> Result<File> {
    let answers = io::stdout().as_fd().try_clone_to_owned().context("keep standard output")?;
    let nowhere = File::create("/dev/null").context("open /dev/null")?;
    rustix::stdio::dup2_stdout(&nowhere).context("turn standard output away")?;
    Ok(answers.into())
}

/// Answers orders until the driver goes away. `run` is given the events' bytes and fills in all but `peak_kib`.
pub fn serve(answers: &mut File, ready: &str, mut run: impl FnMut(Vec<Vec<u8>>) -> Result<Tally>) -> Result<()> {
    say(answers, &Ready { ready: ready.to_owned() })?;
    for line in io::stdin().lock().lines() {
        let order: Order = serde_json::from_str(&line?).context("read an order")?;
        let events = load(&order.run)?;
        let tally = run(events)?;
        say(answers, &Tally { peak_kib: peak_kib(), ..tally })?;
    }
    Ok(())
}

/// A line at a time, so that the file's text is not in memory twice.
fn load(path: &str) -> Result<Vec<Vec<u8>>> {
    let file = File::open(path).with_context(|| format!("open {path}"))?;
    io::BufReader::new(file).split(b'\n').collect::<io::Result<_>>().with_context(|| format!("read {path}"))
}

fn say(answers: &mut File, message: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    answers.write_all(&line).context("answer the driver")
}

fn peak_kib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}
