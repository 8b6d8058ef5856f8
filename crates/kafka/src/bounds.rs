//! Where the logs of a topic begin and end, asked of the partitions' leaders outside any group.
//!
//! These are questions of one request and one answer, which rskafka asks from the runtime itself: no thread of a
//! C library waits for them, and a dropped future asks nothing more. It tries again inside; here the time for that is
//! bounded, and after a doubt the next question goes out on new connections.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use rskafka::BackoffConfig;
use rskafka::client::partition::{OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::Connection;
use crate::error::Error;

/// Longest for a question, over all partitions and tries.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Asks about the logs of one topic. Connects at the first question, to each partition that is asked about once.
#[derive(Debug)]
pub struct Bounds {
    connection: Connection,
    topic: String,
    live: Mutex<Live>,
}

#[derive(Debug, Default)]
struct Live {
    client: Option<Arc<Client>>,
    partitions: BTreeMap<u32, Arc<PartitionClient>>,
}

impl Bounds {
    /// For `topic`.
    pub fn new(connection: &Connection, topic: &str) -> Self {
        Self {
            connection: connection.clone(),
            topic: topic.to_owned(),
            live: Mutex::default(),
        }
    }

    /// The offset that the next record of each of these partitions will get.
    ///
    /// # Errors
    /// The cluster does not answer for all of them within 20 s.
    ///
    /// # Cancellation
    /// Nothing more is asked.
    pub async fn ends(&self, partitions: &[u32]) -> Result<BTreeMap<u32, u64>, Error> {
        self.within("a partition's end", async {
            self.live
                .lock()
                .await
                .partitions
                .retain(|known, _| partitions.contains(known));
            self.offsets(partitions.iter().copied(), OffsetAt::Latest).await
        })
        .await
    }

    /// The offsets that the topic holds now, by partition, empty partitions included; with `since_ms` (milliseconds
    /// since the epoch) from the first record of that time on.
    ///
    /// # Errors
    /// The cluster does not answer within 20 s, or there is no such topic.
    ///
    /// # Cancellation
    /// Nothing more is asked.
    pub async fn ranges(&self, since_ms: Option<i64>) -> Result<BTreeMap<u32, Range<u64>>, Error> {
        self.within("the offsets of a topic", async {
            let client = self.client().await?;
            let count = count_of(&counted(&client).await?, &self.topic)?;
            // In this order: what is retained may end in between, but never begin before it.
            let firsts = self.offsets(0..count, OffsetAt::Earliest).await?;
            let ends = self.offsets(0..count, OffsetAt::Latest).await?;
            let since = match since_ms {
                None => BTreeMap::new(),
                Some(since_ms) => {
                    let at = DateTime::from_timestamp_millis(since_ms.max(0))
                        .unwrap_or(DateTime::<chrono::Utc>::MAX_UTC);
                    self.found(0..count, OffsetAt::Timestamp(at)).await?
                }
            };
            let range = |(partition, end): (u32, u64)| {
                let first = firsts.get(&partition).copied().unwrap_or(end).min(end);
                let first = match since.get(&partition) {
                    Some(Some(offset)) => (*offset).clamp(first, end),
                    // Nothing is as late as that.
                    Some(None) => end,
                    None => first,
                };
                (partition, first..end)
            };
            Ok(ends.into_iter().map(range).collect())
        })
        .await
    }

    async fn offsets(
        &self,
        partitions: impl Iterator<Item = u32>,
        at: OffsetAt,
    ) -> Result<BTreeMap<u32, u64>, Error> {
        let found = self.found(partitions, at).await?;
        Ok(found
            .into_iter()
            .map(|(partition, offset)| (partition, offset.unwrap_or(0)))
            .collect())
    }

    /// An offset of each partition, none where nothing is there; all are asked at once.
    async fn found(
        &self,
        partitions: impl Iterator<Item = u32>,
        at: OffsetAt,
    ) -> Result<BTreeMap<u32, Option<u64>>, Error> {
        let mut asked = JoinSet::new();
        for partition in partitions {
            let client = self.partition(partition).await?;
            asked.spawn(async move { (partition, client.get_offset(at).await) });
        }
        let mut found = BTreeMap::new();
        while let Some(answer) = asked.join_next().await {
            let (partition, offset) = answer.map_err(|_| Error::Closed)?;
            let offset = offset.map_err(|source| Error::Asked {
                request: "an offset",
                source: Box::new(source),
            })?;
            found.insert(partition, u64::try_from(offset).ok());
        }
        Ok(found)
    }

    async fn partition(&self, partition: u32) -> Result<Arc<PartitionClient>, Error> {
        if let Some(known) = self.live.lock().await.partitions.get(&partition) {
            return Ok(Arc::clone(known));
        }
        let number = i32::try_from(partition).unwrap_or(i32::MAX);
        let client = self.client().await?;
        let made = client
            .partition_client(&self.topic, number, UnknownTopicHandling::Error)
            .await
            .map_err(|source| Error::Asked {
                request: "a partition's leader",
                source: Box::new(source),
            })?;
        let made = Arc::new(made);
        self.live
            .lock()
            .await
            .partitions
            .insert(partition, Arc::clone(&made));
        Ok(made)
    }

    async fn client(&self) -> Result<Arc<Client>, Error> {
        let mut live = self.live.lock().await;
        if let Some(client) = &live.client {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(connect(&self.connection).await?);
        live.client = Some(Arc::clone(&client));
        Ok(client)
    }

    async fn within<T>(
        &self,
        request: &'static str,
        question: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let answer = in_time(request, question).await;
        if answer.is_err() {
            *self.live.lock().await = Live::default();
        }
        answer
    }
}

/// Every topic of the cluster with its number of partitions.
///
/// # Errors
/// The cluster does not answer within 20 s.
///
/// # Cancellation
/// Leaves nothing behind.
pub async fn counts(connection: &Connection) -> Result<HashMap<String, u32>, Error> {
    in_time("a metadata request", async {
        counted(&connect(connection).await?).await
    })
    .await
}

/// How many partitions a topic has.
///
/// # Errors
/// The cluster does not answer within 20 s, or there is no such topic.
pub(crate) async fn partitions(connection: &Connection, topic: &str) -> Result<u32, Error> {
    count_of(&counts(connection).await?, topic)
}

fn count_of(counts: &HashMap<String, u32>, topic: &str) -> Result<u32, Error> {
    counts.get(topic).copied().ok_or_else(|| Error::NoSuchTopic {
        topic: topic.to_owned(),
    })
}

async fn counted(client: &Client) -> Result<HashMap<String, u32>, Error> {
    let listed = client.list_topics().await.map_err(|source| Error::Asked {
        request: "a metadata request",
        source: Box::new(source),
    })?;
    let count = |partitions: usize| u32::try_from(partitions).unwrap_or(u32::MAX);
    Ok(listed
        .into_iter()
        .map(|topic| (topic.name, count(topic.partitions.len())))
        .collect())
}

async fn connect(connection: &Connection) -> Result<Client, Error> {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(50),
        max_backoff: Duration::from_secs(2),
        deadline: Some(TIMEOUT),
        ..BackoffConfig::default()
    };
    ClientBuilder::new(connection.bootstrap())
        .client_id(connection.client_id.as_str())
        .backoff_config(backoff)
        .build()
        .await
        .map_err(|source| Error::Asked {
            request: "a connection",
            source: Box::new(source),
        })
}

async fn in_time<T>(
    request: &'static str,
    question: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(TIMEOUT, question).await.unwrap_or(Err(Error::Timeout {
        request,
        seconds: TIMEOUT.as_secs(),
    }))
}
