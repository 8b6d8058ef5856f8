use std::num::NonZeroU32;

use millrace_warehouse::{Layout, Outcome};

use crate::place::{Place, raw, row};

const EVENTS: [&str; 3] = [
    r#"{"type":"track","event":"Bought","anonymousId":"a"}"#,
    r#"{"type":"track","event":"Bought","anonymousId":"b"}"#,
    r#"{"type":"page","anonymousId":"a"}"#,
];

const COUNTS: &str = "SELECT minute, type, event, source, sum(events), uniqMerge(people) FROM ";

#[tokio::test]
async fn counts_are_kept_by_the_minute_and_a_block_that_comes_again_is_counted_once() {
    let place = Place::new().await;
    let (table, schema) = place.events().await;
    let events = EVENTS.map(raw);
    let rows: Vec<_> = (0..).zip(&events).map(|(seq, event)| row(seq, event)).collect();
    let encoded = place.encode(&table, &schema, &rows).await;
    let [block] = encoded.blocks.as_slice() else {
        panic!("one block")
    };
    for token in ["first", "first", "second", "first"] {
        let outcome = place.insert(&table, block, token).await;
        assert!(matches!(outcome, Outcome::Applied), "{outcome:?}");
    }
    let counts = place.table("events_per_minute");
    assert_eq!(
        place
            .rows(&format!("{COUNTS} {} GROUP BY ALL ORDER BY ALL", counts.quoted()))
            .await,
        [
            "2026-11-21 04:00:00\tpage\t\tsrc\t2\t1",
            "2026-11-21 04:00:00\ttrack\tBought\tsrc\t4\t2",
        ],
        "two tokens, each once"
    );
    place
        .warehouse
        .check_window(&counts, Layout::default().deduplication_window)
        .await
        .expect("the counts have the table's window");
}

#[tokio::test]
async fn a_table_whose_counts_name_is_taken_goes_without() {
    let place = Place::new().await;
    let own = place.table("events_per_minute").quoted();
    place
        .run(&format!(
            "CREATE TABLE {own} (x UInt8) ENGINE = MergeTree ORDER BY x"
        ))
        .await;
    let (table, schema) = place.events().await;
    place.write(&table, &schema, &EVENTS).await;
    assert_eq!(
        place
            .rows(&format!("SELECT count() FROM {}", table.quoted()))
            .await,
        ["3"]
    );
    assert_eq!(place.rows(&format!("SELECT count() FROM {own}")).await, ["0"]);
}

#[tokio::test]
async fn counts_can_be_left_out() {
    let place = Place::empty();
    let table = place.table("events");
    let layout = Layout {
        live_counts: false,
        deduplication_window: NonZeroU32::new(100).expect("not nought"),
        ..Layout::default()
    };
    place
        .warehouse
        .create_table(&table, &layout)
        .await
        .expect("a table");
    let tables = format!(
        "SELECT name FROM system.tables WHERE database = '{}'",
        place.database
    );
    assert_eq!(place.rows(&tables).await, ["events"]);
}
