//! Login events as SQS sends them, the same at every run, and a pipeline that is never connected to a database.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::json;
use sqs_etl::config::SslMode;
use sqs_etl::database::{Database, Tls};
use sqs_etl::pipeline::Pipeline;
use sqs_etl::pipeline::contract::Contract;
use sqs_etl::pipeline::deadline::Deadline;
use sqs_etl::pipeline::mask::Keys;

/// A pipeline with the contract for login events.
pub fn pipeline() -> Pipeline {
    let credentials = Arc::new(|_| async { Err(anyhow::anyhow!("nobody connects")) }.boxed());
    let tls = Tls::new(&SslMode::Disable).expect("no TLS needs no set-up");
    let database = Database::new(credentials, tls, 1, Duration::from_secs(1));
    let keys = Keys::from_secret("0123456789abcdef0123456789abcdef").expect("a key of 32 bytes");
    Pipeline::new(Contract::built_in(), &keys, database).expect("the key fits the contract")
}

/// A deadline that no run comes near.
pub fn deadline() -> Deadline {
    Deadline::after(Duration::from_secs(3_600), Duration::from_secs(1))
}

/// An SQS event of this many login messages, some 1,030 bytes each.
pub fn event(count: usize) -> String {
    let mut random = Random(0x5_eed);
    let records: Vec<String> = (0..count).map(|_| record(&mut random)).collect();
    format!("{{\"Records\":[{}]}}", records.join(","))
}

/// In the order in which SQS sends the fields; `serde_json` would sort them.
fn record(random: &mut Random) -> String {
    let mut record = String::new();
    let id = random.uuid();
    let receipt = random.text(400, b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
    let body = json!(body(random)).to_string();
    let md5 = random.text(32, b"0123456789abcdef");
    let sent = 1_767_225_599_000 + random.below(60_000);
    write!(
        record,
        r#"{{"messageId":"{id}","receiptHandle":"{receipt}","body":{body},"attributes":{{"ApproximateReceiveCount":"1","#
    )
    .and_then(|()| {
        write!(
            record,
            r#""SentTimestamp":"{sent}","SenderId":"AIDAEXAMPLEEXAMPLE","ApproximateFirstReceiveTimestamp":"{}"}},"#,
            sent + 7
        )
    })
    .and_then(|()| {
        write!(
            record,
            r#""messageAttributes":{{}},"md5OfBody":"{md5}","eventSource":"aws:sqs","eventSourceARN":"{ARN}","awsRegion":"eu-central-1"}}"#
        )
    })
    .expect("writing to a string does not fail");
    record
}

const ARN: &str = "arn:aws:sqs:eu-central-1:123456789012:logins";

/// A body that is good, with the spaces that Python's `json.dumps` puts.
pub fn body(random: &mut Random) -> String {
    let device = ["android", "ios"][random.below(2) as usize];
    let locale = ["\"DE\"", "\"PT\"", "\"RU\"", "null"][random.below(4) as usize];
    let version = format!("{}.{}.{}", random.below(7), random.below(10), random.below(10));
    let ip: Vec<String> = (0..4).map(|_| (1 + random.below(254)).to_string()).collect();
    let digits = |random: &mut Random, count| random.text(count, b"0123456789");
    format!(
        r#"{{"user_id": "{}", "app_version": "{version}", "device_type": "{device}", "ip": "{}", "locale": {locale}, "device_id": "{}-{}-{}"}}"#,
        random.uuid(),
        ip.join("."),
        digits(random, 3),
        digits(random, 2),
        digits(random, 4),
    )
}

/// Marsaglia's xorshift: the same numbers everywhere.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }

    fn text(&mut self, length: usize, letters: &[u8]) -> String {
        (0..length).map(|_| char::from(letters[self.below(letters.len() as u64) as usize])).collect()
    }

    fn uuid(&mut self) -> String {
        let mut hex = |length| self.text(length, b"0123456789abcdef");
        format!("{}-{}-4{}-a{}-{}", hex(8), hex(4), hex(3), hex(3), hex(12))
    }
}
