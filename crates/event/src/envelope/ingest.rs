//! The envelope in which the gateway hands an event to the rotor.

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

/// Writes the envelopes of events that came together: what they share is written once and copied from then on. The bytes
/// are those of [`Envelope::write`].
#[derive(Clone, Debug)]
pub struct Writer {
    /// Up to when the request was read.
    head: Vec<u8>,
    /// From the address to the start of the marks.
    shared: Vec<u8>,
}

/// What is an event's own in its envelope.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// When the client says it sent the request.
    pub sent_at: Option<Timestamp>,
    /// What the gateway noticed without refusing the event: names of the gateway's own, without quotes.
    pub marks: &'a [&'static str],
    /// The event's `messageId`, or the one that the gateway gave it.
    pub message_id: &'a str,
    /// The event.
    pub event: &'a RawValue,
}

/// What events that came together share in their envelopes; the fields are those of [`Ingest`].
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "as in the envelope")]
pub struct Common<'a> {
    pub workspace: &'a str,
    pub source: &'a str,
    pub key_id: &'a str,
    pub key_kind: KeyKind,
    pub received_at: Timestamp,
    pub ip: Option<&'a str>,
    pub headers: &'a [(String, String)],
}

impl Writer {
    /// For events that share this. Of headers with equal names the last one counts.
    pub fn new(common: Common<'_>) -> Self {
        let mut head = Vec::with_capacity(256);
        head.extend_from_slice(br#"{"version":1,"workspace":"#);
        text(&mut head, common.workspace);
        head.extend_from_slice(br#","source":"#);
        text(&mut head, common.source);
        head.extend_from_slice(br#","key_id":"#);
        text(&mut head, common.key_id);
        head.extend_from_slice(br#","key_kind":"#);
        value(&mut head, &common.key_kind);
        head.extend_from_slice(br#","received_at":"#);
        text(&mut head, common.received_at.text().as_str());
        let values: usize = common
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len() + 8)
            .sum();
        let mut shared = Vec::with_capacity(80 + values);
        if let Some(ip) = common.ip {
            shared.extend_from_slice(br#","ip":"#);
            text(&mut shared, ip);
        }
        shared.extend_from_slice(br#","headers":{"#);
        let mut headers: Vec<&(String, String)> = common.headers.iter().collect();
        headers.sort_by(|one, other| one.0.cmp(&other.0));
        let mut is_first = true;
        for (place, (name, value)) in headers.iter().enumerate() {
            if headers.get(place + 1).is_some_and(|next| next.0 == *name) {
                continue;
            }
            if !std::mem::take(&mut is_first) {
                shared.push(b',');
            }
            text(&mut shared, name);
            shared.push(b':');
            text(&mut shared, value);
        }
        shared.extend_from_slice(br#"},"marks":["#);
        Self { head, shared }
    }

    /// Appends the envelope of one event to `out`.
    pub fn write(&self, own: Own<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        if let Some(sent_at) = own.sent_at {
            out.extend_from_slice(br#","sent_at":"#);
            text(out, sent_at.text().as_str());
        }
        out.extend_from_slice(&self.shared);
        for (place, mark) in own.marks.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            text(out, mark);
        }
        out.extend_from_slice(br#"],"message_id":"#);
        text(out, own.message_id);
        out.extend_from_slice(br#","event":"#);
        out.extend_from_slice(own.event.get().as_bytes());
        out.push(b'}');
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    let is_plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if text.bytes().all(is_plain) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        value(out, text);
    }
}

fn value(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    let written = serde_json::to_writer(out, value);
    debug_assert!(written.is_ok(), "a text always serializes");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::envelope::Text;

    proptest! {
        #[test]
        fn what_is_written_in_parts_is_what_the_envelope_writes(
            (texts, ip) in (proptest::array::uniform4("\\PC{0,8}|[\"\\\\\\x00-\\x1f]{1,4}"), proptest::option::of("[0-9.]{1,8}")),
            headers in proptest::collection::vec(("[a-c\"]{0,2}", "\\PC{0,6}"), 0..4),
            (received, sent) in (any::<i64>(), proptest::option::of(any::<i64>())),
            marks in proptest::collection::vec(prop_oneof![Just("clock_skew"), Just("guest_rate")], 0..3),
        ) {
            let [workspace, source, key_id, message_id] = &texts;
            let received_at = Timestamp::clamped_from_millis(received);
            let sent_at = sent.map(Timestamp::clamped_from_millis);
            let event: Box<RawValue> = serde_json::from_str("{ \"a\" : 1 }").expect("JSON");
            let envelope = Ingest {
                version: V1,
                workspace: Text::from(workspace.as_str()),
                source: Text::from(source.as_str()),
                key_id: Text::from(key_id.as_str()),
                key_kind: KeyKind::Browser,
                received_at,
                sent_at,
                ip: ip.as_deref().map(Text::from),
                headers: headers.iter().map(|(name, value)| (Text::from(name.as_str()), Text::from(value.as_str()))).collect(),
                marks: marks.iter().copied().map(Text::from).collect(),
                message_id: Text::from(message_id.as_str()),
                event: &event,
            };
            let writer = Writer::new(Common {
                workspace,
                source,
                key_id,
                key_kind: KeyKind::Browser,
                received_at,
                ip: ip.as_deref(),
                headers: &headers,
            });
            let mut out = Vec::new();
            writer.write(Own { sent_at, marks: &marks, message_id, event: &event }, &mut out);
            prop_assert_eq!(String::from_utf8(out), String::from_utf8(envelope.to_bytes()));
        }
    }
}
