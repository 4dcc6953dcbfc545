//! Puts results and pictures where they belong.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::contender::{python, root};
use crate::progress::Progress;
use crate::report::Report;

/// Writes `target/bench/results.json`, and draws the pictures of it beside it, or into `docs/bench` to be kept.
pub fn publish(report: &Report, progress: &Progress, save: bool) -> Result<()> {
    let target = folder("target/bench")?;
    let pictures = if save { folder("docs/bench")? } else { target.clone() };
    let results = target.join("results.json");
    fs::write(&results, serde_json::to_vec_pretty(report)?).with_context(|| format!("write {}", results.display()))?;
    progress.say("drawing");
    let script = root().join("bench/draw.py");
    let mut draw = Command::new(python()?);
    let status = draw.arg(script).arg(&results).arg(&pictures).status().context("draw the pictures")?;
    ensure!(status.success(), "drawing failed; {} is complete", results.display());
    eprintln!("{} is written, the pictures are in {}", results.display(), pictures.display());
    Ok(())
}

fn folder(name: &str) -> Result<PathBuf> {
    let folder = root().join(name);
    fs::create_dir_all(&folder).with_context(|| format!("make the folder {}", folder.display()))?;
    Ok(folder)
}
