//! What a message must look like, what of it is personal, and where it is stored. How the TOML text becomes this is in `parse`.

mod column;
mod draft;
mod faults;
mod literal;
mod parse;
mod whole;

use std::fmt;
use std::sync::Arc;

use regex_lite::Regex;

pub use self::faults::{Fault, Faults};
use super::value::{Type, Value};

/// The contract between the senders of messages and the table they end in.
#[derive(Debug)]
pub struct Contract {
    pub(crate) table: TableName,
    pub(crate) unknown_fields: UnknownFields,
    pub(crate) once: Once,
    /// In the order of the file; the key column comes first when the file does not declare it.
    pub(crate) columns: Vec<Column>,
    /// The distinct fields that columns read; [`Source::Field`] is an index into them.
    pub(crate) fields: Fields,
}

/// A table, with its schema where the contract names one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName {
    pub schema: Option<String>,
    pub name: String,
}

/// What happens to a field that no column reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownFields {
    Reject,
    Ignore,
}

/// What makes a redelivered message change nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Once {
    /// A unique column of the table: an index into [`Contract::columns`].
    Column(usize),
    /// A table of message ids beside the table, written in the same statement.
    Ledger(TableName),
}

/// One column of the table and how its value comes about: source, canonical form, type, default, rules, mask.
#[derive(Debug)]
pub struct Column {
    pub(crate) name: String,
    pub(crate) source: Source,
    /// The type of the column. Where there is a mask, the type of what the mask makes.
    pub(crate) kind: Type,
    /// Neither absent, nor null, nor an empty string.
    pub(crate) required: bool,
    /// Stands in for an absent or null value.
    pub(crate) default: Option<DefaultValue>,
    /// Applied in this order before the rules and the mask.
    pub(crate) canonical: Vec<Canonical>,
    pub(crate) parse: Option<Parse>,
    pub(crate) rules: Rules,
    pub(crate) mask: Option<Mask>,
}

/// Where a column's value is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A field of the record: an index into [`Contract::fields`].
    Field(usize),
    /// What SQS knows of the message.
    System(System),
    /// A message attribute's string value, by name.
    Attribute(String),
}

/// What SQS knows of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum System {
    /// `$message_id`
    MessageId,
    /// `$sent_at`: when the message was sent, in milliseconds.
    SentAt,
    /// `$sent_date`: the UTC date of that.
    SentDate,
    /// `$message_group_id`
    MessageGroupId,
    /// `$receive_count`
    ReceiveCount,
}

#[derive(Clone, Debug, PartialEq)]
pub enum DefaultValue {
    Value(Value<'static>),
    System(System),
}

/// A form in which equal things are written equally.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canonical {
    /// One spelling for each IP address; an IPv4-mapped IPv6 address is the IPv4 address.
    Ip,
    /// No white space at either end.
    Trim,
    /// Lower case.
    Lower,
    /// ASCII digits only, everything else dropped.
    Digits,
}

/// How a string becomes a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parse {
    /// `major[.minor[.patch]]` as `major * 1_000_000 + minor * 1_000 + patch`.
    Version,
}

/// What a value must satisfy after its canonical form was taken.
#[derive(Debug, Default)]
pub struct Rules {
    /// Empty: anything.
    pub one_of: Vec<String>,
    /// The whole text must match.
    pub pattern: Option<Regex>,
    pub limits: Limits,
}

/// `min` and `max`, both inclusive.
#[derive(Debug, Default)]
pub enum Limits {
    #[default]
    None,
    /// Of a text's length in characters.
    Length { min: Option<u32>, max: Option<u32> },
    /// Of a number, date or instant.
    Range { min: Option<Value<'static>>, max: Option<Value<'static>> },
}

/// How a personal value is made unrecognisable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mask {
    /// `<key id>:<64 hex digits>`, HMAC-SHA-256 over domain, NUL and value.
    HmacSha256 { domain: String },
    /// 64 hex digits, SHA-256 of the value: no key, so anyone can try all values.
    Sha256,
    /// A constant.
    Redact,
    /// An address's network: /24 of IPv4, /48 of IPv6.
    Truncate,
    /// `***` and the last characters, unless they were more than half of the text.
    KeepLast(u32),
}

/// The fields that a contract reads, as a tree of names.
#[derive(Debug, Default)]
pub struct Fields {
    names: Vec<FieldName>,
    root: Vec<(String, Node)>,
}

/// A source as the contract gives it: a field's path, its names joined by dots, or the spelling of a `$` source.
///
/// **Invariant (Silence):** only the contract makes one, so it is never a name that only a message has.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldName(Arc<str>);

/// A name in a record: read as a whole, or looked into.
#[derive(Debug)]
pub enum Node {
    /// An index into the names.
    Leaf(usize),
    Branch(Vec<(String, Node)>),
}

impl Contract {
    /// The contract for login events.
    pub fn built_in() -> Contract {
        Contract::parse("contract.toml", include_str!("../../contract.toml"))
            .expect("a test finds no fault in the built-in contract")
    }

    /// Reads a contract from TOML; `file` is what messages call it. Fails with all faults, not with the first.
    pub fn parse(file: &str, text: &str) -> Result<Contract, Faults> {
        parse::parse(file, text)
    }

    /// The table of message ids that makes a redelivered message change nothing, unless a column does.
    pub fn ledger(&self) -> Option<&TableName> {
        match &self.once {
            Once::Column(_) => None,
            Once::Ledger(table) => Some(table),
        }
    }

    /// What messages call the source of a column: the field's path, `$sent_at`, `$attribute.NAME`.
    pub fn label(&self, column: &Column) -> FieldName {
        match &column.source {
            Source::Field(index) => self.fields.name(*index).clone(),
            Source::System(system) => FieldName::new(&system.to_string()),
            Source::Attribute(name) => FieldName::new(&format!("$attribute.{name}")),
        }
    }
}

impl Column {
    /// Whether the source's value is personal. It is so exactly if there is a mask.
    pub fn is_personal(&self) -> bool {
        self.mask.is_some()
    }

    /// The type that canonical forms, rules and default speak of: before a mask every value is text.
    pub fn checked_as(&self) -> Type {
        if self.is_personal() { Type::Text } else { self.kind }
    }

    /// Characters that the column leaves for a key id; `None` if it holds any or takes no pseudonyms with a key.
    pub fn room_for_key_id(&self) -> Option<u32> {
        match (&self.mask, self.kind) {
            (Some(Mask::HmacSha256 { .. }), Type::Varchar(max)) => Some(max.saturating_sub(1 + HEX_DIGITS)),
            _ => None,
        }
    }

    /// The name as SQL takes it.
    pub fn quoted(&self) -> String {
        quoted(&self.name)
    }
}

/// Digits of a SHA-256 in hexadecimal.
const HEX_DIGITS: u32 = 64;

impl Mask {
    /// What a contract calls the mask.
    pub fn name(&self) -> &'static str {
        match self {
            Mask::HmacSha256 { .. } => "hmac-sha256",
            Mask::Sha256 => "sha256",
            Mask::Redact => "redact",
            Mask::Truncate => "truncate",
            Mask::KeepLast(_) => "keep_last",
        }
    }

    /// The most characters that the mask makes, with a key id of one character.
    pub fn longest(&self) -> u32 {
        match self {
            Mask::HmacSha256 { .. } => 1 + 1 + HEX_DIGITS,
            Mask::Sha256 => HEX_DIGITS,
            Mask::Redact => 10,
            // `ffff:ffff:ffff::/48`: the 80 bits behind the network are always zeros.
            Mask::Truncate => 19,
            Mask::KeepLast(n) => n.saturating_add(3),
        }
    }

    /// Whether different values stay different.
    pub fn is_injective(&self) -> bool {
        matches!(self, Mask::HmacSha256 { .. } | Mask::Sha256)
    }
}

impl System {
    /// Whether the value comes as text, which masks and parsing work on.
    pub fn is_text(self) -> bool {
        matches!(self, System::MessageId | System::MessageGroupId)
    }
}

impl fmt::Display for System {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            System::MessageId => "$message_id",
            System::SentAt => "$sent_at",
            System::SentDate => "$sent_date",
            System::MessageGroupId => "$message_group_id",
            System::ReceiveCount => "$receive_count",
        })
    }
}

impl Canonical {
    /// What a contract calls the form.
    pub fn name(self) -> &'static str {
        match self {
            Canonical::Ip => "ip",
            Canonical::Trim => "trim",
            Canonical::Lower => "lower",
            Canonical::Digits => "digits",
        }
    }
}

impl TableName {
    /// The name as SQL takes it: each part quoted, so that any name is one and case is kept.
    pub fn quoted(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", quoted(schema), quoted(&self.name)),
            None => quoted(&self.name),
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(schema) = &self.schema {
            write!(f, "{schema}.")?;
        }
        f.write_str(&self.name)
    }
}

/// An identifier as SQL takes it.
fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

impl Fields {
    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// All names, in the order of their indices.
    pub fn names(&self) -> &[FieldName] {
        &self.names
    }

    /// The name of the field that a [`Source::Field`] or a [`Node::Leaf`] speaks of.
    ///
    /// # Panics
    ///
    /// If the index is of another contract.
    pub fn name(&self, index: usize) -> &FieldName {
        &self.names[index]
    }

    /// The names at the top of a record, sorted, as are those of every branch.
    pub fn root(&self) -> &[(String, Node)] {
        &self.root
    }

    /// Adds a path, or finds it. Its name must not be another path's, and neither may lead through the other.
    fn add(&mut self, path: &[String]) -> Result<usize, Clash> {
        let name = FieldName::new(&path.join("."));
        let index = self.names.len();
        let (last, way) = path.split_last().expect("a path has at least one name");
        let mut level = &mut self.root;
        for step in way {
            level = match child(level, step, || Node::Branch(Vec::new())) {
                Node::Branch(next) => next,
                Node::Leaf(whole) => return Err(Clash::Inside(self.names[*whole].clone())),
            };
        }
        if level.iter().all(|(taken, _)| taken != last) && self.names.contains(&name) {
            return Err(Clash::SameName);
        }
        match child(level, last, || Node::Leaf(index)) {
            Node::Branch(_) => return Err(Clash::Around),
            Node::Leaf(found) if *found < index => return Ok(*found),
            Node::Leaf(_) => {}
        }
        self.names.push(name);
        Ok(index)
    }
}

/// The node of a name among its sorted siblings, made if there is none.
fn child<'n>(level: &'n mut Vec<(String, Node)>, name: &str, new: impl FnOnce() -> Node) -> &'n mut Node {
    let at = match level.binary_search_by(|(sibling, _)| sibling.as_str().cmp(name)) {
        Ok(at) => at,
        Err(at) => {
            level.insert(at, (name.to_owned(), new()));
            at
        }
    };
    &mut level[at].1
}

/// Why a path cannot stand beside those that are there.
enum Clash {
    /// It leads into a field that is read as a whole.
    Inside(FieldName),
    /// It reads as a whole what another path leads into.
    Around,
    /// Other names, joined by dots, read the same.
    SameName,
}

impl FieldName {
    fn new(name: &str) -> FieldName {
        FieldName(Arc::from(name))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FieldName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
