//! `sqs-etl start-time`, with whatever build of the function the demo uses here: what it says, not how fast it is.

use std::process::Command;

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
