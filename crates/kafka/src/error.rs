//! What can go wrong between a service and its brokers.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// An error of this crate. `Display` does not repeat the source; log the chain once, where it is handled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// librdkafka refused its configuration.
    #[error("the Kafka client refused its configuration")]
    Configuration(#[source] KafkaError),
    /// The cluster did not answer as expected.
    #[error("the Kafka cluster did not answer {request}")]
    Cluster {
        /// What was asked.
        request: &'static str,
        /// What came instead.
        #[source]
        source: KafkaError,
    },
    /// The gateway's producer could not reach the cluster.
    #[error("the Kafka cluster did not answer {request}")]
    Edge {
        /// What was asked.
        request: &'static str,
        /// What came instead.
        #[source]
        source: crate::edge::Fault,
    },
    /// A question outside any group was not answered as expected.
    #[error("the Kafka cluster did not answer {request}")]
    Asked {
        /// What was asked.
        request: &'static str,
        /// What came instead.
        #[source]
        source: Box<rskafka::client::error::Error>,
    },
    /// No answer within the time allowed; whether it was carried out is not known.
    #[error("no answer to {request} within {seconds} s")]
    Timeout {
        /// What was asked.
        request: &'static str,
        /// The time allowed.
        seconds: u64,
    },
    /// A topic is not there.
    #[error("topic {topic} does not exist; create it with `millctl topics apply`")]
    NoSuchTopic {
        /// Its name.
        topic: String,
    },
    /// Topics that must have one partition count do not.
    #[error("topics differ in partitions: {counts}; run `millctl topics apply`")]
    UnequalPartitions {
        /// Each topic with its count.
        counts: String,
    },
    /// The committed offset is no longer in the log.
    #[error("the committed offset of {topic}/{partition} is not in the log any more")]
    OffsetLost {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
    },
    /// A record could not be delivered; the producer's session is over.
    #[error("a record could not be delivered to {topic}/{partition}")]
    Delivery {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// Why.
        #[source]
        source: KafkaError,
    },
    /// The consumer or producer was closed.
    #[error("the Kafka client was closed")]
    Closed,
    /// A topic operation was refused.
    #[error("{operation} of topic {topic} was refused: {code}")]
    Topic {
        /// What was tried.
        operation: &'static str,
        /// The topic.
        topic: String,
        /// The broker's answer.
        code: RDKafkaErrorCode,
    },
}

impl Error {
    /// A short label for metrics.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Configuration(_) => "configuration",
            Self::Cluster { .. } | Self::Edge { .. } | Self::Asked { .. } => "cluster",
            Self::Timeout { .. } => "timeout",
            Self::NoSuchTopic { .. } => "no_such_topic",
            Self::UnequalPartitions { .. } => "unequal_partitions",
            Self::OffsetLost { .. } => "offset_lost",
            Self::Delivery { .. } => "delivery",
            Self::Closed => "closed",
            Self::Topic { .. } => "topic",
        }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub const fn retry(&self) -> bool {
        matches!(
            self,
            Self::Cluster { .. }
                | Self::Edge { .. }
                | Self::Asked { .. }
                | Self::Timeout { .. }
                | Self::Delivery { .. }
        )
    }
}

/// The gateway's producer could not place a batch.
#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    /// Not placed, or placed without an answer: send the same batch again.
    #[error("the batch may not have reached {topic}/{partition}")]
    Ambiguous {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// Why.
        #[source]
        source: Error,
    },
    /// Refused for what is in it; sending it again gives the same answer.
    #[error("{topic}/{partition} refused the batch: {code}")]
    Refused {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The broker's answer.
        code: String,
    },
}
