//! Damage found at the start, and disks that are full or fail.

use super::failing::{Failing, open_on};
use super::*;

fn values(shipped: &[Shipped]) -> Vec<String> {
    shipped
        .iter()
        .map(|record| String::from_utf8(record.value.to_vec()).unwrap())
        .collect()
}

fn newest(dir: &Path) -> PathBuf {
    recover::segments(dir).unwrap().pop().unwrap().1
}

#[tokio::test]
async fn a_disk_full_in_the_middle_of_a_record_costs_that_request_and_no_number() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Failing::new();
    let journal = open_on(dir.path(), Sync::Always, &disk);
    journal.append(vec![entry(0, "a")]).await.unwrap();
    disk.leave(70);
    assert_eq!(
        journal.append(vec![entry(0, "lost"), entry(0, "too")]).await,
        Err(AppendError::Full)
    );
    disk.leave(i64::MAX);
    assert_eq!(journal.append(vec![entry(0, "b")]).await.unwrap()[0].seq, 1);
    drop(journal);
    let journal = open(dir.path(), Sync::Always);
    assert_eq!(values(&drain(&journal).await), ["a", "b"]);
}

#[tokio::test]
async fn a_segment_that_cannot_be_cut_back_is_closed_and_its_numbers_are_used_up() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Failing::new();
    let journal = open_on(dir.path(), Sync::Always, &disk);
    journal.append(vec![entry(0, "a")]).await.unwrap();
    disk.fail_cuts(true);
    disk.leave(100);
    assert_eq!(
        journal.append(vec![entry(0, "whole"), entry(0, "torn")]).await,
        Err(AppendError::Full)
    );
    disk.leave(i64::MAX);
    assert_eq!(
        journal.append(vec![entry(0, "b")]).await.unwrap()[0].seq,
        3,
        "1 and 2 may be on disk"
    );
    assert_eq!(values(&drain(&journal).await), ["a", "b"]);
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_taken_and_nothing_unsynced_is_shipped() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Failing::new();
    let journal = open_on(dir.path(), Sync::Always, &disk);
    journal.append(vec![entry(0, "a")]).await.unwrap();
    disk.fail_syncs(true);
    assert_eq!(
        journal.append(vec![entry(0, "b")]).await,
        Err(AppendError::Failed)
    );
    disk.fail_syncs(false);
    assert_eq!(
        journal.append(vec![entry(0, "c")]).await,
        Err(AppendError::Failed),
        "a later sync proves nothing"
    );
    assert_eq!(journal.health(), Health::Failed);
    let reader = journal.reader();
    let lane = Lane {
        topic: Topic::Ingest,
        partition: 0,
    };
    let batch = reader.take(lane, LIMITS).unwrap().unwrap();
    assert_eq!(values(&batch.records), ["a"]);
    reader.acknowledge(&batch);
    assert!(reader.take(lane, LIMITS).unwrap().is_none());
}

#[tokio::test]
async fn a_damaged_record_in_the_middle_is_set_aside_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), Sync::Always);
    for value in ["first", "second", "third"] {
        journal.append(vec![entry(0, value)]).await.unwrap();
    }
    drop(journal);
    let path = newest(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(6).position(|window| window == b"second").unwrap();
    bytes[at] ^= 0x20;
    std::fs::write(&path, bytes).unwrap();
    let journal = open(dir.path(), Sync::Always);
    assert_eq!(values(&drain(&journal).await), ["first", "third"]);
    let aside = std::fs::read_to_string(dir.path().join("aside.jsonl")).unwrap();
    assert_eq!(aside.lines().count(), 1, "{aside}");
    assert_eq!(journal.append(vec![entry(0, "fourth")]).await.unwrap()[0].seq, 3);
}

#[tokio::test]
async fn a_record_damaged_while_the_process_runs_is_set_aside_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let forgetful = Config {
        recent: ByteSize::bytes(0),
        ..config(dir.path(), Sync::Always)
    };
    let journal = Journal::open(&forgetful, Arc::new(SystemClock)).unwrap().0;
    for value in ["first", "second", "third"] {
        journal.append(vec![entry(0, value)]).await.unwrap();
    }
    let path = newest(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(6).position(|window| window == b"second").unwrap();
    bytes[at] ^= 0x20;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(values(&drain(&journal).await), ["first", "third"]);
    assert!(dir.path().join("aside.jsonl").exists());
}

#[tokio::test]
async fn zero_pages_behind_the_last_record_are_a_torn_tail() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), Sync::Always);
    journal.append(vec![entry(0, "a")]).await.unwrap();
    drop(journal);
    let path = newest(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.extend_from_slice(&[0; 8192]);
    std::fs::write(&path, bytes).unwrap();
    let journal = open(dir.path(), Sync::Always);
    assert_eq!(values(&drain(&journal).await), ["a"]);
    assert!(!dir.path().join("aside.jsonl").exists());
}

#[tokio::test]
async fn a_segment_that_was_being_made_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), Sync::Always);
    journal.append(vec![entry(0, "a")]).await.unwrap();
    drop(journal);
    let number = segment::number(&newest(dir.path())).unwrap();
    std::fs::write(segment::path(dir.path(), number + 1), b"millrjl").unwrap();
    let journal = open(dir.path(), Sync::Always);
    assert_eq!(values(&drain(&journal).await), ["a"]);
}

#[tokio::test]
async fn lost_positions_cost_a_second_delivery_and_no_number() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), Sync::Always);
    journal.append(vec![entry(0, "a")]).await.unwrap();
    assert_eq!(drain(&journal).await.len(), 1);
    journal.close().await.unwrap();
    drop(journal);
    std::fs::write(dir.path().join("positions.json"), b"not json").unwrap();
    let journal = open(dir.path(), Sync::Always);
    assert_eq!(values(&drain(&journal).await), ["a"]);
    assert_eq!(journal.append(vec![entry(0, "b")]).await.unwrap()[0].seq, 1);
}

#[tokio::test]
async fn segments_are_deleted_although_positions_cannot_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), Sync::Always);
    for _ in 0..30 {
        journal.append(vec![entry(0, vec![b'x'; 1000])]).await.unwrap();
    }
    drain(&journal).await;
    std::fs::create_dir(dir.path().join("positions.json.new")).unwrap();
    journal.reader().tidy().unwrap_err();
    assert_eq!(journal.depth().segments, 1);
}

#[tokio::test]
async fn a_journal_whose_note_cannot_be_written_is_opened_for_what_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), Sync::Always);
    journal.append(vec![entry(0, "a")]).await.unwrap();
    drop(journal);
    std::fs::create_dir(dir.path().join("journal.json.new")).unwrap();
    let journal = open(dir.path(), Sync::Always);
    assert_eq!(values(&drain(&journal).await), ["a"]);
    drop(journal);
    let blind = Journal::open(&config(dir.path(), Sync::Os), Arc::new(SystemClock));
    assert!(
        matches!(blind, Err(OpenError::Io { .. })),
        "without syncs the note is needed"
    );
}

#[tokio::test]
async fn the_room_behind_the_records_is_no_damage_and_is_gone_when_a_segment_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let roomy = || {
        Journal::open(&config(dir.path(), Sync::Always), Arc::new(SystemClock))
            .unwrap()
            .0
    };
    let length = |path: &Path| std::fs::metadata(path).unwrap().len();
    let segment_size = config(dir.path(), Sync::Always).segment.get();
    let journal = roomy();
    let mut expected = Vec::new();
    for n in 0..12 {
        let value = format!("{n}{}", "x".repeat(1000));
        journal.append(vec![entry(0, value.as_str())]).await.unwrap();
        expected.push(value);
    }
    let held = journal.depth().bytes;
    let found = Inspection::of(dir.path()).unwrap();
    assert_eq!((found.bytes(), found.notes), (held, Vec::new()));
    drop(journal);
    let files = recover::segments(dir.path()).unwrap();
    assert_eq!(files.len(), 2);
    assert!(
        length(&files[0].1) <= segment_size,
        "nothing is behind a closed segment"
    );
    assert_eq!(
        length(&files[1].1),
        segment_size,
        "killed, the process leaves its room behind"
    );
    assert_eq!(Inspection::of(dir.path()).unwrap().notes, Vec::<String>::new());

    let journal = roomy();
    assert_eq!(length(&files[0].1) + length(&files[1].1), held);
    assert_eq!(values(&drain(&journal).await), expected);
    assert!(!dir.path().join("aside.jsonl").exists());
    journal.append(vec![entry(0, "last")]).await.unwrap();
    journal.close().await.unwrap();
    drop(journal);
    let newest = newest(dir.path());
    assert!(length(&newest) < 1000, "closed in order, it leaves none");
}

#[tokio::test]
async fn files_of_shipped_segments_become_new_ones_and_what_was_in_them_never_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let roomy = || {
        Journal::open(&config(dir.path(), Sync::Always), Arc::new(SystemClock))
            .unwrap()
            .0
    };
    let spares = || {
        let files = std::fs::read_dir(dir.path()).unwrap();
        files
            .filter(|file| segment::is_spare(&file.as_ref().unwrap().path()))
            .count()
    };
    let fill = async |journal: &Journal, records: usize| {
        for _ in 0..records {
            journal.append(vec![entry(0, vec![b'x'; 1000])]).await.unwrap();
        }
    };
    let journal = roomy();
    fill(&journal, 40).await;
    assert_eq!(drain(&journal).await.len(), 40);
    assert!(journal.reader().tidy().unwrap() > 3);
    assert_eq!(spares(), 2, "two are kept, the others are deleted");
    // Into the segment in use, and on into one that is full of what was shipped before.
    fill(&journal, 5).await;
    assert_eq!(spares(), 1);
    let recycled = newest(dir.path());
    let header = segment::Header::decode(&std::fs::read(&recycled).unwrap())
        .unwrap()
        .0;
    assert!(header.recycled && segment::number(&recycled) == Some(header.number));
    let held = journal.depth().bytes;
    drop(journal);
    let found = Inspection::of(dir.path()).unwrap();
    assert_eq!((found.bytes(), found.notes), (held, Vec::new()));

    let journal = roomy();
    assert_eq!(spares(), 0, "a new process makes its own");
    let seqs: Vec<_> = drain(&journal)
        .await
        .iter()
        .map(|record| record.identity.seq)
        .collect();
    assert_eq!(seqs, (40..45).collect::<Vec<_>>());
    assert!(!dir.path().join("aside.jsonl").exists());
    assert_eq!(journal.append(vec![entry(0, "next")]).await.unwrap()[0].seq, 45);
    journal.close().await.unwrap();
    drop(journal);

    // Killed by a loss of power in between: the new header is there, the new name is not.
    let path = newest(dir.path());
    let number = segment::number(&path).unwrap();
    let mut bytes = vec![b'y'; 8 << 10];
    let becoming = segment::Header {
        number: number + 2,
        ..header
    };
    bytes[..becoming.encode().len()].copy_from_slice(&becoming.encode());
    std::fs::write(segment::path(dir.path(), number + 1), bytes).unwrap();
    let journal = roomy();
    assert!(!segment::path(dir.path(), number + 1).exists());
    let left = drain(&journal).await;
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(!dir.path().join("aside.jsonl").exists());
}
