use std::time::Duration;

use millrace_event::topic::Topics;
use millrace_kafka::group::{CommitError, Committed, Config, Consumer, Event, Partition};
use millrace_kafka::producer::Producer;

use super::{connection, fresh_topics, in_time, numbered};

fn config(topics: &Topics) -> Config {
    Config {
        group: format!("{}group", topics.ingest),
        session_timeout: Duration::from_secs(6),
        ..Config::default()
    }
}

fn join(topics: &Topics) -> Consumer {
    Consumer::start(&connection(), &config(topics), &[&topics.ingest]).expect("configured")
}

async fn assigned(consumer: &mut Consumer) -> Partition {
    match in_time("an assignment", consumer.next()).await {
        Some(Event::Assigned(partition)) => partition,
        other => panic!("expected an assignment, got {other:?}"),
    }
}

async fn read(partition: &mut Partition, count: usize) -> Vec<String> {
    let mut values = Vec::new();
    while values.len() < count {
        let batch = in_time("records", partition.records.recv())
            .await
            .expect("the partition is ours");
        values.extend(
            batch
                .iter()
                .map(|record| String::from_utf8_lossy(&record.value).into_owned()),
        );
    }
    values
}

fn texts(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

#[tokio::test]
async fn a_commit_and_its_metadata_are_found_by_the_next_member() {
    let topics = fresh_topics(1).await;
    let producer = Producer::new(&connection()).expect("configured");
    producer
        .send(&topics.ingest, 0, numbered(0..100))
        .await
        .expect("delivered");

    let mut first = join(&topics);
    let mut partition = assigned(&mut first).await;
    assert_eq!(
        (
            partition.committed.clone(),
            partition.log_start,
            partition.log_end
        ),
        (None, 0, 100)
    );
    assert_eq!(read(&mut partition, 100).await, texts(0..100));
    partition.commit(40, "a plan").await.expect("committed");
    partition
        .commit(40, "another plan")
        .await
        .expect("an unchanged offset with new metadata is stored");
    let held = Committed {
        offset: 40,
        metadata: "another plan".into(),
    };
    assert_eq!(
        partition.fetch_committed().await.expect("answered"),
        Some(held.clone())
    );
    drop(partition);
    in_time("leaving", first.close()).await;

    let mut second = join(&topics);
    let mut partition = assigned(&mut second).await;
    assert_eq!(partition.committed, Some(held));
    assert_eq!(
        read(&mut partition, 60).await,
        texts(40..100),
        "reading starts at the committed offset"
    );
    drop(partition);
    in_time("leaving", second.close()).await;
}

#[tokio::test]
async fn metadata_beyond_the_brokers_limit_is_an_error() {
    let topics = fresh_topics(1).await;
    let mut consumer = join(&topics);
    let partition = assigned(&mut consumer).await;
    partition
        .commit(0, "x".repeat(4095))
        .await
        .expect("4,095 bytes pass");
    let error = partition
        .commit(0, "x".repeat(4097))
        .await
        .expect_err("more does not");
    assert!(matches!(error, CommitError::Unknown(_)), "{error:?}");
    drop(partition);
    in_time("leaving", consumer.close()).await;
}

#[tokio::test]
async fn a_partition_that_moves_is_committed_by_its_owner_until_it_is_dropped_and_never_after() {
    let topics = fresh_topics(2).await;
    let producer = Producer::new(&connection()).expect("configured");
    for partition in 0..2 {
        producer
            .send(&topics.ingest, partition, numbered(0..10))
            .await
            .expect("delivered");
    }
    let mut first = join(&topics);
    let mut a = assigned(&mut first).await;
    let mut b = assigned(&mut first).await;
    for partition in [&mut a, &mut b] {
        assert_eq!(read(partition, 10).await, texts(0..10));
    }

    let mut second = join(&topics);
    let revoked = in_time("a revocation", async {
        tokio::select! { () = a.revoked.cancelled() => a.number, () = b.revoked.cancelled() => b.number }
    })
    .await;
    let (moving, staying) = if revoked == a.number { (a, b) } else { (b, a) };
    moving
        .commit(7, "drained")
        .await
        .expect("the owner commits while it drains");
    let number = moving.number;
    drop(moving);

    let moved = assigned(&mut second).await;
    assert_eq!(moved.number, number);
    assert_eq!(
        moved.committed,
        Some(Committed {
            offset: 7,
            metadata: "drained".into()
        })
    );
    staying
        .commit(10, "still here")
        .await
        .expect("the other partition never stopped");
    assert!(
        !staying.revoked.is_cancelled(),
        "a cooperative move touches only what moves"
    );

    drop(moved);
    in_time("leaving", second.close()).await;
    drop(staying);
    in_time("leaving", first.close()).await;
}

#[tokio::test]
async fn a_late_commit_of_a_former_owner_is_not_sent() {
    let topics = fresh_topics(1).await;
    let mut consumer = Consumer::start(
        &connection(),
        &Config {
            drain: Duration::from_secs(1),
            ..config(&topics)
        },
        &[&topics.ingest],
    )
    .expect("configured");
    let partition = assigned(&mut consumer).await;
    partition.commit(0, "mine").await.expect("committed");
    // The member leaves; the task sleeps through its drain budget and wakes up late.
    in_time("leaving", consumer.close()).await;
    let error = partition
        .commit(0, "too late")
        .await
        .expect_err("not ours any more");
    assert!(matches!(error, CommitError::NotOwned), "{error:?}");
}

#[tokio::test]
async fn a_slow_partition_is_paused_and_loses_nothing() {
    let topics = fresh_topics(1).await;
    let producer = Producer::new(&connection()).expect("configured");
    producer
        .send(&topics.ingest, 0, numbered(0..5000))
        .await
        .expect("delivered");
    let tight = Config {
        batch_records: 10,
        queue_batches: 1,
        ..config(&topics)
    };
    let mut consumer = Consumer::start(&connection(), &tight, &[&topics.ingest]).expect("configured");
    let mut partition = assigned(&mut consumer).await;
    let mut seen = Vec::new();
    while seen.len() < 5000 {
        let batch = in_time("records", partition.records.recv())
            .await
            .expect("the partition is ours");
        assert!(batch.len() <= 10, "a batch is bounded");
        seen.extend(
            batch
                .iter()
                .map(|record| String::from_utf8_lossy(&record.value).into_owned()),
        );
        tokio::task::yield_now().await;
    }
    assert_eq!(seen, texts(0..5000));
    drop(partition);
    in_time("leaving", consumer.close()).await;
}

#[tokio::test]
async fn a_partition_that_was_paused_when_it_was_taken_away_is_read_again_when_it_comes_back() {
    let topics = fresh_topics(2).await;
    let producer = Producer::new(&connection()).expect("configured");
    for partition in 0..2 {
        producer
            .send(&topics.ingest, partition, numbered(0..500))
            .await
            .expect("delivered");
    }
    let tight = Config {
        batch_records: 10,
        queue_batches: 1,
        ..config(&topics)
    };
    let mut first = Consumer::start(&connection(), &tight, &[&topics.ingest]).expect("configured");
    let mut a = assigned(&mut first).await;
    let mut b = assigned(&mut first).await;
    // One batch each shows that both are being read; nobody takes the next ones, so both are paused.
    for partition in [&mut a, &mut b] {
        assert_eq!(read(partition, 10).await, texts(0..10));
    }

    let mut second = Consumer::start(&connection(), &tight, &[&topics.ingest]).expect("configured");
    let moving = in_time("a revocation", async {
        tokio::select! { () = a.revoked.cancelled() => a.number, () = b.revoked.cancelled() => b.number }
    })
    .await;
    let staying = if moving == a.number {
        drop(a);
        b
    } else {
        drop(b);
        a
    };
    let moved = assigned(&mut second).await;
    assert_eq!(moved.number, moving);
    drop(moved);
    in_time("leaving", second.close()).await;

    let mut back = assigned(&mut first).await;
    assert_eq!(back.number, moving);
    assert_eq!(read(&mut back, 500).await, texts(0..500));
    drop((back, staying));
    in_time("leaving", first.close()).await;
}
