//! Clocks of clients.

use millrace_event::Timestamp;

use super::*;

const DAY: i64 = 24 * 60 * 60 * 1000;

fn ago(millis: i64) -> String {
    let now = jiff::Timestamp::now().as_millisecond();
    Timestamp::clamped_from_millis(now - millis).to_string()
}

#[tokio::test]
async fn a_late_event_is_refused_with_422_unless_it_is_an_import() {
    let pipeline = start(Vec::new()).await;
    let mut late = track("late");
    late["sentAt"] = ago(DAY + 60_000).into();
    let answer = pipeline.sender().post("/v1/track", &late).await.unwrap();
    let json = answer.json().unwrap();
    assert_eq!(answer.status, 422);
    assert_eq!(
        (&json["code"], &json["field"]),
        (&json!("late_event"), &json!("sentAt"))
    );
    let batch = json!({ "batch": [track("fresh"), late.clone()] });
    let answer = pipeline.sender().post("/v1/batch", &batch).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json().unwrap()["rejected"][0]["code"], "late_event");

    let import = pipeline.key("import", &[]).await.unwrap();
    let url = format!("{}/v1/track", pipeline.url("ingest"));
    late["timestamp"] = ago(400 * DAY).into();
    let headers = [("x-write-key", import.as_str())];
    let answer = pipeline
        .client
        .post(&url, &headers, late.to_string())
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.body);

    let events = all_arrived(
        &pipeline,
        &BTreeSet::from(["fresh".to_owned(), "late".to_owned()]),
    )
    .await;
    assert_eq!(
        stored(the(&events, "late")),
        late,
        "times of an import are as they are meant"
    );
}

#[tokio::test]
async fn history_is_taken_at_its_own_door_from_servers_and_not_from_browsers() {
    let pipeline = start(Vec::new()).await;
    let browser = pipeline.key("browser", &["http://localhost"]).await.unwrap();
    let url = format!("{}/v1/import", pipeline.url("ingest"));
    for (key, id, accepted) in [(&pipeline.write_key, "server", 1), (&browser, "browser", 0)] {
        let mut old = track(id);
        old["timestamp"] = ago(400 * DAY).into();
        let batch = json!({ "sentAt": ago(300 * DAY), "batch": [old, { "messageId": "typeless" }] });
        let headers = [("x-write-key", key.as_str())];
        let answer = pipeline
            .client
            .post(&url, &headers, batch.to_string())
            .await
            .unwrap();
        let said = answer.json().unwrap();
        assert_eq!(
            (answer.status.as_u16(), &said["accepted"]),
            (200, &json!(accepted))
        );
        let is_late = said["rejected"][0]["code"] == "late_event";
        assert_eq!(is_late, accepted == 0, "{id}: {said}");
    }
    let events = all_arrived(&pipeline, &BTreeSet::from(["server".to_owned()])).await;
    assert_eq!(events.len(), 1);
}

#[tokio::test]
async fn a_clock_that_is_an_hour_ahead_is_corrected_and_what_it_said_is_kept() {
    let pipeline = start(Vec::new()).await;
    let (sent, happened) = (ago(-60 * 60_000), ago(-58 * 60_000));
    let mut event = track("ahead");
    event["sentAt"] = sent.clone().into();
    event["timestamp"] = happened.clone().into();
    assert_eq!(
        pipeline.sender().post("/v1/track", &event).await.unwrap().status,
        200
    );
    let events = all_arrived(&pipeline, &BTreeSet::from(["ahead".to_owned()])).await;
    let record = the(&events, "ahead");
    let envelope = Ingest::read(&record.value).unwrap();
    let stored = stored(record);
    let corrected: Timestamp = stored["timestamp"].as_str().unwrap().parse().unwrap();
    let (sent, happened): (Timestamp, Timestamp) = (sent.parse().unwrap(), happened.parse().unwrap());
    assert_eq!(
        envelope.received_at.millis_since(corrected),
        sent.millis_since(happened),
        "as long before it was received as before it was sent"
    );
    assert_eq!(stored["originalTimestamp"], event["timestamp"]);
    assert_eq!(stored["sentAt"], event["sentAt"]);
    assert_eq!(
        envelope
            .marks
            .iter()
            .map(|mark| mark.as_str())
            .collect::<Vec<_>>(),
        ["clock_skew"]
    );
}
