//! The header of a segment file.
//!
//! ```text
//! magic 8 | length 4 | crc32c 4 | body
//! body = number 8 | epoch 4 | seed 4 | journal id of each topic 8 | lanes 4 | (topic 1 | partition 4 | next seq 8)…
//!        | 1 where the file was another segment before
//! ```
//!
//! The next sequence numbers make every segment say where numbering stands, so that none is used again
//! whatever happened to the segments before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use millrace_event::JournalId;

use super::meta::Ids;
use super::{Lane, Topic};

const MAGIC: [u8; 8] = *b"millrjl\x01";
const PREFIX: usize = 16;
const EXTENSION: &str = "journal";
const SPARE: &str = "spare";

/// What a segment says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) number: u64,
    /// Which of the journal's pairs of ids its records have.
    pub(super) epoch: u32,
    /// Where its checksums start.
    pub(super) seed: u32,
    pub(super) ids: Ids,
    /// The next sequence number of each lane when it was made.
    pub(super) next: BTreeMap<Lane, u64>,
    /// Whether the file was another segment before, of which bytes may follow the last record.
    pub(super) recycled: bool,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(64 + 13 * self.next.len());
        body.extend_from_slice(&self.number.to_le_bytes());
        body.extend_from_slice(&self.epoch.to_le_bytes());
        body.extend_from_slice(&self.seed.to_le_bytes());
        for topic in Topic::ALL {
            body.extend_from_slice(&self.ids.of(topic).0.to_le_bytes());
        }
        let lanes = u32::try_from(self.next.len()).unwrap_or(u32::MAX);
        body.extend_from_slice(&lanes.to_le_bytes());
        for (lane, next) in &self.next {
            body.push(lane.topic.code());
            body.extend_from_slice(&lane.partition.to_le_bytes());
            body.extend_from_slice(&next.to_le_bytes());
        }
        body.push(u8::from(self.recycled));
        let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(PREFIX + body.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }

    /// The header at the start of `bytes` and its length; `None` when it is torn or not one.
    pub(super) fn decode(bytes: &[u8]) -> Option<(Self, usize)> {
        let (prefix, rest) = bytes.split_at_checked(PREFIX)?;
        if !prefix.starts_with(&MAGIC) {
            return None;
        }
        let length = usize::try_from(u32_at(prefix, 8)?).ok()?;
        let body = rest.get(..length)?;
        if crc32c::crc32c(body) != u32_at(prefix, 12)? {
            return None;
        }
        let ids = Ids {
            ingest: JournalId(u64_at(body, 16)?),
            dlq: JournalId(u64_at(body, 24)?),
        };
        let lanes = usize::try_from(u32_at(body, 32)?).ok()?;
        let mut next = BTreeMap::new();
        for entry in body.get(36..)?.chunks_exact(13).take(lanes) {
            let lane = Lane {
                topic: Topic::from_code(entry[0])?,
                partition: u32_at(entry, 1)?,
            };
            next.insert(lane, u64_at(entry, 5)?);
        }
        // Earlier versions end here, and never took a file twice.
        let recycled = body.get(36 + 13 * lanes).is_some_and(|byte| *byte == 1);
        let header = Self {
            number: u64_at(body, 0)?,
            epoch: u32_at(body, 8)?,
            seed: u32_at(body, 12)?,
            ids,
            next,
            recycled,
        };
        (header.next.len() == lanes).then_some((header, PREFIX + length))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The file of segment `number`.
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.{EXTENSION}"))
}

/// Where the file of segment `number` waits to be another one.
pub(super) fn spare_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.{SPARE}"))
}

/// Whether a file waits to be another segment.
pub(super) fn is_spare(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == SPARE)
}

/// The number of a segment's file; `None` for any other file.
pub(super) fn number(path: &Path) -> Option<u64> {
    if path.extension()? != EXTENSION {
        return None;
    }
    path.file_stem()?.to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            number: 12,
            epoch: 1,
            seed: 0xdead_beef,
            ids: Ids {
                ingest: JournalId(1),
                dlq: JournalId(u64::MAX),
            },
            next: (0..6)
                .map(|partition| {
                    (
                        Lane {
                            topic: Topic::Ingest,
                            partition,
                        },
                        1 << partition,
                    )
                })
                .collect(),
            recycled: true,
        }
    }

    #[test]
    fn a_header_reads_back_and_a_torn_or_changed_one_does_not() {
        let bytes = header().encode();
        assert_eq!(Header::decode(&bytes), Some((header(), bytes.len())));
        for cut in 0..bytes.len() {
            assert_eq!(Header::decode(&bytes[..cut]), None);
            let mut changed = bytes.clone();
            changed[cut] ^= 1;
            assert_eq!(Header::decode(&changed), None, "byte {cut}");
        }
    }

    #[test]
    fn only_segments_have_a_number() {
        let file = path(Path::new("/j"), 12);
        assert_eq!(number(&file), Some(12));
        assert_eq!(number(Path::new("/j/positions.json")), None);
        assert_eq!(number(Path::new("/j/x.journal")), None);
    }
}
