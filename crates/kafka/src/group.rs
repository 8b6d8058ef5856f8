//! A member of a consumer group, on a thread of its own.
//!
//! Only that thread polls, commits and takes part in rebalances. Each assigned partition reaches the service
//! as a [`Partition`]: a bounded queue of record batches, a way to commit, and a token that says when it is
//! being taken away. The rules it keeps:
//!
//! - A commit is carried out on the consumer thread, after comparing the partition's assignment epoch, with no
//!   poll in between. Kafka fences generations, not owners: after a cooperative move the late commit of a live
//!   former owner would be accepted.
//! - A revocation starts nothing new. The thread goes on answering commits until the service has dropped the
//!   [`Partition`], or the drain budget is spent; only then is the partition given back.
//! - Queues are bounded: nothing is polled of a partition whose queue is full, or whose share of a [`Budget`] is used
//!   up. It is never paused: librdkafka would throw away what it has fetched of it, and fetch it again.
//! - A process that was stopped past its session owns nothing any more, whatever it has been told: [`Ownership`].
//! - A committed offset that is not in the log any more is never jumped over in silence: the [`Partition`] says
//!   what was committed and where the log begins and ends, and reading starts at the nearest offset there is.

mod budget;
mod command;
mod context;
mod holdings;
mod lanes;
mod partition;
mod pulse;
mod thread;

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::config::Connection;
use crate::error::Error;
pub use budget::{Budget, Share, Turn};
use command::Command;
pub use command::{CommitError, Committed};
use context::Membership;
pub use partition::Partition;
pub use pulse::{Lost, Ownership};

/// How a member behaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The group's name.
    pub group: String,
    /// A static name within the group. Leave it out in a Deployment: a static member that goes away leaves its
    /// partitions unserved for the whole session timeout.
    pub instance: Option<String>,
    /// Without a heartbeat for this long a member is dead.
    #[serde(with = "humantime_serde")]
    pub session_timeout: Duration,
    /// How long a revoked partition may take to finish what it has begun.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    /// Most records in one batch handed to a partition.
    pub batch_records: usize,
    /// Most batches waiting in a partition's queue.
    pub queue_batches: usize,
    /// Bytes of one partition that librdkafka has fetched ahead when it asks for no more of it, in KiB. What the
    /// broker sends for one request, at most 1 MiB of compressed records, comes on top.
    pub prefetch_kib: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            group: String::new(),
            instance: None,
            session_timeout: Duration::from_secs(10),
            drain: Duration::from_secs(20),
            batch_records: 1000,
            queue_batches: 4,
            prefetch_kib: 8 * 1024,
        }
    }
}

/// What a member tells its service.
#[derive(Debug)]
pub enum Event {
    /// A partition is ours until its token is cancelled.
    Assigned(Partition),
    /// The member cannot go on; it has left its group or will when it is closed.
    Failed(Error),
}

/// A running member.
#[derive(Debug)]
pub struct Consumer {
    events: mpsc::Receiver<Event>,
    commands: SyncSender<Command>,
}

impl Consumer {
    /// Joins `config.group` and subscribes to `topics`. Partitions arrive as [`Event`]s.
    ///
    /// # Errors
    /// [`Error::Configuration`]; a cluster that is away shows as no event, never as an error here.
    pub fn start(connection: &Connection, config: &Config, topics: &[&str]) -> Result<Self, Error> {
        Self::start_within(connection, config, topics, &Budget::unlimited())
    }

    /// As [`Self::start`], for a service that releases what it has done with: no more records are read than
    /// `budget` has room for.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_within(
        connection: &Connection,
        config: &Config,
        topics: &[&str],
        budget: &Budget,
    ) -> Result<Self, Error> {
        let (commands, requests) = std::sync::mpsc::sync_channel(command::MOST_COMMANDS);
        let (announce, events) = mpsc::channel(thread::MOST_EVENTS);
        let membership = Membership::new(
            config.clone(),
            budget.clone(),
            commands.clone(),
            requests,
            announce,
        );
        let mut client = connection.librdkafka();
        client
            .set("group.id", &config.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "false")
            .set("auto.offset.reset", "error")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set(
                "session.timeout.ms",
                config.session_timeout.as_millis().to_string(),
            )
            .set(
                "heartbeat.interval.ms",
                (config.session_timeout.as_millis() / 5).to_string(),
            )
            .set("queued.max.messages.kbytes", config.prefetch_kib.to_string())
            // A partition that was far enough ahead is looked at again after this; the default is a second.
            .set("fetch.queue.backoff.ms", "10")
            .set("fetch.wait.max.ms", "50")
            .set("fetch.error.backoff.ms", "100")
            .set_log_level(RDKafkaLogLevel::Warning);
        if let Some(instance) = &config.instance {
            client.set("group.instance.id", instance);
        }
        let consumer: BaseConsumer<Membership> = client
            .create_with_context(membership)
            .map_err(Error::Configuration)?;
        let consumer = Arc::new(consumer);
        consumer.context().belongs_to(&consumer);
        consumer.subscribe(topics).map_err(Error::Configuration)?;
        std::thread::Builder::new()
            .name("kafka-consumer".into())
            .spawn(move || {
                let done = thread::run(&consumer);
                // Closing tells the group; only then is the member gone.
                drop(consumer);
                if let Some(done) = done {
                    // Whoever asked may have stopped waiting.
                    done.send(()).ok();
                }
            })
            .map_err(|_| Error::Closed)?;
        Ok(Self { events, commands })
    }

    /// The next thing that happens; `None` once the member has left.
    ///
    /// # Cancellation
    /// Nothing is lost.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Leaves the group: every partition's token is cancelled, its commits are still answered until it is
    /// dropped or the drain budget is spent. Returns when the group knows.
    ///
    /// # Cancellation
    /// The member leaves all the same.
    pub async fn close(mut self) {
        let (done, left) = oneshot::channel();
        if self.commands.send(Command::Leave { done: Some(done) }).is_err() {
            return;
        }
        // Partitions that were announced but not taken are dropped here, or the drain would wait for them.
        while self.events.recv().await.is_some() {}
        // An error means that the thread ended before it read the command; it has left all the same.
        drop(left.await);
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // Whether it is delivered or the thread has ended: the member leaves.
        drop(self.commands.try_send(Command::Leave { done: None }));
    }
}

/// The ids of a group's members: a member that left and came back has another one.
///
/// # Errors
/// The cluster cannot be reached.
pub async fn members(connection: &Connection, group: &str) -> Result<Vec<String>, Error> {
    const TIMEOUT: Duration = Duration::from_secs(10);
    let (connection, group) = (connection.clone(), group.to_owned());
    crate::topics::blocking(move || {
        let consumer: BaseConsumer = connection.librdkafka().create().map_err(Error::Configuration)?;
        let cluster = |source| Error::Cluster {
            request: "the members of a group",
            source,
        };
        let list = consumer
            .fetch_group_list(Some(&group), TIMEOUT)
            .map_err(cluster)?;
        let members = list.groups().iter().flat_map(|group| group.members());
        let mut ids: Vec<String> = members.map(|member| member.id().to_owned()).collect();
        ids.sort_unstable();
        Ok(ids)
    })
    .await
}

/// How long the consumer thread waits for a message before it looks at its commands.
const POLL: Duration = Duration::from_millis(5);
