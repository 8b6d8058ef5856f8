//! Limits of workspaces and of guests.

use super::*;

fn batch(count: usize, from: &str) -> Value {
    let events: Vec<Value> = (0..count)
        .map(|index| track(&format!("{from}-{index}")))
        .collect();
    json!({ "batch": events })
}

/// A key that pages of `http://localhost` may use.
async fn browser_key(pipeline: &Pipeline) -> String {
    pipeline.key("browser", &["http://localhost"]).await.unwrap()
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
            let seconds = |name| value_of(&answer.headers, name).parse::<u64>().expect(name);
            let (wait, reset) = (seconds("retry-after"), seconds("x-ratelimit-reset"));
            assert!((1..=12).contains(&wait), "{wait}");
            assert!((1..=6).contains(&reset) && reset <= wait, "{reset} {wait}");
        }
    }
    insist(&sender, "/v1/batch", &batch(1, "c")).await;
    // What was refused had left nothing behind: it is an event now, and no copy of one.
    for (count, expected) in [("accepted", 501.0), ("duplicate", 0.0)] {
        let name = format!("millrace_ingest_events_{count}_total");
        let counted = pipeline.metric("ingest", &name, "").await.unwrap();
        assert!((counted - expected).abs() < 0.5, "{count}: {counted}");
    }
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
    // Of a day, which no slow machine gets to the end of; set before the gateway knows the key.
    let set = [
        "workspace",
        "set",
        &pipeline.name,
        "--events-per-day",
        "600",
        "--burst",
        "100000",
    ];
    pipeline.millctl(&set).await.unwrap();
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
    guests(Vec::new()).await;
}

#[tokio::test]
async fn guests_are_limited_without_redis_too() {
    guests(vec![("MILLRACE__REDIS__URL", "redis://127.0.0.1:1".to_owned())]).await;
}

async fn guests(further: Vec<(&'static str, String)>) {
    let mut settings = vec![
        ("MILLRACE__GUESTS__ID__MARK", "1".to_owned()),
        ("MILLRACE__GUESTS__ID__REFUSE", "2".to_owned()),
        ("MILLRACE__GUESTS__FIRST_SEEN__MARK", "3".to_owned()),
        ("MILLRACE__GUESTS__FIRST_SEEN__REFUSE", "3".to_owned()),
    ];
    settings.extend(further);
    let pipeline = start(settings).await;
    let browser = browser_key(&pipeline).await;
    let url = format!("{}/v1/track", pipeline.url("ingest"));
    let headers = [("x-write-key", browser.as_str())];
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
        .keys()
        .map(|id| (id.as_str(), is_marked(the(&events, id))))
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

#[tokio::test]
async fn a_workspace_that_is_given_more_may_send_more_at_once_at_every_gateway() {
    let options = Options {
        services: Some(vec!["ingest"]),
        tier: Some("default"),
        // A gateway that is not told would find out after this time, which no test waits for.
        settings: [("ingest", vec![("MILLRACE__KEYS__TTL", "1h".to_owned())])].into(),
        ..Options::default()
    };
    let mut pipeline = Pipeline::start(options).await.expect("the gateway starts");
    let (mut second, url) = pipeline.another("ingest").expect("a second gateway");
    second
        .ready(&pipeline.client, &format!("{url}/ready"))
        .await
        .expect("the second gateway is ready");
    let urls = [pipeline.url("ingest").to_owned(), url];
    let send = async |url: &str, count: usize, from: &str| {
        let headers = [("x-write-key", pipeline.write_key.as_str())];
        let url = format!("{url}/v1/batch");
        pipeline
            .client
            .post(&url, &headers, batch(count, from).to_string())
            .await
    };
    let answered = async |url: &str, count: usize, from: &str, status: u16| {
        let answered = until("the answer", PATIENCE, || async {
            Ok((send(url, count, from).await?.status == status).then_some(()))
        });
        answered
            .await
            .unwrap_or_else(|error| panic!("{status} from {url}: {error:#}"));
    };
    let set = async |rate: &str, burst: &str| {
        let set = [
            "workspace",
            "set",
            &pipeline.name,
            "--events-per-second",
            rate,
            "--burst",
            burst,
        ];
        assert_eq!(pipeline.millctl(&set).await.unwrap()["told"], true);
    };
    for (url, from) in urls.iter().zip(["a", "b"]) {
        assert_eq!(send(url, 250, from).await.unwrap().status, 200);
    }
    assert_eq!(send(&urls[0], 400, "c").await.unwrap().status, 429);
    set("20000", "100000").await;
    for (url, from) in urls.iter().zip(["d", "e"]) {
        answered(url, 4_000, from, 200).await;
    }
    set("1", "1").await;
    for url in &urls {
        answered(url, 2, "f", 429).await;
    }
}

#[tokio::test]
async fn guests_of_one_network_are_limited_together_and_those_of_another_are_not_harmed() {
    let settings = vec![
        ("MILLRACE__GUESTS__NETWORK__MARK", "2".to_owned()),
        ("MILLRACE__GUESTS__NETWORK__REFUSE", "3".to_owned()),
        ("MILLRACE__HTTP__TRUSTED_PROXIES", "127.0.0.0/8".to_owned()),
    ];
    let pipeline = start(settings).await;
    let browser = browser_key(&pipeline).await;
    let url = format!("{}/v1/track", pipeline.url("ingest"));
    let mut taken = BTreeSet::new();
    // Every request comes from another person; a /24 and a /64 are one network each.
    for (number, (ip, status)) in [
        ("198.51.100.1", 200),
        ("198.51.100.2", 200),
        ("198.51.100.77", 200),
        ("198.51.100.1", 429),
        ("198.51.100.200", 429),
        ("198.51.101.1", 200),
        ("2001:db8:0:1::1", 200),
        ("2001:db8:0:1:ffff::2", 200),
        ("2001:db8:0:1::3", 200),
        ("2001:db8:0:1:1::4", 429),
        ("2001:db8:0:2::1", 200),
    ]
    .into_iter()
    .enumerate()
    {
        let headers = [("x-write-key", browser.as_str()), ("x-forwarded-for", ip)];
        let id = format!("m-{number}");
        let event = json!({ "event": "Sent", "messageId": id, "anonymousId": format!("guest-{number}") });
        let answer = pipeline
            .client
            .post(&url, &headers, event.to_string())
            .await
            .unwrap();
        assert_eq!(answer.status, status, "{number} {ip}: {}", answer.body);
        if status == 200 {
            taken.insert(id);
        }
    }
    let events = all_arrived(&pipeline, &taken).await;
    let marked: Vec<&str> = events
        .keys()
        .map(String::as_str)
        .filter(|id| is_marked(the(&events, id)))
        .collect();
    assert_eq!(marked, ["m-2", "m-8"]);
}
