//! What an offset commit says beside the offset: binary, in base64, at most 4,095 bytes.
//!
//! ```text
//! version        u8, 1 or 2
//! commit_no      varint
//! ask until      varint: an offset; only in version 2
//! plan           u8: 0 none, 1 present
//!   first, last  varint, varint: offsets, inclusive
//!   bad rows     varint count; each: journal u64 little-endian, seq varint, sub varint
//!   given up     varint count; each: table u64 little-endian
//! watermarks     varint count; each: journal u64 little-endian, next varint,
//!                holes varint count; each: gap since the last end varint, length varint
//! ```
//!
//! Version 2 is written only while there is something to ask, so that a partition returns to version 1 by itself.
//! Varints are LEB128, at most ten bytes, in their shortest form. Counts come before what they count and are
//! checked against what is left, so that bytes from anywhere cannot make a reader allocate.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use millrace_event::JournalId;

use crate::watermark::Watermark;

mod wire;

use wire::{Reader, put_varint};

/// The version that this build writes, and reads.
pub const VERSION: u8 = 1;
/// The version of metadata with [`Metadata::ask_until`], read as well.
pub const ASKING_VERSION: u8 = 2;
/// The broker's default `offset.metadata.max.bytes` is 4,096; 4,095 are known to pass.
pub const MAX_ENCODED_BYTES: usize = 4095;
/// More bad rows than this in one plan mean a failing table.
pub const MAX_BAD_ROWS: usize = 64;

/// The state of one partition as of the committed offset H.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Counts this partition's commits.
    pub commit_no: u64,
    /// Rows of records below this offset may be in their tables, whatever the watermarks say: they are asked for
    /// before they are inserted. 0 where there are none.
    pub ask_until: u64,
    /// What is being carried out above H.
    pub plan: Option<Plan>,
    /// Each journal's watermark as of H.
    pub watermarks: BTreeMap<JournalId, Watermark>,
}

/// Records that are to be settled together. Committed before anything of it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Offset of its first record.
    pub first: u64,
    /// Offset of its last record.
    pub last: u64,
    /// Rows that no table takes: they go to the dead letters and are never inserted.
    pub bad_rows: Vec<BadRow>,
    /// Tables, as [`table_hash`], whose rows were handed to the retry topics.
    pub given_up: Vec<u64>,
}

/// A row named in a plan. Its partition is the plan's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BadRow {
    /// The journal.
    pub journal: JournalId,
    /// The number.
    pub seq: u64,
    /// Which of the event's rows.
    pub sub: u16,
}

impl Plan {
    /// The plan of the offsets `first..=last`, with nothing named yet.
    pub const fn new(first: u64, last: u64) -> Self {
        Self {
            first,
            last,
            bad_rows: Vec::new(),
            given_up: Vec::new(),
        }
    }
}

/// How a table is named in a plan: FNV-1a 64 of `database.table`.
pub fn table_hash(table: &str) -> u64 {
    JournalId::of_topic(table, "").0
}

/// The metadata cannot be written or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// It would be larger than a broker takes.
    #[error("commit metadata of {0} bytes is over the limit of {MAX_ENCODED_BYTES}")]
    TooLarge(usize),
    /// More rows of one plan are bad than it can name.
    #[error("{0} bad rows are more than a plan can name, {MAX_BAD_ROWS}")]
    TooManyBadRows(usize),
    /// Another version wrote it.
    #[error("commit metadata of version {0} is not known, only {VERSION} and {ASKING_VERSION}")]
    UnknownVersion(u8),
    /// It is not base64, ends too early, goes on too long or contradicts itself.
    #[error("commit metadata is not readable: {0}")]
    Malformed(&'static str),
}

impl Metadata {
    /// What an operator commits for a partition whose state is lost: nothing is known, and everything below `end` may
    /// be in its table.
    pub fn adopting(end: u64) -> Self {
        Self {
            ask_until: end,
            ..Self::default()
        }
    }

    /// The text for an offset commit.
    ///
    /// # Errors
    /// [`MetadataError::TooLarge`]: journals must leave it first.
    pub fn encode(&self) -> Result<String, MetadataError> {
        let mut bytes = Vec::new();
        if self.ask_until == 0 {
            bytes.push(VERSION);
            put_varint(&mut bytes, self.commit_no);
        } else {
            bytes.push(ASKING_VERSION);
            put_varint(&mut bytes, self.commit_no);
            put_varint(&mut bytes, self.ask_until);
        }
        match &self.plan {
            None => bytes.push(0),
            Some(plan) => {
                bytes.push(1);
                encode_plan(&mut bytes, plan);
            }
        }
        put_count(&mut bytes, self.watermarks.len());
        for (journal, watermark) in &self.watermarks {
            encode_watermark(&mut bytes, *journal, watermark);
        }
        let text = STANDARD_NO_PAD.encode(bytes);
        if text.len() > MAX_ENCODED_BYTES {
            return Err(MetadataError::TooLarge(text.len()));
        }
        Ok(text)
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// Anything but the canonical form of a known version is refused.
    pub fn decode(text: &str) -> Result<Self, MetadataError> {
        if text.len() > MAX_ENCODED_BYTES {
            return Err(MetadataError::TooLarge(text.len()));
        }
        let bytes = STANDARD_NO_PAD
            .decode(text)
            .map_err(|_| MetadataError::Malformed("it is not base64"))?;
        let mut reader = Reader::new(&bytes);
        let version = reader.byte()?;
        if ![VERSION, ASKING_VERSION].contains(&version) {
            return Err(MetadataError::UnknownVersion(version));
        }
        let commit_no = reader.varint()?;
        let ask_until = match version {
            ASKING_VERSION => reader.varint()?,
            _ => 0,
        };
        if version == ASKING_VERSION && ask_until == 0 {
            return Err(MetadataError::Malformed("it asks for nothing"));
        }
        let plan = match reader.byte()? {
            0 => None,
            1 => Some(decode_plan(&mut reader)?),
            _ => return Err(MetadataError::Malformed("a plan is there or not")),
        };
        let mut watermarks = BTreeMap::new();
        for _ in 0..reader.count(10)? {
            let journal = JournalId(reader.fixed()?);
            if watermarks
                .last_key_value()
                .is_some_and(|(last, _)| *last >= journal)
            {
                return Err(MetadataError::Malformed("journals are not ascending"));
            }
            watermarks.insert(journal, decode_watermark(&mut reader)?);
        }
        reader.end()?;
        Ok(Self {
            commit_no,
            ask_until,
            plan,
            watermarks,
        })
    }
}

/// How many bytes of the metadata, before base64, a journal takes.
pub fn watermark_bytes(journal: JournalId, watermark: &Watermark) -> usize {
    let mut bytes = Vec::with_capacity(16);
    encode_watermark(&mut bytes, journal, watermark);
    bytes.len()
}

fn encode_watermark(bytes: &mut Vec<u8>, journal: JournalId, watermark: &Watermark) {
    bytes.extend_from_slice(&journal.0.to_le_bytes());
    put_varint(bytes, watermark.next());
    put_count(bytes, watermark.holes().len());
    let mut end = 0;
    for hole in watermark.holes() {
        put_varint(bytes, hole.start - end);
        put_varint(bytes, hole.end - hole.start);
        end = hole.end;
    }
}

fn encode_plan(bytes: &mut Vec<u8>, plan: &Plan) {
    put_varint(bytes, plan.first);
    put_varint(bytes, plan.last);
    put_count(bytes, plan.bad_rows.len());
    for row in &plan.bad_rows {
        bytes.extend_from_slice(&row.journal.0.to_le_bytes());
        put_varint(bytes, row.seq);
        put_varint(bytes, u64::from(row.sub));
    }
    put_count(bytes, plan.given_up.len());
    for table in &plan.given_up {
        bytes.extend_from_slice(&table.to_le_bytes());
    }
}

fn decode_plan(reader: &mut Reader<'_>) -> Result<Plan, MetadataError> {
    let mut plan = Plan::new(reader.varint()?, reader.varint()?);
    if plan.first > plan.last {
        return Err(MetadataError::Malformed("a plan ends before it starts"));
    }
    let bad_rows = reader.count(10)?;
    if bad_rows > MAX_BAD_ROWS {
        return Err(MetadataError::Malformed("a plan names too many bad rows"));
    }
    for _ in 0..bad_rows {
        let journal = JournalId(reader.fixed()?);
        let seq = reader.varint()?;
        let sub =
            u16::try_from(reader.varint()?).map_err(|_| MetadataError::Malformed("a sub is too large"))?;
        plan.bad_rows.push(BadRow { journal, seq, sub });
    }
    for _ in 0..reader.count(8)? {
        plan.given_up.push(reader.fixed()?);
    }
    Ok(plan)
}

fn decode_watermark(reader: &mut Reader<'_>) -> Result<Watermark, MetadataError> {
    let next = reader.varint()?;
    let mut holes = Vec::new();
    let mut end = 0_u64;
    for _ in 0..reader.count(2)? {
        let overflow = MetadataError::Malformed("a hole lies beyond every number");
        let start = end
            .checked_add(reader.varint()?)
            .ok_or_else(|| overflow.clone())?;
        end = start.checked_add(reader.varint()?).ok_or(overflow)?;
        holes.push(start..end);
    }
    Watermark::from_parts(next, holes).ok_or(MetadataError::Malformed("holes contradict their watermark"))
}

fn put_count(bytes: &mut Vec<u8>, count: usize) {
    put_varint(bytes, u64::try_from(count).unwrap_or(u64::MAX));
}

#[cfg(test)]
mod tests;
