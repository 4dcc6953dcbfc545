//! PgBouncer in front of a temporary server, in transaction mode: whoever keeps something in a session, a prepared
//! statement or a setting, loses it there. Not a pool for anything else.

use std::env;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::{SUPERUSER, SUPERUSER_PASSWORD, TempPostgres};
use crate::tether::Tether;

const START_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

/// PgBouncer on a free port of 127.0.0.1. Dropped, it stops; should we die, it stops too.
#[derive(Debug)]
pub struct Pooler {
    child: Child,
    port: u16,
    _tether: Tether,
}

impl TempPostgres {
    /// Starts a pooler that has `sessions` sessions with the server for each database and user, handed from transaction to
    /// transaction.
    pub fn pooler(&self, sessions: usize) -> Result<Pooler> {
        let program = program()?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let users = self.cluster.folder.join(format!("pooler-{port}-users"));
        let settings = self.cluster.folder.join(format!("pooler-{port}.ini"));
        self.cluster.write_private(&users, &format!("\"{SUPERUSER}\" \"{SUPERUSER_PASSWORD}\"\n"))?;
        let text = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\n\
             default_pool_size = {sessions}\n",
            self.port,
            users.display()
        );
        self.cluster.write_private(&settings, &text)?;
        let mut command = self.cluster.program(&program);
        let child = command.arg(&settings).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = child.process_group(0).spawn().context("run pgbouncer")?;
        let tether = Tether::to_group(child.id()).context("tie pgbouncer to our life")?;
        let mut pooler = Pooler { child, port, _tether: tether };
        pooler.wait_until_ready()?;
        Ok(pooler)
    }
}

impl Pooler {
    /// The port to connect to instead of the server's.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("pgbouncer ended at once ({status})");
            }
            if Instant::now() > deadline {
                bail!("pgbouncer takes no connections");
            }
            sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // If it is gone already, so much the better.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Debian has it in /usr/sbin, which is not on everyone's PATH.
fn program() -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin".into(), "/opt/homebrew/bin".into()]);
    let mut programs = folders.map(|folder| folder.join("pgbouncer"));
    programs.find(|program| program.is_file()).context("no pgbouncer on this machine: run scripts/get-pgbouncer")
}
