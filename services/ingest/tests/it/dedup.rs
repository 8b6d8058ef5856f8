//! One event for one message id.

use millrace_service::failpoint;
use millrace_testkit::redis::Server;

use super::*;

/// Waits until the gateway says that it has its connection to Redis, or that it has not.
async fn connected(pipeline: &Pipeline, wanted: bool) {
    let connected = until("what is said of redis", PATIENCE, || async {
        let ready = pipeline
            .client
            .get(&format!("{}/ready", pipeline.url("ingest")))
            .await?
            .json()?;
        Ok((ready["conditions"]["redis"]["ready"] == wanted).then_some(()))
    });
    connected.await.unwrap();
}

#[tokio::test]
async fn copies_are_answered_200_and_accepted_once_also_when_they_come_together() {
    let pipeline = start(Vec::new()).await;
    let mut copies = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let sender = pipeline.sender();
        copies.spawn(async move { sender.post("/v1/track", &track("same")).await });
    }
    while let Some(answer) = copies.join_next().await {
        assert_eq!(answer.unwrap().unwrap().status, 200);
    }
    let answer = pipeline
        .sender()
        .post("/v1/batch", &json!({ "batch": [track("same"), track("other")] }))
        .await
        .unwrap();
    assert_eq!(answer.body, r#"{"success":true}"#);
    let events = all_arrived(
        &pipeline,
        &BTreeSet::from(["same".to_owned(), "other".to_owned()]),
    )
    .await;
    assert_eq!(events.values().map(BTreeMap::len).collect::<Vec<_>>(), [1, 1]);
    let duplicates = pipeline
        .metric("ingest", "millrace_ingest_events_duplicate_total", "")
        .await
        .unwrap();
    assert!((duplicates - 50.0).abs() < 0.5, "{duplicates}");
}

#[tokio::test]
async fn after_kill_9_in_the_middle_a_client_that_repeats_everything_gets_each_event_in_once() {
    let mut pipeline = start(Vec::new()).await;
    for round in 0..3 {
        let ids: Vec<String> = (0..600).map(|n| format!("r{round}-{n}")).collect();
        let mut clients = tokio::task::JoinSet::new();
        for share in ids.chunks(60) {
            let (sender, share) = (pipeline.sender(), share.to_vec());
            clients.spawn(async move {
                let mut answered = 0;
                for id in share {
                    let Ok(answer) = sender.post("/v1/track", &track(&id)).await else {
                        break;
                    };
                    assert_eq!(answer.status, 200);
                    answered += 1;
                }
                answered
            });
        }
        // In the middle: when some were answered and others not.
        let seen = until("some events were accepted", PATIENCE, || async {
            let accepted = pipeline
                .metric("ingest", "millrace_ingest_events_accepted_total", "")
                .await?;
            Ok((accepted > 100.0).then_some(()))
        });
        seen.await.unwrap();
        pipeline.kill_and_restart("ingest").await.unwrap();
        let mut answered = 0;
        while let Some(count) = clients.join_next().await {
            answered += count.unwrap();
        }
        assert!(answered < ids.len(), "the kill came in the middle");
        pipeline.ready("ingest").await.unwrap();
        for share in ids.chunks(100) {
            let batch = json!({ "batch": share.iter().map(|id| track(id)).collect::<Vec<_>>() });
            insist(&pipeline.sender(), "/v1/batch", &batch).await;
        }
        let events = all_arrived(&pipeline, &ids.iter().cloned().collect()).await;
        let twice: Vec<_> = events.iter().filter(|(_, records)| records.len() > 1).collect();
        assert!(
            twice.is_empty(),
            "round {round}: {} events have two identities",
            twice.len()
        );
        assert_eq!(events.len(), 600 * (round + 1));
    }
}

#[tokio::test]
async fn while_redis_is_away_events_are_accepted_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let mut redis = Server::start(directory.path()).await.unwrap();
    let pipeline = start(vec![("MILLRACE__REDIS__URL", redis.url())]).await;
    let sender = pipeline.sender();
    connected(&pipeline, true).await;
    insist(&sender, "/v1/track", &track("before")).await;
    redis.kill().await.unwrap();
    connected(&pipeline, false).await;
    for _ in 0..2 {
        assert_eq!(
            sender.post("/v1/track", &track("while")).await.unwrap().status,
            200
        );
    }
    let unreserved = pipeline
        .metric("ingest", "millrace_ingest_dedup_unreserved_total", "")
        .await
        .unwrap();
    assert!((unreserved - 2.0).abs() < 0.5, "{unreserved}");
    redis.start_again().await.unwrap();
    connected(&pipeline, true).await;
    for _ in 0..2 {
        assert_eq!(
            sender.post("/v1/track", &track("after")).await.unwrap().status,
            200
        );
    }
    let ids = ["before", "while", "after"].map(str::to_owned).into();
    let events = all_arrived(&pipeline, &ids).await;
    let counts: Vec<_> = ["before", "while", "after"]
        .iter()
        .map(|id| events[*id].len())
        .collect();
    assert_eq!(counts, [1, 2, 1]);
}

#[tokio::test]
async fn history_is_remembered_longer_also_under_a_servers_key_at_the_door_for_it() {
    let pipeline = start(vec![
        ("MILLRACE__DEDUP__LIVE", "1s".to_owned()),
        ("MILLRACE__DEDUP__IMPORT", "1h".to_owned()),
    ])
    .await;
    let sender = pipeline.sender();
    let accepted = async || {
        let accepted = pipeline
            .metric("ingest", "millrace_ingest_events_accepted_total", "")
            .await;
        accepted.unwrap()
    };
    let batch = |id: &str| json!({ "batch": [track(id)] });
    assert_eq!(
        sender.post("/v1/import", &batch("old")).await.unwrap().status,
        200
    );
    assert_eq!(sender.post("/v1/batch", &batch("new")).await.unwrap().status, 200);
    let before = accepted().await;
    // The copy of the live one is an event again as soon as its time is over, which is later than the other's.
    let over = until("the end of the live window", PATIENCE, || async {
        sender.post("/v1/batch", &batch("new")).await?;
        Ok((accepted().await > before + 0.5).then_some(()))
    });
    over.await.unwrap();
    for path in ["/v1/import", "/v1/batch"] {
        assert_eq!(sender.post(path, &batch("old")).await.unwrap().status, 200);
    }
    let events = all_arrived(&pipeline, &BTreeSet::from(["old".to_owned(), "new".to_owned()])).await;
    assert_eq!(events["old"].len(), 1, "remembered");
}

#[tokio::test]
async fn what_died_unmarked_is_remembered_for_as_long_as_its_kind_is_also_history_under_a_servers_key() {
    let directory = tempfile::tempdir().unwrap();
    let redis = Server::start(directory.path()).await.unwrap();
    let (live, import) = (Duration::from_secs(24 * 3600), Duration::from_secs(7 * 24 * 3600));
    let settings = vec![
        ("MILLRACE__REDIS__URL", redis.url()),
        ("MILLRACE__DEDUP__LIVE", "24h".to_owned()),
        ("MILLRACE__DEDUP__IMPORT", "7days".to_owned()),
        // A slow machine must not look like a Redis that is away.
        ("MILLRACE__DEDUP__TIMEOUT", "30s".to_owned()),
    ];
    let mut pipeline = start(settings).await;
    let importer = pipeline.sender_as(&pipeline.key("import", &[]).await.unwrap());
    let mut known = BTreeSet::new();
    for (sender, path, id, window) in [
        (pipeline.sender(), "/v1/import", "history", import),
        (pipeline.sender(), "/v1/batch", "live", live),
        (importer, "/v1/batch", "imported", import),
    ] {
        // It dies between the journal and the mark.
        pipeline.process("ingest").kill().await.unwrap();
        let process = pipeline.process("ingest");
        process.set(failpoint::VARIABLE, Some("ingest::before_mark=return(kill)"));
        process.start_again().unwrap();
        pipeline.ready("ingest").await.unwrap();
        connected(&pipeline, true).await;
        // Whether the answer gets out before the end is chance.
        drop(sender.post(path, &json!({ "batch": [track(id)] })).await);
        let process = pipeline.process("ingest");
        process.end(PATIENCE).await.unwrap();
        assert!(
            redis.lifetimes("*dedup:*", "d").await.unwrap().keys().eq(&known),
            "{id} is not marked"
        );
        process.set(failpoint::VARIABLE, None);
        process.start_again().unwrap();
        let settled = until("the id is settled", PATIENCE, || async {
            let mut done = redis.lifetimes("*dedup:*", "d").await?;
            done.retain(|key, _| !known.contains(key));
            Ok(done.pop_first())
        });
        let (key, left) = settled.await.unwrap();
        let before = if window == import { live } else { Duration::ZERO };
        assert!(left > before && left <= window, "{id} is remembered for {left:?}");
        known.insert(key);
    }
    pipeline.ready("ingest").await.unwrap();
    let events = all_arrived(
        &pipeline,
        &["history", "live", "imported"].map(str::to_owned).into(),
    )
    .await;
    assert!(events.values().all(|records| records.len() == 1));
    let marks = |id: &str| {
        let record = the(&events, id);
        let marks = Ingest::read(&record.value).unwrap().marks;
        marks
            .iter()
            .map(|mark| mark.as_str().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (marks("history"), marks("live")),
        (vec!["import".to_owned()], Vec::new())
    );
}
