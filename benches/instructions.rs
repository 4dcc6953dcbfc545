//! The batch path as often as it is told, for `scripts/count-instructions` to count under callgrind.
//!
//! usage: instructions RECORDS RUNS

use std::hint::black_box;

use bytes::Bytes;
use sqs_etl::lambda::{Payload, rehearse};
use sqs_etl::pipeline::Pipeline;

mod common;

fn main() {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let [records, runs] = numbers[..] else { panic!("usage: instructions RECORDS RUNS") };
    run(records, runs);
}

fn run(records: usize, runs: usize) {
    let pipeline = common::pipeline();
    let event = Payload::from(Bytes::from(common::event(records)));
    // The first run pays for what is set up once, and is always there: a difference of two counts leaves it out.
    for _ in 0..=runs {
        batch_path(&pipeline, &event, records);
    }
}

/// What is counted: from the event's bytes to the response, without Postgres.
fn batch_path(pipeline: &Pipeline, event: &Payload, records: usize) {
    let (prepared, response) = rehearse(pipeline, event, common::deadline()).expect("the event is one of SQS");
    assert_eq!((prepared.masked.len(), response.batch_item_failures.len()), (records, 0), "all are good");
    black_box((prepared, response));
}
