//! The binary forms in which values travel to Postgres: as an array of a column's, or as the rows of a COPY.

use std::net::IpAddr;

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{Kind, Type as Wire};

use crate::pipeline::array::Array;
use crate::pipeline::value::Type;

/// The type in which a column's array travels.
pub(super) fn wire_array(kind: Type) -> Wire {
    match kind {
        Type::SmallInt => Wire::INT2_ARRAY,
        Type::Integer => Wire::INT4_ARRAY,
        Type::BigInt => Wire::INT8_ARRAY,
        Type::DoublePrecision => Wire::FLOAT8_ARRAY,
        Type::Boolean => Wire::BOOL_ARRAY,
        Type::Uuid => Wire::UUID_ARRAY,
        Type::Date => Wire::DATE_ARRAY,
        Type::Timestamptz => Wire::TIMESTAMPTZ_ARRAY,
        Type::Text | Type::Varchar(_) | Type::Numeric | Type::Inet | Type::Jsonb => Wire::TEXT_ARRAY,
    }
}

/// Appends some rows of an array as PostgreSQL's binary array: dimensions, has-null flag, element type, length, lower bound,
/// then each element's length in bytes (-1 for null) and bytes (`array_recv` in PostgreSQL's sources).
pub(super) fn put_array(array: &Array, kind: Type, rows: &[usize], out: &mut BytesMut) {
    let Kind::Array(element) = wire_array(kind).kind().clone() else { unreachable!("each type has an array") };
    let count = i32::try_from(rows.len()).expect(TOO_MANY);
    out.put_i32(1);
    out.put_i32(1);
    out.put_u32(element.oid());
    out.put_i32(count);
    out.put_i32(1);
    for &row in rows {
        put_field(array, Field::Plain, row, out);
    }
}

const TOO_MANY: &str = "a batch has far fewer rows than 2^31";

/// How a column's value is sent to a column of the table in binary form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    /// As the contract's type.
    Plain,
    /// A version, then the text (`jsonb_recv`).
    Jsonb,
    /// Family, bits, a flag, length, address (`inet_recv`).
    Inet,
    /// Digits to the base of 10,000 (`numeric_recv`).
    Numeric,
}

impl Field {
    /// `None` if the table's type, by oid, wants another form than the contract's. An insert would convert it.
    pub(super) fn of(kind: Type, oid: u32) -> Option<Self> {
        let (natural, field) = Self::natural(kind);
        let is_text = |oid| oid == Wire::TEXT.oid() || oid == Wire::VARCHAR.oid();
        (oid == natural || is_text(oid) && is_text(natural)).then_some(field)
    }

    /// The oid of a contract's type, and how its values are sent.
    pub(super) fn natural(kind: Type) -> (u32, Self) {
        let (wire, field) = match kind {
            Type::SmallInt => (Wire::INT2, Field::Plain),
            Type::Integer => (Wire::INT4, Field::Plain),
            Type::BigInt => (Wire::INT8, Field::Plain),
            Type::DoublePrecision => (Wire::FLOAT8, Field::Plain),
            Type::Boolean => (Wire::BOOL, Field::Plain),
            Type::Uuid => (Wire::UUID, Field::Plain),
            Type::Date => (Wire::DATE, Field::Plain),
            Type::Timestamptz => (Wire::TIMESTAMPTZ, Field::Plain),
            Type::Text => (Wire::TEXT, Field::Plain),
            Type::Varchar(_) => (Wire::VARCHAR, Field::Plain),
            Type::Jsonb => (Wire::JSONB, Field::Jsonb),
            Type::Inet => (Wire::INET, Field::Inet),
            Type::Numeric => (Wire::NUMERIC, Field::Numeric),
        };
        (wire.oid(), field)
    }
}

/// Appends one row as a COPY takes it: the number of fields, then each field.
pub(super) fn put_row(arrays: &[&Array], fields: &[Field], row: usize, out: &mut BytesMut) {
    out.put_i16(i16::try_from(fields.len()).expect("a table has 1,600 columns at most"));
    for (array, field) in arrays.iter().zip(fields) {
        put_field(array, *field, row, out);
    }
}

/// Appends one value: its length in bytes, or -1 for null, and its bytes.
fn put_field(array: &Array, field: Field, row: usize, out: &mut BytesMut) {
    match array {
        Array::SmallInt(values) => put(values[row].map(i16::to_be_bytes), out),
        Array::Integer(values) | Array::Date(values) => put(values[row].map(i32::to_be_bytes), out),
        Array::BigInt(values) | Array::Timestamptz(values) => put(values[row].map(i64::to_be_bytes), out),
        Array::Double(values) => put(values[row].map(f64::to_be_bytes), out),
        Array::Boolean(values) => put(values[row].map(|value| [u8::from(value)]), out),
        Array::Uuid(values) => put(values[row].map(|value| *value.as_bytes()), out),
        Array::Text(texts) => match (field, texts.get(row)) {
            (Field::Jsonb, Some(text)) => {
                out.put_i32(length(text.len() + 1));
                out.put_u8(JSONB_VERSION);
                out.put_slice(text.as_bytes());
            }
            (Field::Inet, Some(text)) => put_inet(text, out),
            (Field::Numeric, Some(text)) => put_numeric(text, out),
            (Field::Plain, text) => put(text, out),
            (_, None) => put(None::<&str>, out),
        },
    }
}

fn put(value: Option<impl AsRef<[u8]>>, out: &mut BytesMut) {
    match value {
        Some(value) => {
            let value = value.as_ref();
            out.put_i32(length(value.len()));
            out.put_slice(value);
        }
        None => out.put_i32(-1),
    }
}

fn length(bytes: usize) -> i32 {
    i32::try_from(bytes).expect("a value is far below 2 GiB")
}

const JSONB_VERSION: u8 = 1;
const INET_IPV4: u8 = 2;
const INET_IPV6: u8 = 3;

/// An address, with `/bits` where it was given.
fn put_inet(text: &str, out: &mut BytesMut) {
    let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let bits = bits.map(|bits| bits.parse::<u8>().expect("`validate` has read it"));
    let put = |family: u8, bytes: &[u8], out: &mut BytesMut| {
        let size = u8::try_from(bytes.len()).expect("an address has 16 bytes at most");
        out.put_i32(length(4 + bytes.len()));
        out.put_slice(&[family, bits.unwrap_or(size * 8), u8::from(false), size]);
        out.put_slice(bytes);
    };
    match address.parse().expect("`validate` has read it") {
        IpAddr::V4(address) => put(INET_IPV4, &address.octets(), out),
        IpAddr::V6(address) => put(INET_IPV6, &address.octets(), out),
    }
}

const DIGITS_A_GROUP: i64 = 4;
const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;

/// A number of JSON's grammar that `numeric` holds: how many groups of four digits, what power of 10,000 the first one counts,
/// sign, digits behind the point as they are shown, groups. Zeros at either end have no group.
fn put_numeric(text: &str, out: &mut BytesMut) {
    let (is_negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let exponent: i64 = exponent.parse().expect("`validate` has read it");
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let shown = u16::try_from((signed(fraction.len()) - exponent).max(0)).expect("`validate` has limited it");
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|digit| digit - b'0').collect();
    let leading = digits.iter().take_while(|digit| **digit == 0).count();
    let trailing = digits[leading..].iter().rev().take_while(|digit| **digit == 0).count();
    let digits = &digits[leading..digits.len() - trailing];
    // How many digits stand before the point; below zero if there are zeros behind it.
    let before = if digits.is_empty() { 0 } else { signed(whole.len()) + exponent - signed(leading) };
    let first = if digits.is_empty() { 0 } else { (before - 1).div_euclid(DIGITS_A_GROUP) };
    let padding =
        usize::try_from((first + 1) * DIGITS_A_GROUP - before).expect("the first group holds the first digit");
    let padding = if digits.is_empty() { 0 } else { padding };
    let count = (padding + digits.len()).div_ceil(DIGITS_A_GROUP as usize);
    out.put_i32(length(4 * size_of::<u16>() + count * size_of::<u16>()));
    out.put_u16(u16::try_from(count).expect("`validate` has limited it"));
    out.put_i16(i16::try_from(first).expect("`validate` has limited it"));
    out.put_u16(if is_negative && !digits.is_empty() { NEGATIVE } else { POSITIVE });
    out.put_u16(shown);
    let mut padded = std::iter::repeat_n(&0, padding).chain(digits);
    for _ in 0..count {
        let group = (0..DIGITS_A_GROUP).fold(0, |group, _| group * 10 + u16::from(*padded.next().unwrap_or(&0)));
        out.put_u16(group);
    }
}

fn signed(length: usize) -> i64 {
    i64::try_from(length).expect("a text is far shorter than 2^63")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Count, weight, sign, scale and groups, as `numeric_send` gives them for the same text.
    #[track_caller]
    fn check(text: &str, expected: &[i32]) {
        let mut out = BytesMut::new();
        put_numeric(text, &mut out);
        let words: Vec<i32> =
            out[4..].chunks(2).map(|word| i32::from(i16::from_be_bytes(word.try_into().unwrap()))).collect();
        assert_eq!(words, expected, "{text}");
        assert_eq!(out[..4], (2 * expected.len() as i32).to_be_bytes());
    }

    #[test]
    fn a_number_becomes_groups_of_four_digits() {
        check("0", &[0, 0, 0, 0]);
        check("-0.00", &[0, 0, 0, 2]);
        check("1", &[1, 0, 0, 0, 1]);
        check("-12345.678", &[3, 1, 0x4000, 3, 1, 2345, 6780]);
        check("0.0001", &[1, -1, 0, 4, 1]);
        check("1e5", &[1, 1, 0, 0, 10]);
        check("10000.0e-4", &[1, 0, 0, 5, 1]);
        check("1e-16383", &[1, -4096, 0, 16383, 10]);
        check("1e131071", &[1, 32767, 0, 0, 1000]);
    }
}
