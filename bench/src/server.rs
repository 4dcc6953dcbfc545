//! The Postgres that all contenders share, and the wire to it that can be made longer.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;
use sqs_etl_local::postgres::TempPostgres;
use sqs_etl_local::proxy::Proxy;

use crate::events::REFUSED_USER;
use crate::placement::{Cores, Placement};
use crate::stats::median;
use crate::wire::Wire;

/// Nothing but the contenders' work shall happen while they are measured: no vacuum, no checkpoint.
const SETTINGS: [&str; 6] = [
    "autovacuum = off",
    "checkpoint_timeout = 1h",
    "max_wal_size = 8GB",
    "shared_buffers = 512MB",
    "max_connections = 150",
    "log_min_messages = fatal",
];
const TABLE: &str = include_str!("../../migrations/0001_user_logins.sql");
const DATABASE: &str = "postgres";
const TRIALS: usize = 60;

/// What lies between contender and Postgres.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trip {
    /// Nothing.
    Direct,
    /// A proxy that makes a round trip longer by so many milliseconds; with 0 it costs no more than itself.
    Proxied(u32),
}

pub struct Server {
    postgres: TempPostgres,
    proxy: Proxy,
    admin: Wire,
    backends: Vec<u32>,
}

impl Server {
    pub fn start(durable: bool, cores: &Cores) -> Result<Self> {
        let builder = SETTINGS.iter().fold(TempPostgres::builder(), |builder, line| builder.conf(line));
        let postgres = builder.durable(durable).start().context("start Postgres")?;
        let pid = postgres.pid().context("Postgres runs")?;
        cores.pin_postgres(pid, Placement::OneCore);
        let proxy = Proxy::start(postgres.port())?;
        let mut admin = Wire::connect(postgres.port(), DATABASE)?;
        admin.sql(TABLE)?;
        Ok(Self { postgres, proxy, admin, backends: Vec::new() })
    }

    /// How Postgres is set, beside its defaults.
    pub fn settings() -> String {
        SETTINGS.join(", ")
    }

    pub fn database(&self) -> &'static str {
        DATABASE
    }

    pub fn postmaster(&self) -> u32 {
        self.postgres.pid().unwrap_or_default()
    }

    pub fn version(&mut self) -> Result<String> {
        self.ask("show server_version")
    }

    pub fn sql(&mut self, statements: &str) -> Result<()> {
        self.admin.sql(statements).map(drop)
    }

    /// The one value that a query answers with.
    pub fn ask(&mut self, query: &str) -> Result<String> {
        let rows = self.admin.sql(query)?;
        rows.into_iter().flatten().next().flatten().with_context(|| format!("{query}: no answer"))
    }

    /// A folder's program, beside the server's own.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        let server = fs::read_link(format!("/proc/{}/exe", self.postmaster())).ok()?;
        Some(server.with_file_name(name)).filter(|path| path.is_file())
    }

    /// Empties a table, and puts rows with these ids into it.
    pub fn refill(&mut self, table: &str, ids: &[String]) -> Result<()> {
        self.sql(&format!("truncate {table}"))?;
        if !ids.is_empty() {
            let ids: Vec<String> = ids.iter().map(|id| format!("('{id}')")).collect();
            self.sql(&format!("insert into {table} (message_id) values {}", ids.join(",")))?;
        }
        Ok(())
    }

    pub fn rows(&mut self, table: &str) -> Result<usize> {
        Ok(self.ask(&format!("select count(*) from {table}"))?.parse()?)
    }

    /// Lets the table refuse the rows that the generator makes to be refused, or no longer.
    pub fn refuse_rows(&mut self, refuse: bool) -> Result<()> {
        self.sql("alter table user_logins drop constraint if exists not_banned")?;
        if refuse {
            self.sql(&format!(
                "alter table user_logins add constraint not_banned check (user_id not like '{REFUSED_USER}%')"
            ))?;
        }
        Ok(())
    }

    /// Notes whose backends are there, for [`Server::backend_cpu_ns`].
    pub fn note_backends(&mut self) -> Result<()> {
        let query =
            "select pid from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()";
        let rows = self.admin.sql(query)?;
        self.backends = rows.into_iter().flatten().flatten().filter_map(|pid| pid.parse().ok()).collect();
        Ok(())
    }

    /// The CPU time of all noted backends so far; Linux only.
    pub fn backend_cpu_ns(&self) -> Option<u64> {
        self.backends.iter().map(|pid| cpu_ns(*pid)).sum()
    }

    /// The port by which Postgres is reached over such a trip.
    pub fn port(&self, trip: Trip) -> u16 {
        match trip {
            Trip::Direct => self.postgres.port(),
            Trip::Proxied(_) => self.proxy.port(),
        }
    }

    pub fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// Sets the proxy so that a round trip takes this much longer, and tells by how many milliseconds it does.
    ///
    /// Timers oversleep. So the first trials tell by how much, and the delay is shortened by that.
    pub fn lengthen(&mut self, trip: Trip) -> Result<f64> {
        let Trip::Proxied(millis) = trip else { return Ok(0.0) };
        let direct = self.round_trip(Trip::Direct)?;
        let wanted = Duration::from_millis(millis.into());
        let mut delay = wanted;
        let mut added = Duration::ZERO;
        for _ in 0..3 {
            self.proxy.set_delays(delay, Duration::ZERO);
            added = self.round_trip(trip)?.saturating_sub(direct);
            delay = (delay + wanted).saturating_sub(added);
        }
        Ok(added.as_secs_f64() * 1e3)
    }

    fn round_trip(&self, trip: Trip) -> Result<Duration> {
        let mut wire = Wire::connect(self.port(trip), DATABASE)?;
        let mut seconds = Vec::new();
        for _ in 0..TRIALS {
            let started = Instant::now();
            wire.sql("")?;
            seconds.push(started.elapsed().as_secs_f64());
        }
        Ok(Duration::from_secs_f64(median(&seconds).unwrap_or_default()))
    }
}

fn cpu_ns(pid: u32) -> Option<u64> {
    fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?.split(' ').next()?.parse().ok()
}
