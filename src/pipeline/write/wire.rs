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
}

impl Field {
    /// `None` if the table's type, by oid, wants another form than the contract's. An insert would convert it.
    pub(super) fn of(kind: Type, oid: u32) -> Option<Self> {
        let takes = |wire: &[Wire]| wire.iter().any(|wire| wire.oid() == oid);
        let (field, takes) = match kind {
            Type::SmallInt => (Field::Plain, takes(&[Wire::INT2])),
            Type::Integer => (Field::Plain, takes(&[Wire::INT4])),
            Type::BigInt => (Field::Plain, takes(&[Wire::INT8])),
            Type::DoublePrecision => (Field::Plain, takes(&[Wire::FLOAT8])),
            Type::Boolean => (Field::Plain, takes(&[Wire::BOOL])),
            Type::Uuid => (Field::Plain, takes(&[Wire::UUID])),
            Type::Date => (Field::Plain, takes(&[Wire::DATE])),
            Type::Timestamptz => (Field::Plain, takes(&[Wire::TIMESTAMPTZ])),
            Type::Text | Type::Varchar(_) => (Field::Plain, takes(&[Wire::TEXT, Wire::VARCHAR])),
            Type::Jsonb => (Field::Jsonb, takes(&[Wire::JSONB])),
            Type::Inet => (Field::Inet, takes(&[Wire::INET])),
            // Its binary form are digits to the base of 10,000.
            Type::Numeric => return None,
        };
        takes.then_some(field)
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
