//! Ties what we start to our own life: when this process ends in any way, `kill -9` included, a
//! small shell that holds the other end of a pipe cleans up after it. It does not supervise: as
//! long as we live it only sleeps.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A line on the pipe says "all in order"; the end of the pipe without one says that we are dead.
const WAIT: &str = "trap '' HUP INT QUIT TERM; read -r _ && exit 0; ";

/// The form with `-s` is the only one in which dash takes a group.
const KILL_GROUP: &str = r#"kill -s KILL -- "-$1""#;

/// Removes the folder twice, because an `initdb` that we left behind may still be writing.
const END_CLUSTER: &str = r#"
pid_file=$1/data/postmaster.pid
pid=$(head -n 1 "$pid_file" 2>/dev/null)
if [ -n "$pid" ]; then
    kill -s QUIT "$pid"
    tries=100
    while [ -e "$pid_file" ] && kill -0 "$pid"; do
        tries=$((tries - 1))
        if [ "$tries" = 0 ]; then kill -s KILL "$pid"; break; fi
        sleep 0.1
    done
fi
rm -rf "$1"
sleep 1
rm -rf "$1""#;

/// A watcher over one thing. Dropped without [`Tether::release`], it acts.
#[derive(Debug)]
pub(crate) struct Tether {
    watcher: Child,
}

impl Tether {
    /// Kills the process group `group` when we are gone.
    pub(crate) fn to_group(group: u32) -> io::Result<Self> {
        Self::watch(KILL_GROUP, group.to_string().as_ref())
    }

    /// Stops the Postgres cluster in `folder` and removes the folder when we are gone.
    pub(crate) fn to_cluster(folder: &Path) -> io::Result<Self> {
        Self::watch(END_CLUSTER, folder)
    }

    fn watch(last_will: &str, argument: &Path) -> io::Result<Self> {
        let watcher = Command::new("/bin/sh")
            .args(["-c", &format!("{WAIT}{last_will}"), "sqs-etl-tether"])
            .arg(argument)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A group of its own: Ctrl-C at the terminal must not reach it.
            .process_group(0)
            .spawn()?;
        Ok(Self { watcher })
    }

    /// Lets go: what was watched has ended, or shall outlive us.
    pub(crate) fn release(mut self) {
        if let Some(mut pipe) = self.watcher.stdin.take() {
            // A watcher that is gone has nothing left to be told.
            let _ = pipe.write_all(b"\n");
        }
        let _ = self.watcher.wait();
    }
}
