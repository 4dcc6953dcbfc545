//! Puts results and pictures where they belong.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::contender::{python, root};
use crate::progress::Progress;
use crate::report::Report;

/// Writes `results.json` and draws the pictures of it: into `target/bench`, or into `docs/bench` to be kept.
pub fn publish(report: &Report, progress: &Progress, save: bool) -> Result<()> {
    let folder = root().join(if save { "docs/bench" } else { "target/bench" });
    fs::create_dir_all(&folder).with_context(|| format!("make the folder {}", folder.display()))?;
    let results = folder.join("results.json");
    fs::write(&results, serde_json::to_vec_pretty(report)?).with_context(|| format!("write {}", results.display()))?;
    progress.say("drawing");
    let script = root().join("bench/draw.py");
    let status =
        Command::new(python()?).arg(script).arg(&results).arg(&folder).status().context("draw the pictures")?;
    ensure!(status.success(), "drawing failed; {} is complete", results.display());
    eprintln!("{} and the pictures beside it are written", results.display());
    Ok(())
}
