use std::collections::HashMap;

use millrace_event::{Identity, JournalId, Verdict};
use millrace_warehouse::outcomes::{Decider, Decision, Key};
use millrace_warehouse::{Layout, Outcome, journals, outcomes};

use crate::place::{JOURNAL, Place, at};

fn key(seq: u64, attempt: u32) -> Key {
    Key {
        identity: Identity {
            journal: JOURNAL,
            partition: 3,
            seq,
        },
        attempt,
        row: None,
    }
}

fn decision(key: Key, offset: u64, received_at: &str) -> Decision {
    Decision {
        key,
        decider: Decider { partition: 3, offset },
        received_at: at(received_at),
        workspace: "demo".to_owned(),
        verdict: Verdict::Drop,
        function: "filter".to_owned(),
        code: String::new(),
    }
}

#[tokio::test]
async fn the_first_record_that_decided_is_found_by_its_key() {
    let place = Place::new().await;
    place.warehouse.migrate_up(&place.database).await.expect("up");
    let table = outcomes::table(place.database.clone()).expect("a name");
    place
        .warehouse
        .check_window(&table, Layout::default().deduplication_window)
        .await
        .expect("a window");
    let of_row = Key {
        row: Some((place.table("events"), 2)),
        ..key(1, 1)
    };
    let decisions = [
        decision(key(1, 0), 10, "2026-11-30T23:59:59.999Z"),
        decision(key(1, 1), 11, "2026-11-30T23:59:59.999Z"),
        decision(of_row.clone(), 12, "2026-11-30T23:59:59.999Z"),
        decision(key(u64::MAX, 0), u64::MAX, "2026-12-01T00:00:00Z"),
    ];
    let blocks = outcomes::encode(&decisions);
    assert_eq!(
        blocks
            .iter()
            .map(|block| (block.month(), block.rows().len()))
            .collect::<Vec<_>>(),
        [(202_611, 3), (202_612, 1)]
    );
    for block in &blocks {
        for _ in 0..2 {
            let outcome = place
                .insert(&table, block, &format!("token-{}", block.month()))
                .await;
            assert!(matches!(outcome, Outcome::Applied), "{outcome:?}");
        }
    }
    let mut asked = vec![
        key(1, 0),
        key(1, 1),
        key(1, 2),
        of_row.clone(),
        key(2, 0),
        key(u64::MAX, 0),
    ];
    asked.extend((100..2_000).map(|seq| key(seq, 0)));
    let found = place.warehouse.deciders(&table, &asked).await.expect("an answer");
    let by = |offset| Decider { partition: 3, offset };
    let wanted = HashMap::from([
        (key(1, 0), by(10)),
        (key(1, 1), by(11)),
        (of_row, by(12)),
        (key(u64::MAX, 0), by(u64::MAX)),
    ]);
    assert_eq!(found, wanted);
    let counts = format!(
        "SELECT hour, workspace, verdict, function, count() FROM {} GROUP BY ALL ORDER BY hour",
        table.quoted()
    );
    assert_eq!(
        place.rows(&counts).await,
        [
            "2026-11-30 23:00:00.000\tdemo\tdrop\tfilter\t3",
            "2026-12-01 00:00:00.000\tdemo\tdrop\tfilter\t1"
        ]
    );
}

#[tokio::test]
async fn a_watermark_is_the_latest_one_not_above_the_readers_position() {
    let place = Place::new().await;
    place.warehouse.migrate_up(&place.database).await.expect("up");
    let table = journals::table(place.database.clone()).expect("a name");
    place
        .warehouse
        .check_window(&table, Layout::default().deduplication_window)
        .await
        .expect("a window");
    let watermark = |journal, position, next, holes| journals::Watermark {
        partition: 3,
        journal,
        position,
        next,
        holes,
    };
    let early = watermark(JOURNAL, 100, 50, vec![3..5, 7..8]);
    let late = watermark(JOURNAL, 200, u64::MAX, Vec::new());
    let other = watermark(JournalId(u64::MAX), 150, 10, vec![0..1, 5..9]);
    let block = journals::encode("millrace-bulker", &[early.clone(), late.clone(), other.clone()]);
    for _ in 0..2 {
        assert!(matches!(
            place.insert(&table, &block, "t").await,
            Outcome::Applied
        ));
    }
    let read = async |group: &str, partition, journal, position| {
        place
            .warehouse
            .watermark(&table, group, partition, journal, position)
            .await
            .expect("an answer")
    };
    let group = "millrace-bulker";
    assert_eq!(read(group, 3, JOURNAL, 99).await, None);
    assert_eq!(read(group, 3, JOURNAL, 100).await, Some(early.clone()));
    assert_eq!(read(group, 3, JOURNAL, 199).await, Some(early));
    assert_eq!(read(group, 3, JOURNAL, u64::MAX).await, Some(late));
    assert_eq!(read(group, 3, JournalId(u64::MAX), 150).await, Some(other));
    assert_eq!(read(group, 4, JOURNAL, 150).await, None);
    assert_eq!(read("another", 3, JOURNAL, 150).await, None);
}
