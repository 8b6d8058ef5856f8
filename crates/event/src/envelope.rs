//! The values of Kafka records: JSON envelopes, each with a `version`.
//!
//! Events inside stay [`RawValue`]s: text that a stage does not change leaves as it came, byte for byte.
//! Reading borrows from the record's bytes. A field that is absent and a field that is `null` mean the same;
//! writers leave optional fields out.

pub mod ingest;
mod retry;
mod transformed;

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use ingest::Ingest;
pub use retry::{Retry, RowPayload, Stage};
pub use transformed::{Origin, Output, Reason, Resume, Transformed};

/// The envelope version that this build writes and reads.
pub const VERSION: u8 = 1;

/// Version 1, checked when read: another number is refused with a message that names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct V1;

impl Serialize for V1 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(VERSION)
    }
}

impl<'de> Deserialize<'de> for V1 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let version = u64::deserialize(deserializer)?;
        if version == u64::from(VERSION) {
            return Ok(Self);
        }
        Err(serde::de::Error::custom(format_args!(
            "envelope version {version} is not known, only {VERSION}"
        )))
    }
}

/// A record's value is not the envelope that its topic holds.
#[derive(Debug, thiserror::Error)]
#[error("the value is no {envelope} envelope of version {VERSION}")]
pub struct ReadError {
    envelope: &'static str,
    source: serde_json::Error,
}

/// What every envelope can do: be read from a record's value and written to one.
pub trait Envelope<'a>: Serialize + Deserialize<'a> + Sized {
    /// What it is called in errors.
    const NAME: &'static str;

    /// Reads a record's value; strings and events borrow from it.
    ///
    /// # Errors
    /// The value is not JSON of this shape, or of another version.
    fn read(value: &'a [u8]) -> Result<Self, ReadError> {
        parse(value)
    }

    /// Appends the record's value to `out`.
    fn write(&self, out: &mut Vec<u8>) {
        // Envelopes have string keys and no failing `Serialize`, and a `Vec` takes every write.
        let written = serde_json::to_writer(out, self);
        debug_assert!(written.is_ok(), "an envelope always serializes");
    }

    /// The record's value.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        self.write(&mut bytes);
        bytes
    }
}

/// Reads an envelope with the general parser.
fn parse<'a, E: Envelope<'a>>(value: &'a [u8]) -> Result<E, ReadError> {
    serde_json::from_slice(value).map_err(|source| ReadError {
        envelope: E::NAME,
        source,
    })
}

/// Text that borrows from the record where it has no escapes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl Text<'_> {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same text on its own.
    pub fn into_owned(self) -> Text<'static> {
        Text(Cow::Owned(self.0.into_owned()))
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl From<String> for Text<'_> {
    fn from(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

impl std::fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
