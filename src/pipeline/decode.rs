//! From a body to a record: one pass over the JSON that keeps what the contract reads. Types and rules are not looked at here.
//!
//! `Scan` reads the usual body; any other, a faulty one too, is left to serde_json.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::contract::{Contract, Fields, Node, UnknownFields};
use super::outcome::Reason;
use super::record::Record;
use super::value::Json;
use crate::scan::{Scan, Start};

/// Reads the bodies of a batch, one after the other, into one record.
pub struct Decoder<'c, 'a> {
    contract: &'c Contract,
    record: Record<'a>,
    /// Branches met in a body so far.
    looked_into: Vec<&'c Node>,
    /// For each top-level name, which one came behind it last time, and in front the first: senders keep an order.
    next: Vec<usize>,
}

impl<'c, 'a> Decoder<'c, 'a> {
    pub fn new(contract: &'c Contract) -> Self {
        let next = (0..=contract.fields.root().len()).collect();
        Self { contract, record: Record::empty(contract.fields.len()), looked_into: Vec::new(), next }
    }

    /// Reads the contract's fields out of a body.
    pub fn decode(&mut self, body: &'a str) -> Result<&Record<'a>, Reason> {
        self.record.clear();
        self.looked_into.clear();
        let mut scan = Scan::new(body);
        if self.quick_root(&mut scan).is_none() || !scan.is_at_end() {
            self.record = decode(body, self.contract)?;
        }
        Ok(&self.record)
    }

    fn quick_root(&mut self, scan: &mut Scan<'a>) -> Option<()> {
        let nodes = self.contract.fields.root();
        let mut is_first = true;
        let mut last = 0;
        while let Some(name) = scan.name(&mut is_first)? {
            let expected = self.next[last];
            let found = match nodes.get(expected) {
                Some((expected_name, _)) if expected_name == name => Some(expected),
                _ => nodes.iter().position(|(known, _)| known == name),
            };
            if let Some(index) = found {
                self.next[last] = index;
                last = index + 1;
            }
            self.quick_value(found.map(|index| &nodes[index].1), scan)?;
        }
        Some(())
    }

    fn quick_object(&mut self, nodes: &'c [(String, Node)], scan: &mut Scan<'a>) -> Option<()> {
        let mut is_first = true;
        while let Some(name) = scan.name(&mut is_first)? {
            let found = nodes.iter().find(|(known, _)| known == name).map(|(_, node)| node);
            self.quick_value(found, scan)?;
        }
        Some(())
    }

    fn quick_value(&mut self, node: Option<&'c Node>, scan: &mut Scan<'a>) -> Option<()> {
        match node {
            Some(Node::Leaf(field)) => {
                let value = quick_json(scan)?;
                self.record.set(*field, value).then_some(())
            }
            Some(node @ Node::Branch(nodes)) => {
                if self.looked_into.len() == MOST_BRANCHES
                    || self.looked_into.iter().any(|seen| std::ptr::eq(*seen, node))
                {
                    return None;
                }
                self.looked_into.push(node);
                self.quick_object(nodes, scan)
            }
            None if self.contract.unknown_fields == UnknownFields::Ignore => scan.value().map(|_| ()),
            None => None,
        }
    }
}

/// So many branches are met in one body at most, so that it cannot be deeper than serde_json allows.
const MOST_BRANCHES: usize = 64;

fn quick_json<'a>(scan: &mut Scan<'a>) -> Option<Json<'a>> {
    Some(match scan.start()? {
        Start::String => Json::String(Cow::Borrowed(scan.plain()?)),
        Start::Null => scan.word("null").map(|()| Json::Null)?,
        Start::True => scan.word("true").map(|()| Json::Bool(true))?,
        Start::False => scan.word("false").map(|()| Json::Bool(false))?,
        Start::Number => Json::Number(scan.number()?),
        Start::Object | Start::Array => Json::Nested(scan.value()?),
    })
}

/// Reads the contract's fields out of any body, and says why it cannot.
fn decode<'a>(body: &'a str, contract: &Contract) -> Result<Record<'a>, Reason> {
    let mut reader = Reader {
        fields: &contract.fields,
        unknown: contract.unknown_fields,
        record: Record::empty(contract.fields.len()),
        looked_into: Vec::new(),
        fault: None,
    };
    let mut json = serde_json::Deserializer::from_str(body);
    let root = Object { nodes: contract.fields.root(), reader: &mut reader, is_root: true };
    match root.deserialize(&mut json).and_then(|()| json.end()) {
        Ok(()) => Ok(reader.record),
        // Only the position: the error's text may quote the body.
        Err(e) => Err(reader.fault.unwrap_or(Reason::NotJson { line: e.line(), column: e.column() })),
    }
}

/// The reason behind the reason, when a body that failed is another service's wrapping or test message.
pub fn envelope(body: &str) -> Option<Reason> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Probe<'a> {
        #[serde(borrow, rename = "Type")]
        kind: Option<Cow<'a, str>>,
        topic_arn: Option<IgnoredAny>,
        message: Option<IgnoredAny>,
        #[serde(borrow)]
        event: Option<Cow<'a, str>>,
        bucket: Option<IgnoredAny>,
    }
    let probe: Probe<'_> = serde_json::from_str(body).ok()?;
    if probe.kind.as_deref() == Some("Notification") && probe.topic_arn.is_some() && probe.message.is_some() {
        Some(Reason::SnsEnvelope)
    } else if probe.event.as_deref() == Some("s3:TestEvent") && probe.bucket.is_some() {
        Some(Reason::S3TestEvent)
    } else {
        None
    }
}

/// What one pass over a body collects.
struct Reader<'c, 'a> {
    fields: &'c Fields,
    unknown: UnknownFields,
    record: Record<'a>,
    /// Objects met so far, to notice one that is there twice.
    looked_into: Vec<&'c Node>,
    /// Why the pass was given up; serde's own error would have to carry it as text.
    fault: Option<Reason>,
}

impl<'c, 'a> Reader<'c, 'a> {
    fn fail<E: de::Error>(&mut self, reason: Reason) -> E {
        self.fault = Some(reason);
        E::custom("the body was given up")
    }

    fn read<A: MapAccess<'a>>(&mut self, node: &'c Node, map: &mut A) -> Result<(), A::Error> {
        match node {
            Node::Leaf(field) => {
                let raw: &'a RawValue = map.next_value()?;
                let value = json_of(raw.get()).map_err(de::Error::custom)?;
                if self.record.set(*field, value) {
                    return Ok(());
                }
            }
            Node::Branch(nodes) => {
                if !self.looked_into.iter().any(|seen| std::ptr::eq(*seen, node)) {
                    self.looked_into.push(node);
                    return map.next_value_seed(Object { nodes, reader: self, is_root: false });
                }
            }
        }
        let field = self.first_field(node);
        Err(self.fail(Reason::DuplicateField { field }))
    }

    /// The name of a field in or below a node.
    fn first_field(&self, node: &Node) -> super::contract::FieldName {
        match node {
            Node::Leaf(field) => self.fields.name(*field).clone(),
            Node::Branch(nodes) => self.first_field(&nodes[0].1),
        }
    }
}

/// One JSON value from its own text, which is known to be JSON.
fn json_of(raw: &str) -> Result<Json<'_>, &'static str> {
    Ok(match raw.as_bytes()[0] {
        b'"' if !raw.contains('\\') => Json::String(Cow::Borrowed(&raw[1..raw.len() - 1])),
        b'"' => Json::String(Cow::Owned(serde_json::from_str(raw).map_err(|_| "a string is not Unicode")?)),
        b'{' | b'[' => Json::Nested(raw),
        b't' => Json::Bool(true),
        b'f' => Json::Bool(false),
        b'n' => Json::Null,
        _ => Json::Number(raw),
    })
}

/// An object of the body, read into the record.
struct Object<'c, 'r, 'a> {
    nodes: &'c [(String, Node)],
    reader: &'r mut Reader<'c, 'a>,
    is_root: bool,
}

impl<'a> DeserializeSeed<'a> for Object<'_, '_, 'a> {
    type Value = ();

    fn deserialize<D: de::Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'c, 'a> Object<'c, '_, 'a> {
    fn not_an_object<E: de::Error>(self) -> Result<(), E> {
        let reason = if self.is_root {
            Reason::NotAnObject
        } else {
            Reason::NotNested { field: self.reader.first_field(&self.nodes[0].1) }
        };
        Err(self.reader.fail(reason))
    }
}

impl<'a> Visitor<'a> for Object<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        let mut position = 0;
        let mut next = 0;
        while let Some(found) = map.next_key_seed(Name { nodes: self.nodes, next })? {
            position += 1;
            match found {
                Some(index) => {
                    self.reader.read(&self.nodes[index].1, &mut map)?;
                    next = index + 1;
                }
                None if self.reader.unknown == UnknownFields::Ignore => {
                    map.next_value::<IgnoredAny>()?;
                }
                None => return Err(self.reader.fail(Reason::UnknownField { position })),
            }
        }
        Ok(())
    }

    /// A nested `null` is an object without fields.
    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        if self.is_root { self.not_an_object() } else { Ok(()) }
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<(), E> {
        self.not_an_object()
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<(), E> {
        self.not_an_object()
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<(), E> {
        self.not_an_object()
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<(), E> {
        self.not_an_object()
    }

    fn visit_str<E: de::Error>(self, _: &str) -> Result<(), E> {
        self.not_an_object()
    }

    fn visit_seq<A: de::SeqAccess<'a>>(self, _: A) -> Result<(), A::Error> {
        self.not_an_object()
    }
}

/// A name of an object, found among the nodes; senders keep an order, so the search starts behind the last find.
struct Name<'c> {
    nodes: &'c [(String, Node)],
    next: usize,
}

impl<'a> DeserializeSeed<'a> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: de::Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        let count = self.nodes.len();
        Ok((0..count).map(|i| (self.next + i) % count).find(|&i| self.nodes[i].0 == name))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NESTED: &str = r#"
table = "t"
unknown_fields = "ignore"
[once]
ledger = "l"
[columns.a]
type = "text"
[columns.b]
type = "jsonb"
[columns.c]
type = "text"
from = "c.a"
[columns.d]
type = "text"
from = "c.b.a"
"#;

    /// JSON and what is nearly JSON.
    fn any_value() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            6 => "[a-c ]{0,12}".prop_map(|text| format!("\"{text}\"")),
            2 => any::<String>().prop_map(|text| serde_json::json!(text).to_string()),
            1 => r#""[a-c"\\u0d8/\x00-\x20]{0,40}""#,
            3 => r"-?[0-9]{0,3}(\.[0-9]{0,2})?([eE][+-]?[0-9]{0,4})?",
            2 => prop_oneof![Just("true"), Just("false"), Just("null"), Just("nul"), Just("NaN")].prop_map(String::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            let member = (r#""([a-e]|\\u0061)""#, inner.clone(), "[ \n\t\x0c]?");
            prop_oneof![
                4 => proptest::collection::vec(member, 0..5).prop_map(|members| {
                    let members: Vec<String> = members.iter().map(|(n, v, s)| format!("{s}{n}{s}:{s}{v}{s}")).collect();
                    format!("{{{}}}", members.join(","))
                }),
                1 => proptest::collection::vec(inner, 0..4).prop_map(|values| format!("[{}]", values.join(","))),
            ]
        })
    }

    #[test]
    fn what_is_read_quickly_is_what_serde_reads() {
        let ignoring = Contract::parse("test", NESTED).unwrap();
        let rejecting = Contract::parse("test", &NESTED.replace("\"ignore\"", "\"reject\"")).unwrap();
        let quick = std::cell::Cell::new(0);
        let config = ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(bodies in proptest::collection::vec((any_value(), "[ x\\x01]?"), 2))| {
            let bodies: Vec<String> = bodies.iter().map(|(body, rest)| format!("{body}{rest}")).collect();
            for contract in [&ignoring, &rejecting] {
                let mut decoder = Decoder::new(contract);
                for body in &bodies {
                    let mut scan = Scan::new(body);
                    decoder.record.clear();
                    decoder.looked_into.clear();
                    if decoder.quick_root(&mut scan).is_some() && scan.is_at_end() {
                        quick.set(quick.get() + 1);
                    }
                    prop_assert!(decoder.decode(body) == decode(body, contract).as_ref().map_err(Clone::clone), "{body}");
                }
            }
        });
        assert!(quick.get() > 200, "too few were read quickly to show anything: {}", quick.get());
    }
}
