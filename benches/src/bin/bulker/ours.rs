//! The bulker on a full topic.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use millrace_benches::measure::{Cpu, Memory};
use millrace_benches::report::Progress;
use millrace_event::envelope::{Envelope as _, Origin, Output, Text, Transformed, V1};
use millrace_event::header::{self, Headers};
use millrace_event::{Identity, JournalId, Timestamp, Verdict};
use millrace_kafka::group::Committed;
use millrace_kafka::producer::Producer;
use millrace_kafka::{Connection, Outgoing, bounds, offsets, topics};
use millrace_service::{Clock as _, SystemClock};
use millrace_testkit::pipeline::{Options, Pipeline};
use serde_json::value::RawValue;

use crate::report::Price;
use crate::server::Server;
use crate::{PARTITIONS, PATIENCE, event};

/// Records handed to the producer at once.
const PIECE: u64 = 5_000;
const JOURNAL: JournalId = JournalId(0x5eed_0000_0000_00ab);
/// The number of each partition's first event, which is not measured.
const FIRST: u64 = 0;
/// How long the bulker may take to end.
const END: Duration = Duration::from_secs(60);

/// A bulker with topics and a table of its own, and topics that it reads only when it is told to.
#[derive(Debug)]
pub(crate) struct Ours {
    pipeline: Pipeline,
    round: u32,
    /// What the group had committed before the topic was filled, by partition.
    begun: BTreeMap<u32, Committed>,
}

impl Ours {
    /// `settings` are the bulker's, besides those that every bench has.
    pub(crate) async fn start(server: &Server, settings: &[(String, String)]) -> Result<Self> {
        let options = Options {
            clickhouse: Some(server.url()),
            services: Some(vec!["bulker"]),
            partitions: Some(PARTITIONS),
            ..Options::default()
        };
        let pipeline = Pipeline::start(options).await?;
        let mut ours = Self {
            pipeline,
            round: 0,
            begun: BTreeMap::new(),
        };
        ours.begin().await?;
        for (name, value) in settings {
            ours.pipeline.process("bulker").set(name, Some(value));
        }
        Ok(ours)
    }

    /// Has the group begin, as it does in an installation: on an empty topic, with an event of each partition. One that
    /// found a full topic and nothing committed would ask the table about every row.
    async fn begin(&mut self) -> Result<()> {
        let producer = Producer::new(&self.connection())?;
        let mut text = String::new();
        for partition in 0..PARTITIONS {
            event::write(u64::from(partition), &mut text);
            let first = self.wrapped(partition, FIRST, &text)?;
            producer
                .send(&self.pipeline.topic("transformed"), partition, vec![first])
                .await?;
        }
        self.pipeline.rows(u64::from(PARTITIONS), PATIENCE).await?;
        // It would empty the topic while it is being filled.
        self.pipeline.process("bulker").terminate(END).await?;
        let (group, topic) = (self.pipeline.group("bulker"), self.pipeline.topic("transformed"));
        self.begun = offsets::held(&self.connection(), &group, &topic).await?;
        ensure!(
            self.begun.len() == PARTITIONS as usize,
            "the bulker committed {} partitions",
            self.begun.len()
        );
        Ok(())
    }

    pub(crate) fn connection(&self) -> Connection {
        Connection::new(self.pipeline.kafka(), "bench")
    }

    /// The table of the first run, whose columns other runs copy.
    pub(crate) fn table(&self) -> &str {
        &self.pipeline.table
    }

    /// The topic with the events alone, for those who know no envelope.
    pub(crate) fn plain_topic(&self) -> String {
        self.pipeline.topic("ingest")
    }

    /// Writes the events twice: as the rotor hands them on, and alone.
    pub(crate) async fn fill(&self, events: u64) -> Result<()> {
        let written = Mutex::new((0, Progress::new("events are in the topics", events)));
        let written = &written;
        let writing = std::array::from_fn::<_, { PARTITIONS as usize }, _>(|partition| async move {
            let partition = u32::try_from(partition)?;
            let producer = Producer::new(&self.connection())?;
            let mut text = String::new();
            let mine = events / u64::from(PARTITIONS)
                + u64::from(u64::from(partition) < events % u64::from(PARTITIONS));
            let mut seq = 0;
            while seq < mine {
                let (mut wrapped, mut plain) = (Vec::new(), Vec::new());
                for seq in seq..mine.min(seq + PIECE) {
                    event::write(seq * u64::from(PARTITIONS) + u64::from(partition), &mut text);
                    wrapped.push(self.wrapped(partition, FIRST + 1 + seq, &text)?);
                    plain.push(Outgoing {
                        key: None,
                        value: text.clone().into_bytes(),
                        headers: Headers::new(),
                    });
                }
                producer
                    .send(&self.pipeline.topic("transformed"), partition, wrapped)
                    .await?;
                producer.send(&self.plain_topic(), partition, plain).await?;
                let piece = mine.min(seq + PIECE) - seq;
                seq += piece;
                let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
                written.0 += piece;
                let so_far = written.0;
                written.1.at(so_far);
            }
            Ok::<_, anyhow::Error>(())
        });
        // While the producer's own thread sends a piece of one partition, the next one's is written.
        let [a, b, c, d, e, f] = writing;
        tokio::try_join!(a, b, c, d, e, f)?;
        Ok(())
    }

    /// What the rotor would write about an event that it forwards.
    fn wrapped(&self, partition: u32, seq: u64, text: &str) -> Result<Outgoing> {
        let event: &RawValue = serde_json::from_str(text)?;
        let id = Identity {
            journal: JOURNAL,
            partition,
            seq,
        };
        let message_id = format!("m-{partition}-{seq}");
        let envelope = Transformed {
            version: V1,
            id,
            attempt: 0,
            origin: Origin {
                workspace: Text::from(self.pipeline.workspace.as_str()),
                source: Text::from("src_bench"),
                message_id: Text::from(message_id.as_str()),
                // As the others have it from the record: when the topic was filled.
                received_at: Timestamp::clamped_from_millis(SystemClock.now().as_millisecond()),
                sent_at: None,
            },
            verdict: Verdict::Forward,
            outputs: vec![Output {
                destination: Text::from("dst_bench"),
                table: Text::from(self.pipeline.table.as_str()),
                config_version: 1,
                event,
            }],
            sub: None,
            reason: None,
            resume: None,
            retry_after_ms: None,
            original: None,
        };
        Ok(Outgoing {
            key: Some(message_id.clone().into_bytes()),
            value: envelope.to_bytes(),
            headers: Headers::new()
                .with(header::ID, id.to_string())
                .with(header::ATTEMPT, "0"),
        })
    }

    /// Starts the bulker on the topic's beginning and waits until the table holds all of it.
    pub(crate) async fn run(&mut self, server: &Server, events: u64) -> Result<Price> {
        self.round += 1;
        let table = self.table().to_owned();
        server.ask(&format!("TRUNCATE TABLE {table}")).await?;
        if self.round > 1 {
            // A table that forgot its tokens takes all of it again.
            for window in [0, 10_000] {
                server
                    .ask(&format!(
                        "ALTER TABLE {table} MODIFY SETTING non_replicated_deduplication_window = {window}"
                    ))
                    .await?;
            }
        }
        // Each round is another group, which stands where the first one stood when the topic was filled.
        let group = format!("{}-round-{}", self.pipeline.group("bulker"), self.round);
        let (connection, topic) = (self.connection(), self.pipeline.topic("transformed"));
        for (partition, committed) in &self.begun {
            offsets::set(&connection, &group, &topic, *partition, committed.clone()).await?;
        }
        let bulker = self.pipeline.process("bulker");
        bulker.set("MILLRACE__CONSUMER__GROUP", Some(&group));
        let (clickhouse, began) = (server.cpu()?, SystemClock.instant());
        bulker.start_again()?;
        let id = bulker.id().context("the bulker runs")?;
        server.filled(&table, events).await?;
        let elapsed = SystemClock.instant() - began;
        let (own, memory) = (Cpu::of(id)?, Memory::of(id)?);
        server.settled().await?;
        let clickhouse = server.cpu()?.since(clickhouse);
        self.pipeline.process("bulker").terminate(END).await?;
        self.exactly_once(server, events).await?;
        Ok(Price {
            events,
            elapsed,
            own: own.total(),
            clickhouse: clickhouse.total(),
            peak: memory.peak,
        })
    }

    /// Checks that every event is in the table once.
    async fn exactly_once(&self, server: &Server, events: u64) -> Result<()> {
        let table = self.table();
        let sql = format!("SELECT count(), uniqExact(_partition, _seq) FROM {table} FORMAT TSV");
        let found = server.ask(&sql).await?;
        ensure!(
            found == format!("{events}\t{events}"),
            "{table}: {found} instead of each of {events} once"
        );
        Ok(())
    }

    /// Removes the topics; the tables go with their server.
    pub(crate) async fn end(self) -> Result<()> {
        let connection = self.connection();
        let counts = bounds::counts(&connection).await?;
        let own = format!("{}.", self.pipeline.name);
        let own: Vec<&str> = counts
            .keys()
            .map(String::as_str)
            .filter(|name| name.starts_with(&own))
            .collect();
        Ok(topics::delete(&connection, &own).await?)
    }
}
