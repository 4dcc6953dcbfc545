//! One column's values for many rows, side by side: how a batch travels to Postgres. What the values mean is not known here.

use super::value::{Type, Value};

/// The values of one column, one for each row.
pub enum Array {
    SmallInt(Vec<Option<i16>>),
    Integer(Vec<Option<i32>>),
    BigInt(Vec<Option<i64>>),
    Double(Vec<Option<f64>>),
    Boolean(Vec<Option<bool>>),
    Uuid(Vec<Option<uuid::Uuid>>),
    Date(Vec<Option<i32>>),
    Timestamptz(Vec<Option<i64>>),
    /// Everything that travels as text: `text`, `varchar`, `numeric`, `inet`, `jsonb`.
    Text(Texts),
}

/// Texts end to end in one buffer.
#[derive(Default)]
pub struct Texts {
    buffer: String,
    /// Where each text ends; `false` for a null, which ends where it starts.
    ends: Vec<(usize, bool)>,
}

impl Texts {
    /// Adds one text, put together by `write` at the end of the buffer.
    pub fn push_with(&mut self, write: impl FnOnce(&mut String)) {
        write(&mut self.buffer);
        self.ends.push((self.buffer.len(), true));
    }

    /// Adds a null.
    pub fn push_null(&mut self) {
        self.ends.push((self.buffer.len(), false));
    }

    /// The text of a row, `None` for a null.
    pub fn get(&self, row: usize) -> Option<&str> {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before].0);
        let (end, is_text) = self.ends[row];
        is_text.then(|| &self.buffer[start..end])
    }
}

impl Array {
    /// An array for a column of the type, with room for `rows` values.
    pub fn new(kind: Type, rows: usize) -> Self {
        Self::with_room(kind, rows, 0)
    }

    /// The same, with room for `length` bytes a value if they are texts.
    pub fn with_room(kind: Type, rows: usize, length: usize) -> Self {
        match kind {
            Type::SmallInt => Array::SmallInt(Vec::with_capacity(rows)),
            Type::Integer => Array::Integer(Vec::with_capacity(rows)),
            Type::BigInt => Array::BigInt(Vec::with_capacity(rows)),
            Type::DoublePrecision => Array::Double(Vec::with_capacity(rows)),
            Type::Boolean => Array::Boolean(Vec::with_capacity(rows)),
            Type::Uuid => Array::Uuid(Vec::with_capacity(rows)),
            Type::Date => Array::Date(Vec::with_capacity(rows)),
            Type::Timestamptz => Array::Timestamptz(Vec::with_capacity(rows)),
            Type::Text | Type::Varchar(_) | Type::Numeric | Type::Inet | Type::Jsonb => {
                Array::Text(Texts { buffer: String::with_capacity(rows * length), ends: Vec::with_capacity(rows) })
            }
        }
    }

    /// Adds a row's value.
    ///
    /// # Panics
    /// If the value is neither null nor of the array's type; `validate` gives each column its own type.
    pub fn push(&mut self, value: &Value<'_>) {
        match (self, value) {
            (array, Value::Null) => array.push_null(),
            (Array::SmallInt(values), Value::SmallInt(v)) => values.push(Some(*v)),
            (Array::Integer(values), Value::Integer(v)) => values.push(Some(*v)),
            (Array::BigInt(values), Value::BigInt(v)) => values.push(Some(*v)),
            (Array::Double(values), Value::Double(v)) => values.push(Some(*v)),
            (Array::Boolean(values), Value::Boolean(v)) => values.push(Some(*v)),
            (Array::Uuid(values), Value::Uuid(v)) => values.push(Some(*v)),
            (Array::Date(values), Value::Date(v)) => values.push(Some(*v)),
            (Array::Timestamptz(values), Value::Timestamptz(v)) => values.push(Some(*v)),
            (Array::Text(texts), Value::Text(v) | Value::Numeric(v) | Value::Inet(v) | Value::Jsonb(v)) => {
                texts.push_with(|buffer| buffer.push_str(v));
            }
            _ => unreachable!("a value has the type of its column"),
        }
    }

    fn push_null(&mut self) {
        match self {
            Array::SmallInt(values) => values.push(None),
            Array::Integer(values) | Array::Date(values) => values.push(None),
            Array::BigInt(values) | Array::Timestamptz(values) => values.push(None),
            Array::Double(values) => values.push(None),
            Array::Boolean(values) => values.push(None),
            Array::Uuid(values) => values.push(None),
            Array::Text(texts) => texts.push_null(),
        }
    }
}
