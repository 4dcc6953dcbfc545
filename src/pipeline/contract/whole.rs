//! A draft as a contract: what columns, table and `[once]` must agree on among themselves.

use std::collections::HashMap;
use std::ops::Range;

use super::super::value::Type;
use super::column::{column, is_masked, source_of};
use super::draft::{ColumnDraft, DefaultDraft, Draft, Given, SourceDraft, column_place};
use super::faults::{Notes, Scope, meant, shown};
use super::{Clash, Column, Contract, Fields, Once, Rules, Source, System, UnknownFields};

/// Makes the contract. If a fault was noted it must not be used.
pub(super) fn contract(draft: &Draft, notes: &mut Notes) -> Option<Contract> {
    missing(draft, notes);
    let empty = Vec::new();
    let drafts = draft.columns.value().unwrap_or(&empty);
    if !is_number_of_columns(draft, drafts.len(), notes) {
        return None;
    }
    let mut fields = Fields::default();
    let mut columns: Vec<Column> = drafts.iter().map(|draft| checked(draft, &mut fields, notes)).collect();
    masked_and_clear(drafts, notes);
    let once = once(draft, &mut columns, notes);
    Some(Contract {
        table: draft.table.value()?.clone(),
        unknown_fields: draft.unknown_fields.value().copied().unwrap_or(UnknownFields::Reject),
        once: once?,
        columns,
        fields,
    })
}

fn missing(draft: &Draft, notes: &mut Notes) {
    let mut add = |message: &str| notes.add(0..0, message);
    if draft.table.is_absent() {
        add("the table is missing; add table = \"user_logins\", say, at the top");
    }
    if draft.once.is_absent() {
        add(
            "[once] is missing: without it a redelivered message would be stored twice; add it with column = \"message_id\", \
             or with ledger = \"sqs_etl_messages\"",
        );
    }
    if draft.columns.is_absent() {
        add("there are no columns; add a table [columns.NAME] with type = \"text\", say, for each");
    }
}

fn is_number_of_columns(draft: &Draft, number: usize, notes: &mut Notes) -> bool {
    /// PostgreSQL's limit of columns in a table.
    const MOST: usize = 1600;
    match &draft.columns {
        Given::As(at, _) if number == 0 => {
            notes.add(
                at.clone(),
                "there are no columns; add a table [columns.NAME] with type = \"text\", say, for each",
            );
        }
        Given::As(at, _) if number > MOST => {
            notes.add(
                at.clone(),
                format!("{number} columns are more than the {MOST} that PostgreSQL's tables can have; remove some"),
            );
            return false;
        }
        _ => {}
    }
    true
}

fn checked(draft: &ColumnDraft, fields: &mut Fields, notes: &mut Notes) -> Column {
    let mut scope = notes.of(column_place(&draft.name));
    let source = match source_of(draft) {
        SourceDraft::Path(path) if !matches!(draft.from, Given::Faulty) => field(draft, &path, fields, &mut scope),
        SourceDraft::Path(_) => Source::Field(0),
        SourceDraft::System(system) => Source::System(system),
        SourceDraft::Attribute(name) => Source::Attribute(name),
    };
    column(draft, source, &mut scope)
}

fn field(draft: &ColumnDraft, path: &[String], fields: &mut Fields, scope: &mut Scope) -> Source {
    let own = shown(&path.join("."));
    let fault = match fields.add(path) {
        Ok(index) => return Source::Field(index),
        Err(Clash::Inside(whole)) => format!(
            "it reads {own}, and another column reads {} as a whole; read either the whole or its parts",
            shown(whole.as_str())
        ),
        Err(Clash::Around) => {
            format!(
                "it reads {own} as a whole, and another column reads a part of it; read either the whole or its parts"
            )
        }
        Err(Clash::SameName) => {
            format!(
                "it reads {own}, and so is called another field with dots in its names; messages could not tell them apart"
            )
        }
    };
    scope.add(draft.from.place().unwrap_or(draft.at.clone()), fault);
    Source::Field(0)
}

/// A source that one column masks must not be stored in clear by another, be it as a default.
fn masked_and_clear(drafts: &[ColumnDraft], notes: &mut Notes) {
    let known = || drafts.iter().filter(|draft| !matches!(draft.from, Given::Faulty));
    // What is no text cannot be masked, which is told of elsewhere.
    let is_no_text = |draft: &ColumnDraft| matches!(draft.from.value(), Some(SourceDraft::System(s)) if !s.is_text());
    let masked: HashMap<SourceDraft, &str> = known()
        .filter(|draft| is_masked(draft) && !is_no_text(draft))
        .map(|draft| (source_of(draft), draft.name.as_str()))
        .collect();
    for draft in known().filter(|draft| !is_masked(draft)) {
        let source = (draft.from.place().unwrap_or(draft.at.clone()), source_of(draft));
        let default = match draft.default.with_place() {
            Some((at, DefaultDraft::System(system))) => Some((at, SourceDraft::System(*system))),
            _ => None,
        };
        for (at, source) in std::iter::once(source).chain(default) {
            if let Some(other) = masked.get(&source) {
                let other = column_place(other);
                let fault =
                    format!("it stores in clear what {other} masks; mask it here too, or remove the mask there");
                notes.of(column_place(&draft.name)).add(at, fault);
            }
        }
    }
}

fn once(draft: &Draft, columns: &mut Vec<Column>, notes: &mut Notes) -> Option<Once> {
    let (at, once) = draft.once.with_place()?;
    match (&once.column, &once.ledger) {
        (Given::Absent, Given::Absent) => {
            notes.add(at, "[once] is empty; add column = \"message_id\", or ledger = \"sqs_etl_messages\"");
            None
        }
        (Given::As(at, name), Given::Absent) => Some(Once::Column(key_column(name, at.clone(), draft, columns, notes))),
        (Given::Absent, Given::As(at, ledger)) => {
            if draft.table.value() == Some(ledger) {
                notes.add(
                    at.clone(),
                    "the ledger is the table itself; name another table, such as ledger = \"sqs_etl_messages\"",
                );
            }
            Some(Once::Ledger(ledger.clone()))
        }
        (Given::As(..) | Given::Faulty, Given::As(at, _)) => {
            notes.add(at.clone(), "[once] has both column and ledger; remove one");
            None
        }
        _ => None,
    }
}

/// The index of the column that makes redelivery harmless; if the contract does not declare it, it is added as the first.
fn key_column(name: &str, at: Range<usize>, draft: &Draft, columns: &mut Vec<Column>, notes: &mut Notes) -> usize {
    let drafts = draft.columns.value().map(Vec::as_slice).unwrap_or_default();
    match drafts.iter().position(|draft| draft.name == name) {
        Some(index) => {
            if let Some(fault) = fault_of_key(&drafts[index], &columns[index]) {
                notes.add(at, format!("{} cannot be the one of [once]: {fault}", column_place(name)));
            }
            index
        }
        None => {
            if let Some(meant) = meant(name, drafts.iter().map(|draft| draft.name.as_str())) {
                notes.add(at, format!("{} is not declared; did you mean {}?", column_place(name), shown(meant)));
            }
            columns.insert(0, message_id(name));
            0
        }
    }
}

/// Why a column cannot tell messages apart.
fn fault_of_key(draft: &ColumnDraft, column: &Column) -> Option<String> {
    let source = match draft.from.value() {
        Some(SourceDraft::System(system)) => Some(*system),
        _ => None,
    };
    if let Some(mask) = column.mask.as_ref().filter(|mask| !mask.is_injective()) {
        Some(format!("\"{}\" makes different values equal; use mask = \"hmac-sha256\", or another column", mask.name()))
    } else if column.kind == Type::Jsonb {
        Some("it is jsonb; use a column of another type".to_owned())
    } else if let Some(system) = source.filter(|system| *system != System::MessageId) {
        Some(format!("\"{system}\" does not tell messages apart; use from = \"$message_id\""))
    } else if source.is_none() && matches!(draft.required, Given::Absent | Given::As(_, false)) {
        Some("it may be null, and nulls are never equal; add required = true, or from = \"$message_id\"".to_owned())
    } else {
        None
    }
}

/// The key column as it is when the contract only names it.
fn message_id(name: &str) -> Column {
    Column {
        name: name.to_owned(),
        source: Source::System(System::MessageId),
        kind: Type::Uuid,
        required: true,
        default: None,
        canonical: Vec::new(),
        parse: None,
        rules: Rules::default(),
        mask: None,
    }
}
