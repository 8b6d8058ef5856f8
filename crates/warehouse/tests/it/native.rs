use millrace_warehouse::column_type::ColumnType;
use millrace_warehouse::native::{Cell, Column, NamedColumn, write_block};
use millrace_warehouse::{Warehouse, native};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::place::Place;

/// The types that the encoder knows, and what the server calls them once a dictionary is written out in full.
const TYPES: [(&str, &str); 42] = [
    ("UInt64", "UInt64"),
    ("Bool", "Bool"),
    ("UInt8", "UInt8"),
    ("UInt16", "UInt16"),
    ("UInt32", "UInt32"),
    ("Int8", "Int8"),
    ("Int16", "Int16"),
    ("Int32", "Int32"),
    ("Int64", "Int64"),
    ("Float32", "Float32"),
    ("Float64", "Float64"),
    ("DateTime64(3, 'UTC')", "DateTime64(3, 'UTC')"),
    ("String", "String"),
    ("LowCardinality(String)", "String"),
    ("LowCardinality(Nullable(String))", "Nullable(String)"),
    ("Nullable(Bool)", "Nullable(Bool)"),
    ("Nullable(Float64)", "Nullable(Float64)"),
    ("Nullable(DateTime64(3, 'UTC'))", "Nullable(DateTime64(3, 'UTC'))"),
    ("Nullable(String)", "Nullable(String)"),
    ("Array(Float64)", "Array(Float64)"),
    ("Array(String)", "Array(String)"),
    ("Array(Bool)", "Array(Bool)"),
    ("Nullable(UInt8)", "Nullable(UInt8)"),
    ("Nullable(UInt16)", "Nullable(UInt16)"),
    ("Nullable(UInt32)", "Nullable(UInt32)"),
    ("Nullable(UInt64)", "Nullable(UInt64)"),
    ("Nullable(Int8)", "Nullable(Int8)"),
    ("Nullable(Int16)", "Nullable(Int16)"),
    ("Nullable(Int32)", "Nullable(Int32)"),
    ("Nullable(Int64)", "Nullable(Int64)"),
    ("Nullable(Float32)", "Nullable(Float32)"),
    ("Array(UInt8)", "Array(UInt8)"),
    ("Array(UInt16)", "Array(UInt16)"),
    ("Array(UInt32)", "Array(UInt32)"),
    ("Array(UInt64)", "Array(UInt64)"),
    ("Array(Int8)", "Array(Int8)"),
    ("Array(Int16)", "Array(Int16)"),
    ("Array(Int32)", "Array(Int32)"),
    ("Array(Int64)", "Array(Int64)"),
    ("Array(Float32)", "Array(Float32)"),
    ("Array(DateTime64(3, 'UTC'))", "Array(DateTime64(3, 'UTC'))"),
    ("DateTime64(3)", "DateTime64(3)"),
];

/// Names of the columns: the first counts the rows, so that they come back in order.
fn name_of(position: usize) -> String {
    format!("c{position:02}")
}

fn block(types: impl Iterator<Item = &'static str>, rows: &[Vec<Cell<'static>>]) -> Vec<u8> {
    let types: Vec<_> = types.collect();
    let names: Vec<_> = (0..types.len()).map(name_of).collect();
    let mut columns = Vec::new();
    for (position, type_name) in types.iter().enumerate() {
        let mut column = Column::new(&ColumnType::parse(type_name)).expect("a type that can be encoded");
        for row in rows {
            column
                .push(row.get(position).expect("a cell"))
                .expect("a cell of the column's form");
        }
        columns.push(column);
    }
    let named: Vec<_> = names
        .iter()
        .zip(&types)
        .zip(&columns)
        .map(|((name, type_name), column)| NamedColumn {
            name,
            type_name,
            column,
        })
        .collect();
    let mut out = Vec::new();
    native::write_block(&mut out, rows.len(), &named);
    out
}

async fn send(
    warehouse: &Warehouse,
    table: &str,
    columns: &str,
    body: Vec<u8>,
) -> clickhouse::error::Result<()> {
    let sql = format!("INSERT INTO {table} ({columns}) FORMAT Native");
    let settings = [
        "input_format_native_allow_types_conversion",
        "input_format_skip_unknown_fields",
        "async_insert",
    ];
    let mut insert = warehouse.client().insert_formatted_with(sql);
    for name in settings {
        insert = insert.with_setting(name, "0");
    }
    insert.send(body.into()).await?;
    insert.end().await
}

fn bits(width: u32) -> impl Strategy<Value = Cell<'static>> {
    let mask = u64::MAX >> (64 - width);
    prop_oneof![Just(0), Just(mask), any::<u64>()].prop_map(move |bits| Cell::Bits(bits & mask))
}

fn text() -> impl Strategy<Value = Cell<'static>> {
    prop_oneof![
        3 => any::<String>(),
        1 => "[a-c]?",
        1 => Just("\0\u{fffd}\u{10ffff}\r\n\t'\"\\`".to_owned()),
        1 => Just("x".repeat(300)),
    ]
    .prop_map(|text| Cell::Text(text.into()))
}

fn date_time() -> impl Strategy<Value = Cell<'static>> {
    prop_oneof![
        Just(-2_208_988_800_000),
        Just(10_413_791_999_999),
        Just(-1),
        -2_208_988_800_000..10_413_791_999_999_i64
    ]
    .prop_map(|millis: i64| Cell::Bits(millis.cast_unsigned()))
}

fn truth() -> impl Strategy<Value = Cell<'static>> {
    any::<bool>().prop_map(|truth| Cell::Bits(u64::from(truth)))
}

fn scalar(type_name: &str) -> BoxedStrategy<Cell<'static>> {
    match type_name {
        "Bool" => truth().boxed(),
        "UInt8" | "Int8" => bits(8).boxed(),
        "UInt16" | "Int16" => bits(16).boxed(),
        "UInt32" | "Int32" | "Float32" => bits(32).boxed(),
        "String" => text().boxed(),
        time if time.starts_with("DateTime64(3") => date_time().boxed(),
        _ => bits(64).boxed(),
    }
}

fn cell(type_name: &'static str) -> BoxedStrategy<Cell<'static>> {
    if let Some(inner) = type_name
        .strip_prefix("Array(")
        .and_then(|rest| rest.strip_suffix(')'))
    {
        return proptest::collection::vec(scalar(inner), 0..4)
            .prop_map(Cell::List)
            .boxed();
    }
    let inside = |outer: &str, text: &'static str| text.strip_prefix(outer)?.strip_suffix(')');
    let inner = inside("LowCardinality(", type_name).unwrap_or(type_name);
    let inner = inside("Nullable(", inner).unwrap_or(inner);
    prop_oneof![1 => Just(Cell::Missing), 4 => scalar(inner)].boxed()
}

fn rows() -> impl Strategy<Value = Vec<Vec<Cell<'static>>>> {
    let row: Vec<_> = TYPES
        .iter()
        .skip(1)
        .map(|(type_name, _)| cell(type_name))
        .collect();
    proptest::collection::vec(row, 1..12).prop_map(|mut rows| {
        for (number, row) in (0..).zip(&mut rows) {
            row.insert(0, Cell::Bits(number));
        }
        rows
    })
}

#[test]
fn the_server_holds_every_value_bit_for_bit() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let place = runtime.block_on(Place::new());
    let table = place.table("t").quoted();
    let columns: Vec<_> = TYPES
        .iter()
        .enumerate()
        .map(|(at, (type_name, _))| format!("{} {type_name}", name_of(at)))
        .collect();
    let names: Vec<_> = (0..TYPES.len()).map(name_of).collect();
    runtime.block_on(place.run(&format!(
        "CREATE TABLE {table} ({}) ENGINE = MergeTree ORDER BY c00",
        columns.join(", ")
    )));
    // Written out in full, because a dictionary's order is the server's own.
    let casts: Vec<_> = TYPES
        .iter()
        .zip(&names)
        .map(|((_, full), name)| format!("CAST(t.{name}, '{}') AS {name}", full.replace('\'', "\\'")))
        .collect();
    let select = format!(
        "SELECT {} FROM {table} AS t ORDER BY c00 SETTINGS max_threads = 1",
        casts.join(", ")
    );

    let mut runner = TestRunner::new(Config {
        cases: 96,
        failure_persistence: None,
        ..Config::default()
    });
    let result = runner.run(&rows(), |rows| {
        let read = runtime.block_on(async {
            place.run(&format!("TRUNCATE TABLE {table}")).await;
            let sent = block(TYPES.iter().map(|(type_name, _)| *type_name), &rows);
            send(&place.warehouse, &table, &names.join(", "), sent)
                .await
                .expect("the server takes the block");
            place.bytes(&select, "Native").await
        });
        // What it writes for what it holds are the very bytes that this encoder writes for what was sent.
        let wanted = block(TYPES.iter().map(|(_, full)| *full), &rows);
        prop_assert!(read == wanted, "the server holds something else");
        Ok(())
    });
    result.expect("every case");
}

#[tokio::test]
async fn the_server_reads_the_values_that_were_meant() {
    let place = Place::new().await;
    let table = place.table("t").quoted();
    place
        .run(&format!(
            "CREATE TABLE {table} (c00 UInt64, c01 Nullable(Float64), c02 LowCardinality(Nullable(String)), \
             c03 Array(String), c04 DateTime64(3, 'UTC'), c05 Nullable(Bool), c06 Int64) ENGINE = MergeTree ORDER BY c00"
        ))
        .await;
    let types = [
        "UInt64",
        "Nullable(Float64)",
        "LowCardinality(Nullable(String))",
        "Array(String)",
        "DateTime64(3, 'UTC')",
        "Nullable(Bool)",
        "Int64",
    ];
    let list =
        |items: &[&'static str]| Cell::List(items.iter().map(|item| Cell::Text((*item).into())).collect());
    let rows = [
        vec![
            Cell::Bits(u64::MAX),
            Cell::Bits(f64::MIN_POSITIVE.to_bits()),
            Cell::Text("é😀".into()),
            list(&["a", "", "b"]),
            Cell::Bits(10_413_791_999_999),
            Cell::Bits(1),
            Cell::Bits(1 << 63),
        ],
        vec![
            Cell::Bits(0),
            Cell::Missing,
            Cell::Missing,
            list(&[]),
            Cell::Bits((-2_208_988_800_000_i64).cast_unsigned()),
            Cell::Missing,
            Cell::Bits(u64::MAX),
        ],
        vec![
            Cell::Bits(1),
            Cell::Bits((-0.1_f64).to_bits()),
            Cell::Text("".into()),
            Cell::Missing,
            Cell::Missing,
            Cell::Bits(0),
            Cell::Missing,
        ],
    ];
    send(
        &place.warehouse,
        &table,
        "c00, c01, c02, c03, c04, c05, c06",
        block(types.into_iter(), &rows),
    )
    .await
    .expect("the server takes the block");
    assert_eq!(
        place.rows(&format!("SELECT * FROM {table} ORDER BY c00")).await,
        [
            "0\t\\N\t\\N\t[]\t1900-01-01 00:00:00.000\t\\N\t-1",
            "1\t-0.1\t\t[]\t1970-01-01 00:00:00.000\tfalse\t0",
            "18446744073709551615\t2.2250738585072014e-308\té😀\t['a','','b']\t2299-12-31 23:59:59.999\ttrue\t-9223372036854775808",
        ]
    );
}

#[tokio::test]
async fn a_dictionary_of_many_keys_is_read_back() {
    let place = Place::new().await;
    let table = place.table("t").quoted();
    place
        .run(&format!(
            "CREATE TABLE {table} (n UInt64, k LowCardinality(String)) ENGINE = MergeTree ORDER BY n"
        ))
        .await;
    for count in [255_u64, 256, 257, 65_536, 70_000] {
        place.run(&format!("TRUNCATE TABLE {table}")).await;
        let mut numbers = Column::new(&ColumnType::parse("UInt64")).expect("a type");
        let mut keys = Column::new(&ColumnType::parse("LowCardinality(String)")).expect("a type");
        for number in 0..count {
            numbers.push(&Cell::Bits(number)).expect("a number");
            keys.push(&Cell::Text(format!("k{number}").into()))
                .expect("a text");
        }
        let columns = [
            NamedColumn {
                name: "n",
                type_name: "UInt64",
                column: &numbers,
            },
            NamedColumn {
                name: "k",
                type_name: "LowCardinality(String)",
                column: &keys,
            },
        ];
        let mut body = Vec::new();
        write_block(&mut body, numbers.len(), &columns);
        send(&place.warehouse, &table, "n, k", body)
            .await
            .expect("the server takes the block");
        let read = place
            .rows(&format!(
                "SELECT count(), countIf(k = concat('k', toString(n))) FROM {table}"
            ))
            .await;
        assert_eq!(read, [format!("{count}\t{count}")]);
    }
}
