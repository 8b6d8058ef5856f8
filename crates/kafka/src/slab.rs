//! Memory that many records lie in, used again once all of them are gone.
//!
//! A record in memory of its own is three allocations of the thread that reads and three frees of another, and the pages
//! under it go back to the kernel, and are cleared again, with every chunk. Records of a slab are copied into it one behind
//! another and share it; when the last one is gone it is free for others.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use millrace_event::header::Headers;

use crate::record::Record;

/// Bytes of a slab. One record keeps all of its slab, so this is also how much more than it counts a partition may hold
/// where it is done with a part of one.
const SLAB_BYTES: usize = 256 << 10;
/// What is kept of free slabs where nothing bounds what is held.
pub(crate) const REUSABLE_BYTES: usize = 16 << 20;
/// Room that is left for a record's headers; with more of them a slab becomes larger.
const HEADER_BYTES: usize = 4 << 10;

/// Free slabs. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Slabs(Arc<Free>);

#[derive(Debug)]
struct Free {
    slabs: Mutex<Vec<Vec<u8>>>,
    most: usize,
}

impl Slabs {
    /// Keeps at most `bytes` of free slabs.
    pub(crate) fn new(bytes: usize) -> Self {
        Self(Arc::new(Free {
            slabs: Mutex::default(),
            most: bytes / SLAB_BYTES,
        }))
    }

    /// Gives the memory of all free slabs back.
    pub(crate) fn give_back(&self) {
        let free = std::mem::take(&mut *self.0.slabs());
        drop(free);
    }

    fn take(&self) -> Vec<u8> {
        let free = self.0.slabs().pop();
        free.unwrap_or_else(|| Vec::with_capacity(SLAB_BYTES))
    }
}

impl Free {
    fn slabs(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.slabs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A slab that records lie in.
struct Full {
    bytes: Vec<u8>,
    home: Slabs,
}

impl AsRef<[u8]> for Full {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        let mut free = self.home.0.slabs();
        if bytes.capacity() == SLAB_BYTES && free.len() < self.home.0.most {
            free.push(bytes);
        }
    }
}

/// What is to be copied of a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) offset: u64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: &'a [u8],
}

/// Where a record lies.
#[derive(Debug)]
struct Place {
    offset: u64,
    timestamp_ms: i64,
    key: Option<Range<usize>>,
    value: Range<usize>,
    headers: Range<usize>,
}

/// Lays records into slabs.
#[derive(Debug)]
pub(crate) struct Shelf {
    slabs: Slabs,
    slab: Vec<u8>,
    places: Vec<Place>,
}

impl Shelf {
    pub(crate) const fn new(slabs: Slabs) -> Self {
        Self {
            slabs,
            slab: Vec::new(),
            places: Vec::new(),
        }
    }

    /// How many records lie on it.
    pub(crate) const fn len(&self) -> usize {
        self.places.len()
    }

    /// Copies a record: how many bytes of key, value and headers it has. Where its slab is full, those before it go to
    /// `batch`.
    pub(crate) fn put<'h>(
        &mut self,
        parts: Parts<'_>,
        headers: impl Iterator<Item = (&'h str, &'h [u8])>,
        batch: &mut Vec<Record>,
    ) -> usize {
        let key_bytes = parts.key.map_or(0, <[u8]>::len);
        let needed = key_bytes + parts.value.len() + HEADER_BYTES;
        if self.slab.len() + needed > SLAB_BYTES {
            self.finish(batch);
        }
        if self.slab.capacity() == 0 {
            self.slab = self.slabs.take();
        }
        if needed > SLAB_BYTES {
            self.slab.reserve_exact(needed);
        }
        let key = parts.key.map(|key| self.copy(key));
        let value = self.copy(parts.value);
        let start = self.slab.len();
        let mut size = key_bytes + parts.value.len();
        for (name, value) in headers {
            Headers::encode(&mut self.slab, name, value);
            size += name.len() + value.len();
        }
        self.places.push(Place {
            offset: parts.offset,
            timestamp_ms: parts.timestamp_ms,
            key,
            value,
            headers: start..self.slab.len(),
        });
        size
    }

    fn copy(&mut self, bytes: &[u8]) -> Range<usize> {
        let start = self.slab.len();
        self.slab.extend_from_slice(bytes);
        start..self.slab.len()
    }

    /// What was put since the last time goes to `batch`. A slab that is mostly empty stays, and its records get memory of
    /// their own size: few records must not keep much.
    pub(crate) fn finish(&mut self, batch: &mut Vec<Record>) {
        if self.places.is_empty() {
            return;
        }
        let bytes = if self.slab.len() < SLAB_BYTES / 4 * 3 {
            let bytes = Bytes::copy_from_slice(&self.slab);
            self.slab.clear();
            bytes
        } else {
            Bytes::from_owner(Full {
                bytes: std::mem::take(&mut self.slab),
                home: self.slabs.clone(),
            })
        };
        batch.reserve(self.places.len());
        batch.extend(self.places.drain(..).map(|place| Record {
            offset: place.offset,
            timestamp_ms: place.timestamp_ms,
            key: place.key.map(|key| bytes.slice(key)),
            value: bytes.slice(place.value),
            headers: Headers::encoded(bytes.slice(place.headers)),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(shelf: &mut Shelf, batch: &mut Vec<Record>, offset: u64, value: &[u8]) -> usize {
        let parts = Parts {
            offset,
            timestamp_ms: 7,
            key: Some(b"key"),
            value,
        };
        let headers = [("id", b"1".as_slice()), ("attempt", b"0")];
        shelf.put(parts, headers.into_iter(), batch)
    }

    #[test]
    fn records_come_out_as_they_went_in_whatever_their_sizes() {
        let mut shelf = Shelf::new(Slabs::new(10 * SLAB_BYTES));
        let sizes = [
            0,
            1,
            1000,
            SLAB_BYTES - 1,
            SLAB_BYTES,
            3 * SLAB_BYTES,
            5,
            100_000,
            100_000,
            100_000,
        ];
        let value = |index: usize, size: usize| vec![u8::try_from(index).expect("few"); size];
        let mut batch = Vec::new();
        for (index, size) in sizes.into_iter().enumerate() {
            let counted = put(&mut shelf, &mut batch, index as u64, &value(index, size));
            assert_eq!(counted, size + "keyid1attempt0".len());
        }
        shelf.finish(&mut batch);
        assert_eq!(batch.len(), sizes.len());
        for (index, (record, size)) in batch.iter().zip(sizes).enumerate() {
            assert_eq!((record.offset, record.timestamp_ms), (index as u64, 7));
            assert_eq!(record.key.as_deref(), Some(b"key".as_slice()));
            assert!(record.value == value(index, size), "{index}");
            let headers: Vec<_> = record.headers.iter().collect();
            assert_eq!(headers, [("id", b"1".as_slice()), ("attempt", b"0")]);
            assert_eq!(record.size(), size + "keyid1attempt0".len());
        }
    }

    #[test]
    fn a_slab_is_used_again_once_its_last_record_is_gone_and_no_sooner() {
        let slabs = Slabs::new(SLAB_BYTES);
        let mut shelf = Shelf::new(slabs.clone());
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for offset in 0..SLAB_BYTES as u64 / 1000 {
            put(&mut shelf, &mut first, offset, &[b'a'; 900]);
        }
        shelf.finish(&mut first);
        let last = first.pop().expect("records");
        drop(first);
        assert_eq!(slabs.0.slabs().len(), 0, "one record is left");
        assert_eq!(last.value, [b'a'; 900].as_slice());
        drop(last);
        assert_eq!(slabs.0.slabs().len(), 1);
        put(&mut shelf, &mut second, 0, b"b");
        assert_eq!(slabs.0.slabs().len(), 0);
        shelf.finish(&mut second);
        slabs.give_back();
        assert_eq!(
            second.first().map(|record| record.value.as_ref()),
            Some(b"b".as_slice())
        );
    }

    #[test]
    fn few_records_keep_no_more_memory_than_they_need_and_free_slabs_are_bounded() {
        let slabs = Slabs::new(2 * SLAB_BYTES);
        let mut shelf = Shelf::new(slabs.clone());
        let mut batch = Vec::new();
        put(&mut shelf, &mut batch, 0, b"few");
        shelf.finish(&mut batch);
        assert_eq!(shelf.slab.capacity(), SLAB_BYTES, "the slab was not given away");
        for offset in 0..5 {
            put(
                &mut shelf,
                &mut batch,
                offset,
                &[b'a'; SLAB_BYTES - HEADER_BYTES - 100],
            );
        }
        shelf.finish(&mut batch);
        drop(batch);
        assert_eq!(slabs.0.slabs().len(), 2);
        slabs.give_back();
        assert_eq!(slabs.0.slabs().len(), 0);
    }
}
