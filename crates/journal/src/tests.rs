mod damage;
mod failing;
mod faults;
mod inspected;
mod model;

use std::time::Duration;

use millrace_service::SystemClock;
use millrace_service::config::ByteSize;

use super::*;

const LIMITS: Limits = Limits {
    bytes: 64 << 10,
    records: 7,
};

fn config(dir: &Path, sync: Sync) -> Config {
    Config {
        dir: dir.to_owned(),
        sync,
        sync_interval: Duration::from_millis(1),
        segment: ByteSize::kib(8),
        limit: ByteSize::mib(8),
        // Some of it is shipped from memory, the rest from the disk.
        recent: ByteSize::kib(2),
        retain: Duration::ZERO,
        ..Config::default()
    }
}

/// On files that end behind their last record, so that a test can lay hands on the end.
fn open(dir: &Path, sync: Sync) -> Journal {
    failing::open_on(dir, sync, &failing::Failing::new())
}

fn entry(partition: u32, value: impl Into<Vec<u8>>) -> Entry {
    let headers = Headers::new().with("traceparent", "00-a-b-01");
    Entry {
        topic: Topic::Ingest,
        partition,
        key: b"key".to_vec(),
        headers,
        value: value.into(),
    }
}

/// Waits until everything appended may be shipped, and ships it.
async fn drain(journal: &Journal) -> Vec<Shipped> {
    let reader = journal.reader();
    let mut changed = reader.subscribe();
    let mut shipped = Vec::new();
    while !reader.is_drained() {
        changed.borrow_and_update();
        let mut progress = false;
        for lane in reader.lanes() {
            while let Some(batch) = reader.take(lane, LIMITS).unwrap() {
                reader.acknowledge(&batch);
                shipped.extend(batch.records);
                progress = true;
            }
        }
        if !progress && !reader.is_drained() {
            tokio::time::timeout(Duration::from_secs(10), changed.changed())
                .await
                .unwrap()
                .unwrap();
        }
    }
    shipped
}

#[tokio::test]
async fn what_is_appended_is_shipped_in_order_with_dense_numbers_under_every_setting() {
    for sync in [Sync::Always, Sync::Interval, Sync::Os] {
        let dir = tempfile::tempdir().unwrap();
        let journal = open(dir.path(), sync);
        let first = journal
            .append(vec![entry(0, "a"), entry(1, "b"), entry(0, "c")])
            .await
            .unwrap();
        let second = journal.append(vec![entry(0, "d")]).await.unwrap();
        let seqs: Vec<_> = first
            .iter()
            .chain(&second)
            .map(|id| (id.partition, id.seq))
            .collect();
        assert_eq!(seqs, [(0, 0), (1, 0), (0, 1), (0, 2)]);
        let shipped = drain(&journal).await;
        let of_first: Vec<_> = shipped
            .iter()
            .filter(|r| r.identity.partition == 0)
            .map(|r| r.value.clone())
            .collect();
        assert_eq!(of_first, ["a", "c", "d"]);
        assert_eq!(shipped[0].headers.text("traceparent"), Some("00-a-b-01"));
        assert_eq!(shipped[0].identity.journal, journal.id(Topic::Ingest));
        assert_ne!(journal.id(Topic::Ingest), journal.id(Topic::Dlq));
    }
}

#[tokio::test]
async fn numbering_goes_on_after_everything_was_shipped_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = 0;
    let mut id = None;
    for clean in [true, false, true] {
        let journal = open(dir.path(), Sync::Always);
        assert_eq!(
            *id.get_or_insert(journal.id(Topic::Ingest)),
            journal.id(Topic::Ingest)
        );
        for _ in 0..50 {
            let identities = journal.append(vec![entry(2, vec![b'x'; 1000])]).await.unwrap();
            assert_eq!(identities[0].seq, expected);
            expected += 1;
        }
        assert_eq!(drain(&journal).await.len(), 50);
        assert!(journal.reader().tidy().unwrap() > 3, "full segments are deleted");
        assert!(journal.depth().bytes < 20_000);
        if clean {
            journal.close().await.unwrap();
            assert_eq!(
                journal.append(vec![entry(0, "x")]).await,
                Err(AppendError::Closed)
            );
        }
    }
}

#[tokio::test]
async fn a_journal_at_its_limit_refuses_until_some_of_it_is_shipped() {
    let dir = tempfile::tempdir().unwrap();
    let limited = Config {
        limit: ByteSize::kib(64),
        ..config(dir.path(), Sync::Os)
    };
    let journal = Journal::open(&limited, Arc::new(SystemClock)).unwrap().0;
    let mut taken = 0;
    while journal.append(vec![entry(0, vec![b'x'; 1000])]).await.is_ok() {
        taken += 1;
    }
    assert!((55..65).contains(&taken), "{taken}");
    assert_eq!(
        journal.append(vec![entry(0, vec![b'x'; 1000])]).await,
        Err(AppendError::Full)
    );
    assert_eq!(drain(&journal).await.len(), taken);
    journal.reader().tidy().unwrap();
    journal.append(vec![entry(0, vec![b'x'; 1000])]).await.unwrap();
}

#[tokio::test]
async fn requests_that_are_appended_together_are_taken_or_refused_each_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let limited = Config {
        limit: ByteSize::kib(8),
        ..config(dir.path(), Sync::Always)
    };
    let journal = Journal::open(&limited, Arc::new(SystemClock)).unwrap().0;
    let mut unfit = entry(0, "x");
    unfit.key = vec![b'k'; 70_000];
    let before = journal.syncs();
    let taken = journal
        .append_each(vec![
            vec![entry(0, "a"), entry(1, "b")],
            vec![entry(0, "c"), unfit],
            Vec::new(),
            vec![entry(0, vec![b'x'; 9_000])],
            vec![entry(0, "d")],
        ])
        .await;
    let seqs = |taken: &Result<Vec<Identity>, AppendError>| {
        let identities = taken.as_ref().map_err(|error| *error)?;
        Ok(identities
            .iter()
            .map(|id| (id.partition, id.seq))
            .collect::<Vec<_>>())
    };
    let expected = [
        Ok(vec![(0, 0), (1, 0)]),
        Err(AppendError::TooLarge),
        Ok(Vec::new()),
        Err(AppendError::Full),
        Ok(vec![(0, 1)]),
    ];
    assert_eq!(taken.iter().map(seqs).collect::<Vec<_>>(), expected);
    assert_eq!(journal.syncs() - before, 1, "one for all of them");
    let values: Vec<_> = drain(&journal)
        .await
        .into_iter()
        .map(|record| record.value)
        .collect();
    assert_eq!(values, ["a", "d", "b"]);
    journal.close().await.unwrap();
    assert_eq!(
        journal.append_each(vec![vec![entry(0, "x")], Vec::new()]).await,
        [Err(AppendError::Closed), Err(AppendError::Closed)]
    );
}

#[test]
fn a_directory_is_for_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let _journal = open(dir.path(), Sync::Os);
    let second = Journal::open(&config(dir.path(), Sync::Os), Arc::new(SystemClock));
    assert!(matches!(second, Err(OpenError::Locked(_))));
}

#[tokio::test]
async fn segments_without_their_identity_are_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), Sync::Os));
    std::fs::remove_file(dir.path().join("journal.json")).unwrap();
    let orphaned = Journal::open(&config(dir.path(), Sync::Os), Arc::new(SystemClock));
    assert!(matches!(orphaned, Err(OpenError::Orphaned(_))));
}

#[tokio::test]
async fn an_entry_beyond_the_format_is_refused_and_costs_no_number() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), Sync::Os);
    let large = Entry {
        key: vec![0; 70_000],
        ..entry(0, "x")
    };
    assert_eq!(
        journal.append(vec![entry(0, "a"), large]).await,
        Err(AppendError::TooLarge)
    );
    assert_eq!(journal.append(vec![entry(0, "a")]).await.unwrap()[0].seq, 0);
}

#[tokio::test]
async fn the_partition_count_is_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), Sync::Os);
    assert_eq!(journal.partitions(), None);
    journal.remember_partitions(12).unwrap();
    drop(journal);
    assert_eq!(open(dir.path(), Sync::Os).partitions(), Some(12));
}

#[tokio::test]
async fn recovered_segments_can_be_visited_and_held() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), Sync::Always);
    journal
        .append(vec![
            entry(0, "a"),
            Entry {
                topic: Topic::Dlq,
                ..entry(0, "refused")
            },
        ])
        .await
        .unwrap();
    drop(journal);
    let (journal, recovered) =
        Journal::open(&config(dir.path(), Sync::Always), Arc::new(SystemClock)).unwrap();
    let reader = journal.reader();
    reader.hold_recovered(true);
    assert_eq!(drain(&journal).await.len(), 2);
    assert_eq!(reader.tidy().unwrap(), 0, "held");
    let mut seen = Vec::new();
    for segment in recovered.segments() {
        reader
            .visit(*segment, Duration::from_secs(600), |value| {
                seen.push(value.to_vec())
            })
            .unwrap();
    }
    assert_eq!(seen, [b"a"]);
    reader.hold_recovered(false);
    assert_eq!(reader.tidy().unwrap(), 1);
}

#[tokio::test]
async fn what_waits_for_kafka_waits_until_all_of_it_is_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), Sync::Always);
    let identities = journal.append(vec![entry(0, "a"), entry(1, "b")]).await.unwrap();
    let reader = journal.reader();
    let mut waiting = std::pin::pin!(journal.acknowledged(&identities));
    for lane in reader.lanes() {
        let unfinished = tokio::time::timeout(Duration::ZERO, &mut waiting).await;
        assert!(unfinished.is_err(), "{lane:?} is not acknowledged");
        reader.acknowledge(&reader.take(lane, LIMITS).unwrap().unwrap());
    }
    tokio::time::timeout(Duration::from_secs(60), waiting)
        .await
        .unwrap();
}

#[tokio::test]
async fn what_earlier_processes_left_is_waited_for_and_nothing_newer() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path(), Sync::Always);
    journal.append(vec![entry(0, "a")]).await.unwrap();
    drop(journal);
    let journal = open(dir.path(), Sync::Always);
    let reader = journal.reader();
    let mut waiting = std::pin::pin!(journal.recovered_acknowledged());
    assert!(tokio::time::timeout(Duration::ZERO, &mut waiting).await.is_err());
    let batch = reader.take(reader.lanes()[0], LIMITS).unwrap().unwrap();
    journal.append(vec![entry(0, "newer")]).await.unwrap();
    reader.acknowledge(&batch);
    tokio::time::timeout(Duration::from_secs(60), waiting)
        .await
        .unwrap();
}
