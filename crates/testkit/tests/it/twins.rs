use std::collections::BTreeSet;

use millrace_event::envelope::{Envelope as _, Ingest};
use millrace_event::header;
use millrace_kafka::{Connection, reader};
use millrace_testkit::pipeline::{Options, Pipeline};
use millrace_testkit::wait::until;
use serde_json::json;

use crate::PATIENCE;

#[tokio::test]
async fn a_message_whose_gateway_died_between_append_and_mark_is_429_at_another_until_that_one_is_back_and_then_known()
 {
    let options = Options {
        services: Some(vec!["ingest"]),
        ..Options::default()
    };
    let mut pipeline = Pipeline::start(options).await.expect("a gateway");
    let (mut twin, url) = pipeline.another("ingest").expect("another one");
    let client = pipeline.client.clone();
    twin.ready(&client, &format!("{url}/ready"))
        .await
        .expect("it is ready");
    let first = pipeline.process("ingest");
    first.terminate(PATIENCE).await.expect("it ends");
    first.arm(Some("ingest::before_mark=1*return(kill)"));
    first.start_again().expect("started");
    first.arm(None);
    pipeline.ready("ingest").await.expect("it is ready");

    let event = json!({"messageId": "once", "anonymousId": "a", "event": "Sent"});
    let here = pipeline.sender();
    let there = here.at(&url);
    // Whether the answer gets out before the end is chance.
    let cut_off = here.post("/v1/track", &event).await;
    assert!(
        cut_off.as_ref().map_or(true, |answer| answer.status == 200),
        "{cut_off:?}"
    );
    let first = pipeline.process("ingest");
    first.killed(PATIENCE).await.expect("it died there");
    let answer = there.post("/v1/track", &event).await.expect("answered");
    assert_eq!(answer.status, 429, "{}", answer.body);

    pipeline.process("ingest").start_again().expect("started");
    let known = until("it is known", PATIENCE, || async {
        let answer = there.post("/v1/track", &event).await?;
        Ok((answer.status == 200).then_some(()))
    });
    known
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", twin.tail()));
    let connection = Connection::new(pipeline.kafka(), "test");
    let topic = pipeline.topic("ingest");
    let shipped = until("it is shipped", PATIENCE, || async {
        let records: Vec<_> = reader::gather(&connection, &topic)
            .await?
            .into_values()
            .flatten()
            .collect();
        Ok(Some(records).filter(|records| !records.is_empty()))
    });
    let records = shipped.await.expect("shipped");
    let messages: BTreeSet<_> = records
        .iter()
        .map(|record| {
            Ingest::read(&record.value)
                .expect("an envelope")
                .message_id
                .into_owned()
        })
        .collect();
    let identities: BTreeSet<_> = records
        .iter()
        .filter_map(|record| record.headers.text(header::ID))
        .collect();
    assert_eq!(
        (messages.len(), identities.len()),
        (1, 1),
        "one message, one identity"
    );
    // Nothing of the twin's own follows.
    assert_eq!(twin.ended().expect("known"), None);
}
