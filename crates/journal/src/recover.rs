//! What a process finds when it opens the directory.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use millrace_event::Timestamp;
use millrace_service::{Clock, failpoint};

use super::aside::{self, Line};
use super::frame::{self, Item};
use super::meta::Meta;
use super::position::{self, Positions};
use super::segment::{self, Header};
use super::state::{Index, Segment, Slot};
use super::{Lane, OpenError, Topic};

/// The segments and positions of earlier processes.
#[derive(Debug)]
pub struct Kept {
    pub(super) segments: BTreeMap<u64, Segment>,
    pub(super) positions: Positions,
}

impl Kept {
    pub(super) fn recovered(&self) -> Recovered {
        Recovered {
            segments: self.segments.keys().copied().collect(),
        }
    }
}

/// The segments that were there when the journal was opened; see [`super::Reader::visit`].
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    pub(super) segments: Vec<u64>,
}

/// The segment files of a directory, oldest first.
pub(super) fn segments(dir: &Path) -> Result<Vec<(u64, PathBuf)>, OpenError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(OpenError::io(dir))? {
        let path = entry.map_err(OpenError::io(dir))?.path();
        if let Some(number) = segment::number(&path) {
            found.push((number, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Removes the files that waited to be new segments: whatever was in them, Kafka has it.
fn remove_spares(dir: &Path) -> Result<(), OpenError> {
    for entry in std::fs::read_dir(dir).map_err(OpenError::io(dir))? {
        let path = entry.map_err(OpenError::io(dir))?.path();
        if segment::is_spare(&path) {
            std::fs::remove_file(&path).map_err(OpenError::io(&path))?;
        }
    }
    Ok(())
}

/// Reads everything and leaves files that hold sound records up to their end. Returns what was kept, the next
/// sequence number of each lane, and the number of the next segment.
pub(super) fn recover(
    dir: &Path,
    meta: &Meta,
    clock: &dyn Clock,
) -> Result<(Kept, BTreeMap<Lane, u64>, u64), OpenError> {
    let positions = position::load(dir).unwrap_or_else(|error| {
        tracing::warn!(%error, "the positions cannot be read, everything in the journal is shipped again");
        Positions::new()
    });
    remove_spares(dir)?;
    let epoch = meta.epoch();
    let mut next = BTreeMap::new();
    let mut raise = |lane: Lane, of: u32, seq: u64| {
        if of == epoch {
            let known: &mut u64 = next.entry(lane).or_default();
            *known = (*known).max(seq);
        }
    };
    for (lane, position) in &positions {
        raise(*lane, position.epoch, position.seq);
    }
    let files = segments(dir)?;
    let newest = files.last().map(|(number, _)| *number);
    let mut kept = Kept {
        segments: BTreeMap::new(),
        positions,
    };
    for (number, path) in &files {
        failpoint!("ingest::in_recovery");
        let newest = newest == Some(*number);
        let Some((header, segment)) = read(dir, *number, path, newest, clock).map_err(OpenError::io(path))?
        else {
            continue;
        };
        for (lane, seq) in header.next.iter().chain(&segment.ends) {
            raise(*lane, header.epoch, *seq);
        }
        kept.segments.insert(*number, segment);
    }
    let number = newest.map_or(1, |newest| newest + 1);
    Ok((kept, next, number))
}

fn read(
    dir: &Path,
    number: u64,
    path: &Path,
    newest: bool,
    clock: &dyn Clock,
) -> io::Result<Option<(Header, Segment)>> {
    let bytes = std::fs::read(path)?;
    let Some((header, start)) = Header::decode(&bytes) else {
        without_header(number, path, &bytes, newest)?;
        return Ok(None);
    };
    let found = list(&bytes, start, header.seed);
    if header.number != number && found.index.is_empty() {
        // A shipped segment that was becoming another one; the new name was not durable yet.
        tracing::info!(segment = number, "a segment that was being made anew was removed");
        std::fs::remove_file(path)?;
        return Ok(None);
    }
    let mut lines = Vec::new();
    let mut line = |reason, start: usize, end: usize| {
        lines.push(Line {
            at: Timestamp::clamped_from_millis(clock.now().as_millisecond()),
            reason,
            segment: Some(number),
            offset: u64::try_from(start).ok(),
            topic: None,
            id: None,
            key: &[],
            bytes: bytes.get(start..end).unwrap_or_default(),
        });
    };
    for (start, end) in &found.damaged {
        tracing::error!(
            segment = number,
            offset = start,
            bytes = end - start,
            "damaged bytes were set aside"
        );
        line("damaged", *start, *end);
    }
    let length = found.tail.unwrap_or(bytes.len());
    if let Some(start) = found.tail {
        if newest && (header.recycled || is_room(bytes.get(start..).unwrap_or_default())) {
            tracing::debug!(
                segment = number,
                offset = start,
                "the room behind the records was cut off"
            );
        } else if newest {
            tracing::warn!(
                segment = number,
                offset = start,
                bytes = bytes.len() - start,
                "a torn tail was cut off"
            );
        } else {
            tracing::error!(
                segment = number,
                offset = start,
                bytes = bytes.len() - start,
                "a damaged tail was set aside"
            );
            line("damaged tail", start, bytes.len());
        }
    }
    if !lines.is_empty() {
        aside::add(dir, &lines)?;
    }
    let file = OpenOptions::new().write(true).open(path)?;
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    if found.tail.is_some() {
        file.set_len(length)?;
    }
    // The last process may have written without a sync; nothing leaves that is not durable.
    file.sync_data()?;
    let ends = found
        .index
        .iter()
        .filter_map(|(lane, slots)| Some((*lane, slots.last()?.seq + 1)))
        .collect();
    let segment = Segment {
        epoch: header.epoch,
        seed: header.seed,
        length,
        readable: length,
        ends,
        index: Some(found.index),
        sealed: Some(clock.instant()),
        recovered: true,
    };
    Ok(Some((header, segment)))
}

/// Whether these bytes, behind the last record of the newest segment, are what a segment is made with.
pub(super) fn is_room(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// A segment is made durable with its header before it takes a record, so the newest one may be empty.
fn without_header(number: u64, path: &Path, bytes: &[u8], newest: bool) -> io::Result<()> {
    let no_record = is_room(bytes.get(4096..).unwrap_or_default());
    if newest && no_record {
        tracing::info!(segment = number, "a segment that was being made was removed");
        return std::fs::remove_file(path);
    }
    let aside = path.with_extension("damaged");
    tracing::error!(segment = number, kept = %aside.display(), "a segment without a sound header was set aside");
    std::fs::rename(path, aside)
}

/// What a segment's bytes hold.
pub(super) struct Listed {
    pub(super) index: Index,
    damaged: Vec<(usize, usize)>,
    tail: Option<usize>,
}

fn list(bytes: &[u8], start: usize, seed: u32) -> Listed {
    let mut listed = Listed {
        index: Index::new(),
        damaged: Vec::new(),
        tail: None,
    };
    for item in frame::scan(bytes, start, seed) {
        match item {
            Item::Record { offset, size, record } => {
                let slot = Slot {
                    seq: record.seq,
                    offset: u64::try_from(offset).unwrap_or(u64::MAX),
                    size,
                };
                listed.index.entry(record.lane).or_default().push(slot);
            }
            Item::Damaged { start, end } => listed.damaged.push((start, end)),
            Item::Tail { start } => listed.tail = Some(start),
        }
    }
    listed
}

/// Lists the records of a segment that is in use already.
pub(super) fn index(path: &Path) -> io::Result<Index> {
    let bytes = std::fs::read(path)?;
    let (header, start) = Header::decode(&bytes).ok_or(io::ErrorKind::InvalidData)?;
    Ok(list(&bytes, start, header.seed).index)
}

/// Shows every accepted event of a segment to `visit`, its value.
pub(super) fn visit(
    path: &Path,
    younger_than: Duration,
    clock: &dyn Clock,
    mut visit: impl FnMut(&[u8]),
) -> io::Result<()> {
    let file = File::open(path)?;
    let written = jiff::Timestamp::try_from(file.metadata()?.modified()?).unwrap_or(jiff::Timestamp::MAX);
    let age = clock.now().duration_since(written);
    if Duration::try_from(age).is_ok_and(|age| age > younger_than) {
        return Ok(());
    }
    let bytes = std::fs::read(path)?;
    let Some((header, start)) = Header::decode(&bytes) else {
        return Ok(());
    };
    for item in frame::scan(&bytes, start, header.seed) {
        if let Item::Record { record, .. } = item
            && record.lane.topic == Topic::Ingest
        {
            visit(record.value);
        }
    }
    Ok(())
}
