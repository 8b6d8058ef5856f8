//! The gateway's producer: one stream of batches per partition, acks from all in-sync replicas.
//!
//! rskafka retries inside and without a limit of its own, so every request here has a deadline; one that
//! expires is ambiguous, and the connection it used is never used again. There is no idempotence: a batch
//! that is sent again may be in the log twice, and the reader removes it by its identities.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rskafka::BackoffConfig;
use rskafka::client::error::{Error as ClientError, ProtocolError};
use rskafka::client::partition::{Compression, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::config::Connection;
use crate::error::{Error, ProduceError};
use crate::record::Outgoing;

/// Produces batches; cheap to share. Connects at the first use and again after every doubt.
#[derive(Debug)]
pub struct Producer {
    connection: Connection,
    request_timeout: Duration,
    live: Mutex<Live>,
}

#[derive(Debug, Default)]
struct Live {
    client: Option<Arc<Client>>,
    partitions: HashMap<(String, u32), Arc<PartitionClient>>,
}

impl Producer {
    /// A producer whose every request is given up after `request_timeout`.
    pub fn new(connection: Connection, request_timeout: Duration) -> Self {
        Self {
            connection,
            request_timeout,
            live: Mutex::default(),
        }
    }

    /// How many partitions a topic has.
    ///
    /// # Errors
    /// [`Error::NoSuchTopic`], or the cluster cannot be reached in time.
    pub async fn partitions(&self, topic: &str) -> Result<u32, Error> {
        const REQUEST: &str = "a metadata request";
        let listed = self
            .within(REQUEST, async {
                self.client()
                    .await?
                    .list_topics()
                    .await
                    .map_err(|source| Error::Edge {
                        request: REQUEST,
                        source,
                    })
            })
            .await;
        if listed.is_err() {
            self.forget_all().await;
        }
        let found = listed?.into_iter().find(|known| known.name == topic);
        let count = found.map_or(0, |known| known.partitions.len());
        match u32::try_from(count) {
            Ok(0) | Err(_) => Err(Error::NoSuchTopic {
                topic: topic.to_owned(),
            }),
            Ok(count) => Ok(count),
        }
    }

    /// Writes `records` to one partition as one batch and returns when all in-sync replicas have it.
    ///
    /// Call it for one batch per partition at a time, or order is lost.
    ///
    /// # Errors
    /// [`ProduceError::Ambiguous`]: send the same batch again; [`ProduceError::Refused`]: never will it pass.
    ///
    /// # Cancellation
    /// A dropped future leaves the batch ambiguous.
    pub async fn produce(
        &self,
        topic: &str,
        partition: u32,
        records: Vec<Outgoing>,
    ) -> Result<(), ProduceError> {
        const REQUEST: &str = "a produce request";
        let records = records.into_iter().map(rskafka_record).collect();
        let answer = self
            .within(REQUEST, async {
                let client = self.partition_client(topic, partition).await?;
                client
                    .produce(records, Compression::Lz4)
                    .await
                    .map_err(|source| Error::Edge {
                        request: REQUEST,
                        source,
                    })
            })
            .await;
        let Err(error) = answer else { return Ok(()) };
        if let Some(code) = refusal(&error) {
            return Err(ProduceError::Refused {
                topic: topic.to_owned(),
                partition,
                code: code.to_string(),
            });
        }
        self.forget_all().await;
        Err(ProduceError::Ambiguous {
            topic: topic.to_owned(),
            partition,
            source: error,
        })
    }

    async fn within<T>(
        &self,
        request: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        match timeout(self.request_timeout, work).await {
            Ok(result) => result,
            Err(_) => Err(Error::Timeout {
                request,
                seconds: self.request_timeout.as_secs(),
            }),
        }
    }

    async fn client(&self) -> Result<Arc<Client>, Error> {
        let mut live = self.live.lock().await;
        if let Some(client) = &live.client {
            return Ok(Arc::clone(client));
        }
        let backoff = BackoffConfig {
            init_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(2),
            deadline: Some(self.request_timeout),
            ..BackoffConfig::default()
        };
        let built = ClientBuilder::new(self.connection.bootstrap())
            .client_id(self.connection.client_id.as_str())
            .backoff_config(backoff)
            .build()
            .await
            .map_err(|source| Error::Edge {
                request: "a connection",
                source,
            })?;
        let client = Arc::new(built);
        live.client = Some(Arc::clone(&client));
        Ok(client)
    }

    async fn partition_client(&self, topic: &str, partition: u32) -> Result<Arc<PartitionClient>, Error> {
        let key = (topic.to_owned(), partition);
        if let Some(known) = self.live.lock().await.partitions.get(&key) {
            return Ok(Arc::clone(known));
        }
        let client = self.client().await?;
        let number = i32::try_from(partition).map_err(|_| Error::NoSuchTopic {
            topic: topic.to_owned(),
        })?;
        let made = client
            .partition_client(topic, number, UnknownTopicHandling::Error)
            .await
            .map_err(|source| Error::Edge {
                request: "a partition's leader",
                source,
            })?;
        let made = Arc::new(made);
        self.live.lock().await.partitions.insert(key, Arc::clone(&made));
        Ok(made)
    }

    /// Drops every connection: what a late answer says must not reach a later request.
    async fn forget_all(&self) {
        *self.live.lock().await = Live::default();
    }
}

fn rskafka_record(record: Outgoing) -> rskafka::record::Record {
    rskafka::record::Record {
        key: record.key,
        value: Some(record.value),
        headers: record
            .headers
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_vec()))
            .collect(),
        // The broker stamps nothing by default; the time a record is handed over is what operators look for.
        timestamp: chrono::DateTime::from(wall_clock()),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the record's create time is for operators, no rule reads it"
)]
fn wall_clock() -> std::time::SystemTime {
    std::time::SystemTime::now()
}

/// The broker's answer where it is about the batch itself.
fn refusal(error: &Error) -> Option<ProtocolError> {
    let Error::Edge {
        source: ClientError::ServerError { protocol_error, .. },
        ..
    } = error
    else {
        return None;
    };
    is_for_good(*protocol_error).then_some(*protocol_error)
}

/// Whether the same batch would be refused again. Of those about a batch the protocol's table of errors calls all but
/// `CORRUPT_MESSAGE` not retriable: that one says that the bytes were damaged on their way, and they go out anew.
const fn is_for_good(error: ProtocolError) -> bool {
    matches!(
        error,
        ProtocolError::MessageTooLarge
            | ProtocolError::RecordListTooLarge
            | ProtocolError::InvalidRecord
            | ProtocolError::InvalidTimestamp
            | ProtocolError::UnsupportedForMessageFormat
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_given_up_only_where_kafka_calls_the_error_not_retriable_and_it_is_about_the_batch() {
        for refused in [
            ProtocolError::MessageTooLarge,
            ProtocolError::RecordListTooLarge,
            ProtocolError::InvalidRecord,
            ProtocolError::InvalidTimestamp,
            ProtocolError::UnsupportedForMessageFormat,
        ] {
            assert!(is_for_good(refused), "{refused}");
        }
        for passing in [
            ProtocolError::CorruptMessage,
            ProtocolError::UnknownTopicOrPartition,
            ProtocolError::LeaderNotAvailable,
            ProtocolError::NotLeaderOrFollower,
            ProtocolError::RequestTimedOut,
            ProtocolError::NotEnoughReplicas,
            ProtocolError::NotEnoughReplicasAfterAppend,
            ProtocolError::TopicAuthorizationFailed,
            ProtocolError::ClusterAuthorizationFailed,
            ProtocolError::KafkaStorageError,
            ProtocolError::ThrottlingQuotaExceeded,
        ] {
            assert!(!is_for_good(passing), "{passing}");
        }
    }
}
