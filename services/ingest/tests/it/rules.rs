//! Names that were changed, and fields that must be there.

use super::*;

fn event(message_id: &str, properties: &Value) -> Value {
    let mut event = track(message_id);
    event["properties"] = properties.clone();
    event
}

#[tokio::test]
async fn a_changed_name_is_copied_then_moved_and_two_values_are_a_conflict() {
    let pipeline = start(vec![("MILLRACE__KEYS__TTL", "1h".to_owned())]).await;
    let sender = pipeline.sender();
    assert_eq!(
        sender.post("/v1/track", &track("warm")).await.unwrap().status,
        200
    );
    let set = async |mode: &str| {
        let arguments = [
            "alias",
            "set",
            "--workspace",
            &pipeline.name,
            "event_type",
            "action_type",
            "--mode",
            mode,
        ];
        assert_eq!(pipeline.millctl(&arguments).await.unwrap()["told"], true);
    };
    let old = json!({ "event_type": "x" });
    let mut attempts = 0;
    // Told at once, known a moment later: sends until an event comes out as it should.
    let mut becomes = async |expected: Value| {
        loop {
            attempts += 1;
            assert!(attempts < 50, "{expected}");
            let id = format!("m-{attempts}");
            insist(&sender, "/v1/track", &event(&id, &old)).await;
            let events = all_arrived(&pipeline, &BTreeSet::from([id.clone()])).await;
            if stored(the(&events, &id))["properties"] == expected {
                return;
            }
        }
    };
    becomes(old.clone()).await;
    set("both").await;
    becomes(json!({ "event_type": "x", "action_type": "x" })).await;
    set("new").await;
    becomes(json!({ "action_type": "x" })).await;
    let both = json!({ "event_type": "x", "action_type": "y" });
    let answer = sender.post("/v1/track", &event("both", &both)).await.unwrap();
    let said = answer.json().unwrap();
    assert_eq!(
        (answer.status.as_u16(), &said["code"], &said["field"]),
        (400, &json!("alias_conflict"), &json!("action_type"))
    );
}

#[tokio::test]
async fn an_event_without_a_required_field_is_422_and_names_it() {
    let pipeline = start(Vec::new()).await;
    let sender = pipeline.sender();
    let required = pipeline
        .millctl(&["require", "add", "--workspace", &pipeline.name, "brand"])
        .await
        .unwrap();
    assert_eq!(required["told"], true);
    let answer = sender.post("/v1/track", &track("1")).await.unwrap();
    let said = answer.json().unwrap();
    assert_eq!(
        (answer.status.as_u16(), &said["code"], &said["field"]),
        (422, &json!("missing_field"), &json!("brand"))
    );
    let batch = json!({ "batch": [track("2"), event("3", &json!({ "brand": "b" }))] });
    let said = sender.post("/v1/batch", &batch).await.unwrap().json().unwrap();
    assert_eq!(
        (&said["accepted"], &said["rejected"][0]["index"]),
        (&json!(1), &json!(0))
    );
    pipeline
        .millctl(&["require", "drop", "--workspace", &pipeline.name, "brand"])
        .await
        .unwrap();
    insist(&sender, "/v1/track", &track("1")).await;
}
