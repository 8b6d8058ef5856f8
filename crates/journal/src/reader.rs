//! The end of the journal that the shipper reads from.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use millrace_event::Identity;
use millrace_event::header::Headers;
use tokio::sync::watch;

use super::aside::{self, Line};
use super::state::{Shared, Slot};
use super::{Lane, Position, ReadError, Recovered, frame, recover};

/// How much one batch may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes as they lie in the journal.
    pub bytes: usize,
    /// Records.
    pub records: usize,
}

/// A record on its way out. Key and value share the memory of their batch.
#[derive(Clone, Debug)]
pub struct Shipped {
    /// Its identity.
    pub identity: Identity,
    /// The Kafka key.
    pub key: Bytes,
    /// The Kafka headers, without the identity.
    pub headers: Headers,
    /// The Kafka value.
    pub value: Bytes,
}

/// The next records of a lane, in order.
#[derive(Debug)]
pub struct Batch {
    /// The lane.
    pub lane: Lane,
    /// The records; none where all that stood here was damaged.
    pub records: Vec<Shipped>,
    /// Behind the last record.
    end: Position,
    /// Slots that the batch goes over, damaged ones included.
    slots: u64,
}

/// Reads and acknowledges. Cheap to clone; one lane is for one reader at a time.
#[derive(Clone, Debug)]
pub struct Reader {
    shared: Arc<Shared>,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Changes whenever there may be more to read.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.subscribe()
    }

    /// Every lane that ever had a record in the segments that are there.
    pub fn lanes(&self) -> Vec<Lane> {
        let state = self.shared.lock();
        let mut lanes: Vec<_> = state
            .segments
            .values()
            .flat_map(|segment| segment.ends.keys().copied())
            .collect();
        lanes.sort_unstable();
        lanes.dedup();
        lanes
    }

    /// True when Kafka has acknowledged all that may be shipped and nothing else is left.
    pub fn is_drained(&self) -> bool {
        self.shared.lock().records == 0
    }

    /// Whether [`Reader::take`] may find something. Reads nothing from the disk.
    pub fn has_next(&self, lane: Lane) -> bool {
        self.find(lane, Limits { bytes: 0, records: 1 }, false).is_some()
    }

    /// The next records of a lane that are not acknowledged; none where there are none that may be shipped.
    /// Blocks on the disk.
    ///
    /// A record that was sound when it was written and is no more is set aside and left out.
    ///
    /// # Errors
    /// When a segment or the side file cannot be used; the same call may succeed later.
    pub fn take(&self, lane: Lane, limits: Limits) -> Result<Option<Batch>, ReadError> {
        loop {
            let Some(found) = self.find(lane, limits, true) else {
                return Ok(None);
            };
            let at = |source| ReadError {
                segment: found.segment,
                source,
            };
            let Some(slots) = &found.slots else {
                let index = recover::index(&self.shared.path(found.segment)).map_err(at)?;
                let mut state = self.shared.lock();
                if let Some(segment) = state.segments.get_mut(&found.segment) {
                    segment.index = Some(index);
                }
                state.trim_indexes(Some(found.segment));
                continue;
            };
            return self.read(lane, &found, slots).map(Some).map_err(at);
        }
    }

    /// As [`Reader::take`], where all that it would give is still in memory: never blocks. What is taken so is not kept for
    /// another time: whoever does not ship it reads it from the disk.
    pub fn take_recent(&self, lane: Lane, limits: Limits) -> Option<Batch> {
        let found = self.find(lane, limits, true)?;
        let slots = found.slots.as_ref()?;
        if !slots.iter().all(|(_, recent)| recent.is_some()) {
            return None;
        }
        // Nothing is read, so nothing can fail.
        let batch = self.read(lane, &found, slots).ok()?;
        let mut state = self.shared.lock();
        for (slot, _) in slots {
            state.recent.taken(found.segment, slot.offset);
        }
        Some(batch)
    }

    /// Kafka has all of `batch`, or what it refused is set aside.
    pub fn acknowledge(&self, batch: &Batch) {
        self.shared.acknowledge(batch.lane, batch.end, batch.slots);
    }

    /// Keeps records that Kafka refuses for good where people find them. Blocks on the disk.
    ///
    /// # Errors
    /// When the disk refuses; the records must not be acknowledged then.
    pub fn set_aside(&self, lane: Lane, record: &Shipped, reason: &str) -> io::Result<()> {
        let line = Line {
            at: self.shared.now(),
            reason,
            segment: None,
            offset: None,
            topic: Some(lane.topic.as_str()),
            id: Some(record.identity.to_string()),
            key: &record.key,
            bytes: &record.value,
        };
        aside::add(&self.shared.dir, &[line])
    }

    /// Stores how far Kafka has acknowledged and deletes segments that nobody needs any more; says how many.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// When the disk refuses; it is tried again the next time.
    pub fn tidy(&self) -> io::Result<usize> {
        self.shared.tidy(false)
    }

    /// While held, segments of earlier processes stay, shipped or not.
    pub fn hold_recovered(&self, hold: bool) {
        self.shared.lock().hold_recovered = hold;
    }

    /// Shows the value of every accepted event in one recovered segment, where it was written within
    /// `younger_than`. Blocks on the disk.
    ///
    /// # Errors
    /// When the segment cannot be read.
    pub fn visit(
        &self,
        segment: u64,
        younger_than: Duration,
        visit: impl FnMut(&[u8]),
    ) -> Result<(), ReadError> {
        recover::visit(
            &self.shared.path(segment),
            younger_than,
            self.shared.clock(),
            visit,
        )
        .map_err(|source| ReadError { segment, source })
    }

    /// Where the next records lie; with `recent` also what of them is still in memory.
    fn find(&self, lane: Lane, limits: Limits, recent: bool) -> Option<Found> {
        let state = self.shared.lock();
        let position = state.positions.get(&lane).copied().unwrap_or_default();
        let (number, segment) = state.segments.iter().find(|(_, segment)| {
            let end = segment.ends.get(&lane).map(|seq| Position {
                epoch: segment.epoch,
                seq: *seq,
            });
            end.is_some_and(|end| end > position)
        })?;
        let (number, epoch) = (*number, segment.epoch);
        let end = Position {
            epoch,
            seq: segment.ends.get(&lane).copied().unwrap_or_default(),
        };
        let Some(index) = &segment.index else {
            return Some(Found {
                segment: number,
                epoch,
                seed: segment.seed,
                end,
                slots: None,
            });
        };
        let all = index.get(&lane).map(Vec::as_slice).unwrap_or_default();
        let first = all.partition_point(|slot| Position { epoch, seq: slot.seq } < position);
        let mut bytes = 0;
        let mut slots = Vec::new();
        if first == all.len() {
            // Records that were listed once and are not found any more must not hold up those behind them.
            tracing::error!(segment = number, "records of a segment are gone");
            return Some(Found {
                segment: number,
                epoch,
                seed: segment.seed,
                end,
                slots: Some(slots),
            });
        }
        for slot in all.iter().skip(first).take(limits.records) {
            let end = slot
                .offset
                .saturating_add(u64::try_from(slot.size).unwrap_or(u64::MAX));
            bytes += slot.size;
            if end > segment.readable || (bytes > limits.bytes && !slots.is_empty()) {
                break;
            }
            let recent = recent.then(|| state.recent.get(number, slot.offset, slot.size));
            slots.push((*slot, recent.flatten()));
        }
        (!slots.is_empty()).then_some(Found {
            segment: number,
            epoch,
            seed: segment.seed,
            end,
            slots: Some(slots),
        })
    }

    fn read(&self, lane: Lane, found: &Found, slots: &[(Slot, Option<Bytes>)]) -> io::Result<Batch> {
        let bytes = self.bytes(found, slots)?;
        let mut records = Vec::with_capacity(slots.len());
        let mut end = found.end;
        let mut from = 0;
        for (slot, recent) in slots {
            end = Position {
                epoch: found.epoch,
                seq: slot.seq + 1,
            };
            let own = bytes.slice(from..from + slot.size);
            from += slot.size;
            let decoded = match recent {
                Some(_) => frame::decode_own(&own),
                None => frame::decode(&own, found.seed),
            };
            let identity = self.shared.identity(lane, found.epoch, slot.seq);
            match (decoded, identity) {
                (Some((record, _)), Some(identity)) if (record.lane, record.seq) == (lane, slot.seq) => {
                    records.push(Shipped {
                        identity,
                        key: own.slice_ref(record.key),
                        headers: record.headers(),
                        value: own.slice_ref(record.value),
                    });
                }
                _ => self.damaged(lane, found, slot, &own)?,
            }
        }
        Ok(Batch {
            lane,
            records,
            end,
            slots: u64::try_from(slots.len()).unwrap_or(u64::MAX),
        })
    }

    /// The bytes of all slots, one behind the other, on memory of their own: a batch that waits for Kafka must not
    /// keep the groups that its records came with.
    fn bytes(&self, found: &Found, slots: &[(Slot, Option<Bytes>)]) -> io::Result<Bytes> {
        let mut bytes = BytesMut::with_capacity(slots.iter().map(|(slot, _)| slot.size).sum());
        let mut file = None;
        for (slot, recent) in slots {
            if let Some(recent) = recent {
                bytes.extend_from_slice(recent);
                continue;
            }
            let file = match &mut file {
                Some(file) => file,
                none => none.insert(File::open(self.shared.path(found.segment))?),
            };
            let start = bytes.len();
            bytes.resize(start + slot.size, 0);
            file.read_exact_at(&mut bytes[start..], slot.offset)?;
        }
        Ok(bytes.freeze())
    }

    fn damaged(&self, lane: Lane, found: &Found, slot: &Slot, bytes: &[u8]) -> io::Result<()> {
        tracing::error!(
            segment = found.segment,
            offset = slot.offset,
            "a record was damaged after it was written"
        );
        let line = Line {
            at: self.shared.now(),
            reason: "damaged",
            segment: Some(found.segment),
            offset: Some(slot.offset),
            topic: Some(lane.topic.as_str()),
            id: self
                .shared
                .identity(lane, found.epoch, slot.seq)
                .map(|id| id.to_string()),
            key: &[],
            bytes,
        };
        aside::add(&self.shared.dir, &[line])
    }
}

struct Found {
    segment: u64,
    epoch: u32,
    seed: u32,
    /// Behind the lane's last record in the segment.
    end: Position,
    /// Each with its bytes where they are in memory. None where the segment's list is not.
    slots: Option<Vec<(Slot, Option<Bytes>)>>,
}

impl Recovered {
    /// The segments that were there when the journal was opened, oldest first.
    pub fn segments(&self) -> &[u64] {
        &self.segments
    }
}
