use millrace_testkit::otlp::{Receiver, Span, hex};
use millrace_testkit::pipeline::{Options, Pipeline, SERVICES};
use millrace_testkit::wait::until;
use serde_json::json;

use crate::PATIENCE;

#[tokio::test]
async fn one_trace_goes_from_the_http_request_over_the_function_to_the_insert() {
    let receiver = Receiver::start().await.expect("it listens");
    let settings = SERVICES.map(|service| {
        (
            service,
            vec![("MILLRACE__TELEMETRY__OTLP_ENDPOINT", receiver.endpoint())],
        )
    });
    let options = Options {
        settings: settings.into(),
        ..Options::default()
    };
    let pipeline = Pipeline::start(options).await.expect("the pipeline starts");

    let (trace, client) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let traceparent = format!("00-{trace}-{client}-01");
    let headers = [
        ("x-write-key", pipeline.write_key.as_str()),
        ("traceparent", &traceparent),
    ];
    let event = json!({"messageId": "traced", "anonymousId": "a", "event": "Traced"});
    let url = format!("{}/v1/track", pipeline.url("ingest"));
    let answer = pipeline
        .client
        .post(&url, &headers, event.to_string())
        .await
        .expect("answered");
    assert_eq!(answer.status, 200, "{}", answer.body);
    pipeline.rows(1, PATIENCE).await.expect("it arrives");

    // Each is the parent of the next: client → request → transform → insert.
    let mut parent = client.to_owned();
    for name in ["request", "transform", "insert"] {
        let span = until(name, PATIENCE, || async { Ok(in_trace(&receiver, name, trace)) });
        let span = span.await.expect("it is exported");
        assert_eq!(hex(&span.parent_span_id), parent, "the parent of {name}");
        parent = hex(&span.span_id);
    }
}

fn in_trace(receiver: &Receiver, name: &str, trace: &str) -> Option<Span> {
    receiver
        .named(name)
        .into_iter()
        .find(|span| hex(&span.trace_id) == trace)
}
