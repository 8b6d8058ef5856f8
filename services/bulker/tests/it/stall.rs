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
    let green = async || {
        let ready = until("the bulker is ready", PATIENCE, || async {
            Ok((ready().await?.status == 200).then_some(()))
        });
        ready.await.expect("it is");
    };
    green().await;

    proxy.set_up(false);
    bench.send(0, bench.events(0, 10, 10)).await;
    let why = ["progress", "partition 0 is 10 records behind", "ClickHouse"];
    let red = until("the bulker is not ready and says why", PATIENCE, || async {
        let answer = ready().await?;
        let said = why.iter().all(|part| answer.body.contains(part));
        Ok((answer.status == 503 && said).then_some(()))
    });
    red.await.expect("it says so");
    let stalled = "millrace_bulker_stalled_partitions";
    let stalled = bench.pipeline.counted("bulker", stalled, "", 1.0, PATIENCE).await;
    assert_eq!(stalled.expect("counted"), 1.0);

    proxy.set_up(true);
    bench.pipeline.rows(20, PATIENCE).await.expect("they arrive");
    green().await;
    assert_eq!(bench.not_once(1, 20).await, [0_u8; 0]);
}
