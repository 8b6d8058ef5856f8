use millrace_kafka::Connection;
use millrace_kafka::group::{Config, Consumer, Event};
use millrace_testkit::wait::until;

use super::{Bench, PATIENCE};

fn small_chunks() -> Vec<(&'static str, String)> {
    vec![
        ("MILLRACE__CHUNK__ROWS", "50".into()),
        ("MILLRACE__CHUNK__TIME", "50ms".into()),
        ("MILLRACE__CONSUMER__SESSION_TIMEOUT", "6s".into()),
        ("MILLRACE__INSERT__LATEST_ARRIVAL", "1s".into()),
    ]
}

#[tokio::test]
async fn a_bulker_that_is_killed_again_and_again_stores_every_row_once() {
    let mut bench = Bench::start(small_chunks()).await;
    for round in 0..5 {
        for partition in 0..3 {
            bench
                .send(partition, bench.events(partition, round * 400, 400))
                .await;
        }
        // Somewhere in the middle of the round: more than before, not yet all.
        bench
            .pipeline
            .rows(round * 1200 + 100, PATIENCE)
            .await
            .expect("rows arrive");
        bench
            .pipeline
            .kill_and_restart("bulker")
            .await
            .expect("killed and started");
    }
    bench.pipeline.rows(6000, 2 * PATIENCE).await.expect("all arrive");
    assert_eq!(bench.not_once(3, 2000).await, [0_u8; 0]);
    let recoveries = bench
        .pipeline
        .metric("bulker", "millrace_bulker_recoveries_total", "")
        .await
        .expect("there");
    println!("plans finished after the last kill: {recoveries}");
}

#[tokio::test]
async fn a_bulker_that_is_told_to_end_drains_and_exits_with_zero_and_its_successor_goes_on() {
    let mut bench = Bench::start(small_chunks()).await;
    bench.send(0, bench.events(0, 0, 1000)).await;
    bench.pipeline.rows(1, PATIENCE).await.expect("it has begun");
    let status = bench
        .pipeline
        .process("bulker")
        .terminate(PATIENCE)
        .await
        .expect("it ends");
    assert_eq!(status.code(), Some(0));
    bench.pipeline.process("bulker").start_again().expect("started");
    bench.pipeline.ready("bulker").await.expect("ready");
    bench.pipeline.rows(1000, PATIENCE).await.expect("all arrive");
    assert_eq!(bench.not_once(1, 1000).await, [0_u8; 0]);
}

#[tokio::test]
async fn a_partition_whose_commit_is_not_understood_stops_and_says_so() {
    let mut bench = Bench::start(small_chunks()).await;
    bench.send(0, bench.events(0, 0, 10)).await;
    bench.pipeline.rows(10, PATIENCE).await.expect("they arrive");
    bench
        .pipeline
        .process("bulker")
        .terminate(PATIENCE)
        .await
        .expect("it ends");
    somebody_commits(&bench).await;
    bench.pipeline.process("bulker").start_again().expect("started");
    let url = format!("{}/ready", bench.pipeline.url("bulker"));
    let answer = until("the bulker is not ready", PATIENCE, || async {
        let answer = bench.pipeline.client.get(&url).await?;
        Ok(Some(answer.body).filter(|body| body.contains("stopped")))
    });
    let body = answer.await.expect("it says so");
    assert!(
        body.contains("not written by this version of the bulker"),
        "{body}"
    );
}

/// An operator resets the group's offsets with a tool that knows nothing of plans.
async fn somebody_commits(bench: &Bench) {
    let connection = Connection::new(bench.pipeline.kafka(), "operator");
    let config = Config {
        group: bench.pipeline.group("bulker"),
        ..Config::default()
    };
    let mut operator =
        Consumer::start(&connection, &config, &[&bench.pipeline.topic("transformed")]).expect("configured");
    for _ in 0..3 {
        let assigned = tokio::time::timeout(PATIENCE, operator.next())
            .await
            .expect("in time");
        let Some(Event::Assigned(partition)) = assigned else {
            panic!("no assignment: {assigned:?}")
        };
        partition.commit(0, "").await.expect("committed");
    }
    operator.close().await;
}
