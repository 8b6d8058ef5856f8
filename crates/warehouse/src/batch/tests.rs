use super::*;
use crate::column_type::ColumnType;
use crate::layout::{CORE, IDENTITY};
use millrace_event::JournalId;

fn schema_with(columns: &[(&str, &str)]) -> Arc<Schema> {
    let core = CORE.iter().map(|column| (column.name, column.type_name));
    let all = core.chain(IDENTITY).chain(columns.iter().copied());
    Arc::new(Schema::new(
        all.map(|(name, kind)| ColumnSpec::new(name, ColumnType::parse(kind)))
            .collect(),
    ))
}

pub(super) fn batch_with(columns: &[(&str, &str)], limit: usize) -> Batch {
    let now = "2026-11-21T04:00:01Z".parse().expect("a date-time");
    Batch::new(schema_with(columns), Limits { columns: limit }, now).expect("a fit schema")
}

fn raw(text: &str) -> Box<RawValue> {
    serde_json::from_str(text).expect("valid JSON")
}

fn row(seq: u64, event: &RawValue) -> Row<'_> {
    Row {
        id: RowId {
            identity: Identity {
                journal: JournalId(7),
                partition: 3,
                seq,
            },
            sub: 0,
        },
        received_at: "2026-11-21T04:00:00Z".parse().expect("a date-time"),
        sent_at: None,
        source: "src",
        workspace: "ws_test",
        message_id: "gateway-id",
        event,
    }
}

pub(super) fn push(batch: &mut Batch, event: &str) -> Result<(), RowError> {
    let event = raw(event);
    let seq = batch.len() as u64;
    batch.push(&row(seq, &event))
}

/// The added columns, `name type`, sorted.
fn added(batch: &Batch) -> Vec<String> {
    let mut columns: Vec<_> = batch
        .added()
        .iter()
        .map(|column| format!("{} {}", column.name, column.type_name))
        .collect();
    columns.sort();
    columns
}

/// What `extra` of the only row is.
fn extra_of(event: &str) -> String {
    let mut batch = batch_with(&[], 500);
    let event = raw(event);
    let row = row(0, &event);
    Staging::new(&mut batch).stage(&row).expect("a row");
    batch.scratch.extra
}

#[test]
fn properties_traits_and_context_become_columns() {
    let mut batch = batch_with(&[], 500);
    push(
        &mut batch,
        r#"{"type":"track","event":"Bought","properties":{"price":12.5,"cart":{"totalEUR":3},"ok":true,"tags":["a"]},
            "traits":{"plan":"pro"},"context":{"page":{"url":"/x"},"traits":{"email":"e"}}}"#,
    )
    .expect("a row");
    assert_eq!(
        added(&batch),
        [
            "cart_total_eur Nullable(Float64)",
            "context_page_url String",
            "context_traits_email String",
            "ok Nullable(Bool)",
            "plan String",
            "price Nullable(Float64)",
            "tags Array(String)",
        ]
    );
}

#[test]
fn a_name_that_the_table_needs_gets_its_source_in_front() {
    let mut batch = batch_with(&[], 500);
    push(
        &mut batch,
        r#"{"properties":{"type":"x","_seq":1,"$b":"y"},"traits":{"name":"n"}}"#,
    )
    .expect("a row");
    assert_eq!(
        added(&batch),
        [
            "properties__b String",
            "properties__seq Nullable(Float64)",
            "properties_type String",
            "traits_name String"
        ]
    );
}

#[test]
fn of_two_fields_with_one_name_the_second_goes_to_extra() {
    assert_eq!(
        extra_of(r#"{"properties":{"a":{"b":1},"a_b":"2"}}"#),
        r#"{"a_b":"2"}"#
    );
    // Properties come before context, whatever their order in the source.
    assert_eq!(
        extra_of(r#"{"context":{"ip":"::1"},"properties":{"context_ip":5}}"#),
        r#"{"context_ip":"::1"}"#
    );
    assert_eq!(extra_of(r#"{"properties":{"a":1,"a":2}}"#), r#"{"a":2}"#);
    assert_eq!(
        extra_of(r#"{"event":"first","event":"last"}"#),
        r#"{"event":"first"}"#
    );
}

#[test]
fn extra_keeps_what_has_no_column_exactly_as_it_came() {
    for (event, extra) in [
        (r#"{"properties":{"a":1}}"#, ""),
        (
            r#"{"properties":{"items":[{"sku": "x" , "n":1e2}]}}"#,
            r#"{"items":[{"sku": "x" , "n":1e2}]}"#,
        ),
        (
            r#"{"properties":{"n":9007199254740993,"z":null}}"#,
            r#"{"n":9007199254740993,"z":null}"#,
        ),
        (r#"{"properties":{"s":"\ud800"}}"#, r#"{"s":"\ud800"}"#),
        (
            r#"{"properties":{"t":"9999-12-31T23:59:59Z"}}"#,
            r#"{"t":"9999-12-31T23:59:59Z"}"#,
        ),
        (
            r#"{"userId":null,"traits":null}"#,
            r#"{"traits":null,"user_id":null}"#,
        ),
        (
            r#"{"integrations":{},"timestamp":"2026-11-21 04:00:00"}"#,
            r#"{"integrations":{},"timestamp":"2026-11-21 04:00:00"}"#,
        ),
        (r#"{"context":"text"}"#, r#"{"context":"text"}"#),
    ] {
        assert_eq!(extra_of(event), extra, "{event}");
    }
}

#[test]
fn fields_past_the_cap_go_to_extra() {
    let mut batch = batch_with(&[("a", "String")], 2);
    push(&mut batch, r#"{"properties":{"a":"x","b":1,"c":2,"d":3}}"#).expect("a row");
    assert_eq!(added(&batch), ["b Nullable(Float64)"]);
}

#[test]
fn a_row_that_does_not_fit_names_its_field_and_leaves_the_batch_as_it_was() {
    let mut batch = batch_with(&[("price", "Nullable(Float64)")], 500);
    push(&mut batch, r#"{"properties":{"price":1,"a":1}}"#).expect("a row");
    let before = (batch.len(), batch.byte_size(), added(&batch));
    let error = push(&mut batch, r#"{"properties":{"fresh":1,"price":"1"}}"#).expect_err("a string");
    assert_eq!(
        error,
        RowError {
            field: "price".to_owned(),
            kind: RowErrorKind::Conflict {
                stored: "Nullable(Float64)".to_owned(),
                found: "string"
            }
        }
    );
    assert_eq!((batch.len(), batch.byte_size(), added(&batch)), before);
    // The column that the failed row would have added can be added by another, with another type.
    push(&mut batch, r#"{"properties":{"fresh":"text"}}"#).expect("a row");
    assert_eq!(added(&batch), ["a Nullable(Float64)", "fresh String"]);
    for (event, field) in [
        (r#"{"userId":7}"#, "user_id"),
        (r#"{"timestamp":"yesterday"}"#, "timestamp"),
        (r#"{"sentAt":5}"#, "sent_at"),
        (r#"{"event":["a"]}"#, "event"),
        (r#"{"anonymousId":{}}"#, "anonymous_id"),
        ("[]", ""),
        ("null", ""),
    ] {
        assert_eq!(
            push(&mut batch, event).expect_err("does not fit").field,
            field,
            "{event}"
        );
    }
}

#[test]
fn rows_go_to_the_block_of_their_month_in_their_order() {
    let mut batch = batch_with(&[], 500);
    let event = raw(r#"{"type":"track"}"#);
    let months = [
        "2026-11-30T23:59:59.999Z",
        "2026-12-01T00:00:00Z",
        "2026-11-01T00:00:00Z",
        "1970-01-01T00:00:00Z",
    ];
    for (seq, received_at) in (0..).zip(months) {
        let row = Row {
            received_at: received_at.parse().expect("a date-time"),
            ..row(seq, &event)
        };
        batch.push(&row).expect("a row");
    }
    let schema = Arc::clone(&batch.schema);
    let blocks = batch.finish(&schema).expect("the same schema");
    let seen: Vec<(u32, Vec<u64>)> = blocks
        .iter()
        .map(|block| {
            (
                block.month(),
                block.rows().iter().map(|row| row.identity.seq).collect(),
            )
        })
        .collect();
    assert_eq!(
        seen,
        [(197_001, vec![3]), (202_611, vec![0, 2]), (202_612, vec![1])]
    );
}

#[test]
fn a_table_that_got_another_type_meanwhile_refuses_the_blocks() {
    let mut batch = batch_with(&[], 500);
    push(&mut batch, r#"{"properties":{"x":1}}"#).expect("a row");
    let moved = batch
        .finish(&schema_with(&[("x", "String")]))
        .expect_err("another type");
    assert_eq!(moved.column, "x");
    let mut batch = batch_with(&[], 500);
    push(&mut batch, r#"{"properties":{"x":1}}"#).expect("a row");
    assert!(
        batch.finish(&schema_with(&[])).is_err(),
        "the column is not there"
    );
}

#[test]
fn the_size_that_a_batch_knows_is_the_size_of_its_blocks() {
    let mut batch = batch_with(&[], 500);
    for number in 0..500 {
        let sparse = if number % 100 == 0 {
            format!(r#","rare{number}":"{number}""#)
        } else {
            String::new()
        };
        let event = format!(
            r#"{{"type":"track","event":"e{}","messageId":"m-{number}","properties":{{"n":{number},"t":["a","{number}"]{sparse}}}}}"#,
            number % 7
        );
        push(&mut batch, &event).expect("a row");
    }
    let (known, specs) = (batch.byte_size(), batch.added().to_vec());
    let stored = Schema::new(batch.schema.columns().iter().cloned().chain(specs).collect());
    let actual: usize = batch
        .finish(&stored)
        .expect("the same types")
        .iter()
        .map(Block::byte_size)
        .sum();
    assert!(
        known.abs_diff(actual) * 50 < actual,
        "{known} known, {actual} bytes"
    );
}
