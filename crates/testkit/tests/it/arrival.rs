use std::sync::Arc;
use std::time::Instant;

use millrace_testkit::oracle::{FUNCTION, Oracle};
use millrace_testkit::pipeline::{Options, Pipeline};

use crate::{PATIENCE, load, say};

const EVENTS: u64 = 10_000;
/// These are sent again after all were acknowledged.
const REPEATED: u64 = 1_000;

#[tokio::test]
#[expect(
    clippy::disallowed_methods,
    reason = "the time is printed, nothing is decided by it"
)]
async fn ten_thousand_events_of_mixed_types_arrive_once_each_with_what_the_function_added() {
    let pipeline = Pipeline::start(Options::default())
        .await
        .expect("the pipeline starts");
    pipeline
        .put_function("stamp", FUNCTION)
        .await
        .expect("the function is taken");
    let (sender, oracle) = (pipeline.sender(), Arc::new(Oracle::default()));

    let started = Instant::now();
    load::send(&sender, &oracle, 0..EVENTS)
        .await
        .expect("all are acknowledged");
    let accepted = started.elapsed();
    load::send(&sender, &oracle, 0..REPEATED)
        .await
        .expect("repeats are acknowledged too");
    pipeline.rows(EVENTS, PATIENCE).await.expect("all arrive");
    let stored = started.elapsed();

    let report = oracle.check(&pipeline).await.expect("the table answers");
    let metric = async |service, name, label| {
        pipeline
            .metric(service, name, label)
            .await
            .expect("the metric is there")
    };
    let at_the_door = metric("ingest", "millrace_ingest_events_duplicate_total", "").await;
    let at_the_table = metric("bulker", "millrace_bulker_records_total", "duplicate").await;
    let found = metric("bulker", "millrace_bulker_rows_found_total", "").await;
    say(&format!(
        "{EVENTS} events and {REPEATED} repeats: accepted in {accepted:.1?}, all queryable after {stored:.1?}; \
         duplicates removed: {at_the_door} at the door, {at_the_table} by the ledger, {found} by the table; \
         right {}, missing {}, repeated {}, altered {}, phantom {}",
        report.right,
        report.missing.len(),
        report.repeated.len(),
        report.altered.len(),
        report.phantom.len(),
    ));
    assert!(report.is_clean(), "{report:?}\n{}", pipeline.tails());
    assert_eq!((report.right, report.sent_again), (EVENTS, REPEATED));
    assert_eq!(at_the_door, 1000.0, "every repeat is seen at the door");
}
