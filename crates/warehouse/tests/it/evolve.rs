use std::sync::Arc;

use millrace_warehouse::{Limits, Outcome, RowError, RowErrorKind};

use crate::place::{Place, at, raw, row};

#[tokio::test]
async fn the_stored_type_wins_where_two_writers_disagree() {
    let place = Place::new().await;
    let (table, old) = place.events().await;
    // The first writer makes `amount` text.
    place
        .write(&table, &old, &[r#"{"properties":{"amount":"12.50"}}"#])
        .await;
    // The second still has the schema from before, and makes it a number: the table does not follow.
    let events = [
        r#"{"properties":{"amount":12.5}}"#,
        r#"{"properties":{"amount":"13"}}"#,
        r#"{"properties":{"b":1}}"#,
    ];
    let events: Vec<_> = events.iter().map(|event| raw(event)).collect();
    let rows: Vec<_> = (10..).zip(&events).map(|(seq, event)| row(seq, event)).collect();
    let encoded = place.encode(&table, &old, &rows).await;
    let conflict = RowErrorKind::Conflict {
        stored: "String".to_owned(),
        found: "number",
    };
    assert_eq!(
        encoded.refused,
        [(
            0,
            RowError {
                field: "amount".to_owned(),
                kind: conflict
            }
        )]
    );
    let [block] = encoded.blocks.as_slice() else {
        panic!("one block")
    };
    assert!(matches!(
        place.insert(&table, block, "second").await,
        Outcome::Applied
    ));
    let sql = format!("SELECT _seq, amount, b FROM {} ORDER BY _seq", table.quoted());
    assert_eq!(
        place.rows(&sql).await,
        ["0\t12.50\t\\N", "11\t13\t\\N", "12\t\t1"]
    );
}

#[tokio::test]
async fn two_writers_at_once_end_up_with_one_schema() {
    let place = Place::new().await;
    let (table, schema) = place.events().await;
    let numbers = raw(r#"{"properties":{"x":1,"only_a":1,"shared":true}}"#);
    let texts = raw(r#"{"properties":{"x":"one","only_b":"b","shared":true}}"#);
    let (numbers, texts) = ([row(0, &numbers)], [row(1, &texts)]);
    let (a, b) = tokio::join!(
        place.encode(&table, &schema, &numbers),
        place.encode(&table, &schema, &texts)
    );
    let refused: Vec<_> = a
        .refused
        .iter()
        .chain(&b.refused)
        .map(|(_, error)| error.field.as_str())
        .collect();
    assert_eq!(refused, ["x"], "one of the two has lost");
    for (encoded, token) in [(&a, "a"), (&b, "b")] {
        for block in &encoded.blocks {
            let outcome = place.insert(&table, block, token).await;
            assert!(matches!(outcome, Outcome::Applied), "{outcome:?}");
        }
    }
    let sql = format!("SELECT count(), countIf(shared) FROM {}", table.quoted());
    assert_eq!(place.rows(&sql).await, ["1\t1"]);
}

#[tokio::test]
async fn a_column_that_somebody_retyped_takes_what_fits_exactly() {
    let place = Place::new().await;
    let (table, _) = place.events().await;
    let alter =
        "ADD COLUMN id Int64, ADD COLUMN amount Decimal(18, 2), ADD COLUMN twice Float64 MATERIALIZED id * 2";
    place
        .run(&format!("ALTER TABLE {} {alter}", table.quoted()))
        .await;
    let schema = place
        .warehouse
        .check_table(&table, millrace_warehouse::layout::DEDUPLICATION_WINDOW);
    let schema = Arc::new(schema.await.expect("fit"));
    let events = [
        r#"{"properties":{"id":9007199254740993}}"#,
        r#"{"properties":{"id":1.9}}"#,
        r#"{"properties":{"amount":1}}"#,
        r#"{"properties":{"twice":1}}"#,
    ];
    let events: Vec<_> = events.iter().map(|event| raw(event)).collect();
    let rows: Vec<_> = (0..).zip(&events).map(|(seq, event)| row(seq, event)).collect();
    let encoded = place.encode(&table, &schema, &rows).await;
    let refused: Vec<_> = encoded
        .refused
        .iter()
        .map(|(index, error)| (*index, error.field.as_str()))
        .collect();
    assert_eq!(refused, [(1, "id"), (2, "amount"), (3, "twice")]);
    for block in &encoded.blocks {
        assert!(matches!(place.insert(&table, block, "t").await, Outcome::Applied));
    }
    assert_eq!(
        place.rows(&format!("SELECT id FROM {}", table.quoted())).await,
        ["9007199254740993"]
    );
}

#[tokio::test]
async fn fields_past_the_cap_are_in_extra_and_no_column_is_made_for_them() {
    let place = Place::new().await;
    let (table, schema) = place.events().await;
    let fields: Vec<_> = (0..10).map(|n| format!(r#""f{n}":{n}"#)).collect();
    let event = raw(&format!(r#"{{"properties":{{{}}}}}"#, fields.join(",")));
    let limits = Limits { columns: 7 };
    let mut schema = schema;
    // Also when the table is at its cap already.
    for seq in 0..2 {
        let rows = [row(seq, &event)];
        let encoded = place
            .warehouse
            .encode(&table, schema, limits, at("2026-11-21T04:00:02Z"), &rows);
        let encoded = encoded.await.expect("rows can be encoded");
        for block in &encoded.blocks {
            assert!(matches!(
                place.insert(&table, block, &format!("t{seq}")).await,
                Outcome::Applied
            ));
        }
        schema = encoded.schema;
    }
    let sql = format!("SELECT f0, f6, extra FROM {} ORDER BY _seq", table.quoted());
    let row = r#"0	6	{"f7":7,"f8":8,"f9":9}"#;
    assert_eq!(place.rows(&sql).await, [row, row]);
    assert!(schema.get("f7").is_none());
}

#[tokio::test]
async fn a_row_of_as_many_and_as_long_names_as_there_can_be_is_taken() {
    let place = Place::new().await;
    let (table, schema) = place.events().await;
    let long = "n".repeat(250);
    let fields: Vec<_> = (0..Limits::default().columns + 1)
        .map(|n| format!(r#""_{n:03}{long}":"{n}""#))
        .collect();
    place
        .write(
            &table,
            &schema,
            &[&format!(r#"{{"properties":{{{}}}}}"#, fields.join(","))],
        )
        .await;
    let columns = format!(
        "SELECT count(), max(length(name)) FROM system.columns \
         WHERE database = '{}' AND table = 'events' AND startsWith(name, 'properties__')",
        place.database
    );
    let [columns] = place.rows(&columns).await.try_into().expect("one row");
    assert_eq!(
        columns,
        format!(
            "500\t{}",
            "properties_".len() + millrace_event::flatten::MAX_NAME_BYTES
        )
    );
    let read = place
        .bytes(&format!("SELECT * FROM {}", table.quoted()), "JSONEachRow")
        .await;
    let read: serde_json::Value = serde_json::from_slice(&read).expect("one row");
    let rest = "n".repeat(millrace_event::flatten::MAX_NAME_BYTES - 4);
    for n in 0..500 {
        let name = format!("properties__{n:03}{rest}");
        assert_eq!(read[&name], n.to_string(), "{name}");
    }
    let extra = read["extra"].as_str().expect("text");
    assert!(
        extra.starts_with(r#"{"properties__500n"#) && extra.ends_with(r#":"500"}"#),
        "{extra}"
    );
}
