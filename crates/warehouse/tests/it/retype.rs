//! A column moves to another type.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millrace_warehouse::column_type::ColumnType;
use millrace_warehouse::{Layout, Outcome, Retype, Schema, TableName};

use crate::place::{Place, raw, row};

async fn write(place: &Place, table: &TableName, seq: u64, value: &str) -> Result<(), Outcome> {
    let schema = Schema::read(&place.warehouse, table).await.expect("a schema");
    let event = raw(&format!(r#"{{"type":"track","properties":{{"v":{value}}}}}"#));
    let encoded = place.encode(table, &Arc::new(schema), &[row(seq, &event)]).await;
    assert!(encoded.refused.is_empty(), "{:?}", encoded.refused);
    for block in &encoded.blocks {
        match place.insert(table, block, &format!("v{seq}")).await {
            Outcome::Applied => {}
            other => return Err(other),
        }
    }
    Ok(())
}

async fn retype(place: &Place, table: &TableName, to: &str) {
    let schema = Schema::read(&place.warehouse, table).await.expect("a schema");
    let plan = Retype::plan(table, &Layout::default(), &schema, "v", &ColumnType::parse(to)).expect("a plan");
    if let Some(plan) = plan {
        place.warehouse.retype(&plan, |_| {}).await.expect("moved");
    }
}

#[tokio::test]
async fn values_move_where_they_fit_and_the_others_stay_where_they_were() {
    for (values, to, wanted) in [
        (
            [
                r#""12.5""#,
                r#""abc""#,
                r#""1e400""#,
                r#""-3""#,
                r#"" 7""#,
                r#""nan""#,
            ],
            "Nullable(Float64)",
            ["12.5", "\\N", "\\N", "-3", "\\N", "\\N"],
        ),
        (
            [
                r#""true""#,
                r#""false""#,
                r#""yes""#,
                r#""1""#,
                r#""TRUE""#,
                r#""x""#,
            ],
            "Nullable(Bool)",
            ["true", "false", "\\N", "\\N", "\\N", "\\N"],
        ),
        (
            ["1.5", "2", "-0.25", "100", "1e300", "3"],
            "String",
            ["1.5", "2", "-0.25", "100", "1e300", "3"],
        ),
    ] {
        let place = Place::new().await;
        let (table, _) = place.events().await;
        for (seq, value) in (0..).zip(values) {
            write(&place, &table, seq, value).await.expect("written");
        }
        let before = place
            .rows(&format!("SELECT v FROM {} ORDER BY _seq", table.quoted()))
            .await;
        let kept = if to == "String" { "_v_number" } else { "_v_string" };
        // The second time there is nothing to do but to look for a gap.
        for _ in 0..2 {
            retype(&place, &table, to).await;
            let sql = format!("SELECT v FROM {} ORDER BY _seq", table.quoted());
            assert_eq!(place.rows(&sql).await, wanted, "{to}");
            let sql = format!("SELECT {kept} FROM {} ORDER BY _seq", table.quoted());
            assert_eq!(place.rows(&sql).await, before);
        }
        let sql = format!(
            "SELECT type, comment FROM system.columns WHERE database = '{}' AND table = 'events' AND name = 'v'",
            place.database
        );
        let [column] = place.rows(&sql).await.try_into().expect("one column");
        assert!(
            column.starts_with(&format!("{to}\twas ")) && column.ends_with(&format!("are in {kept}")),
            "{column}"
        );
        let window = Layout::default().deduplication_window;
        place
            .warehouse
            .check_table(&table, window)
            .await
            .expect("fit as before");
    }
}

#[tokio::test]
async fn text_that_is_a_time_becomes_one() {
    let place = Place::new().await;
    let (table, _) = place.events().await;
    place
        .run(&format!("ALTER TABLE {} ADD COLUMN v String", table.quoted()))
        .await;
    for (seq, value) in (0..).zip([
        r#""2026-11-21T04:00:00.125Z""#,
        r#""2026-11-21T06:00:00+02:00""#,
        r#""12""#,
    ]) {
        write(&place, &table, seq, value).await.expect("written");
    }
    retype(&place, &table, "Nullable(DateTime64(3, 'UTC'))").await;
    let sql = format!("SELECT v FROM {} ORDER BY _seq", table.quoted());
    assert_eq!(
        place.rows(&sql).await,
        ["2026-11-21 04:00:00.125", "2026-11-21 04:00:00.000", "\\N"]
    );
}

#[tokio::test]
async fn no_row_that_is_written_meanwhile_is_missing_or_has_lost_its_value() {
    let place = Place::new().await;
    let (table, _) = place.events().await;
    write(&place, &table, 0, r#""0""#).await.expect("written");
    let moved = AtomicBool::new(false);
    let writing = async {
        let (mut seq, mut after) = (1, 0);
        while after < 5 {
            // Text until the column takes numbers, as a function that was changed at some moment.
            let schema = Schema::read(&place.warehouse, &table).await.expect("a schema");
            let is_text = schema.get("v").is_some_and(|column| column.type_name == "String");
            let value = if is_text {
                format!("\"{seq}\"")
            } else {
                seq.to_string()
            };
            let event = raw(&format!(r#"{{"type":"track","properties":{{"v":{value}}}}}"#));
            let encoded = place.encode(&table, &Arc::new(schema), &[row(seq, &event)]).await;
            let Some(block) = encoded.blocks.first() else {
                continue;
            };
            // Refused while names change, or because of the type: then it comes again.
            if matches!(
                place.insert(&table, block, &format!("v{seq}")).await,
                Outcome::Applied
            ) {
                seq += 1;
                after += u32::from(moved.load(Ordering::SeqCst));
            }
        }
        seq
    };
    let moving = async {
        retype(&place, &table, "Nullable(Float64)").await;
        moved.store(true, Ordering::SeqCst);
    };
    let (written, ()) = tokio::join!(writing, moving);
    let sql = format!(
        "SELECT count(), uniqExact(_seq), countIf(v = _seq) FROM {}",
        table.quoted()
    );
    assert_eq!(
        place.rows(&sql).await,
        [format!("{written}\t{written}\t{written}")]
    );
}

#[tokio::test]
async fn values_of_the_old_type_that_come_late_are_with_those_from_before_until_the_move_is_repeated() {
    let place = Place::new().await;
    let (table, _) = place.events().await;
    write(&place, &table, 0, r#""0""#).await.expect("written");
    let to = "Nullable(Float64)";
    retype(&place, &table, to).await;
    write(&place, &table, 1, "1").await.expect("of the new type");
    write(&place, &table, 2, r#""2""#).await.expect("of the old type");
    write(&place, &table, 3, r#""three""#)
        .await
        .expect("of the old type");
    let held = async || {
        let sql = format!("SELECT v, _v_string FROM {} ORDER BY _seq", table.quoted());
        place.rows(&sql).await
    };
    assert_eq!(held().await, ["0\t0", "1\t", "\\N\t2", "\\N\tthree"]);
    retype(&place, &table, to).await;
    assert_eq!(held().await, ["0\t0", "1\t", "2\t2", "\\N\tthree"]);

    // What is of neither type is refused as ever, with the name that the event has for it.
    let schema = Arc::new(Schema::read(&place.warehouse, &table).await.expect("a schema"));
    let event = raw(r#"{"type":"track","properties":{"v":true}}"#);
    let encoded = place.encode(&table, &schema, &[row(4, &event)]).await;
    assert!(encoded.blocks.is_empty());
    assert_eq!(encoded.refused[0].1.field, "v");
}
