//! What is written down about requests: usage events and logs.

use http::StatusCode;

use super::*;

async fn usage(pipeline: &Pipeline) -> Vec<(Option<String>, Value)> {
    let connection = Connection::new(pipeline.kafka(), "test");
    let partitions = reader::gather(&connection, &format!("{}.usage.requests.v1", pipeline.name))
        .await
        .expect("the topic can be read");
    let read = |record: Record| {
        let key = record.key.map(|key| String::from_utf8(key.into()).unwrap());
        (key, serde_json::from_slice(&record.value).unwrap())
    };
    partitions.into_values().flatten().map(read).collect()
}

#[tokio::test]
async fn every_request_is_accounted_for() {
    let pipeline = start(vec![("MILLRACE__USAGE__INTERVAL", "50ms".to_owned())]).await;
    let sender = pipeline.sender();
    let url = pipeline.url("ingest");
    let mut wanted = Vec::new();
    let answers = [
        (
            "/v1/track",
            "/v1/track",
            sender.post("/v1/track", &track("1")).await,
        ),
        (
            "//v1/batch/",
            "/v1/batch",
            sender.post("//v1/batch/", &json!({ "batch": [7] })).await,
        ),
        (
            "/v1/track",
            "/v1/track",
            sender.post("/v1/track", &json!(7)).await,
        ),
        (
            "/nowhere",
            "/*",
            pipeline.client.get(&format!("{url}/nowhere")).await,
        ),
        (
            "settings",
            "/v1/projects/{key}/settings",
            pipeline
                .client
                .get(&format!("{url}/v1/projects/wk_a/settings"))
                .await,
        ),
    ];
    for (path, endpoint, answer) in answers {
        let answer = answer.unwrap();
        let id = answer.headers["x-request-id"].to_str().unwrap().to_owned();
        wanted.push((id, endpoint, answer.status.as_u16(), path));
    }
    let all = until("all usage events", PATIENCE, || async {
        let events = usage(&pipeline).await;
        Ok((events.len() >= wanted.len()).then_some(events))
    });
    let all = all.await.unwrap();
    assert_eq!(all.len(), wanted.len(), "probes of the process are no requests");
    for (id, endpoint, status, path) in wanted {
        let (key, event) = all
            .iter()
            .find(|(_, event)| event["request_id"] == id.as_str())
            .unwrap();
        assert_eq!(
            (&event["endpoint"], &event["status_code"]),
            (&json!(endpoint), &json!(status)),
            "{path}"
        );
        assert_eq!(event["billable"], true);
        assert!(event["response_time_ms"].as_f64().is_some_and(|time| time >= 0.0));
        let known = status == 200 && endpoint != "/v1/projects/{key}/settings";
        assert_eq!(key.is_some(), known, "{path}");
        assert_eq!(
            event.get("organization_id").and_then(Value::as_str),
            key.as_deref()
        );
        let key_id = pipeline.write_key.split(':').next().filter(|_| known);
        assert_eq!(event.get("api_key_id").and_then(Value::as_str), key_id, "{path}");
    }
    // They can be read before their acknowledgement is.
    let sent = pipeline
        .counted("ingest", "millrace_ingest_usage_sent_total", "", 5.0, PATIENCE)
        .await
        .unwrap();
    assert!((sent - 5.0).abs() < 0.5, "{sent}");
}

#[tokio::test]
async fn usage_events_that_wait_are_sent_on_the_way_out() {
    let mut pipeline = start(vec![("MILLRACE__USAGE__INTERVAL", "10m".to_owned())]).await;
    let answer = pipeline.sender().post("/v1/track", &track("1")).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert!(usage(&pipeline).await.is_empty());
    let status = pipeline.process("ingest").terminate(PATIENCE).await.unwrap();
    assert!(status.success(), "{status}\n{}", pipeline.tails());
    assert_eq!(usage(&pipeline).await.len(), 1);
}

#[tokio::test]
async fn requests_are_logged_without_payloads_and_refusals_with_them_only_when_asked_and_redacted() {
    for on in [false, true] {
        let settings = vec![
            (
                "MILLRACE__TELEMETRY__LOG_LEVEL",
                "info,millrace_ingest::access=debug".to_owned(),
            ),
            ("MILLRACE__HTTP__LOG_PAYLOAD_ON_ERROR", on.to_string()),
        ];
        let mut pipeline = start(settings).await;
        let secret = pipeline.write_key.split(':').nth(1).unwrap().to_owned();
        let sender = pipeline.sender();
        let good = json!({ "type": "track", "messageId": "good", "event": "Unremarkable", "writeKey": pipeline.write_key });
        let batch = json!({ "batch": [good, { "messageId": "bad", "plan": "visible", "traits": { "email": "a@b.example" } }] });
        let answer = sender.post("/v1/batch", &batch).await.unwrap();
        assert_eq!(answer.json().unwrap()["rejected"][0]["index"], 1);
        let bad = json!({ "type": "nonsense", "note": "alone", "Api-Key": "k-123", "writeKey": pipeline.write_key });
        assert_eq!(
            sender.post("/v1/track", &bad).await.unwrap().status,
            StatusCode::BAD_REQUEST
        );
        let lost = format!(
            "{}/v2/{}/x?writeKey={}",
            pipeline.url("ingest"),
            pipeline.write_key,
            pipeline.write_key
        );
        assert_eq!(
            pipeline.client.get(&lost).await.unwrap().status,
            StatusCode::NOT_FOUND
        );

        let workspace = pipeline.workspace.clone();
        let process = pipeline.process("ingest");
        process.terminate(PATIENCE).await.unwrap();
        let log = std::fs::read_to_string(process.log()).unwrap();
        let line = |text: &str| log.lines().find(|line| line.contains(text)).unwrap_or_default();
        let taken = line("events taken");
        for field in [
            workspace.as_str(),
            "source_id",
            "good",
            "track",
            "duration_ms",
            "status",
            "request_id",
        ] {
            assert!(taken.contains(field), "{field} is missing in {taken}");
        }
        assert!(line("event rejected").contains("missing_field"));
        for (payload, when) in [
            ("visible", on),
            ("alone", on),
            ("Unremarkable", false),
            ("a@b.example", false),
            ("k-123", false),
        ] {
            assert_eq!(log.contains(payload), when, "{payload}, payloads {on}");
        }
        assert!(!log.contains(&secret), "{log}");
        assert!(line("not_found").contains("[masked]"));
    }
}
