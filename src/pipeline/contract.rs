//! What a message must look like, what of it is personal, and where it is stored. How the TOML text becomes this is in `parse`.

use std::fmt;
use std::sync::Arc;

use regex_lite::Regex;

use super::value::{Type, Value};

/// The contract between the senders of messages and the table they end in.
#[derive(Debug)]
pub struct Contract {
    pub table: TableName,
    pub unknown_fields: UnknownFields,
    pub once: Once,
    /// In the order of the file; the key column comes first when the file does not declare it.
    pub columns: Vec<Column>,
    /// The distinct fields that columns read; [`Source::Field`] is an index into them.
    pub fields: Fields,
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

/// One column of the table and how its value comes about: source, default, canonical form, type, rules, mask.
#[derive(Debug)]
pub struct Column {
    pub name: String,
    pub source: Source,
    /// The type of the column. Where there is a mask, the type of what the mask makes.
    pub kind: Type,
    /// Neither absent, nor null, nor an empty string.
    pub required: bool,
    /// Stands in for an absent or null value.
    pub default: Option<DefaultValue>,
    /// Applied in this order before the rules and the mask.
    pub canonical: Vec<Canonical>,
    pub parse: Option<Parse>,
    pub rules: Rules,
    pub mask: Option<Mask>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// `***` and the last characters.
    KeepLast(u32),
}

/// The fields that a contract reads, as a tree of names.
#[derive(Debug, Default)]
pub struct Fields {
    names: Vec<FieldName>,
    root: Vec<(String, Node)>,
}

/// A field's path as the contract gives it, its names joined by dots. Never a name that only a message has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldName(Arc<str>);

/// A name in a record: read as a whole, or looked into.
#[derive(Debug)]
pub enum Node {
    /// An index into the names.
    Leaf(usize),
    Branch(Vec<(String, Node)>),
}
