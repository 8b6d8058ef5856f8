//! The watchdog.

use millrace_testkit::proxy::Proxy;
use millrace_testkit::stack::{self, address};
use millrace_testkit::wait::until;

use super::{Bench, PATIENCE};

#[tokio::test]
async fn a_partition_that_stands_still_with_records_left_turns_ready_red_and_says_why_until_it_moves_again() {
    let clickhouse = address(stack::CLICKHOUSE).expect("named");
    let (proxy, url) = Proxy::through(&clickhouse, 8123).await.expect("a proxy");
    let settings = vec![
        ("MILLRACE__CLICKHOUSE__URL", url),
        ("MILLRACE__CHUNK__TIME", "50ms".into()),
        ("MILLRACE__STALL__AFTER", "2s".into()),
        ("MILLRACE__INSERT__LONGEST_PAUSE", "500ms".into()),
    ];
    let bench = Bench::start(settings).await;
    bench.send(0, bench.events(0, 0, 10)).await;
    bench.pipeline.rows(10, PATIENCE).await.expect("they arrive");
    let ready = || async {
        let url = format!("{}/ready", bench.pipeline.url("bulker"));
        bench.pipeline.client.get(&url).await
    };
    assert_eq!(ready().await.expect("answered").status, 200);

    proxy.set_up(false);
    bench.send(0, bench.events(0, 10, 10)).await;
    let red = until("the bulker is not ready", PATIENCE, || async {
        let answer = ready().await?;
        Ok(Some(answer.body).filter(|_| answer.status == 503))
    });
    let body = red.await.expect("it says so");
    for part in ["progress", "partition 0 is 10 records behind", "ClickHouse"] {
        assert!(body.contains(part), "{part} is not in {body}");
    }
    let stalled = bench
        .pipeline
        .metric("bulker", "millrace_bulker_stalled_partitions", "")
        .await;
    assert_eq!(stalled.expect("there"), 1.0);

    proxy.set_up(true);
    bench.pipeline.rows(20, PATIENCE).await.expect("they arrive");
    let green = until("the bulker is ready", PATIENCE, || async {
        Ok((ready().await?.status == 200).then_some(()))
    });
    green.await.expect("it recovers");
    assert_eq!(bench.not_once(1, 20).await, [0_u8; 0]);
}
