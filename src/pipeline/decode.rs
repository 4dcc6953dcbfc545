//! From a body to a record: one pass over the JSON that keeps what the contract reads. Types and rules are not looked at here.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::contract::{Contract, Fields, Node, UnknownFields};
use super::outcome::Reason;
use super::record::Record;
use super::value::Json;

/// Reads the contract's fields out of a body.
pub fn decode<'a>(body: &'a str, contract: &Contract) -> Result<Record<'a>, Reason> {
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
