//! A temporary Postgres for programs in other languages: the end-to-end tests and `make watch`.
//!
//! Prints a line of JSON, `{"port":…,"user":…,"password":…}`, then obeys a word a line on its standard input, `crash`
//! (kill -9) or `restart`, and answers each with `{"done":…}`. Server and data go away with the end of that input, or of
//! this process. Migrations are the caller's business.

use std::io::{BufRead, Write, stdin, stdout};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sqs_etl_local::postgres::{SUPERUSER, SUPERUSER_PASSWORD, TempPostgres};

fn main() -> Result<()> {
    let mut postgres = TempPostgres::builder().durable(true).start()?;
    say(&json!({ "port": postgres.port(), "user": SUPERUSER, "password": SUPERUSER_PASSWORD }))?;
    for word in stdin().lock().lines() {
        let word = word.context("read standard input")?;
        match word.as_str() {
            "crash" => postgres.crash()?,
            "restart" => postgres.restart()?,
            _ => bail!("it obeys crash and restart, not {word:?}"),
        }
        say(&json!({ "done": word }))?;
    }
    Ok(())
}

fn say(line: &Value) -> Result<()> {
    let mut stdout = stdout().lock();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}
