//! A cluster at rest: its folder, made by `initdb` and configured. Not the running server.

use std::env;
use std::fs;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use uuid::Uuid;

use super::binaries::{self, Account};
use super::certificates::Certificates;
use super::{SUPERUSER, SUPERUSER_PASSWORD};

/// A longer path leaves no room for the name of the Unix socket, which ends at 104 bytes on macOS.
const LONGEST_BASE: usize = 55;

/// Nothing is flushed to the disk. A commit still reaches the kernel, so it outlives a `kill -9`.
const NOT_DURABLE: &str = "fsync = off\nfull_page_writes = off\n";

/// What `postgresql.conf` and `pg_hba.conf` shall say.
#[derive(Debug)]
pub(super) struct Settings<'a> {
    pub(super) durable: bool,
    pub(super) certificates: Option<&'a Certificates>,
    pub(super) lines: &'a [String],
}

/// The folder of one cluster, and with which programs and as whom it runs.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) bin: PathBuf,
    pub(super) folder: PathBuf,
    pub(super) account: Option<Account>,
}

impl Cluster {
    /// Chooses programs, account and a folder that is nobody else's. It makes nothing yet, so that
    /// the tether can be there before the folder is.
    pub(super) fn plan(tools: Option<&Path>) -> Result<Self> {
        let bin = binaries::find(tools)?;
        let account = binaries::account()?;
        let name = format!("sqs-etl-pg-{}", &Uuid::new_v4().simple().to_string()[..16]);
        Ok(Self { bin, folder: base_folder(account).join(name), account })
    }

    /// Makes the folder, runs `initdb` and writes the configuration.
    pub(super) fn initialise(&mut self, settings: &Settings) -> Result<()> {
        let folder = fs::DirBuilder::new().mode(0o700).create(&self.folder);
        folder.with_context(|| format!("make the folder {}", self.folder.display()))?;
        self.hand_over(&self.folder)?;
        self.bin = binaries::reachable(self.bin.clone(), self.account, &self.folder)?;
        self.run_initdb()?;
        self.configure(settings)
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(super) fn log_file(&self) -> PathBuf {
        self.folder.join("log")
    }

    pub(super) fn pid_file(&self) -> PathBuf {
        self.data().join("postmaster.pid")
    }

    /// What the server has written to its log.
    pub(super) fn log(&self) -> String {
        let bytes = fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A Postgres program, run as the right account and without our environment: a `PGDATA` or
    /// `PGOPTIONS` of the caller must not leak in.
    pub(super) fn command(&self, program: &str) -> Command {
        self.program(&self.bin.join(program))
    }

    /// Any program, run in the same way.
    pub(super) fn program(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir("/").env_clear().env("LC_ALL", "C").env("TZ", "UTC");
        command.env("PATH", env::var_os("PATH").unwrap_or_default());
        if let Some(account) = self.account {
            command.uid(account.user).gid(account.group);
        }
        command
    }

    fn run_initdb(&self) -> Result<()> {
        let password_file = self.folder.join("password");
        self.write_private(&password_file, SUPERUSER_PASSWORD)?;
        let ran = self
            .command("initdb")
            .args(["--username", SUPERUSER, "--encoding", "UTF8", "--no-locale", "--no-sync"])
            .args(["--auth", "scram-sha-256", "--pwfile"])
            .arg(&password_file)
            .arg("--pgdata")
            .arg(self.data())
            .output()
            .with_context(|| format!("run {}", self.bin.join("initdb").display()))?;
        if !ran.status.success() {
            bail!("initdb failed: {}", String::from_utf8_lossy(&ran.stderr).trim());
        }
        fs::remove_file(password_file).context("remove the password file")
    }

    fn configure(&self, settings: &Settings) -> Result<()> {
        let data = self.data();
        let mut conf = format!(
            "\nlisten_addresses = '{}'\nunix_socket_directories = '{}'\n",
            Ipv4Addr::LOCALHOST,
            self.folder.display()
        );
        if !settings.durable {
            conf += NOT_DURABLE;
        }
        if let Some(certificates) = settings.certificates {
            self.write_private(&data.join("server.crt"), &certificates.server)?;
            self.write_private(&data.join("server.key"), &certificates.server_key)?;
            conf += "ssl = on\n";
            // Plain TCP is turned away, so that a client that skips TLS is seen to fail.
            let rules = "local all all scram-sha-256\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
            fs::write(data.join("pg_hba.conf"), rules).context("write pg_hba.conf")?;
        }
        // Last, because the last mention of a setting wins.
        for line in settings.lines {
            conf += line;
            conf.push('\n');
        }
        let mut file =
            fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).context("open postgresql.conf")?;
        file.write_all(conf.as_bytes()).context("write postgresql.conf")
    }

    pub(super) fn write_private(&self, path: &Path, text: &str) -> Result<()> {
        let mut file = fs::OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("create {}", path.display()))?;
        file.write_all(text.as_bytes()).with_context(|| format!("write {}", path.display()))?;
        self.hand_over(path)
    }

    fn hand_over(&self, path: &Path) -> Result<()> {
        let Some(account) = self.account else {
            return Ok(());
        };
        chown(path, Some(account.user), Some(account.group))
            .with_context(|| format!("hand {} to the account that runs Postgres", path.display()))
    }
}

/// The machine's folder for temporary files, or `/tmp` where its path is too long or is closed to
/// the account that runs Postgres.
fn base_folder(account: Option<Account>) -> PathBuf {
    let base = env::temp_dir();
    let fits = base.as_os_str().len() <= LONGEST_BASE;
    if fits && account.is_none_or(|account| binaries::may_reach(&base, account)) {
        return base;
    }
    PathBuf::from("/tmp")
}
