//! Kafka header names, in one place, and the text forms of their values.

use std::fmt;

use bytes::Bytes;

/// The identity, as text.
pub const ID: &str = "id";
/// How often the event went round already, decimal; absent means 0.
pub const ATTEMPT: &str = "attempt";
/// When a retry copy is due: RFC 3339.
pub const DUE_AT: &str = "due-at";
/// The stage that failed: `ingest`, `rotor` or `bulker`.
pub const STAGE: &str = "stage";
/// The workspace, so that dead letters can be filtered without reading their values.
pub const WORKSPACE: &str = "workspace";
/// A code of [`crate::code`].
pub const ERROR_CODE: &str = "error-code";
/// What went wrong, for people; never a value of the event.
pub const ERROR_MESSAGE: &str = "error-message";
/// The field that did not fit.
pub const ERROR_FIELD: &str = "error-field";
/// The frames of the functions' own code, innermost first, one on a line.
pub const ERROR_STACK: &str = "error-stack";
/// The function that failed.
pub const FUNCTION: &str = "function";
/// Its version, decimal.
pub const FUNCTION_VERSION: &str = "function-version";
/// The table a row was meant for, `database.table`.
pub const TABLE: &str = "table";
/// Which of the event's rows it is, decimal.
pub const SUB: &str = "sub";
/// When it failed: RFC 3339.
pub const FAILED_AT: &str = "failed-at";
/// Topic of the record that failed.
pub const ORIGIN_TOPIC: &str = "origin-topic";
/// Partition of the record that failed, decimal.
pub const ORIGIN_PARTITION: &str = "origin-partition";
/// Offset of the record that failed, decimal.
pub const ORIGIN_OFFSET: &str = "origin-offset";
/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";

/// The names that Kafka Connect's tools read on dead letters.
pub mod connect {
    /// Topic of the record that failed.
    pub const TOPIC: &str = "__connect.errors.topic";
    /// Partition of the record that failed, decimal.
    pub const PARTITION: &str = "__connect.errors.partition";
    /// Offset of the record that failed, decimal.
    pub const OFFSET: &str = "__connect.errors.offset";
    /// The stage that failed.
    pub const STAGE: &str = "__connect.errors.stage";
    /// The error's code, in the place of a class name.
    pub const CLASS_NAME: &str = "__connect.errors.exception.class.name";
    /// The error's message.
    pub const MESSAGE: &str = "__connect.errors.exception.message";
    /// The error's frames.
    pub const STACKTRACE: &str = "__connect.errors.exception.stacktrace";
}

/// Headers of one record, in order; a name may stand more than once, the last one counts.
///
/// Those that were read lie in memory that their record shares with others, those that were added in one buffer.
#[derive(Clone, Default)]
pub struct Headers {
    /// For each header the length of its name and of its value, then both.
    read: Bytes,
    /// The same for those that were added, which come behind.
    added: Vec<u8>,
}

/// The bytes of one length.
const LENGTH: usize = size_of::<usize>();

impl Headers {
    /// No headers.
    pub const fn new() -> Self {
        Self {
            read: Bytes::new(),
            added: Vec::new(),
        }
    }

    /// Headers that [`Self::encode`] has written.
    pub const fn encoded(bytes: Bytes) -> Self {
        Self {
            read: bytes,
            added: Vec::new(),
        }
    }

    /// Writes a header behind others, for [`Self::encoded`].
    pub fn encode(out: &mut Vec<u8>, name: &str, value: &[u8]) {
        out.reserve(2 * LENGTH + name.len() + value.len());
        out.extend_from_slice(&name.len().to_ne_bytes());
        out.extend_from_slice(&value.len().to_ne_bytes());
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(value);
    }

    /// Adds a header.
    pub fn push(&mut self, name: &str, value: impl AsRef<[u8]>) {
        Self::encode(&mut self.added, name, value.as_ref());
    }

    /// Adds a header, for chains.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.push(name, value);
        self
    }

    /// The value of the last header of that name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        let same = self.raw().filter(|(known, _)| *known == name.as_bytes());
        same.last().map(|(_, value)| value)
    }

    /// As [`Self::get`], where the value is UTF-8.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// The headers in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        // Names came as text.
        self.raw()
            .map(|(name, value)| (std::str::from_utf8(name).unwrap_or_default(), value))
    }

    /// Bytes of all names and values.
    pub fn size(&self) -> usize {
        self.raw().map(|(name, value)| name.len() + value.len()).sum()
    }

    fn raw(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        decode(&self.read).chain(decode(&self.added))
    }
}

fn decode(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
    let mut rest = bytes;
    let mut take = move |length: usize| {
        let (taken, behind) = rest.split_at_checked(length)?;
        rest = behind;
        Some(taken)
    };
    std::iter::from_fn(move || {
        let name = usize::from_ne_bytes(*take(LENGTH)?.first_chunk()?);
        let value = usize::from_ne_bytes(*take(LENGTH)?.first_chunk()?);
        Some((take(name)?, take(value)?))
    })
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.raw().eq(other.raw())
    }
}

impl Eq for Headers {}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = self
            .iter()
            .map(|(name, value)| (name, String::from_utf8_lossy(value)));
        f.debug_map().entries(texts).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_header_of_a_name_counts() {
        let headers = Headers::new().with(ID, "a").with(ATTEMPT, "1").with(ID, "b");
        assert_eq!(headers.text(ID), Some("b"));
        assert_eq!(headers.text(TABLE), None);
        assert_eq!(headers.size(), 2 + 1 + 7 + 1 + 2 + 1);
    }

    #[test]
    fn headers_that_were_read_come_before_those_that_were_added() {
        let mut bytes = Vec::new();
        Headers::encode(&mut bytes, ID, b"a");
        Headers::encode(&mut bytes, ATTEMPT, b"");
        let read = Headers::encoded(bytes.into());
        assert_eq!(read, Headers::new().with(ID, "a").with(ATTEMPT, ""));
        let both = read.clone().with(ID, "b");
        assert_ne!(both, read);
        assert_eq!(both, Headers::new().with(ID, "a").with(ATTEMPT, "").with(ID, "b"));
        assert_eq!((both.text(ID), both.text(ATTEMPT)), (Some("b"), Some("")));
    }

    #[test]
    fn headers_come_in_their_order_whatever_is_in_them() {
        let long = vec![0xff; 70_000];
        let headers = Headers::new()
            .with("", "")
            .with(ERROR_MESSAGE, long.as_slice())
            .with("é", "1");
        let read: Vec<_> = headers.iter().collect();
        assert_eq!(
            read,
            [("", &b""[..]), (ERROR_MESSAGE, long.as_slice()), ("é", b"1")]
        );
        assert_eq!(
            (headers.text(ERROR_MESSAGE), headers.text("é")),
            (None, Some("1"))
        );
        assert_ne!(headers, headers.clone().with("é", "1"));
        assert_eq!(Headers::new().iter().count(), 0);
    }
}
