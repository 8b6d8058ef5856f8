//! The servers that are measured: each a process of its own on the one processor.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use millrace_benches::measure;
use millrace_kafka::{Connection, bounds, topics};
use millrace_testkit::pipeline::{Options, Pipeline};
use millrace_testkit::wait::until;

/// Partitions of the topics, as many as an installation has by default.
const PARTITIONS: u32 = 6;
/// How long the journal may take to be empty.
const SHIPPED: Duration = Duration::from_secs(300);

/// The gateway, with topics, databases and a workspace of its own.
#[derive(Debug)]
pub(crate) struct Gateway {
    pipeline: Pipeline,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its process.
    pub(crate) id: u32,
}

impl Gateway {
    /// Starts it on processor `core`; this thread goes back to `others`.
    pub(crate) async fn start(sync: &str, core: usize, others: &[usize]) -> Result<Self> {
        let settings = vec![("MILLRACE__JOURNAL__SYNC", sync.to_owned())];
        let options = Options {
            services: Some(vec!["ingest"]),
            settings: [("ingest", settings)].into(),
            partitions: Some(PARTITIONS),
            ..Options::default()
        };
        measure::pin(&[core])?;
        let started = Pipeline::start(options).await;
        measure::pin(others)?;
        let mut pipeline = started?;
        // Limits that are counted and never met: without any Redis would not be asked.
        let limits = [
            "--events-per-second",
            "10000000",
            "--events-per-day",
            "1000000000000",
        ];
        let name = pipeline.name.clone();
        let set = [&["workspace", "set", name.as_str()], limits.as_slice()].concat();
        pipeline.millctl(&set).await?;
        let url = pipeline.url("ingest");
        let address = url.trim_start_matches("http://").parse()?;
        let id = pipeline.process("ingest").id().context("the gateway runs")?;
        Ok(Self {
            pipeline,
            address,
            id,
        })
    }

    /// Its server key.
    pub(crate) fn key(&self) -> &str {
        &self.pipeline.write_key
    }

    /// One of its metrics.
    pub(crate) async fn metric(&self, name: &str) -> Result<f64> {
        let name = format!("millrace_ingest_{name}");
        self.pipeline.metric("ingest", &name, "").await
    }

    /// Waits until Kafka has all that it took.
    pub(crate) async fn shipped(&self) -> Result<()> {
        // The gauge follows in turns; one that was read during the run proves nothing.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let empty = until("an empty journal", SHIPPED, || async {
            Ok((self.metric("journal_records").await? < 0.5).then_some(()))
        });
        empty.await
    }

    /// Ends it and removes its topics.
    pub(crate) async fn end(mut self) -> Result<()> {
        let ended = self
            .pipeline
            .process("ingest")
            .terminate(Duration::from_secs(60))
            .await;
        let connection = Connection::new(self.pipeline.kafka(), "bench");
        let counts = bounds::counts(&connection).await?;
        let own = format!("{}.", self.pipeline.name);
        let own: Vec<&str> = counts
            .keys()
            .map(String::as_str)
            .filter(|name| name.starts_with(&own))
            .collect();
        topics::delete(&connection, &own).await?;
        ended.map(drop)
    }
}

/// A server without steps: this program again.
#[derive(Debug)]
pub(crate) struct Limit {
    process: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Limit {
    /// Starts one on processor `core`; with a file it answers when the body is on disk.
    pub(crate) fn start(file: Option<&str>, core: usize, others: &[usize]) -> Result<Self> {
        measure::pin(&[core])?;
        let process = Command::new(std::env::current_exe()?)
            .args(["--serve", file.unwrap_or("-")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn();
        measure::pin(others)?;
        let mut process = process.context("the limit's server cannot be started")?;
        let mut line = String::new();
        if let Some(stdout) = process.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let address = line.trim().parse();
        let mut limit = Self {
            process,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let address = address.context("the limit's server did not start")?;
        limit.address = address;
        Ok(limit)
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
