use std::num::NonZeroU16;

use millrace_event::destination::Ttl;
use millrace_warehouse::error::UnfitReason;
use millrace_warehouse::{Error, Layout, layout};

use crate::place::Place;

fn reason(result: Result<millrace_warehouse::Schema, Error>) -> UnfitReason {
    match result {
        Err(Error::UnfitTable { reason, .. }) => reason,
        other => panic!("a table that is not fit was taken: {other:?}"),
    }
}

#[tokio::test]
async fn the_table_is_made_as_its_layout_says_and_made_again_without_harm() {
    let place = Place::empty();
    let table = place.table("events");
    let layout = Layout {
        ttl: NonZeroU16::new(365).map(Ttl::Days),
        ..Layout::default()
    };
    for _ in 0..2 {
        place
            .warehouse
            .create_table(&table, &layout)
            .await
            .expect("a table");
    }
    let full = place
        .rows(&format!(
            "SELECT engine_full FROM system.tables WHERE database = '{}' AND name = 'events'",
            place.database
        ))
        .await;
    let [full] = full.as_slice() else {
        panic!("one table: {full:?}")
    };
    assert!(full.contains("PARTITION BY toYYYYMM(received_at)"), "{full}");
    assert!(
        full.contains(
            "ORDER BY (type, event, toStartOfHour(timestamp), cityHash64(anonymous_id), message_id)"
        ),
        "{full}"
    );
    assert!(
        full.contains("TTL toDateTime(received_at) + toIntervalDay(365)"),
        "{full}"
    );
    let columns = place
        .rows(&format!(
            "SELECT name, type FROM system.columns WHERE database = '{}' AND table = 'events' ORDER BY position",
            place.database
        ))
        .await;
    let core = layout::CORE.iter().map(|column| (column.name, column.type_name));
    let expected: Vec<_> = core
        .chain(layout::IDENTITY)
        .map(|(name, kind)| format!("{name}\t{}", kind.replace('\'', "\\'")))
        .collect();
    assert_eq!(columns, expected);
}

#[tokio::test]
async fn a_table_that_would_take_a_token_and_forget_it_is_refused() {
    let place = Place::new().await;
    let window = Layout::default().deduplication_window;
    let table = place.table("events");
    assert_eq!(
        reason(place.warehouse.check_table(&table, window).await),
        UnfitReason::Missing
    );

    let full = layout::create_table(&table, &Layout::default());
    let without = full.replace("non_replicated_deduplication_window = 10000, ", "");
    place.run(&without).await;
    let found = reason(place.warehouse.check_table(&table, window).await);
    assert_eq!(
        found,
        UnfitReason::Window {
            found: 0,
            wanted: 10_000
        }
    );

    let alter = format!(
        "ALTER TABLE {} MODIFY SETTING non_replicated_deduplication_window",
        table.quoted()
    );
    place.run(&format!("{alter} = 100")).await;
    let found = reason(place.warehouse.check_table(&table, window).await);
    assert_eq!(
        found,
        UnfitReason::Window {
            found: 100,
            wanted: 10_000
        }
    );
    place.run(&format!("{alter} = 20000")).await;
    place
        .warehouse
        .check_table(&table, window)
        .await
        .expect("fit now");

    place
        .run(&format!(
            "CREATE TABLE {} (x UInt8) ENGINE = Memory",
            place.table("memory").quoted()
        ))
        .await;
    let found = reason(place.warehouse.check_table(&place.table("memory"), window).await);
    assert_eq!(found, UnfitReason::Engine("Memory".to_owned()));
}

#[tokio::test]
async fn a_table_without_its_identity_is_refused() {
    let place = Place::new().await;
    let table = place.table("events");
    let full = layout::create_table(&table, &Layout::default());
    let projection = "    PROJECTION _identity (SELECT _journal, _partition, _seq, _sub ORDER BY _journal, _partition, _seq, _sub)\n";
    let without = full
        .replace(projection, "")
        .replace("    `_sub` UInt16 CODEC(ZSTD(1)),\n", "    `_sub` UInt8\n");
    place.run(&without).await;
    let found = reason(
        place
            .warehouse
            .check_table(&table, Layout::default().deduplication_window)
            .await,
    );
    assert_eq!(
        found,
        UnfitReason::Column {
            name: "_sub",
            wanted: "UInt16",
            found: Some("UInt8".to_owned())
        }
    );
}

#[tokio::test]
async fn a_table_whose_rows_of_a_month_are_spread_is_refused() {
    let place = Place::new().await;
    let window = Layout::default().deduplication_window;
    let table = place.table("events");
    let full = layout::create_table(&table, &Layout::default());
    place
        .run(&full.replace(layout::PARTITION_KEY, "toYYYYMMDD(received_at)"))
        .await;
    let found = reason(place.warehouse.check_table(&table, window).await);
    assert_eq!(
        found,
        UnfitReason::PartitionKey("toYYYYMMDD(received_at)".to_owned())
    );
    // The server's own time zone would decide the month.
    place.run(&format!("DROP TABLE {} SYNC", table.quoted())).await;
    place
        .run(&full.replace(
            "`received_at` DateTime64(3, 'UTC')",
            "`received_at` DateTime64(3)",
        ))
        .await;
    let found = reason(place.warehouse.check_table(&table, window).await);
    let (name, wanted) = ("received_at", "DateTime64(3, 'UTC')");
    assert_eq!(
        found,
        UnfitReason::Column {
            name,
            wanted,
            found: Some("DateTime64(3)".to_owned())
        }
    );
    place.run(&format!("DROP TABLE {} SYNC", table.quoted())).await;
    place
        .run(&full.replace(&format!("PARTITION BY {}\n", layout::PARTITION_KEY), ""))
        .await;
    place
        .warehouse
        .check_table(&table, window)
        .await
        .expect("one partition for all is fit");
}

#[tokio::test]
async fn a_table_with_a_view_that_would_count_twice_is_refused_by_name() {
    let place = Place::new().await;
    let window = Layout::default().deduplication_window;
    let (table, _) = place.events().await;
    let name = |name: &str| place.table(name).quoted();
    let (source, fit) = (
        table.quoted(),
        "SETTINGS non_replicated_deduplication_window = 10000",
    );
    let check = async || place.warehouse.check_table(&table, window).await;
    let target = "(type String) ENGINE = MergeTree ORDER BY type";

    // A view with a table of its own, and one that goes on through a Null table.
    place
        .run(&format!(
            "CREATE MATERIALIZED VIEW {} {target} {fit} AS SELECT type FROM {source}",
            name("own")
        ))
        .await;
    place
        .run(&format!(
            "CREATE TABLE {} (type String) ENGINE = Null",
            name("null")
        ))
        .await;
    place
        .run(&format!(
            "CREATE MATERIALIZED VIEW {} TO {} AS SELECT type FROM {source}",
            name("first"),
            name("null")
        ))
        .await;
    check().await.expect("every target is fit");

    place
        .run(&format!("CREATE TABLE {} {target}", name("last")))
        .await;
    place
        .run(&format!(
            "CREATE MATERIALIZED VIEW {} TO {} AS SELECT type FROM {}",
            name("second"),
            name("last"),
            name("null")
        ))
        .await;
    let (view, target) = (place.table("second").to_string(), place.table("last").to_string());
    let wanted = u64::from(window.get());
    assert_eq!(
        reason(check().await),
        UnfitReason::ViewTarget {
            view,
            target,
            found: 0,
            wanted
        }
    );

    place
        .run(&format!(
            "ALTER TABLE {} MODIFY {}",
            name("last"),
            fit.replace("SETTINGS", "SETTING")
        ))
        .await;
    check().await.expect("every target is fit again");
}
