//! What keeps one workspace's functions from costing the others: quarantine, budgets, and what they log.

use std::time::Duration;

use millrace_event::Verdict;
use millrace_event::envelope::{Envelope as _, Reason, Resume, Retry, Stage, V1};
use millrace_event::header::{self, Headers};
use millrace_kafka::{Outgoing, Record, reader};
use millrace_store::FunctionDebug;
use millrace_testkit::wait::until;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::ground::{Ground, at, identity, read};

const ADD: &str = "export default (event) => { event.added = true; }";

/// Ends its worker when it is asked to.
const KILLER: &str = "export default (event) => {
    if (event.kill) return { text: 'x'.repeat(2 ** 28).split('') };
    event.by = 'killer';
}";

fn decided(record: &Record) -> (Verdict, String) {
    let envelope = read(record);
    let code = envelope.reason.map(|reason| reason.code.as_str().to_owned());
    (envelope.verdict, code.unwrap_or_default())
}

/// Writes one event and gives the record that came of it; only for tests that write nothing else meanwhile.
async fn one(ground: &Ground, seq: u64, event: &str) -> Record {
    ground.write(0, vec![ground.event(0, seq, event)]).await;
    let count = usize::try_from(seq + 1).expect("small");
    ground.transformed(count).await[&0]
        .last()
        .expect("a record")
        .clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_kills_workers_is_held_back_over_restarts_and_a_new_version_runs_at_once() {
    let settings = [
        ("MILLRACE__QUARANTINE__KILLS", "2"),
        ("MILLRACE__QUARANTINE__FIRST", "1h"),
        ("MILLRACE__QUARANTINE__LONGEST", "1h"),
        ("MILLRACE__LIMITS__WALL", "30s"),
        ("MILLRACE__LIMITS__CPU", "30s"),
    ];
    let mut ground = Ground::set(KILLER, &settings).await;
    let neighbour = ground.neighbour("quiet", ADD).await;
    for seq in 0..2 {
        let killed = one(&ground, seq, r#"{"kill":true}"#).await;
        let (verdict, code) = decided(&killed);
        assert_eq!(verdict, Verdict::DeadLetter);
        assert!(
            ["heap_limit", "rss_limit", "worker_crashed"].contains(&code.as_str()),
            "{code}"
        );
        let reason = read(&killed).reason.expect("a reason");
        assert!(
            reason.function.is_some_and(|id| id.as_str().starts_with("fn_")),
            "it is named"
        );
        assert_eq!(reason.function_version, Some(1));
    }
    let shown = ground
        .shows("/ready", &["quarantined: chain ch_", "@1)", " s left"])
        .await;
    assert!(shown.contains(r#""ready":true"#), "others are served: {shown}");
    ground
        .shows(
            "/metrics",
            &[
                "millrace_quarantine_chains 1",
                "millrace_quarantine_kills_total 2",
            ],
        )
        .await;

    let innocent = one(&ground, 2, r#"{"n":2}"#).await;
    assert_eq!(decided(&innocent), (Verdict::Retry, "quarantined".to_owned()));
    let envelope = read(&innocent);
    assert!(envelope.original.is_some());
    assert!(
        envelope.retry_after_ms.is_some_and(|wait| wait > 3_000_000),
        "{envelope:?}"
    );
    // Its neighbour is served meanwhile.
    ground
        .write(0, vec![ground.event_of(&neighbour, 0, 3, r#"{"n":3}"#)])
        .await;
    let beside = ground.transformed(4).await[&0][3].clone();
    assert_eq!(decided(&beside).0, Verdict::Forward);

    // Past the last tier there is no later.
    let payload = ground.event(0, 4, r#"{"n":4}"#).value;
    let last = u32::try_from(ground.topics.retry.len()).expect("small");
    let copy = came_back(4, last, None, &payload);
    let topic = ground.topics.retry[0].topic.clone();
    ground.write_to(&topic, 0, vec![copy]).await;
    let last = ground.transformed(5).await[&0][4].clone();
    assert_eq!(decided(&last), (Verdict::DeadLetter, "quarantined".to_owned()));

    // A rotor that starts anew knows it too.
    ground.rotor.kill().await.expect("it ran");
    ground.rotor.start_again().expect("it starts");
    ground.ready().await;
    ground.shows("/ready", &["quarantined: chain ch_"]).await;
    let held = one(&ground, 5, r#"{"n":5}"#).await;
    assert_eq!(decided(&held), (Verdict::Retry, "quarantined".to_owned()));

    ground.promote(ADD).await;
    ground.tell().await;
    let mut seq = 6;
    loop {
        let record = one(&ground, seq, "{}").await;
        if decided(&record).0 == Verdict::Forward {
            assert_eq!(read(&record).outputs[0].event.get(), r#"{"added":true}"#);
            break;
        }
        seq += 1;
        assert!(seq < 200, "the new version never ran");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_behind_too_many_kills_of_their_batch_are_not_run_and_come_back() {
    let settings = [
        ("MILLRACE__QUARANTINE__KILLS", "2"),
        ("MILLRACE__LIMITS__WALL", "30s"),
        ("MILLRACE__LIMITS__CPU", "30s"),
    ];
    let ground = Ground::set(KILLER, &settings).await;
    let events = (0..30).map(|seq| ground.event(0, seq, r#"{"kill":true}"#));
    ground.write(0, events.collect()).await;
    let transformed = ground.transformed(30).await;
    let killed = transformed[&0]
        .iter()
        .filter(|record| decided(record).0 == Verdict::DeadLetter)
        .count();
    let held = transformed[&0]
        .iter()
        .filter(|record| decided(record).1 == "quarantined")
        .count();
    assert_eq!(killed + held, 30);
    // Two of a batch; the first records may have come as batches of their own.
    assert!((2..=10).contains(&killed), "{killed} events killed workers");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_workspace_is_cut_off_at_its_budget_and_its_neighbours_lose_nothing() {
    let slow = "export default (event) => { if (event.slow) for (;;); event.by = 'slow'; }";
    let settings = [
        ("MILLRACE__LIMITS__WALL", "3s"),
        ("MILLRACE__LIMITS__CPU", "3s"),
        ("MILLRACE__LIMITS__BATCH_WALL", "200ms"),
    ];
    let ground = Ground::set(slow, &settings).await;
    let neighbour = ground.neighbour("quick", ADD).await;
    // Neighbours come first and last, so that no batch but the first holds slow events alone.
    let count = 100_u64;
    let records = (0..count).map(|seq| match seq % 2 {
        0 => ground.event_of(&neighbour, 0, seq, r#"{"n":1}"#),
        _ => ground.event(0, seq, r#"{"slow":true}"#),
    });
    ground.write(0, records.collect()).await;
    let transformed = ground.transformed(usize::try_from(count).expect("small")).await;
    let mut returned = 0;
    for (seq, record) in (0..).zip(&transformed[&0]) {
        let envelope = read(record);
        assert_eq!(envelope.id, identity(0, seq), "in order");
        let (verdict, code) = decided(record);
        if seq % 2 == 0 {
            assert_eq!(verdict, Verdict::Forward, "{:?}", envelope.reason);
            assert_eq!(envelope.outputs[0].event.get(), r#"{"n":1,"added":true}"#);
            continue;
        }
        assert_eq!(code, "wall_limit", "{:?}", envelope.reason);
        if verdict == Verdict::Retry {
            returned += 1;
            assert_eq!(envelope.retry_after_ms, None, "into the first tier");
            assert!(envelope.original.is_some());
        }
    }
    assert!(
        returned >= 40,
        "{returned} of 50 slow events came back instead of taking their neighbours' time"
    );
    assert_eq!(
        ground.metric("millrace_rotor_sessions_total").await,
        "millrace_rotor_sessions_total 1"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_that_overdrew_its_account_sits_out_in_batches_of_its_own_too() {
    let slow = "export default (event) => { if (event.slow) for (;;); event.by = 'slow'; }";
    let settings = [
        ("MILLRACE__LIMITS__WALL", "30s"),
        ("MILLRACE__LIMITS__CPU", "30s"),
        ("MILLRACE__LIMITS__BATCH_WALL", "50ms"),
        ("MILLRACE__LIMITS__BATCH_REFILL", "24h"),
    ];
    let ground = Ground::set(slow, &settings).await;
    let neighbour = ground.neighbour("quick", ADD).await;
    let first = one(&ground, 0, r#"{"slow":false}"#).await;
    assert_eq!(decided(&first).0, Verdict::Forward);
    // One record batch in Kafka is one batch here.
    let both = vec![
        ground.event_of(&neighbour, 0, 1, "{}"),
        ground.event(0, 2, r#"{"slow":true}"#),
    ];
    ground.write(0, both).await;
    let transformed = ground.transformed(3).await;
    assert_eq!(decided(&transformed[&0][1]).0, Verdict::Forward);
    assert_eq!(
        decided(&transformed[&0][2]),
        (Verdict::Retry, "wall_limit".to_owned()),
        "cut off at the budget, long before its own limit"
    );
    let quick = one(&ground, 3, r#"{"slow":false}"#).await;
    let envelope = read(&quick);
    assert_eq!(decided(&quick), (Verdict::Retry, "wall_limit".to_owned()));
    assert_eq!(envelope.retry_after_ms, None, "into the first tier");
    let reason = envelope.reason.expect("a reason");
    assert!(
        reason.message.as_str().starts_with("not run: "),
        "{}",
        reason.message.as_str()
    );
    ground
        .shows("/metrics", &["millrace_rotor_sat_out_total 1"])
        .await;
    // Its neighbour has its own account.
    ground
        .write(0, vec![ground.event_of(&neighbour, 0, 4, r#"{"n":4}"#)])
        .await;
    let beside = ground.transformed(5).await[&0][4].clone();
    assert_eq!(decided(&beside).0, Verdict::Forward);
    // Where events come back they run, whatever the account says.
    let payload = ground.event(0, 5, r#"{"n":5}"#).value;
    let topic = ground.topics.retry[0].topic.clone();
    ground
        .write_to(&topic, 0, vec![came_back(5, 1, None, &payload)])
        .await;
    let returned = ground.transformed(6).await[&0][5].clone();
    assert_eq!(decided(&returned).0, Verdict::Forward);
    assert_eq!(read(&returned).outputs[0].event.get(), r#"{"n":5,"by":"slow"}"#);
}

/// A copy that is due, as the bulker writes it to a retry topic.
fn came_back(seq: u64, attempt: u32, resume: Option<(Resume<'_>, Reason<'_>)>, payload: &[u8]) -> Outgoing {
    let payload: Box<RawValue> = serde_json::from_slice(payload).expect("JSON");
    let plain = Reason {
        code: "quarantined".into(),
        message: "not run".into(),
        field: None,
        function: None,
        function_version: None,
        stack: None,
    };
    let (resume, reason) = resume.map_or((None, plain), |(resume, reason)| (Some(resume), reason));
    let copy = Retry {
        version: V1,
        stage: Stage::Rotor,
        attempt,
        due_at: at("2026-01-02T03:04:15.678Z"),
        resume,
        reason,
        table: None,
        sub: None,
        payload: &payload,
    };
    Outgoing {
        key: None,
        value: copy.to_bytes(),
        headers: Headers::new().with(header::ID, identity(0, seq).to_string()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_came_back_and_had_no_time_keeps_its_place_in_the_chain() {
    let first =
        "export default (event) => { if (event.slow) for (;;); event.first = (event.first ?? 0) + 1; }";
    let settings = [
        ("MILLRACE__LIMITS__WALL", "1s"),
        ("MILLRACE__LIMITS__CPU", "30s"),
        ("MILLRACE__LIMITS__BATCH_WALL", "20ms"),
    ];
    let ground = Ground::set(first, &settings).await;
    let neighbour = ground.neighbour("quick", ADD).await;
    let second =
        "export default (event) => { if (!event.done) throw new RetryError('not now', {after: '10s'}); }";
    let asked = ground.append("second", second).await;
    ground.tell().await;
    let mut seq = 0;
    let retry = loop {
        let record = one(&ground, seq, r#"{"n":1}"#).await;
        if decided(&record).0 == Verdict::Retry {
            break record;
        }
        seq += 1;
        assert!(seq < 200, "the second function never came into force");
    };
    let envelope = read(&retry);
    let (resume, reason) = (
        envelope.resume.clone().expect("a place to go on"),
        envelope.reason.clone().expect("a reason"),
    );
    // A copy that takes all the time there is, and behind it one that stands at the second function.
    let slow = ground.event(0, seq + 1, r#"{"slow":true}"#).value;
    let beside = ground.event_of(&neighbour, 0, seq + 2, "{}").value;
    let original = envelope.original.expect("a retry keeps its original").get();
    let copies = vec![
        came_back(seq + 2, 1, None, &beside),
        came_back(seq + 1, 1, None, &slow),
        came_back(seq, 1, Some((resume.clone(), reason)), original.as_bytes()),
    ];
    let topic = ground.topics.retry[0].topic.clone();
    ground.write_to(&topic, 0, copies).await;
    let before = usize::try_from(seq + 1).expect("small");
    let transformed = ground.transformed(before + 3).await;
    let cut = read(&transformed[&0][before + 2]);
    assert_eq!(cut.id, envelope.id);
    assert_eq!(
        decided(&transformed[&0][before + 2]),
        (Verdict::Retry, "wall_limit".to_owned())
    );
    let stands = cut.resume.clone().expect("its place");
    assert_eq!(
        (stands.chain.as_str(), stands.position, stands.event.get()),
        (asked.chain.as_str(), 1, r#"{"n":1,"first":1}"#)
    );
    assert_eq!(
        cut.reason
            .expect("a reason")
            .function
            .as_ref()
            .map(|id| id.as_str()),
        Some(asked.function.as_str())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_alone_on_its_partition_has_all_the_time_of_its_events() {
    let slow = "export default async (event) => {
        await new Promise((done) => setTimeout(done, 60));
        event.done = true;
    }";
    let settings = [
        ("MILLRACE__LIMITS__WALL", "30s"),
        ("MILLRACE__LIMITS__CPU", "30s"),
        ("MILLRACE__LIMITS__BATCH_WALL", "20ms"),
    ];
    let ground = Ground::set(slow, &settings).await;
    let records = (0..20).map(|seq| ground.event(0, seq, "{}"));
    ground.write(0, records.collect()).await;
    let transformed = ground.transformed(20).await;
    assert!(
        transformed[&0]
            .iter()
            .all(|record| decided(record).0 == Verdict::Forward)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_seen_at_once_when_it_is_told() {
    let settings = [("MILLRACE__REGISTRY__POLL", "1h")];
    let ground = Ground::set("export default (event) => { event.by = 1; }", &settings).await;
    assert_eq!(
        read(&one(&ground, 0, "{}").await).outputs[0].event.get(),
        r#"{"by":1}"#
    );
    ground
        .promote("export default (event) => { event.by = 2; }")
        .await;
    ground.tell().await;
    let mut seq = 1;
    while read(&one(&ground, seq, "{}").await).outputs[0].event.get() != r#"{"by":2}"# {
        seq += 1;
        assert!(seq < 200, "the new version never came into force");
    }
}

/// The lines in the topic, once there are so many.
async fn lines(ground: &Ground, count: usize) -> Vec<Value> {
    let topic = &ground.topics.functions_log;
    let what = format!("{count} log lines");
    let gathered = until(&what, Duration::from_secs(60), || async {
        let gathered = reader::gather(&ground.connection, topic).await?;
        let found: Vec<Record> = gathered.into_values().flatten().collect();
        Ok((found.len() >= count).then_some(found))
    });
    let gathered = gathered
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", ground.rotor.tail()));
    for record in &gathered {
        assert_eq!(
            record.key.as_deref(),
            Some(ground.demo.workspace.id.as_str().as_bytes())
        );
    }
    let values = gathered
        .iter()
        .map(|record| serde_json::from_slice(&record.value));
    values.collect::<Result<_, _>>().expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_functions_log_is_in_its_topic_sampled_and_debug_only_while_it_is_asked_for() {
    let code = "export default (event, ctx) => {
        for (let n = 0; n < event.lines; n += 1) ctx.log.info('line', n);
        ctx.log.debug('quiet');
        if (event.lines === 1) ctx.log.warn('loud');
    }";
    let settings = [("MILLRACE__LOGS__LINES_PER_SECOND", "5")];
    let ground = Ground::set(code, &settings).await;
    one(&ground, 0, r#"{"lines":1}"#).await;
    let first = lines(&ground, 2).await;
    let workspace = ground.demo.workspace.id.as_str();
    for (line, (level, message)) in first.iter().zip([("info", "line 0"), ("warn", "loud")]) {
        assert_eq!(
            (&line["level"], &line["message"]),
            (&json!(level), &json!(message))
        );
        assert_eq!(
            (
                &line["version"],
                &line["workspace"],
                &line["attempt"],
                &line["message_id"]
            ),
            (&json!(1), &json!(workspace), &json!(0), &json!("m-0-0"))
        );
        assert_eq!(line["id"], json!(identity(0, 0).to_string()));
        assert_eq!(
            (&line["source"], &line["function_version"]),
            (&json!(ground.demo.source.id), &json!(1))
        );
        assert!(
            line["function"].as_str().is_some_and(|id| id.starts_with("fn_")),
            "{line}"
        );
        assert!(
            line["chain"].as_str().is_some_and(|id| id.starts_with("ch_")),
            "{line}"
        );
    }
    assert_eq!(first.len(), 2, "no debug line");

    // Ten lines in the first moment, whatever is logged; the last one says how many are missing.
    one(&ground, 1, r#"{"lines":60}"#).await;
    until("sampled lines", Duration::from_secs(60), || async {
        let gathered = reader::gather(&ground.connection, &ground.topics.functions_log).await?;
        let told = gathered.into_values().flatten().any(|record| {
            let line: Value = serde_json::from_slice(&record.value).unwrap_or_default();
            line["discarded"]
                .as_u64()
                .is_some_and(|discarded| discarded >= 50)
        });
        Ok(told.then_some(()))
    })
    .await
    .expect("a line that says what is missing");

    FunctionDebug::new(ground.postgres.clone())
        .on(&ground.demo.workspace.id, Duration::from_secs(3600))
        .await
        .expect("switched on");
    let mut seq = 2;
    loop {
        one(&ground, seq, r#"{"lines":0}"#).await;
        let all = lines(&ground, 2).await;
        if all.iter().any(|line| line["level"] == "debug") {
            return;
        }
        seq += 1;
        assert!(seq < 300, "the switch was never seen");
    }
}
