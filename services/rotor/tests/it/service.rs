//! The whole service on real Kafka and Postgres.

use millrace_event::envelope::{Envelope as _, Origin, Output, Reason, Resume, Retry, RowPayload, Stage, V1};
use millrace_event::header::{self, Headers};
use millrace_event::{JournalId, Verdict};
use millrace_kafka::Outgoing;
use serde_json::value::RawValue;

use super::ground::{Ground, PARTITIONS, at, identity, ingest, read};

const ADD: &str = "export default (event) => { event.added = true; }";

/// The function that proves most: it does what the event asks for.
const OBEDIENT: &str = "export default async (event) => {
    switch (event.do) {
        case 'loop': for (;;);
        case 'throw': throw new TypeError('as asked');
        case 'heap': { const kept = []; for (;;) kept.push({ n: kept.length }); }
        case 'fill': return { text: String(new Array(2 ** 27).fill(1.1)) };
        case 'split': return { text: 'x'.repeat(2 ** 28).split('') };
        case 'wait': await new Promise(() => {});
        case 'drop': return null;
        case 'retry': throw new RetryError('busy', { after: '10s' });
        case 'huge': return { text: 'x'.repeat(2 ** 21) };
        case 'three': return [{ n: 1 }, { n: 2 }, { n: 3 }];
    }
    event.added = true;
};";

/// What is met first by who exhausts the engine, or the engine ends its process: that is the machine's to decide.
const EXHAUSTED: &[&str] = &["heap_limit", "rss_limit", "wall_limit", "worker_crashed"];

fn code(record: &millrace_kafka::Record) -> String {
    read(record)
        .reason
        .map(|reason| reason.code.as_str().to_owned())
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_read_gives_one_record_in_its_partition_in_order() {
    let ground = Ground::with(ADD).await;
    let count = 3000_u64;
    for partition in 0..PARTITIONS {
        let records =
            (0..count).map(|seq| ground.event(partition, seq, &format!(r#"{{"n":{seq},"text":"é"}}"#)));
        ground.write(partition, records.collect()).await;
    }
    let transformed = ground
        .transformed(usize::try_from(count).expect("small") * 2)
        .await;
    for partition in 0..PARTITIONS {
        let records = &transformed[&partition];
        assert_eq!(records.len(), 3000);
        for (seq, record) in (0..).zip(records) {
            let envelope = read(record);
            assert_eq!(envelope.id, identity(partition, seq));
            assert_eq!((envelope.attempt, envelope.verdict), (0, Verdict::Forward));
            assert_eq!(envelope.outputs.len(), 1);
            assert_eq!(
                envelope.outputs[0].event.get(),
                format!(r#"{{"n":{seq},"text":"é","added":true}}"#)
            );
            assert_eq!(envelope.outputs[0].table.as_str(), "ws_demo.events");
            assert_eq!(
                envelope.outputs[0].destination.as_str(),
                ground.demo.destination.id.as_str()
            );
            assert_eq!(
                envelope.outputs[0].config_version,
                ground.demo.destination.config_version
            );
            assert_eq!(
                envelope.origin.message_id.as_str(),
                format!("m-{partition}-{seq}")
            );
            assert!(envelope.original.is_none() && envelope.reason.is_none());
            assert_eq!(
                record.key.as_deref(),
                Some(format!("anon-{partition}").as_bytes())
            );
            assert_eq!(
                record.headers.text(header::ID),
                Some(identity(partition, seq).to_string().as_str())
            );
        }
    }
    let version = ground
        .client
        .get(&format!("{}/version", ground.url))
        .await
        .expect("an answer")
        .body;
    assert!(version.contains(r#""engine":""#), "{version}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_function_does_costs_one_event_and_neither_the_process_nor_its_place_in_the_group() {
    let mut ground = Ground::with(OBEDIENT).await;
    let pid = ground.rotor.id().expect("it runs");
    let expected = [
        ("loop", Verdict::DeadLetter, &["wall_limit"][..]),
        ("throw", Verdict::DeadLetter, &["thrown"]),
        ("heap", Verdict::DeadLetter, EXHAUSTED),
        ("fill", Verdict::DeadLetter, EXHAUSTED),
        ("split", Verdict::DeadLetter, EXHAUSTED),
        ("wait", Verdict::DeadLetter, &["unsettled"]),
        ("drop", Verdict::Drop, &[""]),
        ("retry", Verdict::Retry, &["thrown"]),
        ("huge", Verdict::DeadLetter, &["output_limit"]),
        ("three", Verdict::Forward, &[""]),
    ];
    let mut records = Vec::new();
    for (at, (what, ..)) in (0..).zip(&expected) {
        records.push(ground.event(0, at * 2, &format!(r#"{{"do":"{what}"}}"#)));
        records.push(ground.event(0, at * 2 + 1, r#"{"do":"nothing"}"#));
    }
    let originals: Vec<_> = records.iter().map(|record| record.value.clone()).collect();
    ground.write(0, records).await;
    let transformed = ground.transformed(expected.len() * 2).await;
    let records = &transformed[&0];
    assert_eq!(records.len(), expected.len() * 2);
    for (index, (what, verdict, codes)) in expected.into_iter().enumerate() {
        let guilty = read(&records[index * 2]);
        assert_eq!(guilty.verdict, verdict, "{what}: {:?}", guilty.reason);
        assert!(
            codes.contains(&code(&records[index * 2]).as_str()),
            "{what}: {:?}",
            guilty.reason
        );
        let innocent = read(&records[index * 2 + 1]);
        assert_eq!(
            innocent.verdict,
            Verdict::Forward,
            "beside {what}: {:?}",
            innocent.reason
        );
        assert_eq!(
            innocent.outputs[0].event.get(),
            r#"{"do":"nothing","added":true}"#
        );
        let keeps = matches!(verdict, Verdict::DeadLetter | Verdict::Retry);
        let original = guilty.original.map(|original| original.get().as_bytes());
        assert_eq!(
            original,
            keeps.then_some(originals[index * 2].as_slice()),
            "{what}"
        );
    }
    let retry = read(&records[14]);
    assert_eq!(retry.retry_after_ms, Some(10_000));
    let outputs: Vec<_> = read(&records[18])
        .outputs
        .iter()
        .map(|output| output.event.get().to_owned())
        .collect();
    assert_eq!(outputs, [r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#]);
    let thrown = read(&records[2]).reason.expect("a reason");
    assert!(
        thrown.message.as_str().starts_with("TypeError: as asked (line 4"),
        "{thrown:?}"
    );
    assert_eq!(thrown.function_version, Some(1));
    // Its own frames, and none of the host's.
    let function = thrown.function.expect("it is named").as_str().to_owned();
    let stack = thrown.stack.expect("frames").as_str().to_owned();
    assert!(
        !stack.is_empty()
            && stack
                .lines()
                .all(|line| line.contains(&format!("({function}@1:4:"))),
        "{stack}"
    );

    assert_eq!(ground.rotor.ended().expect("known"), None);
    assert_eq!(ground.rotor.id(), Some(pid));
    assert_eq!(
        ground.metric("millrace_rotor_sessions_total").await,
        "millrace_rotor_sessions_total 1"
    );
    assert_eq!(
        ground.metric("millrace_rotor_partitions").await,
        "millrace_rotor_partitions 4"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_cannot_be_run_are_set_aside_with_the_reason_and_never_dropped() {
    let ground = Ground::with(ADD).await;
    let unknown = ingest("src_unknown", "ws_unknown", 0, 1, r#"{"a":1}"#);
    let plain = |value: &[u8]| Outgoing {
        key: None,
        value: value.to_vec(),
        headers: Headers::new(),
    };
    let records = vec![
        ground.event(0, 0, r#"{"n":0}"#),
        unknown.clone(),
        plain(b"not json"),
        plain(b""),
        plain(br#"{"version":2}"#),
        ground.event(0, 5, r#"{"n":5}"#),
    ];
    ground.write(0, records).await;
    let transformed = ground.transformed(6).await;
    let records = &transformed[&0];
    assert_eq!(read(&records[0]).verdict, Verdict::Forward);
    assert_eq!(read(&records[5]).verdict, Verdict::Forward);
    assert_eq!(
        (read(&records[1]).verdict, code(&records[1])),
        (Verdict::DeadLetter, "configuration".into())
    );
    assert_eq!(
        read(&records[1]).original.map(RawValue::get).map(str::as_bytes),
        Some(unknown.value.as_slice())
    );
    for (offset, record) in [(2, &records[2]), (3, &records[3]), (4, &records[4])] {
        assert_eq!(
            (read(record).verdict, code(record)),
            (Verdict::DeadLetter, "invalid_record".into())
        );
        let message = read(record)
            .reason
            .map(|reason| reason.message.as_str().to_owned());
        let place = format!("offset {offset} of partition 0 of {}", ground.topics.ingest);
        assert!(
            message.is_some_and(|message| message.ends_with(&place)),
            "its bytes can be found"
        );
        let identity = read(record).id;
        assert_eq!(identity.journal, JournalId::of_topic(&ground.topics.ingest, ""));
        assert_eq!((identity.partition, identity.seq), (0, offset));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_version_runs_without_a_restart() {
    let ground = Ground::with("export default (event) => { event.by = 1; }").await;
    ground.write(0, vec![ground.event(0, 0, "{}")]).await;
    let transformed = ground.transformed(1).await;
    assert_eq!(read(&transformed[&0][0]).outputs[0].event.get(), r#"{"by":1}"#);
    ground
        .promote("export default (event) => { event.by = 2; }")
        .await;
    let mut seq = 1;
    loop {
        ground.write(0, vec![ground.event(0, seq, "{}")]).await;
        seq += 1;
        let transformed = ground.transformed(usize::try_from(seq).expect("small")).await;
        match read(transformed[&0].last().expect("records")).outputs[0]
            .event
            .get()
        {
            r#"{"by":1}"# => assert!(seq < 200, "the new version never came into force"),
            other => {
                assert_eq!(other, r#"{"by":2}"#);
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_copy_runs_when_it_is_due_and_a_row_of_the_bulker_passes_as_it_is() {
    let ground = Ground::with(ADD).await;
    let topic = ground.topics.retry[0].topic.clone();
    let reason = Reason {
        code: "thrown".into(),
        message: "busy".into(),
        field: None,
        function: None,
        function_version: None,
        stack: None,
    };
    let ingest_record = ground.event(0, 7, r#"{"n":7}"#);
    let payload: Box<RawValue> = serde_json::from_slice(&ingest_record.value).expect("JSON");
    let event = RawValue::from_string(r#"{"n":8,"price":1.50}"#.into()).expect("JSON");
    let row = RowPayload {
        version: V1,
        origin: Origin {
            workspace: "ws_demo".into(),
            source: "src".into(),
            message_id: "m-8".into(),
            received_at: at("2026-01-02T03:04:05.678Z"),
            sent_at: None,
        },
        output: Output {
            destination: "dst_1".into(),
            table: "ws_demo.events".into(),
            config_version: 9,
            event: &event,
        },
    };
    let row = RawValue::from_string(String::from_utf8(row.to_bytes()).expect("UTF-8")).expect("JSON");
    let copy = |stage, attempt, due_at: &str, sub, payload: &RawValue, seq| {
        let value = Retry {
            version: V1,
            stage,
            attempt,
            due_at: at(due_at),
            resume: None,
            reason: reason.clone(),
            table: None,
            sub,
            payload,
        };
        let headers = Headers::new()
            .with(header::ID, identity(0, seq).to_string())
            .with(header::DUE_AT, due_at);
        Outgoing {
            key: Some(b"k".to_vec()),
            value: value.to_bytes(),
            headers,
        }
    };
    let long_ago = "2026-01-02T03:04:15.678Z";
    let never = "9000-01-01T00:00:00.000Z";
    ground
        .write_to(
            &topic,
            0,
            vec![
                copy(Stage::Rotor, 1, long_ago, None, &payload, 7),
                copy(Stage::Bulker, 2, long_ago, Some(3), &row, 8),
                copy(Stage::Rotor, 1, never, None, &payload, 9),
            ],
        )
        .await;
    let transformed = ground.transformed(2).await;
    let ran = read(&transformed[&0][0]);
    assert_eq!(
        (ran.id, ran.attempt, ran.verdict),
        (identity(0, 7), 1, Verdict::Forward)
    );
    assert_eq!(ran.outputs[0].event.get(), r#"{"n":7,"added":true}"#);
    let passed = read(&transformed[&0][1]);
    assert_eq!(
        (passed.id, passed.attempt, passed.sub),
        (identity(0, 8), 2, Some(3))
    );
    assert_eq!((passed.verdict, passed.outputs.len()), (Verdict::Forward, 1));
    assert_eq!(passed.outputs[0].event.get(), r#"{"n":8,"price":1.50}"#);
    assert_eq!(passed.outputs[0].config_version, 9);
    // What is not due holds up nobody: the ingest topic goes on.
    ground.write(0, vec![ground.event(0, 10, "{}")]).await;
    let transformed = ground.transformed(3).await;
    assert_eq!(transformed[&0].len(), 3);
    assert_eq!(read(&transformed[&0][2]).id, identity(0, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_goes_on_at_the_function_that_asked_and_only_while_it_stands_there() {
    let ground = Ground::with("export default (event) => { event.first = (event.first ?? 0) + 1; }").await;
    let busy = "export default (event, ctx) => {
        if (ctx.attempt === 0) throw new RetryError('busy');
        event.second = event.big;
        event.key = ctx.idempotencyKey;
    }";
    let asked = ground.append("g", busy).await;
    let event = r#"{"big":9007199254740993}"#;
    let mut seq = 0;
    let retry = loop {
        ground.write(0, vec![ground.event(0, seq, event)]).await;
        seq += 1;
        let transformed = ground.transformed(usize::try_from(seq).expect("small")).await;
        let last = transformed[&0].last().expect("records").clone();
        if read(&last).verdict == Verdict::Retry {
            break last;
        }
        assert!(seq < 200, "the second function never came into force");
    };
    let envelope = read(&retry);
    let resume = envelope.resume.clone().expect("a place to go on");
    assert_eq!(
        (resume.chain.as_str(), resume.position, resume.event.get()),
        (asked.chain.as_str(), 1, r#"{"big":9007199254740993,"first":1}"#)
    );
    let reason = envelope.reason.clone().expect("a reason");
    assert_eq!(
        reason.function.as_ref().map(|id| id.as_str()),
        Some(asked.function.as_str())
    );

    // The copy that the bulker makes of it, and one of a chain that has changed since. Another count shows
    // whether the first function ran.
    let kept = resume.event.get().replace(r#""first":1"#, r#""first":41"#);
    let kept = RawValue::from_string(kept).expect("JSON");
    let copy = |reason: Reason<'_>| {
        let value = Retry {
            version: V1,
            stage: Stage::Rotor,
            attempt: 1,
            due_at: at("2026-01-02T03:04:15.678Z"),
            resume: Some(Resume {
                event: &kept,
                ..resume.clone()
            }),
            reason,
            table: None,
            sub: None,
            payload: envelope.original.expect("a retry keeps its original"),
        };
        Outgoing {
            key: None,
            value: value.to_bytes(),
            headers: Headers::new().with(header::ID, envelope.id.to_string()),
        }
    };
    let moved = Reason {
        function: Some("fn_gone".into()),
        ..reason.clone()
    };
    let topic = ground.topics.retry[0].topic.clone();
    ground.write_to(&topic, 0, vec![copy(reason), copy(moved)]).await;
    let transformed = ground.transformed(usize::try_from(seq).expect("small") + 2).await;
    let outputs: Vec<_> = transformed[&0]
        .iter()
        .filter(|record| read(record).attempt == 1)
        .map(|record| read(record).outputs[0].event.get().to_owned())
        .collect();
    // `second` is a value that a function made: of it the engine keeps what it can.
    let (_, key) = outputs[0].rsplit_once(r#""key":""#).expect("a key");
    let key = key.trim_end_matches(r#""}"#);
    assert_eq!(key.len(), 32, "the same for both runs of the event: {key}");
    let done = |first| {
        format!(r#"{{"big":9007199254740993,"first":{first},"second":9007199254740992,"key":"{key}"}}"#)
    };
    assert_eq!(outputs, [done(41), done(1)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_near_the_size_of_a_record_are_delivered_or_set_aside_and_wedge_nothing() {
    let mut ground = Ground::with(ADD).await;
    let event = |bytes: usize| format!(r#"{{"text":"{}"}}"#, "x".repeat(bytes));
    // What fits, and what is over the output limit; its dead letter has the original.
    let sizes = [10, 910_000, 985_000, 998_000, 10];
    for (seq, bytes) in (0..).zip(sizes) {
        ground.write(0, vec![ground.event(0, seq, &event(bytes))]).await;
    }
    let transformed = ground.transformed(sizes.len()).await;
    let records = &transformed[&0];
    let verdicts: Vec<_> = records
        .iter()
        .map(|record| (read(record).verdict, code(record)))
        .collect();
    let forward = (Verdict::Forward, String::new());
    let aside = (Verdict::DeadLetter, "output_limit".to_owned());
    assert_eq!(
        verdicts,
        [forward.clone(), forward.clone(), aside.clone(), aside, forward]
    );
    let originals: Vec<_> = records
        .iter()
        .map(|record| read(record).original.is_some())
        .collect();
    assert_eq!(originals, [false, false, true, true, false]);
    assert_eq!(ground.rotor.ended().expect("known"), None);
    assert_eq!(
        ground.metric("millrace_rotor_sessions_total").await,
        "millrace_rotor_sessions_total 1"
    );
}
