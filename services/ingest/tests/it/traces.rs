//! Spans, as a receiver in this process gets them over OTLP/gRPC.

use millrace_testkit::otlp::{Receiver, hex};

use super::*;

#[tokio::test]
async fn the_span_of_a_request_joins_the_clients_trace_and_goes_on_in_the_record() {
    let receiver = Receiver::start().await.unwrap();
    let mut pipeline = start(vec![("MILLRACE__TELEMETRY__OTLP_ENDPOINT", receiver.endpoint())]).await;
    let url = format!("{}/v1/track", pipeline.url("ingest"));
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let traceparent = format!("00-{trace}-{parent}-01");
    let headers = [
        ("x-write-key", pipeline.write_key.as_str()),
        ("traceparent", &traceparent),
    ];
    let answer = pipeline
        .client
        .post(&url, &headers, track("traced").to_string())
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    let events = all_arrived(&pipeline, &BTreeSet::from(["traced".to_owned()])).await;
    let record = events["traced"].values().next().unwrap();

    // The last spans leave before the process does.
    assert_eq!(
        pipeline
            .process("ingest")
            .terminate(PATIENCE)
            .await
            .unwrap()
            .code(),
        Some(0)
    );
    let requests = receiver.named("request");
    assert_eq!(requests.len(), 1, "{requests:?}");
    let span = &requests[0];
    assert_eq!(
        (hex(&span.trace_id), hex(&span.parent_span_id)),
        (trace.to_owned(), parent.to_owned())
    );
    let carried = record.headers.text(header::TRACEPARENT).unwrap();
    assert_eq!(carried, format!("00-{trace}-{}-01", hex(&span.span_id)));
}
