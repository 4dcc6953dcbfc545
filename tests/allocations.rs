//! How often a batch asks for memory, and for how much at once. In a test binary of its own, because the allocator counts.

use bytes::Bytes;
use sqs_etl::lambda::{Payload, rehearse};

#[path = "../benches/common/mod.rs"]
mod common;

const RECORDS: u64 = 10_000;

/// With some 10 MB of event and what the process has anyway this stays far below 64 MB.
const MOST_BYTES: u64 = 16 << 20;

#[test]
fn a_good_batch_asks_for_memory_less_than_once_a_hundred_messages() {
    let pipeline = common::pipeline();
    let event = Payload::from(Bytes::from(common::event(RECORDS as usize)));
    let counted = allocation_counter::measure(|| {
        let (prepared, _) = rehearse(&pipeline, &event, common::deadline()).expect("an event of SQS");
        assert_eq!(prepared.masked.len() as u64, RECORDS);
    });
    println!("{} allocations, {} bytes at most", counted.count_total, counted.bytes_max);
    assert!(counted.count_total < RECORDS / 100, "{} allocations", counted.count_total);
    assert!(counted.bytes_max < MOST_BYTES, "{} bytes at once", counted.bytes_max);
}
