//! Offsets that are foreign or lost: the partition stops or asks its tables, and nothing is there twice.

use std::time::Duration;

use millrace_kafka::group::Committed;
use millrace_kafka::{Connection, offsets};
use millrace_testkit::wait::until;

use super::{Bench, PATIENCE};

const EVENTS: u64 = 30;

/// A bulker that has settled some events of partition 0 and was told to end.
async fn settled_and_ended() -> (Bench, Connection) {
    let mut bench = Bench::start(vec![("MILLRACE__CHUNK__TIME", "20ms".into())]).await;
    let connection = Connection::new(bench.pipeline.kafka(), "test");
    bench.send(0, bench.events(0, 0, EVENTS)).await;
    bench.pipeline.rows(EVENTS, PATIENCE).await.expect("they arrive");
    let (group, topic) = (
        bench.pipeline.group("bulker"),
        bench.pipeline.topic("transformed"),
    );
    let settled = until("all is settled", PATIENCE, || async {
        let held = offsets::held(&connection, &group, &topic).await?;
        Ok(held.get(&0).filter(|held| held.offset == EVENTS).map(|_| ()))
    });
    settled.await.expect("settled");
    end(&mut bench).await;
    (bench, connection)
}

async fn end(bench: &mut Bench) {
    let ended = bench
        .pipeline
        .process("bulker")
        .terminate(Duration::from_secs(60));
    assert_eq!(ended.await.expect("it ends").code(), Some(0));
}

#[tokio::test]
async fn a_partition_whose_offset_somebody_else_set_stops_until_it_is_adopted_and_then_doubles_nothing() {
    let (mut bench, connection) = settled_and_ended().await;
    let (group, topic) = (
        bench.pipeline.group("bulker"),
        bench.pipeline.topic("transformed"),
    );
    let rewound = Committed {
        offset: 10,
        metadata: String::new(),
    };
    offsets::set(&connection, &group, &topic, 0, rewound)
        .await
        .expect("a rewind by hand");
    bench.pipeline.process("bulker").start_again().expect("started");
    let stopped = until("the partition stops", PATIENCE, || async {
        // Not there yet while the process starts.
        let stopped = bench
            .pipeline
            .metric("bulker", "millrace_bulker_stopped_partitions", "")
            .await;
        Ok(stopped.ok().filter(|stopped| *stopped == 1.0))
    });
    stopped.await.expect("it stops");

    let adopt = ["ledger", "adopt", "--partition", "0", "--group", &group];
    let refused = bench
        .pipeline
        .millctl(&adopt)
        .await
        .expect_err("a bulker is running");
    assert!(
        format!("{refused:#}").contains("stop the bulkers first"),
        "{refused:#}"
    );
    end(&mut bench).await;
    let shown = bench
        .pipeline
        .millctl(&["ledger", "show", "--group", &group])
        .await
        .expect("shown");
    let says = |partition: usize| shown["partitions"][partition]["stops"].clone();
    assert_eq!((says(0), says(1)), (true.into(), false.into()), "{shown}");

    let dry = [adopt.as_slice(), &["--dry-run"]].concat();
    let dry = bench.pipeline.millctl(&dry).await.expect("judged");
    assert_eq!((&dry["offset"], &dry["asked"]), (&0.into(), &EVENTS.into()));
    let held = offsets::held(&connection, &group, &topic)
        .await
        .expect("answered");
    assert_eq!(held[&0].offset, 10, "a dry run changes nothing");
    // The broker may take a moment to see that the last member has left.
    let adopted = until("the partition is adopted", PATIENCE, || async {
        match bench.pipeline.millctl(&adopt).await {
            Err(error) if format!("{error:#}").contains("stop the bulkers first") => Ok(None),
            answered => answered.map(Some),
        }
    });
    let adopted = adopted.await.expect("adopted");
    assert_eq!(adopted["before"]["offset"], 10, "what was there is said");
    let again = bench
        .pipeline
        .millctl(&adopt)
        .await
        .expect_err("it goes on by itself now");
    assert!(format!("{again:#}").contains("--force"), "{again:#}");

    bench.send(0, bench.events(0, EVENTS, 10)).await;
    bench.pipeline.process("bulker").start_again().expect("started");
    bench
        .pipeline
        .rows(EVENTS + 10, PATIENCE)
        .await
        .expect("the new ones arrive");
    assert_eq!(bench.not_once(1, EVENTS + 10).await, [0_u8; 0]);
}

#[tokio::test]
async fn a_group_that_kafka_forgot_begins_with_the_log_and_asks_for_what_is_there() {
    let (mut bench, connection) = settled_and_ended().await;
    let forgotten = format!("{}-forgotten", bench.pipeline.name);
    bench
        .pipeline
        .execute(&format!(
            "ALTER TABLE {} DELETE WHERE _seq = 7 SETTINGS mutations_sync = 1",
            bench.pipeline.table
        ))
        .await
        .expect("deleted");
    bench.send(0, bench.events(0, EVENTS, 10)).await;
    let bulker = bench.pipeline.process("bulker");
    bulker.set("MILLRACE__CONSUMER__GROUP", Some(&forgotten));
    bulker.start_again().expect("started");
    bench
        .pipeline
        .rows(EVENTS + 10, PATIENCE)
        .await
        .expect("all are there");
    assert_eq!(
        bench.not_once(1, EVENTS + 10).await,
        [0_u8; 0],
        "number 7 came back, nothing else"
    );
    let topic = bench.pipeline.topic("transformed");
    let settled = until("the log is settled", PATIENCE, || async {
        let held = offsets::held(&connection, &forgotten, &topic).await?;
        Ok(held.get(&0).filter(|held| held.offset == EVENTS + 10).map(|_| ()))
    });
    settled.await.expect("settled");
}
