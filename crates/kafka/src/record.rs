//! Records as they are read and as they are to be written.

use millrace_event::header::Headers;
use rdkafka::message::{BorrowedMessage, Headers as _, Message};

/// A record that was read, on its own memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its offset.
    pub offset: u64,
    /// Its timestamp in milliseconds since the epoch; 0 where the broker has none.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; empty for a tombstone.
    pub value: Vec<u8>,
    /// Its headers.
    pub headers: Headers,
}

impl Record {
    pub(crate) fn copied_from(message: &BorrowedMessage<'_>) -> Self {
        let headers = message.headers().map_or_else(Headers::new, |found| {
            let size = |header: rdkafka::message::Header<'_, &[u8]>| {
                header.key.len() + header.value.map_or(0, <[u8]>::len)
            };
            let mut headers = Headers::with_capacity(found.count(), found.iter().map(size).sum());
            for header in found.iter() {
                headers.push(header.key, header.value.unwrap_or_default());
            }
            headers
        });
        Self {
            offset: u64::try_from(message.offset()).unwrap_or(0),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec).unwrap_or_default(),
            headers,
        }
    }

    /// Bytes of key, value and headers: what a memory budget counts.
    pub fn size(&self) -> usize {
        self.key.as_ref().map_or(0, Vec::len) + self.value.len() + self.headers.size()
    }
}

/// A record to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Vec<u8>,
    /// Its headers.
    pub headers: Headers,
}

impl Outgoing {
    /// Bytes of key, value and headers.
    pub fn size(&self) -> usize {
        self.key.as_ref().map_or(0, Vec::len) + self.value.len() + self.headers.size()
    }
}
