use std::num::NonZeroU16;

use super::*;

fn schema() -> Vec<ColumnSpec> {
    let core = CORE.iter().map(|column| (column.name, column.type_name));
    let columns = core.chain(IDENTITY);
    columns
        .map(|(name, type_name)| ColumnSpec::new(name, ColumnType::parse(type_name)))
        .collect()
}

#[test]
fn the_table_has_what_exactly_once_stands_on() {
    let table: TableName = "ws_demo.events".parse().expect("a name");
    let sql = create_table(
        &table,
        &Layout {
            ttl: NonZeroU16::new(30).map(Ttl::Days),
            ..Layout::default()
        },
    );
    for part in [
        "CREATE TABLE IF NOT EXISTS `ws_demo`.`events`",
        "`_journal` UInt64 CODEC(ZSTD(1))",
        "PROJECTION _identity (SELECT _journal, _partition, _seq, _sub ORDER BY _journal, _partition, _seq, _sub)",
        "PARTITION BY toYYYYMM(received_at)",
        "TTL toDateTime(received_at) + INTERVAL 30 DAY DELETE",
        "non_replicated_deduplication_window = 10000",
    ] {
        assert!(sql.contains(part), "{part} is not in {sql}");
    }
}

#[test]
fn the_window_is_read_from_the_engine_of_either_kind() {
    let full =
        "MergeTree PARTITION BY x ORDER BY a SETTINGS non_replicated_deduplication_window = 100, b = 1";
    assert_eq!(window_of("MergeTree", full), 100);
    assert_eq!(window_of("ReplicatedMergeTree", full), 0);
    assert_eq!(
        window_of(
            "MergeTree",
            "MergeTree ORDER BY a SETTINGS index_granularity = 8192"
        ),
        0
    );
    assert_eq!(window_of("MergeTree", "MergeTree ORDER BY a"), 0);
}

#[test]
fn a_schema_without_its_identity_is_refused_by_name() {
    let columns = schema()
        .into_iter()
        .filter(|column| column.name != "_seq")
        .collect();
    let reason = check_columns(&Schema::new(columns)).expect_err("no _seq");
    assert_eq!(
        reason,
        UnfitReason::Column {
            name: "_seq",
            wanted: "UInt64",
            found: None
        }
    );
    let mut columns = schema();
    for column in &mut columns {
        if column.name == "_sub" {
            *column = ColumnSpec::new("_sub", ColumnType::parse("UInt32"));
        }
    }
    assert!(check_columns(&Schema::new(columns)).is_err());
    assert_eq!(check_columns(&Schema::new(schema())), Ok(()));
}
