//! What destinations ask of their tables: time to live, `extra_json`, layout `shared`.

use std::num::NonZeroU16;
use std::sync::Arc;

use millrace_event::destination::{ClickHouse, Settings, Ttl};
use millrace_warehouse::error::UnfitReason;
use millrace_warehouse::{Error, Layout, Limits, Outcome, Row, Schema, TableName, layout};
use serde_json::{Value, json};

use crate::place::{JOURNAL, Place, at, id, raw, row, rows_of_two};

pub(crate) fn settings(object: &Value) -> ClickHouse {
    let object = object.as_object().expect("an object");
    let kind = millrace_event::destination::Kind::ClickHouse;
    match Settings::read(kind, object).expect("settings") {
        Settings::ClickHouse(settings) => settings,
        Settings::Postgres(_) => panic!("of ClickHouse"),
    }
}

async fn engine(place: &Place) -> String {
    let sql = format!(
        "SELECT engine_full FROM system.tables WHERE database = '{}' AND name = 'events'",
        place.database
    );
    place.rows(&sql).await.concat()
}

pub(crate) async fn write(
    place: &Place,
    table: &TableName,
    layout: &Layout,
    schema: &Arc<Schema>,
    rows: &[Row<'_>],
) -> Arc<Schema> {
    let encoded = place
        .warehouse
        .encode_as(
            table,
            layout,
            Arc::clone(schema),
            Limits::default(),
            at("2026-11-21T04:00:02Z"),
            rows,
        )
        .await
        .expect("rows can be encoded");
    assert!(encoded.refused.is_empty(), "{:?}", encoded.refused);
    for block in &encoded.blocks {
        let token = uuid::Uuid::new_v4().to_string();
        let outcome = place.insert(table, block, &token).await;
        assert!(matches!(outcome, Outcome::Applied), "{outcome:?}");
    }
    encoded.schema
}

#[tokio::test]
async fn a_table_follows_the_time_to_live_of_its_destination_and_is_left_alone_without_one() {
    let place = Place::empty();
    let table = place.table("events");
    let create = async |ttl: Option<Ttl>| {
        let layout = Layout {
            ttl,
            ..Layout::default()
        };
        let pending = place.warehouse.pending(&table, &layout).await.expect("answered");
        place
            .warehouse
            .create_table(&table, &layout)
            .await
            .expect("a table");
        assert_eq!(
            place.warehouse.pending(&table, &layout).await.expect("answered"),
            [""; 0]
        );
        pending
    };
    let days = |days| NonZeroU16::new(days).map(Ttl::Days);
    assert!(create(None).await.concat().starts_with("CREATE TABLE"));
    assert!(!engine(&place).await.contains("TTL"));
    let pending = create(days(90)).await;
    assert_eq!(
        pending,
        [format!(
            "ALTER TABLE {} MODIFY TTL toDateTime(received_at) + INTERVAL 90 DAY DELETE",
            table.quoted()
        )]
    );
    assert!(engine(&place).await.contains("toIntervalDay(90)"));
    create(days(9)).await;
    assert!(engine(&place).await.contains("toIntervalDay(9)"));
    // Nothing said is nothing changed; `never` is said.
    assert_eq!(create(None).await, [""; 0]);
    assert!(engine(&place).await.contains("toIntervalDay(9)"));
    create(settings(&json!({"ttl_days": "never"})).ttl_days).await;
    assert!(!engine(&place).await.contains("TTL"));
}

#[tokio::test]
async fn codecs_are_those_of_the_destination() {
    let place = Place::empty();
    let table = place.table("events");
    let layout = Layout::from(&settings(&json!({
        "codec_text": "ZSTD(9)", "codec_time": "DoubleDelta, LZ4", "codec_number": "Gorilla, ZSTD(1)",
    })));
    let schema = place
        .warehouse
        .create_table(&table, &layout)
        .await
        .expect("a table");
    let event = raw(r#"{"type":"track","properties":{"n":1.5,"t":"x","at":"2026-11-21T04:00:00Z"}}"#);
    write(&place, &table, &layout, &Arc::new(schema), &[row(0, &event)]).await;
    let sql = format!(
        "SELECT name, compression_codec FROM system.columns WHERE database = '{}' AND table = 'events' \
         AND name IN ('user_id', 'received_at', 'n', 't', 'at') ORDER BY name",
        place.database
    );
    assert_eq!(
        place.rows(&sql).await,
        [
            "at\tCODEC(DoubleDelta, LZ4)",
            "n\tCODEC(Gorilla(8), ZSTD(1))",
            "received_at\tCODEC(DoubleDelta, LZ4)",
            "t\tCODEC(ZSTD(9))",
            "user_id\tCODEC(ZSTD(9))"
        ]
    );
}

#[tokio::test]
async fn extra_json_holds_what_the_type_takes_and_extra_everything_as_it_came() {
    let place = Place::empty();
    let table = place.table("events");
    // A table that was there before gets the column, for the rows that are there too.
    let without = place
        .warehouse
        .create_table(&table, &Layout::default())
        .await
        .expect("a table");
    let nasty = [
        (r#"[{"sku":"a","n":1}]"#, json!({"x": [{"sku": "a", "n": 1}]})),
        (
            r#"[{"n":18446744073709551615}]"#,
            json!({"x": [{"n": 18_446_744_073_709_551_615_u64}]}),
        ),
        // Too large an integer, a name that is there twice, half a character: what the type does not take is `{}`.
        (r#"[{"n":99999999999999999999999999}]"#, json!({})),
        (r#"[{"n":1,"n":2}]"#, Value::Null),
        (r#"[{"s":"\ud800"}]"#, json!({})),
        (r#"[{"e":1e2,"d":"2026-11-21"}]"#, Value::Null),
        ("null", json!({})),
    ];
    let texts: Vec<_> = nasty
        .iter()
        .map(|(value, _)| raw(&format!(r#"{{"type":"track","properties":{{"x":{value}}}}}"#)))
        .collect();
    let rows: Vec<_> = (0..).zip(&texts).map(|(seq, text)| row(seq, text)).collect();
    write(
        &place,
        &table,
        &Layout::default(),
        &Arc::new(without),
        rows.get(..2).expect("two"),
    )
    .await;
    let layout = Layout::from(&settings(&json!({"extra_json": true})));
    let schema = place
        .warehouse
        .create_table(&table, &layout)
        .await
        .expect("a table");
    write(
        &place,
        &table,
        &layout,
        &Arc::new(schema),
        rows.get(2..).expect("others"),
    )
    .await;

    let sql = format!("SELECT extra FROM {} ORDER BY _seq", table.quoted());
    let kept = place.bytes(&sql, "JSONStringsEachRow").await;
    let kept: Vec<Value> = serde_json::Deserializer::from_slice(&kept)
        .into_iter()
        .collect::<Result<_, _>>()
        .expect("JSON");
    for ((value, _), row) in nasty.iter().zip(&kept) {
        assert_eq!(row["extra"], json!(format!(r#"{{"x":{value}}}"#)));
    }
    let sql = format!(
        "SELECT toJSONString(extra_json) FROM {} ORDER BY _seq",
        table.quoted()
    );
    let held = place.rows(&sql).await;
    assert_eq!(held.len(), nasty.len());
    for ((value, wanted), held) in nasty.iter().zip(&held) {
        let held: Value = serde_json::from_str(held).expect("JSON");
        if !wanted.is_null() {
            assert_eq!(held, *wanted, "{value}");
        }
    }
    // A property of that name has another column.
    let event = raw(r#"{"type":"track","properties":{"extra_json":"mine"}}"#);
    let schema = Schema::read(&place.warehouse, &table).await.expect("a schema");
    write(&place, &table, &layout, &Arc::new(schema), &[row(90, &event)]).await;
    let sql = format!(
        "SELECT properties_extra_json FROM {} WHERE _seq = 90",
        table.quoted()
    );
    assert_eq!(place.rows(&sql).await, ["mine"]);
}

#[tokio::test]
async fn what_is_sent_in_zstd_is_read_back_as_what_is_sent_in_lz4() {
    let place = Place::new().await;
    // More than one frame of text that hardly gets smaller, and columns of every form.
    let events: Vec<_> = (0..400)
        .map(|number| {
            let noise: String = (0..150).map(|_| uuid::Uuid::new_v4().simple().to_string()).collect();
            raw(&format!(
                r#"{{"type":"track","event":"Bought","properties":{{"noise":"{noise}","n":{number},"paid":true,
                "tags":["a","é{number}"],"at":"2026-11-20T00:00:00Z","goods":[{{"sku":{number}}}]}}}}"#
            ))
        })
        .collect();
    let rows: Vec<_> = (0..).zip(&events).map(|(seq, event)| row(seq, event)).collect();
    let mut held = Vec::new();
    for compression in ["lz4", "zstd"] {
        let table = place.table(compression);
        let layout = Layout::from(&settings(&json!({"compression": compression})));
        let schema = place.warehouse.create_table(&table, &layout).await;
        write(
            &place,
            &table,
            &layout,
            &Arc::new(schema.expect("a table")),
            &rows,
        )
        .await;
        let sql = format!(
            "SELECT count(), uniqExact(noise), groupBitXor(cityHash64(*)) FROM {}",
            table.quoted()
        );
        held.push(place.rows(&sql).await);
    }
    assert!(held[0][0].starts_with("400\t400\t"), "{held:?}");
    assert_eq!(held[0], held[1]);
}

#[tokio::test]
async fn a_workspace_sees_its_own_rows_of_a_shared_table_and_the_columns_that_come_later() {
    let place = Place::empty();
    let shared = place.table("events");
    let layout = Layout::from(&settings(&json!({"layout": "shared"})));
    let schema = place
        .warehouse
        .create_table(&shared, &layout)
        .await
        .expect("a table");
    let sql = format!(
        "SELECT sorting_key FROM system.tables WHERE database = '{}' AND name = 'events'",
        place.database
    );
    assert!(
        place
            .rows(&sql)
            .await
            .concat()
            .starts_with("_workspace, type, event, ")
    );
    let views = [Place::empty(), Place::empty()];
    let workspaces = ["ws_one", "ws_two"];
    for (view, workspace) in views.iter().zip(workspaces) {
        let view = view.table("events");
        for _ in 0..2 {
            let made = place.warehouse.create_share(&shared, &view, workspace);
            made.await.expect("a view");
        }
    }
    let event = raw(r#"{"type":"track","event":"Bought","anonymousId":"a","properties":{"price":1.5}}"#);
    let rows = rows_of_two(&event);
    // Both workspaces in one block, and a column that the views did not have.
    write(&place, &shared, &layout, &Arc::new(schema), &rows).await;
    for (view, wanted) in views.iter().zip(["2", "3"]) {
        let events = format!("`{}`.events", view.database);
        assert_eq!(
            place.rows(&format!("SELECT count() FROM {events}")).await,
            [wanted]
        );
        assert_eq!(
            place
                .rows(&format!("SELECT count() FROM {events} WHERE price = 1.5"))
                .await,
            [wanted]
        );
        let minutes = format!("`{}`.events_per_minute", view.database);
        assert_eq!(
            place.rows(&format!("SELECT sum(events) FROM {minutes}")).await,
            [wanted]
        );
        // No column says whose the rows are, and no predicate reaches those of others.
        let sql = format!(
            "SELECT count() FROM system.columns WHERE database = '{}' AND name = '_workspace'",
            view.database
        );
        assert_eq!(place.rows(&sql).await, ["0"]);
        let sql =
            format!("SELECT uniqExact(_seq), max(_seq) - min(_seq) + 1 FROM {events} WHERE 1 OR type != ''");
        assert_eq!(place.rows(&sql).await, [format!("{wanted}\t{wanted}")]);
    }
    let held = place
        .warehouse
        .which(&shared, JOURNAL, id(0).identity.partition, &[0, 1, 2, 3, 4, 5])
        .await;
    assert_eq!(
        held.expect("answered").len(),
        5,
        "the question is asked of the table itself"
    );
}

#[tokio::test]
async fn a_view_does_not_take_the_place_of_a_table_with_rows() {
    let place = Place::new().await;
    let (own, _) = place.events().await;
    let shared = place.table("shared");
    let layout = Layout::from(&settings(&json!({"layout": "shared"})));
    place
        .warehouse
        .create_table(&shared, &layout)
        .await
        .expect("a table");
    let refused = place.warehouse.create_share(&shared, &own, "ws_one").await;
    assert!(
        matches!(&refused, Err(Error::UnfitTable { reason: UnfitReason::NotAView(engine), .. }) if engine == "MergeTree"),
        "{refused:?}"
    );
    place
        .warehouse
        .check_table(&own, Layout::default().deduplication_window)
        .await
        .expect("as it was");
}

#[tokio::test]
async fn a_table_that_hands_rows_on_to_another_is_refused() {
    let place = Place::new().await;
    let (table, _) = place.events().await;
    let remote = place.table("remote");
    place
        .run(&format!(
            "CREATE TABLE {} (x UInt8) AS remote('127.0.0.1:9', {}, events)",
            remote.quoted(),
            place.database.quoted()
        ))
        .await;
    let window = Layout::default().deduplication_window;
    let refused = place.warehouse.check_table(&remote, window).await;
    assert!(
        matches!(
            refused,
            Err(Error::UnfitTable {
                reason: UnfitReason::Engine(_),
                ..
            })
        ),
        "{refused:?}"
    );
    place.warehouse.check_table(&table, window).await.expect("fit");
}

#[test]
fn a_cluster_is_in_every_statement_and_the_engine_is_replicated() {
    let layout = Layout::from(&settings(&json!({"cluster": "main", "ttl_days": 30})));
    let table: TableName = "ws_demo.events".parse().expect("a name");
    let mut said = vec![layout::create_database(table.database(), &layout)];
    said.push(layout::create_table(&table, &layout));
    said.extend(millrace_warehouse::counts::create(&table, &layout));
    let said = format!("{};\n", said.join(";\n\n"));
    assert_eq!(
        said,
        include_str!("replicated.sql"),
        "the golden file says otherwise"
    );
}
