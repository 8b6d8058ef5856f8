//! Who is let in, and how fast a change of that is known.

use super::*;

/// Status and code of the answer to one event.
async fn answer_to(pipeline: &Pipeline, headers: &[(&str, &str)], body: &Value) -> (u16, Value) {
    let url = format!("{}/v1/track", pipeline.url("ingest"));
    let answer = pipeline
        .client
        .post(&url, headers, body.to_string())
        .await
        .unwrap();
    (answer.status.as_u16(), answer.json().unwrap()["code"].clone())
}

#[tokio::test]
async fn a_revoked_key_is_refused_by_every_gateway_long_before_its_time_in_the_caches_is_up() {
    let mut pipeline = start(vec![("MILLRACE__KEYS__TTL", "1h".to_owned())]).await;
    let (mut second, url) = pipeline.another("ingest").expect("a second gateway");
    second
        .ready(&pipeline.client, &format!("{url}/ready"))
        .await
        .expect("the second gateway is ready");
    let revoked = pipeline.key("server", &[]).await.unwrap();
    let gateways = [
        pipeline.sender_as(&revoked),
        pipeline.sender_as(&revoked).at(&url),
    ];
    for gateway in &gateways {
        insist(gateway, "/v1/track", &track("before")).await;
    }
    let id = revoked.split(':').next().unwrap();
    let said = pipeline.millctl(&["key", "revoke", id]).await.unwrap();
    assert_eq!(said["told"], true);
    for gateway in &gateways {
        assert_eq!(refused(gateway).await, "invalid_write_key");
    }
    let other = pipeline.sender().at(&url);
    insist(&other, "/v1/track", &track("no other key")).await;
}

#[tokio::test]
async fn a_gateway_that_cannot_be_told_believes_a_revoked_key_for_its_time_and_no_longer() {
    let pipeline = start(vec![
        ("MILLRACE__REDIS__URL", "redis://127.0.0.1:1".to_owned()),
        ("MILLRACE__KEYS__TTL", "500ms".to_owned()),
    ])
    .await;
    let revoked = pipeline.key("server", &[]).await.unwrap();
    let gateway = pipeline.sender_as(&revoked);
    insist(&gateway, "/v1/track", &track("before")).await;
    let id = revoked.split(':').next().unwrap();
    pipeline.millctl(&["key", "revoke", id]).await.unwrap();
    assert_eq!(refused(&gateway).await, "invalid_write_key");
}

/// The code with which an event is refused, once it is.
async fn refused(gateway: &Sender) -> Value {
    let refused = until("401", PATIENCE, || async {
        let answer = gateway.post("/v1/track", &track("after")).await?;
        Ok((answer.status == 401).then_some(answer))
    });
    refused.await.unwrap().json().unwrap()["code"].clone()
}

#[tokio::test]
async fn a_browser_key_is_used_from_its_origins_only() {
    let pipeline = start(Vec::new()).await;
    let event = json!({ "event": "Sent", "userId": "u" });
    let origins = ["https://shop.example", "http://localhost"];
    let browser = pipeline.key("browser", &origins).await.unwrap();
    for (origin, status) in [
        ("https://shop.example", 200),
        ("http://localhost:3000", 200),
        ("https://shop.example:8443", 403),
        ("https://shop.example.evil.example", 403),
        ("null", 403),
    ] {
        let headers = [("x-write-key", browser.as_str()), ("origin", origin)];
        let (answered, code) = answer_to(&pipeline, &headers, &event).await;
        assert_eq!(answered, status, "{origin}");
        if status == 403 {
            assert_eq!(code, "origin_not_allowed");
        }
        // A server has no origin, so its key asks for none.
        let headers = [("x-write-key", pipeline.write_key.as_str()), ("origin", origin)];
        assert_eq!(answer_to(&pipeline, &headers, &event).await.0, 200);
    }
}
