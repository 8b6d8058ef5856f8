//! Events as they came out of a worker.

use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::json::known;

/// The text of an event that was read as JSON. It lies where it came, among the others of its batch, whose memory it keeps:
/// a batch is not as many allocations as it has events.
#[derive(Clone, Debug)]
pub struct EventText(Bytes);

impl EventText {
    /// Bytes that are known to be UTF-8, and JSON without white space around it.
    pub(super) const fn known(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The text.
    pub fn get(&self) -> &str {
        simdutf8::basic::from_utf8(&self.0).unwrap_or_default()
    }

    /// The same as a raw value.
    pub fn raw(&self) -> &RawValue {
        let text = self.get();
        let raw = known(text).or_else(|| serde_json::from_str(text).ok());
        raw.unwrap_or(RawValue::NULL)
    }
}

impl From<Box<RawValue>> for EventText {
    fn from(raw: Box<RawValue>) -> Self {
        Self(Bytes::from(String::from(Box::<str>::from(raw))))
    }
}

impl Serialize for EventText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.raw().serialize(serializer)
    }
}
