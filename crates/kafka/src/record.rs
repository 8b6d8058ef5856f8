//! Records as they are read and as they are to be written.

use bytes::Bytes;
use millrace_event::header::Headers;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers as _, Message};

use crate::slab::{Parts, Shelf};

/// A record that was read. Its memory may be shared with others of its batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its offset.
    pub offset: u64,
    /// Its timestamp in milliseconds since the epoch; 0 where the broker has none.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value; empty for a tombstone.
    pub value: Bytes,
    /// Its headers.
    pub headers: Headers,
}

impl Record {
    /// Lays a message on a shelf: see [`Shelf::put`].
    pub(crate) fn lay(message: &BorrowedMessage<'_>, shelf: &mut Shelf, batch: &mut Vec<Self>) -> usize {
        let parts = Parts {
            offset: u64::try_from(message.offset()).unwrap_or(0),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
            key: message.key(),
            value: message.payload().unwrap_or_default(),
        };
        let found = message.headers();
        let headers = found.into_iter().flat_map(BorrowedHeaders::iter);
        let headers = headers.map(|header| (header.key, header.value.unwrap_or_default()));
        shelf.put(parts, headers, batch)
    }

    /// Bytes of key, value and headers: what a memory budget counts.
    pub fn size(&self) -> usize {
        self.key.as_ref().map_or(0, Bytes::len) + self.value.len() + self.headers.size()
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
