//! Who is let in, and what is answered.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use millrace_event::KeyKind;
use millrace_event::partition;

use super::*;

fn basic(credential: &str) -> String {
    format!("Basic {}", STANDARD.encode(credential))
}

#[tokio::test]
async fn every_form_of_write_key_is_taken_and_a_wrong_one_is_answered_401() {
    let pipeline = start(Vec::new()).await;
    let (client, url) = (&pipeline.client, format!("{}/v1/track", pipeline.url("ingest")));
    let key = pipeline.write_key.as_str();
    let id = key.split(':').next().unwrap();
    let body = |key: Option<&str>| {
        let mut body = json!({ "event": "Sent", "userId": "u" });
        if let Some(key) = key {
            body["writeKey"] = key.into();
        }
        body.to_string()
    };
    let escaped = format!("{url}?x=1&writeKey={}", key.replace(':', "%3A"));
    let unknown = format!("{url}?writeKey=wk_unknown%3Asecret");
    let wrong = basic(&format!("{id}:{}", "x".repeat(43)));
    for (url, headers, body, status) in [
        (&url, vec![("authorization", basic(key))], body(None), 200),
        (
            &url,
            vec![("authorization", basic(&format!("{key}:")))],
            body(None),
            200,
        ),
        (&url, vec![("x-write-key", key.to_owned())], body(None), 200),
        (&escaped, vec![], body(None), 200),
        (&url, vec![], body(Some(key)), 200),
        (
            &url,
            vec![("authorization", "Bearer token".to_owned())],
            body(Some(key)),
            200,
        ),
        (&url, vec![], body(None), 401),
        (&url, vec![("authorization", basic(id))], body(None), 401),
        (
            &url,
            vec![("authorization", basic("wk_unknown:secret"))],
            body(None),
            401,
        ),
        // What a header says cannot be mended by what stands behind it, nor a query by the body.
        (&url, vec![("authorization", wrong.clone())], body(Some(key)), 401),
        (&escaped, vec![("authorization", wrong)], body(None), 401),
        (
            &escaped,
            vec![("x-write-key", "wk_unknown:secret".to_owned())],
            body(None),
            401,
        ),
        (&unknown, vec![], body(Some(key)), 401),
        (&escaped, vec![], body(Some("wk_unknown:***")), 200),
        (
            &url,
            vec![("x-write-key", key.to_owned())],
            body(Some("wk_unknown:***")),
            200,
        ),
    ] {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let answer = client.post(url, &headers, body).await.unwrap();
        assert_eq!(answer.status, status, "{url} {headers:?}: {}", answer.body);
        let json = answer.json().unwrap();
        assert_eq!(json["success"], status == 200);
        if status != 200 {
            assert_eq!(json["code"], "invalid_write_key");
            assert!(
                json["message"].is_string() && json["request_id"].is_string(),
                "{json}"
            );
        }
    }
    let origin = "https://shop.example";
    let browser = pipeline.key("browser", &[origin]).await.unwrap();
    let id = browser.split(':').next().unwrap();
    let answer = client
        .post(&url, &[("authorization", &basic(&format!("{id}:")))], body(None))
        .await
        .unwrap();
    assert_eq!(
        answer.status, 200,
        "the id alone opens for a browser: {}",
        answer.body
    );
}

#[tokio::test]
async fn an_event_arrives_as_it_was_sent_in_the_partition_of_its_key_with_its_trace() {
    let pipeline = start(Vec::new()).await;
    let url = format!("{}/v1/batch", pipeline.url("ingest"));
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let event = r#"{"type":"identify","messageId":"m-1","anonymousId":"ann","traits":{"n":1.50,"big":12345678901234567890,"s":"\ud800"}}"#;
    let sent_at = millrace_event::Timestamp::clamped_from_millis(jiff::Timestamp::now().as_millisecond());
    let body = format!(r#"{{"sentAt":"{sent_at}","batch":[{event}]}}"#);
    let (authorization, agent) = (basic(&pipeline.write_key), "test/1");
    let headers = [
        ("authorization", authorization.as_str()),
        ("traceparent", parent),
        ("user-agent", agent),
    ];
    let answer = pipeline.client.post(&url, &headers, body).await.unwrap();
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (StatusCode::OK, r#"{"success":true}"#)
    );
    assert_eq!(answer.headers["content-type"], "application/json");

    let events = all_arrived(&pipeline, &BTreeSet::from(["m-1".to_owned()])).await;
    let (id, record) = events["m-1"].iter().next().unwrap();
    let envelope = Ingest::read(&record.value).unwrap();
    assert_eq!(envelope.event.get(), event);
    assert_eq!(envelope.workspace.as_str(), pipeline.workspace);
    assert_eq!(envelope.key_kind, KeyKind::Server);
    assert_eq!(
        pipeline.write_key.split(':').next(),
        Some(envelope.key_id.as_str())
    );
    assert_eq!(envelope.sent_at, Some(sent_at));
    assert_eq!(envelope.ip.unwrap().as_str(), "127.0.0.1");
    assert_eq!(
        serde_json::to_value(&envelope.headers).unwrap(),
        json!({ "user-agent": agent })
    );
    assert_eq!(record.key.as_deref(), Some(&b"ann"[..]));
    let identity: millrace_event::Identity = id.parse().unwrap();
    assert_eq!(identity.partition, partition::of_key(b"ann", 3));
    assert_eq!(record.headers.text(header::TRACEPARENT), Some(parent));
    assert!(!String::from_utf8_lossy(&record.value).contains(&pipeline.write_key));
}

#[tokio::test]
async fn each_event_of_a_batch_is_judged_alone() {
    let pipeline = start(Vec::new()).await;
    let large = "x".repeat(100_000);
    let batch = json!({ "batch": [
        track("good"), 7, { "messageId": "typeless" }, { "type": "track", "messageId": "large", "p": large },
        { "type": "explode", "messageId": "odd" }, track("good"),
    ]});
    let answer = pipeline.sender().post("/v1/batch", &batch).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    let json = answer.json().unwrap();
    assert_eq!(
        (&json["success"], &json["accepted"], &json["duplicates"]),
        (&json!(true), &json!(1), &json!(1))
    );
    let rejected: Vec<_> = json["rejected"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| {
            (
                fault["index"].as_u64().unwrap(),
                fault["message_id"].as_str(),
                fault["code"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        rejected,
        [
            (1, None, "invalid_event"),
            (2, Some("typeless"), "missing_field"),
            (3, Some("large"), "event_too_large"),
            (4, Some("odd"), "invalid_event"),
        ]
    );
    let events = all_arrived(&pipeline, &BTreeSet::from(["good".to_owned()])).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events["good"].len(), 1);
}

#[tokio::test]
async fn each_fault_of_a_request_has_its_status_and_code() {
    let settings = vec![
        ("MILLRACE__HTTP__BODY_LIMIT", "256KiB".to_owned()),
        ("MILLRACE__HTTP__BODY_TIMEOUT", "300ms".to_owned()),
        ("MILLRACE__EVENTS__BATCH", "3".to_owned()),
    ];
    let pipeline = start(settings).await;
    let (client, url, authorization) = (
        &pipeline.client,
        pipeline.url("ingest"),
        basic(&pipeline.write_key),
    );
    let four = json!({ "batch": [track("1"), track("2"), track("3"), track("4")] }).to_string();
    for (method, path, body, status, code) in [
        (Method::POST, "/v1/track", "{".to_owned(), 400, "invalid_json"),
        (Method::POST, "/v1/track", "[]".to_owned(), 400, "invalid_json"),
        (
            Method::POST,
            "/v1/batch",
            "{\"batch\":{}}".to_owned(),
            400,
            "invalid_json",
        ),
        (Method::POST, "/v1/batch", four, 413, "too_many_events"),
        (
            Method::POST,
            "/v1/track",
            format!("{{\"p\":\"{}\"}}", "x".repeat(150_000)),
            413,
            "event_too_large",
        ),
        (
            Method::POST,
            "/v1/track",
            format!("{{\"p\":\"{}\"}}", "x".repeat(300_000)),
            413,
            "body_too_large",
        ),
        (Method::POST, "/v1/nothing", "{}".to_owned(), 404, "not_found"),
        (Method::GET, "/v1/track", String::new(), 405, "method_not_allowed"),
    ] {
        let url = format!("{url}{path}");
        let answer = client
            .send(method, &url, &[("authorization", &authorization)], body)
            .await
            .unwrap();
        assert_eq!(answer.status, status, "{path} {code}: {}", answer.body);
        assert_eq!(answer.json().unwrap()["code"], code);
        if status == 405 {
            assert_eq!(answer.headers["allow"], "POST, OPTIONS");
        }
    }
    assert!(arrived(&pipeline).await.is_empty(), "nothing refused is kept");
}

#[tokio::test]
async fn every_route_takes_events_and_the_public_port_serves_the_admin_routes() {
    let pipeline = start(Vec::new()).await;
    let sender = pipeline.sender();
    let mut sent = BTreeSet::new();
    for kind in ["track", "identify", "page", "group", "screen", "alias"] {
        for path in [format!("/v1/{kind}"), format!("/{kind}"), format!("//v1/{kind}/")] {
            let id = format!("{path} {kind}");
            let answer = sender
                .post(&path, &json!({ "messageId": id, "userId": "u" }))
                .await
                .unwrap();
            assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.body);
            sent.insert(id);
        }
    }
    let answer = sender.post("/batch", &json!({ "batch": [] })).await.unwrap();
    assert_eq!(answer.body, r#"{"success":true}"#);
    for (message_id, records) in all_arrived(&pipeline, &sent).await {
        let event = stored(records.values().next().unwrap());
        assert_eq!(
            event["type"].as_str(),
            message_id.rsplit(' ').next(),
            "{message_id}"
        );
    }
    let get = async |path: &str| {
        pipeline
            .client
            .get(&format!("{}{path}", pipeline.url("ingest")))
            .await
    };
    let ready = get("/ready").await.unwrap();
    assert_eq!(ready.json().unwrap()["conditions"]["journal"]["ready"], true);
    assert_eq!(get("/health").await.unwrap().status, StatusCode::OK);
    assert_eq!(
        get("/version").await.unwrap().json().unwrap()["name"],
        "millrace-ingest"
    );
    let accepted = pipeline
        .metric("ingest", "millrace_ingest_events_accepted_total", "")
        .await
        .unwrap();
    assert!((accepted - 18.0).abs() < 0.5, "{accepted}");
}
