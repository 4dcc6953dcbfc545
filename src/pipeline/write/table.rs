//! What is known of the table as it is, not as the contract says: whether a COPY means the same as an insert, and how its
//! rows look. Postgres checks this at every COPY, see [`Layout::parameter`].

use bytes::{BufMut, BytesMut};

use super::wire::Field;
use crate::database::connection::Answer;
use crate::pipeline::value::Type;

/// Asks what the table looks like, and which process answers. `$1` is the table's name as SQL takes it.
///
/// A COPY knows no rules, is refused where rows have policies, and means something else for views and foreign tables. A domain
/// may refuse the row of nulls that Postgres is to compare, and a type of the table's name may hide the table's own.
pub(super) const QUESTION: &str = "select pg_backend_pid(), \
     c.relkind in ('r', 'p') and not c.relrowsecurity and not c.relhasrules and c.reltype = to_regtype($1) \
     and not exists (select from pg_attribute as d join pg_type as t on t.oid = d.atttypid \
     where d.attrelid = c.oid and d.attnum > 0 and not d.attisdropped and t.typtype = 'd'), \
     a.attname, a.atttypid from pg_class as c join pg_attribute as a on a.attrelid = c.oid \
     where c.oid = to_regclass($1) and a.attnum > 0 and not a.attisdropped order by a.attnum";

/// The process that answered [`QUESTION`].
pub(super) fn process(answer: &Answer) -> Option<i32> {
    answer.rows.first()?.number(0)
}

/// A table that rows can be copied into.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// The types of all its columns, by oid, in the table's order.
    types: Vec<u32>,
    /// How the contract's columns are sent, in the contract's order.
    pub(super) fields: Vec<Field>,
}

impl Layout {
    /// Reads the answer to [`QUESTION`]. `None` if rows should not be copied into that table.
    pub(super) fn read(answer: &Answer, contract: &[(String, Type)]) -> Option<Self> {
        if answer.rows.first()?.get(1) != Some("t") {
            return None;
        }
        let columns: Vec<(&str, u32)> =
            answer.rows.iter().map(|row| Some((row.get(2)?, row.number(3)?))).collect::<Option<_>>()?;
        let field = |(name, kind): &(String, _)| {
            let (_, oid) = columns.iter().find(|(column, _)| column == name)?;
            Field::of(*kind, *oid)
        };
        let fields = contract.iter().map(field).collect::<Option<_>>()?;
        Some(Self { types: columns.into_iter().map(|(_, oid)| oid).collect(), fields })
    }

    /// The layout of a table that has the contract's columns alone, all of the types that it says.
    pub(super) fn natural(contract: &[(String, Type)]) -> Self {
        let (types, fields) = contract.iter().map(|(_, kind)| Field::natural(*kind)).unzip();
        Self { types, fields }
    }

    /// A row of nulls in binary form. Postgres refuses it with 42804 if the table's columns are no longer these, as long as the
    /// table is locked: a COPY alone would take the bits of one type for another of the same length.
    pub(super) fn parameter(&self, out: &mut BytesMut) {
        out.put_i32(i32::try_from(self.types.len()).expect("a table has 1,600 columns at most"));
        for oid in &self.types {
            out.put_u32(*oid);
            out.put_i32(-1);
        }
    }
}
