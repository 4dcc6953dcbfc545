//! The running server of a cluster: started, awaited, stopped, killed. Not its folder or settings.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::cluster::Cluster;

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(2);

/// Why a server did not start, as far as the caller decides on it.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error("port {0} is taken")]
    PortTaken(u16),
    #[error("the processes of the crashed server are not all gone")]
    StillInUse,
    #[error("postgres did not start; its log says:\n{0}")]
    Failed(String),
    #[error("could not run postgres")]
    Io(#[from] io::Error),
}

/// The postmaster, as a child of ours. Dropping it does not stop it.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
}

impl Server {
    /// Starts the server and waits until it takes connections.
    pub(super) fn start(cluster: &Cluster, port: u16) -> Result<Self, StartError> {
        let log = fs::OpenOptions::new().create(true).append(true).open(cluster.log_file())?;
        let log_so_far = cluster.log().len();
        let child = cluster
            .command("postgres")
            .arg("-D")
            .arg(cluster.data())
            .args(["-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        let mut server = Self { child };
        let deadline = Instant::now() + START_LIMIT;
        while !server.is_ready(&cluster.pid_file()) {
            if let Some(status) = server.child.try_wait()? {
                return Err(why_it_ended(&cluster.log()[log_so_far..], status, port));
            }
            if Instant::now() > deadline {
                server.stop(Signal::QUIT)?;
                return Err(StartError::Failed(cluster.log()));
            }
            sleep(POLL);
        }
        Ok(server)
    }

    /// The first line of the pid file is whose it is (a crashed server leaves one behind), the
    /// eighth what the server is doing.
    fn is_ready(&self, pid_file: &Path) -> bool {
        let Ok(text) = fs::read_to_string(pid_file) else {
            return false;
        };
        let mut lines = text.lines();
        lines.next() == Some(self.child.id().to_string().as_str())
            && lines.nth(6).is_some_and(|status| status.trim() == "ready")
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends `signal` and waits for the end; `INT` is the orderly stop, `QUIT` the immediate one.
    /// A server that does not heed it within 20 seconds is killed.
    pub(super) fn stop(mut self, signal: Signal) -> io::Result<()> {
        kill_process(pid_of(self.child.id()), signal)?;
        let deadline = Instant::now() + STOP_LIMIT;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                self.child.kill()?;
            }
            sleep(POLL);
        }
        Ok(())
    }

    /// `kill -9` for the postmaster and all its children, as when the machine's memory runs out.
    /// It is stopped first, so that it forks no more while we list its children.
    pub(super) fn crash(mut self) -> Result<()> {
        let postmaster = self.child.id();
        kill_process(pid_of(postmaster), Signal::STOP).context("stop the postmaster")?;
        let children = children_of(postmaster)?;
        self.child.kill().context("kill the postmaster")?;
        for child in &children {
            // One that ended by itself meanwhile is as good as killed.
            let _ = kill_process(pid_of(*child), Signal::KILL);
        }
        self.child.wait().context("wait for the postmaster")?;
        let deadline = Instant::now() + STOP_LIMIT;
        while children.iter().any(|child| is_alive(*child)) && Instant::now() < deadline {
            sleep(POLL);
        }
        Ok(())
    }
}

fn why_it_ended(log: &str, status: ExitStatus, port: u16) -> StartError {
    if log.contains("could not create any TCP/IP sockets") {
        StartError::PortTaken(port)
    } else if log.contains("is still in use") {
        StartError::StillInUse
    } else {
        StartError::Failed(format!("{}\n({status})", log.trim()))
    }
}

fn pid_of(number: u32) -> Pid {
    let number = i32::try_from(number).expect("a process id fits 31 bits");
    Pid::from_raw(number).expect("no child of ours has the process id 0")
}

/// From `/proc` where there is one, else from `ps`: a slim container has no `ps`, a Mac no `/proc`.
fn children_of(parent: u32) -> Result<Vec<u32>> {
    let family = match fs::read_dir("/proc/self") {
        Ok(_) => family_from_proc()?,
        Err(_) => family_from_ps()?,
    };
    Ok(family.into_iter().filter(|(_, of)| *of == parent).map(|(child, _)| child).collect())
}

/// Every process with its parent.
fn family_from_proc() -> Result<Vec<(u32, u32)>> {
    let processes = fs::read_dir("/proc").context("list /proc")?;
    let numbers = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(numbers.filter_map(|process| Some((process, stat_of(process)?.1))).collect())
}

/// State and parent. The name before them is in parentheses and may hold anything.
fn stat_of(process: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn family_from_ps() -> Result<Vec<(u32, u32)>> {
    let listed = Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output().context("run ps")?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let numbers = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    Ok(text.lines().filter_map(numbers).collect())
}

/// A zombie is dead: in a container it may stay one for good.
fn is_alive(process: u32) -> bool {
    match stat_of(process) {
        Some((state, _)) => state != 'Z',
        None => !Path::new("/proc/self").exists() && rustix::process::test_kill_process(pid_of(process)).is_ok(),
    }
}
