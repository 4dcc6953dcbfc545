//! The mapping between a queue and a function: batches, verdicts, redelivery, dead letters, settings.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use sqs_etl_local::clock::Clock;
use sqs_etl_local::function::{Function, FunctionConfig, Invocation, InvocationResult};
use sqs_etl_local::mapping::{LARGEST_EVENT, Mapping, MappingConfig, MappingError};
use sqs_etl_local::queue::{Depth, Message, Queue};
use sqs_etl_local::response::Verdict;

const ECHO: &str = env!("CARGO_BIN_EXE_echo-function");
const MAX_RECEIVE_COUNT: u32 = 3;

#[test]
fn a_real_function_gets_good_messages_once_and_poison_until_the_dead_letter_queue_has_it() {
    let (queue, dead) = queue_and_dead_letters("logins");
    let bad = send(&queue, &["good", "bad", "good", "bad", "good"]);
    let function = Function::start(FunctionConfig::new(ECHO)).unwrap();
    let mut verdicts = Vec::new();
    let config = MappingConfig { function_timeout: Duration::from_secs(30), ..MappingConfig::default() };
    let run = mapping(&queue, config).run_until_idle(&function, |batch| verdicts.push(batch.verdict.clone()));

    assert!(run.idle);
    assert_eq!((run.batches, run.deleted), (3, 3));
    assert_eq!(verdicts, vec![Verdict::Partial { failed: bad.clone() }; 3]);
    for (id, deliveries) in &run.deliveries {
        assert_eq!(*deliveries, if bad.contains(id) { MAX_RECEIVE_COUNT } else { 1 });
    }
    let dead_ids: Vec<_> = dead.peek().into_iter().filter_map(|message| message.id).collect();
    assert_eq!(dead_ids, bad);
    assert_eq!(queue.depth(), Depth::default());
}

#[test]
fn without_the_flag_what_failed_is_lost() {
    let (queue, dead) = queue_and_dead_letters("logins");
    send(&queue, &["good", "bad"]);
    let config = MappingConfig { report_batch_item_failures: false, ..MappingConfig::default() };
    let run = mapping(&queue, config).run_until_idle_with(hand_back_bad, |_| {});
    assert_eq!((run.batches, run.deleted), (1, 2));
    assert_eq!(dead.depth(), Depth::default());
}

#[test]
fn an_error_sends_the_whole_batch_round_until_it_is_dead() {
    for result in [
        InvocationResult::Error(r#"{"errorType":"x"}"#.to_owned()),
        InvocationResult::TimedOut,
        InvocationResult::Crashed(None),
    ] {
        let (queue, dead) = queue_and_dead_letters("logins");
        send(&queue, &["good", "good"]);
        let run = mapping(&queue, MappingConfig::default()).run_until_idle_with(|_| invocation(result.clone()), |_| {});
        assert_eq!((run.batches, run.deleted), (3, 0));
        assert_eq!(dead.depth().visible, 2);
    }
}

#[test]
fn failures_stay_invisible_until_the_visibility_timeout() {
    let (queue, _) = queue_and_dead_letters("logins");
    send(&queue, &["good", "bad"]);
    let mapping = mapping(&queue, MappingConfig::default());
    assert_eq!(mapping.run_once(hand_back_bad).unwrap().message_ids.len(), 2);
    assert_eq!(queue.depth(), Depth { visible: 0, in_flight: 1 });
    assert!(mapping.run_once(hand_back_bad).is_none());
    queue.clock().advance(queue.visibility_timeout());
    assert_eq!(mapping.run_once(hand_back_bad).unwrap().message_ids.len(), 1);
}

#[test]
fn poison_without_a_dead_letter_queue_ends_the_run_instead_of_going_round_for_ever() {
    let queue = Queue::builder("logins").create(&Clock::at(0)).unwrap();
    send(&queue, &["bad"]);
    let config = MappingConfig { delivery_limit: 7, ..MappingConfig::default() };
    let run = mapping(&queue, config).run_until_idle_with(hand_back_bad, |_| {});
    assert!(!run.idle);
    assert_eq!(run.batches, 7);
    assert_eq!(queue.depth().in_flight, 1);
}

#[test]
fn in_a_fifo_queue_a_group_waits_for_its_failed_head_and_the_others_do_not() {
    let clock = Clock::at(0);
    let queue = Queue::builder("logins.fifo").create(&clock).unwrap();
    for (body, group) in [("bad", "g"), ("after", "g"), ("other", "h")] {
        queue.send(Message::new(body).group(group)).unwrap();
    }
    let one_at_a_time = MappingConfig { batch_size: 1, ..MappingConfig::default() };
    let mapping = mapping(&queue, one_at_a_time);
    let mut order = Vec::new();
    while let Some(batch) = mapping.run_once(|event| {
        order.push(bodies(&event).remove(0));
        hand_back_bad(event)
    }) {
        assert_eq!(batch.message_ids.len(), 1);
    }
    assert_eq!(order, ["bad", "other"]);
    assert_eq!(queue.depth(), Depth { visible: 1, in_flight: 1 });
}

#[test]
fn a_batch_holds_no_more_than_its_size_and_the_event_no_more_than_6_mb() {
    let large = "x".repeat(1024 * 1024);
    let queue = Queue::builder("logins").create(&Clock::at(0)).unwrap();
    send(&queue, &[large.as_str(); 12]);
    let config =
        MappingConfig { batch_size: 10_000, batching_window: Duration::from_secs(1), ..MappingConfig::default() };
    let mut sizes = Vec::new();
    mapping(&queue, config).run_until_idle_with(hand_back_bad, |batch| {
        assert!(batch.event_bytes <= LARGEST_EVENT);
        sizes.push(batch.message_ids.len());
    });
    assert_eq!(sizes, [5, 5, 2]);

    send(&queue, &["x"; 25]);
    let mut sizes = Vec::new();
    mapping(&queue, MappingConfig::default())
        .run_until_idle_with(hand_back_bad, |batch| sizes.push(batch.message_ids.len()));
    assert_eq!(sizes, [10, 10, 5]);
}

#[test]
fn the_batching_window_gathers_what_comes_back_within_it() {
    let queue = Queue::builder("logins").create(&Clock::at(0)).unwrap();
    let bad = send(&queue, &["bad"]);
    let window = MappingConfig { batching_window: Duration::from_secs(5), ..MappingConfig::default() };
    let mapping = mapping(&queue, window);
    mapping.run_once(hand_back_bad).unwrap();
    // It comes back at 30 s. A message that was received at 27 s waits for it until 32 s.
    queue.clock().advance_to(27_000);
    let good = queue.send(Message::new("good")).unwrap();
    let batch = mapping.run_once(hand_back_bad).unwrap();
    assert_eq!(batch.message_ids, [good, bad[0].clone()]);
    assert_eq!((batch.received_ms, queue.clock().now_ms()), (27_000, 32_000));
}

#[test]
fn several_at_once_lose_nothing_and_double_nothing() {
    let (queue, dead) = queue_and_dead_letters("logins");
    let mut bodies = vec!["good"; 200];
    bodies.extend(["bad"; 20]);
    let bad = send(&queue, &bodies);
    let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let invoke = |event: String| {
        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::yield_now();
        now.fetch_sub(1, Ordering::SeqCst);
        hand_back_bad(event)
    };
    let config = MappingConfig { concurrency: 4, ..MappingConfig::default() };
    let run = mapping(&queue, config).run_until_idle_with(invoke, |_| {});
    assert!(most.load(Ordering::SeqCst) <= 4);
    assert_eq!((run.idle, run.deleted, run.deliveries.len()), (true, 200, 220));
    let dead_ids: HashSet<_> = dead.peek().into_iter().filter_map(|message| message.id).collect();
    assert_eq!(dead_ids, bad.into_iter().collect());
    assert_eq!(run.deliveries.values().filter(|deliveries| **deliveries == 1).count(), 200);
}

#[test]
#[should_panic(expected = "a scoped thread panicked")]
fn a_panic_of_the_stand_in_ends_the_run() {
    let queue = Queue::builder("logins").create(&Clock::at(0)).unwrap();
    send(&queue, &["good"; 50]);
    let config = MappingConfig { concurrency: 4, ..MappingConfig::default() };
    mapping(&queue, config).run_until_idle_with(|_| panic!("an assertion of the test"), |_| {});
}

#[test]
fn settings_that_aws_refuses_are_refused() {
    let queue = |name: &str, visibility: u64| {
        let visibility = Duration::from_secs(visibility);
        Queue::builder(name).visibility_timeout(visibility).create(&Clock::at(0)).unwrap()
    };
    let config = |batch_size, window_ms| MappingConfig {
        batch_size,
        batching_window: Duration::from_millis(window_ms),
        ..MappingConfig::default()
    };
    let (standard, fifo, hasty) = (queue("a", 30), queue("a.fifo", 30), queue("a", 4));
    let refused = |queue: &Arc<Queue>, config| Mapping::new(queue, config).unwrap_err();
    assert!(matches!(refused(&standard, config(0, 0)), MappingError::BatchSize { most: 10_000, .. }));
    assert!(matches!(refused(&standard, config(10_001, 1000)), MappingError::BatchSize { .. }));
    assert!(matches!(refused(&fifo, config(11, 0)), MappingError::BatchSize { most: 10, .. }));
    assert_eq!(refused(&standard, config(11, 0)), MappingError::WindowTooShort);
    assert_eq!(refused(&standard, config(10, 1500)), MappingError::BadWindow);
    assert_eq!(refused(&standard, config(10, 301_000)), MappingError::BadWindow);
    assert_eq!(refused(&fifo, config(10, 1000)), MappingError::WindowOnFifo("a.fifo".into()));
    assert!(matches!(refused(&hasty, config(10, 0)), MappingError::VisibilityTooShort { .. }));
    assert!(matches!(refused(&standard, config(10, 26_000)), MappingError::VisibilityTooShort { .. }));
    let idle = MappingConfig { concurrency: 0, ..MappingConfig::default() };
    assert_eq!(refused(&standard, idle), MappingError::NoConcurrency);
    for accepted in [config(10, 0), config(10_000, 1000), config(11, 25_000)] {
        Mapping::new(&standard, accepted).unwrap();
    }
}

fn queue_and_dead_letters(name: &str) -> (Arc<Queue>, Arc<Queue>) {
    let clock = Clock::at(1_700_000_000_000);
    let dead = Queue::builder("dead").create(&clock).unwrap();
    let queue = Queue::builder(name).dead_letters(&dead, MAX_RECEIVE_COUNT);
    (queue.create(&clock).unwrap(), dead)
}

fn mapping(queue: &Arc<Queue>, config: MappingConfig) -> Mapping {
    Mapping::new(queue, config).unwrap()
}

/// Sends the bodies and returns the ids of those that are `bad`.
fn send(queue: &Queue, bodies: &[&str]) -> Vec<String> {
    let sent = bodies.iter().map(|body| (*body, queue.send(Message::new(*body)).unwrap()));
    sent.filter(|(body, _)| *body == "bad").map(|(_, id)| id).collect()
}

fn records(event: &str) -> Vec<Value> {
    serde_json::from_str::<Value>(event).unwrap()["Records"].as_array().unwrap().clone()
}

fn bodies(event: &str) -> Vec<String> {
    records(event).iter().map(|record| record["body"].as_str().unwrap().to_owned()).collect()
}

/// A function that hands back the messages whose body is `bad`.
fn hand_back_bad(event: String) -> Invocation {
    let failures: Vec<Value> = records(&event)
        .iter()
        .filter(|record| record["body"] == "bad")
        .map(|record| json!({"itemIdentifier": record["messageId"]}))
        .collect();
    let response = json!({"batchItemFailures": failures}).to_string();
    invocation(InvocationResult::Response(response.into_bytes()))
}

fn invocation(result: InvocationResult) -> Invocation {
    Invocation { request_id: String::new(), result, duration: Duration::ZERO, init: None }
}
