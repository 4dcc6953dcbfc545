//! A function with a database of its own, and what can be asked of both.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use sqs_etl_local::function::{Function, FunctionConfig, InvocationResult};
use sqs_etl_local::postgres::{TempPostgres, shared_postgres};

/// The key of every pseudonym that a test expects.
pub const MASKING_KEY: &str = "0123456789abcdef0123456789abcdef";
/// Long enough for a debug build on a busy machine; only tests of the deadline use another.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// A function that writes into a fresh database with the project's migrations.
pub struct Scene {
    pub postgres: &'static TempPostgres,
    pub database: String,
    pub function: Function,
}

impl Scene {
    /// The function as it is deployed, but for the database.
    pub fn new() -> Self {
        Self::with(&[])
    }

    /// The same with more environment variables.
    pub fn with(variables: &[(&str, &str)]) -> Self {
        let postgres = shared_postgres();
        let database = fresh_database(postgres);
        let url = without_tls(&postgres.url(&database));
        let function = function(&[&[("DATABASE_URL", url.as_str())], variables].concat());
        Self { postgres, database, function }
    }

    /// The rows of a query, as text.
    pub fn sql(&self, statements: &str) -> Vec<Vec<Option<String>>> {
        self.postgres.sql(&self.database, statements).expect("the statements run")
    }

    /// How many rows the table has.
    pub fn stored(&self) -> usize {
        count(&self.sql("select count(*) from user_logins"))
    }

    pub fn invoke(&self, event: &str) -> Answer {
        invoke(&self.function, event)
    }
}

/// The number in the first field of the first row.
pub fn count(rows: &[Vec<Option<String>>]) -> usize {
    rows[0][0].as_ref().expect("a number").parse().expect("a number")
}

/// A new database with the project's migrations.
pub fn fresh_database(postgres: &TempPostgres) -> String {
    let database = postgres.create_database().expect("create a database");
    migrate(postgres, &database);
    database
}

fn migrate(postgres: &TempPostgres, database: &str) {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        postgres.sql(database, &std::fs::read_to_string(file).unwrap()).expect("migrate");
    }
}

pub fn without_tls(url: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}sslmode=disable")
}

/// The binary with the masking key of the tests and these variables.
pub fn function(variables: &[(&str, &str)]) -> Function {
    Function::start(function_config(variables)).expect("start the function")
}

pub fn function_config(variables: &[(&str, &str)]) -> FunctionConfig {
    let config = FunctionConfig::new(env!("CARGO_BIN_EXE_ingest")).env("MASKING_KEY", MASKING_KEY);
    config.envs(variables.iter().copied())
}

/// What the function said to one event.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// The partial batch response, as JSON.
    Response(Value),
    /// The error's type and text.
    Error { kind: String, text: String },
}

impl Answer {
    pub fn failed_ids(&self) -> Vec<String> {
        let Answer::Response(response) = self else { panic!("an error instead of a response: {self:?}") };
        let items = response["batchItemFailures"].as_array().expect("a list of failures");
        items.iter().map(|item| item["itemIdentifier"].as_str().expect("an id").to_owned()).collect()
    }
}

pub fn invoke(function: &Function, event: &str) -> Answer {
    invoke_within(function, event, TIMEOUT)
}

pub fn invoke_within(function: &Function, event: &str, timeout: Duration) -> Answer {
    match function.invoke(event, timeout).result {
        InvocationResult::Response(body) => Answer::Response(serde_json::from_slice(&body).expect("a JSON response")),
        InvocationResult::Error(error) => {
            let error: Value = serde_json::from_str(&error).expect("a JSON error");
            let text = |key: &str| error[key].as_str().expect("a text").to_owned();
            Answer::Error { kind: text("errorType"), text: text("errorMessage") }
        }
        other => panic!("no answer: {other:?}\n{}\n{}", function.stdout(), function.stderr()),
    }
}

/// The log lines that have this message, once `count` of them are there.
pub fn log_lines(function: &Function, message: &str, count: usize) -> Vec<Value> {
    let until = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let lines: Vec<Value> = function
            .stdout()
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(|line: &Value| line["message"] == message)
            .collect();
        if lines.len() >= count {
            return lines;
        }
        assert!(std::time::Instant::now() < until, "{count} x {message:?} in the log:\n{}", function.stdout());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An SQS event of these bodies, its ids the bodies' numbers.
pub fn event(bodies: &[String]) -> String {
    let records: Vec<Value> = bodies.iter().enumerate().map(|(i, body)| record(i, body)).collect();
    json!({ "Records": records }).to_string()
}

fn record(number: usize, body: &str) -> Value {
    json!({
        "messageId": message_id(number),
        "body": body,
        "attributes": { "ApproximateReceiveCount": "1", "SentTimestamp": "1767225599000" },
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:eu-central-1:123456789012:logins",
    })
}

pub fn message_id(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

/// A login message that is good.
pub fn login(number: usize) -> String {
    login_with(number, &[])
}

/// A login message with some fields changed.
pub fn login_with(number: usize, changes: &[(&str, Value)]) -> String {
    let mut fields: BTreeMap<&str, Value> = BTreeMap::from([
        ("user_id", json!(format!("user-{number}"))),
        ("app_version", json!("2.3.0")),
        ("device_type", json!("android")),
        ("ip", json!(format!("192.0.{}.{}", number / 250 % 250, number % 250))),
        ("locale", json!("DE")),
        ("device_id", json!(format!("593-47-{number:04}"))),
    ]);
    fields.extend(changes.iter().cloned());
    json!(fields).to_string()
}

/// Polls until something is so.
pub fn wait_until(mut is_so: impl FnMut() -> bool) {
    let until = std::time::Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(std::time::Instant::now() < until, "it never became so");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A file in this test process's own folder.
pub fn file(name: &str, text: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(std::process::id().to_string());
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}
