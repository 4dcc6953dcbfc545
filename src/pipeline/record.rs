//! What a body says: one JSON value for each field that the contract reads. Nothing here was checked yet.

use super::value::Json;

/// The fields of one body, in the order of the contract's fields; `None` where the body has no such field.
#[derive(Debug, PartialEq)]
pub struct Record<'a> {
    fields: Vec<Option<Json<'a>>>,
}

impl<'a> Record<'a> {
    /// A record of `len` fields that says nothing yet.
    pub fn empty(len: usize) -> Self {
        Self { fields: vec![None; len] }
    }

    /// Forgets what it says.
    pub fn clear(&mut self) {
        self.fields.fill(None);
    }

    /// Sets a field; `false` when the body has said it before.
    pub fn set(&mut self, field: usize, value: Json<'a>) -> bool {
        self.fields[field].replace(value).is_none()
    }

    /// What the body says of a field.
    pub fn get(&self, field: usize) -> Option<&Json<'a>> {
        self.fields[field].as_ref()
    }
}
