//! A temporary real PostgreSQL server, from programs already on the machine. Not an imitation, not
//! a container, and not a place to keep data.
//!
//! Everything here blocks, and may be called from an async test as well as from a plain one.

mod binaries;
mod certificates;
mod cluster;
mod pooler;
mod server;

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

use crate::background;
use crate::tether::Tether;

use certificates::Certificates;
use cluster::{Cluster, Settings};
pub use pooler::Pooler;
use server::{Server, StartError};

/// The superuser of every temporary cluster.
pub const SUPERUSER: &str = "postgres";
/// The superuser's password.
pub const SUPERUSER_PASSWORD: &str = "postgres";

const PORTS_TRIED: usize = 10;
const RESTART_LIMIT: Duration = Duration::from_secs(20);

/// A Postgres server of our own on a free port of 127.0.0.1, with passwords (SCRAM) and its data in
/// a temporary folder. Server and folder go away when this is dropped, and also when the process
/// dies in any other way, `kill -9` included.
pub struct TempPostgres {
    cluster: Cluster,
    port: u16,
    certificates: Option<Certificates>,
    databases: AtomicU32,
    /// None while it is stopped or crashed.
    server: Option<Server>,
    /// None once it is kept.
    tether: Option<Tether>,
}

/// How a [`TempPostgres`] shall be.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    tls_names: Option<Vec<String>>,
    durable: bool,
    lines: Vec<String>,
    tools: Option<PathBuf>,
}

impl Builder {
    /// TLS only: plain TCP is refused. The server's certificate is good for `names`, DNS names or IP
    /// addresses, and is signed by the authority of [`TempPostgres::ca_pem`].
    pub fn tls(mut self, names: &[&str]) -> Self {
        self.tls_names = Some(names.iter().map(|name| (*name).to_owned()).collect());
        self
    }

    /// Flush every commit to the disk, as a real server does. Off by default: tests do not pull the
    /// plug. A commit outlives [`TempPostgres::crash`] either way.
    pub fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// Adds a line to `postgresql.conf`, such as `log_statement = 'all'`. It wins over ours.
    pub fn conf(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }

    /// A folder in which `scripts/get-postgres` has put a `postgres/bin`. By default the one that
    /// `SQS_ETL_TOOLS` names, then `.tools` at the root of the source tree.
    pub fn tools(mut self, folder: impl Into<PathBuf>) -> Self {
        self.tools = Some(folder.into());
        self
    }

    /// Makes the cluster and waits until the server takes connections: about a second.
    pub fn start(self) -> Result<TempPostgres> {
        let certificates = self.tls_names.as_deref().map(Certificates::for_names).transpose()?;
        let cluster = Cluster::plan(self.tools.as_deref())?;
        let tether = Tether::to_cluster(&cluster.folder).context("start the tether")?;
        // From here on, dropping `postgres` removes the folder, whatever goes wrong.
        let mut postgres = TempPostgres {
            cluster,
            port: 0,
            certificates,
            databases: AtomicU32::new(0),
            server: None,
            tether: Some(tether),
        };
        postgres.cluster.initialise(&Settings {
            durable: self.durable,
            certificates: postgres.certificates.as_ref(),
            lines: &self.lines,
        })?;
        postgres.start_on_a_free_port()?;
        Ok(postgres)
    }
}

impl TempPostgres {
    /// A server with the defaults: no TLS, not durable.
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    /// A server with options.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// `postgres://postgres:postgres@127.0.0.1:PORT/database`: the superuser.
    pub fn url(&self, database: &str) -> String {
        self.url_as(SUPERUSER, SUPERUSER_PASSWORD, database)
    }

    /// The same for another user. Reserved characters are percent-encoded.
    pub fn url_as(&self, user: &str, password: &str, database: &str) -> String {
        let [user, password, database] = [user, password, database].map(percent_encode);
        format!("postgres://{user}:{password}@{}:{}/{database}", Ipv4Addr::LOCALHOST, self.port)
    }

    /// The TCP port on 127.0.0.1. It stays the same over a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder that holds everything of this cluster, its Unix socket included.
    pub fn dir(&self) -> &Path {
        &self.cluster.folder
    }

    /// The process id of the postmaster, if the server runs.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Server::pid)
    }

    /// All that the server has written to its log.
    pub fn log(&self) -> String {
        self.cluster.log()
    }

    /// The authority that signed the server's certificate, as PEM; `None` without TLS.
    pub fn ca_pem(&self) -> Option<&str> {
        self.certificates.as_ref().map(|certificates| certificates.ca.as_str())
    }

    /// An authority that signed nothing, as PEM: a client that trusts only this one must refuse the
    /// server. `None` without TLS.
    pub fn unrelated_ca_pem(&self) -> Option<&str> {
        self.certificates.as_ref().map(|certificates| certificates.unrelated_ca.as_str())
    }

    /// Creates an empty database and returns its name, new within this cluster.
    pub fn create_database(&self) -> Result<String> {
        let name = format!("db_{}", self.databases.fetch_add(1, Ordering::Relaxed) + 1);
        self.sql("postgres", &format!("create database {name}"))?;
        Ok(name)
    }

    /// Runs statements as the superuser and returns all rows as text. It goes over the Unix socket,
    /// so it needs no TLS and does not pass a proxy.
    pub fn sql(&self, database: &str, statements: &str) -> Result<Vec<Vec<Option<String>>>> {
        let mut config = Config::new();
        config
            .host_path(&self.cluster.folder)
            .port(self.port)
            .user(SUPERUSER)
            .password(SUPERUSER_PASSWORD)
            .dbname(database);
        background::wait_for(run_statements(config, statements.to_owned()))
    }

    /// Kills every process of the server with `kill -9`. [`TempPostgres::restart`] recovers it.
    pub fn crash(&mut self) -> Result<()> {
        let server = self.server.take().context("the server is not running")?;
        server.crash()?;
        // Every process is gone, so nobody owns it; its process id may soon be somebody else's.
        fs::remove_file(self.cluster.pid_file()).context("remove the crashed server's pid file")
    }

    /// Stops the server in an orderly way; open connections are closed. The data stays.
    pub fn stop(&mut self) -> Result<()> {
        let server = self.server.take().context("the server is not running")?;
        server.stop(Signal::INT).context("stop postgres")
    }

    /// Starts the server again, on the same port and with its data; stops it first if it runs.
    pub fn restart(&mut self) -> Result<()> {
        if self.server.is_some() {
            self.stop()?;
        }
        let deadline = Instant::now() + RESTART_LIMIT;
        loop {
            match Server::start(&self.cluster, self.port) {
                Ok(server) => {
                    self.server = Some(server);
                    return Ok(());
                }
                // Both pass: a client's socket lingers, a killed process is still being buried.
                Err(StartError::PortTaken(_) | StartError::StillInUse) if Instant::now() < deadline => {
                    sleep(Duration::from_millis(50));
                }
                Err(error) => return Err(error).context("restart postgres"),
            }
        }
    }

    /// Leaves server and folder behind when this process ends, and says how to reach and end them.
    pub fn keep(mut self) -> Result<Kept> {
        let pid = self.pid().context("the server is not running")?;
        if let Some(tether) = self.tether.take() {
            tether.release();
        }
        let psql = self.cluster.bin.join("psql");
        let folder = self.cluster.folder.display().to_string();
        Ok(Kept {
            psql: if psql.exists() { psql } else { PathBuf::from("psql") },
            port: self.port,
            stop: format!("kill -s INT {pid}; while kill -0 {pid} 2>/dev/null; do sleep 0.1; done; rm -rf '{folder}'"),
            folder: self.cluster.folder.clone(),
        })
    }

    fn start_on_a_free_port(&mut self) -> Result<()> {
        for _ in 0..PORTS_TRIED {
            let port = free_port().context("find a free port")?;
            match Server::start(&self.cluster, port) {
                Ok(server) => {
                    self.port = port;
                    self.server = Some(server);
                    return Ok(());
                }
                // Somebody took it between our look and the server's.
                Err(StartError::PortTaken(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bail!("{PORTS_TRIED} free ports in a row were taken before postgres could listen on them")
    }
}

impl fmt::Debug for TempPostgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TempPostgres")
            .field("dir", &self.cluster.folder)
            .field("port", &self.port)
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}

impl Drop for TempPostgres {
    fn drop(&mut self) {
        let Some(tether) = self.tether.take() else {
            return;
        };
        let stopped = self.server.take().is_none_or(|server| server.stop(Signal::QUIT).is_ok());
        if stopped && fs::remove_dir_all(&self.cluster.folder).is_ok() {
            tether.release();
        }
        // Otherwise the tether is dropped as it is, and does what we could not.
    }
}

/// A server that outlives us.
#[derive(Clone, Debug)]
pub struct Kept {
    psql: PathBuf,
    port: u16,
    stop: String,
    folder: PathBuf,
}

impl Kept {
    /// The shell command that opens `database` as the superuser.
    pub fn psql(&self, database: &str) -> String {
        format!(
            "'{}' postgres://{SUPERUSER}:{SUPERUSER_PASSWORD}@{}:{}/{}",
            self.psql.display(),
            Ipv4Addr::LOCALHOST,
            self.port,
            percent_encode(database)
        )
    }

    /// The shell command that stops the server and removes its folder.
    pub fn stop_command(&self) -> &str {
        &self.stop
    }

    /// The folder that stays.
    pub fn dir(&self) -> &Path {
        &self.folder
    }
}

/// One server for all tests of a process, started at the first call. It goes away with the process.
/// `cargo test` runs all tests of a binary in one process; nextest gives each test a process, and so
/// a server, of its own.
///
/// # Panics
///
/// If there is no Postgres on the machine or it does not start: a test that cannot run fails.
pub fn shared_postgres() -> &'static TempPostgres {
    static SHARED: OnceLock<TempPostgres> = OnceLock::new();
    SHARED.get_or_init(|| match TempPostgres::start() {
        Ok(postgres) => postgres,
        Err(error) => panic!("{error:#}"),
    })
}

async fn run_statements(config: Config, statements: String) -> Result<Vec<Vec<Option<String>>>> {
    let (client, connection) = config.connect(NoTls).await.context("connect as the superuser")?;
    let driver = tokio::spawn(connection);
    let messages = client.simple_query(&statements).await.context("run the statements")?;
    drop(client);
    // Sends the farewell. Whether it arrived matters to nobody: the statements have run.
    let _ = driver.await;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|column| row.get(column).map(str::to_owned)).collect()),
        _ => None,
    });
    Ok(rows.collect())
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn percent_encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded += &format!("%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_with_reserved_characters_survives_the_url() {
        let config: Config =
            format!("postgres://app:{}@127.0.0.1:1/db", percent_encode("p@s:s/w%rd ü")).parse().unwrap();
        assert_eq!(config.get_password(), Some("p@s:s/w%rd ü".as_bytes()));
    }
}
