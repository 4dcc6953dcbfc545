//! Each stage of a batch of 1,000 login messages, and all of them but Postgres. Criterion gives time a batch, and elements
//! a second, which are messages.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sqs_etl::lambda::{Payload, rehearse, rehearse_event};
use sqs_etl::pipeline::contract::Contract;
use sqs_etl::pipeline::decode::Decoder;
use sqs_etl::pipeline::validate::Valid;

mod common;

const RECORDS: usize = 1_000;

fn stages(criterion: &mut Criterion) {
    let event = Payload::from(Bytes::from(common::event(RECORDS)));
    let contract = Contract::built_in();
    let pipeline = common::pipeline();
    let mut group = criterion.benchmark_group("stages");
    group.throughput(Throughput::Elements(RECORDS as u64));
    group.bench_function("event", |b| b.iter(|| rehearse_event(black_box(&event), |batch| batch.messages.len())));
    rehearse_event(&event, |batch| {
        let bodies: Vec<&str> = batch.messages.iter().filter_map(|message| message.body.as_deref()).collect();
        group.bench_function("decode", |b| {
            b.iter(|| {
                let mut decoder = Decoder::new(&contract);
                bodies.iter().filter(|body| black_box(decoder.decode(body)).is_ok()).count()
            });
        });
        // Rows borrow from records, so decoding is in here once more; the masks are in the next one.
        group.bench_function("decode and validate", |b| {
            b.iter(|| {
                let (mut decoder, mut row) = (Decoder::new(&contract), Valid::empty());
                for (body, message) in bodies.iter().zip(&batch.messages) {
                    let record = decoder.decode(body).expect("a good body");
                    black_box(row.fill(record, message, &contract)).expect("a valid row");
                }
            });
        });
        group.bench_function("decode, validate and mask", |b| {
            b.iter(|| pipeline.prepare(batch, common::deadline()));
        });
    })
    .expect("an event of SQS");
    group.bench_function("event bytes to response", |b| {
        b.iter(|| rehearse(&pipeline, black_box(&event), common::deadline()).expect("an event of SQS"));
    });
    group.finish();
}

criterion_group!(benches, stages);
criterion_main!(benches);
