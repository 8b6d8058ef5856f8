//! Limits of workspaces and of guests.

use super::*;

fn batch(count: usize, from: &str) -> Value {
    let events: Vec<Value> = (0..count)
        .map(|index| track(&format!("{from}-{index}")))
        .collect();
    json!({ "batch": events })
}

#[tokio::test]
async fn a_default_workspace_may_send_500_events_in_5_seconds_and_is_told_when_it_may_again() {
    let options = Options {
        services: Some(vec!["ingest"]),
        tier: Some("default"),
        ..Options::default()
    };
    let pipeline = Pipeline::start(options).await.expect("the gateway starts");
    let sender = pipeline.sender();
    for (count, from, status) in [(300, "a", 200), (200, "b", 200), (1, "c", 429)] {
        let answer = sender.post("/v1/batch", &batch(count, from)).await.unwrap();
        assert_eq!(answer.status, status, "{from}: {}", answer.body);
        if status == 429 {
            assert_eq!(answer.json().unwrap()["code"], "rate_limited");
            let seconds: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((1..=12).contains(&seconds), "{seconds}");
        }
    }
    insist(&sender, "/v1/batch", &batch(1, "c")).await;
}

#[tokio::test]
async fn without_redis_the_gateway_limits_alone_and_counts_it() {
    let options = Options {
        services: Some(vec!["ingest"]),
        tier: Some("default"),
        settings: [(
            "ingest",
            vec![("MILLRACE__REDIS__URL", "redis://127.0.0.1:1".to_owned())],
        )]
        .into(),
        ..Options::default()
    };
    let pipeline = Pipeline::start(options).await.expect("the gateway starts");
    let sender = pipeline.sender();
    let answer = sender.post("/v1/batch", &batch(500, "a")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);
    let answer = sender.post("/v1/batch", &batch(400, "b")).await.unwrap();
    assert_eq!(answer.status, 429, "{}", answer.body);
    let counted = pipeline
        .metric("ingest", "millrace_ingest_limits_away_total", "")
        .await;
    assert!((counted.unwrap() - 2.0).abs() < 0.5);
}

#[tokio::test]
async fn a_guest_is_marked_and_then_refused_and_a_new_name_does_not_help() {
    let settings = vec![
        ("MILLRACE__GUESTS__ID__MARK", "1".to_owned()),
        ("MILLRACE__GUESTS__ID__REFUSE", "2".to_owned()),
        ("MILLRACE__GUESTS__FIRST_SEEN__MARK", "3".to_owned()),
        ("MILLRACE__GUESTS__FIRST_SEEN__REFUSE", "3".to_owned()),
    ];
    let pipeline = start(settings).await;
    let browser = [
        "key",
        "create",
        "--workspace",
        &pipeline.name,
        "--kind",
        "browser",
        "--origin",
        "http://localhost",
    ];
    let browser = pipeline.millctl(&browser).await.unwrap();
    let url = format!("{}/v1/track", pipeline.url("ingest"));
    let headers = [("x-write-key", browser["key"].as_str().unwrap())];
    let mut marked = BTreeMap::new();
    for (number, (guest, status)) in [
        ("ann", 200),
        ("ann", 200),
        ("ann", 429),
        ("bob", 200),
        ("cid", 200),
        ("dan", 429),
        ("bob", 200),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("m-{number}");
        let event = json!({ "event": "Sent", "messageId": id, "anonymousId": guest });
        let answer = pipeline
            .client
            .post(&url, &headers, event.to_string())
            .await
            .unwrap();
        assert_eq!(answer.status, status, "{number} {guest}: {}", answer.body);
        if status == 200 {
            marked.insert(id, guest);
        }
    }
    let events = all_arrived(&pipeline, &marked.keys().cloned().collect()).await;
    let marks: Vec<(&str, bool)> = events
        .iter()
        .map(|(id, records)| {
            let record = records.values().next().unwrap();
            let marks = Ingest::read(&record.value).unwrap().marks;
            (
                id.as_str(),
                marks.iter().any(|mark| mark.as_str() == "guest_rate"),
            )
        })
        .collect();
    assert_eq!(
        marks,
        [
            ("m-0", false),
            ("m-1", true),
            ("m-3", false),
            ("m-4", false),
            ("m-6", true)
        ]
    );
    // A server's key is no guest's.
    for number in 0..5 {
        let mut event = track(&format!("s-{number}"));
        event["anonymousId"] = "ann".into();
        assert_eq!(
            pipeline.sender().post("/v1/track", &event).await.unwrap().status,
            200
        );
    }
}
