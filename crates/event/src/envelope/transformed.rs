mod plain;

use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::{Envelope, Ingest, ReadError, Text, V1};
use crate::code::Verdict;
use crate::identity::Identity;
use crate::time::Timestamp;

/// What was decided about one record, topic [`crate::topic::Topics::transformed`]: one record out for every
/// record in, same partition, whatever the verdict.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Transformed<'a> {
    /// The envelope's version.
    pub version: V1,
    /// The event's identity.
    pub id: Identity,
    /// How often it went round before this decision.
    pub attempt: u32,
    /// What the event brings along for its rows and accounts.
    #[serde(borrow)]
    pub origin: Origin<'a>,
    /// The decision.
    pub verdict: Verdict,
    /// The rows to write; empty unless the verdict is `forward`. A row's position here is its `sub`.
    #[serde(borrow, default, deserialize_with = "mostly_one")]
    pub outputs: Vec<Output<'a>>,
    /// For a record that came back from the bulker, the `sub` that its only output keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<u16>,
    /// Why the verdict is not `forward`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason<'a>>,
    /// Where a chain goes on, on `retry`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume<'a>>,
    /// How long a `retry` asked to wait, in milliseconds; absent means the first tier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The value of the record that was read, byte for byte, on `retry` and `dead_letter`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub original: Option<&'a RawValue>,
}

/// A list without room for more than it holds while that is one: readers keep many thousands of envelopes at once.
fn mostly_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Output<'de>>, D::Error> {
    struct Outputs;

    impl<'de> Visitor<'de> for Outputs {
        type Value = Vec<Output<'de>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of outputs")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut outputs = Vec::new();
            while let Some(output) = list.next_element()? {
                if outputs.is_empty() {
                    outputs.reserve_exact(1);
                }
                outputs.push(output);
            }
            Ok(outputs)
        }
    }

    deserializer.deserialize_seq(Outputs)
}

impl<'a> Envelope<'a> for Transformed<'a> {
    const NAME: &'static str = "transformed";

    fn read(value: &'a [u8]) -> Result<Self, ReadError> {
        match plain::read(value) {
            Some(envelope) => Ok(envelope),
            None => super::parse(value),
        }
    }
}

/// What an event brings along from the gateway, whatever its functions make of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin<'a> {
    /// The workspace.
    #[serde(borrow)]
    pub workspace: Text<'a>,
    /// The source.
    #[serde(borrow)]
    pub source: Text<'a>,
    /// The message id that the gateway knows the event by.
    #[serde(borrow)]
    pub message_id: Text<'a>,
    /// When the gateway had read the request.
    pub received_at: Timestamp,
    /// When the client says it sent the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_at: Option<Timestamp>,
}

impl<'a> From<&Ingest<'a>> for Origin<'a> {
    fn from(ingest: &Ingest<'a>) -> Self {
        Self {
            workspace: ingest.workspace.clone(),
            source: ingest.source.clone(),
            message_id: ingest.message_id.clone(),
            received_at: ingest.received_at,
            sent_at: ingest.sent_at,
        }
    }
}

/// One row to write.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Output<'a> {
    /// The destination's id.
    #[serde(borrow)]
    pub destination: Text<'a>,
    /// Where the row goes, `database.table`, decided when the functions ran.
    #[serde(borrow)]
    pub table: Text<'a>,
    /// The version of the configuration that decided it.
    pub config_version: u64,
    /// The event as the functions left it.
    #[serde(borrow)]
    pub event: &'a RawValue,
}

/// Why an event is not simply forwarded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason<'a> {
    /// A code of [`crate::code`].
    #[serde(borrow)]
    pub code: Text<'a>,
    /// For people; never a value of the event.
    #[serde(borrow)]
    pub message: Text<'a>,
    /// The field that did not fit.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub field: Option<Text<'a>>,
    /// The function that failed.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub function: Option<Text<'a>>,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function_version: Option<u32>,
    /// The frames of the chain's own functions, innermost first, one on a line; at most 2,048 characters.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<Text<'a>>,
}

/// Where a chain goes on after a retry: at the function that asked, with the event as it had it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Resume<'a> {
    /// The chain's id.
    #[serde(borrow)]
    pub chain: Text<'a>,
    /// The position of the function in its chain, from 0.
    pub position: u32,
    /// The event as that function got it.
    #[serde(borrow)]
    pub event: &'a RawValue,
}
