//! From a record to a valid row: each column's source, default, canonical form, type and rules, in this order. Masks come
//! later: personal values are still in clear here, in their canonical form.

use std::borrow::Cow;

use super::canonical::canonical;
use super::contract::{Canonical, Column, Contract, DefaultValue, FieldName, Limits, Once, Parse, Source, System};
use super::message::Message;
use super::outcome::{Form, Reason};
use super::record::Record;
use super::value::{Json, Type, Unfit, Value, is_longer_than};

use uuid::Uuid;

/// A row that satisfies the contract: one value a column, in the contract's order.
///
/// **Invariant (Seal):** `write` does not take this; only `mask` does.
#[derive(Debug)]
pub struct Valid<'a> {
    pub(super) values: Vec<Value<'a>>,
    /// The message's id where a ledger keeps it.
    pub(super) ledger_key: Option<Uuid>,
}

/// Checks a record, and what SQS says of its message, against the contract.
pub fn validate<'a>(
    record: &Record<'a>,
    message: &'a Message<'_>,
    contract: &'a Contract,
) -> Result<Valid<'a>, Reason> {
    let ledger_key = match contract.once {
        Once::Ledger(_) => Some(Uuid::try_parse(&message.id).map_err(|_| Reason::MessageId)?),
        Once::Column(_) => None,
    };
    let values =
        contract.columns.iter().map(|column| value_of(column, record, message, contract)).collect::<Result<_, _>>()?;
    Ok(Valid { values, ledger_key })
}

fn value_of<'a>(
    column: &'a Column,
    record: &Record<'a>,
    message: &'a Message<'_>,
    contract: &'a Contract,
) -> Result<Value<'a>, Reason> {
    let label = || contract.label(column);
    let found = match &column.source {
        Source::Field(field) => match record.get(*field) {
            // Before the canonical form, which may call an empty text malformed.
            Some(Json::String(text)) if text.is_empty() && column.required => {
                return Err(Reason::Missing { field: label() });
            }
            Some(Json::String(text)) => typed_text(column, text.clone(), false).map_err(|e| e.at(label(), column))?,
            Some(json) => typed(column, json.clone()).map_err(|e| e.at(label(), column))?,
            None => Value::Null,
        },
        Source::Attribute(name) => match message.attribute(name) {
            Some(text) => typed_text(column, Cow::Borrowed(text), true).map_err(|e| e.at(label(), column))?,
            None => Value::Null,
        },
        Source::System(system) => system_value(*system, column, message, label)?,
    };
    let value = match (found, &column.default) {
        (Value::Null, Some(DefaultValue::Value(value))) => value.clone(),
        (Value::Null, Some(DefaultValue::System(system))) => system_value(*system, column, message, label)?,
        (found, _) => found,
    };
    check(column, &value, label)?;
    Ok(value)
}

/// Why a value is not one of its column.
enum Wrong {
    Unfit(Unfit),
    NotAnAddress,
    NotAVersion,
}

impl Wrong {
    fn at(self, field: FieldName, column: &Column) -> Reason {
        let expected = input_type(column);
        match self {
            Wrong::NotAnAddress => Reason::Malformed { field, expected: Form::IpAddress },
            Wrong::NotAVersion => Reason::Malformed { field, expected: Form::Version },
            Wrong::Unfit(Unfit::WrongType) if column.parse.is_some() => {
                Reason::WrongType { field, expected: Type::Text }
            }
            Wrong::Unfit(Unfit::WrongType) => Reason::WrongType { field, expected },
            Wrong::Unfit(Unfit::Malformed) => Reason::Malformed { field, expected: Form::Type(expected) },
            Wrong::Unfit(Unfit::OutOfRange) => Reason::OutOfRange { field, expected },
            Wrong::Unfit(Unfit::TooLong) => match expected {
                Type::Varchar(max) => Reason::TooLong { field, max },
                _ => Reason::OutOfRange { field, expected },
            },
            Wrong::Unfit(Unfit::Nul) => Reason::Nul { field },
        }
    }
}

/// The type of the value before its mask: a mask takes any text and makes one that fits the column.
fn input_type(column: &Column) -> Type {
    if column.mask.is_some() { Type::Text } else { column.kind }
}

fn typed<'a>(column: &Column, json: Json<'a>) -> Result<Value<'a>, Wrong> {
    if column.parse.is_some() && json != Json::Null {
        return Err(Wrong::Unfit(Unfit::WrongType));
    }
    Value::from_json(input_type(column), json).map_err(Wrong::Unfit)
}

/// `is_spelled`: the text may stand for a value of another type, because its source knows no types.
fn typed_text<'a>(column: &Column, text: Cow<'a, str>, is_spelled: bool) -> Result<Value<'a>, Wrong> {
    let mut text = text;
    for form in &column.canonical {
        text = canonical(*form, text).ok_or(match form {
            Canonical::Ip => Wrong::NotAnAddress,
            _ => Wrong::Unfit(Unfit::Malformed),
        })?;
    }
    match column.parse {
        Some(Parse::Version) => version(&text, column.kind),
        None if is_spelled => Value::from_text(input_type(column), text).map_err(Wrong::Unfit),
        None => Value::from_json(input_type(column), Json::String(text)).map_err(Wrong::Unfit),
    }
}

/// Minor and patch level stay below this, so that each has three digits of its own.
const VERSION_PART: u32 = 1_000;

/// `major[.minor[.patch]]` as one number that orders as versions do: `major * 1_000_000 + minor * 1_000 + patch`.
fn version(text: &str, kind: Type) -> Result<Value<'static>, Wrong> {
    let mut parts = [0_i64; 3];
    for (i, part) in text.split('.').enumerate() {
        let is_number = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if i == parts.len() || !is_number {
            return Err(Wrong::NotAVersion);
        }
        let number: u32 = part.parse().map_err(|_| Wrong::Unfit(Unfit::OutOfRange))?;
        if i > 0 && number >= VERSION_PART {
            return Err(Wrong::Unfit(Unfit::OutOfRange));
        }
        parts[i] = i64::from(number);
    }
    let step = i64::from(VERSION_PART);
    let number = (parts[0] * step + parts[1]) * step + parts[2];
    match kind {
        Type::BigInt => Ok(Value::BigInt(number)),
        _ => i32::try_from(number).map(Value::Integer).map_err(|_| Wrong::Unfit(Unfit::OutOfRange)),
    }
}

fn system_value<'a>(
    system: System,
    column: &Column,
    message: &'a Message<'_>,
    label: impl Fn() -> FieldName,
) -> Result<Value<'a>, Reason> {
    let sent = |to: fn(i64) -> Result<Value<'static>, Unfit>| message.sent_at.map_or(Ok(Value::Null), to);
    let value = match (system, column.kind) {
        (System::MessageId, Type::Uuid) => {
            return Uuid::try_parse(&message.id).map(Value::Uuid).map_err(|_| Reason::MessageId);
        }
        (System::MessageId, _) => Value::from_json(input_type(column), Json::String(Cow::Borrowed(&message.id))),
        (System::SentAt, _) => sent(Value::timestamp_from_unix_millis),
        (System::SentDate, _) => sent(Value::date_from_unix_millis),
        (System::MessageGroupId, _) => match &message.group {
            Some(group) => Value::from_json(input_type(column), Json::String(Cow::Borrowed(group))),
            None => Ok(Value::Null),
        },
        (System::ReceiveCount, kind) => match message.receive_count {
            Some(count) => Value::from_text(kind, Cow::Owned(count.to_string())),
            None => Ok(Value::Null),
        },
    };
    value.map_err(|unfit| Wrong::Unfit(unfit).at(label(), column))
}

fn check(column: &Column, value: &Value<'_>, label: impl Fn() -> FieldName) -> Result<(), Reason> {
    let is_empty = match value {
        Value::Null => true,
        Value::Text(text) => text.is_empty(),
        _ => false,
    };
    if column.required && is_empty {
        return Err(Reason::Missing { field: label() });
    }
    let rules = &column.rules;
    if let Value::Text(text) = value {
        if !rules.one_of.is_empty() && !rules.one_of.iter().any(|one| one == text) {
            return Err(Reason::NotOneOf { field: label() });
        }
        if rules.pattern.as_ref().is_some_and(|pattern| !pattern.is_match(text)) {
            return Err(Reason::NoMatch { field: label() });
        }
    }
    within(&rules.limits, value, label)
}

fn within(limits: &Limits, value: &Value<'_>, label: impl Fn() -> FieldName) -> Result<(), Reason> {
    match (limits, value) {
        (Limits::Length { min, max }, Value::Text(text)) => match (min, max) {
            (Some(min), _) if *min > 0 && !is_longer_than(text, min - 1) => {
                Err(Reason::TooShort { field: label(), min: *min })
            }
            (_, Some(max)) if is_longer_than(text, *max) => Err(Reason::TooLong { field: label(), max: *max }),
            _ => Ok(()),
        },
        (Limits::Range { min, max }, value) => {
            let compared = |to: &Option<Value<'static>>| to.as_ref().and_then(|to| value.compare(to));
            if compared(min).is_some_and(std::cmp::Ordering::is_lt) {
                Err(Reason::BelowMin { field: label() })
            } else if compared(max).is_some_and(std::cmp::Ordering::is_gt) {
                Err(Reason::AboveMax { field: label() })
            } else {
                Ok(())
            }
        }
        _ => Ok(()),
    }
}
