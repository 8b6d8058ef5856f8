//! What was answered 200 arrives.

use millrace_service::failpoint;
use millrace_testkit::broker::Broker;

use super::shipping::{Log, read_log};
use super::*;

#[tokio::test]
async fn with_kafka_stopped_and_the_gateway_killed_everything_answered_arrives_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut kafka = Broker::start(directory.path()).await.unwrap();
    let settings = vec![("MILLRACE__SHIP__REQUEST_TIMEOUT", "2s".to_owned())];
    let mut pipeline = start_on(Some(kafka.address()), settings).await;
    let mut sent = BTreeSet::new();
    let mut send = async |pipeline: &Pipeline, from: usize| {
        for n in from..from + 200 {
            let id = format!("m-{n}");
            let answer = pipeline.sender().post("/v1/track", &track(&id)).await.unwrap();
            assert_eq!(answer.status, 200, "{}", answer.body);
            sent.insert(id);
        }
    };
    send(&pipeline, 0).await;
    kafka.kill().await.unwrap();
    send(&pipeline, 1000).await;
    pipeline.kill_and_restart("ingest").await.unwrap();
    pipeline.ready("ingest").await.unwrap();
    send(&pipeline, 2000).await;
    pipeline.kill_and_restart("ingest").await.unwrap();
    pipeline.ready("ingest").await.unwrap();
    kafka.start_again().await.unwrap();
    send(&pipeline, 3000).await;
    let events = all_arrived(&pipeline, &sent).await;
    assert_eq!(events.len(), sent.len());
    assert!(
        events.values().all(|records| records.len() == 1),
        "one identity for each event"
    );

    // Numbers are dense: what is missing would have been lost.
    let mut next: BTreeMap<u32, BTreeSet<u64>> = BTreeMap::new();
    for id in events.values().flat_map(BTreeMap::keys) {
        let identity: millrace_event::Identity = id.parse().unwrap();
        next.entry(identity.partition).or_default().insert(identity.seq);
    }
    for (partition, seqs) in next {
        let length = u64::try_from(seqs.len()).unwrap();
        assert_eq!(seqs.last(), Some(&(length - 1)), "partition {partition}");
    }
}

#[tokio::test]
async fn a_full_journal_is_answered_429_until_kafka_takes_some_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut kafka = Broker::start(directory.path()).await.unwrap();
    let settings = vec![
        ("MILLRACE__JOURNAL__SEGMENT", "64KiB".to_owned()),
        ("MILLRACE__JOURNAL__LIMIT", "256KiB".to_owned()),
        ("MILLRACE__JOURNAL__RETAIN", "0s".to_owned()),
        ("MILLRACE__SHIP__REQUEST_TIMEOUT", "2s".to_owned()),
    ];
    let pipeline = start_on(Some(kafka.address()), settings).await;
    kafka.kill().await.unwrap();
    let event = |n: usize| json!({ "type": "track", "messageId": format!("m-{n}"), "p": "x".repeat(5000) });
    let mut sent = BTreeSet::new();
    let refused = loop {
        let answer = pipeline
            .sender()
            .post("/v1/track", &event(sent.len()))
            .await
            .unwrap();
        if answer.status != 200 {
            break answer;
        }
        sent.insert(format!("m-{}", sent.len()));
        assert!(sent.len() < 100, "the journal has a limit");
    };
    assert_eq!(
        (refused.status.as_u16(), &refused.json().unwrap()["code"]),
        (429, &json!("journal_full"))
    );
    assert!(
        refused.headers["retry-after"]
            .to_str()
            .unwrap()
            .parse::<u32>()
            .is_ok_and(|seconds| seconds > 0)
    );
    let ready = pipeline
        .client
        .get(&format!("{}/ready", pipeline.url("ingest")))
        .await
        .unwrap();
    assert_eq!(
        ready.status, 200,
        "an unready process would hide the 429: {}",
        ready.body
    );

    kafka.start_again().await.unwrap();
    insist(&pipeline.sender(), "/v1/track", &event(sent.len())).await;
    sent.insert(format!("m-{}", sent.len()));
    let events = all_arrived(&pipeline, &sent).await;
    assert!(events.values().all(|records| records.len() == 1));
}

#[tokio::test]
async fn on_a_full_disk_it_is_429_and_what_was_answered_before_and_after_arrives() {
    // The room is taken away in the middle of a file that has it, so a record is cut as well.
    let settings = vec![
        ("MILLRACE__JOURNAL__SYNC", "always".to_owned()),
        ("MILLRACE__JOURNAL__SEGMENT", "1MiB".to_owned()),
        ("MILLRACE__JOURNAL__LIMIT", "64MiB".to_owned()),
        ("MILLRACE__DEDUP__TIMEOUT", "30s".to_owned()),
    ];
    let mut pipeline = start(settings).await;
    let sender = pipeline.sender();
    let event = |n: usize| json!({ "type": "track", "messageId": format!("m-{n}"), "p": "x".repeat(10_000) });
    let mut sent = BTreeSet::new();
    let mut refused = BTreeSet::new();
    for round in 0..3 {
        for number in 30 * round..30 * (round + 1) {
            insist(&sender, "/v1/track", &event(number)).await;
            sent.insert(format!("m-{number}"));
        }
        let journal = pipeline.directory().join("journal").display().to_string();
        let found = pipeline.millctl(&["journal", "inspect", &journal]).await.unwrap();
        let written = found["segments"].as_array().unwrap().last().unwrap()["bytes"]
            .as_u64()
            .unwrap();
        let process = pipeline.process("ingest");
        process.limit_files(Some(written + 15_000)).unwrap();
        let mut answers = Vec::new();
        for number in 0..10 {
            let id = format!("full-{round}-{number}");
            let mut large = event(0);
            large["messageId"] = id.as_str().into();
            let answer = sender.post("/v1/track", &large).await.unwrap();
            match answer.status.as_u16() {
                200 => sent.insert(id.clone()),
                _ => refused.insert(id.clone()),
            };
            answers.push((answer.status.as_u16(), answer.json().unwrap()["code"].clone()));
        }
        assert_eq!(answers[9], (429, json!("journal_full")), "{round}: {answers:?}");
        pipeline.process("ingest").limit_files(None).unwrap();
    }
    assert!(refused.len() >= 20, "{refused:?}");
    for id in &refused {
        insist(&sender, "/v1/track", &track(id)).await;
        sent.insert(id.clone());
    }
    read_log(&pipeline, &sent).await.is_each_event_once(&sent);
}

#[tokio::test]
async fn sigterm_under_load_ships_everything_that_was_answered_and_ends_with_0() {
    let mut pipeline = start(Vec::new()).await;
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..8 {
        let sender = pipeline.sender();
        clients.spawn(async move {
            let mut answered = Vec::new();
            for n in 0.. {
                let id = format!("c{client}-{n}");
                match sender.post("/v1/track", &track(&id)).await {
                    Ok(answer) if answer.status == 200 => answered.push(id),
                    Ok(answer) => assert_eq!(answer.status, 503, "{}", answer.body),
                    Err(_) => break,
                }
            }
            answered
        });
    }
    let begun = until("some events were accepted", PATIENCE, || async {
        let accepted = pipeline
            .metric("ingest", "millrace_ingest_events_accepted_total", "")
            .await?;
        Ok((accepted > 300.0).then_some(()))
    });
    begun.await.unwrap();
    let status = pipeline.process("ingest").terminate(PATIENCE).await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", pipeline.tails());
    let mut answered = BTreeSet::new();
    while let Some(ids) = clients.join_next().await {
        answered.extend(ids.unwrap());
    }
    assert!(answered.len() > 300);
    let events = arrived(&pipeline).await;
    let missing: Vec<_> = answered.iter().filter(|id| !events.contains_key(*id)).collect();
    assert!(
        missing.is_empty(),
        "{} of {} answered events are not in the topic",
        missing.len(),
        answered.len()
    );
}

#[tokio::test]
async fn a_request_that_began_before_sigterm_is_answered_closes_its_connection_and_is_shipped() {
    let mut pipeline = start(Vec::new()).await;
    let address = pipeline.url("ingest").strip_prefix("http://").unwrap().to_owned();
    let body = track("begun").to_string();
    let (first, rest) = body.split_at(10);
    let head = format!(
        "POST /v1/track HTTP/1.1\r\nhost: x\r\nx-write-key: {}\r\ncontent-length: {}\r\n\r\n{first}",
        pipeline.write_key,
        body.len()
    );
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    pipeline
        .counted("ingest", "millrace_ingest_requests_open", "", 1.0, PATIENCE)
        .await
        .unwrap();
    pipeline
        .process("ingest")
        .signal(rustix::process::Signal::TERM)
        .unwrap();
    let closed = until("no connection is taken any more", PATIENCE, || async {
        Ok(tokio::net::TcpStream::connect(&address)
            .await
            .is_err()
            .then_some(()))
    });
    closed.await.unwrap();
    stream.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(
        answer.to_ascii_lowercase().contains("connection: close\r\n"),
        "{answer}"
    );
    let status = pipeline.process("ingest").end(PATIENCE).await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", pipeline.tails());
    assert!(arrived(&pipeline).await.contains_key("begun"));
}

#[tokio::test]
async fn sigterm_with_kafka_away_ends_with_0_in_time_and_leaves_the_rest_to_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let mut kafka = Broker::start(directory.path()).await.unwrap();
    let settings = vec![
        ("MILLRACE__SHUTDOWN__DEADLINE", "4s".to_owned()),
        ("MILLRACE__SHIP__REQUEST_TIMEOUT", "2s".to_owned()),
    ];
    let mut pipeline = start_on(Some(kafka.address()), settings).await;
    kafka.kill().await.unwrap();
    insist(&pipeline.sender(), "/v1/track", &track("kept")).await;
    let status = pipeline.process("ingest").terminate(PATIENCE).await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", pipeline.tails());
    kafka.start_again().await.unwrap();
    pipeline.process("ingest").start_again().unwrap();
    pipeline.ready("ingest").await.unwrap();
    let events = all_arrived(&pipeline, &BTreeSet::from(["kept".to_owned()])).await;
    assert_eq!(events["kept"].len(), 1);
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_taken_until_a_new_start_finds_all_that_was_answered() {
    let settings = vec![
        ("MILLRACE__JOURNAL__SYNC", "always".to_owned()),
        // A slow machine must not look like a Redis that is away, nor a copy be held for long.
        ("MILLRACE__DEDUP__TIMEOUT", "30s".to_owned()),
        ("MILLRACE__DEDUP__WAIT", "50ms".to_owned()),
    ];
    let mut pipeline = start(settings).await;
    let process = pipeline.process("ingest");
    process.kill().await.unwrap();
    // One sync fails; those behind it would succeed, and prove nothing.
    process.set(
        failpoint::VARIABLE,
        Some("ingest::in_sync=20*off->1*return(error)"),
    );
    process.start_again().unwrap();
    pipeline.ready("ingest").await.unwrap();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..4 {
        let sender = pipeline.sender();
        clients.spawn(async move {
            let mut answered = Vec::new();
            for n in 0.. {
                let id = format!("c{client}-{n}");
                let answer = sender.post("/v1/track", &track(&id)).await.unwrap();
                if answer.status != 200 {
                    assert_eq!(answer.status, 429, "{}", answer.body);
                    assert_eq!(answer.json().unwrap()["code"], "journal_full");
                    return (answered, id);
                }
                answered.push(id);
            }
            unreachable!("the sync fails")
        });
    }
    let (mut sent, mut refused) = (BTreeSet::new(), Vec::new());
    while let Some(ended) = clients.join_next().await {
        let (answered, last) = ended.unwrap();
        sent.extend(answered);
        refused.push(last);
    }
    for n in 0..10 {
        let id = format!("late-{n}");
        let answer = pipeline.sender().post("/v1/track", &track(&id)).await.unwrap();
        assert_eq!(answer.status, 429, "{}", answer.body);
        refused.push(id);
    }
    let unready = until("the process says that it takes nothing", PATIENCE, || async {
        let url = format!("{}/ready", pipeline.url("ingest"));
        let answer = pipeline.client.get(&url).await?;
        Ok((answer.status == 503 && answer.body.contains("a sync failed")).then_some(()))
    });
    unready.await.unwrap();
    all_arrived(&pipeline, &sent).await;
    assert_eq!(
        Log::read(&pipeline)
            .await
            .missing(&refused.iter().cloned().collect())
            .len(),
        refused.len(),
        "what may not be on disk is not shipped"
    );

    let process = pipeline.process("ingest");
    process.kill().await.unwrap();
    process.set(failpoint::VARIABLE, None);
    process.start_again().unwrap();
    pipeline.ready("ingest").await.unwrap();
    for id in refused {
        insist(&pipeline.sender(), "/v1/track", &track(&id)).await;
        sent.insert(id);
    }
    read_log(&pipeline, &sent).await.is_each_event_once(&sent);
}
