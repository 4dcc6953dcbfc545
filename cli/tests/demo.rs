//! `sqs-etl demo` as it is typed: the real binary, the real function, a real Postgres.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const LOGINS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/logins.jsonl");

fn sqs_etl(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sqs-etl"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    sqs_etl(arguments).output().expect("run sqs-etl")
}

/// What a run that went well has to show.
fn screen(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The run must fail with this exit code and all of these words on stderr.
fn check_refused(arguments: &[&str], code: i32, words: &[&str]) {
    let output = run(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "no {word:?} in: {stderr}");
    }
}

/// Some line must hold all of these, in this order, whatever is between them.
#[track_caller]
fn assert_line(screen: &str, parts: &[&str]) {
    let holds = |line: &str| {
        let rest = parts.iter().try_fold(line, |rest, part| rest.split_once(part).map(|(_, rest)| rest));
        rest.is_some()
    };
    assert!(screen.lines().any(holds), "no line with {parts:?} in:\n{screen}");
}

/// A folder of the test's own, for the files it makes or in place of the machine's temporary folder. Whoever Postgres runs
/// as must get into it, and its path must leave room for a socket's name; hence not in the target folder.
fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(format!("/tmp/sqs-etl-cli-{name}-{}", std::process::id()));
    fs::create_dir(&folder).expect("a folder that nobody else has");
    folder
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).expect("list the folder").next().is_none()
}

#[test]
fn made_up_logins_are_stored_or_handed_back_and_none_is_lost() {
    let screen = screen(&["demo", "--count", "60"]);
    assert_line(&screen, &["60", "sent"]);
    assert_line(&screen, &["=", "52", "stored in user_logins"]);
    assert_line(&screen, &["+", "8", "in the dead-letter queue; none lost, none in both"]);
    assert_line(&screen, &["+", "5", "no change: delivered twice by the queue"]);
    assert_line(&screen, &["+", "no change: function killed between commit and answer"]);
    assert_line(&screen, &["+", "24", "handed back"]);
    assert_line(&screen, &["spelled in", "ways: 1 pseudonym in"]);
    for reason in ["not_json", "unknown_field", "missing", "wrong_type", "too_long", "nul"] {
        assert_line(&screen, &["no. ", reason]);
    }
    assert_line(&screen, &["malformed", "app_version"]);
    assert_line(&screen, &["malformed", "ip"]);
}

#[test]
fn the_summary_fits_a_screen_and_shows_no_personal_value_and_no_colour_to_a_file() {
    let output = run(&["demo", "--count", "60", "--seed", "2"]);
    let screen = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_line(&screen, &["Table user_logins, first 5"]);
    assert!(screen.lines().count() <= 45, "{screen}");
    assert!(screen.lines().all(|line| line.chars().count() <= 100), "{screen}");
    let all = screen + &String::from_utf8_lossy(&output.stderr);
    for personal in ["000-0", "198.51.100.", "203.0.113.", "2001:", "FFFF:", "\x1b"] {
        assert!(!all.contains(personal), "{personal:?} is in:\n{all}");
    }
}

#[test]
fn a_file_sent_twice_is_stored_once() {
    let screen = screen(&["demo", "--messages", LOGINS, "--deliveries", "2"]);
    assert_line(&screen, &["5", "sent; 1 blank line skipped"]);
    assert_line(&screen, &["=", "3", "stored"]);
    assert_line(&screen, &["+", "2", "in the dead-letter queue; none lost"]);
    assert_line(&screen, &["sent once more, with the same ids: still 3 rows, no value changed"]);
    assert_line(&screen, &["+", "3", "no change: sent again"]);
    assert_line(&screen, &["line 5", "unknown_field", "field number 7"]);
    assert_line(&screen, &["line 6", "missing", "ip is required"]);
    assert_line(&screen, &["ada", "6002000"]);
    assert_line(&screen, &["bo", "null", "2003000"]);
    assert_line(&screen, &["nulls in all rows: 1 locale"]);
    assert_line(&screen, &["one device, one pseudonym: k1:", "in 2 rows, user ada"]);
}

#[test]
fn a_batch_may_hold_all_messages() {
    let screen = screen(&["demo", "--count", "200", "--batch-size", "10000"]);
    assert_line(&screen, &["=", "192", "stored"]);
    assert_line(&screen, &["delivered, in 3 batches of up to 10,000"]);
}

#[test]
fn messages_come_from_stdin_too() {
    let mut child = sqs_etl(&["demo", "--messages", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let message = br#"{"user_id":"me","device_id":"mine","ip":"::ffff:192.0.2.1"}"#;
    child.stdin.take().unwrap().write_all(message).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let screen = String::from_utf8(output.stdout).unwrap();
    assert_line(&screen, &["=", "1", "stored in user_logins"]);
    assert_line(&screen, &["1 device, none of them seen twice"]);
}

#[test]
fn a_file_that_holds_no_messages_is_refused_with_the_reason() {
    let folder = folder("files");
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let missing = folder.join("missing").display().to_string();
    check_refused(&["demo", "--messages", &missing], 1, &[&missing, "No such file"]);
    let empty = file("empty", b"");
    check_refused(&["demo", "--messages", &empty], 1, &[&empty, "holds no message"]);
    let blank = file("blank", b"\n \n\r\n");
    check_refused(&["demo", "--messages", &blank], 1, &[&blank, "holds no message"]);
    let latin = file("latin", b"{}\n{\"user_id\": \"Ren\xe9\"}\n");
    check_refused(&["demo", "--messages", &latin], 1, &[&latin, "not UTF-8", "line 2"]);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_wrong_command_line_has_an_exit_code_of_its_own() {
    check_refused(&["demo", "--batch-size", "0"], 2, &["--batch-size", "1..=10000"]);
    check_refused(&["demo", "--count", "50", "--messages", LOGINS], 2, &["--count", "cannot be used with"]);
    check_refused(&["demon"], 2, &["demo"]);
}

#[test]
fn a_function_that_is_not_there_or_cannot_start_is_named() {
    check_refused(&["demo", "--ingest", "/no/such/ingest"], 1, &["/no/such/ingest", "--ingest"]);
    check_refused(&["demo", "--ingest", "/bin/false"], 1, &["ended before it asked for an event"]);
}

#[test]
fn a_folder_without_postgres_is_named() {
    let output = sqs_etl(&["demo", "--count", "20"]).env("PG_BIN_DIR", "/no/such/folder").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("PG_BIN_DIR is /no/such/folder"));
}

#[test]
fn a_kept_postgres_runs_until_the_printed_command_ends_it() {
    let temporary = folder("keep");
    let output = sqs_etl(&["demo", "--count", "20", "--keep"]).env("TMPDIR", &temporary).output().unwrap();
    let screen = String::from_utf8(output.stdout).unwrap();
    let (_, after) = screen.split_once("@127.0.0.1:").expect("the psql line");
    let port = after.split('/').next().unwrap().parse().expect("a port");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_ok(), "{screen}");
    let stop = screen.lines().find(|line| line.trim().starts_with("kill ")).expect("the line that stops it");
    assert!(Command::new("sh").args(["-c", stop]).status().unwrap().success());
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    assert!(is_empty(&temporary));
    fs::remove_dir(temporary).unwrap();
}
