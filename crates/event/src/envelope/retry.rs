use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Envelope, Origin, Output, Reason, Resume, Text, V1};
use crate::time::Timestamp;

/// A copy that goes round again, topics [`crate::topic::Topics::retry`]; written by the bulker (and by replay).
///
/// The identity is in the record's header [`crate::header::ID`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Retry<'a> {
    /// The envelope's version.
    pub version: V1,
    /// Who failed, and so what `payload` is.
    pub stage: Stage,
    /// How often the event went round, this copy included.
    pub attempt: u32,
    /// Not before this time.
    pub due_at: Timestamp,
    /// Where the chain goes on.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume<'a>>,
    /// Why it goes round.
    #[serde(borrow)]
    pub reason: Reason<'a>,
    /// For stage `bulker`: the table that could not be written, `database.table`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub table: Option<Text<'a>>,
    /// For stage `bulker`: which of the event's rows it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<u16>,
    /// For stage `rotor` the ingest envelope byte for byte, for stage `bulker` a [`RowPayload`].
    #[serde(borrow)]
    pub payload: &'a RawValue,
}

impl<'a> Envelope<'a> for Retry<'a> {
    const NAME: &'static str = "retry";
}

/// The stage at which an event failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The gateway.
    Ingest,
    /// A function, or what surrounds it.
    Rotor,
    /// The table.
    Bulker,
}

impl Stage {
    /// The spelling on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Rotor => "rotor",
            Self::Bulker => "bulker",
        }
    }
}

/// One row that could not be written, complete enough to be written later without its functions: the payload
/// of a retry copy of stage `bulker` and the value of its dead letter.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RowPayload<'a> {
    /// The envelope's version.
    pub version: V1,
    /// What the event brings along.
    #[serde(borrow)]
    pub origin: Origin<'a>,
    /// The row.
    #[serde(borrow)]
    pub output: Output<'a>,
}

impl<'a> Envelope<'a> for RowPayload<'a> {
    const NAME: &'static str = "row";
}
