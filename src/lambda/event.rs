//! From an SQS event's text to a batch: ids, bodies and attributes, borrowed where they can be.
//!
//! Bodies are JSON in a JSON string, so each has escapes; what they say without is collected in one text for all. `Scan`
//! reads what SQS sends; any other event, a faulty one too, is left to serde_json.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;

use super::InvocationError;
use crate::pipeline::message::{Batch, Message};
use crate::scan::{Buffer, Scan, Start, Unescaped};

/// An event that was read; it becomes a batch, which borrows from it.
pub(super) struct Event<'a> {
    messages: Vec<Message<'a>>,
    ordered: bool,
    /// The bodies that had escapes, end to end.
    bodies: String,
    /// Where in them each message's is, if it is there.
    places: Vec<Option<(usize, usize)>>,
}

impl<'a> Event<'a> {
    /// Reads an event.
    pub(super) fn parse(event: &'a [u8]) -> Result<Self, InvocationError> {
        let event = std::str::from_utf8(event).map_err(|error| not_text(&event[..error.valid_up_to()]))?;
        if let Some(event) = quick(event) {
            return Ok(event);
        }
        let (messages, ordered) = thorough(event)?;
        Ok(Self { messages, ordered, bodies: String::new(), places: Vec::new() })
    }

    /// The messages as a batch. Call it once: it takes them.
    pub(super) fn batch<'e>(&'e mut self) -> Batch<'e>
    where
        'a: 'e,
    {
        let mut messages: Vec<Message<'e>> = std::mem::take(&mut self.messages);
        for (message, place) in messages.iter_mut().zip(&self.places) {
            if let Some((start, end)) = *place {
                message.body = Some(Cow::Borrowed(&self.bodies[start..end]));
            }
        }
        Batch { messages, ordered: self.ordered }
    }
}

/// The position behind the part of an event that is text, counted as serde_json does.
fn not_text(valid: &[u8]) -> InvocationError {
    let line = 1 + valid.iter().filter(|byte| **byte == b'\n').count();
    let column = valid.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
    InvocationError::NotSqs { line, column }
}

/// A queue is ordered by its name, not by `MessageGroupId`: standard queues may carry one too (fair queues).
fn is_fifo(arn: &str) -> bool {
    arn.ends_with(".fifo")
}

/// Reads an event as SQS sends it.
fn quick(text: &str) -> Option<Event<'_>> {
    /// Without its escapes a body is the smaller part of its record.
    const BODY_PART: usize = 4;
    /// Shorter records there are hardly any.
    const RECORD: usize = 800;
    let mut scan = Scan::new(text);
    let mut bodies = Buffer::with_room(text.len() / BODY_PART);
    let count = text.len() / RECORD;
    let mut event = Event {
        messages: Vec::with_capacity(count),
        ordered: false,
        bodies: String::new(),
        places: Vec::with_capacity(count),
    };
    if scan.name(&mut true)? != Some("Records") || !scan.take(b'[') {
        return None;
    }
    if !scan.take(b']') {
        loop {
            event.add(quick_record(&mut scan, &mut bodies)?);
            if !scan.take(b',') {
                break;
            }
        }
        if !scan.take(b']') {
            return None;
        }
    }
    if !scan.take(b'}') || !scan.is_at_end() {
        return None;
    }
    event.bodies = bodies.into_text()?;
    Some(event)
}

/// What a record says; its body may have to be fetched.
#[derive(Default)]
struct Found<'a> {
    id: &'a str,
    body: Option<Unescaped<'a>>,
    attributes: Attributes<'a>,
    message_attributes: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    is_fifo: bool,
}

impl<'a> Event<'a> {
    fn add(&mut self, found: Found<'a>) {
        let (body, place) = match found.body {
            Some(Unescaped::Borrowed(text)) => (Some(Cow::Borrowed(text)), None),
            Some(Unescaped::Buffered { start, end }) => (None, Some((start, end))),
            None => (None, None),
        };
        self.ordered |= found.is_fifo;
        self.places.push(place);
        self.messages.push(message(Cow::Borrowed(found.id), body, found.attributes, found.message_attributes));
    }
}

fn quick_record<'a>(scan: &mut Scan<'a>, bodies: &mut Buffer) -> Option<Found<'a>> {
    let mut found = Found::default();
    let mut seen = Seen::default();
    let mut is_first = true;
    while let Some(name) = scan.name(&mut is_first)? {
        match name {
            "messageId" => {
                seen.note(0)?;
                found.id = scan.plain()?;
            }
            "body" => {
                seen.note(1)?;
                found.body = match scan.start()? {
                    Start::Null => scan.word("null").map(|()| None)?,
                    _ => Some(scan.string(bodies)?),
                };
            }
            "attributes" => {
                seen.note(2)?;
                found.attributes = quick_attributes(scan)?;
            }
            "messageAttributes" => {
                seen.note(3)?;
                found.message_attributes = match scan.value()? {
                    "{}" => Vec::new(),
                    text => strings(serde_json::from_str::<Option<MessageAttributes<'a>>>(text).ok()?),
                };
            }
            "eventSourceARN" => {
                seen.note(4)?;
                found.is_fifo = is_fifo(scan.plain()?);
            }
            _ => {
                scan.value()?;
            }
        }
    }
    // Serde's way tells what is the matter with a record that has no id.
    (!found.id.is_empty()).then_some(found)
}

fn quick_attributes<'a>(scan: &mut Scan<'a>) -> Option<Attributes<'a>> {
    let mut attributes = Attributes::default();
    let mut seen = Seen::default();
    let mut is_first = true;
    while let Some(name) = scan.name(&mut is_first)? {
        let (number, attribute) = match name {
            "ApproximateReceiveCount" => (0, &mut attributes.approximate_receive_count),
            "SentTimestamp" => (1, &mut attributes.sent_timestamp),
            "MessageGroupId" => (2, &mut attributes.message_group_id),
            _ => {
                scan.value()?;
                continue;
            }
        };
        seen.note(number)?;
        *attribute = Some(Text(Cow::Borrowed(scan.plain()?)));
    }
    Some(attributes)
}

/// Which names an object has had: one that comes twice makes serde refuse the event.
#[derive(Default)]
struct Seen(u8);

impl Seen {
    fn note(&mut self, name: u8) -> Option<()> {
        let bit = 1 << name;
        let is_new = self.0 & bit == 0;
        self.0 |= bit;
        is_new.then_some(())
    }
}

fn message<'a>(
    id: Cow<'a, str>,
    body: Option<Cow<'a, str>>,
    attributes: Attributes<'a>,
    message_attributes: Vec<(Cow<'a, str>, Cow<'a, str>)>,
) -> Message<'a> {
    let number = |text: Option<Text<'_>>| text.and_then(|text| text.0.parse().ok());
    Message {
        id,
        body,
        sent_at: number(attributes.sent_timestamp),
        group: attributes.message_group_id.map(|group| group.0),
        receive_count: number(attributes.approximate_receive_count),
        attributes: message_attributes,
    }
}

fn strings<'a>(attributes: Option<MessageAttributes<'a>>) -> Vec<(Cow<'a, str>, Cow<'a, str>)> {
    let attributes = attributes.unwrap_or_default().into_iter();
    attributes.filter_map(|(name, value)| Some((name.0, value.string_value?.0))).collect()
}

/// Reads any event, and says why one is none.
fn thorough(text: &str) -> Result<(Vec<Message<'_>>, bool), InvocationError> {
    // Only the position: the error's text may quote the event.
    let whole: Whole<'_> = serde_json::from_str(text)
        .map_err(|error| InvocationError::NotSqs { line: error.line(), column: error.column() })?;
    let arn_of = |record: &Record<'_>| record.event_source_arn.as_ref().is_some_and(|arn| is_fifo(&arn.0));
    let ordered = whole.records.iter().any(arn_of);
    let messages = whole.records.into_iter().enumerate().map(|(i, record)| record.into_message(i));
    Ok((messages.collect::<Result<_, _>>()?, ordered))
}

/// The event as serde reads it; only what the pipeline uses.
#[derive(Deserialize)]
struct Whole<'a> {
    #[serde(rename = "Records", borrow)]
    records: Vec<Record<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record<'a> {
    #[serde(borrow, default)]
    message_id: Option<Text<'a>>,
    #[serde(borrow, default)]
    body: Option<Text<'a>>,
    #[serde(borrow, default)]
    attributes: Option<Attributes<'a>>,
    #[serde(borrow, default)]
    message_attributes: Option<MessageAttributes<'a>>,
    #[serde(borrow, default, rename = "eventSourceARN")]
    event_source_arn: Option<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Attributes<'a> {
    #[serde(borrow)]
    approximate_receive_count: Option<Text<'a>>,
    #[serde(borrow)]
    sent_timestamp: Option<Text<'a>>,
    #[serde(borrow)]
    message_group_id: Option<Text<'a>>,
}

type MessageAttributes<'a> = HashMap<Text<'a>, MessageAttribute<'a>>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MessageAttribute<'a> {
    #[serde(borrow, default)]
    string_value: Option<Text<'a>>,
}

/// A string of the event, borrowed where it has no escapes. Serde borrows a bare `Cow` only, not one in an `Option`.
#[derive(Deserialize, PartialEq, Eq, Hash)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Record<'a> {
    fn into_message(self, position: usize) -> Result<Message<'a>, InvocationError> {
        let id = self.message_id.map(|id| id.0).filter(|id| !id.is_empty());
        let id = id.ok_or(InvocationError::NoMessageId { position })?;
        let attributes = self.attributes.unwrap_or_default();
        Ok(message(id, self.body.map(|body| body.0), attributes, strings(self.message_attributes)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Said = (String, Option<String>, Option<i64>, Option<String>, Option<i64>, Vec<(String, String)>);

    fn said(messages: &[Message<'_>]) -> Vec<Said> {
        let say = |message: &Message<'_>| {
            let mut attributes: Vec<_> =
                message.attributes.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
            attributes.sort();
            let (id, body) = (message.id.to_string(), message.body.as_deref().map(str::to_owned));
            (id, body, message.sent_at, message.group.as_deref().map(str::to_owned), message.receive_count, attributes)
        };
        messages.iter().map(say).collect()
    }

    /// Whether the event was read quickly; if so, it must be what serde reads.
    #[track_caller]
    fn check(text: &str) -> bool {
        let Some(mut quick) = quick(text) else { return false };
        let Ok((messages, ordered)) = thorough(text) else { panic!("serde refuses {text}") };
        let batch = quick.batch();
        assert_eq!((said(&batch.messages), batch.ordered), (said(&messages), ordered), "{text}");
        true
    }

    #[test]
    fn events_of_the_console_and_of_the_wire_are_read_quickly() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/events");
        let mut read = 0;
        for file in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let text = std::fs::read_to_string(&file).unwrap();
            if text.contains("\"Records\"") {
                let dense = serde_json::from_str::<serde_json::Value>(&text).unwrap().to_string();
                let is_quick = [check(&text), check(&dense)];
                read += usize::from(is_quick == [true, true]);
            }
        }
        assert!(read >= 5, "only {read} events were read quickly");
    }

    fn any_event() -> impl Strategy<Value = String> {
        let text = prop_oneof![
            3 => "[a-z0-9:-]{0,40}".prop_map(|text| format!("\"{text}\"")),
            3 => any::<String>().prop_map(|text| serde_json::json!(text).to_string()),
            3 => r#"\{("[a-c]{1,9}": ("[a-z]{0,30}"|null|[0-9]{1,3}),? ?){0,5}\}"#
                .prop_map(|text| serde_json::json!(text).to_string()),
            1 => r#""[a-c"\\u0d8/\x00-\x20]{0,40}""#,
            1 => prop_oneof![Just("null"), Just("1"), Just("{}"), Just("[]"), Just("tru")].prop_map(String::from),
        ];
        let id = prop_oneof![9 => "\"[a-z0-9-]{36}\"".boxed(), 1 => text.clone().boxed()];
        let number = prop_oneof![9 => "\"[0-9]{1,14}\"".boxed(), 1 => text.clone().boxed()];
        let named = |name: &'static str, value: BoxedStrategy<String>| {
            value.prop_map(move |value| format!("\"{name}\":{value}")).boxed()
        };
        let object = |members: BoxedStrategy<Vec<String>>| members.prop_map(|m| format!("{{{}}}", m.join(","))).boxed();
        let attribute = prop_oneof![
            named("ApproximateReceiveCount", number.clone().boxed()),
            named("SentTimestamp", number.boxed()),
            named("MessageGroupId", text.clone().boxed()),
            named("SenderId", text.clone().boxed()),
        ];
        let message_attribute = object(
            proptest::collection::vec(
                prop_oneof![named("stringValue", text.clone().boxed()), named("dataType", text.clone().boxed())],
                0..3,
            )
            .boxed(),
        );
        let message_attributes =
            proptest::collection::vec(("\"[a-c]\"", message_attribute).prop_map(|(n, v)| format!("{n}:{v}")), 0..3);
        let arn = prop_oneof![Just("\"arn:aws:sqs:q\""), Just("\"arn:aws:sqs:q.fifo\"")].prop_map(String::from);
        let other = prop_oneof![
            4 => named("body", text.clone().boxed()),
            4 => named("attributes", object(proptest::collection::vec(attribute, 0..5).boxed())),
            2 => named("messageAttributes", object(message_attributes.boxed())),
            2 => named("eventSourceARN", arn.boxed()),
            2 => named("receiptHandle", text.boxed()),
            1 => Just("\"x\":[1,{\"y\":\"]\"}]".to_owned()).boxed(),
        ];
        let record = (named("messageId", id.boxed()), proptest::collection::vec(other, 0..5), "[ \n]?").prop_map(
            |(id, others, space)| {
                let all: Vec<String> = std::iter::once(id).chain(others).collect();
                format!("{{{}{space}}}", all.join(&format!("{space},{space}")))
            },
        );
        (proptest::collection::vec(record, 0..3), prop_oneof![9 => Just("}"), 1 => Just("} x"), 1 => Just("}\u{1}")])
            .prop_map(|(records, end)| format!("{{\"Records\":[{}]{end}", records.join(",")))
    }

    #[test]
    fn what_is_read_quickly_is_what_serde_reads() {
        let quick = std::cell::Cell::new(0);
        let config = ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(event in any_event(), cut in 0..40_usize)| {
            quick.set(quick.get() + usize::from(check(&event)));
            // Any text that breaks off is none.
            let cut = event.floor_char_boundary(event.len().saturating_sub(cut));
            check(&event[..cut]);
        });
        assert!(quick.get() > 200, "too few were read quickly to show anything: {}", quick.get());
    }
}
