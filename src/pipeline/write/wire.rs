//! How a column's values travel to Postgres: the array's type and its binary form.

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{IsNull, Kind, ToSql, Type as Wire, to_sql_checked};

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

/// Some rows of an array, as PostgreSQL's binary array: dimensions, has-null flag, element type, length, lower bound, then
/// each element's length in bytes (-1 for null) and bytes (`array_recv` in PostgreSQL's sources).
pub(super) struct Picked<'a> {
    pub(super) array: &'a Array,
    pub(super) rows: &'a [usize],
}

/// **Invariant (Silence):** tokio-postgres wants a `Debug`; the number of rows is all that it gets.
impl std::fmt::Debug for Picked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Picked").field("rows", &self.rows.len()).finish_non_exhaustive()
    }
}

impl Picked<'_> {
    fn write<T>(
        &self,
        out: &mut BytesMut,
        get: impl Fn(usize) -> Option<T>,
        put: impl Fn(&mut BytesMut, T),
    ) -> Result<(), std::num::TryFromIntError> {
        for &row in self.rows {
            let Some(value) = get(row) else {
                out.put_i32(-1);
                continue;
            };
            let start = out.len();
            out.put_i32(0);
            put(out, value);
            let length = i32::try_from(out.len() - start - size_of::<i32>())?;
            out[start..start + size_of::<i32>()].copy_from_slice(&length.to_be_bytes());
        }
        Ok(())
    }
}

impl ToSql for Picked<'_> {
    fn to_sql(&self, wire: &Wire, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let Kind::Array(element) = wire.kind() else { return Err("the parameter is not an array".into()) };
        out.put_i32(1);
        out.put_i32(1);
        out.put_u32(element.oid());
        out.put_i32(i32::try_from(self.rows.len())?);
        out.put_i32(1);
        match self.array {
            Array::SmallInt(values) => self.write(out, |row| values[row], |out, v| out.put_i16(v)),
            Array::Integer(values) | Array::Date(values) => self.write(out, |row| values[row], |out, v| out.put_i32(v)),
            Array::BigInt(values) | Array::Timestamptz(values) => {
                self.write(out, |row| values[row], |out, v| out.put_i64(v))
            }
            Array::Double(values) => self.write(out, |row| values[row], |out, v| out.put_f64(v)),
            Array::Boolean(values) => self.write(out, |row| values[row], |out, v| out.put_u8(v.into())),
            Array::Uuid(values) => self.write(out, |row| values[row], |out, v| out.put_slice(v.as_bytes())),
            Array::Text(texts) => self.write(out, |row| texts.get(row), |out, v| out.put_slice(v.as_bytes())),
        }?;
        Ok(IsNull::No)
    }

    fn accepts(wire: &Wire) -> bool {
        matches!(wire.kind(), Kind::Array(_))
    }

    to_sql_checked!();
}
