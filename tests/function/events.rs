//! Every `events/NAME.json` gets the answer of `events/NAME.expected.json`: add a pair, touch no code.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::harness::{Answer, Scene, count, event, log_lines, login, login_with, message_id};

/// What is expected of an event.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    /// The rule that the pair shows.
    why: String,
    /// SQL before the event.
    #[serde(default)]
    setup: Vec<String>,
    /// How often the event is delivered; the answer is expected each time.
    #[serde(default = "once")]
    deliveries: usize,
    /// The error's type, where the invocation fails.
    error: Option<String>,
    /// The whole response, where it does not.
    response: Option<Value>,
    /// The reason's code for each message that is handed back.
    #[serde(default)]
    reasons: BTreeMap<String, String>,
    /// Rows in the table afterwards.
    #[serde(default)]
    stored: usize,
    /// The stored version of some messages.
    #[serde(default)]
    app_version: BTreeMap<String, i32>,
}

fn once() -> usize {
    1
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("events")
}

fn names() -> Vec<String> {
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> =
        files.filter_map(|file| Some(file.strip_suffix(".expected.json")?.to_owned())).collect();
    names.sort();
    names
}

#[test]
fn every_event_has_an_expected_answer() {
    let files = std::fs::read_dir(folder()).unwrap().count();
    assert_eq!(files, 2 * names().len(), "events/ holds NAME.json and NAME.expected.json in pairs");
    assert!(names().len() >= 20, "the pairs are there");
}

#[test]
fn every_event_gets_its_expected_answer() {
    for name in names() {
        check(&name);
    }
}

fn check(name: &str) {
    let read = |suffix: &str| std::fs::read_to_string(folder().join(format!("{name}{suffix}"))).unwrap();
    let expected: Expected = serde_json::from_str(&read(".expected.json")).unwrap();
    let scene = Scene::new();
    for statement in &expected.setup {
        scene.sql(statement);
    }
    for delivery in 1..=expected.deliveries {
        let answer = scene.invoke(&read(".json"));
        check_answer(name, &expected, &answer);
        if expected.error.is_none() {
            log_lines(&scene.function, "batch done", delivery);
            check_reasons(name, &expected, &scene);
        }
    }
    assert_eq!(scene.stored(), expected.stored, "rows after {name}: {}", expected.why);
    for (id, version) in &expected.app_version {
        let row = scene.sql(&format!("select app_version from user_logins where message_id = '{id}'"));
        assert_eq!(row[0][0].as_deref(), Some(version.to_string().as_str()), "the version of {id} in {name}");
    }
}

fn check_answer(name: &str, expected: &Expected, answer: &Answer) {
    match (answer, &expected.response, &expected.error) {
        (Answer::Response(response), Some(wanted), None) => {
            assert_eq!(response, wanted, "the response to {name}: {}", expected.why);
        }
        (Answer::Error { kind, .. }, None, Some(wanted)) => assert_eq!(kind, wanted, "the error of {name}"),
        _ => panic!("{name} got {answer:?}: {}", expected.why),
    }
}

fn check_reasons(name: &str, expected: &Expected, scene: &Scene) {
    let lines = log_lines(&scene.function, "message handed back", expected.reasons.len());
    let found: BTreeMap<String, String> = lines
        .iter()
        .map(|line| (line["message_id"].as_str().unwrap().to_owned(), line["reason"].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(found, expected.reasons, "the reasons in {name}: {}", expected.why);
}

#[test]
fn a_good_message_becomes_one_masked_row() {
    let scene = Scene::new();
    let body = login_with(1, &[("ip", "::ffff:192.0.2.1".into()), ("device_id", "593-47-5928".into())]);
    assert_eq!(scene.invoke(&event(&[body])).failed_ids(), [] as [&str; 0]);
    let row = scene.sql("select message_id, user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date from user_logins").remove(0);
    let row: Vec<&str> = row.iter().map(|field| field.as_deref().unwrap_or("null")).collect();
    // printf 'ip\000192.0.2.1' | openssl dgst -sha256 -hmac KEY, and the same with 'device_id\000593-47-5928'.
    let ip = "k1:ac2addf57a1c68da5e252093014c5728c1b7c73ee63469213d8e6d8a2b63e5e2";
    let device = "k1:01ff1eeddc0eabb8708ed7bcdc1495dc802334f5546b915094a327b12883570c";
    assert_eq!(row, [message_id(0).as_str(), "user-1", "android", ip, device, "DE", "2003000", "2025-12-31"]);
}

#[test]
fn a_body_of_one_mebibyte_is_a_message_like_any_other() {
    let scene = Scene::new();
    let long = "9".repeat(1_048_576 - login_with(0, &[("device_id", "".into())]).len());
    let bodies =
        [login_with(0, &[("device_id", long.clone().into())]), login_with(1, &[("user_id", long.into())]), login(2)];
    assert_eq!(bodies[0].len(), 1_048_576);
    assert_eq!(scene.invoke(&event(&bodies)).failed_ids(), [message_id(1)]);
    assert_eq!(count(&scene.sql("select count(*) from user_logins")), 2);
}
