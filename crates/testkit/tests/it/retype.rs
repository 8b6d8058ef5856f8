use std::sync::atomic::{AtomicBool, Ordering};

use millrace_testkit::pipeline::{Options, Pipeline};
use serde_json::json;

use crate::PATIENCE;

#[tokio::test]
async fn a_field_moves_to_another_type_under_the_running_pipeline_and_no_event_is_lost_or_set_aside() {
    let pipeline = Pipeline::start(Options::default())
        .await
        .expect("the pipeline starts");
    pipeline
        .put_function("pass", "export default function (event) { return event; }")
        .await
        .expect("taken");
    let sender = pipeline.sender();
    let mut sent = 0_u32;
    let post = async |number: u32, price: serde_json::Value| {
        let event = json!({
            "type": "track", "userId": "u", "event": "Bought", "messageId": format!("m{number}"),
            "properties": {"price": price, "number": number},
        });
        sender.post("/v1/track", &event).await.expect("answered").status
    };
    for _ in 0..20 {
        assert_eq!(post(sent, json!(format!("{sent}.5"))).await, 200);
        sent += 1;
    }
    pipeline
        .rows(sent.into(), PATIENCE)
        .await
        .expect("the first ones are text");

    // Events go on as text until the gateway takes no more of it, long after the column has changed its name: whatever
    // is between both then is of the old type.
    let moved = AtomicBool::new(false);
    let retype = [
        "fields",
        "retype",
        "--workspace",
        &pipeline.name,
        "price",
        "number",
    ];
    let moving = async {
        let told = pipeline.millctl(&retype).await.expect("moved");
        moved.store(true, Ordering::SeqCst);
        told
    };
    let sending = async {
        let mut numbers = 0;
        while numbers < 20 {
            // Once the gateway knows, it takes numbers alone and says so of the rest.
            if post(sent, json!(format!("{sent}.5"))).await == 200 {
                sent += 1;
            } else if post(sent, json!(f64::from(sent) + 0.5)).await == 200 {
                sent += 1;
                numbers += u32::from(moved.load(Ordering::SeqCst));
            }
        }
        sent
    };
    let (told, sent) = tokio::join!(moving, sending);
    assert_eq!(told["columns"][0]["kept"], "_price_string");
    let rows = pipeline.rows(sent.into(), PATIENCE).await;
    rows.unwrap_or_else(|error| panic!("{error:#}\n{}", pipeline.tails()));
    let conflicts = ["dlq", "stats", "--code", "column_conflict"];
    let stats = pipeline.millctl(&conflicts).await.expect("shown");
    assert_eq!(stats["total"], 0, "{stats}");

    // Nothing of the old type is under way any more: the same command brings the last of it over.
    pipeline.millctl(&retype).await.expect("moved");
    let sql = format!(
        "SELECT toUInt32(count()) AS n, toUInt32(uniqExact(number)) AS numbers, \
         toUInt32(countIf(price = number + 0.5)) AS right, toUInt32(countIf(_price_string != '')) AS texts FROM {}",
        pipeline.table
    );
    let held = pipeline.query(&sql).await.expect("answered");
    assert_eq!(
        (&held[0]["n"], &held[0]["numbers"], &held[0]["right"]),
        (&sent.into(), &sent.into(), &sent.into()),
        "{held:?}"
    );
    let texts = held[0]["texts"].as_u64().expect("a number");
    assert!((20..=u64::from(sent) - 20).contains(&texts), "{held:?}");
}
