//! A thousand 1 KB events of one table into one Native block, as the bulker makes it.
//!
//! `native` is the whole way, from events to columns to the compressed block; `lz4` is the compression in it, `zstd` the other
//! that a destination may ask for.
//! `limit/…` is what a parser alone costs on the same text: `validate` reads it and keeps nothing, `tree` builds
//! `serde_json::Value`. Throughput counts events.

#![expect(clippy::expect_used, reason = "a bench stops where its fixed input is wrong")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millrace_benches::{ROWS, events, full_schema, row};
use millrace_event::Timestamp;
use millrace_event::destination::Compression;
use millrace_warehouse::native::frame;
use millrace_warehouse::{Batch, Block, Limits, Schema};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

fn encode(criterion: &mut Criterion) {
    let events = events().expect("the sample is JSON");
    let schema = full_schema(&events).expect("the sample fits an event table");
    let blocks = native(&schema, &events);
    assert_eq!(blocks.len(), 1, "one month");
    assert_eq!(blocks.iter().map(|block| block.rows().len()).sum::<usize>(), ROWS);

    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("native", |bencher| {
        bencher.iter(|| native(&schema, black_box(&events)))
    });
    let body: Vec<u8> = blocks.iter().flat_map(Block::body).collect();
    for (name, compression) in [("lz4", Compression::Lz4), ("zstd", Compression::Zstd)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| frame::compress(black_box(&body), compression))
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("limit");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("validate", |bencher| {
        bencher.iter(|| parse::<IgnoredAny>(black_box(&events)))
    });
    group.bench_function("tree", |bencher| {
        bencher.iter(|| parse::<serde_json::Value>(black_box(&events)))
    });
    group.finish();
}

fn native(schema: &Arc<Schema>, events: &[Box<RawValue>]) -> Vec<Block> {
    let now = Timestamp::clamped_from_millis(1_795_233_601_000);
    let mut batch = Batch::new(Arc::clone(schema), Limits::default(), now).expect("a fit schema");
    for (seq, event) in (0..).zip(events) {
        batch.push(&row(seq, event)).expect("a row that fits");
    }
    assert!(batch.added().is_empty(), "the table has all columns");
    batch.finish(schema).expect("the schema it was encoded with")
}

fn parse<'a, T: serde::Deserialize<'a>>(events: &'a [Box<RawValue>]) -> usize {
    let parsed = |text: &&'a str| black_box(serde_json::from_str::<T>(text)).is_ok();
    events.iter().map(|event| event.get()).filter(parsed).count()
}

criterion_group!(benches, encode);
criterion_main!(benches);
