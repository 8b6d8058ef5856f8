//! Walking the leaves of a 1 KB event: what the gateway does to check types and the bulker to find columns.
//!
//! `event` walks the whole event, `properties` the part that becomes most columns. Throughput counts the bytes of
//! the JSON text walked. Reading a value's number or string is not part of it.

#![expect(clippy::expect_used, reason = "a bench stops where its fixed input is wrong")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millrace_benches::event;
use millrace_event::flatten::Flattener;
use millrace_event::json::Value;

fn flatten(criterion: &mut Criterion) {
    let event = event().expect("the sample is JSON");
    let whole = Value::from(&*event);
    let properties = whole.get("properties").expect("the sample has properties");

    let mut flattener = Flattener::new();
    let mut group = criterion.benchmark_group("flatten");
    for (name, object, leaves) in [("event", whole, 30), ("properties", properties, 15)] {
        assert_eq!(walk(&mut flattener, object).0, leaves, "the sample's leaves");
        group.throughput(Throughput::BytesDecimal(object.text().len() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| walk(&mut flattener, black_box(object)))
        });
    }
    group.finish();
}

/// The number of leaves, and the bytes of their names and values, so that neither can be left out.
fn walk(flattener: &mut Flattener, object: Value<'_>) -> (usize, usize) {
    let (mut leaves, mut bytes) = (0, 0);
    flattener.walk("", object, &mut |name, value| {
        leaves += 1;
        bytes += name.len() + value.text().len();
    });
    (leaves, bytes)
}

criterion_group!(benches, flatten);
criterion_main!(benches);
