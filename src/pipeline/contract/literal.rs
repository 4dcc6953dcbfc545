//! Literals of the contract (`default`, `min`, `max`) as values of a column's type.

use std::borrow::Cow;

use toml::de::{DeFloat, DeInteger, DeValue};

use super::super::value::{Json, Type, Unfit, Value};
use super::draft::article;

/// A literal as a value of the type, or the fault: what is wrong and what to do.
pub(super) fn literal(kind: Type, literal: &DeValue) -> Result<Value<'static>, String> {
    if let (Type::Jsonb, DeValue::String(text)) = (kind, literal)
        && matches!(serde_json::from_str(text), Ok(serde_json::Value::Object(_) | serde_json::Value::Array(_)))
    {
        return Err("would be stored as a string; write it as TOML, without quotes: {} or []".to_owned());
    }
    let number;
    let json = match (kind, literal) {
        (Type::Jsonb, literal) => return jsonb(literal),
        (_, DeValue::String(text)) => Json::String(Cow::Borrowed(text)),
        (_, DeValue::Boolean(value)) => Json::Bool(*value),
        (Type::Date | Type::Timestamptz, DeValue::Datetime(time)) => Json::String(Cow::Owned(time.to_string())),
        (_, DeValue::Integer(integer)) => {
            number = decimal(integer);
            Json::Number(&number)
        }
        (_, DeValue::Float(float)) => {
            number = without_plus(float).to_owned();
            Json::Number(&number)
        }
        _ => return Err(unfit(kind, literal, Unfit::WrongType)),
    };
    Value::from_json(kind, json).map(Value::into_owned).map_err(|reason| unfit(kind, literal, reason))
}

fn jsonb(literal: &DeValue) -> Result<Value<'static>, String> {
    let mut text = String::new();
    let is_json = write_json(literal, &mut text).is_some();
    let value = if is_json { Value::from_json(Type::Jsonb, Json::Nested(&text)) } else { Err(Unfit::Malformed) };
    value.map(Value::into_owned).map_err(|reason| unfit(Type::Jsonb, literal, reason))
}

/// Appends TOML as JSON; `None` for infinities and what is no number, which JSON lacks. Numbers keep their digits.
fn write_json(value: &DeValue, json: &mut String) -> Option<()> {
    match value {
        DeValue::String(text) => push_string(text, json),
        DeValue::Integer(integer) => json.push_str(&decimal(integer)),
        DeValue::Float(float) if float.as_str().contains(['i', 'n']) => return None,
        DeValue::Float(float) => json.push_str(without_plus(float)),
        DeValue::Boolean(value) => json.push_str(if *value { "true" } else { "false" }),
        DeValue::Datetime(time) => push_string(&time.to_string(), json),
        DeValue::Array(values) => {
            json.push('[');
            for (index, value) in values.iter().enumerate() {
                json.push_str(if index == 0 { "" } else { "," });
                write_json(value.get_ref(), json)?;
            }
            json.push(']');
        }
        DeValue::Table(entries) => {
            json.push('{');
            for (index, (key, value)) in entries.iter().enumerate() {
                json.push_str(if index == 0 { "" } else { "," });
                push_string(key.get_ref(), json);
                json.push(':');
                write_json(value.get_ref(), json)?;
            }
            json.push('}');
        }
    }
    Some(())
}

fn push_string(text: &str, json: &mut String) {
    json.push_str(&serde_json::Value::from(text).to_string());
}

/// An integer's decimal digits, whatever base it is written in. One that fits no 128 bits stays as it is: no type takes it.
fn decimal(integer: &DeInteger) -> String {
    match i128::from_str_radix(integer.as_str(), integer.radix()) {
        Ok(number) => number.to_string(),
        Err(_) => integer.as_str().to_owned(),
    }
}

/// A float's text as JSON writes it: without a plus sign in front.
fn without_plus<'f>(float: &'f DeFloat) -> &'f str {
    float.as_str().trim_start_matches('+')
}

fn unfit(kind: Type, literal: &DeValue, reason: Unfit) -> String {
    let example = example(kind);
    match reason {
        Unfit::WrongType => format!("is {}, which {kind} does not take; write {example}", article(literal)),
        Unfit::Malformed => format!("is not what {kind} takes; write {example}"),
        Unfit::OutOfRange => format!("is beyond what {kind} holds; use a value that fits, or another type"),
        Unfit::TooLong => format!("is longer than {kind} holds; shorten it, or use a longer type"),
        Unfit::Nul => format!("contains NUL, which {kind} cannot hold; remove it"),
    }
}

fn example(kind: Type) -> &'static str {
    match kind {
        Type::SmallInt | Type::Integer | Type::BigInt => "an integer without quotes, such as 7",
        Type::DoublePrecision => "a number without quotes, such as 0.5",
        Type::Numeric => "a number, such as 0.50",
        Type::Boolean => "true or false, without quotes",
        Type::Text | Type::Varchar(_) => "a text in quotes",
        Type::Uuid => "one such as \"00000000-0000-0000-0000-000000000000\"",
        Type::Date => "one such as \"2026-01-31\"",
        Type::Timestamptz => "one with an offset, such as \"2026-01-31T08:15:00Z\"",
        Type::Inet => "one such as \"192.0.2.1\"",
        Type::Jsonb => "what JSON can say",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: Type, toml: &str, expected: Result<Value<'static>, &str>) {
        let (value, errors) = DeValue::parse_recoverable(toml);
        assert!(errors.is_empty(), "{toml}: {errors:?}");
        let found = literal(kind, value.get_ref());
        match (&found, &expected) {
            (Ok(found), Ok(expected)) => assert!(found == expected, "{kind} from {toml}"),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{kind} from {toml}: {found}"),
            _ => panic!("{kind} from {toml}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn integers_may_be_written_in_every_way_of_toml() {
        check(Type::Integer, "1_000", Ok(Value::Integer(1000)));
        check(Type::Integer, "+7", Ok(Value::Integer(7)));
        check(Type::SmallInt, "0x10", Ok(Value::SmallInt(16)));
        check(Type::SmallInt, "40000", Err("beyond what smallint holds"));
        check(Type::Integer, "\"7\"", Err("is a string"));
        check(Type::Integer, "7.0", Err("with a fraction"));
        check(Type::BigInt, "9_223_372_036_854_775_808", Err("beyond"));
        check(Type::BigInt, "99999999999999999999999999999999999999999999999", Err("beyond"));
    }

    #[test]
    fn fractions_keep_their_digits() {
        check(Type::Numeric, "0.10", Ok(Value::Numeric("0.10".into())));
        check(Type::Numeric, "\"0.10\"", Ok(Value::Numeric("0.10".into())));
        check(Type::DoublePrecision, "+1.5", Ok(Value::Double(1.5)));
        check(Type::DoublePrecision, "2", Ok(Value::Double(2.0)));
        check(Type::DoublePrecision, "inf", Err("beyond"));
        check(Type::DoublePrecision, "nan", Err("beyond"));
        check(Type::Numeric, "inf", Err("not what numeric takes"));
    }

    #[test]
    fn dates_and_instants_may_go_without_quotes() {
        check(Type::Date, "2000-01-02", Ok(Value::Date(1)));
        check(Type::Date, "\"2000-01-02\"", Ok(Value::Date(1)));
        check(Type::Date, "2000-01-02T00:00:00Z", Err("not what date takes"));
        check(Type::Timestamptz, "2000-01-01 00:00:00Z", Ok(Value::Timestamptz(0)));
        check(Type::Timestamptz, "2000-01-01T00:00:00", Err("with an offset"));
        check(Type::Text, "2000-01-02", Err("a date or time"));
    }

    #[test]
    fn json_is_written_as_toml() {
        let ok = |json: &'static str| Ok(Value::Jsonb(json.into()));
        check(Type::Jsonb, "{}", ok("{}"));
        check(
            Type::Jsonb,
            r#"{ a = [1, 2.50, "x\"", true, 0x10], b.c = 2000-01-02 }"#,
            ok(r#"{"a":[1,2.50,"x\"",true,16],"b":{"c":"2000-01-02"}}"#),
        );
        check(Type::Jsonb, "\"x\"", ok("\"x\""));
        check(Type::Jsonb, "\"{}\"", Err("without quotes"));
        check(Type::Jsonb, "[nan]", Err("what JSON can say"));
        check(Type::Jsonb, r#""\u0000""#, Err("NUL"));
    }
}
