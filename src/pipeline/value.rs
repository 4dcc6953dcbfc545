//! A value as a column stores it, and how JSON becomes one. Nothing here knows of contracts, masks or Postgres's wire format.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;

use jiff::civil;
use jiff::fmt::temporal::Pieces;
use uuid::Uuid;

/// A column's type, as PostgreSQL names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    SmallInt,
    Integer,
    BigInt,
    DoublePrecision,
    Numeric,
    Boolean,
    Text,
    /// `varchar(n)`: at most `n` characters (not bytes), as PostgreSQL counts.
    Varchar(u32),
    Uuid,
    Date,
    Timestamptz,
    Inet,
    Jsonb,
}

impl Type {
    /// Whether values are strings that a mask, a canonical form or a pattern can work on.
    pub fn is_text(self) -> bool {
        matches!(self, Type::Text | Type::Varchar(_))
    }

    /// Whether the type has an order that `min` and `max` can use.
    pub fn is_ordered(self) -> bool {
        !matches!(self, Type::Boolean | Type::Uuid | Type::Inet | Type::Jsonb)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Type::SmallInt => "smallint",
            Type::Integer => "integer",
            Type::BigInt => "bigint",
            Type::DoublePrecision => "double precision",
            Type::Numeric => "numeric",
            Type::Boolean => "boolean",
            Type::Text => "text",
            Type::Varchar(n) => return write!(f, "varchar({n})"),
            Type::Uuid => "uuid",
            Type::Date => "date",
            Type::Timestamptz => "timestamptz",
            Type::Inet => "inet",
            Type::Jsonb => "jsonb",
        };
        f.write_str(name)
    }
}

/// One JSON value of a record. Numbers, arrays and objects keep their text, so that no digit is lost.
#[derive(Clone, PartialEq)]
pub enum Json<'a> {
    Null,
    Bool(bool),
    /// The number's own text.
    Number(&'a str),
    /// The string, unescaped.
    String(Cow<'a, str>),
    /// An array's or object's own text; checked to be JSON, but not what its strings say.
    Nested(&'a str),
}

/// **Invariant (Silence):** names the kind, never the value.
impl fmt::Debug for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Json::Null => "Null",
            Json::Bool(_) => "Bool(..)",
            Json::Number(_) => "Number(..)",
            Json::String(_) => "String(..)",
            Json::Nested(_) => "Nested(..)",
        })
    }
}

/// A value as its column stores it.
#[derive(Clone, PartialEq)]
pub enum Value<'a> {
    Null,
    SmallInt(i16),
    Integer(i32),
    BigInt(i64),
    Double(f64),
    /// A decimal number's text, within what `numeric` holds.
    Numeric(Cow<'a, str>),
    Boolean(bool),
    /// `text` or `varchar`.
    Text(Cow<'a, str>),
    Uuid(Uuid),
    /// Days since 2000-01-01.
    Date(i32),
    /// Microseconds since 2000-01-01T00:00:00Z.
    Timestamptz(i64),
    /// An address, with `/bits` where it was given.
    Inet(Cow<'a, str>),
    /// A JSON text that `jsonb` takes.
    Jsonb(Cow<'a, str>),
}

/// **Invariant (Silence):** names the kind, never the value.
impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Value::Null => "Null",
            Value::SmallInt(_) => "SmallInt(..)",
            Value::Integer(_) => "Integer(..)",
            Value::BigInt(_) => "BigInt(..)",
            Value::Double(_) => "Double(..)",
            Value::Numeric(_) => "Numeric(..)",
            Value::Boolean(_) => "Boolean(..)",
            Value::Text(_) => "Text(..)",
            Value::Uuid(_) => "Uuid(..)",
            Value::Date(_) => "Date(..)",
            Value::Timestamptz(_) => "Timestamptz(..)",
            Value::Inet(_) => "Inet(..)",
            Value::Jsonb(_) => "Jsonb(..)",
        })
    }
}

/// Why a JSON value cannot be stored in a column of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Another JSON type than the column takes.
    WrongType,
    /// The right JSON type, but not what it should say (a date, a uuid, a JSON text that Postgres takes).
    Malformed,
    /// A number or date that the column cannot hold.
    OutOfRange,
    /// More characters than the column holds.
    TooLong,
    /// A NUL character, which PostgreSQL's text cannot hold.
    Nul,
}

impl<'a> Value<'a> {
    /// Turns a JSON value into one of the type; `null` is [`Value::Null`] for every type.
    ///
    /// What this accepts, PostgreSQL accepts for a column of that type.
    pub fn from_json(kind: Type, json: Json<'a>) -> Result<Self, Unfit> {
        match (kind, json) {
            (_, Json::Null) => Ok(Value::Null),
            (Type::SmallInt, Json::Number(n)) => integer(n).map(Value::SmallInt),
            (Type::Integer, Json::Number(n)) => integer(n).map(Value::Integer),
            (Type::BigInt, Json::Number(n)) => integer(n).map(Value::BigInt),
            (Type::DoublePrecision, Json::Number(n)) => double(n),
            (Type::Numeric, Json::Number(n)) => numeric(Cow::Borrowed(n)),
            (Type::Numeric, Json::String(s)) => numeric(s),
            (Type::Boolean, Json::Bool(b)) => Ok(Value::Boolean(b)),
            (Type::Text, Json::String(s)) => text(s, None),
            (Type::Varchar(max), Json::String(s)) => text(s, Some(max)),
            (Type::Uuid, Json::String(s)) => Uuid::try_parse(&s).map(Value::Uuid).map_err(|_| Unfit::Malformed),
            (Type::Date, Json::String(s)) => date(&s),
            (Type::Timestamptz, Json::String(s)) => timestamp(&s),
            (Type::Inet, Json::String(s)) => inet(s),
            (Type::Jsonb, json) => jsonb(json),
            _ => Err(Unfit::WrongType),
        }
    }

    /// Turns a string that stands for a value of any type into one: message attributes and literals are always strings.
    pub fn from_text(kind: Type, text: Cow<'a, str>) -> Result<Self, Unfit> {
        match kind {
            Type::SmallInt => integer(&text).map(Value::SmallInt),
            Type::Integer => integer(&text).map(Value::Integer),
            Type::BigInt => integer(&text).map(Value::BigInt),
            Type::DoublePrecision if is_number(&text) => double(&text),
            Type::DoublePrecision => Err(Unfit::Malformed),
            Type::Boolean => match text.as_ref() {
                "true" => Ok(Value::Boolean(true)),
                "false" => Ok(Value::Boolean(false)),
                _ => Err(Unfit::Malformed),
            },
            _ => Value::from_json(kind, Json::String(text)),
        }
    }

    /// The instant `millis` after 1970-01-01T00:00:00Z as `timestamptz`.
    pub fn timestamp_from_unix_millis(millis: i64) -> Result<Self, Unfit> {
        let instant = jiff::Timestamp::from_millisecond(millis).map_err(|_| Unfit::OutOfRange)?;
        Ok(timestamp_value(instant))
    }

    /// The UTC date of the instant `millis` after 1970-01-01T00:00:00Z.
    pub fn date_from_unix_millis(millis: i64) -> Result<Self, Unfit> {
        let instant = jiff::Timestamp::from_millisecond(millis).map_err(|_| Unfit::OutOfRange)?;
        let days = instant.as_millisecond().div_euclid(MILLIS_PER_DAY) - POSTGRES_EPOCH_UNIX_DAYS;
        i32::try_from(days).map(Value::Date).map_err(|_| Unfit::OutOfRange)
    }

    /// The same value, owning its text.
    pub fn into_owned(self) -> Value<'static> {
        let own = |s: Cow<'a, str>| Cow::Owned(s.into_owned());
        match self {
            Value::Null => Value::Null,
            Value::SmallInt(v) => Value::SmallInt(v),
            Value::Integer(v) => Value::Integer(v),
            Value::BigInt(v) => Value::BigInt(v),
            Value::Double(v) => Value::Double(v),
            Value::Numeric(s) => Value::Numeric(own(s)),
            Value::Boolean(v) => Value::Boolean(v),
            Value::Text(s) => Value::Text(own(s)),
            Value::Uuid(v) => Value::Uuid(v),
            Value::Date(v) => Value::Date(v),
            Value::Timestamptz(v) => Value::Timestamptz(v),
            Value::Inet(s) => Value::Inet(own(s)),
            Value::Jsonb(s) => Value::Jsonb(own(s)),
        }
    }

    /// How two values of one ordered type compare; `None` for types without an order. `numeric` compares as `double precision`.
    pub fn compare(&self, other: &Value<'_>) -> Option<Ordering> {
        match (self, other) {
            (Value::SmallInt(a), Value::SmallInt(b)) => Some(a.cmp(b)),
            (Value::Integer(a), Value::Integer(b)) => Some(a.cmp(b)),
            (Value::BigInt(a), Value::BigInt(b)) => Some(a.cmp(b)),
            (Value::Double(a), Value::Double(b)) => a.partial_cmp(b),
            (Value::Numeric(a), Value::Numeric(b)) => a.parse::<f64>().ok()?.partial_cmp(&b.parse::<f64>().ok()?),
            (Value::Date(a), Value::Date(b)) => Some(a.cmp(b)),
            (Value::Timestamptz(a), Value::Timestamptz(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

/// Digits that `numeric` holds before and after the decimal point (PostgreSQL 17, table 8.2).
const NUMERIC_DIGITS_BEFORE: i64 = 131_072;
const NUMERIC_DIGITS_AFTER: i64 = 16_383;

fn integer<T: TryFrom<i64>>(text: &str) -> Result<T, Unfit> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Unfit::WrongType);
    }
    let wide: i64 = text.parse().map_err(|_| Unfit::OutOfRange)?;
    T::try_from(wide).map_err(|_| Unfit::OutOfRange)
}

fn double(text: &str) -> Result<Value<'static>, Unfit> {
    let value: f64 = text.parse().map_err(|_| Unfit::Malformed)?;
    if value.is_finite() { Ok(Value::Double(value)) } else { Err(Unfit::OutOfRange) }
}

fn numeric(text: Cow<'_, str>) -> Result<Value<'_>, Unfit> {
    if !is_number(&text) {
        return Err(Unfit::Malformed);
    }
    if numeric_fits(&text) { Ok(Value::Numeric(text)) } else { Err(Unfit::OutOfRange) }
}

/// Whether the text is a number by JSON's grammar.
fn is_number(text: &str) -> bool {
    let rest = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (rest, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    digits(whole)
        && !(whole.len() > 1 && whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|e| digits(e.strip_prefix(['+', '-']).unwrap_or(e)))
}

/// Whether `numeric` holds a number of JSON's grammar without overflow. Leading zeros of the fraction count as digits.
fn numeric_fits(number: &str) -> bool {
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>()),
        None => (number, Ok(0)),
    };
    let Ok(exponent) = exponent.map(i64::from) else { return false };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let before = i64::try_from(whole.trim_start_matches('-').len()).unwrap_or(i64::MAX);
    let after = i64::try_from(fraction.len()).unwrap_or(i64::MAX);
    before.saturating_add(exponent) <= NUMERIC_DIGITS_BEFORE && after.saturating_sub(exponent) <= NUMERIC_DIGITS_AFTER
}

fn text(text: Cow<'_, str>, max: Option<u32>) -> Result<Value<'_>, Unfit> {
    if text.contains('\0') {
        return Err(Unfit::Nul);
    }
    match max {
        Some(max) if is_longer_than(&text, max) => Err(Unfit::TooLong),
        _ => Ok(Value::Text(text)),
    }
}

/// Whether a text has more than `max` characters.
pub fn is_longer_than(text: &str, max: u32) -> bool {
    // A character has at least one byte: only a text of more bytes needs counting.
    text.len() > max as usize && text.chars().count() > max as usize
}

/// PostgreSQL counts days and microseconds from here.
const POSTGRES_EPOCH: civil::Date = civil::date(2000, 1, 1);
const POSTGRES_EPOCH_UNIX_DAYS: i64 = 10_957;
const MILLIS_PER_DAY: i64 = 86_400_000;
const POSTGRES_EPOCH_UNIX_MICROS: i64 = 946_684_800_000_000;

fn date(text: &str) -> Result<Value<'static>, Unfit> {
    let shape = text.len() == 10
        && text.bytes().enumerate().all(|(i, b)| if i == 4 || i == 7 { b == b'-' } else { b.is_ascii_digit() });
    if !shape || text.starts_with("0000") {
        return Err(Unfit::Malformed);
    }
    date_value(text.parse().map_err(|_| Unfit::Malformed)?)
}

fn date_value(date: civil::Date) -> Result<Value<'static>, Unfit> {
    let span = date.since((jiff::Unit::Day, POSTGRES_EPOCH)).map_err(|_| Unfit::OutOfRange)?;
    Ok(Value::Date(span.get_days()))
}

/// RFC 3339 with an offset, such as `2026-01-31T08:15:00Z`: without one the instant would depend on a setting.
///
/// Reckoned from date, time and offset, because jiff's own instants end a day before the year 9999 does.
fn timestamp(text: &str) -> Result<Value<'static>, Unfit> {
    let starts_with_year = text.len() > 4 && text.as_bytes()[..4].iter().all(u8::is_ascii_digit);
    let pieces = Pieces::parse(text).map_err(|_| Unfit::Malformed)?;
    let (Some(time), Some(offset)) = (pieces.time(), pieces.to_numeric_offset()) else { return Err(Unfit::Malformed) };
    if !starts_with_year || text.starts_with("0000") || pieces.time_zone_annotation().is_some() {
        return Err(Unfit::Malformed);
    }
    let Value::Date(days) = date_value(pieces.date())? else { return Err(Unfit::OutOfRange) };
    let seconds = i64::from(days) * 86_400 - i64::from(offset.seconds());
    let of_day = time.duration_since(civil::Time::midnight()).as_micros();
    let of_day = i64::try_from(of_day).map_err(|_| Unfit::OutOfRange)?;
    Ok(Value::Timestamptz(seconds * 1_000_000 + of_day))
}

fn timestamp_value(instant: jiff::Timestamp) -> Value<'static> {
    Value::Timestamptz(instant.as_microsecond() - POSTGRES_EPOCH_UNIX_MICROS)
}

fn inet(text: Cow<'_, str>) -> Result<Value<'_>, Unfit> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text.as_ref(), None),
    };
    let address: IpAddr = address.parse().map_err(|_| Unfit::Malformed)?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    // Postgres takes no leading zeros.
    let fits = |bits: &str| bits.parse::<u8>().is_ok_and(|number| number <= most && number.to_string() == bits);
    if bits.is_none_or(fits) { Ok(Value::Inet(text)) } else { Err(Unfit::Malformed) }
}

fn jsonb(json: Json<'_>) -> Result<Value<'_>, Unfit> {
    let text = match json {
        Json::Null => return Ok(Value::Null),
        Json::Bool(b) => Cow::Borrowed(if b { "true" } else { "false" }),
        Json::Number(n) => Cow::Borrowed(n),
        Json::String(s) => Cow::Owned(serde_json::to_string(&s).map_err(|_| Unfit::Malformed)?),
        Json::Nested(text) => Cow::Borrowed(text),
    };
    storable_json(&text)?;
    Ok(Value::Jsonb(text))
}

/// How many levels of arrays and objects a `jsonb` may have here; PostgreSQL's own limit is its stack.
const JSONB_LEVELS: usize = 127;

/// Whether `jsonb` takes a text that is known to be JSON. It refuses what JSON allows: NUL and lone surrogates in strings,
/// numbers beyond `numeric`, and levels without end.
fn storable_json(json: &str) -> Result<(), Unfit> {
    let mut levels = 0;
    let mut rest = json;
    while let Some(start) = rest.find(|c: char| matches!(c, '"' | '[' | '{' | ']' | '}' | '-' | '0'..='9')) {
        rest = &rest[start..];
        let length = match rest.as_bytes()[0] {
            b'"' => {
                let length = string_length(rest);
                storable_string(&rest[..length])?;
                length
            }
            b'[' | b'{' if levels == JSONB_LEVELS => return Err(Unfit::Malformed),
            b'[' | b'{' => {
                levels += 1;
                1
            }
            b']' | b'}' => {
                levels -= 1;
                1
            }
            _ => {
                let end = rest.find(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E'));
                let length = end.unwrap_or(rest.len());
                if !numeric_fits(&rest[..length]) {
                    return Err(Unfit::OutOfRange);
                }
                length
            }
        };
        rest = &rest[length..];
    }
    Ok(())
}

/// A string with its quotes. Only escapes can make what `jsonb` refuses.
fn storable_string(json: &str) -> Result<(), Unfit> {
    if !json.contains('\\') {
        return Ok(());
    }
    let text: String = serde_json::from_str(json).map_err(|_| Unfit::Malformed)?;
    if text.contains('\0') { Err(Unfit::Nul) } else { Ok(()) }
}

/// The length in bytes of the JSON string that `text` starts with, quotes included.
fn string_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: Type, json: &str, expected: Result<Value<'static>, Unfit>) {
        let json = match json.as_bytes()[0] {
            b'"' => Json::String(serde_json::from_str(json).unwrap()),
            b'{' | b'[' => Json::Nested(json),
            b't' | b'f' => Json::Bool(json == "true"),
            b'n' => Json::Null,
            _ => Json::Number(json),
        };
        let found = Value::from_json(kind, json.clone()).map(Value::into_owned);
        assert!(found == expected, "{kind} from {json:?}: {found:?}, expected {expected:?}");
    }

    #[test]
    fn numbers_are_taken_whole_or_not_at_all() {
        check(Type::SmallInt, "32767", Ok(Value::SmallInt(32767)));
        check(Type::SmallInt, "32768", Err(Unfit::OutOfRange));
        check(Type::Integer, "-2147483648", Ok(Value::Integer(i32::MIN)));
        check(Type::Integer, "2.0", Err(Unfit::WrongType));
        check(Type::Integer, "\"2\"", Err(Unfit::WrongType));
        check(Type::BigInt, "9223372036854775808", Err(Unfit::OutOfRange));
        check(Type::DoublePrecision, "1e400", Err(Unfit::OutOfRange));
        check(Type::Numeric, "1e131072", Err(Unfit::OutOfRange));
        check(Type::Numeric, "1e-16384", Err(Unfit::OutOfRange));
        check(Type::Numeric, "\"0.10\"", Ok(Value::Numeric("0.10".into())));
        check(Type::Numeric, "\"NaN\"", Err(Unfit::Malformed));
        check(Type::Numeric, "\"1e99999999999\"", Err(Unfit::OutOfRange));
    }

    #[test]
    fn lengths_count_characters_not_bytes() {
        check(Type::Varchar(2), "\"ab\"", Ok(Value::Text("ab".into())));
        check(Type::Varchar(2), "\"abc\"", Err(Unfit::TooLong));
        check(Type::Varchar(2), "\"😀😀\"", Ok(Value::Text("😀😀".into())));
        check(Type::Varchar(2), "\"😀😀😀\"", Err(Unfit::TooLong));
        check(Type::Text, "\"a\\u0000b\"", Err(Unfit::Nul));
    }

    #[test]
    fn dates_and_instants_have_one_form_each() {
        check(Type::Date, "\"2000-01-02\"", Ok(Value::Date(1)));
        check(Type::Date, "\"1999-12-31\"", Ok(Value::Date(-1)));
        check(Type::Date, "\"2026-02-29\"", Err(Unfit::Malformed));
        check(Type::Date, "\"20260228\"", Err(Unfit::Malformed));
        check(Type::Date, "\"2026-02-28T10:00:00\"", Err(Unfit::Malformed));
        check(Type::Timestamptz, "\"2000-01-01T01:00:00+01:00\"", Ok(Value::Timestamptz(0)));
        check(Type::Timestamptz, "\"2000-01-01T00:00:00.000001Z\"", Ok(Value::Timestamptz(1)));
        check(Type::Timestamptz, "\"9999-12-31T23:59:59Z\"", Ok(Value::Timestamptz(252_455_615_999_000_000)));
        check(Type::Timestamptz, "\"2000-01-01T00:00:00Z[UTC]\"", Err(Unfit::Malformed));
        check(Type::Timestamptz, "\"2000-01-01\"", Err(Unfit::Malformed));
        check(Type::Timestamptz, "\"2000-01-01T01:00:00\"", Err(Unfit::Malformed));
        check(Type::Timestamptz, "\"-000001-01-01T01:00:00Z\"", Err(Unfit::Malformed));
    }

    #[test]
    fn json_that_postgres_refuses_is_refused_here() {
        check(Type::Jsonb, r#"{"a":[1,2.5e3,"x\\"]}"#, Ok(Value::Jsonb(r#"{"a":[1,2.5e3,"x\\"]}"#.into())));
        check(Type::Jsonb, r#"{"a":"\u0000"}"#, Err(Unfit::Nul));
        check(Type::Jsonb, r#"{"\u0000":1}"#, Err(Unfit::Nul));
        check(Type::Jsonb, r#"{"a":"\ud800"}"#, Err(Unfit::Malformed));
        check(Type::Jsonb, r#"{"a":1e-20000}"#, Err(Unfit::OutOfRange));
        check(Type::Jsonb, r#"[1e400,"]\"",-0.5e-7]"#, Ok(Value::Jsonb(r#"[1e400,"]\"",-0.5e-7]"#.into())));
        check(Type::Jsonb, r#"["\\u0000"]"#, Ok(Value::Jsonb(r#"["\\u0000"]"#.into())));
        check(Type::Jsonb, r#"{"\ud800":1}"#, Err(Unfit::Malformed));
        check(Type::Jsonb, &format!("{}{}", "[".repeat(127), "]".repeat(127)), {
            Ok(Value::Jsonb(format!("{}{}", "[".repeat(127), "]".repeat(127)).into()))
        });
        check(Type::Jsonb, &format!("{}{}", "[".repeat(200), "]".repeat(200)), Err(Unfit::Malformed));
        check(Type::Jsonb, "\"a\\\"b\"", Ok(Value::Jsonb("\"a\\\"b\"".into())));
    }

    #[test]
    fn addresses_may_carry_a_prefix_length() {
        check(Type::Inet, "\"10.0.0.1\"", Ok(Value::Inet("10.0.0.1".into())));
        check(Type::Inet, "\"10.0.0.0/8\"", Ok(Value::Inet("10.0.0.0/8".into())));
        check(Type::Inet, "\"10.0.0.0/33\"", Err(Unfit::Malformed));
        check(Type::Inet, "\"10.0.0.0/08\"", Err(Unfit::Malformed));
        check(Type::Inet, "\"10.0.0.0/+8\"", Err(Unfit::Malformed));
        check(Type::Inet, "\"10.1\"", Err(Unfit::Malformed));
        check(Type::Inet, "\"::1/128\"", Ok(Value::Inet("::1/128".into())));
    }
}
