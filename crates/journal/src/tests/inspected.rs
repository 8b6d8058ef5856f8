//! What [`Inspection`] tells, and that it changes nothing.

use super::*;
use crate::inspect::LaneState;

/// Names and contents of a directory.
fn content(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect()
}

fn lane(found: &Inspection, topic: Topic, partition: u32) -> LaneState {
    let mut lanes = found.lanes.iter();
    lanes
        .find(|lane| (lane.topic, lane.partition) == (topic, partition))
        .unwrap()
        .clone()
}

#[tokio::test]
async fn a_journal_in_use_is_told_whole_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), Sync::Always);
    let refused = Entry {
        topic: Topic::Dlq,
        ..entry(2, "refused")
    };
    journal
        .append(vec![entry(0, "a"), entry(1, "b"), entry(0, "c"), refused])
        .await
        .unwrap();
    let reader = journal.reader();
    let first = Lane {
        topic: Topic::Ingest,
        partition: 0,
    };
    let one = Limits {
        bytes: 1 << 20,
        records: 1,
    };
    let batch = reader.take(first, one).unwrap().unwrap();
    reader.acknowledge(&batch);
    reader.tidy().unwrap();
    let before = content(dir.path());

    let found = Inspection::of(dir.path()).unwrap();
    assert!(found.in_use);
    let whose = found.identity.as_ref().unwrap();
    assert_eq!(whose.ingest, journal.id(Topic::Ingest));
    assert_eq!((whose.closed, whose.sync), (false, Sync::Always));
    assert_eq!((found.pending(), found.bytes()), (3, journal.depth().bytes));
    let of_first = lane(&found, Topic::Ingest, 0);
    assert_eq!((of_first.next, of_first.shipped, of_first.pending), (2, 1, 1));
    assert_eq!(lane(&found, Topic::Ingest, 1).pending, 1);
    assert_eq!(lane(&found, Topic::Dlq, 2).pending, 1);
    assert_eq!(found.notes, Vec::<String>::new());
    assert_eq!(content(dir.path()), before, "nothing was changed");

    journal.append(vec![entry(0, "d")]).await.unwrap();
    journal.close().await.unwrap();
    drop(journal);
    let found = Inspection::of(dir.path()).unwrap();
    assert!(!found.in_use && found.identity.unwrap().closed);
}

#[tokio::test]
async fn torn_ends_damage_and_what_was_set_aside_are_told_and_left_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), Sync::Always);
    for _ in 0..12 {
        journal.append(vec![entry(0, vec![b'x'; 1000])]).await.unwrap();
    }
    let batch = journal.reader().take(
        Lane {
            topic: Topic::Ingest,
            partition: 0,
        },
        LIMITS,
    );
    let batch = batch.unwrap().unwrap();
    journal
        .reader()
        .set_aside(batch.lane, &batch.records[3], "MessageTooLarge")
        .unwrap();
    drop(journal);
    let files = recover::segments(dir.path()).unwrap();
    assert_eq!(files.len(), 2);
    let mut bytes = std::fs::read(&files[0].1).unwrap();
    bytes[1500] ^= 1;
    std::fs::write(&files[0].1, bytes).unwrap();
    let mut bytes = std::fs::read(&files[1].1).unwrap();
    bytes.extend_from_slice(b"\xf7mrj torn");
    std::fs::write(&files[1].1, bytes).unwrap();
    let before = content(dir.path());

    let found = Inspection::of(dir.path()).unwrap();
    assert_eq!(
        found.segments.iter().map(|segment| segment.damaged).sum::<u64>(),
        1
    );
    assert_eq!(found.segments[1].tail, 9);
    assert_eq!((found.pending(), lane(&found, Topic::Ingest, 0).next), (11, 12));
    assert_eq!(found.notes.len(), 2, "{:?}", found.notes);
    assert_eq!(found.aside.reasons, [("MessageTooLarge".to_owned(), 1)].into());
    assert_eq!(
        found.aside.newest[0].id.as_deref(),
        Some(batch.records[3].identity.to_string().as_str())
    );
    assert_eq!(content(dir.path()), before, "nothing was changed");
}

#[test]
fn a_process_that_starts_while_its_journal_is_looked_into_waits_for_the_look() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), Sync::Os));
    let look = File::open(lock_path(dir.path())).unwrap();
    look.lock_shared().unwrap();
    let path = dir.path().to_owned();
    let (begun, beginning) = std::sync::mpsc::channel();
    let opening = std::thread::spawn(move || {
        begun.send(()).unwrap();
        Journal::open(&config(&path, Sync::Os), Arc::new(SystemClock)).map(drop)
    });
    beginning.recv().unwrap();
    drop(look);
    opening.join().unwrap().unwrap();
}

#[test]
fn a_directory_without_a_journal_is_told_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let found = Inspection::of(dir.path()).unwrap();
    assert!(found.identity.is_none() && found.segments.is_empty() && !found.in_use);
    Inspection::of(&dir.path().join("nowhere")).unwrap_err();
}
