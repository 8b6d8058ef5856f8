//! What writer, syncer and readers share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millrace_event::{Identity, Timestamp};
use millrace_service::{Clock, failpoint};
use tokio::sync::watch;

use super::disk::SegmentFile;
use super::meta::Ids;
use super::position::{self, Positions};
use super::recent::Recent;
use super::recover::Kept;
use super::{Config, Lane, Position, segment};

/// Most segments whose records are listed in memory; the list of another one is read from its file again.
const INDEXED: usize = 16;

/// Most files of shipped segments that wait to be new ones.
const SPARES: usize = 2;

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) seq: u64,
    pub(super) offset: u64,
    pub(super) size: usize,
}

/// Where the records of each lane lie in one segment, in order.
pub(super) type Index = BTreeMap<Lane, Vec<Slot>>;

/// One segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) epoch: u32,
    pub(super) seed: u32,
    /// Length of the file's sound part.
    pub(super) length: u64,
    /// Up to where it may be shipped.
    pub(super) readable: u64,
    /// The sequence number behind the last record of each lane.
    pub(super) ends: BTreeMap<Lane, u64>,
    pub(super) index: Option<Index>,
    /// When it took its last record; none while it takes more.
    pub(super) sealed: Option<Instant>,
    /// Whether an earlier process wrote it.
    pub(super) recovered: bool,
}

/// The mutable part.
#[derive(Debug)]
pub(super) struct State {
    pub(super) segments: BTreeMap<u64, Segment>,
    pub(super) positions: Positions,
    positions_stored: bool,
    /// Bytes of all segments.
    pub(super) bytes: u64,
    /// Records that are not acknowledged.
    pub(super) records: u64,
    failed: bool,
    /// While true, segments of earlier processes stay.
    pub(super) hold_recovered: bool,
    /// What was appended last.
    pub(super) recent: Recent,
    /// Files of shipped segments that wait to be new ones.
    pub(super) spares: Vec<PathBuf>,
}

impl State {
    pub(super) fn of(kept: Kept, recent: usize) -> Self {
        let Kept { segments, positions } = kept;
        let bytes = segments.values().map(|segment| segment.length).sum();
        let mut state = Self {
            segments,
            positions,
            positions_stored: true,
            bytes,
            records: 0,
            failed: false,
            hold_recovered: false,
            recent: Recent::new(recent),
            spares: Vec::new(),
        };
        let pending = |(lane, slots): (&Lane, &Vec<Slot>), epoch| {
            let position = state.positions.get(lane).copied().unwrap_or_default();
            slots
                .iter()
                .filter(|slot| Position { epoch, seq: slot.seq } >= position)
                .count()
        };
        let count: usize = state
            .segments
            .values()
            .flat_map(|segment| {
                segment
                    .index
                    .iter()
                    .flatten()
                    .map(|entry| pending(entry, segment.epoch))
            })
            .sum();
        state.records = u64::try_from(count).unwrap_or(u64::MAX);
        state.trim_indexes(None);
        state
    }

    /// Forgets lists of segments beyond [`INDEXED`], the oldest and the one that `keep` names last.
    pub(super) fn trim_indexes(&mut self, keep: Option<u64>) {
        let indexed = self
            .segments
            .values()
            .filter(|segment| segment.index.is_some())
            .count();
        let newest = self.segments.keys().next_back().copied();
        let candidates = self.segments.iter_mut().rev().filter(|(number, segment)| {
            segment.index.is_some()
                && segment.sealed.is_some()
                && keep != Some(**number)
                && newest != Some(**number)
        });
        for (_, segment) in candidates.take(indexed.saturating_sub(INDEXED)) {
            segment.index = None;
        }
    }

    /// Moves the position of a lane.
    pub(super) fn acknowledge(&mut self, lane: Lane, position: Position, records: u64) {
        let known = self.positions.entry(lane).or_default();
        if position > *known {
            *known = position;
            self.positions_stored = false;
            self.records = self.records.saturating_sub(records);
        }
    }

    fn is_acknowledged(&self, segment: &Segment) -> bool {
        segment.ends.iter().all(|(lane, end)| {
            let position = self.positions.get(lane).copied().unwrap_or_default();
            position
                >= Position {
                    epoch: segment.epoch,
                    seq: *end,
                }
        })
    }

    /// Whether Kafka has everything that earlier processes wrote.
    pub(super) fn recovered_is_acknowledged(&self) -> bool {
        let mut recovered = self.segments.values().filter(|segment| segment.recovered);
        recovered.all(|segment| self.is_acknowledged(segment))
    }

    fn finished(&self, now: Instant, retain: Duration) -> Vec<u64> {
        // The newest one stays: its header says where numbering stands.
        let newest = self.segments.keys().next_back();
        self.segments
            .iter()
            .filter(|(number, _)| Some(*number) != newest)
            .filter(|(_, segment)| {
                let held = segment.recovered && self.hold_recovered;
                segment.sealed.is_some_and(|sealed| now >= sealed + retain)
                    && !held
                    && self.is_acknowledged(segment)
            })
            .map(|(number, _)| *number)
            .collect()
    }
}

/// What the journal holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Bytes of all segments.
    pub bytes: u64,
    /// Records that Kafka has not acknowledged.
    pub records: u64,
    /// Segments.
    pub segments: usize,
}

/// Whether the journal takes more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Sound,
    /// A sync failed; it does not until the process is started anew.
    Failed,
}

/// Shared by the writer, the syncer and all readers.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    retain: Duration,
    clock: Arc<dyn Clock>,
    epochs: Vec<Ids>,
    state: Mutex<State>,
    /// Held over a sync and what is concluded from it: the system reports a failed write-back once, and
    /// nobody may take the success that follows for one's own.
    sync_gate: Mutex<()>,
    syncs: AtomicU64,
    /// Counts changes that a reader may wait for.
    changed: watch::Sender<u64>,
    /// Counts acknowledgements.
    acknowledged: watch::Sender<u64>,
}

impl Shared {
    pub(super) fn new(
        dir: &Path,
        config: &Config,
        clock: Arc<dyn Clock>,
        epochs: Vec<Ids>,
        state: State,
    ) -> Self {
        Self {
            dir: dir.to_owned(),
            retain: config.retain,
            clock,
            epochs,
            state: Mutex::new(state),
            sync_gate: Mutex::new(()),
            syncs: AtomicU64::new(0),
            changed: watch::Sender::new(0),
            acknowledged: watch::Sender::new(0),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::clamped_from_millis(self.clock.now().as_millisecond())
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    pub(super) fn instant(&self) -> Instant {
        self.clock.instant()
    }

    pub(super) fn path(&self, number: u64) -> PathBuf {
        segment::path(&self.dir, number)
    }

    pub(super) fn identity(&self, lane: Lane, epoch: u32, seq: u64) -> Option<Identity> {
        let ids = self.epochs.get(usize::try_from(epoch).ok()?)?;
        Some(Identity {
            journal: ids.of(lane.topic),
            partition: lane.partition,
            seq,
        })
    }

    pub(super) fn epoch(&self) -> u32 {
        u32::try_from(self.epochs.len().saturating_sub(1)).unwrap_or(u32::MAX)
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(super) fn notify(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Moves the position of a lane and tells those who wait for it.
    pub(super) fn acknowledge(&self, lane: Lane, position: Position, records: u64) {
        self.lock().acknowledge(lane, position, records);
        self.acknowledged
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(super) fn acknowledgements(&self) -> watch::Receiver<u64> {
        self.acknowledged.subscribe()
    }

    /// Whether Kafka has every lane's records up to these numbers, of the ids in use.
    pub(super) fn is_acknowledged(&self, ends: &BTreeMap<Lane, u64>) -> bool {
        let epoch = self.epoch();
        let state = self.lock();
        ends.iter()
            .all(|(lane, seq)| state.positions.get(lane) >= Some(&Position { epoch, seq: *seq }))
    }

    pub(super) fn depth(&self) -> Depth {
        let state = self.lock();
        Depth {
            bytes: state.bytes,
            records: state.records,
            segments: state.segments.len(),
        }
    }

    pub(super) fn health(&self) -> Health {
        if self.lock().failed {
            Health::Failed
        } else {
            Health::Sound
        }
    }

    pub(super) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Makes the first `length` bytes of a segment durable, and with that readable. Where this fails once it
    /// fails for good: what the disk holds of these pages is not known, and a later sync would not say.
    pub(super) fn sync(&self, number: u64, file: &dyn SegmentFile, length: u64) -> bool {
        let _gate = self.sync_gate.lock().unwrap_or_else(PoisonError::into_inner);
        if self.health() == Health::Failed {
            return false;
        }
        let synced = synced(file);
        self.syncs.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        match synced {
            Ok(()) => {
                if let Some(segment) = state.segments.get_mut(&number) {
                    segment.readable = segment.readable.max(length);
                }
            }
            Err(error) => {
                state.failed = true;
                tracing::error!(%error, segment = number, "a sync failed, the journal takes nothing more");
            }
        }
        let sound = !state.failed;
        drop(state);
        self.notify();
        sound
    }

    /// Stores the positions where they moved, and deletes segments that nobody needs any more. Blocks on the
    /// disk.
    ///
    /// Positions only save work, and syncing them would hold up the syncs that answers wait for: they are made
    /// durable at the end, where `last` says that this is it.
    ///
    /// # Errors
    /// When the disk refuses; it is tried again the next time.
    pub(super) fn tidy(&self, last: bool) -> std::io::Result<usize> {
        let (positions, finished) = {
            let state = self.lock();
            let positions = (last || !state.positions_stored).then(|| state.positions.clone());
            (positions, state.finished(self.instant(), self.retain))
        };
        // Where the disk is full the file cannot be written, and deleting segments is what helps.
        let stored = match positions {
            None => Ok(()),
            Some(positions) => {
                failpoint!("ingest::before_positions");
                position::store(&self.dir, &positions, last).map(|()| {
                    let mut state = self.lock();
                    state.positions_stored = state.positions == positions;
                })
            }
        };
        if finished.is_empty() {
            return stored.map(|()| 0);
        }
        failpoint!("ingest::before_delete");
        for number in &finished {
            let spare = self.retire(*number)?;
            failpoint!("ingest::in_delete");
            let mut state = self.lock();
            state.spares.extend(spare);
            if let Some(segment) = state.segments.remove(number) {
                state.bytes = state.bytes.saturating_sub(segment.length);
            }
        }
        super::disk::sync_dir(&self.dir)?;
        stored.map(|()| finished.len())
    }

    /// Takes the file of a segment that nobody needs any more out of the journal; says where it is if it is kept.
    fn retire(&self, number: u64) -> std::io::Result<Option<PathBuf>> {
        if self.lock().spares.len() >= SPARES {
            return std::fs::remove_file(self.path(number)).map(|()| None);
        }
        let spare = segment::spare_path(&self.dir, number);
        std::fs::rename(self.path(number), &spare)?;
        Ok(Some(spare))
    }
}

fn synced(file: &dyn SegmentFile) -> std::io::Result<()> {
    failpoint!(
        "ingest::in_sync",
        return Err(std::io::Error::other("a failpoint"))
    );
    file.sync()
}
