//! The statements of a contract, as text: the copy with what must precede it, the insert that is idempotent, and the question
//! which rows are missing.

use crate::pipeline::contract::{Column, Contract, Once, TableName};
use crate::pipeline::value::Type;

/// `insert into "t" ("a", "b") select "c0", "c1" from unnest($1, $2) …`, idempotent by the contract's way.
pub(super) fn insert(contract: &Contract) -> String {
    let count = contract.columns.len();
    let targets = list(contract.columns.iter().map(Column::quoted));
    let values = list(contract.columns.iter().enumerate().map(|(i, column)| format!("c{i}{}", cast(column.kind))));
    let names = list((0..count).map(|i| format!("c{i}")));
    let table = contract.table.quoted();
    match &contract.once {
        // The last condition is always true. It has Postgres compare the types of key and column at the first batch, not at
        // the first redelivery.
        Once::Column(key) => {
            let parameters = list((1..=count).map(|i| format!("${i}")));
            let kind = contract.columns[*key].kind;
            let key = contract.columns[*key].quoted();
            format!(
                "with kept as (insert into {table} ({targets}) select {values} from unnest({parameters}) as d({names}) \
                 on conflict ({key}) do nothing returning 1) select count(*) from kept \
                 where not exists (select from {table} as t where t.{key} = null::{kind} and false)"
            )
        }
        Once::Ledger(ledger) => insert_with_ledger(ledger, &table, &targets, &values, &names, count),
    }
}

/// Puts rows into the table without asking whether they are there; fails if one is.
pub(super) fn copy(contract: &Contract) -> String {
    let targets = list(contract.columns.iter().map(Column::quoted));
    format!("copy {} ({targets}) from stdin (format binary)", contract.table.quoted())
}

/// Limits the time of the transaction's statements: `$1` in milliseconds. The setting is the transaction's own.
pub(super) const LIMIT: &str = "select set_config('statement_timeout', $1, true)";

/// Limits the time of the session's statements, in milliseconds.
pub(super) fn session_limit(millis: u64) -> String {
    format!("set statement_timeout = {millis}")
}

/// Has Postgres plan the insert that is idempotent, of no row: it fails if nothing makes the key unique any more, and locks the
/// table for the transaction, so that what is checked next stays so.
pub(super) fn lock(contract: &Contract, key: usize) -> String {
    let column = &contract.columns[key];
    format!(
        "insert into {} ({key}) select null::{} where false on conflict ({key}) do nothing",
        contract.table.quoted(),
        column.kind,
        key = column.quoted(),
    )
}

/// Fails if the table has other columns than `$1` says, which is a row of it. It reads from the table, so that Postgres looks
/// the name up again when the table was renamed.
pub(super) fn check(contract: &Contract) -> String {
    let table = contract.table.quoted();
    format!("select $1::{table} is null from {table} where false")
}

/// The keys' places, from 1, whose rows are not in the table.
pub(super) fn missing(contract: &Contract, key: usize) -> String {
    let column = &contract.columns[key];
    format!(
        "select place from unnest($1) with ordinality as d(c0, place) \
         where not exists (select from {} as t where t.{} = c0{})",
        contract.table.quoted(),
        column.quoted(),
        cast(column.kind)
    )
}

/// The ledger's insert decides which messages are new; in the same statement, so both tables say the same. If the table
/// keeps fewer rows than there are new messages, the division by zero undoes both.
fn insert_with_ledger(
    ledger: &TableName,
    table: &str,
    targets: &str,
    values: &str,
    names: &str,
    count: usize,
) -> String {
    let ledger = ledger.quoted();
    let parameters = list((1..=count + 1).map(|i| format!("${i}")));
    format!(
        "with d as (select distinct on (id) * from unnest({parameters}) with ordinality as u(id, {names}, place) \
         order by id, place), \
         fresh as (insert into {ledger} (message_id) select id from d on conflict (message_id) do nothing \
         returning message_id), \
         kept as (insert into {table} ({targets}) select {values} from d join fresh on fresh.message_id = d.id \
         order by d.place returning 1) \
         select kept / (kept = fresh)::integer from (select (select count(*) from kept) as kept, \
         (select count(*) from fresh) as fresh) as counted"
    )
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// What turns the travelling type into the column's.
fn cast(kind: Type) -> &'static str {
    match kind {
        Type::Numeric => "::numeric",
        Type::Inet => "::inet",
        Type::Jsonb => "::jsonb",
        _ => "",
    }
}
