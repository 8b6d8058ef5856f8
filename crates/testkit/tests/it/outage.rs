use std::sync::Arc;

use millrace_testkit::broker::Broker;
use millrace_testkit::oracle::{FUNCTION, Oracle};
use millrace_testkit::pipeline::{Options, Pipeline};

use crate::{PATIENCE, load, say};

#[tokio::test]
async fn kafka_stopped_and_ingest_killed_while_it_is_away_every_answered_event_arrives_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut broker = Broker::start(directory.path())
        .await
        .expect("a broker of its own");
    let options = Options {
        kafka: Some(broker.address()),
        ..Options::default()
    };
    let mut pipeline = Pipeline::start(options).await.expect("the pipeline starts");
    pipeline
        .put_function("stamp", FUNCTION)
        .await
        .expect("the function is taken");
    let (sender, oracle) = (pipeline.sender(), Arc::new(Oracle::default()));
    let tails = |pipeline: &Pipeline| pipeline.tails();

    load::send(&sender, &oracle, 0..500)
        .await
        .expect("acknowledged with the broker there");
    broker.kill().await.expect("killed");
    load::send(&sender, &oracle, 500..1500)
        .await
        .expect("acknowledged with the broker away");
    pipeline
        .kill_and_restart("ingest")
        .await
        .expect("killed and started");
    pipeline
        .ready("ingest")
        .await
        .expect("it is ready without the broker");
    load::send(&sender, &oracle, 1500..2500)
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", tails(&pipeline)));
    broker.start_again().await.expect("the broker is back");

    pipeline.rows(2500, PATIENCE).await.expect("all arrive");
    let report = oracle.check(&pipeline).await.expect("the table answers");
    say(&format!(
        "2500 events through an outage: {} sent again, {} right",
        report.sent_again, report.right
    ));
    assert!(report.is_clean(), "{report:?}\n{}", pipeline.tails());
    assert_eq!(report.right, 2500);
}
