//! The real binary against real Kafka and ClickHouse: the transformed log is written by the test.
#![expect(clippy::expect_used, reason = "what a test does not expect ends it")]

mod adopt;
mod audit;
mod bounds;
mod controls;
mod delivery;
mod faults;
mod fence;
mod neighbours;
mod postgres;
mod recovery;
mod round;
mod settings;
mod stall;
mod steps;
mod system;

use std::time::Duration;

use millrace_event::envelope::{Envelope as _, Origin, Output, Reason, Text, Transformed, V1};
use millrace_event::header::{self, Headers};
use millrace_event::{Identity, JournalId, Timestamp, Verdict};
use millrace_kafka::producer::Producer;
use millrace_kafka::{Connection, Outgoing};
use millrace_testkit::pipeline::{Options, Pipeline};
use serde_json::value::RawValue;

const PATIENCE: Duration = Duration::from_secs(60);
const JOURNAL: JournalId = JournalId(0x1234_5678_9abc_def0);

/// A bulker of its own, and a way to write what a rotor would.
struct Bench {
    pipeline: Pipeline,
    producer: Producer,
}

impl Bench {
    async fn start(settings: Vec<(&'static str, String)>) -> Self {
        Self::with(Options {
            services: Some(vec!["bulker"]),
            settings: [("bulker", settings)].into(),
            ..Options::default()
        })
        .await
    }

    async fn with(options: Options) -> Self {
        let pipeline = Pipeline::start(options).await.expect("the bulker starts");
        let producer = Producer::new(&Connection::new(pipeline.kafka(), "test")).expect("configured");
        Self { pipeline, producer }
    }

    async fn send(&self, partition: u32, records: Vec<Outgoing>) {
        self.producer
            .send(&self.pipeline.topic("transformed"), partition, records)
            .await
            .expect("delivered");
    }

    /// A record that forwards one event per text of `events`.
    fn forward(&self, id: Identity, events: &[&str]) -> Outgoing {
        self.record(id, 0, Verdict::Forward, events)
    }

    fn record(&self, id: Identity, attempt: u32, verdict: Verdict, events: &[&str]) -> Outgoing {
        self.write(id, attempt, verdict, (&self.pipeline.table, None), events)
    }

    /// A row that came back from the bulker, on its second way.
    fn came_back(&self, id: Identity, attempt: u32, (table, sub): (&str, u16), event: &str) -> Outgoing {
        self.write(id, attempt, Verdict::Forward, (table, Some(sub)), &[event])
    }

    fn write(
        &self,
        id: Identity,
        attempt: u32,
        verdict: Verdict,
        table: (&str, Option<u16>),
        events: &[&str],
    ) -> Outgoing {
        self.write_for("dst_test", id, (attempt, verdict), table, events)
    }

    /// A plain event for that destination.
    fn write_to(
        &self,
        destination: &str,
        id: Identity,
        table: (&str, Option<u16>),
        events: &[&str],
    ) -> Outgoing {
        self.write_for(destination, id, (0, Verdict::Forward), table, events)
    }

    fn write_for(
        &self,
        destination: &str,
        id: Identity,
        (attempt, verdict): (u32, Verdict),
        (table, sub): (&str, Option<u16>),
        events: &[&str],
    ) -> Outgoing {
        let events: Vec<Box<RawValue>> = events
            .iter()
            .map(|text| serde_json::from_str(text).expect("valid JSON"))
            .collect();
        let message_id = format!("m-{}-{}", id.partition, id.seq);
        let envelope = Transformed {
            version: V1,
            id,
            attempt,
            origin: Origin {
                workspace: Text::from(self.pipeline.workspace.as_str()),
                source: Text::from("src_test"),
                message_id: Text::from(message_id.as_str()),
                received_at: "2026-11-21T04:00:00.120Z".parse::<Timestamp>().expect("a time"),
                sent_at: None,
            },
            verdict,
            outputs: events
                .iter()
                .map(|event| Output {
                    destination: Text::from(destination),
                    table: Text::from(table),
                    config_version: 1,
                    event,
                })
                .collect(),
            sub,
            reason: (verdict == Verdict::DeadLetter).then(|| Reason {
                code: Text::from("output_limit"),
                message: Text::from("too large"),
                field: None,
                function: None,
                function_version: None,
                stack: None,
            }),
            resume: None,
            retry_after_ms: None,
            original: None,
        };
        let headers = Headers::new().with(header::ID, id.to_string());
        let value = envelope.to_bytes();
        Outgoing {
            key: Some(message_id.into_bytes()),
            value,
            headers,
        }
    }

    /// `count` plain events of a partition from `first` on.
    fn events(&self, partition: u32, first: u64, count: u64) -> Vec<Outgoing> {
        (first..first + count)
            .map(|seq| {
                let event = format!(
                    r#"{{"type":"track","event":"Tested","anonymousId":"a{}","properties":{{"n":{seq}}}}}"#,
                    seq % 17
                );
                self.forward(id(partition, seq), &[&event])
            })
            .collect()
    }

    /// Every identity's rows: `[partition, seq, how many rows]`, of those that are not there exactly once.
    async fn not_once(&self, partitions: u32, count: u64) -> Vec<serde_json::Value> {
        let sql = format!(
            "SELECT p, s, n FROM (SELECT _partition AS p, toUInt64(_seq) AS s, count() AS n FROM {table} GROUP BY p, s) \
             AS held RIGHT JOIN (SELECT toUInt32(number % {partitions}) AS p, intDiv(number, {partitions}) AS s FROM \
             numbers({partitions} * {count})) AS wanted USING (p, s) WHERE n != 1",
            table = self.pipeline.table
        );
        self.pipeline.query(&sql).await.expect("answered")
    }
}

fn id(partition: u32, seq: u64) -> Identity {
    Identity {
        journal: JOURNAL,
        partition,
        seq,
    }
}
