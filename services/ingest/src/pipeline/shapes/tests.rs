use std::sync::atomic::{AtomicU64, Ordering};

use millrace_event::KeyKind;
use millrace_event::json;
use proptest::prelude::*;

use super::*;

/// What the steps find out about an event: the fields of its own, and what is wrong with its types or not known of them.
fn judged<'a>(event: Value<'a>, known: Option<Known<'a>>, fixed: &Fixed) -> (Known<'a>, String) {
    match known {
        Some(known) => (known, String::new()),
        None => {
            let said = types::read(event, None, KeyKind::Server, fixed);
            let verdict = match said.fits() {
                true => String::new(),
                false => format!("{said:?}"),
            };
            (Known::of(event), verdict)
        }
    }
}

fn value(text: &str) -> Value<'_> {
    Value::from(json::known(text).unwrap())
}

/// A workspace that no other test has, so that a thread which serves several of them remembers nothing of it.
fn workspace() -> WorkspaceId {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("ws_{number}").parse().unwrap()
}

fn fixed(fields: &[(&str, FieldType)]) -> Arc<Fixed> {
    Arc::new(
        fields
            .iter()
            .map(|(name, known)| ((*name).to_owned(), *known))
            .collect(),
    )
}

/// Sends an event through the memory of a workspace; says whether it followed a path.
fn send(workspace: &WorkspaceId, fixed: &Arc<Fixed>, text: &str) -> bool {
    let event = value(text);
    with(workspace, fixed, |shapes| {
        let known = shapes.known(event);
        let followed = known.is_some();
        assert_eq!(judged(event, known, fixed), judged(event, None, fixed), "{text}");
        if !followed && types::read(event, None, KeyKind::Server, fixed).fits() {
            shapes.learn(event);
        }
        followed
    })
}

#[test]
fn what_looks_like_an_event_that_was_learned_is_known_and_anything_else_is_not() {
    let fixed = fixed(&[
        ("n", FieldType::Number),
        ("s", FieldType::String),
        ("d", FieldType::DateTime),
        ("context_page_url", FieldType::String),
        ("o", FieldType::Object),
        ("l", FieldType::Array),
    ]);
    let workspace = workspace();
    let learned = r#"{"type":"track","messageId":"m","properties":{"n":1,"s":"x","d":"2026-11-21T04:00:00Z","o":{},"l":[]},"context":{"page":{"url":"u"}},"x":[{"properties":{}}]}"#;
    assert!(!send(&workspace, &fixed, learned));
    assert!(send(&workspace, &fixed, learned));
    for (from, to, is_known) in [
        (r#""m""#, r#""\"}\\""#, true),
        (r#""m""#, "17", true),
        (r#""m""#, r#"{"a":[1]}"#, true),
        (r#""n":1"#, r#""n":-2.5e7"#, true),
        (r#""n":1"#, r#""n":null"#, true),
        (r#""n":1"#, r#""n":"1""#, false),
        (r#""n":1"#, r#""n":{}"#, false),
        (r#""n":1"#, r#""n":{"n":1}"#, false),
        (r#""n":1"#, r#""n": 1"#, false),
        (r#""s":"x""#, r#""s":"2026-11-21T04:00:00Z""#, true),
        (r#""s":"x""#, r#""s":true"#, false),
        ("2026-11-21T04:00:00Z", "2026-11-21T04:00:00.5+01:00", true),
        ("2026-11-21T04:00:00Z", "tomorrow", false),
        (r#""l":[]"#, r#""l":[{"n":"x"}]"#, true),
        (r#""o":{}"#, r#""o":{"n":1}"#, false),
        (r#"{"url":"u"}"#, "7", false),
        (r#"[{"properties":{}}]"#, "null", true),
        (r#","x""#, r#","y""#, false),
        (r#""type":"track","#, "", false),
    ] {
        let changed = learned.replace(from, to);
        assert_ne!(changed, learned);
        let known = with(&workspace, &fixed, |shapes| {
            shapes.known(value(&changed)).is_some()
        });
        assert_eq!(known, is_known, "{changed}");
        if known {
            send(&workspace, &fixed, &changed);
        }
    }
}

#[test]
fn what_is_known_outlives_new_fields_and_no_other_change() {
    let workspace = workspace();
    let event = r#"{"properties":{"a":1,"none":null}}"#;
    let before = fixed(&[("a", FieldType::Number)]);
    send(&workspace, &before, event);
    assert!(send(&workspace, &before, event));
    let more = fixed(&[("a", FieldType::Number), ("none", FieldType::String)]);
    assert!(send(&workspace, &more, event));
    let retyped = fixed(&[("a", FieldType::String), ("none", FieldType::String)]);
    assert!(!send(&workspace, &retyped, event));
    assert!(
        !send(&workspace, &retyped, event),
        "what does not fit is not learned"
    );
    send(&workspace, &more, event);
    let dropped = fixed(&[("none", FieldType::String)]);
    assert!(!send(&workspace, &dropped, event));
}

#[test]
fn names_that_stand_twice_or_are_not_for_everybody_are_never_learned() {
    let workspace = workspace();
    let known = fixed(&[
        ("a", FieldType::Number),
        ("properties__journal", FieldType::Number),
    ]);
    for event in [
        r#"{"properties":{"a":1},"properties":{"a":2}}"#,
        r#"{"messageId":"a","message\u0049d":"b"}"#,
        r#"{"properties":{"_journal":1}}"#,
    ] {
        assert!(!send(&workspace, &known, event));
        assert!(!send(&workspace, &known, event), "{event}");
    }
}

#[test]
fn memory_is_bounded_and_learning_is_rationed() {
    let workspace = workspace();
    let nothing = fixed(&[]);
    for number in 0..20_000_u32 {
        send(
            &workspace,
            &nothing,
            &format!(r#"{{"{number}":1,"{number}_":[]}}"#),
        );
        with(&workspace, &nothing, |shapes| {
            assert!(
                shapes.tree.edges <= EDGES && shapes.tree.nodes.iter().all(|edges| edges.len() <= BRANCHES)
            );
            assert!(shapes.tree.text <= TEXT);
        });
    }
    let long = "x".repeat(10_000);
    for number in 0..10 {
        send(
            &workspace,
            &nothing,
            &format!(r#"{{"a":1,"b{number}":{{}},"{long}":2}}"#),
        );
    }
    with(&workspace, &nothing, |shapes| assert!(shapes.tree.text <= TEXT));
    MEMORY.with_borrow_mut(|memory| memory.savings = SAVINGS);
    let many: Vec<_> = (0..WORKSPACES + 5).map(|_| self::workspace()).collect();
    for workspace in &many {
        send(workspace, &nothing, r#"{"a":1}"#);
    }
    MEMORY.with_borrow(|memory| assert!(memory.workspaces.len() <= WORKSPACES));
    for workspace in many.iter().rev().take(WORKSPACES) {
        assert!(
            send(workspace, &nothing, r#"{"a":1}"#),
            "those of late are remembered"
        );
    }
}

/// Values that are like each other and not, of which few are of one type.
fn leaf() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("null".to_owned()),
        Just("1".to_owned()),
        Just("-1.5e3".to_owned()),
        Just("true".to_owned()),
        Just("[1,{\"a\":2}]".to_owned()),
        Just("{}".to_owned()),
        Just("{ }".to_owned()),
        Just("\"2026-11-21T04:00:00Z\"".to_owned()),
        "\"[a-z\\]}{,:]{0,3}\"",
        Just(r#""\"\\\u00e9""#.to_owned()),
    ]
}

fn tree() -> impl Strategy<Value = String> {
    leaf().prop_recursive(3, 12, 3, |inner| {
        let name = prop_oneof![Just("a"), Just("b"), Just("type"), Just("_journal"), Just("cD")];
        proptest::collection::vec((name, inner), 0..3).prop_map(|entries| object(&entries))
    })
}

fn object(entries: &[(&str, String)]) -> String {
    let entries: Vec<_> = entries
        .iter()
        .map(|(name, value)| format!("\"{name}\":{value}"))
        .collect();
    format!("{{{}}}", entries.join(","))
}

fn event() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        Just("type"),
        Just("messageId"),
        Just("anonymousId"),
        Just("properties"),
        Just("traits"),
        Just("context"),
        Just("integrations"),
        Just("writeKey"),
        Just("more"),
    ];
    proptest::collection::vec((name, tree()), 0..5).prop_map(|entries| object(&entries))
}

proptest! {
    #[test]
    fn whatever_came_before_an_event_is_judged_as_without_memory(
        events in proptest::collection::vec((event(), 0..3_usize), 1..40),
        names in proptest::collection::vec((
            prop_oneof![
                Just("a"), Just("b"), Just("a_a"), Just("a_b"), Just("c_d"), Just("traits_type"), Just("properties_type"),
                Just("context_a"), Just("context_type"), Just("context_a_b"),
            ],
            proptest::sample::select(FieldType::ALL.to_vec()),
        ), 0..12),
    ) {
        let workspace = workspace();
        let all: Vec<Arc<Fixed>> = [names.len() / 2, names.len(), names.len() / 3]
            .iter()
            .map(|count| fixed(&names[..*count]))
            .collect();
        for _ in 0..2 {
            for (event, under) in &events {
                // It compares both ways.
                send(&workspace, &all[*under], event);
                send(&workspace, &all[*under], event);
            }
        }
    }
}
