//! From masked rows to rows in the table, in one statement and one round trip; rows that only Postgres finds bad are found
//! by halving. The only place that talks to Postgres; what it says is in `sql`, how arrays travel in `wire`.
//!
//! The statements are sent unnamed and the time-out is the transaction's own, so that poolers that hand a connection from
//! transaction to transaction, RDS Proxy among them, keep nothing of ours.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tokio_postgres::Row;
use tokio_postgres::error::{DbError, Severity, SqlState};
use tokio_postgres::types::{ToSql, Type as Wire};
use tracing::debug;

use super::contract::{Contract, Once};
use super::deadline::Deadline;
use super::mask::Masked;
use super::outcome::{Reason, Refusal};
use super::value::Type;
use crate::database::{ConnectError, Database, PooledConnection};

mod sql;
mod wire;

use sql::{insert, missing};
use wire::{Picked, wire_array};

/// Writes masked rows into the contract's table.
pub struct Writer {
    database: Database,
    insert: String,
    parameters: Vec<Wire>,
    once: Check,
    /// Where the insert puts values; any other column is the deployment's affair.
    columns: Vec<String>,
}

/// How it is found out that Postgres kept each row that it took: a trigger or a rule may drop one without an error.
enum Check {
    /// The insert itself fails if it kept fewer rows than the ledger has new messages.
    InInsert,
    /// Rows that were not added must be there already. The statement gives the places of those that are not, out of the
    /// keys, which are the insert's parameter of this index.
    After { missing: String, key: usize },
}

/// What became of the rows of one write.
#[derive(Debug, Default)]
pub struct Written {
    pub committed: usize,
    pub already_present: usize,
    /// Rows that were not stored, by their place in the write.
    pub failed: Vec<(usize, Reason)>,
    /// Insert statements sent.
    pub statements: usize,
}

/// Why a write stopped before each of its rows had an outcome. Redelivery is harmless, so all of the batch is retried.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error("no connection to the database")]
    Connect(#[source] ConnectError),
    /// The table, a column or a privilege is not as the contract says: nobody's record is to blame.
    #[error("the database does not fit the contract: SQLSTATE {sqlstate} ({})", deployment_hint(.sqlstate))]
    Deployment { sqlstate: String },
    #[error("the database is out of service: SQLSTATE {sqlstate}")]
    Unavailable { sqlstate: String },
    #[error("the connection to the database broke, and a second one did too")]
    Broken,
}

fn deployment_hint(sqlstate: &str) -> &'static str {
    match sqlstate {
        "42P01" => "the table is missing: run the migrations",
        "42703" => "a column is missing: compare the contract with the table",
        "42501" => "the role may not insert into the table: see the grants in migrations/",
        "23502" => {
            "a column that the contract does not fill must not be null: add it to the contract, or give it a default"
        }
        "42883" => "the column of [once] has another type than the contract says",
        "42P10" => "the column of [once] has no unique index",
        "42804" => "a column has another type than the contract says",
        _ => "compare the contract with the table",
    }
}

impl Writer {
    /// A writer for the contract's table.
    ///
    /// **Invariant (Seal):** not public, so that nobody gives it rows that were masked by another contract.
    pub(super) fn new(contract: &Contract, database: Database) -> Self {
        let kinds = contract.columns.iter().map(|column| column.kind);
        let key = contract.ledger().map(|_| Type::Uuid);
        let parameters = key.into_iter().chain(kinds).map(wire_array).collect();
        let once = match &contract.once {
            Once::Ledger(_) => Check::InInsert,
            Once::Column(key) => Check::After { missing: missing(contract, *key), key: *key },
        };
        let columns = contract.columns.iter().map(|column| column.name.clone()).collect();
        Self { database, insert: insert(contract), parameters, once, columns }
    }

    /// Stores the rows; each ends committed, already present or failed. Rows with equal `groups` keep their order: behind
    /// a failed one none of its group is stored.
    pub(super) async fn write(
        &self,
        rows: &Masked,
        groups: &[Option<usize>],
        deadline: Deadline,
    ) -> Result<Written, WriteError> {
        let mut written = Written::default();
        let mut blocked = HashSet::new();
        let mut parts = vec![Part { rows: (0..rows.len()).collect(), failed_before: None }];
        while let Some(part) = parts.pop() {
            let (part, is_known_bad) = part.without(&blocked, groups, &mut written);
            if part.is_empty() {
                continue;
            }
            let answer = if is_known_bad && part.len() > 1 {
                None
            } else {
                Some(self.store(rows, &part, deadline, &mut written).await?)
            };
            match answer {
                Some(Stored::All { committed, dropped }) => {
                    written.committed += committed;
                    written.already_present += part.len().saturating_sub(committed + dropped.len());
                    blocked.extend(dropped.iter().filter_map(|&row| groups[row]));
                    written.failed.extend(dropped.into_iter().map(|row| (row, Reason::Dropped)));
                }
                Some(Stored::GaveUp(reason)) => {
                    let rest = parts.drain(..).rev().flat_map(|part| part.rows);
                    written.failed.extend(part.into_iter().chain(rest).map(|row| (row, reason.clone())));
                }
                Some(Stored::Refused(reason)) if part.len() == 1 => {
                    blocked.extend(groups[part[0]]);
                    written.failed.push((part[0], reason));
                }
                Some(Stored::Refused(_)) | None => split(part, &mut parts, written.failed.len()),
            }
        }
        Ok(written)
    }
}

/// Rows that are tried together.
struct Part {
    rows: Vec<usize>,
    /// For a right half: how many rows had failed when its left half was tried. If none has failed since, the bad row of
    /// the whole must be in this half, and trying it in one piece would be a statement in vain.
    failed_before: Option<usize>,
}

impl Part {
    /// The rows whose group may still go on, and whether a bad one is known to be among them. The others fail.
    fn without(self, blocked: &HashSet<usize>, groups: &[Option<usize>], written: &mut Written) -> (Vec<usize>, bool) {
        let is_known_bad = self.failed_before == Some(written.failed.len());
        if blocked.is_empty() {
            return (self.rows, is_known_bad);
        }
        let (behind, rows): (Vec<_>, Vec<_>) =
            self.rows.into_iter().partition(|&row| groups[row].is_some_and(|group| blocked.contains(&group)));
        written.failed.extend(behind.iter().map(|&row| (row, Reason::BehindFailure)));
        (rows, is_known_bad && behind.is_empty())
    }
}

fn split(mut rows: Vec<usize>, parts: &mut Vec<Part>, failed: usize) {
    let right = rows.split_off(rows.len() / 2);
    parts.push(Part { rows: right, failed_before: Some(failed) });
    parts.push(Part { rows, failed_before: None });
}

/// What one insert came to.
enum Stored {
    /// No row was refused. Those that were dropped on the way are neither committed nor present.
    All { committed: usize, dropped: Vec<usize> },
    /// One of the rows at least is bad, and none is stored.
    Refused(Reason),
    /// Nothing is known to be stored, and there is no time to try again.
    GaveUp(Reason),
}

/// First pause before a transient failure is tried again; it doubles each time, and chance takes away up to half of it.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(1_000);

impl Writer {
    /// Inserts some of the rows, trying again while Postgres says that it may help.
    async fn store(
        &self,
        rows: &Masked,
        part: &[usize],
        deadline: Deadline,
        written: &mut Written,
    ) -> Result<Stored, WriteError> {
        let mut pause = FIRST_PAUSE;
        let mut was_broken = false;
        loop {
            if Instant::now() >= deadline.statement_end() {
                return Ok(Stored::GaveUp(Reason::Deadline));
            }
            let client = self.database.get(deadline.write_end() - Instant::now()).await.map_err(WriteError::Connect)?;
            written.statements += 1;
            let answer = self.insert_within(client, rows, part, deadline).await;
            match answer {
                Ok((committed, dropped)) => return Ok(Stored::All { committed, dropped }),
                Err(Verdict::Row(reason)) => return Ok(Stored::Refused(reason)),
                Err(Verdict::TimeIsUp) => return Ok(Stored::GaveUp(Reason::Deadline)),
                Err(Verdict::Fatal(error)) => return Err(error),
                Err(Verdict::Broken) if was_broken => return Err(WriteError::Broken),
                // The environment may have been frozen while the server closed the connection: a new one, at once.
                // Its neighbours in the pool will have gone the same way.
                Err(Verdict::Broken) => {
                    was_broken = true;
                    self.database.reset();
                }
                Err(Verdict::Transient(sqlstate)) => {
                    debug!(sqlstate, "postgres asks to try again");
                    let wait = jittered(pause);
                    if Instant::now() + wait >= deadline.statement_end() {
                        return Ok(Stored::GaveUp(Reason::Busy { sqlstate }));
                    }
                    sleep(wait).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// One insert on one connection; a connection whose state is not known afterwards is thrown away.
    async fn insert_within(
        &self,
        client: PooledConnection,
        rows: &Masked,
        part: &[usize],
        deadline: Deadline,
    ) -> Result<(usize, Vec<usize>), Verdict> {
        let cancel = client.cancel_token();
        let insert = async {
            let committed = self.insert_once(&client, rows, part, deadline).await?;
            let dropped =
                if committed < part.len() { self.dropped(&client, rows, part, deadline).await? } else { Vec::new() };
            Ok((committed, dropped))
        };
        match timeout_at(deadline.write_end(), insert).await {
            Ok(Ok(stored)) => Ok(stored),
            Ok(Err(error)) => {
                let verdict = self.verdict(&error, deadline);
                if verdict.needs_another_connection() {
                    Database::discard(client);
                }
                Err(verdict)
            }
            Err(_) => {
                Database::discard(client);
                // Should the request be lost, Postgres still has its own time-out.
                let _ = timeout_at(deadline.answer_end(), self.database.cancel(cancel)).await;
                Err(Verdict::TimeIsUp)
            }
        }
    }

    /// How many of the rows were added.
    async fn insert_once(
        &self,
        client: &PooledConnection,
        rows: &Masked,
        part: &[usize],
        deadline: Deadline,
    ) -> Result<usize, tokio_postgres::Error> {
        let arrays: Vec<Picked> = rows.arrays().map(|array| Picked { array, rows: part }).collect();
        let parameters: Vec<(&(dyn ToSql + Sync), Wire)> =
            arrays.iter().zip(&self.parameters).map(|(array, wire)| (array as _, wire.clone())).collect();
        let counted = in_one_flight(client, &self.insert, &parameters, deadline).await?;
        let committed: i64 = counted.first().expect("a count is one row").try_get(0)?;
        Ok(usize::try_from(committed).expect("a count is not negative"))
    }

    /// The rows of a part that are not in the table though Postgres refused none. Only asked when some were not added.
    async fn dropped(
        &self,
        client: &PooledConnection,
        rows: &Masked,
        part: &[usize],
        deadline: Deadline,
    ) -> Result<Vec<usize>, tokio_postgres::Error> {
        let Check::After { missing, key } = &self.once else { return Ok(Vec::new()) };
        let keys = Picked { array: rows.arrays().nth(*key).expect("the key is a column"), rows: part };
        let places = in_one_flight(client, missing, &[(&keys, self.parameters[*key].clone())], deadline).await?;
        places.iter().map(|place| Ok(part[place.try_get::<_, i64>(0)? as usize - 1])).collect()
    }
}

/// A statement in a transaction that limits its time. The four are sent together and their answers waited for together, so
/// it is one round trip.
async fn in_one_flight(
    client: &PooledConnection,
    statement: &str,
    parameters: &[(&(dyn ToSql + Sync), Wire)],
    deadline: Deadline,
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let left = deadline.statement_end().saturating_duration_since(Instant::now()).as_millis().max(1).to_string();
    let limit: [(&(dyn ToSql + Sync), Wire); 1] = [(&left, Wire::TEXT)];
    let (begun, limited, answered, ended) = futures_util::join!(
        client.batch_execute("begin"),
        client.execute_typed("select set_config('statement_timeout', $1, true)", &limit),
        client.query_typed(statement, parameters),
        client.batch_execute("commit"),
    );
    // The statement's own error tells more than those that follow from it.
    let rows = answered?;
    begun?;
    limited?;
    ended?;
    Ok(rows)
}

fn jittered(pause: Duration) -> Duration {
    // Differs from process to process, which is all that jitter needs.
    let chance = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), ());
    let part = (chance % 512) as u32;
    pause - pause * part / 1_024
}

/// Postgres counts its time-out in whole milliseconds.
const CLOCK_STEP: Duration = Duration::from_millis(10);

/// What an error of Postgres means for the rows that it was about.
enum Verdict {
    /// A row is bad, for ever.
    Row(Reason),
    /// It may go well in a moment.
    Transient(String),
    /// The connection is dead.
    Broken,
    TimeIsUp,
    Fatal(WriteError),
}

impl Writer {
    /// **Invariant (Silence):** of the error only the SQLSTATE and names of the schema are kept.
    fn verdict(&self, error: &tokio_postgres::Error, deadline: Deadline) -> Verdict {
        let Some(db) = error.as_db_error() else { return Verdict::Broken };
        let sqlstate = db.code().code().to_owned();
        let class = sqlstate.get(..2).unwrap_or_default();
        let is_over = Instant::now() + CLOCK_STEP >= deadline.statement_end();
        match (class, db.code()) {
            (_, &SqlState::QUERY_CANCELED) if is_over => Verdict::TimeIsUp,
            (_, &SqlState::QUERY_CANCELED | &SqlState::LOCK_NOT_AVAILABLE) | ("40", _) => Verdict::Transient(sqlstate),
            _ if matches!(db.parsed_severity(), Some(Severity::Fatal | Severity::Panic)) => Verdict::Broken,
            // Whatever else a trigger raises, it raises it at a row.
            _ if db.routine() == Some(RAISE) => Verdict::Row(Reason::Refused(refusal(db))),
            ("08", _) => Verdict::Broken,
            (_, &SqlState::INSUFFICIENT_PRIVILEGE) if db.routine() == Some(ROW_SECURITY) => {
                Verdict::Row(Reason::Refused(refusal(db)))
            }
            // The insert's own comparison of counts; one inside a trigger or a cast has a context.
            (_, &SqlState::DIVISION_BY_ZERO) if matches!(self.once, Check::InInsert) && db.where_().is_none() => {
                Verdict::Row(Reason::Dropped)
            }
            (_, &SqlState::NOT_NULL_VIOLATION) if !self.fills(db.column()) => {
                Verdict::Fatal(WriteError::Deployment { sqlstate })
            }
            ("42" | "3D" | "3F" | "0A" | "0L" | "0P" | "26" | "28" | "34", _) => {
                Verdict::Fatal(WriteError::Deployment { sqlstate })
            }
            ("25" | "53" | "55" | "57" | "58" | "72" | "F0" | "XX", _) => {
                Verdict::Fatal(WriteError::Unavailable { sqlstate })
            }
            _ => Verdict::Row(Reason::Refused(refusal(db))),
        }
    }

    fn fills(&self, column: Option<&str>) -> bool {
        column.is_some_and(|column| self.columns.iter().any(|filled| filled == column))
    }
}

impl Verdict {
    fn needs_another_connection(&self) -> bool {
        matches!(self, Verdict::Broken | Verdict::Fatal(WriteError::Unavailable { .. }))
    }
}

/// The routine of PostgreSQL in which PL/pgSQL's `raise` ends. What it names as column and constraint may be anything.
const RAISE: &str = "exec_stmt_raise";

/// The routine of PostgreSQL in which row-level security refuses a row.
const ROW_SECURITY: &str = "ExecWithCheckOptions";

fn refusal(db: &DbError) -> Refusal {
    let name = |name: Option<&str>| name.filter(|_| db.routine() != Some(RAISE)).map(str::to_owned);
    Refusal { sqlstate: db.code().code().to_owned(), column: name(db.column()), constraint: name(db.constraint()) }
}
