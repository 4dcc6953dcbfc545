//! The JSON of one SQS event, exactly as Lambda words it, within Lambda's limit. It knows what was
//! received, not what becomes of it.
//!
//! <https://docs.aws.amazon.com/lambda/latest/dg/with-sqs.html>

use md5::{Digest, Md5};
use serde_json::{Map, Value, json};

use super::LARGEST_EVENT;
use crate::queue::{Queue, Received};

const OPENING: &str = r#"{"Records":["#;
const CLOSING: &str = "]}";

/// An event that is being written.
pub(super) struct Event<'a> {
    queue: &'a Queue,
    arn: String,
    json: String,
    full: bool,
}

impl<'a> Event<'a> {
    pub(super) fn of(queue: &'a Queue) -> Self {
        Self { queue, arn: queue.arn(), json: OPENING.to_owned(), full: false }
    }

    /// Appends a message, unless the event would become too large. The first always fits.
    pub(super) fn push(&mut self, received: &Received) -> bool {
        let record = record(received, &self.arn, self.queue.region()).to_string();
        let is_first = self.json.len() == OPENING.len();
        let size = self.json.len() + 1 + record.len() + CLOSING.len();
        self.full |= size > LARGEST_EVENT && !is_first;
        if self.full {
            return false;
        }
        if !is_first {
            self.json.push(',');
        }
        self.json += &record;
        true
    }

    /// Whether a message was turned away.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    pub(super) fn finish(mut self) -> String {
        self.json += CLOSING;
        self.json
    }
}

fn record(received: &Received, arn: &str, region: &str) -> Value {
    let body = received.message.body.as_deref();
    json!({
        "messageId": received.message_id,
        "receiptHandle": received.receipt_handle,
        "body": body,
        "attributes": attributes(received),
        "messageAttributes": message_attributes(received),
        "md5OfBody": md5_hex(body.unwrap_or_default()),
        "eventSource": "aws:sqs",
        "eventSourceARN": arn,
        "awsRegion": region,
    })
}

/// Numbers are strings here, as in AWS's.
fn attributes(received: &Received) -> Map<String, Value> {
    let message = &received.message;
    let always = [
        ("ApproximateReceiveCount", received.receive_count.to_string()),
        ("SentTimestamp", received.sent_ms.to_string()),
        ("SenderId", "AIDALOCALLOCALLOCAL00".to_owned()),
        ("ApproximateFirstReceiveTimestamp", received.first_received_ms.to_string()),
    ];
    let sometimes = [
        ("MessageGroupId", &message.group),
        ("MessageDeduplicationId", &message.deduplication_id),
        ("SequenceNumber", &received.sequence_number),
    ];
    let sometimes = sometimes.into_iter().filter_map(|(name, value)| Some((name, value.clone()?)));
    always.into_iter().chain(sometimes).map(|(name, value)| (name.to_owned(), value.into())).collect()
}

fn message_attributes(received: &Received) -> Map<String, Value> {
    let attributes = received.message.attributes.iter().map(|(name, value)| {
        let value = json!({
            "stringValue": value,
            "stringListValues": [],
            "binaryListValues": [],
            "dataType": "String",
        });
        (name.clone(), value)
    });
    attributes.collect()
}

fn md5_hex(text: &str) -> String {
    Md5::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::queue::Message;

    fn event(queue: &str, messages: Vec<Message>) -> Value {
        let queue = Queue::builder(queue).region("eu-west-1").create(&Clock::at(2_000)).unwrap();
        for message in messages {
            queue.send(message).unwrap();
        }
        let mut event = Event::of(&queue);
        queue.receive(10, |next| event.push(next));
        let mut event: Value = serde_json::from_str(&event.finish()).unwrap();
        for record in event["Records"].as_array_mut().unwrap() {
            assert!(record["receiptHandle"].take().as_str().is_some_and(|handle| !handle.is_empty()));
        }
        event
    }

    #[test]
    fn a_standard_event_is_worded_as_aws_words_it() {
        let message = Message::new("hello").id("id-1").sent_ms(1_000).attribute("kind", "login");
        let expected = json!({"Records": [{
            "messageId": "id-1",
            "receiptHandle": null,
            "body": "hello",
            "attributes": {
                "ApproximateReceiveCount": "1",
                "SentTimestamp": "1000",
                "SenderId": "AIDALOCALLOCALLOCAL00",
                "ApproximateFirstReceiveTimestamp": "2000",
            },
            "messageAttributes": {"kind": {
                "stringValue": "login",
                "stringListValues": [],
                "binaryListValues": [],
                "dataType": "String",
            }},
            "md5OfBody": "5d41402abc4b2a76b9719d911017c592",
            "eventSource": "aws:sqs",
            "eventSourceARN": "arn:aws:sqs:eu-west-1:000000000000:logins",
            "awsRegion": "eu-west-1",
        }]});
        assert_eq!(event("logins", vec![message]), expected);
    }

    #[test]
    fn a_fifo_event_names_group_deduplication_and_sequence() {
        let message = Message { deduplication_id: Some("d".into()), ..Message::new("x").group("g") };
        let record = event("logins.fifo", vec![message])["Records"][0].take();
        assert_eq!(record["eventSourceARN"], "arn:aws:sqs:eu-west-1:000000000000:logins.fifo");
        let attributes = &record["attributes"];
        assert_eq!(attributes["MessageGroupId"], "g");
        assert_eq!(attributes["MessageDeduplicationId"], "d");
        assert_eq!(attributes["SequenceNumber"], "00000000000000000001");
    }

    #[test]
    fn a_message_without_a_body_has_a_null_one() {
        let records = event("logins", vec![Message { body: None, ..Message::default() }]);
        assert_eq!(records["Records"][0]["body"], Value::Null);
    }

    #[test]
    fn an_event_stays_within_lambdas_limit() {
        let queue = Queue::builder("logins").create(&Clock::at(0)).unwrap();
        for _ in 0..8 {
            queue.send(Message::new("x".repeat(1024 * 1024))).unwrap();
        }
        let mut event = Event::of(&queue);
        assert_eq!(queue.receive(10, |next| event.push(next)).len(), 5);
        assert!(event.is_full());
        assert!(event.finish().len() <= LARGEST_EVENT);
        assert_eq!(queue.depth().visible, 3);
    }
}
