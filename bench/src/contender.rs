//! Who is measured, and the process in which each runs: started by the driver, and ended when it is dropped.

use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::Serialize;

use crate::interrupt::Interrupt;
use crate::protocol::{Order, Ready, Tally};

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// Our whole handler.
    Ours,
    /// Our write stage alone.
    OursWrite,
    /// One COPY of ready-made rows, one round trip.
    LimitCopy,
    /// The same rows as COPYs of a hundred, still one round trip.
    LimitCopyMany,
    Psycopg2Executemany,
    Psycopg2ExecuteValues,
    Psycopg3Copy,
    AsyncpgCopy,
    PowertoolsInsert,
}

impl Who {
    pub const PEERS: [Who; 5] = [
        Who::Psycopg2Executemany,
        Who::Psycopg2ExecuteValues,
        Who::Psycopg3Copy,
        Who::AsyncpgCopy,
        Who::PowertoolsInsert,
    ];

    pub fn label(self) -> &'static str {
        match self {
            Who::Ours => "sqs-etl",
            Who::OursWrite => "sqs-etl, write stage",
            Who::LimitCopy => "limit: one COPY, ready-made",
            Who::LimitCopyMany => "limit: COPYs of 100 rows",
            Who::Psycopg2Executemany => "psycopg2 executemany",
            Who::Psycopg2ExecuteValues => "psycopg2 execute_values",
            Who::Psycopg3Copy => "psycopg 3 COPY",
            Who::AsyncpgCopy => "asyncpg COPY",
            Who::PowertoolsInsert => "Powertools, insert a record",
        }
    }

    /// The module of `bench/peers`, if it is one in Python.
    fn module(self) -> Option<&'static str> {
        match self {
            Who::Psycopg2Executemany => Some("psycopg2_executemany"),
            Who::Psycopg2ExecuteValues => Some("psycopg2_execute_values"),
            Who::Psycopg3Copy => Some("psycopg3_copy"),
            Who::AsyncpgCopy => Some("asyncpg_copy"),
            Who::PowertoolsInsert => Some("powertools_insert"),
            Who::Ours | Who::OursWrite | Who::LimitCopy | Who::LimitCopyMany => None,
        }
    }

    /// Whether each row makes a round trip of its own, so that a large batch far away takes minutes.
    pub fn is_chatty(self) -> bool {
        matches!(self, Who::Psycopg2Executemany | Who::PowertoolsInsert)
    }

    /// Whether it promises to store good rows beside bad ones, and nothing twice.
    pub fn must_not_fail(self) -> bool {
        matches!(self, Who::Ours | Who::OursWrite)
    }
}

/// What a contender is told at its start.
#[derive(Clone, Debug)]
pub struct Setup {
    pub port: u16,
    pub database: String,
    pub pool_size: usize,
    pub contract: Option<PathBuf>,
}

impl Setup {
    pub fn new(port: u16, database: &str) -> Self {
        Self { port, database: database.to_owned(), pool_size: 1, contract: None }
    }
}

/// A contender's process, connected to the database.
pub struct Contender {
    pub who: Who,
    /// What it is made of.
    pub version: String,
    process: Process,
}

struct Process {
    child: Child,
    orders: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
    interrupt: Interrupt,
}

impl Contender {
    pub fn start(who: Who, setup: &Setup, interrupt: &Interrupt) -> Result<Self> {
        let mut process = Process::start(who, setup, interrupt).with_context(|| format!("start {}", who.label()))?;
        let ready: Ready = process.answer().with_context(|| format!("{} did not start", who.label()))?;
        Ok(Self { who, version: ready.ready, process })
    }

    /// Lets it handle the events of a file, one after the other.
    pub fn run(&mut self, events: &Path) -> Result<Tally> {
        self.order(events)?;
        self.result()
    }

    /// Starts a run without waiting for its end.
    pub fn order(&mut self, events: &Path) -> Result<()> {
        self.process.order(events).with_context(|| format!("{} takes no orders", self.who.label()))
    }

    /// Waits for the end of the run that was ordered.
    pub fn result(&mut self) -> Result<Tally> {
        self.process.answer().with_context(|| format!("{} died", self.who.label()))
    }
}

impl Process {
    fn start(who: Who, setup: &Setup, interrupt: &Interrupt) -> Result<Self> {
        interrupt.check()?;
        let mut command = command(who)?;
        let Setup { port, database, pool_size, contract } = setup;
        command
            .env("DATABASE_URL", format!("postgresql://postgres:postgres@127.0.0.1:{port}/{database}?sslmode=disable"))
            .env("MASKING_KEY", "for-local-use-only-0123456789abcdef")
            .env("DB_POOL_SIZE", pool_size.to_string())
            .env("AWS_REGION", "eu-central-1")
            .env_remove("RUST_LOG")
            .env_remove("CONTRACT_PATH")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0);
        if let Some(contract) = contract {
            command.env("CONTRACT_PATH", contract);
        }
        let mut child = command.spawn().with_context(|| format!("run {}", command.get_program().display()))?;
        interrupt.watch(child.id());
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("its standard output is ours")?).lines();
        Ok(Self { child, orders, answers, interrupt: interrupt.clone() })
    }

    fn order(&mut self, events: &Path) -> Result<()> {
        let mut line = serde_json::to_vec(&Order { run: events.display().to_string() })?;
        line.push(b'\n');
        Ok(self.orders.as_mut().context("its standard input is ours")?.write_all(&line)?)
    }

    fn answer<T: serde::de::DeserializeOwned>(&mut self) -> Result<T> {
        let line = self.answers.next();
        self.interrupt.check()?;
        let line = line.context("it ended without an answer; what it says stands above")??;
        serde_json::from_str(&line).with_context(|| format!("it answered {line}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.interrupt.forget(self.child.id());
        drop(self.orders.take());
        // One in the middle of a run would go on with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(who: Who) -> Result<Command> {
    let Some(module) = who.module() else {
        let mut command = Command::new(std::env::current_exe().context("find our own program")?);
        command.arg("contender").arg(who.to_possible_value().expect("no name is hidden").get_name());
        return Ok(command);
    };
    let mut command = Command::new(python()?);
    command.arg(root().join("bench/peers/peer.py")).arg(module);
    Ok(command)
}

/// The interpreter that has the peers' packages.
pub fn python() -> Result<PathBuf> {
    let python = match std::env::var_os("BENCH_PYTHON") {
        Some(python) => python.into(),
        None => root().join(".tools/bench/bin/python"),
    };
    ensure!(
        python.is_file(),
        "there is no {}: `make bench` gets it with the packages of bench/requirements.txt",
        python.display()
    );
    Ok(python)
}

/// The source tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}
