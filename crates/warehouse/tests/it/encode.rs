use millrace_warehouse::{Outcome, Row};
use serde_json::Value;

use crate::place::{Place, at, raw, row};

#[tokio::test]
async fn an_event_is_in_its_table_field_by_field() {
    let place = Place::new().await;
    let (table, schema) = place.events().await;
    place
        .write(
            &table,
            &schema,
            &[r#"{"type":"track","messageId":"m-1","event":"Order Completed","anonymousId":"a-1","userId":"u-1",
                "timestamp":"2026-11-21T05:00:00.120+01:00","sentAt":"2026-11-21T04:00:00.5Z","integrations":{"All":true},
                "properties":{"price":12.50,"quantity":2,"order":9007199254740993,"note":"caf\u00e9 \ud800","gift":false,
                  "paidAt":"2026-11-20T23:59:59.999Z","tags":["a","\u00e9"],"items":[{"sku": "x"}],"coupon":null,
                  "shippingAddress":{"zipCode":"01234"},"type":"b2c"},
                "context":{"library":{"name":"@segment/analytics-node"},"ip":"::1"}}"#],
        )
        .await;
    let sql = format!("SELECT * FROM {}", table.quoted());
    let read = place.bytes(&sql, "JSONEachRow").await;
    let read: Value = serde_json::from_slice(&read).expect("one row");
    let wanted = serde_json::json!({
        "message_id": "m-1",
        "type": "track",
        "event": "Order Completed",
        "anonymous_id": "a-1",
        "user_id": "u-1",
        "group_id": "",
        "previous_id": "",
        "name": "",
        "category": "",
        "timestamp": "2026-11-21 04:00:00.120",
        "original_timestamp": null,
        "sent_at": "2026-11-21 04:00:00.500",
        "received_at": "2026-11-21 04:00:01.000",
        "ingested_at": "2026-11-21 04:00:02.000",
        "source": "src",
        "extra": r#"{"integrations":{"All":true},"order":9007199254740993,"note":"caf\u00e9 \ud800","items":[{"sku": "x"}],"coupon":null}"#,
        "_journal": 171,
        "_partition": 3,
        "_seq": 0,
        "_sub": 0,
        "price": 12.5,
        "quantity": 2,
        "note": "café \u{fffd}",
        "gift": false,
        "paid_at": "2026-11-20 23:59:59.999",
        "tags": ["a", "é"],
        "shipping_address_zip_code": "01234",
        "properties_type": "b2c",
        "context_library_name": "@segment/analytics-node",
        "context_ip": "::1",
    });
    let mut read = read;
    // Quoted or not is the server's configuration.
    for column in ["_journal", "_seq"] {
        let number = read[column].as_str().and_then(|text| text.parse::<u64>().ok());
        if let Some(number) = number {
            read[column] = number.into();
        }
    }
    assert_eq!(read, wanted);
}

#[tokio::test]
async fn what_an_event_leaves_out_comes_from_the_gateway() {
    let place = Place::new().await;
    let (table, schema) = place.events().await;
    let event = raw(r#"{"type":"page"}"#);
    let row = Row {
        sent_at: Some(at("2026-11-21T03:59:59Z")),
        ..row(0, &event)
    };
    let encoded = place.encode(&table, &schema, &[row]).await;
    let [block] = encoded.blocks.as_slice() else {
        panic!("one block")
    };
    assert!(matches!(place.insert(&table, block, "t").await, Outcome::Applied));
    let sql = format!(
        "SELECT message_id, timestamp, sent_at, extra FROM {}",
        table.quoted()
    );
    assert_eq!(
        place.rows(&sql).await,
        ["from-the-gateway\t2026-11-21 04:00:01.000\t2026-11-21 03:59:59.000\t"]
    );
}

#[tokio::test]
async fn a_missing_number_is_null_and_not_nought() {
    let place = Place::new().await;
    let (table, schema) = place.events().await;
    let events = [
        r#"{"properties":{"price":100}}"#,
        r#"{"properties":{}}"#,
        r#"{"properties":{"price":50}}"#,
    ];
    place.write(&table, &schema, &events).await;
    let sql = format!(
        "SELECT avg(price), min(price), count(price), count() FROM {}",
        table.quoted()
    );
    assert_eq!(place.rows(&sql).await, ["75\t50\t2\t3"]);
}

#[tokio::test]
async fn each_block_goes_to_one_month() {
    let place = Place::new().await;
    let (table, schema) = place.events().await;
    let event = raw(r#"{"type":"track"}"#);
    let times = [
        "2026-11-30T23:59:59.999Z",
        "2026-12-01T00:00:00Z",
        "2026-11-30T00:00:00Z",
        "2027-01-01T00:00:00Z",
    ];
    let rows: Vec<_> = (0..)
        .zip(times)
        .map(|(seq, time)| Row {
            received_at: at(time),
            ..row(seq, &event)
        })
        .collect();
    let encoded = place.encode(&table, &schema, &rows).await;
    let months: Vec<_> = encoded
        .blocks
        .iter()
        .map(millrace_warehouse::Block::month)
        .collect();
    assert_eq!(months, [202_611, 202_612, 202_701]);
    for block in &encoded.blocks {
        let token = format!("token-{}", block.month());
        // Twice: the second is the same block again.
        for _ in 0..2 {
            assert!(matches!(
                place.insert(&table, block, &token).await,
                Outcome::Applied
            ));
        }
    }
    let sql = format!(
        "SELECT _partition_id, groupArray(_seq) FROM (SELECT _partition_id, _seq FROM {} ORDER BY _seq) \
         GROUP BY _partition_id ORDER BY _partition_id",
        table.quoted()
    );
    assert_eq!(
        place.rows(&sql).await,
        ["202611\t[0,2]", "202612\t[1]", "202701\t[3]"]
    );
}

#[tokio::test]
async fn a_block_of_many_pieces_is_still_one_part() {
    let place = Place::new().await;
    let (table, schema) = place.events().await;
    let text = "0123456789abcdef".repeat(64);
    let events: Vec<_> = (0..8_000)
        .map(|n| {
            raw(&format!(
                r#"{{"messageId":"m-{n}","properties":{{"text":"{text}{n}"}}}}"#
            ))
        })
        .collect();
    let rows: Vec<_> = (0..).zip(&events).map(|(seq, event)| row(seq, event)).collect();
    let encoded = place.encode(&table, &schema, &rows).await;
    let [block] = encoded.blocks.as_slice() else {
        panic!("one block")
    };
    assert!(block.byte_size() > 8 << 20);
    for _ in 0..2 {
        assert!(matches!(place.insert(&table, block, "t").await, Outcome::Applied));
    }
    let sql = format!(
        "SELECT count(), uniqExact(_seq), uniqExact(_part), countIf(text = concat('{text}', toString(_seq))) FROM {}",
        table.quoted()
    );
    assert_eq!(place.rows(&sql).await, ["8000\t8000\t1\t8000"]);
}

#[tokio::test]
async fn pieces_with_different_columns_are_one_part_with_the_rows_that_went_in_under_one_token() {
    const ROWS: u64 = 12_000;
    let place = Place::new().await;
    let (table, schema) = place.events().await;
    let text = "0123456789abcdef".repeat(64);
    // Columns that the table has already: then pieces are written as they fill up.
    let all = raw(r#"{"properties":{"text":"","early":"","late":1,"odd":1.5,"tags":["t"]}}"#);
    let schema = place.encode(&table, &schema, &[row(0, &all)]).await.schema;
    let events: Vec<_> = (0..ROWS)
        .map(|n| {
            let early = if n < 10 { r#","early":"e""# } else { "" };
            let late = if n >= ROWS - 10 { r#","late":7,"tags":["a","b"]"# } else { "" };
            let odd = if n % 2 == 1 { format!(r#","odd":{n}.5"#) } else { String::new() };
            raw(&format!(
                r#"{{"messageId":"m-{n}","event":"name {}","properties":{{"text":"{text}{n}"{early}{late}{odd}}}}}"#,
                n / 5_000,
            ))
        })
        .collect();
    let rows: Vec<_> = (0..).zip(&events).map(|(seq, event)| row(seq, event)).collect();
    let encoded = place.encode(&table, &schema, &rows).await;
    let [block] = encoded.blocks.as_slice() else {
        panic!("one block")
    };
    assert_eq!(block.rows().len(), 12_000);
    for _ in 0..2 {
        assert!(matches!(place.insert(&table, block, "t").await, Outcome::Applied));
    }
    let sql = format!(
        "SELECT count(), uniqExact(_seq), uniqExact(_part), countIf(text = concat('{text}', toString(_seq))), \
         countIf(early = 'e' AND _seq < 10), countIf(early != ''), countIf(late = 7 AND _seq >= {ROWS} - 10), \
         count(late), countIf(odd = _seq + 0.5 AND _seq % 2 = 1), count(odd), \
         countIf(tags = ['a', 'b'] AND _seq >= {ROWS} - 10), countIf(notEmpty(tags)), \
         countIf(event = concat('name ', toString(intDiv(_seq, 5000)))) FROM {}",
        table.quoted()
    );
    assert_eq!(
        place.rows(&sql).await,
        ["12000\t12000\t1\t12000\t10\t10\t10\t10\t6000\t6000\t10\t10\t12000"]
    );
}

/// A block starts with its number of columns, and 32 is a space: it must not be read as part of the statement.
#[tokio::test]
async fn a_block_of_any_number_of_columns_is_taken() {
    let place = Place::new().await;
    let (table, mut schema) = place.events().await;
    for count in 0..50 {
        let fields: Vec<_> = (0..count).map(|n| format!(r#""p{n}":{n}"#)).collect();
        let event = raw(&format!(
            r#"{{"type":"track","properties":{{{}}}}}"#,
            fields.join(",")
        ));
        let encoded = place.encode(&table, &schema, &[row(count, &event)]).await;
        let [block] = encoded.blocks.as_slice() else {
            panic!("one block")
        };
        let outcome = place.insert(&table, block, &format!("token-{count}")).await;
        assert!(matches!(outcome, Outcome::Applied), "{count}: {outcome:?}");
        schema = encoded.schema;
    }
    let sql = format!(
        "SELECT count(), countIf(p0 = 0), countIf(p48 = 48), uniqExact(_seq) FROM {}",
        table.quoted()
    );
    assert_eq!(place.rows(&sql).await, ["50\t49\t1\t50"]);
}
