//! The function's platform with a real process in it: events, errors, timeouts, crashes, starts.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sqs_etl_local::function::{Function, FunctionConfig, InitFailure, Invocation, InvocationResult};

const ECHO: &str = env!("CARGO_BIN_EXE_echo-function");
const HOLD_AND_WAIT: &str = env!("CARGO_BIN_EXE_hold-and-wait");
/// Longer than any answer takes on a busy machine.
const LONG: Duration = Duration::from_secs(60);
/// For an invocation that shall time out.
const SHORT: Duration = Duration::from_millis(200);

#[test]
fn what_the_function_returns_comes_back_byte_for_byte() {
    let function = echo();
    for event in [r#"{"do":"echo","text":"ü \u0000 🦀"}"#.to_owned(), format!(r#"["{}"]"#, "x".repeat(5_000_000))] {
        assert_eq!(body(&function.invoke(event.clone(), LONG)), event);
    }
}

#[test]
fn the_environment_is_kept_from_one_event_to_the_next() {
    let function = echo();
    let (first, second) = (tell(&function), tell(&function));
    assert_eq!(first["pid"], second["pid"]);
    assert_ne!(first["request_id"], second["request_id"]);
    assert!(function.invoke(r#"{"do":"echo"}"#, LONG).init.is_none());
}

#[test]
fn the_function_sees_what_lambda_sets_and_nothing_of_ours() {
    let config = FunctionConfig::new(ECHO).name("logins").region("eu-central-1").env("TABLE", "t");
    let told = tell(&Function::start(config.memory_mb(512)).unwrap());
    let env = told["env"].as_object().unwrap();
    for (name, value) in [
        ("AWS_LAMBDA_FUNCTION_NAME", "logins"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
        ("AWS_REGION", "eu-central-1"),
        ("TABLE", "t"),
    ] {
        assert_eq!(env[name], value, "{name}");
    }
    for name in ["HOME", "CARGO_MANIFEST_DIR", "AWS_LAMBDA_MAX_CONCURRENCY"] {
        assert!(!env.contains_key(name), "{name} must not leak in");
    }
    assert_eq!(told["folder"], env["LAMBDA_TASK_ROOT"]);
    assert_eq!(told["arn"], "arn:aws:lambda:eu-central-1:000000000000:function:logins");
    assert!(told["trace"].as_str().unwrap().starts_with("Root=1-"));
}

#[test]
fn the_deadline_is_the_timeout_from_now_in_epoch_milliseconds() {
    let epoch_ms = || u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis());
    let function = echo();
    function.warm_up().unwrap();
    let before = epoch_ms().unwrap();
    let deadline = tell(&function)["deadline_ms"].as_u64().unwrap();
    let after = epoch_ms().unwrap();
    assert!((before + 60_000..=after + 60_000).contains(&deadline));
}

#[test]
fn an_error_comes_back_as_its_json_and_the_environment_lives_on() {
    let function = echo();
    let pid = tell(&function)["pid"].clone();
    let InvocationResult::Error(json) = function.invoke(r#"{"do":"error"}"#, LONG).result else {
        panic!("an error was told to come")
    };
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["errorType"], "Echo");
    assert_eq!(tell(&function)["pid"], pid);
}

#[test]
fn a_timeout_kills_the_environment_and_the_next_event_starts_another() {
    let function = echo();
    let pid = tell(&function)["pid"].clone();
    let hung = function.invoke(r#"{"do":"hang"}"#, SHORT);
    assert!(matches!(hung.result, InvocationResult::TimedOut), "{hung:?}");
    assert!(!is_alive(&pid.to_string()));
    let next = function.invoke(r#"{"do":"tell"}"#, LONG);
    assert!(next.init.is_some());
    assert_ne!(parse(&next)["pid"], pid);
}

#[test]
fn a_crash_is_told_with_its_status_and_the_next_event_starts_another() {
    let function = echo();
    let crashed = function.invoke(r#"{"do":"exit"}"#, LONG);
    let InvocationResult::Crashed(Some(status)) = crashed.result else { panic!("{crashed:?}") };
    assert_eq!(status.code(), Some(7));
    assert!(function.invoke(r#"{"do":"echo"}"#, LONG).init.is_some());
}

#[test]
fn a_start_that_fails_says_how() {
    let failure = |how: &str| {
        let config = FunctionConfig::new(ECHO).env("ECHO_INIT", how).init_limit(SHORT);
        let config = if how == "hang" { config } else { config.init_limit(LONG) };
        let function = Function::start(config).unwrap();
        let invoked = function.invoke("{}", LONG).result;
        assert!(matches!(invoked, InvocationResult::InitFailed(_)), "{invoked:?}");
        function.warm_up().unwrap_err()
    };
    let reported = failure("error");
    assert!(matches!(&reported, InitFailure::Reported(json) if json.contains("Echo.Init")));
    let exited = failure("exit");
    assert!(matches!(exited, InitFailure::Exited(Some(status)) if status.code() == Some(3)));
    assert!(matches!(failure("hang"), InitFailure::TimedOut(_)));
}

#[test]
fn a_binary_that_is_not_there_is_told_at_once() {
    let error = Function::start(FunctionConfig::new("/no/such/bootstrap")).unwrap_err();
    assert!(format!("{error:#}").contains("/no/such/bootstrap"));
}

#[test]
fn what_the_function_writes_is_kept() {
    let function = echo();
    function.invoke(r#"{"do":"say"}"#, LONG);
    assert!(function.wait_for_output("said to stdout", LONG));
    assert!(function.wait_for_output("said to stderr", LONG));
    assert_eq!(function.stdout(), "said to stdout\n");
    assert_eq!(function.stderr(), "said to stderr\n");
    function.clear_output();
    assert_eq!(function.stdout(), "");
}

#[test]
fn snap_start_is_told_and_restored_before_the_first_event() {
    let function = Function::start(FunctionConfig::new(ECHO).snap_start()).unwrap();
    let init = function.warm_up().unwrap().unwrap();
    assert!(init.restore.is_some());
    assert_eq!(tell(&function)["env"]["AWS_LAMBDA_INITIALIZATION_TYPE"], "snap-start");
    assert!(echo().warm_up().unwrap().unwrap().restore.is_none());
}

#[tokio::test]
async fn managed_concurrency_has_two_events_in_one_process_at_once() {
    let function = Function::start(FunctionConfig::new(ECHO).max_concurrency(2)).unwrap();
    let meet = || function.invoke_async(r#"{"do":"meet"}"#, LONG);
    let (one, two) = tokio::join!(meet(), meet());
    assert!(matches!(one.result, InvocationResult::Response(_)), "{one:?}");
    assert!(matches!(two.result, InvocationResult::Response(_)), "{two:?}");
    assert_eq!(function.pids().len(), 1);
}

#[tokio::test]
async fn under_managed_concurrency_a_timeout_leaves_the_others_alone() {
    let function = Function::start(FunctionConfig::new(ECHO).max_concurrency(2)).unwrap();
    let pid = tell(&function)["pid"].clone();
    let hung = function.invoke_async(r#"{"do":"hang"}"#, SHORT).await;
    assert!(matches!(hung.result, InvocationResult::TimedOut));
    assert_eq!(tell(&function)["pid"], pid);
}

#[tokio::test]
async fn several_environments_take_several_events_each_in_a_process_of_its_own() {
    let function = Function::start(FunctionConfig::new(ECHO).environments(3)).unwrap();
    let hang = || function.invoke_async(r#"{"do":"hang"}"#, SHORT);
    let tell = || function.invoke_async(r#"{"do":"tell"}"#, LONG);
    let (_, one, _, two) = tokio::join!(hang(), tell(), hang(), tell());
    assert!(matches!(one.result, InvocationResult::Response(_)), "{one:?}");
    assert!(matches!(two.result, InvocationResult::Response(_)), "{two:?}");
    assert!((1..=3).contains(&function.pids().len()));
}

#[test]
fn an_answer_to_an_unknown_event_is_refused() {
    let function = echo();
    let answered = parse(&function.invoke(r#"{"do":"answer a stranger"}"#, LONG));
    assert_eq!(answered, json!({"status": 400}));
}

#[test]
fn dropping_the_function_ends_its_process() {
    let function = echo();
    let pid = tell(&function)["pid"].to_string();
    drop(function);
    assert!(!is_alive(&pid));
}

#[test]
fn kill_9_of_its_owner_ends_even_a_function_that_hangs() {
    let mut owner =
        Command::new(HOLD_AND_WAIT).args(["function", ECHO]).stdout(Stdio::piped()).spawn().expect("run hold-and-wait");
    let mut pid = String::new();
    BufReader::new(owner.stdout.take().unwrap()).read_line(&mut pid).unwrap();
    assert!(is_alive(pid.trim()));
    owner.kill().unwrap();
    owner.wait().unwrap();
    let deadline = Instant::now() + LONG;
    while is_alive(pid.trim()) {
        assert!(Instant::now() < deadline, "the function outlived its owner");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn echo() -> Function {
    Function::start(FunctionConfig::new(ECHO)).unwrap()
}

fn tell(function: &Function) -> Value {
    parse(&function.invoke(r#"{"do":"tell"}"#, LONG))
}

fn parse(invocation: &Invocation) -> Value {
    serde_json::from_str(&body(invocation)).unwrap()
}

fn body(invocation: &Invocation) -> String {
    match &invocation.result {
        InvocationResult::Response(body) => String::from_utf8(body.clone()).unwrap(),
        other => panic!("no response: {other:?}"),
    }
}

/// A zombie that its parent has not buried is not alive.
fn is_alive(pid: &str) -> bool {
    let state = Command::new("ps").args(["-o", "state=", "-p", pid]).output().unwrap();
    state.stdout.first().is_some_and(|state| *state != b'Z')
}
