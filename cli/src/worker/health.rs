//! A sign of life: a file that the worker touches, and the look at it.

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use clap::Args;

const EVERY: Duration = Duration::from_secs(5);
/// A worker that has not touched its file for so long does not turn any more.
const STALE: Duration = Duration::from_secs(60);

/// Exit with 0 if a worker has touched its health file within the last minute, else with 1
///
/// For the health check of a container. It says that the worker lives, not that the database does: to start the worker anew
/// would not mend that.
#[derive(Args)]
pub struct Options {
    /// The file that the worker was given as --health-file
    #[arg(value_name = "FILE", env = "HEALTH_FILE")]
    file: PathBuf,
}

/// Looks at the file.
pub fn check(options: &Options) -> Result<()> {
    let file = &options.file;
    let touched = fs::metadata(file).and_then(|metadata| metadata.modified());
    let touched = touched.with_context(|| format!("look at {}: no worker has touched it", file.display()))?;
    let age = SystemTime::now().duration_since(touched).unwrap_or_default();
    if age > STALE {
        bail!("the worker has not touched {} for {} s", file.display(), age.as_secs());
    }
    Ok(())
}

/// Touches the file.
pub struct Pulse {
    file: PathBuf,
    last: std::cell::Cell<Instant>,
}

impl Pulse {
    pub fn start(file: &Path) -> Result<Self> {
        touch(file).with_context(|| format!("touch {} (--health-file)", file.display()))?;
        Ok(Self { file: file.to_owned(), last: Instant::now().into() })
    }

    /// Touches it if the last time is a while ago. Should the disk be full, the check will say so soon enough.
    pub fn beat(&self) {
        if self.last.get().elapsed() >= EVERY {
            self.last.set(Instant::now());
            let _ = touch(&self.file);
        }
    }
}

fn touch(file: &Path) -> std::io::Result<()> {
    let file = File::options().create(true).append(true).open(file)?;
    file.set_times(FileTimes::new().set_modified(SystemTime::now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_touched_lately_is_well_and_an_old_or_absent_one_is_not() {
        let file = std::env::temp_dir().join(format!("sqs-etl-pulse-{}", std::process::id()));
        let options = Options { file: file.clone() };
        assert!(check(&options).is_err());
        Pulse::start(&file).unwrap();
        assert!(check(&options).is_ok());
        let old = FileTimes::new().set_modified(SystemTime::now() - STALE * 2);
        File::options().append(true).open(&file).unwrap().set_times(old).unwrap();
        assert!(check(&options).unwrap_err().to_string().contains("has not touched"));
        fs::remove_file(file).unwrap();
    }
}
