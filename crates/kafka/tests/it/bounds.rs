use std::collections::BTreeMap;
use std::time::Duration;

use millrace_kafka::bounds::Bounds;
use millrace_kafka::{Error, edge, reader, topics};

use super::{connection, fresh_topics, in_time, numbered};

#[tokio::test]
async fn logs_end_where_the_next_record_goes_and_begin_behind_what_was_deleted() {
    let topics = fresh_topics(3).await;
    let producer = edge::Producer::new(connection(), Duration::from_secs(10));
    let log = Bounds::new(&connection(), &topics.ingest);
    producer
        .produce(&topics.ingest, 1, numbered(0..50))
        .await
        .expect("placed");
    let ends = in_time("the ends", Box::pin(log.ends(&[0, 1])))
        .await
        .expect("answered");
    assert_eq!(ends, BTreeMap::from([(0, 0), (1, 50)]));

    topics::delete_records(&connection(), &topics.ingest, 1, 20)
        .await
        .expect("deleted");
    producer
        .produce(&topics.ingest, 2, numbered(0..1))
        .await
        .expect("placed");
    let ranges = in_time("the ranges", Box::pin(log.ranges(None)))
        .await
        .expect("answered");
    assert_eq!(ranges, BTreeMap::from([(0, 0..0), (1, 20..50), (2, 0..1)]));
    let read = reader::gather(&connection(), &topics.ingest)
        .await
        .expect("readable");
    assert_eq!(read[&1].len(), 30);
}

#[tokio::test]
async fn ranges_since_a_time_begin_with_its_first_record_and_are_empty_where_none_is_as_late() {
    let topics = fresh_topics(2).await;
    let producer = edge::Producer::new(connection(), Duration::from_secs(10));
    let first = producer.produce(&topics.ingest, 0, numbered(0..5)).await;
    first.expect("placed");
    let other = producer.produce(&topics.ingest, 1, numbered(0..5)).await;
    other.expect("placed");
    let written = edge::now_ms();
    while edge::now_ms() == written {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let later = producer.produce(&topics.ingest, 0, numbered(5..8)).await;
    later.expect("placed");

    let log = Bounds::new(&connection(), &topics.ingest);
    let since = in_time("the ranges", Box::pin(log.ranges(Some(written + 1)))).await;
    assert_eq!(since.expect("answered"), BTreeMap::from([(0, 5..8), (1, 5..5)]));
    let all = in_time("the ranges", Box::pin(log.ranges(Some(0)))).await;
    assert_eq!(all.expect("answered"), BTreeMap::from([(0, 0..8), (1, 0..5)]));
}

#[tokio::test]
async fn a_topic_that_is_not_there_is_named() {
    let log = Bounds::new(&connection(), "t-nobody-made-this");
    let error = in_time("the answer", Box::pin(log.ranges(None)))
        .await
        .expect_err("no such topic");
    assert!(matches!(error, Error::NoSuchTopic { .. }), "{error:?}");
    assert!(error.to_string().contains("t-nobody-made-this"));
}
