//! Requests and log lines, from their topics into the tables.

use millrace_event::header::Headers;
use millrace_kafka::group::Committed;
use millrace_kafka::{Connection, Outgoing, offsets};
use millrace_testkit::wait::until;
use serde_json::{Value, json};

use super::{Bench, PATIENCE};

fn settings() -> Vec<(&'static str, String)> {
    vec![("MILLRACE__ACCOUNTS__TIME", "50ms".into())]
}

fn record(value: &Value) -> Outgoing {
    Outgoing {
        key: None,
        value: value.to_string().into_bytes(),
        headers: Headers::new(),
    }
}

fn request(number: u64) -> Value {
    json!({
        "version": 1, "request_id": format!("req_{number}"), "organization_id": "org_1", "api_key_id": "wk_1",
        "endpoint": "/v1/batch", "method": "POST", "status_code": 200, "response_time_ms": 1.5,
        // Two months, so that a batch is two blocks.
        "timestamp": if number.is_multiple_of(2) { "2026-10-31T23:59:59.999Z" } else { "2026-11-01T00:00:00Z" },
        "billable": true,
    })
}

async fn one(bench: &Bench, sql: &str) -> Value {
    let rows = bench.pipeline.query(sql).await.expect("answered");
    rows.into_iter().next().expect("a row")
}

async fn requests(bench: &Bench, wanted: u64) {
    let sql = format!(
        "SELECT toUInt32(count()) AS n FROM {}_system.usage_events",
        bench.pipeline.name
    );
    let all = until("the requests", PATIENCE, || async {
        let rows = bench.pipeline.query(&sql).await?;
        Ok(rows
            .first()
            .filter(|row| row["n"].as_u64() >= Some(wanted))
            .map(|_| ()))
    });
    all.await.expect("they arrive");
}

#[tokio::test]
async fn requests_are_counted_once_though_the_bulker_is_killed_and_the_groups_offset_lost() {
    let mut bench = Bench::start(settings()).await;
    let (name, connection) = (
        bench.pipeline.name.clone(),
        Connection::new(bench.pipeline.kafka(), "test"),
    );
    let topic = format!("{name}.usage.requests.v1");
    let send = async |bench: &Bench, numbers: std::ops::Range<u64>| {
        let records = numbers.map(|number| record(&request(number))).collect();
        bench.producer.send(&topic, 0, records).await.expect("delivered");
    };
    send(&bench, 0..500).await;
    requests(&bench, 1).await;
    bench
        .pipeline
        .kill_and_restart("bulker")
        .await
        .expect("killed and started");
    bench
        .producer
        .send(&topic, 0, vec![record(&json!({"version": 1}))])
        .await
        .expect("delivered");
    send(&bench, 500..1000).await;
    requests(&bench, 1000).await;

    let ended = bench.pipeline.process("bulker").terminate(PATIENCE);
    assert_eq!(ended.await.expect("it ends").code(), Some(0));
    let group = format!("{}-accounts", bench.pipeline.group("bulker"));
    let rewound = Committed {
        offset: 0,
        metadata: String::new(),
    };
    offsets::set(&connection, &group, &topic, 0, rewound)
        .await
        .expect("a rewind by hand");
    bench.pipeline.process("bulker").start_again().expect("started");
    send(&bench, 1000..1010).await;
    requests(&bench, 1010).await;

    let sql = format!(
        "SELECT count() = 1010 AND uniqExact(request_id) = 1010 AS ok FROM {name}_system.usage_events"
    );
    assert_eq!(one(&bench, &sql).await["ok"], 1, "each once");
    let sql = format!(
        "SELECT toUInt32(sum(requests)) AS requests, toUInt32(sum(billable)) AS billable, max(slowest_ms) AS slowest \
         FROM {name}_system.usage_hourly WHERE organization_id = 'org_1'"
    );
    // A view comes a moment behind its table.
    let wanted = json!({"requests": 1010, "billable": 1010, "slowest": 1.5});
    let summed = until("the hours are summed up", PATIENCE, || async {
        Ok((one(&bench, &sql).await == wanted).then_some(()))
    });
    summed.await.expect("each request is in its hour once");
    for (name, wanted, why) in [
        ("found", 1000.0, "the table was asked"),
        ("unreadable", 1.0, "read again, left out again"),
    ] {
        let name = format!("millrace_bulker_accounts_{name}_total");
        let counted = bench
            .pipeline
            .counted("bulker", &name, "usage_events", wanted, PATIENCE)
            .await;
        assert_eq!(counted.expect("counted"), wanted, "{why}");
    }
}

#[tokio::test]
async fn a_line_that_a_function_logged_is_in_its_table_as_it_was() {
    let bench = Bench::start(settings()).await;
    let name = &bench.pipeline.name;
    let golden = include_str!("../../../../schemas/functions/functions.log.v1.golden.json");
    let loading = include_str!("../../../../schemas/functions/functions.log.v1.loading.golden.json");
    let records = [golden, loading].map(|text| record(&serde_json::from_str(text).expect("JSON")));
    bench
        .producer
        .send(&format!("{name}.functions.log.v1"), 1, records.to_vec())
        .await
        .expect("delivered");
    let sql = format!(
        "SELECT toString(timestamp) AS at, workspace, function, function_version, id, message_id, attempt, level, \
         message, toUInt32(discarded) AS discarded, _partition FROM {name}_system.function_logs ORDER BY timestamp"
    );
    let lines = until("the lines", PATIENCE, || async {
        let lines = bench.pipeline.query(&sql).await?;
        Ok(Some(lines).filter(|lines| lines.len() == 2))
    });
    let lines = lines.await.expect("they arrive");
    let wanted = json!([
        {
            // The line of a chain that was being loaded names no function and no event.
            "at": "2026-11-21 04:00:00.100", "workspace": "ws_demo", "function": "", "function_version": null,
            "id": "", "message_id": "", "attempt": null, "level": "info", "message": "loaded", "discarded": 0,
            "_partition": 1
        },
        {
            "at": "2026-11-21 04:00:00.150", "workspace": "ws_demo", "function": "fn_1", "function_version": 3,
            "id": "00000000000000ab-3-41", "message_id": "msg-1", "attempt": 0, "level": "warn",
            "message": "no price", "discarded": 12, "_partition": 1
        },
    ]);
    assert_eq!(Value::from(lines), wanted);
}
