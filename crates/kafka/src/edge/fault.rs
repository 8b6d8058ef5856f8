//! What can go wrong with one request.

use std::fmt;
use std::io;

/// Why a request was not answered as it should be.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The connection.
    #[error("the connection failed")]
    Connection(#[from] io::Error),
    /// What the broker says.
    #[error("the broker answered {0}")]
    Refused(Code),
    /// An answer that is none.
    #[error("the answer cannot be read")]
    Malformed,
    /// The partition has no leader, or is not there.
    #[error("the partition has no leader")]
    NoLeader,
}

/// A code of Kafka's table of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub(super) i16);

impl Code {
    pub(super) const UNKNOWN_TOPIC: Self = Self(3);

    /// Whether the same batch would be refused again. Of the codes about a batch the protocol's table calls all but
    /// `CORRUPT_MESSAGE` not retriable: that one says that the bytes were damaged on their way, and they go out anew.
    pub(super) const fn is_for_good(self) -> bool {
        matches!(self.0, 10 | 18 | 32 | 43 | 87)
    }

    /// Its name in Kafka's table, of those that these requests are answered with.
    const fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            -1 => "UNKNOWN_SERVER_ERROR",
            2 => "CORRUPT_MESSAGE",
            3 => "UNKNOWN_TOPIC_OR_PARTITION",
            5 => "LEADER_NOT_AVAILABLE",
            6 => "NOT_LEADER_OR_FOLLOWER",
            7 => "REQUEST_TIMED_OUT",
            9 => "REPLICA_NOT_AVAILABLE",
            10 => "MESSAGE_TOO_LARGE",
            13 => "NETWORK_EXCEPTION",
            17 => "INVALID_TOPIC_EXCEPTION",
            18 => "RECORD_LIST_TOO_LARGE",
            19 => "NOT_ENOUGH_REPLICAS",
            20 => "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
            21 => "INVALID_REQUIRED_ACKS",
            29 => "TOPIC_AUTHORIZATION_FAILED",
            31 => "CLUSTER_AUTHORIZATION_FAILED",
            32 => "INVALID_TIMESTAMP",
            35 => "UNSUPPORTED_VERSION",
            41 => "NOT_CONTROLLER",
            42 => "INVALID_REQUEST",
            43 => "UNSUPPORTED_FOR_MESSAGE_FORMAT",
            44 => "POLICY_VIOLATION",
            56 => "KAFKA_STORAGE_ERROR",
            74 => "FENCED_LEADER_EPOCH",
            87 => "INVALID_RECORD",
            89 => "THROTTLING_QUOTA_EXCEEDED",
            _ => return None,
        })
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "error {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_given_up_only_where_kafka_calls_the_error_not_retriable_and_it_is_about_the_batch() {
        let named: Vec<_> = (-1..200).map(Code).filter(|code| code.name().is_some()).collect();
        let (refused, passing): (Vec<_>, Vec<_>) = named.into_iter().partition(|code| code.is_for_good());
        let texts = |codes: Vec<Code>| codes.iter().map(Code::to_string).collect::<Vec<_>>();
        assert_eq!(
            texts(refused),
            [
                "MESSAGE_TOO_LARGE",
                "RECORD_LIST_TOO_LARGE",
                "INVALID_TIMESTAMP",
                "UNSUPPORTED_FOR_MESSAGE_FORMAT",
                "INVALID_RECORD",
            ]
        );
        let passing = texts(passing);
        for code in [
            "CORRUPT_MESSAGE",
            "UNKNOWN_TOPIC_OR_PARTITION",
            "LEADER_NOT_AVAILABLE",
            "NOT_LEADER_OR_FOLLOWER",
            "REQUEST_TIMED_OUT",
            "NOT_ENOUGH_REPLICAS",
            "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
            "TOPIC_AUTHORIZATION_FAILED",
            "CLUSTER_AUTHORIZATION_FAILED",
            "KAFKA_STORAGE_ERROR",
            "THROTTLING_QUOTA_EXCEEDED",
        ] {
            assert!(passing.iter().any(|known| known == code), "{code}");
        }
    }
}
