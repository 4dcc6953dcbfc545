//! The TOML tree as a draft of a contract: each key by itself, with the faults that one key can have. What keys must agree
//! on is in `column` and `parse`.

use std::borrow::Cow;
use std::ops::Range;

use regex_lite::Regex;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::value::Type;
use super::faults::{Notes, Scope, instead, meant, shown};
use super::{Canonical, Parse, System, TableName, UnknownFields};

/// What a contract's text says, key by key.
pub(super) struct Draft<'t> {
    pub table: Given<TableName>,
    pub unknown_fields: Given<UnknownFields>,
    pub once: Given<OnceDraft>,
    /// In the order of the file.
    pub columns: Given<Vec<ColumnDraft<'t>>>,
}

/// What a `[once]` table says.
pub(super) struct OnceDraft {
    pub column: Given<String>,
    pub ledger: Given<TableName>,
}

/// What a `[columns.NAME]` table says.
pub(super) struct ColumnDraft<'t> {
    pub name: String,
    /// Where the name is.
    pub at: Range<usize>,
    pub from: Given<SourceDraft>,
    pub kind: Given<Type>,
    pub required: Given<bool>,
    pub default: Given<DefaultDraft<'t>>,
    pub canonical: Given<Vec<Canonical>>,
    pub parse: Given<Parse>,
    pub one_of: Given<Vec<Spanned<String>>>,
    pub pattern: Given<Regex>,
    pub min: Given<&'t DeValue<'t>>,
    pub max: Given<&'t DeValue<'t>>,
    pub mask: Given<MaskName>,
    pub keep_last: Given<u32>,
    pub unkeyed: Given<()>,
    pub domain: Given<String>,
    pub personal: Given<bool>,
}

/// A source before fields are numbered.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) enum SourceDraft {
    Path(Vec<String>),
    System(System),
    Attribute(String),
}

#[derive(Clone, Copy)]
pub(super) enum DefaultDraft<'t> {
    Literal(&'t DeValue<'t>),
    System(System),
}

/// A mask that needs no number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum MaskName {
    HmacSha256,
    Sha256,
    Redact,
    Truncate,
}

/// A key's value, where it was given and could be read.
pub(super) enum Given<T> {
    Absent,
    /// Its fault is noted: nothing should be said of it again.
    Faulty,
    As(Range<usize>, T),
}

impl<T> Given<T> {
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Given::Absent)
    }

    pub(super) fn value(&self) -> Option<&T> {
        self.with_place().map(|(_, value)| value)
    }

    pub(super) fn with_place(&self) -> Option<(Range<usize>, &T)> {
        match self {
            Given::As(at, value) => Some((at.clone(), value)),
            _ => None,
        }
    }

    /// Where the value is, if it could be read.
    pub(super) fn place(&self) -> Option<Range<usize>> {
        self.with_place().map(|(at, _)| at)
    }
}

const TOP_KEYS: [&str; 4] = ["table", "unknown_fields", "once", "columns"];
const ONCE_KEYS: [&str; 2] = ["column", "ledger"];
const COLUMN_KEYS: [&str; 15] = [
    "from",
    "type",
    "required",
    "default",
    "canonical",
    "parse",
    "one_of",
    "pattern",
    "min",
    "max",
    "mask",
    "keep_last",
    "unkeyed",
    "domain",
    "personal",
];

/// Keys of other tools, and what they are called here.
const FOREIGN_KEYS: [(&str, &str); 18] = [
    ("source", "from"),
    ("field", "from"),
    ("path", "from"),
    ("nullable", "required"),
    ("not_null", "required"),
    ("optional", "required"),
    ("enum", "one_of"),
    ("values", "one_of"),
    ("regex", "pattern"),
    ("format", "pattern"),
    ("minimum", "min"),
    ("min_length", "min"),
    ("maximum", "max"),
    ("max_length", "max"),
    ("length", "max"),
    ("pii", "personal"),
    ("hash", "mask"),
    ("normalize", "canonical"),
];

/// Reads the whole file.
pub(super) fn draft<'t>(document: &'t DeTable<'t>, notes: &mut Notes) -> Draft<'t> {
    let mut scope = notes.of("");
    let keys = Keys::of(document, &TOP_KEYS, &mut scope);
    let table = keys.read("table", &mut scope, table_name);
    let unknown_fields = keys.read("unknown_fields", &mut scope, unknown_fields);
    let once = keys.read("once", &mut scope, once);
    let columns = keys.read("columns", &mut scope, columns);
    Draft { table, unknown_fields, once, columns }
}

fn columns<'t>(slot: &Slot<'t>, scope: &mut Scope) -> Option<Vec<ColumnDraft<'t>>> {
    let Some(tables) = slot.value.as_table() else {
        return slot.is_not("a table for each column: [columns.NAME], in single brackets", scope);
    };
    let columns =
        tables.iter().filter_map(|(name, table)| column(name, table, &mut scope.of(column_place(name.get_ref()))));
    let mut columns: Vec<ColumnDraft> = columns.collect();
    columns.sort_by_key(|column| column.at.start);
    Some(columns)
}

/// What faults call a column.
pub(super) fn column_place(name: &str) -> String {
    format!("column {}", shown(name))
}

fn column<'t>(
    name: &Spanned<Cow<'t, str>>,
    table: &'t Spanned<DeValue<'t>>,
    scope: &mut Scope,
) -> Option<ColumnDraft<'t>> {
    let at = name.span();
    let name = name.get_ref();
    if let Some(fault) = fault_of_identifier(name) {
        scope.add(at.clone(), fault);
    }
    let Some(keys) = table.get_ref().as_table() else {
        let kind = shown(table.get_ref().as_str().unwrap_or("text"));
        scope.add(at, format_args!("it is {}; write a table: {{ type = {kind} }}", article(table.get_ref())));
        return None;
    };
    let keys = Keys::of(keys, &COLUMN_KEYS, scope);
    Some(ColumnDraft {
        name: name.to_string(),
        at,
        from: keys.read("from", scope, source),
        kind: keys.read("type", scope, kind),
        required: keys.read("required", scope, boolean),
        default: keys.read("default", scope, default),
        canonical: keys.read("canonical", scope, canonical_forms),
        parse: keys.read("parse", scope, parse),
        one_of: keys.read("one_of", scope, one_of),
        pattern: keys.read("pattern", scope, pattern),
        min: keys.read("min", scope, literal),
        max: keys.read("max", scope, literal),
        mask: keys.read("mask", scope, mask),
        keep_last: keys.read("keep_last", scope, keep_last),
        unkeyed: keys.read("unkeyed", scope, unkeyed),
        domain: keys.read("domain", scope, domain),
        personal: keys.read("personal", scope, boolean),
    })
}

/// A table whose unknown keys are noted.
struct Keys<'t> {
    table: &'t DeTable<'t>,
    /// Known keys that unknown ones were probably meant to be.
    misspelt: Vec<&'static str>,
}

impl<'t> Keys<'t> {
    fn of(table: &'t DeTable<'t>, known: &[&'static str], scope: &mut Scope) -> Self {
        let mut misspelt = Vec::new();
        for (key, value) in table.iter().filter(|(key, _)| !known.contains(&key.get_ref().as_ref())) {
            let word = key.get_ref().as_ref();
            let meant = meant_key(word, known);
            let instead = key_instead(word, value.get_ref(), meant, known);
            scope.add(key.span(), format_args!("{} is not a key here; {instead}", shown(word)));
            misspelt.extend(meant);
        }
        Keys { table, misspelt }
    }

    fn read<T>(
        &self,
        key: &'static str,
        scope: &mut Scope,
        reader: impl FnOnce(&Slot<'t>, &mut Scope) -> Option<T>,
    ) -> Given<T> {
        let Some((name, value)) = self.table.get_key_value(key) else {
            // A misspelt key is noted as such, and is not missing as well.
            return if self.misspelt.contains(&key) { Given::Faulty } else { Given::Absent };
        };
        // Where a syntax error left no value there is a placeholder without a place.
        let at = if value.span().is_empty() { name.span() } else { value.span() };
        let slot = Slot { key, at: at.clone(), value: value.get_ref() };
        match reader(&slot, scope) {
            Some(value) => Given::As(at, value),
            None => Given::Faulty,
        }
    }
}

/// The key that was probably meant by a word that is none.
fn meant_key<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let foreign = FOREIGN_KEYS.iter().find(|(foreign, _)| foreign.eq_ignore_ascii_case(word)).map(|(_, key)| *key);
    let foreign = known.iter().copied().find(|key| Some(*key) == foreign);
    foreign.or_else(|| meant(word, known.iter().copied()))
}

fn key_instead(word: &str, value: &DeValue, meant: Option<&str>, known: &[&str]) -> String {
    let is_top = known == TOP_KEYS;
    match meant {
        _ if TOP_KEYS.contains(&word) => {
            "it belongs to the top of the file, above the first line in [brackets]".to_owned()
        }
        None if is_top && value.is_table() => format!("for a column write [columns.{word}]"),
        Some(key) => format!("did you mean \"{key}\"?"),
        None => instead(word, known.iter().copied()),
    }
}

/// A key's value on its way to being read.
struct Slot<'t> {
    key: &'static str,
    at: Range<usize>,
    value: &'t DeValue<'t>,
}

impl<'t> Slot<'t> {
    /// Notes that the value is of another TOML type; always `None`.
    fn is_not<T>(&self, wanted: &str, scope: &mut Scope) -> Option<T> {
        scope.add(self.at.clone(), format_args!("{} is {}; write {wanted}", self.key, article(self.value)));
        None
    }

    /// Notes a fault of the value; always `None`.
    fn fault<T>(&self, fault: impl std::fmt::Display, scope: &mut Scope) -> Option<T> {
        scope.add(self.at.clone(), fault);
        None
    }

    fn string(&self, example: &str, scope: &mut Scope) -> Option<&'t str> {
        match self.value.as_str() {
            Some(text) => Some(text),
            None => self.is_not(&format!("a string: {} = \"{example}\"", self.key), scope),
        }
    }
}

/// A TOML value's type in a sentence.
pub(super) fn article(value: &DeValue) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

fn table_name(slot: &Slot, scope: &mut Scope) -> Option<TableName> {
    let text = slot.string("user_logins", scope)?;
    let parts: Vec<&str> = text.split('.').collect();
    if let Some(fault) = parts.iter().find_map(|part| fault_of_identifier(part)) {
        return slot.fault(format_args!("{} {}: {fault}", slot.key, shown(text)), scope);
    }
    match parts[..] {
        [name] => Some(TableName { schema: None, name: name.to_owned() }),
        [schema, name] => Some(TableName { schema: Some(schema.to_owned()), name: name.to_owned() }),
        _ => slot.fault(
            format_args!("{} {} has too many dots; write \"table\" or \"schema.table\"", slot.key, shown(text)),
            scope,
        ),
    }
}

/// Why PostgreSQL would not take a name, or would take another one for it.
fn fault_of_identifier(name: &str) -> Option<&'static str> {
    /// PostgreSQL cuts longer identifiers (`NAMEDATALEN - 1`).
    const MOST_BYTES: usize = 63;
    if name.is_empty() {
        Some("the name is empty; give it one")
    } else if name.contains('\0') {
        Some("the name contains NUL, which PostgreSQL does not allow; remove it")
    } else if name.len() > MOST_BYTES {
        Some("the name is longer than the 63 bytes that PostgreSQL keeps; shorten it")
    } else {
        None
    }
}

/// A value of few that are allowed.
fn word<T: Copy>(slot: &Slot, noun: &str, words: &[(&str, T)], scope: &mut Scope) -> Option<T> {
    let text = slot.string(words[0].0, scope)?;
    match words.iter().find(|(word, _)| *word == text) {
        Some((_, meaning)) => Some(*meaning),
        None => {
            let instead = instead(text, words.iter().map(|(word, _)| *word));
            slot.fault(format_args!("{} is not {noun}; {instead}", shown(text)), scope)
        }
    }
}

fn unknown_fields(slot: &Slot, scope: &mut Scope) -> Option<UnknownFields> {
    let words = [("reject", UnknownFields::Reject), ("ignore", UnknownFields::Ignore)];
    word(slot, "a choice for unknown_fields", &words, scope)
}

fn once(slot: &Slot, scope: &mut Scope) -> Option<OnceDraft> {
    let Some(table) = slot.value.as_table() else {
        return slot.is_not("a table: [once] with column = \"message_id\" below it", scope);
    };
    let keys = Keys::of(table, &ONCE_KEYS, scope);
    Some(OnceDraft { column: keys.read("column", scope, key_column), ledger: keys.read("ledger", scope, table_name) })
}

fn key_column(slot: &Slot, scope: &mut Scope) -> Option<String> {
    let name = slot.string("message_id", scope)?;
    match fault_of_identifier(name) {
        Some(fault) => slot.fault(format_args!("column {}: {fault}", shown(name)), scope),
        None => Some(name.to_owned()),
    }
}

fn boolean(slot: &Slot, scope: &mut Scope) -> Option<bool> {
    match slot.value.as_bool() {
        Some(value) => Some(value),
        None => slot.is_not("true or false, without quotes", scope),
    }
}

fn literal<'t>(slot: &Slot<'t>, _: &mut Scope) -> Option<&'t DeValue<'t>> {
    Some(slot.value)
}

fn default<'t>(slot: &Slot<'t>, scope: &mut Scope) -> Option<DefaultDraft<'t>> {
    match slot.value.as_str() {
        Some(text) if text.starts_with('$') => match system(text) {
            Some(system) => Some(DefaultDraft::System(system)),
            None => {
                let instead = instead(text, SYSTEMS.iter().map(|(word, _)| *word));
                slot.fault(format_args!("default {} is not a source; {instead}", shown(text)), scope)
            }
        },
        _ => Some(DefaultDraft::Literal(slot.value)),
    }
}

const SYSTEMS: [(&str, System); 5] = [
    ("$message_id", System::MessageId),
    ("$sent_at", System::SentAt),
    ("$sent_date", System::SentDate),
    ("$message_group_id", System::MessageGroupId),
    ("$receive_count", System::ReceiveCount),
];

fn system(text: &str) -> Option<System> {
    SYSTEMS.iter().find(|(word, _)| *word == text).map(|(_, system)| *system)
}

fn source(slot: &Slot, scope: &mut Scope) -> Option<SourceDraft> {
    match slot.value {
        DeValue::String(text) => match text.strip_prefix("$attribute.") {
            Some(name) => attribute(name, slot, scope),
            None if text.starts_with('$') => system_source(text, slot, scope),
            None => path(text.split('.').map(str::to_owned).collect(), slot, scope),
        },
        DeValue::Array(names) => {
            let texts: Option<Vec<String>> =
                names.iter().map(|name| Some(name.get_ref().as_str()?.to_owned())).collect();
            match texts {
                Some(texts) => path(texts, slot, scope),
                None => slot.fault("from has an element that is no string; write names: from = [\"a\", \"b\"]", scope),
            }
        }
        _ => slot.is_not("the name of a field: from = \"ip\"", scope),
    }
}

fn system_source(text: &str, slot: &Slot, scope: &mut Scope) -> Option<SourceDraft> {
    if let Some(system) = system(text) {
        return Some(SourceDraft::System(system));
    }
    let words = SYSTEMS.iter().map(|(word, _)| *word).chain(["$attribute.NAME"]);
    let instead = instead(text, words);
    let array = format!("for a field of that name write from = [{}]", shown(text));
    slot.fault(format_args!("{} is not a source; {instead}; {array}", shown(text)), scope)
}

fn attribute(name: &str, slot: &Slot, scope: &mut Scope) -> Option<SourceDraft> {
    // As SQS allows them; it counts up to 256 characters.
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > 256 || !name.chars().all(is_allowed) {
        let rule = "it has 1 to 256 letters, digits, \"_\", \"-\" or \".\"";
        return slot.fault(format_args!("{} is not a message attribute's name; {rule}", shown(name)), scope);
    }
    Some(SourceDraft::Attribute(name.to_owned()))
}

fn path(names: Vec<String>, slot: &Slot, scope: &mut Scope) -> Option<SourceDraft> {
    /// A record nested deeper is refused anyway; whoever walks the tree of fields may recurse.
    const DEEPEST: usize = 64;
    let fault = if names.is_empty() || names.iter().any(String::is_empty) {
        "from has an empty name; write a field's name, or names joined by single dots: \"user.email\""
    } else if names.iter().any(|name| name.contains('\0')) {
        "from has a name with NUL in it; remove it"
    } else if names.len() > DEEPEST {
        "from leads more than 64 levels down; read a field nearer to the top"
    } else {
        return Some(SourceDraft::Path(names));
    };
    slot.fault(fault, scope)
}

fn kind(slot: &Slot, scope: &mut Scope) -> Option<Type> {
    let text = slot.string("text", scope)?;
    if let Some((_, kind)) = TYPES.iter().find(|(word, _)| *word == text) {
        return Some(*kind);
    }
    if let Some(length) = text.strip_prefix("varchar(").and_then(|rest| rest.strip_suffix(')')) {
        return varchar(length, slot, scope);
    }
    slot.fault(format_args!("{} is not a type; {}", shown(text), type_instead(text)), scope)
}

const TYPES: [(&str, Type); 12] = [
    ("smallint", Type::SmallInt),
    ("integer", Type::Integer),
    ("bigint", Type::BigInt),
    ("double precision", Type::DoublePrecision),
    ("numeric", Type::Numeric),
    ("boolean", Type::Boolean),
    ("text", Type::Text),
    ("uuid", Type::Uuid),
    ("date", Type::Date),
    ("timestamptz", Type::Timestamptz),
    ("inet", Type::Inet),
    ("jsonb", Type::Jsonb),
];

fn varchar(length: &str, slot: &Slot, scope: &mut Scope) -> Option<Type> {
    /// PostgreSQL's `MaxAttrSize`.
    const LONGEST: u32 = 10_485_760;
    let is_number = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
    match length.parse() {
        Ok(length) if is_number && (1..=LONGEST).contains(&length) => Some(Type::Varchar(length)),
        _ => slot.fault(
            format_args!("\"varchar({length})\" must have a length from 1 to {LONGEST}; for any length use \"text\""),
            scope,
        ),
    }
}

/// Other names of types, and what to use.
const FOREIGN_TYPES: [(&str, &str); 34] = [
    ("int2", "smallint"),
    ("short", "smallint"),
    ("int", "integer"),
    ("int4", "integer"),
    ("serial", "integer"),
    ("number", "integer\", \"bigint\", \"numeric\" or \"double precision"),
    ("int8", "bigint"),
    ("long", "bigint"),
    ("bigserial", "bigint"),
    ("real", "double precision"),
    ("float", "double precision"),
    ("float4", "double precision"),
    ("float8", "double precision"),
    ("double", "double precision"),
    ("decimal", "numeric"),
    ("money", "numeric"),
    ("bool", "boolean"),
    ("string", "text"),
    ("str", "text"),
    ("varchar", "varchar(n)\" with a length, or \"text"),
    ("char", "varchar(n)"),
    ("character", "varchar(n)"),
    ("bpchar", "varchar(n)"),
    ("character varying", "varchar(n)"),
    ("guid", "uuid"),
    ("datetime", "timestamptz"),
    ("timestamp", "timestamptz"),
    ("timestamp with time zone", "timestamptz"),
    ("timestamp without time zone", "timestamptz"),
    ("ip", "inet"),
    ("cidr", "inet"),
    ("json", "jsonb"),
    ("object", "jsonb"),
    ("array", "jsonb"),
];

fn type_instead(text: &str) -> String {
    let bare = text.split('(').next().unwrap_or_default().trim();
    let known = || TYPES.iter().map(|(word, _)| *word);
    let length = text.split_once('(').map(|(_, rest)| rest.trim_end_matches(')')).filter(|n| n.parse::<u32>().is_ok());
    if let Some((_, ours)) = FOREIGN_TYPES.iter().find(|(foreign, _)| foreign.eq_ignore_ascii_case(bare)) {
        return match length {
            Some(length) if ours.starts_with("varchar(n)") => format!("use \"varchar({length})\""),
            _ => format!("use \"{ours}\""),
        };
    }
    match known().find(|ours| ours.eq_ignore_ascii_case(bare)) {
        Some("numeric") if bare != text => "use \"numeric\": PostgreSQL applies the table's own precision".to_owned(),
        Some(ours) => format!("use \"{ours}\""),
        None => instead(text, known().chain(["varchar(n)"])),
    }
}

fn canonical_forms(slot: &Slot, scope: &mut Scope) -> Option<Vec<Canonical>> {
    let elements: Vec<Slot> = match slot.value {
        DeValue::Array(forms) => {
            forms.iter().map(|form| Slot { key: slot.key, at: form.span(), value: form.get_ref() }).collect()
        }
        value => vec![Slot { key: slot.key, at: slot.at.clone(), value }],
    };
    // Each element is read, so that each fault is noted.
    let forms: Vec<Option<Canonical>> = elements.iter().map(|element| canonical(element, scope)).collect();
    forms.into_iter().collect()
}

fn canonical(slot: &Slot, scope: &mut Scope) -> Option<Canonical> {
    let words = [Canonical::Ip, Canonical::Trim, Canonical::Lower, Canonical::Digits].map(|form| (form.name(), form));
    word(slot, "a canonical form", &words, scope)
}

fn parse(slot: &Slot, scope: &mut Scope) -> Option<Parse> {
    word(slot, "a way to parse", &[("version", Parse::Version)], scope)
}

fn one_of(slot: &Slot, scope: &mut Scope) -> Option<Vec<Spanned<String>>> {
    let Some(values) = slot.value.as_array() else {
        return slot.is_not("an array of strings: one_of = [\"a\", \"b\"]", scope);
    };
    if values.is_empty() {
        return slot.fault("one_of is empty, so no value would pass; list the values that may", scope);
    }
    let texts = values.iter().map(|value| Some(Spanned::new(value.span(), value.get_ref().as_str()?.to_owned())));
    match texts.collect() {
        Some(texts) => Some(texts),
        None => slot.fault("one_of has an element that is no string; put each value in quotes", scope),
    }
}

fn pattern(slot: &Slot, scope: &mut Scope) -> Option<Regex> {
    let text = slot.string("[a-z]+", scope)?;
    // By itself first: `a)|(b` is no pattern, though inside of the group it would be two.
    let whole = Regex::new(text).and_then(|_| Regex::new(&format!(r"\A(?:{text})\z")));
    match whole {
        Ok(pattern) => Some(pattern),
        Err(error) => slot.fault(
            format_args!(
                "pattern {} is not a regular expression: {error}; mend it (in '…' a backslash needs no second one)",
                shown(text)
            ),
            scope,
        ),
    }
}

fn mask(slot: &Slot, scope: &mut Scope) -> Option<MaskName> {
    match slot.value.as_str() {
        Some("keep_last") => slot.fault("\"keep_last\" takes a number; write keep_last = 4 instead of mask", scope),
        Some("none" | "") => slot.fault("for no mask leave the key out", scope),
        _ => word(slot, "a mask", &MASKS, scope),
    }
}

const MASKS: [(&str, MaskName); 4] = [
    ("hmac-sha256", MaskName::HmacSha256),
    ("sha256", MaskName::Sha256),
    ("redact", MaskName::Redact),
    ("truncate", MaskName::Truncate),
];

fn keep_last(slot: &Slot, scope: &mut Scope) -> Option<u32> {
    /// More than that hides too little to be called a mask.
    const MOST: u32 = 16;
    let number = slot.value.as_integer().and_then(|n| u32::from_str_radix(n.as_str(), n.radix()).ok());
    match number {
        Some(n) if (1..=MOST).contains(&n) => Some(n),
        Some(0) => slot.fault("keep_last = 0 keeps nothing; use mask = \"redact\"", scope),
        _ if slot.value.is_integer() => {
            slot.fault(format_args!("keep_last must be from 1 to {MOST}; use 4, say"), scope)
        }
        _ => slot.is_not("how many characters to keep: keep_last = 4", scope),
    }
}

fn unkeyed(slot: &Slot, scope: &mut Scope) -> Option<()> {
    word(slot, "what unkeyed takes", &[("accepted", ())], scope)
}

fn domain(slot: &Slot, scope: &mut Scope) -> Option<String> {
    let text = slot.string("ip", scope)?;
    if text.is_empty() || text.contains('\0') {
        return slot.fault("domain must be a text without NUL and not empty; leave it out for the field's name", scope);
    }
    Some(text.to_owned())
}

/// Every key, type, source and mask that a contract can use, so that a test can look for them in the reference.
#[cfg(test)]
pub(super) fn words() -> impl Iterator<Item = &'static str> {
    let keys = TOP_KEYS[..2].iter().chain(&ONCE_KEYS).chain(&COLUMN_KEYS).copied();
    let types = TYPES.iter().map(|(word, _)| *word);
    let systems = SYSTEMS.iter().map(|(word, _)| *word);
    keys.chain(types).chain(systems).chain(MASKS.iter().map(|(word, _)| *word))
}
