//! `sqs-etl start-time`, with whatever build of the function the demo uses here: what it says, not how fast it is.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

#[test]
fn size_and_times_are_told_for_both_sources_of_credentials() {
    let ingest = ingest();
    let output = sqs_etl(&["start-time", "--runs", "2", "--ingest", &ingest]);
    let size = std::fs::metadata(&ingest).unwrap().len();
    let digits: String = output.split(" bytes").next().unwrap().chars().rev().take_while(|c| *c != ' ').collect();
    let digits: String = digits.chars().rev().filter(char::is_ascii_digit).collect();
    assert_eq!(digits, size.to_string(), "{output}");
    for line in ["started twice, milliseconds", "from the environment", "from Secrets Manager"] {
        assert_eq!(output.matches(line).count(), 1, "{output}");
    }
    for line in ["spawn to first next", "spawn to first 10 messages stored"] {
        assert_eq!(output.matches(line).count(), 2, "{output}");
    }
}

#[test]
fn beside_hello_world_there_are_ratios_targets_and_all_starts_as_json() {
    let json = Path::new(env!("CARGO_TARGET_TMPDIR")).join("start-time/starts.json");
    let _ = std::fs::remove_file(&json);
    let (ingest, hello) = (ingest(), hello());
    let compare = ["--hello", hello.to_str().unwrap(), "--json", json.to_str().unwrap()];
    let output = sqs_etl(&[&["start-time", "--runs", "2", "--ingest", &ingest], &compare[..]].concat());
    for line in ["x hello", "spawn to first answer", "messages stored within 25 ms", "in at most 4 times hello-world's"]
    {
        assert_eq!(output.matches(line).count(), 1, "{output}");
    }
    let report: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let series = report["series"].as_array().unwrap();
    assert_eq!(series.len(), 3, "{report}");
    for series in series {
        for moment in ["to_next_ms", "to_answer_ms"] {
            assert_eq!(series[moment].as_array().unwrap().len(), 2, "{report}");
        }
    }
    assert_eq!(report["targets"].as_array().unwrap().len(), 2, "{report}");
}

/// What went well on stdout and stderr.
fn sqs_etl(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_sqs-etl")).args(arguments).output().expect("run sqs-etl");
    let texts = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8"));
    assert!(output.status.success(), "{}", texts[1]);
    texts.concat()
}

/// The function as the demo has it built.
fn ingest() -> String {
    let said = sqs_etl(&["demo", "--count", "20"]);
    let (before, _) = said.split_once(" is ready after").expect("the function's step");
    before.rsplit_once("function  ").expect("the step's name").1.to_owned()
}

/// Built by cargo, which does not build examples for one test alone; as for the whole workspace, as the function is.
fn hello() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    let arguments = ["build", "--workspace", "--example", "hello", "--manifest-path"];
    let built = cargo.args(arguments).arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")).output();
    let built = built.expect("run cargo");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Path::new(env!("CARGO_BIN_EXE_sqs-etl")).with_file_name("examples").join("hello")
}
