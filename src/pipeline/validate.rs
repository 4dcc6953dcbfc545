//! From a record to a valid row: each column's source, canonical form, type, default and rules, in this order. Masks come
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

impl<'a> Valid<'a> {
    /// A row to be filled.
    pub fn empty() -> Self {
        Self { values: Vec::new(), ledger_key: None }
    }

    /// Checks a record, and what SQS says of its message, against the contract, and keeps the values in place of those of
    /// the row before. After an error it holds no row.
    pub fn fill(
        &mut self,
        record: &Record<'a>,
        message: &'a Message<'_>,
        contract: &'a Contract,
    ) -> Result<(), Reason> {
        self.values.clear();
        self.ledger_key = match contract.once {
            Once::Ledger(_) => Some(Uuid::try_parse(&message.id).map_err(|_| Reason::MessageId)?),
            Once::Column(_) => None,
        };
        for column in &contract.columns {
            self.values.push(value_of(column, record, message, contract)?);
        }
        Ok(())
    }
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
        let expected = column.checked_as();
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

fn typed<'a>(column: &Column, json: Json<'a>) -> Result<Value<'a>, Wrong> {
    if column.parse.is_some() && json != Json::Null {
        return Err(Wrong::Unfit(Unfit::WrongType));
    }
    Value::from_json(column.checked_as(), json).map_err(Wrong::Unfit)
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
        None if is_spelled => Value::from_text(column.checked_as(), text).map_err(Wrong::Unfit),
        None => Value::from_json(column.checked_as(), Json::String(text)).map_err(Wrong::Unfit),
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
        (System::MessageId, _) => Value::from_json(column.checked_as(), Json::String(Cow::Borrowed(&message.id))),
        (System::SentAt, _) => sent(Value::timestamp_from_unix_millis),
        (System::SentDate, _) => sent(Value::date_from_unix_millis),
        (System::MessageGroupId, _) => match &message.group {
            Some(group) => Value::from_json(column.checked_as(), Json::String(Cow::Borrowed(group))),
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
    // Lengths before the pattern, whose time grows with the text.
    within(&rules.limits, value, &label)?;
    if let Value::Text(text) = value {
        if !rules.one_of.is_empty() && !rules.one_of.iter().any(|one| one == text) {
            return Err(Reason::NotOneOf { field: label() });
        }
        if rules.pattern.as_ref().is_some_and(|pattern| !pattern.is_match(text)) {
            return Err(Reason::NoMatch { field: label() });
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::decode::Decoder;

    /// Validates a body against a contract with this one column and gives the column's value.
    fn validated(column: &str, body: &str) -> Result<Value<'static>, Reason> {
        let contract =
            format!("table = \"t\"\nunknown_fields = \"ignore\"\n[once]\nledger = \"l\"\n[columns.a]\n{column}");
        let contract = Contract::parse("test", &contract).expect("a faultless contract");
        let message = Message {
            id: "0f8b1c0e-6f3a-4a52-9a51-2f7d0e6f1a00".into(),
            body: None,
            sent_at: Some(1_767_225_599_999),
            group: Some("the group".into()),
            receive_count: Some(3),
            attributes: vec![("tenant".into(), "acme".into()), ("count".into(), "12".into())],
        };
        let mut decoder = Decoder::new(&contract);
        let mut row = Valid::empty();
        row.fill(decoder.decode(body)?, &message, &contract)?;
        assert!(row.ledger_key.is_some());
        Ok(row.values.remove(0).into_owned())
    }

    #[track_caller]
    fn check(column: &str, body: &str, expected: Value<'static>) {
        let found = validated(column, body);
        assert!(found == Ok(expected.clone()), "{column} from {body}: {found:?}, expected {expected:?}");
    }

    /// The reason's code.
    #[track_caller]
    fn check_refused(column: &str, body: &str, expected: &str) {
        let found = validated(column, body).map_err(|reason| reason.code());
        assert!(found == Err(expected), "{column} from {body}: {found:?}, expected {expected}");
    }

    fn text(text: &'static str) -> Value<'static> {
        Value::Text(text.into())
    }

    #[test]
    fn what_is_absent_or_null_is_null_unless_required_or_defaulted() {
        check("type = 'text'", "{}", Value::Null);
        check("type = 'text'", r#"{"a": null}"#, Value::Null);
        check("type = 'text'", r#"{"a": ""}"#, text(""));
        check("type = 'text'\ndefault = 'x'", r#"{"a": null}"#, text("x"));
        check("type = 'text'\ndefault = 'x'", r#"{"a": ""}"#, text(""));
        check("type = 'date'\ndefault = '$sent_date'", "{}", Value::Date(9_496));
        check_refused("type = 'text'\nrequired = true", "{}", "missing");
        check_refused("type = 'text'\nrequired = true", r#"{"a": ""}"#, "missing");
        check_refused("type = 'text'\nrequired = true\ncanonical = 'trim'", r#"{"a": "  "}"#, "missing");
        check_refused("type = 'integer'\nrequired = true", r#"{"a": null}"#, "missing");
    }

    #[test]
    fn rules_hold_for_the_canonical_form() {
        check("type = 'text'\ncanonical = ['trim', 'lower']\none_of = ['ios']", r#"{"a": " iOS "}"#, text("ios"));
        check_refused("type = 'text'\none_of = ['ios']", r#"{"a": "iOS"}"#, "not_one_of");
        check("type = 'text'\npattern = 'a|b'", r#"{"a": "b"}"#, text("b"));
        check_refused("type = 'text'\npattern = 'a|b'", r#"{"a": "ab"}"#, "no_match");
        check_refused("type = 'text'\npattern = 'a'", r#"{"a": "a\n"}"#, "no_match");
        check("type = 'text'\nmin = 2\nmax = 3", r#"{"a": "éé"}"#, text("éé"));
        check_refused("type = 'text'\nmin = 2", r#"{"a": "é"}"#, "too_short");
        check_refused("type = 'text'\nmax = 3", r#"{"a": "éééé"}"#, "too_long");
        check_refused("type = 'varchar(3)'", r#"{"a": "abcd"}"#, "too_long");
    }

    #[test]
    fn numbers_and_dates_stay_within_their_limits() {
        let limits = "type = 'integer'\nmin = 1\nmax = 3";
        check(limits, r#"{"a": 1}"#, Value::Integer(1));
        check(limits, r#"{"a": 3}"#, Value::Integer(3));
        check(limits, "{}", Value::Null);
        check_refused(limits, r#"{"a": 0}"#, "below_min");
        check_refused(limits, r#"{"a": 4}"#, "above_max");
        check_refused("type = 'date'\nmin = 2000-01-01", r#"{"a": "1999-12-31"}"#, "below_min");
        check_refused("type = 'numeric'\nmax = 10", r#"{"a": "10.01"}"#, "above_max");
        check_refused("type = 'double precision'\nmin = 0.5", r#"{"a": 0.25}"#, "below_min");
        check_refused(
            "type = 'timestamptz'\nmax = '2026-01-01T00:00:00Z'",
            r#"{"a": "2026-01-01T00:00:01Z"}"#,
            "above_max",
        );
    }

    #[test]
    fn versions_become_numbers_that_order_as_they_do() {
        let version = "type = 'integer'\nparse = 'version'";
        check(version, r#"{"a": "2.3.0"}"#, Value::Integer(2_003_000));
        check(version, r#"{"a": "6.02"}"#, Value::Integer(6_002_000));
        check("type = 'bigint'\nparse = 'version'", r#"{"a": "9999.0"}"#, Value::BigInt(9_999_000_000));
        check_refused(version, r#"{"a": "9999.0"}"#, "out_of_range");
        check_refused(version, r#"{"a": "1.1000"}"#, "out_of_range");
        check_refused(version, r#"{"a": ""}"#, "malformed");
        check_refused(version, r#"{"a": 2.3}"#, "wrong_type");
    }

    #[test]
    fn values_come_from_paths_attributes_and_what_sqs_knows() {
        check("type = 'text'\nfrom = 'b.c'", r#"{"b": {"x": 1, "c": "deep"}}"#, text("deep"));
        check("type = 'text'\nfrom = ['b.c', 'd']", r#"{"b.c": {"d": "dotted"}}"#, text("dotted"));
        check("type = 'text'\nfrom = 'b.c'", r#"{"b": null}"#, Value::Null);
        check_refused("type = 'text'\nfrom = 'b.c'", r#"{"b": "flat"}"#, "not_nested");
        check_refused("type = 'text'\nfrom = 'b.c'", r#"{"b": {"c": "1"}, "b": {}}"#, "duplicate_field");
        check("type = 'text'\nfrom = '$attribute.tenant'", "{}", text("acme"));
        check("type = 'integer'\nfrom = '$attribute.count'", "{}", Value::Integer(12));
        check("type = 'text'\nfrom = '$attribute.other'", "{}", Value::Null);
        check_refused("type = 'integer'\nfrom = '$attribute.tenant'", "{}", "wrong_type");
        check("type = 'text'\nfrom = '$message_group_id'", "{}", text("the group"));
        check("type = 'smallint'\nfrom = '$receive_count'", "{}", Value::SmallInt(3));
        check("type = 'timestamptz'\nfrom = '$sent_at'", "{}", Value::Timestamptz(820_540_799_999_000));
        check("type = 'text'\nfrom = '$message_id'", "{}", text("0f8b1c0e-6f3a-4a52-9a51-2f7d0e6f1a00"));
    }

    #[test]
    fn a_masked_value_is_checked_in_clear() {
        let masked = "type = 'varchar(256)'\nmask = 'hmac-sha256'\ncanonical = 'ip'\nrequired = true";
        check(masked, r#"{"a": "::ffff:192.0.2.1"}"#, text("192.0.2.1"));
        check_refused(masked, r#"{"a": "192.0.2.256"}"#, "malformed");
        check_refused(masked, r#"{"a": 3221225985}"#, "wrong_type");
    }
}
