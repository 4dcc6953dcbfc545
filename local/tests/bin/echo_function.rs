//! A Lambda function that does as its events say, speaking the Runtime API by plain HTTP. The tests
//! of the local platform run it in the place of the real one; it stores nothing.
//!
//! An event is `{"do": ...}`, or an SQS event, of which it hands back the messages whose body is
//! `bad`. `ECHO_INIT` says how its start shall go wrong.

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Barrier};

use serde_json::{Value, json};

const API: &str = "/2018-06-01/runtime";

fn main() {
    let mut api = Api::connect();
    match env::var("ECHO_INIT").as_deref() {
        Ok("error") => {
            api.call("POST", "/init/error", r#"{"errorType":"Echo.Init","errorMessage":"told to"}"#);
            std::process::exit(1);
        }
        Ok("exit") => std::process::exit(3),
        Ok("hang") => park(),
        _ => {}
    }
    if env::var("AWS_LAMBDA_INITIALIZATION_TYPE").as_deref() == Ok("snap-start") {
        assert_eq!(api.call("GET", "/restore/next", "").status, 200);
    }
    let pollers: usize = env::var("AWS_LAMBDA_MAX_CONCURRENCY").map_or(1, |count| count.parse().unwrap());
    let meeting = Arc::new(Barrier::new(2));
    let others: Vec<_> = (1..pollers)
        .map(|_| {
            let meeting = Arc::clone(&meeting);
            std::thread::spawn(move || poll(&mut Api::connect(), &meeting))
        })
        .collect();
    poll(&mut api, &meeting);
    drop(others);
}

fn poll(api: &mut Api, meeting: &Barrier) {
    loop {
        let next = api.call("GET", "/invocation/next", "");
        let id = next.header("lambda-runtime-aws-request-id");
        let (kind, answer) = act(api, &next, meeting);
        let accepted = api.call("POST", &format!("/invocation/{id}/{kind}"), &answer);
        assert_eq!(accepted.status, 202);
    }
}

fn act(api: &mut Api, next: &Reply, meeting: &Barrier) -> (&'static str, String) {
    let event: Value = serde_json::from_str(&next.body).expect("the event is JSON");
    if let Some(records) = event["Records"].as_array() {
        return ("response", hand_back_the_bad(records));
    }
    match event["do"].as_str().unwrap_or_default() {
        "error" => {
            return ("error", json!({"errorType": "Echo", "errorMessage": "told to"}).to_string());
        }
        "exit" => std::process::exit(7),
        "hang" => park(),
        "meet" => drop(meeting.wait()),
        "say" => {
            println!("said to stdout");
            eprintln!("said to stderr");
        }
        "answer a stranger" => {
            let status = api.call("POST", "/invocation/no-such-id/response", "null").status;
            return ("response", json!({"status": status}).to_string());
        }
        "tell" => return ("response", tell(next)),
        _ => {}
    }
    ("response", next.body.clone())
}

fn hand_back_the_bad(records: &[Value]) -> String {
    let bad = records.iter().filter(|record| record["body"] == "bad");
    let failures: Vec<_> = bad.map(|record| json!({"itemIdentifier": record["messageId"]})).collect();
    json!({"batchItemFailures": failures}).to_string()
}

/// All that the platform told us.
fn tell(next: &Reply) -> String {
    let env: serde_json::Map<String, Value> = env::vars().map(|(name, value)| (name, value.into())).collect();
    json!({
        "pid": std::process::id(),
        "env": env,
        "folder": env::current_dir().unwrap(),
        "request_id": next.header("lambda-runtime-aws-request-id"),
        "deadline_ms": next.header("lambda-runtime-deadline-ms").parse::<u64>().unwrap(),
        "arn": next.header("lambda-runtime-invoked-function-arn"),
        "trace": next.header("lambda-runtime-trace-id"),
    })
    .to_string()
}

fn park() -> ! {
    loop {
        std::thread::park();
    }
}

/// One kept-alive connection to the Runtime API. When the server is gone it panics, as a runtime does.
struct Api {
    stream: BufReader<TcpStream>,
}

struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Reply {
    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name));
        &found.unwrap_or_else(|| panic!("no header {name}")).1
    }
}

impl Api {
    fn connect() -> Self {
        let address = env::var("AWS_LAMBDA_RUNTIME_API").expect("AWS_LAMBDA_RUNTIME_API is set");
        let stream = TcpStream::connect(address).expect("the Runtime API listens");
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    fn call(&mut self, method: &str, path: &str, body: &str) -> Reply {
        let length = body.len();
        let request =
            format!("{method} {API}{path} HTTP/1.1\r\nhost: runtime\r\ncontent-length: {length}\r\n\r\n{body}");
        self.stream.get_mut().write_all(request.as_bytes()).expect("the Runtime API is there");
        let status = self.line().split(' ').nth(1).expect("a status").parse().unwrap();
        let mut headers = Vec::new();
        while let Some((name, value)) = self.line().split_once(": ") {
            headers.push((name.to_owned(), value.to_owned()));
        }
        let mut reply = Reply { status, headers, body: String::new() };
        let mut body = vec![0; reply.header("content-length").parse().unwrap()];
        self.stream.read_exact(&mut body).unwrap();
        reply.body = String::from_utf8(body).unwrap();
        reply
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.stream.read_line(&mut line).unwrap(), 0, "the Runtime API is gone");
        line.trim_end().to_owned()
    }
}
