//! Starts something, says where it is, and waits to be killed. A test kills it, to see that nothing
//! of what it started stays behind.
//!
//! Without arguments: a temporary Postgres. `keep`: the same, but left behind on purpose.
//! `function BOOTSTRAP`: a function with an event that never ends.

use std::env;
use std::io::{Write, stdout};
use std::time::Duration;

use anyhow::{Context, Result};
use sqs_etl_local::function::{Function, FunctionConfig};
use sqs_etl_local::postgres::TempPostgres;

fn main() -> Result<()> {
    match env::args().nth(1).as_deref() {
        Some("keep") => keep_postgres(),
        Some("function") => hold_function(&env::args().nth(2).context("name the bootstrap")?),
        _ => hold_postgres(),
    }
}

fn hold_postgres() -> Result<()> {
    let postgres = TempPostgres::start()?;
    println!("{} {}", postgres.pid().unwrap_or_default(), postgres.dir().display());
    stdout().flush()?;
    loop {
        std::thread::park();
    }
}

fn keep_postgres() -> Result<()> {
    let postgres = TempPostgres::start()?;
    println!("{} {}", postgres.pid().unwrap_or_default(), postgres.dir().display());
    let kept = postgres.keep()?;
    println!("{}\n{}", kept.psql("postgres"), kept.stop_command());
    Ok(())
}

fn hold_function(bootstrap: &str) -> Result<()> {
    let function = Function::start(FunctionConfig::new(bootstrap))?;
    function.warm_up()?;
    println!("{}", function.pids()[0]);
    stdout().flush()?;
    function.invoke(r#"{"do":"hang"}"#, Duration::from_secs(3600));
    Ok(())
}
