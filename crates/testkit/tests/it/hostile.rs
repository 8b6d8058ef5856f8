use std::collections::BTreeMap;

use millrace_event::header;
use millrace_kafka::{Connection, Record, group, reader};
use millrace_testkit::pipeline::{Options, Pipeline};
use millrace_testkit::wait::until;
use serde_json::json;

use crate::{PATIENCE, say};

/// Does what the event says.
const FUNCTION: &str = "export const config = { timeout: '1s' };
export default function (event) {
  switch (event.properties.act) {
    case 'loop': for (;;) {}
    case 'throw': return priced(event);
    case 'heap': { const held = []; for (;;) held.push(new Array(1000).fill({})); }
    case 'fill': new Array(2 ** 27).fill(1.1); break;
    case 'split': 'x'.repeat(2 ** 28).split(''); break;
  }
  event.properties.seen = true;
  return event;
}
function priced(event) { throw new Error('no such price'); }
";

/// What may be said of each: some end within the isolate, some only with the worker process.
const HOSTILE: [(&str, &[&str]); 5] = [
    ("loop", &["wall_limit", "cpu_limit"]),
    ("throw", &["thrown"]),
    (
        "heap",
        &["heap_limit", "wall_limit", "rss_limit", "worker_crashed"],
    ),
    (
        "fill",
        &["heap_limit", "wall_limit", "rss_limit", "worker_crashed"],
    ),
    (
        "split",
        &["heap_limit", "wall_limit", "rss_limit", "worker_crashed"],
    ),
];
const INNOCENT: u64 = 200;

#[tokio::test]
async fn functions_that_loop_throw_or_exhaust_the_engine_cost_their_own_event_only() {
    // One partition, so that every hostile event has innocent neighbours in its batch.
    let options = Options {
        partitions: Some(1),
        ..Options::default()
    };
    let mut pipeline = Pipeline::start(options).await.expect("the pipeline starts");
    pipeline
        .put_function("hostile", FUNCTION)
        .await
        .expect("the function is taken");
    let connection = Connection::new(pipeline.kafka(), "test");
    let sender = pipeline.sender();
    let rotor = pipeline.process("rotor").id();
    let seat = seat(&connection, &pipeline).await;

    let event = |id: String, act: &str| json!({"messageId": id, "anonymousId": "a", "event": "Acted", "properties": {"act": act}});
    let mut batch: Vec<_> = (0..INNOCENT)
        .map(|n| event(format!("innocent-{n}"), "nothing"))
        .collect();
    for (turn, (act, _)) in HOSTILE.iter().enumerate() {
        batch.insert(20 + turn * 40, event(format!("hostile-{act}"), act));
    }
    for event in &mut batch {
        event["type"] = "track".into();
    }
    let answer = sender
        .post("/v1/batch", &json!({ "batch": batch }))
        .await
        .expect("answered");
    assert_eq!(answer.status, 200, "{}", answer.body);

    pipeline
        .rows(INNOCENT, PATIENCE)
        .await
        .expect("the innocent arrive");
    let letters = until("the dead letters", PATIENCE, || async {
        let letters: Vec<Record> = reader::gather(&connection, &pipeline.topic("dlq"))
            .await?
            .into_values()
            .flatten()
            .collect();
        Ok(Some(letters).filter(|letters| letters.len() >= HOSTILE.len()))
    });
    let letters = letters
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", pipeline.tails()));

    let text = |letter: &Record, name| letter.headers.text(name).unwrap_or_default().to_owned();
    let verdicts: BTreeMap<String, String> = letters
        .iter()
        .map(|letter| {
            let value: serde_json::Value =
                serde_json::from_slice(&letter.value).expect("the ingest envelope");
            let act = value["event"]["properties"]["act"]
                .as_str()
                .expect("what it did")
                .to_owned();
            (act, text(letter, header::ERROR_CODE))
        })
        .collect();
    say(&format!("hostile functions: {verdicts:?}"));
    assert_eq!(letters.len(), HOSTILE.len(), "each once");
    for (act, codes) in HOSTILE {
        assert!(
            codes.contains(&verdicts[act].as_str()),
            "{act} got {}",
            verdicts[act]
        );
    }
    let thrown = letters
        .iter()
        .find(|letter| text(letter, header::ERROR_CODE) == "thrown")
        .expect("it threw");
    assert!(text(thrown, header::ERROR_MESSAGE).contains("no such price"));
    assert!(
        !text(thrown, header::FUNCTION).is_empty(),
        "the function is named"
    );
    // The function's own frames, innermost first, and nothing of what runs it.
    let stack = text(thrown, header::ERROR_STACK);
    let frames: Vec<_> = stack
        .lines()
        .filter(|line| line.trim().starts_with("at "))
        .collect();
    assert_eq!(frames.len(), 2, "{stack}");
    assert!(
        frames[0].contains("priced") && frames[0].contains(":13:"),
        "{stack}"
    );
    assert!(frames[1].contains(":5:"), "{stack}");
    let tools = [
        (header::connect::CLASS_NAME, "thrown".to_owned()),
        (header::connect::MESSAGE, text(thrown, header::ERROR_MESSAGE)),
        (header::connect::STACKTRACE, stack),
        (header::connect::TOPIC, text(thrown, header::ORIGIN_TOPIC)),
        (header::connect::PARTITION, text(thrown, header::ORIGIN_PARTITION)),
        (header::connect::OFFSET, text(thrown, header::ORIGIN_OFFSET)),
    ];
    for (name, value) in tools {
        assert!(!value.is_empty(), "{name}");
        assert_eq!(text(thrown, name), value, "{name}");
    }
    assert_eq!(text(thrown, header::ATTEMPT), "0");
    let seen = format!(
        "SELECT count() AS n FROM {} WHERE seen AND startsWith(message_id, 'innocent-')",
        pipeline.table
    );
    assert_eq!(pipeline.query(&seen).await.expect("answered")[0]["n"], INNOCENT);
    assert_eq!(
        pipeline.process("rotor").id(),
        rotor,
        "the rotor is the same process"
    );
    assert_eq!(
        pipeline.process("rotor").ended().expect("known"),
        None,
        "and it runs"
    );
    assert_eq!(
        self::seat(&connection, &pipeline).await,
        seat,
        "its place in the group is the same"
    );
}

/// The rotor's member id: another one would mean that it had left the group and come back.
async fn seat(connection: &Connection, pipeline: &Pipeline) -> Vec<String> {
    let group = pipeline.group("rotor");
    let members = until("the rotor is in its group", PATIENCE, || async {
        Ok(Some(group::members(connection, &group).await?).filter(|members| !members.is_empty()))
    });
    members.await.expect("it joins")
}
