//! What must hold for all input: the pipeline in this process, in front of a real Postgres.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use sqs_etl::config::SslMode;
use sqs_etl::database::{Database, Tls};
use sqs_etl::pipeline::Pipeline;
use sqs_etl::pipeline::canonical::canonical;
use sqs_etl::pipeline::contract::{Canonical, Contract};
use sqs_etl::pipeline::deadline::Deadline;
use sqs_etl::pipeline::mask::Keys;
use sqs_etl::pipeline::message::{Batch, Message};
use sqs_etl::pipeline::outcome::{Outcome, Reason};
use sqs_etl_local::postgres::{TempPostgres, shared_postgres};
use tokio::runtime::Runtime;

use crate::harness::{MASKING_KEY, fresh_database, login_with, message_id};

/// A pipeline of this process with a database of its own.
struct Line {
    postgres: &'static TempPostgres,
    database: String,
    pipeline: Pipeline,
    runtime: Runtime,
}

impl Line {
    fn new(contract: Contract) -> Self {
        let postgres = shared_postgres();
        let database = fresh_database(postgres);
        let login: tokio_postgres::Config = postgres.url(&database).parse().unwrap();
        let credentials = Arc::new(move |_| {
            let login = login.clone();
            async move { Ok(login) }.boxed()
        });
        let tls = Tls::new(&SslMode::Disable).unwrap();
        let pool = Database::new(credentials, tls, 1, Duration::from_secs(10));
        let pipeline = Pipeline::new(contract, &Keys::from_secret(MASKING_KEY).unwrap(), pool).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { postgres, database, pipeline, runtime }
    }

    fn run(&self, messages: Vec<Message<'_>>, ordered: bool) -> Outcome {
        let batch = Batch { messages, ordered };
        let deadline = || Deadline::after(Duration::from_secs(60), Duration::from_secs(1));
        self.runtime.block_on(async { self.pipeline.run(&batch, deadline()).await }).expect("the database is there")
    }

    fn sql(&self, statements: &str) -> Vec<Vec<Option<String>>> {
        self.postgres.sql(&self.database, statements).unwrap()
    }
}

fn message(number: usize, group: Option<String>, body: String) -> Message<'static> {
    Message {
        id: message_id(number).into(),
        body: Some(body.into()),
        sent_at: Some(1_767_225_599_000),
        group: group.map(Cow::Owned),
        receive_count: Some(1),
        attributes: Vec::new(),
    }
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() })
}

/// What a message of an arbitrary batch is like.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Good,
    /// Against the contract.
    Invalid,
    /// Fine by the contract, refused by a constraint of the table.
    Refused,
}

/// Ids come from a small range, so that batches hold duplicates of each other's messages and of their own.
fn any_batch() -> impl Strategy<Value = (bool, Vec<(usize, Kind, u8)>)> {
    let kind = prop_oneof![5 => Just(Kind::Good), 1 => Just(Kind::Invalid), 1 => Just(Kind::Refused)];
    let one = (0..60_usize, kind, 0..4_u8);
    (any::<bool>(), proptest::collection::vec(one, 0..40))
}

fn body(number: usize, kind: Kind) -> String {
    match kind {
        Kind::Good => login_with(number, &[]),
        Kind::Invalid => login_with(number, &[("ip", "nowhere".into())]),
        Kind::Refused => login_with(number, &[("device_type", "toaster".into())]),
    }
}

#[test]
fn no_message_is_lost_or_doubled_whatever_is_bad_in_a_batch() {
    let line = Line::new(Contract::built_in());
    line.sql("alter table user_logins add constraint known_device check (device_type <> 'toaster')");
    runner(150)
        .run(&any_batch(), |(ordered, batch)| {
            line.sql("truncate user_logins");
            let messages = batch.iter().map(|(n, kind, group)| message(*n, Some(format!("g{group}")), body(*n, *kind)));
            let outcome = line.run(messages.collect(), ordered);
            check_conservation(&line, ordered, &batch, &outcome);
            Ok(())
        })
        .unwrap();
}

/// Every message is in exactly one of the table and the failures, by what it is and what failed before it.
fn check_conservation(line: &Line, ordered: bool, batch: &[(usize, Kind, u8)], outcome: &Outcome) {
    let reasons: BTreeMap<usize, &Reason> = outcome.failures.iter().map(|f| (f.position, &f.reason)).collect();
    assert_eq!(reasons.len(), outcome.failures.len(), "a message failed twice");
    let mut stored = HashSet::new();
    let mut ended = HashSet::new();
    for (position, (number, kind, group)) in batch.iter().enumerate() {
        let is_behind = ordered && ended.contains(group);
        match (is_behind, kind, reasons.get(&position)) {
            (true, _, Some(Reason::BehindFailure)) | (true, Kind::Invalid, Some(Reason::Malformed { .. })) => {}
            // Behind an invalid message a group is cut before anything is written.
            (false, Kind::Good, None) => {
                stored.insert(message_id(*number));
            }
            (false, Kind::Invalid, Some(Reason::Malformed { .. }))
            | (false, Kind::Refused, Some(Reason::Refused(_))) => {
                ended.insert(*group);
            }
            other => panic!("message {position} of {batch:?} (ordered: {ordered}): {other:?}"),
        }
    }
    let rows = line.sql("select message_id from user_logins");
    let rows: HashSet<String> = rows.into_iter().map(|row| row[0].clone().unwrap()).collect();
    assert_eq!(rows, stored);
    assert_eq!(outcome.committed, stored.len());
    assert_eq!(outcome.committed + outcome.already_present + outcome.failures.len(), batch.len());
}

#[test]
fn a_second_delivery_of_any_batch_changes_nothing() {
    let line = Line::new(Contract::built_in());
    let table = "select * from user_logins order by message_id";
    runner(40)
        .run(&any_batch(), |(ordered, batch)| {
            line.sql("truncate user_logins");
            let deliver = || {
                let messages = batch.iter().map(|(n, kind, g)| message(*n, Some(format!("g{g}")), body(*n, *kind)));
                line.run(messages.collect(), ordered)
            };
            let first = deliver();
            let rows = line.sql(table);
            let second = deliver();
            prop_assert_eq!(line.sql(table), rows);
            prop_assert_eq!(second.committed, 0);
            prop_assert_eq!(second.already_present, first.committed + first.already_present);
            Ok(())
        })
        .unwrap();
}

/// One column of each type, none with a rule but its type.
const ALL_TYPES: &str = r#"
table = "all_types"
[once]
column = "message_id"
[columns.c_smallint]
type = "smallint"
[columns.c_integer]
type = "integer"
[columns.c_version]
type = "integer"
parse = "version"
[columns.c_bigint]
type = "bigint"
[columns.c_double]
type = "double precision"
[columns.c_numeric]
type = "numeric"
[columns.c_boolean]
type = "boolean"
[columns.c_text]
type = "text"
[columns.c_varchar]
type = "varchar(5)"
[columns.c_uuid]
type = "uuid"
[columns.c_date]
type = "date"
[columns.c_timestamptz]
type = "timestamptz"
[columns.c_inet]
type = "inet"
[columns.c_jsonb]
type = "jsonb"
"#;

const ALL_TYPES_TABLE: &str = "create table all_types (message_id uuid primary key, c_smallint smallint, c_integer integer, \
    c_version integer, c_bigint bigint, c_double double precision, c_numeric numeric, c_boolean boolean, c_text text, \
    c_varchar varchar(5), c_uuid uuid, c_date date, c_timestamptz timestamptz, c_inet inet, c_jsonb jsonb)";

/// JSON texts, most of them near the edge of what a column of the type takes.
fn any_field() -> impl Strategy<Value = (&'static str, String)> {
    let number = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<i16>().prop_map(|n| n.to_string()),
        any::<f64>().prop_filter("JSON has no such numbers", |n| n.is_finite()).prop_map(|n| format!("{n:e}")),
        "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,40})?([eE][+-]?[0-9]{1,6})?",
        proptest::sample::select(vec![
            "32767",
            "32768",
            "-2147483648",
            "2147483648",
            "1e308",
            "1e309",
            "-0",
            "1e131071",
            "1e-16383"
        ])
        .prop_map(str::to_owned),
    ]
    .boxed();
    let string =
        |regex: &str| proptest::string::string_regex(regex).unwrap().prop_map(|s| json!(s).to_string()).boxed();
    let text = prop_oneof![
        any::<String>().prop_map(|s| json!(s).to_string()),
        Just(r#""a\u0000b""#.to_owned()),
        string(".{0,6}")
    ]
    .boxed();
    let date = prop_oneof![
        string("[0-9]{4}-[01][0-9]-[0-3][0-9]"),
        proptest::sample::select(vec!["9999-12-31", "0001-01-01", "0000-01-01", "2024-02-30", "-0001-01-01"])
            .prop_map(|s| json!(s).to_string()),
    ]
    .boxed();
    let instant = string(
        "[0-9]{4}-0[0-9]-[0-2][0-9][Tt ][0-2][0-9]:[0-6][0-9](:[0-6][0-9](\\.[0-9]{1,9})?)?(Z|[+-][01][0-9]:?[0-5][0-9])?",
    );
    let version = string("[0-9]{1,4}(\\.[0-9]{1,4}){0,3}");
    let inet = prop_oneof![
        string("[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}\\.[0-9]{1,3}(/[0-9]{1,3})?"),
        string("[0-9a-f:]{2,20}(/[0-9]{1,3})?")
    ]
    .boxed();
    let uuid = prop_oneof![
        string("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"),
        string("\\{?[0-9A-F]{32}\\}?")
    ]
    .boxed();
    let leaf = prop_oneof![number.clone(), text.clone(), Just("null".to_owned()), Just(r#""\ud800""#.to_owned())];
    let tree = leaf.prop_recursive(4, 20, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            proptest::collection::vec((any::<String>(), inner), 0..4).prop_map(|fields| {
                let fields: Vec<String> = fields.iter().map(|(key, value)| format!("{}:{value}", json!(key))).collect();
                format!("{{{}}}", fields.join(","))
            }),
        ]
    });
    let field = |name: &'static str, values: BoxedStrategy<String>| values.prop_map(move |value| (name, value)).boxed();
    prop_oneof![
        field("c_smallint", number.clone()),
        field("c_integer", number.clone()),
        field("c_version", version),
        field("c_bigint", number.clone()),
        field("c_double", number.clone()),
        field("c_numeric", number.clone()),
        field("c_numeric", number.prop_map(|n| json!(n).to_string()).boxed()),
        field("c_boolean", proptest::bool::ANY.prop_map(|b| b.to_string()).boxed()),
        field("c_text", text.clone()),
        field("c_varchar", text.clone()),
        field("c_uuid", uuid),
        field("c_date", date),
        field("c_timestamptz", instant),
        field("c_inet", inet),
        field("c_jsonb", tree.boxed()),
    ]
}

#[test]
fn what_validate_accepts_postgres_accepts() {
    let line = Line::new(Contract::parse("all types", ALL_TYPES).unwrap());
    line.sql(ALL_TYPES_TABLE);
    let mut accepted: BTreeMap<&str, usize> = BTreeMap::new();
    // One field a message, so that a refusal names its field.
    let batches = proptest::collection::vec(any_field(), 100);
    let mut random = runner(1);
    for _ in 0..100 {
        let batch = batches.new_tree(&mut random).unwrap().current();
        line.sql("truncate all_types");
        let messages =
            batch.iter().enumerate().map(|(i, (name, value))| message(i, None, format!("{{\"{name}\":{value}}}")));
        let outcome = line.run(messages.collect(), false);
        let mut failed = HashSet::new();
        for failure in &outcome.failures {
            let (name, value) = &batch[failure.position];
            assert!(!matches!(failure.reason, Reason::Refused(_)), "{name} = {value}: {}", failure.reason);
            failed.insert(failure.position);
        }
        for (position, (name, _)) in batch.iter().enumerate() {
            *accepted.entry(name).or_default() += usize::from(!failed.contains(&position));
        }
    }
    assert!(accepted.values().all(|count| *count >= 20), "too few were accepted to show anything: {accepted:?}");
    assert_eq!(accepted.len(), 14);
}

#[test]
fn the_values_that_are_stored_are_the_values_that_were_sent() {
    let line = Line::new(Contract::parse("all types", ALL_TYPES).unwrap());
    line.sql(ALL_TYPES_TABLE);
    let sent = r#"{"c_smallint": -7, "c_integer": 2147483647, "c_version": "6.02", "c_bigint": -9223372036854775808,
        "c_double": 1.5e-7, "c_numeric": 0.10000000000000000000000000000000000000000001, "c_boolean": true,
        "c_text": "a\"\\\u00e9\ud83d\ude00", "c_varchar": "ééééé", "c_uuid": "0F8B1C0E-6F3A-4A52-9A51-2F7D0E6F1A00",
        "c_date": "1999-12-31", "c_timestamptz": "2026-01-31T08:15:00.123456+02:00", "c_inet": "2001:db8::/32",
        "c_jsonb": {"b": [1, null], "a": 1.10}}"#;
    line.run(vec![message(0, None, sent.to_owned())], false);
    let row = line.sql("set timezone = 'UTC'; select * from all_types").remove(0);
    let row: Vec<&str> = row.iter().map(|value| value.as_deref().unwrap()).collect();
    let expected = [
        message_id(0).as_str().to_owned().leak(),
        "-7",
        "2147483647",
        "6002000",
        "-9223372036854775808",
        "1.5e-07",
        "0.10000000000000000000000000000000000000000001",
        "t",
        "a\"\\é😀",
        "ééééé",
        "0f8b1c0e-6f3a-4a52-9a51-2f7d0e6f1a00",
        "1999-12-31",
        "2026-01-31 06:15:00.123456+00",
        "2001:db8::/32",
        r#"{"a": 1.10, "b": [1, null]}"#,
    ];
    assert_eq!(row, expected);
}

#[test]
fn rows_that_are_copied_are_the_rows_that_would_be_inserted() {
    let line = Line::new(Contract::parse("all types", ALL_TYPES).unwrap());
    line.sql(ALL_TYPES_TABLE);
    // The first batch is inserted, whatever it holds, and has the writer look at the table.
    line.run(vec![message(0, None, "{}".to_owned())], false);
    let batches = proptest::collection::vec(any_field(), 200);
    let mut random = runner(1);
    for _ in 0..30 {
        let batch = batches.new_tree(&mut random).unwrap().current();
        let messages = || {
            let bodies = batch.iter().map(|(name, value)| format!("{{\"{name}\":{value}}}"));
            bodies.enumerate().map(|(i, body)| message(i + 1, None, body)).collect()
        };
        line.sql("truncate all_types");
        let copied = line.run(messages(), false);
        assert_eq!(copied.statements, 1);
        let rows = line.sql("select * from all_types order by message_id");
        // A row that is there already turns the copy into an insert.
        line.sql(&format!("delete from all_types where message_id <> '{}'", rows[0][0].as_ref().unwrap()));
        let inserted = line.run(messages(), false);
        assert_eq!((inserted.statements, inserted.already_present), (2, 1));
        assert_eq!(line.sql("select * from all_types order by message_id"), rows);
        // Else the writer would soon ask first.
        (500..510).for_each(|i| drop(line.run(vec![message(i, None, "{}".to_owned())], false)));
    }
}

/// Two fields with a domain each, two that share one.
const DOMAINS: &str = r#"
table = "domains"
[once]
column = "message_id"
[columns.a]
type = "text"
mask = "hmac-sha256"
[columns.b]
type = "text"
mask = "hmac-sha256"
[columns.c]
type = "text"
mask = "hmac-sha256"
domain = "shared"
[columns.d]
type = "text"
mask = "hmac-sha256"
domain = "shared"
"#;

#[test]
fn equal_values_have_equal_pseudonyms_within_a_domain_and_only_there() {
    let line = Line::new(Contract::parse("domains", DOMAINS).unwrap());
    line.sql("create table domains (message_id uuid primary key, a text, b text, c text, d text)");
    let texts = proptest::collection::vec("[^\\x00]{1,12}", 2);
    runner(60)
        .run(&texts, |texts| {
            line.sql("truncate domains");
            let body = |text: &String| json!({ "a": text, "b": text, "c": text, "d": text }).to_string();
            let messages = vec![
                message(0, None, body(&texts[0])),
                message(1, None, body(&texts[0])),
                message(2, None, body(&texts[1])),
            ];
            prop_assert_eq!(line.run(messages, false).committed, 3);
            let rows = line.sql("select a, b, c, d from domains order by message_id");
            prop_assert_eq!(&rows[0], &rows[1]);
            prop_assert_eq!(rows[0] == rows[2], texts[0] == texts[1]);
            prop_assert!(rows[0][0] != rows[0][1] && rows[0][0] != rows[0][2]);
            prop_assert_eq!(&rows[0][2], &rows[0][3]);
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_canonical_form_is_its_own_canonical_form() {
    let text = prop_oneof![
        any::<String>(),
        any::<std::net::IpAddr>().prop_map(|ip| ip.to_string()),
        "\\PC{0,8}",
        "[ \\t0-9a-zA-Z:.İẞΣς-]{0,20}"
    ];
    let form = proptest::sample::select(vec![Canonical::Ip, Canonical::Trim, Canonical::Lower, Canonical::Digits]);
    let settled = std::cell::Cell::new(0);
    runner(5_000)
        .run(&(form, text), |(form, text)| {
            if let Some(once) = canonical(form, Cow::Borrowed(&text)) {
                settled.set(settled.get() + usize::from(form == Canonical::Ip));
                let twice = canonical(form, once.clone());
                prop_assert_eq!(twice.as_deref(), Some(once.as_ref()), "{:?}", form);
            }
            Ok(())
        })
        .unwrap();
    assert!(settled.get() > 100, "too few addresses to show anything: {}", settled.get());
}
