//! A late insert: its owner was stopped between its last look and the block, and goes on when somebody else owns the
//! partition and the table has forgotten the token.

use millrace_testkit::wait::until;
use rustix::process::Signal;

use super::{Bench, PATIENCE};

#[tokio::test]
async fn an_owner_that_was_stopped_between_its_last_look_and_its_insert_writes_nothing_when_it_goes_on() {
    let settings = vec![
        ("MILLRACE__CHUNK__TIME", "50ms".into()),
        ("MILLRACE__CONSUMER__SESSION_TIMEOUT", "6s".into()),
        ("MILLRACE__INSERT__LATEST_ARRIVAL", "3s".into()),
    ];
    let mut bench = Bench::start(settings).await;
    bench.send(0, bench.events(0, 0, 10)).await;
    bench.pipeline.rows(10, PATIENCE).await.expect("they arrive");
    let owner = bench.pipeline.process("bulker");
    owner.terminate(PATIENCE).await.expect("it ends");
    owner.arm(Some("bulker::insert_checked=1*return(pause:12000)"));
    owner.start_again().expect("started");
    bench.pipeline.ready("bulker").await.expect("ready");
    bench.send(0, bench.events(0, 10, 10)).await;
    let bulker = bench.pipeline.process("bulker");
    let inside = until("the owner is about to insert", PATIENCE, || async {
        Ok((bulker.hits("bulker::insert_checked") == 1).then_some(()))
    });
    inside.await.expect("it comes there");
    bulker.signal(Signal::STOP).expect("stopped");
    bulker.arm(None);

    let (successor, _) = bench.pipeline.another("bulker").expect("started");
    bench
        .pipeline
        .rows(20, PATIENCE)
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", successor.tail()));
    // The table forgets: from here on only the fence stands between the late block and a second copy.
    let table = bench.pipeline.table.clone();
    let forget = format!("ALTER TABLE {table} MODIFY SETTING non_replicated_deduplication_window = 1");
    bench.pipeline.execute(&forget).await.expect("altered");
    bench.send(0, bench.events(0, 20, 10)).await;
    bench
        .pipeline
        .rows(30, PATIENCE)
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", successor.tail()));

    bench
        .pipeline
        .process("bulker")
        .signal(Signal::CONT)
        .expect("continued");
    let tried = until("the late insert is refused", PATIENCE, || async {
        let metric = |kind| {
            bench
                .pipeline
                .metric("bulker", "millrace_bulker_inserts_total", kind)
        };
        Ok((metric("").await? >= 1.0).then_some(metric("applied").await?))
    });
    let applied = tried.await.expect("it is tried");
    assert_eq!(bench.pipeline.count().await.expect("answered"), 30);
    assert_eq!(bench.not_once(1, 30).await, [0_u8; 0]);
    assert!(applied < 0.5, "the late insert was taken");
    drop(successor);
}
