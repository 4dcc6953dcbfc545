//! For orientation: what `pgbench`, Postgres's own load generator, gets out of single ready-made rows.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use sqs_etl_local::postgres::{SUPERUSER, SUPERUSER_PASSWORD};

use crate::measure::{Bench, TABLE};
use crate::placement::Placement;
use crate::server::{Server, Trip};

const TRANSACTIONS: usize = 10_000;

#[derive(Debug, Serialize)]
pub struct SingleRows {
    pub rows_a_second: f64,
}

/// One client, prepared statements, a commit a row. `None` if the machine has no `pgbench`.
pub fn run(bench: &Bench, server: &mut Server) -> Result<Option<SingleRows>> {
    let Some(program) = server.program("pgbench") else {
        bench.progress.say("pgbench is not beside this Postgres: left out");
        return Ok(None);
    };
    bench.progress.say("pgbench");
    let script = bench.folder.join("single.sql");
    let pseudonym = format!("k1:{}", "0123456789abcdef".repeat(4));
    let statement = format!(
        "insert into {TABLE} values (gen_random_uuid(), '424cdd21-063a-43a7-b91b-7ca1a833afae', 'android', \
         '{pseudonym}', '{pseudonym}', 'RU', 2003000, date '2026-01-01');\n"
    );
    fs::write(&script, statement).context("write pgbench's script")?;
    server.refill(TABLE, &[])?;
    let mut command = Command::new(program);
    command
        .args(["-n", "-M", "prepared", "-c", "1", "-h", "127.0.0.1", "-U", SUPERUSER])
        .args(["-p", &server.port(Trip::Direct).to_string(), "-t", &TRANSACTIONS.to_string(), "-f"])
        .arg(script)
        .arg(server.database())
        .env("PGPASSWORD", SUPERUSER_PASSWORD);
    let output = bench.cores.starting(Placement::OneCore, || command.output()).context("run pgbench")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "pgbench failed: {}", String::from_utf8_lossy(&output.stderr));
    let tps = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
    let rows_a_second = tps.context("pgbench tells no tps")?;
    ensure!(server.rows(TABLE)? == TRANSACTIONS, "pgbench did not store all rows");
    Ok(Some(SingleRows { rows_a_second }))
}
