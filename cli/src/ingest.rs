//! Finds the function's binary, or has cargo build it.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;

use crate::interrupt::Interrupt;

const NAME: &str = "ingest";
const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");

/// How the binary was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Profile {
    Debug,
    Release,
    Other(String),
}

/// The function's binary.
#[derive(Debug)]
pub struct Ingest {
    pub path: PathBuf,
    /// None for a binary of which only the path was told.
    pub profile: Option<Profile>,
}

impl Profile {
    /// Our own, as the name of our folder has it.
    pub fn ours() -> Self {
        let exe = env::current_exe().unwrap_or_default();
        Self::of_folder(exe.parent().unwrap_or(Path::new("")))
    }

    fn of_folder(folder: &Path) -> Self {
        match folder.file_name().and_then(|name| name.to_str()) {
            Some("debug") => Self::Debug,
            Some(name) if name != "release" && is_cargo_run() => Self::Other(name.to_owned()),
            _ => Self::Release,
        }
    }

    /// What cargo has to be told. Features come together from all packages that are built: for debugging and tests they
    /// are those of `cargo test --workspace`, so that nothing is compiled twice; otherwise those of what is deployed.
    fn arguments(&self) -> Vec<&str> {
        match self {
            Self::Debug => vec!["--workspace"],
            Self::Release => vec!["--package", "sqs-etl", "--release"],
            Self::Other(name) => vec!["--package", "sqs-etl", "--profile", name],
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debug => "debug",
            Self::Release => "release",
            Self::Other(name) => name,
        })
    }
}

/// Whether `cargo run` or `cargo test` started us, in the source tree that we were built from.
pub fn is_cargo_run() -> bool {
    cargo().is_some()
}

fn cargo() -> Option<OsString> {
    env::var_os("CARGO").filter(|_| Path::new(MANIFEST).is_file())
}

/// The binary that was told; else, under cargo, a fresh one; else the one beside our own.
pub fn find(told: Option<&Path>, profile: Profile, interrupt: &Interrupt) -> Result<Ingest> {
    if let Some(told) = told {
        if !told.is_file() {
            bail!("there is no file {} (--ingest)", told.display());
        }
        return Ok(Ingest { path: told.to_owned(), profile: None });
    }
    let path = match cargo() {
        Some(cargo) => build(&cargo, &profile, interrupt)?,
        None => beside_us(&profile)?,
    };
    Ok(Ingest { path, profile: Some(profile) })
}

fn beside_us(profile: &Profile) -> Result<PathBuf> {
    let exe = env::current_exe().context("find our own executable")?;
    let beside = exe.with_file_name(NAME);
    let folder = exe.parent().unwrap_or(Path::new("."));
    if Profile::of_folder(folder) == *profile && beside.is_file() {
        return Ok(beside);
    }
    // target/debug/sqs-etl finds target/release/ingest.
    let sibling = folder.with_file_name(profile.to_string()).join(NAME);
    if sibling.is_file() {
        return Ok(sibling);
    }
    bail!(
        "no function: there is no {} and no {}; build one with `cargo build {} --bin {NAME}`, or name one \
         with --ingest PATH",
        beside.display(),
        sibling.display(),
        profile.arguments().join(" "),
    )
}

/// Cargo knows best where it puts a binary: it is asked, not guessed.
fn build(cargo: &OsString, profile: &Profile, interrupt: &Interrupt) -> Result<PathBuf> {
    let mut command = Command::new(cargo);
    for (name, _) in env::vars_os().filter(|(name, _)| is_about_us(name)) {
        command.env_remove(name);
    }
    let mut child = command
        .args(["build", "--bin", NAME, "--message-format", "json-render-diagnostics"])
        .args(["--manifest-path", MANIFEST])
        .args(profile.arguments())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        // So that its compilers end with it.
        .process_group(0)
        .spawn()
        .with_context(|| format!("run {} build", cargo.display()))?;
    let messages = read_or_stop(&mut child, interrupt).context("listen to cargo")?;
    let status = child.wait().context("wait for cargo")?;
    interrupt.check()?;
    if !status.success() {
        bail!("cargo could not build the function: see above");
    }
    let mut executables = messages.lines().filter_map(|line| serde_json::from_str::<Artifact>(line).ok()?.executable);
    executables.next_back().context("cargo built no executable")
}

/// Variables by which cargo tells us about ourselves. Some build scripts would run anew for them.
fn is_about_us(variable: &OsString) -> bool {
    let about_us = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_NAME", "CARGO_TARGET_TMPDIR"];
    variable.to_str().is_some_and(|name| about_us.iter().any(|prefix| name.starts_with(prefix)))
}

/// What cargo says of each thing that it built.
#[derive(Deserialize)]
struct Artifact {
    executable: Option<PathBuf>,
}

/// Ctrl-C does not reach another process group, SIGTERM only us, and a build may take minutes: pass it on.
fn read_or_stop(child: &mut Child, interrupt: &Interrupt) -> Result<String> {
    let mut stdout = child.stdout.take().context("cargo has no stdout")?;
    let reader = thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let cargo = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    while !reader.is_finished() {
        if let (true, Some(cargo)) = (interrupt.is_raised(), cargo) {
            // It may be ending by itself this moment.
            let _ = kill_process_group(cargo, Signal::TERM);
        }
        thread::park_timeout(std::time::Duration::from_millis(20));
    }
    Ok(reader.join().expect("reading does not panic")?)
}
