use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;

fn of(json: &str) -> Option<FieldType> {
    let raw: Box<RawValue> = serde_json::from_str(json).unwrap();
    type_of(Value::from(&*raw))
}

fn read_as(kind: KeyKind, event: &str, fixed: &Fixed) -> Said {
    let raw: Box<RawValue> = serde_json::from_str(event).unwrap();
    read(Value::from(&*raw), Some("ann"), kind, fixed)
}

#[test]
fn every_kind_of_value_has_its_type() {
    for (json, expected) in [
        ("null", None),
        ("10", Some(FieldType::Number)),
        ("10.5", Some(FieldType::Number)),
        ("-1e9", Some(FieldType::Number)),
        ("true", Some(FieldType::Boolean)),
        ("[1]", Some(FieldType::Array)),
        ("{}", Some(FieldType::Object)),
        ("\"\"", Some(FieldType::String)),
        ("\"10\"", Some(FieldType::String)),
        ("\"2026-11-21\"", Some(FieldType::String)),
        ("\"2026-99-21T04:00:00Z\"", Some(FieldType::String)),
        ("\"2026-11-21T04:00:00Z\"", Some(FieldType::DateTime)),
        ("\"2026-11-21T04:00:00.123456+01:00\"", Some(FieldType::DateTime)),
    ] {
        assert_eq!(of(json), expected, "{json}");
    }
}

#[test]
fn names_are_flattened_and_those_of_the_table_go_by_their_place() {
    let event = r#"{"type":"track","properties":{"a":{"b":1},"cartTotal":2,"name":"x","none":null},
        "traits":{"name":3},"context":{"page":{"url":"u"}}}"#;
    let names: Vec<String> = read_as(KeyKind::Server, event, &Fixed::default())
        .unknown
        .into_iter()
        .map(|(name, found)| format!("{name}:{found}"))
        .collect();
    assert_eq!(
        names,
        [
            "a_b:number",
            "cart_total:number",
            "properties_name:string",
            "traits_name:number",
            "context_page_url:string",
        ]
    );
}

#[test]
fn a_value_of_another_type_is_a_conflict_that_names_the_field_and_no_value() {
    let fixed = Fixed::from_iter([
        ("a_b".to_owned(), FieldType::Number),
        ("s".to_owned(), FieldType::String),
    ]);
    let fault = |event: &str| read_as(KeyKind::Server, event, &fixed).fault;
    assert_eq!(
        fault(r#"{"properties":{"a":{"b":10.5},"s":"2026-11-21T04:00:00Z"}}"#),
        None
    );
    assert_eq!(fault(r#"{"properties":{"a":{"b":null}}}"#), None);
    let refusal = fault(r#"{"properties":{"a":{"b":"secret"}}}"#).unwrap();
    assert_eq!(
        (refusal.code, refusal.field.as_deref()),
        (IngestCode::TypeConflict, Some("a_b"))
    );
    assert!(!refusal.message.contains("secret"), "{refusal}");
}

#[test]
fn a_browser_may_not_send_the_names_of_an_identity() {
    let event = r#"{"properties":{"_seq":1}}"#;
    let fault = read_as(KeyKind::Browser, event, &Fixed::default()).fault.unwrap();
    assert_eq!(
        (fault.code, fault.field.as_deref()),
        (IngestCode::ReservedField, Some("_seq"))
    );
    assert_eq!(read_as(KeyKind::Server, event, &Fixed::default()).fault, None);
}

proptest! {
    /// The naive model: serde_json's own tree.
    #[test]
    fn a_type_is_what_serde_json_reads(text in any::<String>(), number in any::<f64>(), flag in any::<bool>()) {
        let values = [
            (serde_json::json!(text), FieldType::String),
            (serde_json::json!(flag), FieldType::Boolean),
            (serde_json::json!([text]), FieldType::Array),
            (serde_json::json!({ "k": text }), FieldType::Object),
        ];
        for (value, expected) in values {
            prop_assert_eq!(of(&value.to_string()), Some(expected));
        }
        prop_assume!(number.is_finite());
        prop_assert_eq!(of(&serde_json::json!(number).to_string()), Some(FieldType::Number));
    }
}
