//! One event: its id, its key and its text.

use std::borrow::Cow;

use millrace_event::json::{Kind as JsonKind, Value};
use millrace_event::{IngestCode, Timestamp};
use millrace_service::config::{ByteSize, Faults};
use millrace_store::keys::IpPolicy;
use millrace_store::rules::Alias;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::decode::{Envelope, string, timestamp};
use super::outcome::Fault;
use super::rules;
use super::time::{Clocks, Told};
use super::{Refusal, Shape};
use rewrite::Changes;

mod address;
pub(super) mod rewrite;

/// Longest id that a client may give; a Kafka key and an index hold it.
const ID_LIMIT: usize = 1024;
/// Deepest nesting; what comes later reads events with a recursive reader.
const DEPTH: usize = 100;

/// The types of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Something happened.
    Track,
    /// Who somebody is.
    Identify,
    /// A page was seen.
    Page,
    /// Which group somebody belongs to.
    Group,
    /// A screen was seen.
    Screen,
    /// Two ids are one person.
    Alias,
    /// The same, as RudderStack's clients say it.
    Merge,
}

impl Kind {
    /// Every type.
    pub const ALL: [Self; 7] = [
        Self::Track,
        Self::Identify,
        Self::Page,
        Self::Group,
        Self::Screen,
        Self::Alias,
        Self::Merge,
    ];

    fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Its name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Track => "track",
            Self::Identify => "identify",
            Self::Page => "page",
            Self::Group => "group",
            Self::Screen => "screen",
            Self::Alias => "alias",
            Self::Merge => "merge",
        }
    }
}

/// `[events]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventLimits {
    /// Most bytes of one event; a larger one is rejected alone.
    pub event_limit: ByteSize,
    /// Most events of one batch; more refuse all of it.
    pub batch: usize,
    /// Request headers that go with the event, lower case.
    #[serde(deserialize_with = "millrace_service::config::list")]
    pub headers: Vec<String>,
}

impl Default for EventLimits {
    fn default() -> Self {
        let headers = ["accept-language", "origin", "referer", "user-agent"].map(str::to_owned);
        Self {
            event_limit: ByteSize::bytes(100_000),
            batch: 5_000,
            headers: headers.into(),
        }
    }
}

impl EventLimits {
    /// Reports limits beyond what Kafka takes.
    pub fn check(&self, faults: &mut Faults) {
        if self.event_limit.get() > 900_000 || self.event_limit.get() == 0 {
            faults.add(
                "events.event_limit",
                "must lie between 1B and 900000B, what a Kafka record holds",
            );
        }
        if self.batch == 0 {
            faults.add("events.batch", "must be 1 at least");
        }
    }
}

/// What events are judged by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms<'t> {
    pub(super) limits: &'t EventLimits,
    pub(super) clocks: &'t Clocks,
    pub(super) received_at: Timestamp,
    /// Whether the past is welcome.
    pub(super) is_import: bool,
    pub(super) aliases: &'t [Alias],
    /// What is kept of the address that an event gives as its person's.
    pub(super) ip: IpPolicy,
}

/// An event that may go on.
#[derive(Debug)]
pub(super) struct Prepared<'a> {
    pub(super) message_id: Cow<'a, str>,
    /// The Kafka key: anonymous id, else user id, else message id.
    pub(super) key: String,
    /// Who it is of: anonymous id, else user id.
    pub(super) person: Option<Cow<'a, str>>,
    /// What was noticed.
    pub(super) marks: Vec<&'static str>,
    pub(super) sent_at: Option<Timestamp>,
    pub(super) kind: Kind,
    /// As it was sent.
    pub(super) source: &'a RawValue,
    pub(super) fields: Fields,
    /// As sent, but for what the batch adds, what was missing, and the write key, which is nobody's business.
    pub(super) event: Cow<'a, RawValue>,
}

/// What is known of the fields whose types are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fields {
    /// They are of the types that the workspace knows.
    Fit,
    /// Nothing, and they stand as they were sent.
    Unread,
    /// Nothing, and they are not as they were sent.
    Changed,
}

/// The fields of an event that the rules read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Type,
    MessageId,
    AnonymousId,
    UserId,
    SentAt,
    Timestamp,
    OriginalTimestamp,
    Properties,
    Context,
    Integrations,
    WriteKey,
}

/// What an event has of them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Known<'a> {
    kind: Option<Value<'a>>,
    message_id: Option<Value<'a>>,
    anonymous_id: Option<Value<'a>>,
    user_id: Option<Value<'a>>,
    sent_at: Option<Value<'a>>,
    timestamp: Option<Value<'a>>,
    original_timestamp: Option<Value<'a>>,
    properties: Option<Value<'a>>,
    context: Option<Value<'a>>,
    integrations: Option<Value<'a>>,
    write_key: bool,
}

/// Judges one event, of whose fields `known` is known already if anything is, and makes it ready.
pub(super) fn prepare<'a>(
    source: &'a RawValue,
    known: Option<Known<'a>>,
    shape: Shape,
    batch: &Envelope<'a>,
    terms: Terms<'_>,
) -> Result<Prepared<'a>, Fault> {
    let Terms { limits, clocks, .. } = terms;
    let item = Value::from(source);
    let is_known = known.is_some();
    let known = known.unwrap_or_else(|| Known::of(item));
    let given = known.message_id.and_then(id);
    let fault = |refusal| Fault {
        message_id: given
            .clone()
            .filter(|id| id.len() <= ID_LIMIT)
            .map(Cow::into_owned),
        refusal,
    };
    let refuse = |code, field, message: &'static str| Err(fault(Refusal::of_field(code, field, message)));

    if item.kind() != JsonKind::Object {
        return Err(fault(Refusal::new(
            IngestCode::InvalidEvent,
            "an event is an object",
        )));
    }
    if item.text().len() > limits.event_limit.as_usize() {
        let message = format!("an event has {} at most", limits.event_limit);
        return Err(fault(Refusal::new(IngestCode::EventTooLarge, message)));
    }
    if is_deeper_than(item.text(), DEPTH) {
        return Err(fault(Refusal::new(
            IngestCode::InvalidEvent,
            format!("nested deeper than {DEPTH}"),
        )));
    }
    let own = known.kind.filter(|kind| kind.kind() != JsonKind::Null);
    let kind = match (own, shape) {
        (Some(name), _) => match string(name).and_then(|name| Kind::of(&name)) {
            Some(kind) => kind,
            None => return refuse(IngestCode::InvalidEvent, "type", "no such type of event"),
        },
        (None, Shape::Single(kind)) => kind,
        (None, Shape::Batch) => {
            return refuse(
                IngestCode::MissingField,
                "type",
                "an event of a batch needs a type",
            );
        }
    };
    let (anonymous_id, user_id) = (known.anonymous_id.and_then(id), known.user_id.and_then(id));
    for (field, value) in [
        ("messageId", &given),
        ("anonymousId", &anonymous_id),
        ("userId", &user_id),
    ] {
        if value.as_ref().is_some_and(|value| value.len() > ID_LIMIT) {
            return refuse(IngestCode::InvalidEvent, field, "an id has 1024 bytes at most");
        }
    }
    let told = Told {
        received_at: terms.received_at,
        sent_at: known.sent_at.and_then(timestamp).or(batch.sent_at),
        timestamp: known.timestamp.and_then(timestamp),
        is_import: terms.is_import,
    };
    if clocks.is_late(told) {
        return refuse(
            IngestCode::LateEvent,
            "sentAt",
            "the event was sent too long ago; history is sent with an import key",
        );
    }
    let mut changes = Changes::default();
    let mut marks = Vec::new();
    if own.is_none() {
        changes.front("type", format!("\"{}\"", kind.as_str()));
    }
    let message_id = given.clone().unwrap_or_else(|| {
        let minted = uuid::Uuid::now_v7().to_string();
        // Nothing in it needs an escape.
        changes.front("messageId", format!("\"{minted}\""));
        Cow::Owned(minted)
    });
    if let (Some((corrected, mark)), Some(said)) = (clocks.correct(told), known.timestamp) {
        marks.push(mark);
        changes.back("timestamp", format!("\"{corrected}\""));
        if known.original_timestamp.is_none() {
            changes.back("originalTimestamp", said.text());
        }
    }
    let mut fields = if is_known { Fields::Fit } else { Fields::Unread };
    if let (Some(properties), false) = (known.properties, terms.aliases.is_empty())
        && let Some(renamed) = rules::renamed(properties, terms.aliases).map_err(&fault)?
    {
        changes.back("properties", renamed);
        fields = Fields::Changed;
    }
    let context = rewrite::merged(known.context, batch.context);
    if let Some(context) = address::kept(known.context, context, terms.ip) {
        changes.back("context", context);
        fields = Fields::Changed;
    }
    if let Some(integrations) = rewrite::merged(known.integrations, batch.integrations) {
        changes.back("integrations", integrations);
    }
    if known.write_key {
        changes.drop("writeKey");
    }
    let person = anonymous_id.or(user_id);
    let key = person.clone().unwrap_or_else(|| message_id.clone()).into_owned();
    let event = match changes.apply(item) {
        None => Cow::Borrowed(source),
        Some(text) => Cow::Owned(RawValue::from_string(text).map_err(|_| {
            fault(Refusal::new(
                IngestCode::InvalidEvent,
                "the event cannot be written as JSON",
            ))
        })?),
    };
    Ok(Prepared {
        message_id,
        key,
        person,
        marks,
        sent_at: told.sent_at,
        kind,
        source,
        fields,
        event,
    })
}

impl Field {
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "type" => Self::Type,
            "messageId" => Self::MessageId,
            "anonymousId" => Self::AnonymousId,
            "userId" => Self::UserId,
            "sentAt" => Self::SentAt,
            "timestamp" => Self::Timestamp,
            "originalTimestamp" => Self::OriginalTimestamp,
            "properties" => Self::Properties,
            "context" => Self::Context,
            "integrations" => Self::Integrations,
            "writeKey" => Self::WriteKey,
            _ => return None,
        })
    }
}

impl<'a> Known<'a> {
    pub(super) fn of(item: Value<'a>) -> Self {
        let mut known = Self::default();
        for (name, value) in item.entries() {
            if let Some(field) = Field::of(&name.unescape().text) {
                known.set(field, value);
            }
        }
        known
    }

    /// Of equal names the last one counts.
    pub(super) fn set(&mut self, field: Field, value: Value<'a>) {
        let place = match field {
            Field::Type => &mut self.kind,
            Field::MessageId => &mut self.message_id,
            Field::AnonymousId => &mut self.anonymous_id,
            Field::UserId => &mut self.user_id,
            Field::SentAt => &mut self.sent_at,
            Field::Timestamp => &mut self.timestamp,
            Field::OriginalTimestamp => &mut self.original_timestamp,
            Field::Properties => &mut self.properties,
            Field::Context => &mut self.context,
            Field::Integrations => &mut self.integrations,
            Field::WriteKey => {
                self.write_key = true;
                return;
            }
        };
        *place = Some(value);
    }
}

/// An id as text; numbers are taken by their digits.
fn id(value: Value<'_>) -> Option<Cow<'_, str>> {
    match value.kind() {
        JsonKind::Number => Some(Cow::Borrowed(value.text())),
        _ => string(value),
    }
}

fn is_deeper_than(text: &str, limit: usize) -> bool {
    // Counting goes many bytes at a time, and hardly any event has that many brackets.
    let opening = text.bytes().filter(|byte| matches!(byte, b'{' | b'[')).count();
    if opening <= limit {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests;
