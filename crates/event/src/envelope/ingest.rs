use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Envelope, Text, V1};
use crate::code::KeyKind;
use crate::time::Timestamp;

/// An accepted event on its way to the rotor, topic [`crate::topic::Topics::ingest`].
///
/// The identity and the attempt are in the record's headers. The key is `anonymousId`, else `userId`, else the
/// message id.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ingest<'a> {
    /// The envelope's version.
    pub version: V1,
    /// The workspace that the write key belongs to.
    #[serde(borrow)]
    pub workspace: Text<'a>,
    /// The source that the write key belongs to.
    #[serde(borrow)]
    pub source: Text<'a>,
    /// The write key's public half.
    #[serde(borrow)]
    pub key_id: Text<'a>,
    /// What the key may do.
    pub key_kind: KeyKind,
    /// When the gateway had read the request, by its clock.
    pub received_at: Timestamp,
    /// When the client says it sent the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_at: Option<Timestamp>,
    /// The client's address as the key's privacy setting leaves it.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<Text<'a>>,
    /// Request headers that functions may read, lower-case names.
    #[serde(borrow, default)]
    pub headers: BTreeMap<Text<'a>, Text<'a>>,
    /// What the gateway noticed without refusing the event.
    #[serde(borrow, default)]
    pub marks: Vec<Text<'a>>,
    /// The event's `messageId`, or the one that the gateway gave it.
    #[serde(borrow)]
    pub message_id: Text<'a>,
    /// The event as sent, with `type` and `messageId` put in front where the client left them to the route
    /// and the gateway.
    #[serde(borrow)]
    pub event: &'a RawValue,
}

impl<'a> Envelope<'a> for Ingest<'a> {
    const NAME: &'static str = "ingest";
}
