//! What the fuzz target `journal` does with its bytes; its corpus is an ordinary test.
//!
//! Checksums keep a fuzzer out of everything behind them, so its bytes are instructions: whole records, parts of
//! records and raw bytes, one after the other, in a segment whose header is sound unless they say otherwise.

use std::collections::BTreeMap;
use std::path::Path;

use millrace_event::JournalId;
use millrace_event::header::Headers;
use millrace_service::SystemClock;

use super::frame::{self, Item};
use super::meta::{Ids, Meta, Run};
use super::segment::{self, Header};
use super::{Entry, Lane, Sync, Topic, recover};

const SEED: u32 = 7;

/// Recovers a directory with the segment that `bytes` describe, twice.
///
/// # Panics
/// A record that was whole is not found, one is found that was never written, recovery is not the same the second
/// time, or a number would be given again.
#[expect(clippy::expect_used, reason = "a fuzz target reports by panicking")]
pub fn recovery(dir: &Path, bytes: &[u8]) {
    let ids = Ids {
        ingest: JournalId(1),
        dlq: JournalId(2),
    };
    let meta = Meta::new(
        ids,
        Run {
            sync: Sync::Always,
            boot: None,
            clean: false,
        },
    );
    let (file, written) = segment_of(bytes, ids);
    tiles(&file);
    std::fs::write(segment::path(dir, 1), &file).expect("the directory can be written");
    let mut before: Option<Vec<(Lane, u64)>> = None;
    for _ in 0..2 {
        let (kept, next, _) = recover::recover(dir, &meta, &SystemClock).expect("damage is no error");
        let found: Vec<(Lane, u64)> = kept
            .segments
            .values()
            .flat_map(|segment| segment.index.iter().flatten())
            .flat_map(|(lane, slots)| slots.iter().map(|slot| (*lane, slot.seq)))
            .collect();
        if let Some(Written { whole, torn }) = &written {
            assert!(
                whole.iter().all(|record| found.contains(record)),
                "whole records are found"
            );
            // Raw bytes may be those that a torn record lacks.
            let known = |record| whole.contains(record) || torn.contains(record);
            assert!(found.iter().all(known), "nothing else is found");
        }
        for (lane, seq) in &found {
            assert!(
                next.get(lane).is_some_and(|next| next > seq),
                "{seq} would be given again"
            );
        }
        assert!(
            before.as_ref().is_none_or(|before| *before == found),
            "recovered twice"
        );
        before = Some(found);
    }
}

/// What was put into a segment whose header is sound.
#[derive(Default)]
struct Written {
    whole: Vec<(Lane, u64)>,
    torn: Vec<(Lane, u64)>,
}

/// A segment's file, and the records in it, where its header is sound.
fn segment_of(bytes: &[u8], ids: Ids) -> (Vec<u8>, Option<Written>) {
    let Some((first, mut rest)) = bytes.split_first() else {
        return (Vec::new(), None);
    };
    if *first == 0xff {
        return (rest.to_vec(), None);
    }
    let header = Header {
        number: 1,
        epoch: 0,
        seed: SEED,
        ids,
        next: BTreeMap::new(),
        recycled: false,
    };
    let mut file = header.encode();
    let mut written = Written::default();
    let mut next: BTreeMap<Lane, u64> = BTreeMap::new();
    while let Some(([kind, length], tail)) = rest.split_first_chunk() {
        let (taken, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        rest = tail;
        if *kind >= 0xe0 {
            file.extend_from_slice(taken);
            continue;
        }
        let lane = Lane {
            topic: if kind & 1 == 0 { Topic::Ingest } else { Topic::Dlq },
            partition: u32::from(kind >> 1 & 3),
        };
        let seq = next.entry(lane).or_default();
        let (key, value) = taken.split_at(taken.len() / 3);
        let entry = Entry {
            topic: lane.topic,
            partition: lane.partition,
            key: key.to_vec(),
            headers: Headers::new().with("traceparent", "00-a-b-01"),
            value: value.to_vec(),
        };
        let start = file.len();
        frame::encode(&entry, *seq, SEED, &mut file);
        if *kind >= 0xc0 {
            // A part of it.
            file.truncate(start + (file.len() - start) * usize::from(kind & 0x0f) / 16);
            written.torn.push((lane, *seq));
        } else {
            written.whole.push((lane, *seq));
        }
        *seq += 1;
    }
    (file, Some(written))
}

/// Everything that a scan reports lies end to end, from the header to the last byte.
fn tiles(file: &[u8]) {
    let Some((header, mut at)) = Header::decode(file) else {
        return;
    };
    for item in frame::scan(file, at, header.seed) {
        let (start, end) = match item {
            Item::Record { offset, size, record } => {
                // Whatever it holds, it reads to its end.
                let _headers = record.headers();
                (offset, offset + size)
            }
            Item::Damaged { start, end } => (start, end),
            Item::Tail { start } => (start, file.len()),
        };
        assert!(start == at && end > start, "{start}..{end} follows {at}");
        at = end;
    }
    assert_eq!(at, file.len(), "scanned to the end");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_corpus_of_the_fuzz_target_passes() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/journal");
        let mut count = 0;
        for entry in std::fs::read_dir(corpus).unwrap() {
            let directory = tempfile::tempdir().unwrap();
            recovery(directory.path(), &std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 10, "{count} seeds");
    }
}
