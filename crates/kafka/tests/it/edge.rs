use std::time::Duration;

use millrace_kafka::error::ProduceError;
use millrace_kafka::topics::{self, Change, Shape};
use millrace_kafka::{Connection, Error, edge, producer, reader};

use super::{connection, fresh_topics, numbered, outgoing};

#[tokio::test]
async fn what_the_edge_produces_is_read_back_whole_and_in_order() {
    let topics = fresh_topics(3).await;
    let producer = edge::Producer::new(connection(), Duration::from_secs(10));
    assert_eq!(
        producer
            .partitions(&topics.ingest)
            .await
            .expect("the topic is there"),
        3
    );
    producer
        .produce(&topics.ingest, 1, numbered(0..50))
        .await
        .expect("placed");
    producer
        .produce(&topics.ingest, 1, numbered(50..60))
        .await
        .expect("placed");
    producer
        .produce(&topics.ingest, 2, vec![outgoing("other", "x")])
        .await
        .expect("placed");

    let read = reader::gather(&connection(), &topics.ingest)
        .await
        .expect("readable");
    let values: Vec<_> = read[&1]
        .iter()
        .map(|record| String::from_utf8_lossy(&record.value).into_owned())
        .collect();
    assert_eq!(values, (0..60).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(read[&2][0].key.as_deref(), Some(b"other".as_slice()));
    assert_eq!(read[&2][0].headers.text("id"), Some("id of x"));
    assert!(!read.contains_key(&0));
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_refused_for_good() {
    let topics = fresh_topics(1).await;
    let producer = edge::Producer::new(connection(), Duration::from_secs(10));
    // Text that does not compress, so that the broker sees its whole size.
    let noise: String = (0..120_000)
        .map(|_| uuid::Uuid::new_v4().simple().to_string())
        .collect();
    let error = producer
        .produce(&topics.ingest, 0, vec![outgoing("k", &noise)])
        .await
        .expect_err("too large");
    assert!(matches!(error, ProduceError::Refused { .. }), "{error:?}");
    producer
        .produce(&topics.ingest, 0, numbered(0..1))
        .await
        .expect("the next batch passes");
}

#[tokio::test]
async fn a_broker_that_is_away_makes_a_batch_ambiguous_in_time() {
    // Bound and never accepted from: the port answers to nobody.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    let producer = edge::Producer::new(
        Connection::new(address, "millrace-test"),
        Duration::from_millis(300),
    );
    let error = producer
        .produce("t", 0, numbered(0..1))
        .await
        .expect_err("nobody is there");
    assert!(matches!(error, ProduceError::Ambiguous { .. }), "{error:?}");
}

#[tokio::test]
async fn a_topic_that_is_not_there_is_named_with_the_way_out() {
    let producer = edge::Producer::new(connection(), Duration::from_secs(10));
    let error = producer.partitions("no.such.topic").await.expect_err("not there");
    assert!(
        matches!(&error, Error::NoSuchTopic { topic } if topic == "no.such.topic"),
        "{error:?}"
    );
    assert!(error.to_string().contains("millctl topics apply"));
}

#[tokio::test]
async fn the_idempotent_producer_delivers_in_order() {
    let topics = fresh_topics(2).await;
    let producer = producer::Producer::new(&connection()).expect("configured");
    for turn in 0..10 {
        producer
            .send(&topics.transformed, 1, numbered(turn * 100..(turn + 1) * 100))
            .await
            .expect("delivered");
    }
    let read = reader::gather(&connection(), &topics.transformed)
        .await
        .expect("readable");
    let values: Vec<_> = read[&1]
        .iter()
        .map(|record| String::from_utf8_lossy(&record.value).into_owned())
        .collect();
    assert_eq!(values, (0..1000).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn topics_are_made_once_and_grown_but_never_shrunk() {
    let topics = fresh_topics(2).await;
    let apply = |partitions, dry_run| {
        let topics = topics.clone();
        async move {
            let shape = Shape {
                partitions,
                replication: 1,
            };
            topics::apply(&connection(), &topics, shape, dry_run)
                .await
                .expect("applied")
        }
    };
    assert!(
        apply(2, false)
            .await
            .iter()
            .all(|applied| applied.change == Change::Unchanged)
    );
    assert!(
        apply(3, true)
            .await
            .iter()
            .all(|applied| applied.change == Change::Grown { from: 2 })
    );
    assert_eq!(
        topics::check(&connection(), &topics).await.expect("equal"),
        2,
        "a dry run changes nothing"
    );
    assert!(
        apply(3, false)
            .await
            .iter()
            .all(|applied| applied.change == Change::Grown { from: 2 })
    );
    assert_eq!(topics::check(&connection(), &topics).await.expect("equal"), 3);
    assert!(
        apply(1, false)
            .await
            .iter()
            .all(|applied| applied.change == Change::Unchanged)
    );
}
