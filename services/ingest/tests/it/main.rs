//! The real binary against real Kafka, Postgres and Redis.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "what a test does not expect ends it"
)]

mod accept;
mod accounts;
mod answers;
mod caps;
mod dedup;
mod durability;
mod edge;
mod keys;
mod kills;
mod orphan;
mod poison;
mod process;
mod rates;
mod rules;
mod shipping;
mod stores;
mod times;
mod traces;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::HeaderMap;
use millrace_event::envelope::{Envelope as _, Ingest};
use millrace_event::header;
use millrace_kafka::{Connection, Record, reader};
use millrace_testkit::http::Answer;
use millrace_testkit::pipeline::{Options, Pipeline, Sender};
use millrace_testkit::wait::until;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway of its own.
async fn start(settings: Vec<(&'static str, String)>) -> Pipeline {
    start_on(None, settings).await
}

async fn start_on(kafka: Option<String>, settings: Vec<(&'static str, String)>) -> Pipeline {
    let options = Options {
        kafka,
        services: Some(vec!["ingest"]),
        settings: [("ingest", settings)].into(),
        ..Options::default()
    };
    Pipeline::start(options).await.expect("the gateway starts")
}

fn track(message_id: &str) -> Value {
    json!({ "type": "track", "event": "Sent", "messageId": message_id, "anonymousId": format!("a-{message_id}") })
}

/// The events of the ingest topic by message id, each with its records by identity.
async fn arrived(pipeline: &Pipeline) -> BTreeMap<String, BTreeMap<String, Record>> {
    let connection = Connection::new(pipeline.kafka(), "test");
    let topic = pipeline.topic("ingest");
    let partitions = reader::gather(&connection, &topic)
        .await
        .expect("the topic can be read");
    let mut events: BTreeMap<String, BTreeMap<String, Record>> = BTreeMap::new();
    for record in partitions.into_values().flatten() {
        let message_id = Ingest::read(&record.value)
            .expect("an envelope")
            .message_id
            .as_str()
            .to_owned();
        let id = record.headers.text(header::ID).expect("an identity").to_owned();
        events.entry(message_id).or_default().insert(id, record);
    }
    events
}

/// The event in a record, as it is stored.
fn stored(record: &Record) -> Value {
    let envelope = Ingest::read(&record.value).expect("an envelope");
    serde_json::from_str(envelope.event.get()).expect("JSON")
}

/// The one event of that message id.
fn the<'e>(events: &'e BTreeMap<String, BTreeMap<String, Record>>, message_id: &str) -> &'e Record {
    let records = events.get(message_id).expect("it has arrived");
    assert_eq!(records.len(), 1, "{message_id} has one identity");
    records.values().next().expect("one")
}

/// Whether the gateway noted that a guest sends more than is usual.
fn is_marked(record: &Record) -> bool {
    let marks = Ingest::read(&record.value).expect("an envelope").marks;
    marks.iter().any(|mark| mark.as_str() == "guest_rate")
}

/// A header of an answer; empty where it has none.
fn value_of<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .map_or("", |value| value.to_str().expect("text"))
}

/// What the gateway answers to these bytes, until it closes the connection.
async fn raw(pipeline: &Pipeline, request: &[u8]) -> String {
    let address = pipeline.url("ingest").strip_prefix("http://").expect("a URL");
    let mut stream = tokio::net::TcpStream::connect(address)
        .await
        .expect("a connection");
    let (mut read, mut write) = stream.split();
    let mut answer = Vec::new();
    let exchange = async {
        // The gateway may answer and close before it has read everything.
        let (_sent, received) = tokio::join!(write.write_all(request), read.read_to_end(&mut answer));
        received.map(|_| ())
    };
    let ended = tokio::time::timeout(PATIENCE, exchange)
        .await
        .expect("the connection is closed");
    assert!(ended.is_ok() || !answer.is_empty(), "{ended:?}");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Waits until all of `ids` have arrived and nothing is left in the journal.
async fn all_arrived(
    pipeline: &Pipeline,
    ids: &BTreeSet<String>,
) -> BTreeMap<String, BTreeMap<String, Record>> {
    let found = until("every answered event in the topic", PATIENCE, || async {
        let events = arrived(pipeline).await;
        Ok(ids.iter().all(|id| events.contains_key(id)).then_some(events))
    });
    match found.await {
        Ok(events) => events,
        Err(error) => panic!("{error:#}\n{}", pipeline.tails()),
    }
}

/// Sends until it is answered 200.
async fn insist(sender: &Sender, path: &str, body: &Value) {
    let answered = until("an answer of 200", PATIENCE, || async {
        let answer: Answer = sender.post(path, body).await?;
        Ok((answer.status == 200).then_some(()))
    });
    answered.await.expect("answered");
}
