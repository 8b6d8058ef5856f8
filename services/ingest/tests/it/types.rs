//! Types of fields: the first who may say so fixes them, and nobody after.

use super::*;

fn buy(message_id: &str, properties: Value) -> Value {
    let mut event = track(message_id);
    event["properties"] = properties;
    event
}

/// The records of the dead-letter topic, by message id, once there are `count`.
async fn dead_letters(pipeline: &Pipeline, count: usize) -> BTreeMap<String, Record> {
    let (connection, topic) = (Connection::new(pipeline.kafka(), "test"), pipeline.topic("dlq"));
    let found = until("dead letters", PATIENCE, || async {
        let records: BTreeMap<String, Record> = reader::gather(&connection, &topic)
            .await?
            .into_values()
            .flatten()
            .map(|record| {
                let message_id = Ingest::read(&record.value).expect("an envelope").message_id;
                (message_id.as_str().to_owned(), record)
            })
            .collect();
        Ok((records.len() >= count).then_some(records))
    });
    found.await.expect("as many")
}

#[tokio::test]
async fn the_first_type_of_a_field_wins_and_a_conflict_is_400_with_a_copy_in_the_dead_letters() {
    let pipeline = start(Vec::new()).await;
    let sender = pipeline.sender();
    let first = buy(
        "first",
        json!({ "cart": { "total": 10 }, "note": "x", "at": "2026-11-21T04:00:00Z" }),
    );
    assert_eq!(sender.post("/v1/track", &first).await.unwrap().status, 200);
    let same = buy(
        "same",
        json!({ "cart": { "total": 10.5 }, "note": "2026-11-21T04:00:00Z", "at": null }),
    );
    assert_eq!(sender.post("/v1/track", &same).await.unwrap().status, 200);

    let wrong = buy("wrong", json!({ "cartTotal": "10" }));
    let answer = sender.post("/v1/track", &wrong).await.unwrap();
    let said = answer.json().unwrap();
    assert_eq!(answer.status, 400);
    assert_eq!(
        (&said["code"], &said["field"]),
        (&json!("type_conflict"), &json!("cart_total"))
    );

    let batch = json!({ "batch": [
        buy("good", json!({ "fresh": true })),
        buy("late", json!({ "fresh": [1] })),
        buy("bad", json!({ "at": "soon" })),
    ]});
    let answer = sender.post("/v1/batch", &batch).await.unwrap();
    let said = answer.json().unwrap();
    assert_eq!(
        (answer.status.as_u16(), &said["accepted"]),
        (200, &json!(1)),
        "{said}"
    );
    let rejected: Vec<_> = said["rejected"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| {
            (
                fault["index"].as_u64().unwrap(),
                fault["code"].as_str().unwrap(),
                fault["field"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        rejected,
        [(1, "type_conflict", "fresh"), (2, "type_conflict", "at")]
    );

    let letters = dead_letters(&pipeline, 3).await;
    assert_eq!(letters.keys().collect::<Vec<_>>(), ["bad", "late", "wrong"]);
    let letter = &letters["wrong"];
    for (name, value) in [
        (header::STAGE, "ingest"),
        (header::ERROR_CODE, "type_conflict"),
        (header::ERROR_FIELD, "cart_total"),
        (header::WORKSPACE, pipeline.workspace.as_str()),
    ] {
        assert_eq!(letter.headers.text(name), Some(value), "{name}");
    }
    let accepted = ["first", "same", "good"].map(str::to_owned).into();
    let events = all_arrived(&pipeline, &accepted).await;
    assert_eq!(events.len(), 3, "nothing refused is among the accepted");
    let id = |record: &Record| {
        let id: millrace_event::Identity = record.headers.text(header::ID).unwrap().parse().unwrap();
        id.journal
    };
    assert_ne!(
        id(letter),
        id(events["first"].values().next().unwrap()),
        "a journal id of its own"
    );

    // The id of a refused event is free for the event as it should be.
    let mended = buy("wrong", json!({ "cartTotal": 11 }));
    assert_eq!(sender.post("/v1/track", &mended).await.unwrap().status, 200);
    all_arrived(&pipeline, &BTreeSet::from(["wrong".to_owned()])).await;
}

#[tokio::test]
async fn a_field_is_retyped_and_dropped_from_the_command_line() {
    let pipeline = start(vec![("MILLRACE__FIELDS__TTL", "1h".to_owned())]).await;
    let sender = pipeline.sender();
    assert_eq!(
        sender
            .post("/v1/track", &buy("1", json!({ "a": 1 })))
            .await
            .unwrap()
            .status,
        200
    );
    assert_eq!(
        sender
            .post("/v1/track", &buy("2", json!({ "a": "x" })))
            .await
            .unwrap()
            .status,
        400
    );
    let fields = async |arguments: &[&str]| {
        let all = [
            &["fields", arguments[0], "--workspace", &pipeline.name],
            &arguments[1..],
        ]
        .concat();
        pipeline.millctl(&all).await.unwrap()
    };
    let listed = fields(&["list"]).await;
    assert_eq!(
        (&listed["fields"][0]["name"], &listed["fields"][0]["type"]),
        (&json!("a"), &json!("number"))
    );
    assert_eq!(fields(&["retype", "a", "string"]).await["told"], true);
    insist(&sender, "/v1/track", &buy("2", json!({ "a": "x" }))).await;
    assert_eq!(
        sender
            .post("/v1/track", &buy("3", json!({ "a": 1 })))
            .await
            .unwrap()
            .status,
        400
    );
    fields(&["drop", "a"]).await;
    insist(&sender, "/v1/track", &buy("3", json!({ "a": true }))).await;
}

#[tokio::test]
async fn strangers_fix_a_type_only_when_three_of_them_agree() {
    let pipeline = start(Vec::new()).await;
    let browser = pipeline.key("browser", &["http://localhost"]).await.unwrap();
    let url = format!("{}/v1/track", pipeline.url("ingest"));
    let headers = [("x-write-key", browser.as_str())];
    // Both keys are known before anything is expected of types.
    insist(&pipeline.sender(), "/v1/track", &track("warm")).await;
    let warm = json!({ "event": "Sent", "anonymousId": "warm" }).to_string();
    let answered = until("an answer of 200", PATIENCE, || async {
        let answer = pipeline.client.post(&url, &headers, warm.clone()).await?;
        Ok((answer.status == 200).then_some(()))
    });
    answered.await.expect("answered");
    let mut number = 0;
    let mut send = async |guest: &str, properties: Value| {
        number += 1;
        let event = json!({
            "event": "Sent", "messageId": format!("m-{number}"), "anonymousId": guest, "properties": properties,
        });
        let answer = pipeline
            .client
            .post(&url, &headers, event.to_string())
            .await
            .unwrap();
        (answer.status.as_u16(), answer.json().unwrap()["code"].clone())
    };
    // A stranger who poisons a field, again and again, fixes nothing; a server does.
    for _ in 0..4 {
        assert_eq!(send("mallory", json!({ "price": "free" })).await.0, 200);
    }
    let sender = pipeline.sender();
    assert_eq!(
        sender
            .post("/v1/track", &buy("s", json!({ "price": 1 })))
            .await
            .unwrap()
            .status,
        200
    );
    assert_eq!(
        send("mallory", json!({ "price": "free" })).await,
        (400, json!("type_conflict"))
    );

    for (guest, colour) in [
        ("ann", json!("red")),
        ("mallory", json!(7)),
        ("bob", json!("red")),
        ("cid", json!("red")),
    ] {
        assert_eq!(send(guest, json!({ "colour": colour })).await.0, 200, "{guest}");
    }
    assert_eq!(
        send("dan", json!({ "colour": 7 })).await,
        (400, json!("type_conflict"))
    );
    assert_eq!(
        send("dan", json!({ "_seq": 7 })).await,
        (400, json!("reserved_field"))
    );
}

#[tokio::test]
async fn beyond_the_cap_a_new_field_is_refused_and_known_ones_go_on() {
    let pipeline = start(vec![("MILLRACE__FIELDS__LIMIT", "2".to_owned())]).await;
    let sender = pipeline.sender();
    insist(&sender, "/v1/track", &buy("1", json!({ "a": 1, "b": 2 }))).await;
    let answer = sender
        .post("/v1/track", &buy("2", json!({ "a": 1, "c": 2 })))
        .await
        .unwrap();
    let said = answer.json().unwrap();
    assert_eq!(
        (&said["code"], &said["field"]),
        (&json!("too_many_fields"), &json!("c"))
    );
    assert_eq!(
        sender
            .post("/v1/track", &buy("3", json!({ "b": 3 })))
            .await
            .unwrap()
            .status,
        200
    );
}
