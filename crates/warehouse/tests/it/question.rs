use std::collections::BTreeSet;

use millrace_event::{Identity, JournalId};
use millrace_warehouse::{Outcome, Row, RowId};

use crate::place::{JOURNAL, Place, raw, row};

fn of(journal: JournalId, partition: u32, seq: u64, sub: u16) -> RowId {
    RowId {
        identity: Identity {
            journal,
            partition,
            seq,
        },
        sub,
    }
}

#[tokio::test]
async fn the_table_names_exactly_the_rows_that_it_holds() {
    let place = Place::new().await;
    let (table, schema) = place.events().await;
    let event = raw(r#"{"type":"track"}"#);
    let ids = [
        of(JOURNAL, 3, 1, 0),
        of(JOURNAL, 3, 1, 1),
        of(JOURNAL, 3, 5, 0),
        of(JOURNAL, 3, u64::MAX, u16::MAX),
        of(JOURNAL, 4, 2, 0),
        of(JournalId(u64::MAX), 3, 3, 0),
    ];
    let rows: Vec<_> = ids
        .iter()
        .map(|id| Row {
            id: *id,
            ..row(0, &event)
        })
        .collect();
    let encoded = place.encode(&table, &schema, &rows).await;
    for block in &encoded.blocks {
        assert!(matches!(place.insert(&table, block, "t").await, Outcome::Applied));
    }
    let ask = async |journal, partition, seqs: &[u64]| {
        place
            .warehouse
            .which(&table, journal, partition, seqs)
            .await
            .expect("an answer")
    };
    assert_eq!(
        ask(JOURNAL, 3, &[0, 1, 2, 3, 5, 6, u64::MAX]).await,
        BTreeSet::from([(1, 0), (1, 1), (5, 0), (u64::MAX, u16::MAX)])
    );
    assert_eq!(ask(JOURNAL, 4, &[1, 2]).await, BTreeSet::from([(2, 0)]));
    assert_eq!(
        ask(JournalId(u64::MAX), 3, &[1, 3]).await,
        BTreeSet::from([(3, 0)])
    );
    assert_eq!(ask(JournalId(1), 3, &[1, 3]).await, BTreeSet::new());
    assert_eq!(ask(JOURNAL, 3, &[]).await, BTreeSet::new());
}

#[tokio::test]
async fn a_long_question_is_asked_in_parts_and_served_by_the_projection() {
    let place = Place::new().await;
    let (table, schema) = place.events().await;
    let events: Vec<_> = (0..30_000)
        .map(|n| {
            raw(&format!(
                r#"{{"type":"track","messageId":"{n}","event":"e{}"}}"#,
                n % 50
            ))
        })
        .collect();
    // Every third is missing.
    let rows: Vec<_> = (0_u64..)
        .zip(&events)
        .filter(|(seq, _)| seq % 3 != 0)
        .map(|(seq, event)| row(seq, event))
        .collect();
    let encoded = place.encode(&table, &schema, &rows).await;
    for block in &encoded.blocks {
        assert!(matches!(place.insert(&table, block, "t").await, Outcome::Applied));
    }
    place
        .run(&format!("OPTIMIZE TABLE {} FINAL", table.quoted()))
        .await;
    let high = u64::MAX - 12_000;
    let seqs: Vec<_> = (0..12_000).chain(high..u64::MAX).collect();
    let held = place
        .warehouse
        .which(&table, JOURNAL, 3, &seqs)
        .await
        .expect("an answer");
    let wanted: BTreeSet<_> = (0..12_000)
        .filter(|seq| seq % 3 != 0)
        .map(|seq| (seq, 0))
        .collect();
    assert_eq!(held, wanted);

    let explain = format!(
        "EXPLAIN indexes = 1, projections = 1 SELECT _seq AS seq, _sub AS sub FROM {} \
         WHERE _journal = {} AND _partition = 3 AND _seq IN (5,7)",
        table.quoted(),
        JOURNAL.0
    );
    let plan = place.rows(&explain).await.join("\n");
    assert!(plan.contains("_identity"), "{plan}");
}
