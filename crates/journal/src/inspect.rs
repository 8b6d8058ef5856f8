//! Looking into a journal without disturbing whoever uses it. Nothing is written, locked for longer than a look,
//! or mended; a process that appends and deletes meanwhile makes the report a little old and never wrong.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use millrace_event::{JournalId, Timestamp};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::frame::{self, Item};
use super::meta::Meta;
use super::position::{self, Position};
use super::segment::Header;
use super::{Lane, OpenError, Sync, Topic, aside, lock_path, recover};

/// Most lines of the side file that are told one by one; the newest.
const ASIDE: usize = 100;

/// What a journal's directory holds.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// The directory.
    pub dir: PathBuf,
    /// Whether a process has it open.
    pub in_use: bool,
    /// Whose journal it is; none where `journal.json` is missing.
    pub identity: Option<Whose>,
    /// The segments, oldest first.
    pub segments: Vec<Segment>,
    /// How far each partition was written and shipped.
    pub lanes: Vec<LaneState>,
    /// What was set aside.
    pub aside: Aside,
    /// Segments whose header could not be read when a process found them, kept for people.
    pub damaged_files: Vec<PathBuf>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// What `journal.json` says.
#[derive(Clone, Debug, Serialize)]
pub struct Whose {
    /// The id under which accepted events are numbered now.
    pub ingest: JournalId,
    /// The same for refused ones.
    pub dlq: JournalId,
    /// How many pairs of ids the directory has had.
    pub epochs: usize,
    /// How many partitions the topics have, where Kafka has said so.
    pub partitions: Option<u32>,
    /// What the last process promised.
    pub sync: Sync,
    /// Whether the last process closed the journal itself; never while one has it open.
    pub closed: bool,
}

/// One segment.
#[derive(Clone, Debug, Serialize)]
pub struct Segment {
    /// Its number.
    pub number: u64,
    /// Its file's length in bytes, without the room behind its records.
    pub bytes: u64,
    /// Whether its header can be read.
    pub sound: bool,
    /// Sound records.
    pub records: u64,
    /// Those of them that Kafka has not acknowledged.
    pub pending: u64,
    /// Damaged places with sound records behind them.
    pub damaged: u64,
    /// Bytes behind the last sound record.
    pub tail: u64,
}

/// One partition of one topic.
#[derive(Clone, Debug, Serialize)]
pub struct LaneState {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: u32,
    /// The next number to be given.
    pub next: u64,
    /// The next number that Kafka is to acknowledge, as it was last noted; numbers below it were acknowledged.
    pub shipped: u64,
    /// Records that are not acknowledged.
    pub pending: u64,
    /// Their bytes in the journal.
    pub pending_bytes: u64,
}

/// The side file.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Aside {
    /// Its lines by reason.
    pub reasons: BTreeMap<String, u64>,
    /// The newest lines, oldest first.
    pub newest: Vec<AsideLine>,
}

/// A line of the side file without its bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AsideLine {
    /// When it was set aside.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
    /// The segment it was in.
    pub segment: Option<u64>,
    /// Where in the segment it started.
    pub offset: Option<u64>,
    /// Its topic, where it was readable.
    pub topic: Option<String>,
    /// Its identity, where it was readable.
    pub id: Option<String>,
    #[serde(skip_serializing, rename = "bytes")]
    _bytes: IgnoredAny,
}

impl Inspection {
    /// Reads a journal. Blocks on the disk; holds one segment in memory at a time.
    ///
    /// # Errors
    /// The directory, or a file in it, cannot be read. Damage is no error.
    pub fn of(dir: &Path) -> Result<Self, OpenError> {
        let in_use = in_use(dir)?;
        let meta_path = Meta::path(dir);
        let meta = Meta::load(dir).map_err(OpenError::io(&meta_path))?;
        let mut notes = Vec::new();
        let positions = position::load(dir).unwrap_or_else(|error| {
            notes.push(format!(
                "positions.json cannot be read, everything is shipped again: {error}"
            ));
            BTreeMap::new()
        });
        let epoch = meta.as_ref().map_or(0, Meta::epoch);
        let mut lanes: BTreeMap<Lane, LaneState> = BTreeMap::new();
        for (lane, position) in &positions {
            let state = lanes.entry(*lane).or_insert_with(|| LaneState::new(*lane));
            if position.epoch == epoch {
                (state.shipped, state.next) = (position.seq, position.seq);
            }
        }
        let files = recover::segments(dir)?;
        let newest = files.last().map(|(number, _)| *number);
        let mut segments = Vec::new();
        for (number, path) in &files {
            let bytes = match std::fs::read(path) {
                Ok(bytes) => bytes,
                // Shipped and deleted since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(OpenError::io(path)(source)),
            };
            let newest = newest == Some(*number);
            let segment = Segment::read((*number, newest), &bytes, epoch, &positions, &mut lanes);
            notes.extend(segment.note(newest, in_use));
            segments.push(segment);
        }
        if meta.is_none() && !segments.is_empty() {
            notes.push(
                "journal.json is missing: nobody can say under which identity these records are".to_owned(),
            );
        }
        let aside = Aside::read(dir).unwrap_or_else(|error| {
            notes.push(format!("aside.jsonl cannot be read: {error}"));
            Aside::default()
        });
        Ok(Self {
            dir: dir.to_owned(),
            in_use,
            identity: meta.as_ref().map(Whose::of),
            segments,
            lanes: lanes.into_values().collect(),
            aside,
            damaged_files: damaged_files(dir)?,
            notes,
        })
    }

    /// Records that Kafka has not acknowledged, as it was last noted.
    pub fn pending(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.pending).sum()
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }
}

impl Whose {
    fn of(meta: &Meta) -> Self {
        let ids = meta.ids();
        Self {
            ingest: ids.of(Topic::Ingest),
            dlq: ids.of(Topic::Dlq),
            epochs: meta.epochs.len(),
            partitions: meta.partitions,
            sync: meta.run.sync,
            closed: meta.run.clean,
        }
    }
}

impl LaneState {
    const fn new(lane: Lane) -> Self {
        Self {
            topic: lane.topic,
            partition: lane.partition,
            next: 0,
            shipped: 0,
            pending: 0,
            pending_bytes: 0,
        }
    }
}

impl Segment {
    fn read(
        (number, newest): (u64, bool),
        bytes: &[u8],
        current: u32,
        positions: &position::Positions,
        lanes: &mut BTreeMap<Lane, LaneState>,
    ) -> Self {
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let mut segment = Self {
            number,
            bytes: length,
            sound: false,
            records: 0,
            pending: 0,
            damaged: 0,
            tail: 0,
        };
        let Some((header, start)) = Header::decode(bytes) else {
            return segment;
        };
        segment.sound = true;
        for (lane, next) in &header.next {
            let state = lanes.entry(*lane).or_insert_with(|| LaneState::new(*lane));
            if header.epoch == current {
                state.next = state.next.max(*next);
            }
        }
        for item in frame::scan(bytes, start, header.seed) {
            match item {
                Item::Damaged { .. } => segment.damaged += 1,
                Item::Tail { start }
                    if newest
                        && (header.recycled || recover::is_room(bytes.get(start..).unwrap_or_default())) =>
                {
                    segment.bytes = u64::try_from(start).unwrap_or(length);
                }
                Item::Tail { start } => {
                    segment.tail = length - u64::try_from(start).unwrap_or(length);
                }
                Item::Record { size, record, .. } => {
                    segment.records += 1;
                    let state = lanes
                        .entry(record.lane)
                        .or_insert_with(|| LaneState::new(record.lane));
                    if header.epoch == current {
                        state.next = state.next.max(record.seq + 1);
                    }
                    let at = Position {
                        epoch: header.epoch,
                        seq: record.seq,
                    };
                    if at >= positions.get(&record.lane).copied().unwrap_or_default() {
                        segment.pending += 1;
                        state.pending += 1;
                        state.pending_bytes += u64::try_from(size).unwrap_or(u64::MAX);
                    }
                }
            }
        }
        segment
    }

    /// What is worth saying about it.
    fn note(&self, newest: bool, in_use: bool) -> Option<String> {
        let number = self.number;
        if !self.sound {
            return Some(match newest {
                true => format!("segment {number} was being made; it is removed at the next start"),
                false => format!("segment {number} has no sound header; it is set aside at the next start"),
            });
        }
        if self.damaged > 0 {
            return Some(format!(
                "segment {number} has {} damaged places; sound records behind them are kept",
                self.damaged
            ));
        }
        match (self.tail, newest, in_use) {
            (0, ..) => None,
            // Whoever uses it may be writing these very bytes.
            (_, true, true) => None,
            (tail, true, false) => Some(format!(
                "segment {number} ends with {tail} bytes of a record that was never answered; they are cut off"
            )),
            (tail, false, _) => Some(format!(
                "segment {number} ends with {tail} damaged bytes; they are set aside at the next start"
            )),
        }
    }
}

impl Aside {
    fn read(dir: &Path) -> io::Result<Self> {
        let file = match File::open(aside::path(dir)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error),
        };
        let mut aside = Self::default();
        let lines = serde_json::Deserializer::from_reader(BufReader::new(file)).into_iter::<AsideLine>();
        for line in lines {
            let line = match line {
                Ok(line) => line,
                // Being written at this moment, or by a process that died over it.
                Err(error) if error.is_eof() => break,
                Err(error) => return Err(error.into()),
            };
            *aside.reasons.entry(line.reason.clone()).or_default() += 1;
            if aside.newest.len() == ASIDE {
                aside.newest.remove(0);
            }
            aside.newest.push(line);
        }
        Ok(aside)
    }
}

/// Whether a process has the directory open. Takes the lock for a moment, shared; a process that starts at this
/// moment tries again.
fn in_use(dir: &Path) -> Result<bool, OpenError> {
    let path = lock_path(dir);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(source) => return Err(OpenError::io(&path)(source)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(source)) => Err(OpenError::Io { path, source }),
    }
}

fn damaged_files(dir: &Path) -> Result<Vec<PathBuf>, OpenError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(OpenError::io(dir))? {
        let path = entry.map_err(OpenError::io(dir))?.path();
        if path.extension().is_some_and(|extension| extension == "damaged") {
            found.push(path);
        }
    }
    found.sort_unstable();
    Ok(found)
}
