//! Who is let in, and how fast a change of that is known.

use super::*;

async fn key(pipeline: &Pipeline, kind: &str, more: &[&str]) -> String {
    let arguments = [
        &["key", "create", "--workspace", &pipeline.name, "--kind", kind],
        more,
    ]
    .concat();
    pipeline.millctl(&arguments).await.unwrap()["key"]
        .as_str()
        .unwrap()
        .to_owned()
}

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
async fn a_revoked_key_is_refused_long_before_its_time_in_the_caches_is_up() {
    let pipeline = start(vec![("MILLRACE__KEYS__TTL", "1h".to_owned())]).await;
    let event = json!({ "event": "Sent", "userId": "u" });
    let revoked = key(&pipeline, "server", &[]).await;
    let headers = [("x-write-key", revoked.as_str())];
    assert_eq!(answer_to(&pipeline, &headers, &event).await.0, 200);

    let id = revoked.split(':').next().unwrap();
    let said = pipeline.millctl(&["key", "revoke", id]).await.unwrap();
    assert_eq!(said["told"], true);
    let refused = until("401", PATIENCE, || async {
        let (status, code) = answer_to(&pipeline, &headers, &event).await;
        Ok((status == 401).then_some(code))
    });
    assert_eq!(refused.await.unwrap(), "invalid_write_key");
    let other = [("x-write-key", pipeline.write_key.as_str())];
    assert_eq!(answer_to(&pipeline, &other, &event).await.0, 200, "no other key");
}

#[tokio::test]
async fn a_browser_key_is_used_from_its_origins_only() {
    let pipeline = start(Vec::new()).await;
    let event = json!({ "event": "Sent", "userId": "u" });
    let origins = ["--origin", "https://shop.example", "--origin", "http://localhost"];
    let browser = key(&pipeline, "browser", &origins).await;
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
