//! Where the function plays: a temporary Postgres with the project's tables, and a role that may do no more than the
//! function needs.

use anyhow::{Context, Result};
use sqs_etl_local::postgres::TempPostgres;
use uuid::Uuid;

/// The database of the demo.
pub const DATABASE: &str = "demo";
/// The role that the function connects as.
pub const ROLE: &str = "sqs_etl";

const MIGRATIONS: [&str; 2] =
    [include_str!("../../migrations/0001_user_logins.sql"), include_str!("../../migrations/0002_ledger.sql")];

/// A Postgres server that goes away with this value or with our process, whichever ends first.
pub struct Scene {
    pub postgres: TempPostgres,
    pub password: String,
}

impl Scene {
    /// Starts the server, which flushes every commit to the disk as a real one does, and makes the tables.
    pub fn set() -> Result<Self> {
        let postgres = TempPostgres::builder().durable(true).start()?;
        let password = Uuid::new_v4().simple().to_string();
        postgres.sql("postgres", &format!("create database {DATABASE}")).context("create the database")?;
        for migration in MIGRATIONS {
            postgres.sql(DATABASE, migration).context("create the tables")?;
        }
        let role = format!(
            "create role {ROLE} login password '{password}'; grant insert, select (message_id) on user_logins to {ROLE}"
        );
        postgres.sql(DATABASE, &role).context("create the function's role")?;
        Ok(Self { postgres, password })
    }

    /// What `DATABASE_URL` says to the function. It does not leave this machine, so TLS is off by name.
    pub fn url(&self) -> String {
        format!("{}?sslmode=disable", self.postgres.url_as(ROLE, &self.password, DATABASE))
    }

    /// The rows of a query, as text.
    pub fn rows(&self, query: &str) -> Result<Vec<Vec<Option<String>>>> {
        self.postgres.sql(DATABASE, query)
    }

    /// The first field of a query's first row.
    pub fn value(&self, query: &str) -> Result<String> {
        let rows = self.rows(query)?;
        rows.into_iter().flatten().flatten().next().context("the query gave no value")
    }
}
