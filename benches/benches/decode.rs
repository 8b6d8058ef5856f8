//! Reading back what processes hand to one another: the rotor's records in the bulker, a batch in a worker, and a
//! worker's answer in its parent. Throughput counts events.

#![expect(clippy::expect_used, reason = "a bench stops where its fixed input is wrong")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millrace_benches::{ROWS, events, forwarded, ingest};
use millrace_event::envelope::{Envelope as _, Transformed};
use millrace_event::frame::{Batch, Outcome, Record, Verdicts};

const CONTEXT: &str = r#"{"attempt":0,"receivedAt":"2026-11-21T04:00:00.120Z","headers":{}}"#;

fn decode(criterion: &mut Criterion) {
    let events = events().expect("the samples are JSON");
    let records: Vec<Vec<u8>> = events
        .iter()
        .map(|event| forwarded(&ingest(event)).to_bytes())
        .collect();
    let batch = Batch {
        chain: "chn_1",
        version: 1,
        records: events
            .iter()
            .map(|event| Record {
                context: CONTEXT,
                event: event.get(),
                position: 0,
            })
            .collect(),
        budget_ms: None,
    };
    let asked = batch.encode().expect("it fits");
    let outcomes = events
        .iter()
        .map(|event| Outcome::forward(vec![event.get().to_owned()]));
    let answered = Verdicts::encode(&outcomes.collect::<Vec<_>>()).expect("it fits");

    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(ROWS as u64));
    group.bench_function("transformed", |bencher| {
        bencher.iter(|| {
            let read = |record: &Vec<u8>| Transformed::read(record).expect("our own bytes").outputs.len();
            let rows: usize = black_box(&records).iter().map(read).sum();
            assert_eq!(rows, ROWS);
        });
    });
    group.bench_function("batch", |bencher| {
        bencher.iter(|| {
            let read = Batch::decode(black_box(&asked)).expect("our own bytes");
            assert_eq!(read.records.len(), ROWS);
        });
    });
    group.bench_function("verdicts", |bencher| {
        bencher.iter(|| match Verdicts::decode(black_box(&answered)) {
            Ok(Verdicts::Outcomes(outcomes)) => assert_eq!(outcomes.len(), ROWS),
            other => panic!("our own bytes: {other:?}"),
        });
    });
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
