//! Where and when the figures were taken: without that they mean nothing.

use std::fs;
use std::process::Command;

use serde::Serialize;

use crate::contender::{python, root};
use crate::placement::Cores;

#[derive(Debug, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_gib: Option<u64>,
    pub kernel: String,
    pub postgres: String,
    pub postgres_settings: String,
    pub rustc: String,
    pub python: String,
    pub commit: String,
    /// UTC, as 2026-01-31.
    pub date: String,
    pub pinned: bool,
    pub debug_build: bool,
}

impl Machine {
    pub fn look(postgres: String, postgres_settings: String, cores: &Cores) -> Self {
        let python = python().map(|path| path.display().to_string()).unwrap_or_default();
        Self {
            cpu: cpu().unwrap_or_else(|| said("uname", &["-m"])),
            cores: cores.count(),
            memory_gib: memory_gib(),
            kernel: said("uname", &["-sr"]),
            postgres,
            postgres_settings,
            rustc: said("rustc", &["--version"]),
            python: said(&python, &["--version"]),
            commit: said("git", &["describe", "--always", "--dirty", "--abbrev=10"]),
            date: said("date", &["-u", "+%Y-%m-%d"]),
            pinned: cores.can_pin(),
            debug_build: cfg!(debug_assertions),
        }
    }

    /// In one line, for captions.
    pub fn line(&self) -> String {
        let Self { cpu, cores, kernel, postgres, date, commit, .. } = self;
        format!("{cpu}, {cores} cores, {kernel}, PostgreSQL {postgres}, {date}, commit {commit}")
    }
}

fn cpu() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory_gib() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kib: u64 = text.lines().next()?.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024 / 1024)
}

/// What a program prints; empty if it does not run.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(root()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}
