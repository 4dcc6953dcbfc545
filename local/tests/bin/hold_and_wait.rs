//! Starts a temporary Postgres, says where it is, and waits to be killed. A test kills it, to see
//! that nothing of the server stays behind. With `keep` it leaves the server behind and ends.

use std::io::{Write, stdout};

use sqs_etl_local::postgres::TempPostgres;

fn main() -> anyhow::Result<()> {
    let postgres = TempPostgres::start()?;
    let pid = postgres.pid().unwrap_or_default();
    println!("{pid} {}", postgres.dir().display());
    if std::env::args().nth(1).as_deref() == Some("keep") {
        let kept = postgres.keep()?;
        println!("{}\n{}", kept.psql("postgres"), kept.stop_command());
        return Ok(());
    }
    stdout().flush()?;
    loop {
        std::thread::park();
    }
}
