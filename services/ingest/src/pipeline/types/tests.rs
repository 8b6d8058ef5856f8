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

/// A value as somebody may send it, objects in objects included.
fn value() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::json!(null)),
        Just(serde_json::json!(10)),
        Just(serde_json::json!(10.5)),
        Just(serde_json::json!(true)),
        Just(serde_json::json!("10")),
        Just(serde_json::json!("2026-11-21T04:00:00Z")),
        Just(serde_json::json!([1, "a"])),
        Just(serde_json::json!({})),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        let name = prop::sample::select(vec!["a", "b", "aB", "name"]).prop_map(str::to_owned);
        prop::collection::hash_map(name, inner, 1..4).prop_map(|entries| entries.into_iter().collect())
    })
}

/// Names and types of a part of an event: the tree of serde_json, walked with a path.
fn model_of(place: &str, prefix: &str, value: &serde_json::Value, into: &mut Vec<(String, FieldType)>) {
    let found = match value {
        serde_json::Value::Null => return,
        serde_json::Value::Bool(_) => FieldType::Boolean,
        serde_json::Value::Number(_) => FieldType::Number,
        serde_json::Value::String(text) if text.contains('T') => FieldType::DateTime,
        serde_json::Value::String(_) => FieldType::String,
        serde_json::Value::Array(_) => FieldType::Array,
        serde_json::Value::Object(entries) if entries.is_empty() => FieldType::Object,
        serde_json::Value::Object(entries) => {
            for (name, value) in entries {
                let name = if name == "aB" { "a_b" } else { name };
                let joined = if prefix.is_empty() {
                    name.to_owned()
                } else {
                    format!("{prefix}_{name}")
                };
                model_of(place, &joined, value, into);
            }
            return;
        }
    };
    let name = match prefix {
        "name" => format!("{place}_name"),
        other => other.to_owned(),
    };
    into.push((name, found));
}

proptest! {
    /// The naive model of a workspace: the first type that was seen of a name, and a list of all leaves.
    #[test]
    fn fields_of_a_workspace_are_what_was_seen_first_and_the_first_other_type_is_the_fault(
        events in prop::collection::vec((value(), value(), value()), 1..8),
    ) {
        let (mut fixed, mut model) = (Fixed::default(), std::collections::BTreeMap::new());
        for (properties, traits, context) in events {
            let event = serde_json::json!({ "properties": properties, "traits": traits, "context": context });
            let mut leaves = Vec::new();
            for (place, prefix) in [("properties", ""), ("traits", ""), ("context", "context")] {
                if event[place].as_object().is_some_and(|object| !object.is_empty()) {
                    model_of(place, prefix, &event[place], &mut leaves);
                }
            }
            let fits = |wanted: FieldType, found: FieldType| {
                wanted == found || (wanted, found) == (FieldType::String, FieldType::DateTime)
            };
            let fault = leaves
                .iter()
                .position(|(name, found)| model.get(name).is_some_and(|wanted| !fits(*wanted, *found)));
            let unknown: Vec<_> = leaves[..fault.unwrap_or(leaves.len())]
                .iter()
                .filter(|(name, _)| !model.contains_key(name))
                .cloned()
                .collect();

            let said = read_as(KeyKind::Server, &event.to_string(), &fixed);
            let named = said.fault.as_ref().map(|fault| (fault.code, fault.field.clone()));
            let wanted = fault.map(|at| (IngestCode::TypeConflict, Some(leaves[at].0.clone().into())));
            prop_assert_eq!(named, wanted, "{}", event);
            prop_assert_eq!(&said.unknown, &unknown, "{}", event);
            if fault.is_none() {
                for (name, found) in unknown {
                    fixed.entry(name.clone()).or_insert(found);
                    model.entry(name).or_insert(found);
                }
            }
        }
    }
}
