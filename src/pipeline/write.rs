//! From masked rows to rows in the table, in one round trip; rows that only Postgres finds bad are found one by one. The only
//! place that talks to Postgres; what it says is in `sql`, how values travel in `wire`, what is known of the table in `table`.
//!
//! Redeliveries are rare, so rows are copied, which is what Postgres does fastest, and only when it says that one is there
//! already are they inserted with `on conflict do nothing`.
//!
//! Inserts are sent unnamed and their time-out is the transaction's own, so that poolers that hand a connection from
//! transaction to transaction, RDS Proxy among them, keep nothing of ours. Only straight to the server, where rows are copied,
//! does the session keep statements and time-out.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_postgres::error::SqlState;
use tracing::debug;

use super::array::Array;
use super::contract::{Contract, Once};
use super::deadline::Deadline;
use super::mask::Masked;
use super::outcome::{Reason, Refusal};
use super::value::Type;
use crate::database::connection::{Answer, CHUNK, Flight, Lost, Parameter, Route, ServerError};
use crate::database::{ConnectError, Database, PooledConnection};

mod sql;
mod table;
mod wire;

use table::Layout;

/// Writes masked rows into the contract's table.
pub struct Writer {
    database: Database,
    /// The table's name as SQL takes it.
    table: String,
    /// Where rows put values; any other column is the deployment's affair.
    columns: Vec<(String, Type)>,
    insert: String,
    /// The types of the insert's parameters, which are arrays.
    parameters: Vec<Type>,
    once: Check,
    copy: Option<Copy>,
    /// How many batches held a redelivery lately, in 1/1024.
    redelivered: AtomicU32,
}

/// How rows are copied.
struct Copy {
    statement: String,
    lock: String,
    check: String,
    table: Mutex<Table>,
    /// How often in a row a copy was given up before it began, although the table seemed to take it.
    given_up: AtomicU32,
}

/// What is known of the table.
#[derive(Clone)]
enum Table {
    Unknown,
    TakesCopies(Arc<Layout>),
    /// Only an insert does what the contract says.
    TakesInserts,
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
    /// Copies and inserts sent.
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

/// Above this share of batches with a redelivery, in 1/1024, asking first costs less than failing first: PERFORMANCE.md has
/// the measurement.
const OFTEN: u32 = 256;
/// What one batch counts for in that share.
const BATCH_WEIGHT: u32 = 8;
/// So often in a row a copy is given up before it begins until no more are tried.
const TRIALS: u32 = 3;
/// With less time than this rows are inserted, so that no such limit stays in the session.
const SHORTEST_COPY: Duration = Duration::from_millis(100);
/// So many rows that Postgres named are taken out of what is behind them as a whole; then that is halved as well, since each
/// time all of it travels again.
const NAMED_ROWS: usize = 8;

impl Writer {
    /// A writer for the contract's table.
    ///
    /// **Invariant (Seal):** not public, so that nobody gives it rows that were masked by another contract.
    pub(super) fn new(contract: &Contract, database: Database) -> Self {
        let columns: Vec<_> = contract.columns.iter().map(|column| (column.name.clone(), column.kind)).collect();
        let ledger_key = contract.ledger().map(|_| Type::Uuid);
        let parameters = ledger_key.into_iter().chain(columns.iter().map(|(_, kind)| *kind)).collect();
        let (once, copy) = match &contract.once {
            Once::Ledger(_) => (Check::InInsert, None),
            Once::Column(key) => {
                (Check::After { missing: sql::missing(contract, *key), key: *key }, Some(Copy::new(contract, *key)))
            }
        };
        let (table, insert) = (contract.table.quoted(), sql::insert(contract));
        Self { database, table, columns, insert, parameters, once, copy, redelivered: AtomicU32::new(0) }
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
        let mut named = 0;
        let mut asks_first = self.redelivered.load(Ordering::Relaxed) > OFTEN;
        let mut parts = vec![Part { rows: (0..rows.len()).collect(), failed_before: None }];
        while let Some(part) = parts.pop() {
            let (part, is_known_bad) = part.without(&blocked, groups, &mut written);
            if part.is_empty() {
                continue;
            }
            let answer = if is_known_bad && part.len() > 1 {
                None
            } else {
                Some(self.store(rows, &part, deadline, &mut asks_first, &mut written).await?)
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
                Some(Stored::Refused { reason, .. }) if part.len() == 1 => {
                    blocked.extend(groups[part[0]]);
                    written.failed.push((part[0], reason));
                }
                Some(Stored::Refused { place: Some(place), .. }) if place < part.len() => {
                    named += 1;
                    split_around(part, place, named > NAMED_ROWS, &mut parts);
                }
                Some(Stored::Refused { .. }) | None => split(part, &mut parts, written.failed.len()),
            }
        }
        self.note_redelivery(written.already_present > 0);
        Ok(written)
    }

    fn note_redelivery(&self, is_there: bool) {
        let share = self.redelivered.load(Ordering::Relaxed);
        let this = if is_there { 1_024 } else { 0 };
        self.redelivered.store((share * (BATCH_WEIGHT - 1) + this) / BATCH_WEIGHT, Ordering::Relaxed);
    }
}

impl Copy {
    fn new(contract: &Contract, key: usize) -> Self {
        Self {
            statement: sql::copy(contract),
            lock: sql::lock(contract, key),
            check: sql::check(contract),
            table: Mutex::new(Table::Unknown),
            given_up: AtomicU32::new(0),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Where Postgres has said which row it refused. That row is tried alone all the same: only then is it said to be bad.
fn split_around(mut rows: Vec<usize>, place: usize, halves: bool, parts: &mut Vec<Part>) {
    let mut behind = rows.split_off(place + 1);
    let refused = rows.split_off(place);
    let last = behind.split_off(if halves { behind.len() / 2 } else { behind.len() });
    parts.extend([last, behind, refused, rows].map(|rows| Part { rows, failed_before: None }));
}

/// What one statement came to.
enum Stored {
    /// No row was refused. Those that were dropped on the way are neither committed nor present.
    All { committed: usize, dropped: Vec<usize> },
    /// One of the rows at least is bad, and none is stored. `place` may tell which one.
    Refused { reason: Reason, place: Option<usize> },
    /// Nothing is known to be stored, and there is no time to try again.
    GaveUp(Reason),
}

/// First pause before a transient failure is tried again; it doubles each time, and chance takes away up to half of it.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(1_000);

/// Some rows, and until when they may be written.
#[derive(Clone, Copy)]
struct Task<'a> {
    arrays: &'a [&'a Array],
    rows: &'a [usize],
    deadline: Deadline,
    /// What Postgres is given for each statement, in milliseconds.
    limit: u64,
    /// When it gives up for that.
    until: Instant,
}

/// How rows are sent.
enum Way {
    /// Fails if one is there already.
    Copy(Arc<Layout>),
    Insert {
        /// Whether to ask what the table looks like.
        looks: bool,
        /// Whether some are expected to be there, so that it is asked at once which are not.
        asks_missing: bool,
    },
}

impl Writer {
    /// Sends some of the rows, trying again while Postgres says that it may help. `asks_first` is set once one is there already.
    async fn store(
        &self,
        rows: &Masked,
        part: &[usize],
        deadline: Deadline,
        asks_first: &mut bool,
        written: &mut Written,
    ) -> Result<Stored, WriteError> {
        let arrays: Vec<&Array> = rows.arrays().collect();
        let mut pause = FIRST_PAUSE;
        let mut was_broken = false;
        loop {
            if Instant::now() >= deadline.statement_end() {
                return Ok(Stored::GaveUp(Reason::Deadline));
            }
            let client = self.database.get(deadline.write_end() - Instant::now()).await.map_err(WriteError::Connect)?;
            let is_late = deadline.statement_end() < Instant::now() + SHORTEST_COPY;
            let way = self.way(&client, *asks_first, is_late);
            let limit = limit(&way, deadline.statement_end().saturating_duration_since(Instant::now()));
            let until = Instant::now() + Duration::from_millis(limit);
            let task = Task { arrays: &arrays, rows: part, deadline, limit, until };
            written.statements += 1;
            match self.send_within(client, &way, task).await {
                Ok((committed, dropped)) => return Ok(Stored::All { committed, dropped }),
                Err(Verdict::Row { reason, place }) => return Ok(Stored::Refused { reason, place }),
                Err(Verdict::TimeIsUp) => return Ok(Stored::GaveUp(Reason::Deadline)),
                Err(Verdict::Fatal(error)) => return Err(error),
                Err(Verdict::Present) => *asks_first = true,
                Err(Verdict::Stale) => self.forget(),
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

    /// Encodes the rows as for a copy into a table that is as the contract says, and tells how many bytes they are. For
    /// measuring only.
    pub(super) fn rehearse(&self, rows: &Masked) -> usize {
        let layout = Layout::natural(&self.columns);
        let arrays: Vec<&Array> = rows.arrays().collect();
        let mut chunk = BytesMut::new();
        (0..rows.len()).fold(0, |bytes, row| {
            if chunk.len() >= CHUNK {
                chunk.clear();
            }
            let before = chunk.len();
            wire::put_row(&arrays, &layout.fields, row, &mut chunk);
            bytes + chunk.len() - before
        })
    }

    fn way(&self, client: &PooledConnection, asks_first: bool, is_late: bool) -> Way {
        let insert = |looks| Way::Insert { looks, asks_missing: asks_first };
        let Some(copy) = &self.copy else { return Way::Insert { looks: false, asks_missing: false } };
        if copy.given_up.load(Ordering::Relaxed) >= TRIALS {
            return insert(false);
        }
        let table = copy.table().clone();
        match (table, client.route()) {
            (_, Route::Pooled) => insert(false),
            (Table::TakesCopies(layout), Route::Direct) if !asks_first && !is_late => Way::Copy(layout),
            (Table::TakesCopies(_) | Table::TakesInserts, Route::Direct) => insert(false),
            (_, Route::Unknown) | (Table::Unknown, _) => insert(true),
        }
    }

    /// What was known of the table is no longer so.
    fn forget(&self) {
        if let Some(copy) = &self.copy {
            copy.given_up.fetch_add(1, Ordering::Relaxed);
            *copy.table() = Table::Unknown;
        }
    }

    fn learn(&self, table: Table) {
        if let Some(copy) = &self.copy {
            *copy.table() = table;
        }
    }

    /// One flight on one connection; a connection whose state is not known afterwards is thrown away.
    async fn send_within(
        &self,
        mut client: PooledConnection,
        way: &Way,
        task: Task<'_>,
    ) -> Result<(usize, Vec<usize>), Verdict> {
        let cancel = client.cancel_token();
        let sent = async {
            let (committed, missing) = match way {
                Way::Copy(layout) => (self.copy(&mut client, layout, task).await?, None),
                Way::Insert { looks, asks_missing } => self.insert(&mut client, *looks, *asks_missing, task).await?,
            };
            let missing = match missing {
                Some(missing) => missing,
                None if committed < task.rows.len() => self.ask_missing(&mut client, task).await?,
                None => Vec::new(),
            };
            Ok((committed, missing))
        };
        match timeout_at(task.deadline.write_end(), sent).await {
            Ok(Ok(stored)) => Ok(stored),
            Ok(Err(refusal)) => {
                let verdict = self.verdict(refusal, way, task.until);
                if verdict.needs_another_connection() {
                    Database::discard(client);
                }
                Err(verdict)
            }
            Err(_) => {
                Database::discard(client);
                // Should the request be lost, Postgres still has its own time-out.
                let _ = timeout_at(task.deadline.answer_end(), self.database.cancel(cancel)).await;
                Err(Verdict::TimeIsUp)
            }
        }
    }

    /// How many of the rows were copied. All, unless a trigger dropped some.
    async fn copy(&self, client: &mut PooledConnection, layout: &Layout, task: Task<'_>) -> Result<usize, Refused> {
        let copy = self.copy.as_ref().expect("only where rows are copied is there a layout");
        let is_limited = client.limit() == Some(task.limit);
        let mut flight = client.flight();
        if !is_limited {
            flight.statement(&sql::session_limit(task.limit), &[]);
        }
        flight.planned_statement("sqs_etl_lock", &copy.lock);
        let columns = Parameter::Encoded(0, &|out| layout.parameter(out));
        flight.kept_statement("sqs_etl_check", &copy.check, &[columns]);
        let encode = |row: &usize, out: &mut BytesMut| wire::put_row(task.arrays, &layout.fields, *row, out);
        flight.copy("sqs_etl_copy", &copy.statement, task.rows.iter(), encode).await?;
        flight.sync();
        let answers = only(flight.land().await?);
        if !is_limited {
            // An error undoes the setting, too.
            client.note_limit(answers.is_ok().then_some(task.limit));
        }
        let count = answers?.last().ok_or(Refused::Lost)?.count;
        copy.given_up.store(0, Ordering::Relaxed);
        Ok(usize::try_from(count).expect("no more rows are counted than were sent"))
    }

    /// How many of the rows were added, and which are not in the table if that was asked.
    async fn insert(
        &self,
        client: &mut PooledConnection,
        looks: bool,
        asks_missing: bool,
        task: Task<'_>,
    ) -> Result<(usize, Option<Vec<usize>>), Refused> {
        let mut flight = client.flight();
        flight.statement(sql::LIMIT, &[Parameter::Text(&task.limit.to_string())]);
        let encoders: Vec<_> = (0..task.arrays.len()).map(|i| self.array(i, task)).collect();
        let parameters: Vec<_> =
            encoders.iter().zip(&self.parameters).map(|(encode, kind)| array(*kind, encode)).collect();
        flight.statement(&self.insert, &parameters);
        let asks_missing = asks_missing && self.ask_missing_by(&mut flight, task);
        flight.sync();
        if looks {
            flight.statement(sql::LIMIT, &[Parameter::Text(&task.limit.to_string())]);
            flight.statement(table::QUESTION, &[Parameter::Text(&self.table)]);
            flight.sync();
        }
        let mut landed = flight.land().await?.into_iter();
        // A table that an insert does not fit is not copied into: the insert says what is wrong.
        let answers = only(&mut landed)?;
        if let Some(Ok(looked)) = landed.next() {
            self.look(client, &looked);
        }
        let [_, counted, missing @ ..] = &answers[..] else { return Err(Refused::Lost) };
        let committed = counted.rows.first().and_then(|row| row.number(0)).ok_or(Refused::Lost)?;
        let missing = if asks_missing { Some(places(missing.first(), task)?) } else { None };
        Ok((committed, missing))
    }

    fn look(&self, client: &mut PooledConnection, looked: &[Answer]) {
        let answer = looked.last();
        if let Some(process) = answer.and_then(table::process) {
            client.answered_by(process);
        }
        let layout = answer.and_then(|answer| Layout::read(answer, &self.columns));
        self.learn(layout.map_or(Table::TakesInserts, |layout| Table::TakesCopies(layout.into())));
    }

    /// The rows of a part that are not in the table though Postgres refused none. Only asked when some were not added.
    async fn ask_missing(&self, client: &mut PooledConnection, task: Task<'_>) -> Result<Vec<usize>, Refused> {
        if matches!(self.once, Check::InInsert) {
            return Ok(Vec::new());
        }
        let mut flight = client.flight();
        flight.statement(sql::LIMIT, &[Parameter::Text(&task.limit.to_string())]);
        self.ask_missing_by(&mut flight, task);
        flight.sync();
        places(only(flight.land().await?)?.get(1), task)
    }

    /// Adds that question to a flight; `false` if there is none.
    fn ask_missing_by(&self, flight: &mut Flight<'_>, task: Task<'_>) -> bool {
        let Check::After { missing, key } = &self.once else { return false };
        flight.statement(missing, &[array(self.parameters[*key], &self.array(*key, task))]);
        true
    }

    fn array<'a>(&self, index: usize, task: Task<'a>) -> impl Fn(&mut BytesMut) + Sync + 'a {
        let kind = self.parameters[index];
        move |out| wire::put_array(task.arrays[index], kind, task.rows, out)
    }
}

/// How many leading bits of a copy's time limit count: it is a session's setting, and set again only when these change.
/// Postgres gives up a thirty-second of the time too early at most.
const LIMIT_BITS: u32 = 6;

/// What Postgres is given of the time that is left, in milliseconds. Zero would mean for ever.
fn limit(way: &Way, left: Duration) -> u64 {
    let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).clamp(1, LONGEST_LIMIT);
    match way {
        Way::Copy(_) => {
            let dropped = (u64::BITS - left.leading_zeros()).saturating_sub(LIMIT_BITS);
            left >> dropped << dropped
        }
        Way::Insert { .. } => left,
    }
}

/// Far above Lambda's 15 minutes, and within Postgres's 31 bits.
const LONGEST_LIMIT: u64 = 1 << 30;

fn array<'a>(kind: Type, encode: &'a (dyn Fn(&mut BytesMut) + Sync)) -> Parameter<'a> {
    Parameter::Encoded(wire::wire_array(kind).oid(), encode)
}

/// Why a flight brought no rows.
enum Refused {
    Lost,
    By(ServerError),
}

impl From<Lost> for Refused {
    fn from(Lost: Lost) -> Self {
        Refused::Lost
    }
}

/// The answers of the flight's last or only transaction.
fn only(landed: impl IntoIterator<Item = Result<Vec<Answer>, ServerError>>) -> Result<Vec<Answer>, Refused> {
    landed.into_iter().next().ok_or(Refused::Lost)?.map_err(Refused::By)
}

/// Rows by their place in the part, from 1.
fn places(answer: Option<&Answer>, task: Task<'_>) -> Result<Vec<usize>, Refused> {
    let row = |place: &crate::database::connection::Row| {
        let place: usize = place.number(0)?;
        task.rows.get(place.checked_sub(1)?).copied()
    };
    answer.ok_or(Refused::Lost)?.rows.iter().map(row).collect::<Option<_>>().ok_or(Refused::Lost)
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
    /// A row is bad, for ever. The place may be that of another.
    Row {
        reason: Reason,
        place: Option<usize>,
    },
    /// A row that was copied is there already.
    Present,
    /// The copy did not begin, or found other types: what is known of the table or kept in the session is no longer so.
    Stale,
    /// It may go well in a moment.
    Transient(String),
    /// The connection is dead.
    Broken,
    TimeIsUp,
    Fatal(WriteError),
}

impl Writer {
    /// **Invariant (Silence):** of the error only the SQLSTATE and names of the schema are kept.
    fn verdict(&self, refused: Refused, way: &Way, until: Instant) -> Verdict {
        let Refused::By(error) = refused else { return Verdict::Broken };
        let is_copy = matches!(way, Way::Copy(_));
        let sqlstate = error.sqlstate.code().to_owned();
        let class = sqlstate.get(..2).unwrap_or_default();
        let is_over = Instant::now() + CLOCK_STEP >= until;
        match (class, &error.sqlstate) {
            (_, &SqlState::QUERY_CANCELED) if is_over => Verdict::TimeIsUp,
            (_, &SqlState::QUERY_CANCELED | &SqlState::LOCK_NOT_AVAILABLE) | ("40", _) => Verdict::Transient(sqlstate),
            _ if error.is_fatal => Verdict::Broken,
            // Whatever else a trigger raises, it raises it at a row.
            _ if error.routine.as_deref() == Some(RAISE) => Verdict::row(error),
            ("25" | "53" | "55" | "57" | "58" | "72" | "F0", _) => Verdict::Fatal(WriteError::Unavailable { sqlstate }),
            // An insert may do, and if not, it says better what is wrong.
            _ if is_copy && !error.is_in_copy => Verdict::Stale,
            // Our values have the form of their types.
            (_, &SqlState::INVALID_BINARY_REPRESENTATION) if is_copy => Verdict::Stale,
            (_, &SqlState::UNIQUE_VIOLATION) if is_copy => Verdict::Present,
            ("08", _) => Verdict::Broken,
            (_, &SqlState::INSUFFICIENT_PRIVILEGE) if error.routine.as_deref() == Some(ROW_SECURITY) => {
                Verdict::row(error)
            }
            // The insert's own comparison of counts; one inside a trigger or a cast has a context.
            (_, &SqlState::DIVISION_BY_ZERO) if matches!(self.once, Check::InInsert) && !error.has_context => {
                Verdict::Row { reason: Reason::Dropped, place: None }
            }
            (_, &SqlState::NOT_NULL_VIOLATION) if !self.fills(error.column.as_deref()) => {
                Verdict::Fatal(WriteError::Deployment { sqlstate })
            }
            ("42" | "3D" | "3F" | "0A" | "0L" | "0P" | "26" | "28" | "34", _) => {
                Verdict::Fatal(WriteError::Deployment { sqlstate })
            }
            ("XX", _) => Verdict::Fatal(WriteError::Unavailable { sqlstate }),
            _ => Verdict::row(error),
        }
    }

    fn fills(&self, column: Option<&str>) -> bool {
        column.is_some_and(|column| self.columns.iter().any(|(filled, _)| filled == column))
    }
}

impl Verdict {
    fn row(error: ServerError) -> Self {
        let place = error.copy_line.and_then(|line| line.checked_sub(1));
        Verdict::Row { reason: Reason::Refused(refusal(error)), place }
    }

    fn needs_another_connection(&self) -> bool {
        matches!(self, Verdict::Broken | Verdict::Stale | Verdict::Fatal(WriteError::Unavailable { .. }))
    }
}

/// The routine of PostgreSQL in which PL/pgSQL's `raise` ends. What it names as column and constraint may be anything.
const RAISE: &str = "exec_stmt_raise";

/// The routine of PostgreSQL in which row-level security refuses a row.
const ROW_SECURITY: &str = "ExecWithCheckOptions";

fn refusal(error: ServerError) -> Refusal {
    let is_raised = error.routine.as_deref() == Some(RAISE);
    let name = |name: Option<String>| name.filter(|_| !is_raised);
    Refusal {
        sqlstate: error.sqlstate.code().to_owned(),
        column: name(error.column),
        constraint: name(error.constraint),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_a_session_is_a_little_less_than_what_is_left() {
        let layout = Arc::new(Layout::natural(&[]));
        let check = |left_ms, expected| {
            let left = Duration::from_millis(left_ms);
            assert_eq!(limit(&Way::Copy(Arc::clone(&layout)), left), expected);
            let insert = Way::Insert { looks: false, asks_missing: false };
            assert_eq!(limit(&insert, left), left_ms.clamp(1, LONGEST_LIMIT));
        };
        check(0, 1);
        check(63, 63);
        check(64, 64);
        check(65, 64);
        check(28_999, 28_672);
        check(u64::MAX / 1_000_000, LONGEST_LIMIT);
    }
}
