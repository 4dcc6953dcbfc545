//! Made-up events as SQS hands them to Lambda, about 1,033 bytes a record. The same seed makes the same events.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use fastrand::Rng;
use serde::Serialize;
use serde_json::{Map, Value, json};
use uuid::{Builder, Uuid};

/// In a batch that is not clean every hundredth message is special, counted over all batches of a run: of batches of 10
/// every tenth has one.
const SPECIAL_EVERY: usize = 100;
/// 2026-01-01T00:00:00Z
const SENT: u64 = 1_767_225_600_000;
const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// What the special messages are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mix {
    /// There are none.
    Clean,
    /// They break the contract.
    Bad,
    /// They are in the table already.
    Redelivered,
    /// They keep the contract and break a constraint of the table.
    Refused,
}

/// The beginning of a user id that the table's constraint refuses.
pub const REFUSED_USER: &str = "banned-";

/// A file of events, one a line, and what must come of them.
#[derive(Clone, Debug)]
pub struct EventFile {
    pub path: PathBuf,
    pub messages: usize,
    /// Ids that must be in the table before a run.
    pub redelivered: Vec<String>,
    /// Messages that must be handed back.
    pub failing: usize,
}

impl EventFile {
    /// Messages that are in the table after a run, the redelivered ones included.
    pub fn rows_after(&self) -> usize {
        self.messages - self.failing
    }
}

/// Writes `batches` events of `size` login messages each.
pub fn login_file(path: &Path, batches: usize, size: usize, mix: Mix, seed: u64) -> Result<EventFile> {
    file(path, batches, size, mix, seed, &login)
}

/// Writes events whose bodies are made by `body`.
pub fn file(
    path: &Path,
    batches: usize,
    size: usize,
    mix: Mix,
    seed: u64,
    body: &dyn Fn(&mut Rng) -> Map<String, Value>,
) -> Result<EventFile> {
    let mut rng = Rng::with_seed(seed);
    let mut made =
        EventFile { path: path.to_path_buf(), messages: batches * size, redelivered: Vec::new(), failing: 0 };
    let mut out = BufWriter::new(fs::File::create(path).with_context(|| format!("create {}", path.display()))?);
    for batch in 0..batches {
        let records = (0..size).map(|place| {
            let is_special = (batch * size + place) % SPECIAL_EVERY == SPECIAL_EVERY / 2;
            record(&mut rng, if is_special { mix } else { Mix::Clean }, body, &mut made)
        });
        let records: Vec<Value> = records.collect();
        serde_json::to_writer(&mut out, &json!({ "Records": records }))?;
        out.write_all(b"\n")?;
    }
    out.flush().with_context(|| format!("write {}", path.display()))?;
    Ok(made)
}

fn record(rng: &mut Rng, mix: Mix, body: &dyn Fn(&mut Rng) -> Map<String, Value>, made: &mut EventFile) -> Value {
    let id = uuid(rng).to_string();
    let mut body = body(rng);
    match mix {
        Mix::Clean => {}
        Mix::Bad => {
            body = Map::from_iter([("foo".to_owned(), json!(rng.u32(..)))]);
            made.failing += 1;
        }
        Mix::Redelivered => made.redelivered.push(id.clone()),
        Mix::Refused => {
            body.insert("user_id".to_owned(), json!(format!("{REFUSED_USER}{}", rng.u32(..))));
            made.failing += 1;
        }
    }
    json!({
        "messageId": id,
        "receiptHandle": text(rng, 412),
        "body": Value::Object(body).to_string(),
        "attributes": {
            "ApproximateReceiveCount": "1",
            "SentTimestamp": SENT.to_string(),
            "SenderId": "AIDAEXAMPLEEXAMPLE000",
            "ApproximateFirstReceiveTimestamp": (SENT + 5).to_string(),
        },
        "messageAttributes": {},
        "md5OfBody": format!("{:032x}", rng.u128(..)),
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:eu-central-1:123456789012:logins",
        "awsRegion": "eu-central-1",
    })
}

/// A login. Every person, address and device is another one.
pub fn login(rng: &mut Rng) -> Map<String, Value> {
    let locales = [json!("RU"), json!("PH"), json!("en-GB"), Value::Null];
    let fields = [
        ("user_id", json!(uuid(rng).to_string())),
        ("app_version", json!(format!("{}.{}.{}", rng.u8(0..9), rng.u8(0..20), rng.u8(0..20)))),
        ("device_type", json!(if rng.bool() { "android" } else { "ios" })),
        ("ip", json!(format!("{}.{}.{}.{}", rng.u8(1..224), rng.u8(..), rng.u8(..), rng.u8(..)))),
        ("locale", locales[rng.usize(..locales.len())].clone()),
        ("device_id", json!(format!("{:03}-{:02}-{:04}", rng.u16(..1000), rng.u8(..100), rng.u16(..10_000)))),
    ];
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Letters and digits that do not compress.
pub fn text(rng: &mut Rng, length: usize) -> String {
    (0..length).map(|_| char::from(ALPHABET[rng.usize(..ALPHABET.len())])).collect()
}

fn uuid(rng: &mut Rng) -> Uuid {
    Builder::from_random_bytes(rng.u128(..).to_be_bytes()).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sqs_etl::pipeline::contract::Contract;
    use sqs_etl::pipeline::decode::Decoder;
    use sqs_etl::pipeline::message::Message;
    use sqs_etl::pipeline::validate::Valid;

    fn made(name: &str, mix: Mix) -> (EventFile, Vec<Value>) {
        let path = std::env::temp_dir().join(format!("sqs-etl-bench-{}-{name}", std::process::id()));
        let file = login_file(&path, 40, 10, mix, 7).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let events = text.lines().map(|line| serde_json::from_str(line).unwrap());
        (file, events.collect())
    }

    /// How many messages the built-in contract accepts.
    fn accepted(events: &[Value]) -> usize {
        let contract = Contract::built_in();
        let records = events.iter().flat_map(|event| event["Records"].as_array().unwrap());
        let is_accepted = |record: &Value| {
            let body = record["body"].as_str().unwrap();
            let message = Message {
                id: record["messageId"].as_str().unwrap().to_owned().into(),
                body: Some(body.to_owned().into()),
                sent_at: Some(SENT.cast_signed()),
                group: None,
                receive_count: Some(1),
                attributes: Vec::new(),
            };
            let mut decoder = Decoder::new(&contract);
            decoder.decode(body).is_ok_and(|record| Valid::empty().fill(record, &message, &contract).is_ok())
        };
        records.filter(|record| is_accepted(record)).count()
    }

    #[test]
    fn the_contract_accepts_what_is_not_bad_on_purpose() {
        for (mix, expected) in [(Mix::Clean, 400), (Mix::Bad, 396), (Mix::Redelivered, 400), (Mix::Refused, 400)] {
            let (_, events) = made(&format!("{mix:?}"), mix);
            assert_eq!(accepted(&events), expected, "{mix:?}");
        }
    }

    #[test]
    fn every_hundredth_message_is_special() {
        let counts = |mix| {
            let (file, _) = made(&format!("special-{mix:?}"), mix);
            (file.redelivered.len(), file.failing, file.rows_after())
        };
        assert_eq!(counts(Mix::Clean), (0, 0, 400));
        assert_eq!(counts(Mix::Bad), (0, 4, 396));
        assert_eq!(counts(Mix::Redelivered), (4, 0, 400));
        assert_eq!(counts(Mix::Refused), (0, 4, 396));
    }

    #[test]
    fn a_record_is_as_long_as_a_real_one() {
        let (_, events) = made("length", Mix::Clean);
        let bytes = events[0].to_string().len() / 10;
        assert!((1_000..1_066).contains(&bytes), "{bytes} bytes");
    }
}
