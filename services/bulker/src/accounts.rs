//! Requests and log lines, from topics of their own into `usage_events` and `function_logs`.
//!
//! Beside the events and apart from them: a group of its own, no plan, no ledger. A batch is inserted under a token
//! and committed when the table has it; whoever is assigned a partition first asks the table for what it already
//! holds of the log. So a record is there once, but for an insert of a stopped owner that arrives after its successor
//! asked: at least once. A table that cannot be written is waited for, and the topics keep their records meanwhile.

mod metrics;
mod partition;

use std::sync::Arc;
use std::time::Duration;

use millrace_event::topic::Topics;
use millrace_kafka::Connection;
use millrace_kafka::group::{self, Consumer, Event};
use millrace_service::{Causes, Condition, Shutdown};
use millrace_warehouse::system::SystemTable;
use millrace_warehouse::{Database, Warehouse};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

pub use metrics::Metrics;

/// The pauses between sessions that fail: the first, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// What the client fetches ahead of a partition, in KiB: these topics are small beside the events'.
const PREFETCH_KIB: u32 = 1024;

/// `[accounts]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether this bulker fills the tables.
    pub enabled: bool,
    /// Most records that are inserted together.
    pub rows: usize,
    /// How long the first of them waits for others.
    #[serde(with = "humantime_serde")]
    pub time: Duration,
    /// Part of the rows' identity. Set it anew whenever a topic was deleted and made again: offsets start over then,
    /// and new records would be taken for old ones.
    pub incarnation: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            rows: 10_000,
            time: Duration::from_secs(5),
            incarnation: String::new(),
        }
    }
}

/// What every partition works with.
#[derive(Debug)]
pub struct Accounts {
    /// How to reach the cluster.
    pub connection: Connection,
    /// How the member behaves; its group is `<the bulker's>-accounts`.
    pub group: group::Config,
    /// The topics' names.
    pub topics: Topics,
    /// Where the tables are.
    pub warehouse: Warehouse,
    /// In which database.
    pub database: Database,
    /// What may be set.
    pub config: Config,
    /// How long one insert may take.
    pub deadline: Duration,
    /// Longest pause between attempts at one insert.
    pub longest_pause: Duration,
    /// What is counted.
    pub metrics: Metrics,
}

impl Accounts {
    /// The group of a bulker whose own group is `group`.
    pub fn group_of(group: &group::Config) -> group::Config {
        group::Config {
            group: format!("{}-accounts", group.group),
            prefetch_kib: PREFETCH_KIB,
            ..group.clone()
        }
    }

    /// The table that a topic's records go to.
    fn table_of(&self, topic: &str) -> SystemTable {
        match topic == self.topics.usage {
            true => SystemTable::UsageEvents,
            false => SystemTable::FunctionLogs,
        }
    }
}

/// Runs sessions until the process is asked to end. `condition` shows whether one is running.
///
/// # Cancellation
/// What was not committed is read again.
pub async fn run(accounts: Arc<Accounts>, condition: Condition, shutdown: Shutdown) {
    if !accounts.config.enabled {
        condition.holds();
        return;
    }
    let mut pause = BACKOFF.0;
    while !shutdown.is_requested() {
        match session(&accounts, &condition, &shutdown).await {
            Ok(()) => pause = BACKOFF.0,
            Err(error) => {
                let cause = Causes(&error).to_string();
                tracing::warn!(cause, pause = ?pause, "a session of the accounts ended");
                condition.fails(cause);
                tokio::select! {
                    () = shutdown.requested() => {}
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(BACKOFF.1);
            }
        }
    }
}

/// One membership. Ends without an error when the process is asked to end.
async fn session(
    accounts: &Arc<Accounts>,
    condition: &Condition,
    shutdown: &Shutdown,
) -> Result<(), millrace_kafka::Error> {
    let topics = [accounts.topics.usage.as_str(), &accounts.topics.functions_log];
    let mut consumer = Consumer::start(&accounts.connection, &accounts.group, &topics)?;
    condition.holds();
    let mut tasks = JoinSet::new();
    let result = loop {
        tokio::select! {
            () = shutdown.requested() => break Ok(()),
            event = consumer.next() => match event {
                Some(Event::Assigned(partition)) => {
                    tasks.spawn(partition::serve(Arc::clone(accounts), partition));
                }
                Some(Event::Failed(error)) => break Err(error),
                None => break Err(millrace_kafka::Error::Closed),
            },
            Some(ended) = tasks.join_next() => if ended.is_err() {
                tracing::error!("a partition's task panicked");
                break Err(millrace_kafka::Error::Closed);
            },
        }
    };
    consumer.close().await;
    while tasks.join_next().await.is_some() {}
    result
}
