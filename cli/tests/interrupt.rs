//! Ctrl-C and SIGTERM at any moment: nothing is left behind. Processes are looked up in `/proc`, hence Linux only.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// Sends `signal` when `step` is on stderr. Nothing may be left when sqs-etl has ended: no process, no folder.
fn check(signal: Signal, step: &str) {
    let temporary = PathBuf::from(format!("/tmp/sqs-etl-cli-{}-{}", signal.as_raw(), std::process::id()));
    fs::create_dir(&temporary).expect("a folder that nobody else has");
    let mut child = start(&temporary);
    let mut stderr = BufReader::new(child.stderr.take().expect("it is piped"));
    let mut said = String::new();
    while !said.contains(step) {
        assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "it ended too early: {said}");
    }
    let family = descendants(child.id());
    assert!(family.len() >= 2, "postgres and the function run");
    kill_process(pid(child.id()), signal).unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
    assert!(said.ends_with("sqs-etl: interrupted; nothing is left behind\n"), "{said}");
    let left: Vec<_> = family.into_iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).collect();
    assert!(left.is_empty(), "processes {left:?} are left");
    fs::remove_dir(&temporary).expect("nothing is left in the folder");
}

/// Enough messages that it does not end by itself meanwhile.
fn start(temporary: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_sqs-etl"))
        .args(["demo", "--count", "100000"])
        .env("TMPDIR", temporary)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run sqs-etl")
}

fn pid(number: u32) -> Pid {
    i32::try_from(number).ok().and_then(Pid::from_raw).expect("a process id")
}

fn descendants(of: u32) -> Vec<u32> {
    let children: Vec<u32> = processes().filter(|process| parent(*process) == Some(of)).collect();
    children.into_iter().flat_map(|child| [vec![child], descendants(child)].concat()).collect()
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("list /proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The second field behind the name, which is in parentheses and may hold anything.
fn parent(process: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[test]
fn ctrl_c_while_messages_are_delivered_leaves_nothing_behind() {
    check(Signal::INT, "deliver");
}

#[test]
fn sigterm_as_soon_as_the_function_is_there_leaves_nothing_behind() {
    check(Signal::TERM, "is ready after");
}
