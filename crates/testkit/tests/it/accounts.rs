use millrace_testkit::pipeline::{Options, Pipeline};
use millrace_testkit::wait::until;
use serde_json::{Value, json};

use crate::PATIENCE;

const LOGS: &str = r#"export default function (event) {
  console.log("seen", event.event, { price: event.properties.price });
  return event;
}"#;

/// The rows of a query, once there are as many as wanted.
async fn rows(pipeline: &Pipeline, what: &str, sql: &str, wanted: usize) -> Vec<Value> {
    let all = until(what, PATIENCE, || async {
        let rows = pipeline.query(sql).await?;
        Ok(Some(rows).filter(|rows| rows.len() >= wanted))
    });
    all.await.expect("they arrive")
}

#[tokio::test]
async fn a_request_is_a_row_with_its_hour_and_what_a_function_logs_is_a_row_that_leads_to_the_event() {
    let pipeline = Pipeline::start(Options::default())
        .await
        .expect("the pipeline starts");
    let put = pipeline.put_function("talks", LOGS).await.expect("taken");
    let sender = pipeline.sender();
    let mut wanted = Vec::new();
    let event = json!({"type": "track", "userId": "u", "event": "Bought", "messageId": "m-1", "properties": {"price": 12.5}});
    for (path, body, status) in [
        ("/v1/track", event.clone(), 200),
        ("/v1/batch", json!({ "batch": [event] }), 200),
        ("/v1/track", json!(7), 400),
    ] {
        let answer = sender.post(path, &body).await.expect("answered");
        assert_eq!(answer.status, status, "{}", answer.body);
        let id = answer.headers["x-request-id"].to_str().expect("text");
        wanted.push((id.to_owned(), path, status));
    }

    let database = format!("{}_system", pipeline.name);
    let usage = format!(
        "SELECT request_id, organization_id, api_key_id, endpoint, method, status_code, billable, \
         response_time_ms > 0 AS took, abs(dateDiff('second', timestamp, now64(3))) < 86400 AS lately \
         FROM {database}.usage_events"
    );
    let usage = rows(&pipeline, "the requests", &usage, wanted.len()).await;
    assert_eq!(usage.len(), wanted.len(), "{usage:?}");
    let found = |id: &str| usage.iter().find(|row| row["request_id"] == id);
    let owner = found(&wanted[0].0).expect("the first request")["organization_id"].clone();
    assert_ne!(owner, "", "a request with a key has an owner");
    let key = pipeline
        .write_key
        .split(':')
        .next()
        .expect("the key's public part");
    for (id, path, status) in &wanted {
        let row = found(id).expect("each request");
        let known = *status == 200;
        let text = |text: &str| if known { text.to_owned() } else { String::new() };
        assert_eq!(
            row,
            &json!({
                "request_id": id, "organization_id": text(owner.as_str().expect("text")), "api_key_id": text(key),
                "endpoint": path, "method": "POST", "status_code": status, "billable": true, "took": 1, "lately": 1,
            })
        );
    }
    let hourly = format!(
        "SELECT endpoint, toUInt32(sum(requests)) AS requests, toUInt32(sum(billable)) AS billable, \
         max(slowest_ms) * 1.01 >= quantilesTDigestMerge(0.5, 0.95, 0.99)(response_time_ms)[1] AS ordered \
         FROM {database}.usage_hourly WHERE organization_id != '' GROUP BY endpoint ORDER BY endpoint"
    );
    assert_eq!(
        rows(&pipeline, "their hours", &hourly, 2).await,
        ["/v1/batch", "/v1/track"]
            .map(|endpoint| json!({"endpoint": endpoint, "requests": 1, "billable": 1, "ordered": 1}))
    );

    // The batch repeats the event, and the gateway knows it: one event, one line.
    let logs = format!(
        "SELECT workspace, level, message, message_id, attempt, function, function_version, _journal > 0 AS placed, id, \
         toUInt32(discarded) AS discarded FROM {database}.function_logs"
    );
    let logs = rows(&pipeline, "the line", &logs, 1).await;
    let stored = format!(
        "SELECT concat(lower(leftPad(hex(_journal), 16, '0')), '-', toString(_partition), '-', toString(_seq)) AS id \
         FROM {} WHERE message_id = 'm-1'",
        pipeline.table
    );
    let stored = rows(&pipeline, "the event", &stored, 1).await;
    assert_eq!((logs.len(), stored.len()), (1, 1));
    let function = logs[0]["function"].to_string();
    assert!(
        put.to_string().contains(&function),
        "{function} is the function of {put}"
    );
    assert_eq!(
        logs[0],
        json!({
            "workspace": pipeline.workspace, "level": "info", "message": r#"seen Bought {"price":12.5}"#,
            "message_id": "m-1", "attempt": 0, "function": logs[0]["function"], "function_version": 1, "placed": 1,
            "id": stored[0]["id"], "discarded": 0,
        })
    );
}
