//! A chunk of the bulker through its ledger: plan, a decision for each record and row, settlement. Throughput counts
//! records; `dense` is what a partition sees all day, `holes` one whose journals came out of order.

#![expect(clippy::expect_used, reason = "a bench stops where its fixed input is wrong")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use millrace_event::{Identity, JournalId};
use millrace_ledger::ledger::{Arrival, Decision, Fate};
use millrace_ledger::metadata::{Metadata, table_hash};
use millrace_ledger::{Ledger, Recovery};

/// Records of a chunk.
const RECORDS: u64 = 10_000;
/// Journals that they come from.
const JOURNALS: u64 = 3;
const PARTITION: u32 = 3;

fn arrivals(seq: impl Fn(u64) -> u64) -> Vec<Arrival> {
    let arrival = |n: u64| Arrival {
        offset: n,
        identity: Identity {
            journal: JournalId(n % JOURNALS),
            partition: PARTITION,
            seq: seq(n / JOURNALS),
        },
        attempt: 0,
        row: None,
    };
    (0..RECORDS).map(arrival).collect()
}

fn fresh() -> Ledger {
    let (mut ledger, recovery) = Ledger::restore(PARTITION, 0, None).expect("nothing to read");
    assert!(matches!(recovery, Recovery::Clean));
    for journal in 0..JOURNALS {
        ledger.learn(JournalId(journal), None);
    }
    ledger
}

/// Carries a chunk out; how many rows it has, and the text of the commit.
fn carried_out(ledger: &mut Ledger, arrivals: &[Arrival], table: u64) -> (usize, String) {
    ledger.plan(RECORDS - 1).expect("small");
    let mut rows = 0;
    for arrival in arrivals {
        let decision = ledger.decide(arrival, None);
        if matches!(decision, Decision::Take | Decision::TakeAhead { .. })
            && ledger.row(arrival, table, 0) == Fate::Insert
        {
            rows += 1;
        }
    }
    let settlement = ledger.settlement();
    let commit = ledger.settled(settlement, None).expect("small");
    (rows, commit.metadata)
}

fn ledger(criterion: &mut Criterion) {
    let table = table_hash("ws_demo.events");
    // Blocks of eight change places with the next: a hole opens and closes all the time.
    let swapped = |n: u64| n ^ 8;
    let mut group = criterion.benchmark_group("ledger");
    group.throughput(Throughput::Elements(RECORDS));
    for (name, arrivals) in [("dense", arrivals(|n| n)), ("holes", arrivals(swapped))] {
        group.bench_function(name, |bencher| {
            let run = |mut ledger: Ledger| {
                let (rows, _) = carried_out(&mut ledger, black_box(&arrivals), table);
                assert_eq!(rows, arrivals.len());
                ledger
            };
            bencher.iter_batched(fresh, run, BatchSize::LargeInput);
        });
    }
    group.finish();

    let (_, text) = carried_out(&mut fresh(), &arrivals(swapped), table);
    let mut group = criterion.benchmark_group("metadata");
    group.bench_function("decode", |bencher| {
        bencher.iter(|| Metadata::decode(black_box(&text)).expect("our own text"));
    });
    let read = Metadata::decode(&text).expect("our own text");
    group.bench_function("encode", |bencher| {
        bencher.iter(|| black_box(&read).encode().expect("small"));
    });
    group.finish();
}

criterion_group!(benches, ledger);
criterion_main!(benches);
