//! `journal.accept = "kafka"`: an answer of 200 says that Kafka has the event.

use millrace_testkit::broker::Broker;
use millrace_testkit::proxy::{Fault, PRODUCE, Protocol, Proxy, kafka_request, mentions};

use super::*;

fn settings(timeout: &str) -> Vec<(&'static str, String)> {
    [
        ("MILLRACE__JOURNAL__ACCEPT", "kafka"),
        ("MILLRACE__JOURNAL__ACCEPT_TIMEOUT", timeout),
        ("MILLRACE__JOURNAL__ACCEPT_BACKLOG", "3"),
        ("MILLRACE__SHIP__REQUEST_TIMEOUT", "1s"),
        ("MILLRACE__DEDUP__WAIT", "50ms"),
        ("MILLRACE__DEDUP__TIMEOUT", "30s"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .to_vec()
}

async fn records(pipeline: &Pipeline) -> f64 {
    pipeline
        .metric("ingest", "millrace_ingest_journal_records", "")
        .await
        .unwrap()
}

#[tokio::test]
async fn an_answer_waits_until_kafka_has_the_event() {
    let directory = tempfile::tempdir().unwrap();
    let proxy = Proxy::listen(Protocol::Kafka).await.unwrap();
    let kafka = Broker::start_behind(directory.path(), &proxy).await.unwrap();
    let pipeline = start_on(Some(kafka.address()), settings("10m")).await;
    insist(&pipeline.sender(), "/v1/track", &track("first")).await;
    assert_eq!(
        arrived(&pipeline).await.keys().collect::<Vec<_>>(),
        ["first"],
        "it is there when the answer is"
    );

    let (produce, ours) = (kafka_request(PRODUCE), mentions(&pipeline.topic("ingest")));
    proxy.arm(Fault::Stall, u32::MAX, move |frame| produce(frame) && ours(frame));
    let sender = pipeline.sender();
    let waiting = tokio::spawn(async move { sender.post("/v1/track", &track("held")).await });
    let journaled = until("the event is in the journal and on its way", PATIENCE, || async {
        Ok((proxy.hits() > 0 && records(&pipeline).await > 0.5).then_some(()))
    });
    journaled.await.unwrap();
    assert!(!waiting.is_finished(), "kafka does not have it");
    proxy.calm();
    assert_eq!(waiting.await.unwrap().unwrap().status, 200);
    assert!(arrived(&pipeline).await.contains_key("held"));
}

#[tokio::test]
async fn while_kafka_is_away_it_is_429_and_a_repeat_is_answered_200_once_kafka_has_the_one_event() {
    let directory = tempfile::tempdir().unwrap();
    let mut kafka = Broker::start(directory.path()).await.unwrap();
    let mut pipeline = start_on(Some(kafka.address()), settings("100ms")).await;
    kafka.kill().await.unwrap();
    for id in ["a", "b", "c"] {
        let answer = pipeline.sender().post("/v1/track", &track(id)).await.unwrap();
        let code = answer.json().unwrap()["code"].clone();
        assert_eq!((answer.status.as_u16(), code), (429, json!("unacknowledged")));
        assert!(answer.headers.contains_key("retry-after"));
    }
    for id in ["a", "d", "e"] {
        let answer = pipeline.sender().post("/v1/track", &track(id)).await.unwrap();
        assert_eq!(answer.status, 429, "{}", answer.body);
    }
    let counted = until("three records wait", PATIENCE, || async {
        Ok((records(&pipeline).await > 2.5).then_some(()))
    });
    counted.await.unwrap();
    assert!(
        records(&pipeline).await < 3.5,
        "beyond the backlog nothing is kept"
    );

    // What an earlier process kept is answered 200 when Kafka has it, not when it is found in the journal.
    pipeline.kill_and_restart("ingest").await.unwrap();
    pipeline.ready("ingest").await.unwrap();
    let answer = pipeline.sender().post("/v1/track", &track("b")).await.unwrap();
    assert_eq!(answer.status, 429, "{}", answer.body);

    kafka.start_again().await.unwrap();
    let mut sent = BTreeSet::new();
    for id in ["a", "b", "c", "d"] {
        insist(&pipeline.sender(), "/v1/track", &track(id)).await;
        sent.insert(id.to_owned());
        assert!(
            arrived(&pipeline).await.contains_key(id),
            "{id} is there when the answer is"
        );
    }
    let events = all_arrived(&pipeline, &sent).await;
    assert_eq!(events.len(), 4, "{:?}", events.keys());
    assert!(events.values().all(|records| records.len() == 1));
}
