//! The gateway's steps that need no store, on a batch of a hundred events of 1 KB; each includes the decoding.
//!
//! Throughput counts events. What the steps cost in the running gateway, with Redis, the journal and Kafka, is for
//! `./dev bench ingest --steps` to say.

#![expect(clippy::expect_used, reason = "a bench stops where its fixed input is wrong")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millrace_benches::events;
use millrace_ingest::pipeline::steps::Steps;

const BATCH: usize = 100;

fn gateway(criterion: &mut Criterion) {
    let events = events().expect("the samples are JSON");
    let texts: Vec<_> = events.iter().take(BATCH).map(|event| event.get()).collect();
    let body = format!("{{\"batch\":[{}]}}", texts.join(",")).into_bytes();
    let steps = Steps::knowing(&body).expect("a batch");

    let mut group = criterion.benchmark_group("gateway");
    group.throughput(Throughput::Elements(BATCH as u64));
    for (name, step) in [
        ("decode", Steps::decode as fn(&Steps, &[u8]) -> _),
        ("decode+prepare", Steps::prepare),
        ("decode+types", Steps::types),
        ("decode+remembered", Steps::remembered),
    ] {
        assert_eq!(step(&steps, &body), Ok(BATCH), "{name} takes every event");
        group.bench_function(name, |bencher| bencher.iter(|| step(&steps, black_box(&body))));
    }
    group.finish();
}

criterion_group!(benches, gateway);
criterion_main!(benches);
