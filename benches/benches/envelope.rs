//! Reading and writing the envelopes of a 1 KB event, one record at a time.
//!
//! `ingest/read` is the rotor's first step, `transformed/write` its last, `transformed/read` the bulker's first,
//! `ingest/write` the gateway's last before the journal. Throughput counts the bytes of the record's value.

#![expect(clippy::expect_used, reason = "a bench stops where its fixed input is wrong")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millrace_benches::{event, forwarded, ingest, ingest_bytes, transformed_bytes};
use millrace_event::envelope::{Envelope, Ingest, Transformed};

fn envelopes(criterion: &mut Criterion) {
    let event = event().expect("the sample is JSON");
    let accepted = ingest(&event);
    let decided = forwarded(&accepted);
    let ingest_value = ingest_bytes().expect("the sample is JSON");
    let transformed_value = transformed_bytes().expect("the sample is JSON");

    // A reader that gives up early, or drops a part, would look fast.
    let read = Ingest::read(&ingest_value).expect("our own bytes");
    assert_eq!(read.event.get(), event.get());
    let read = Transformed::read(&transformed_value).expect("our own bytes");
    assert_eq!(
        read.outputs.first().map(|output| output.event.get()),
        Some(event.get())
    );

    measure(criterion, &accepted, &ingest_value);
    measure(criterion, &decided, &transformed_value);
}

fn measure<'a, E: Envelope<'a>>(criterion: &mut Criterion, envelope: &E, value: &'a [u8]) {
    let mut group = criterion.benchmark_group(E::NAME);
    group.throughput(Throughput::BytesDecimal(value.len() as u64));
    group.bench_function("read", |bencher| bencher.iter(|| E::read(black_box(value))));
    let mut out = Vec::with_capacity(value.len());
    group.bench_function("write", |bencher| {
        bencher.iter(|| {
            out.clear();
            black_box(envelope).write(&mut out);
            black_box(out.len())
        });
    });
    // Empty where a filter on the command line left the bench out.
    assert!(
        out.is_empty() || out == value,
        "what was measured is what is sent"
    );
    group.finish();
}

criterion_group!(benches, envelopes);
criterion_main!(benches);
