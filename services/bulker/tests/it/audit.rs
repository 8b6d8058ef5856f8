//! What `millctl` says of what the bulker has done: the audit, and dead letters.

use std::collections::BTreeMap;

use millrace_event::envelope::{Envelope as _, Ingest, Retry, Stage, Text, V1};
use millrace_event::header::Headers;
use millrace_event::{KeyKind, Verdict, header};
use millrace_kafka::group::Committed;
use millrace_kafka::{Connection, Outgoing, offsets, reader};
use millrace_testkit::wait::until;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Bench, PATIENCE, id};

/// The audit once nothing is under way: its exit status and its answer.
async fn audit(bench: &Bench) -> (Option<i32>, Value) {
    audit_within(bench, "512MiB").await
}

async fn audit_within(bench: &Bench, memory: &str) -> (Option<i32>, Value) {
    let group = bench.pipeline.group("bulker");
    let settled = until("everything is settled", PATIENCE, || async {
        let (status, answer) = bench
            .pipeline
            .millctl_ended(&["audit", "--group", &group, "--memory", memory])
            .await?;
        let hours = answer["hours"].as_array().cloned().unwrap_or_default();
        let settled = !hours.is_empty() && hours.iter().all(|hour| hour["under_way"] == 0);
        Ok(Some((status, answer)).filter(|_| settled))
    });
    settled.await.expect("it answers")
}

#[tokio::test]
async fn the_audit_names_a_row_that_was_deleted_and_one_that_was_doubled() {
    let bench = Bench::start(vec![]).await;
    bench.send(0, bench.events(0, 0, 50)).await;
    bench.send(1, bench.events(1, 0, 50)).await;
    let dropped = bench.record(id(0, 50), 0, Verdict::Drop, &[]);
    bench.send(0, vec![dropped]).await;
    bench.pipeline.rows(100, PATIENCE).await.expect("they arrive");

    let (status, answer) = audit(&bench).await;
    assert_eq!((status, &answer["ok"]), (Some(0), &Value::Bool(true)), "{answer}");
    assert_eq!((&answer["events"], &answer["rows"]), (&101.into(), &100.into()));
    let hour = &answer["hours"][0];
    assert_eq!(
        (&hour["stored"], &hour["dropped"]),
        (&100.into(), &1.into()),
        "{answer}"
    );
    assert_eq!(hour["hour"], "2026-11-21T04");

    let table = &bench.pipeline.table;
    for sql in [
        format!("ALTER TABLE {table} DELETE WHERE _partition = 0 AND _seq = 7 SETTINGS mutations_sync = 1"),
        format!("INSERT INTO {table} SELECT * FROM {table} WHERE _partition = 1 AND _seq = 9"),
    ] {
        bench.pipeline.query(&sql).await.expect("done by hand");
    }
    let (status, answer) = audit(&bench).await;
    assert_eq!((status, &answer["ok"]), (Some(2), &Value::Bool(false)));
    let only = |kind: &str| {
        assert_eq!(answer[kind]["count"], 1, "{answer}");
        answer[kind]["named"][0].as_str().expect("a name").to_owned()
    };
    assert_eq!(only("missing"), format!("{} sub 0 in {table}", id(0, 7)));
    assert_eq!(
        only("duplicated"),
        format!("{} sub 0 in {table}, 2 times", id(1, 9))
    );
    assert_eq!(
        (&answer["stray"]["count"], &answer["lost"]["count"]),
        (&0.into(), &0.into())
    );
    assert_eq!(answer["passes"], 1);
    // With room for the events of one partition and no more, each has a pass of its own, and the answer is the same.
    let (status, mut in_parts) = audit_within(&bench, "14KB").await;
    assert_eq!((status, &in_parts["passes"]), (Some(2), &4.into()));
    in_parts["passes"] = 1.into();
    assert_eq!(in_parts, answer);
}

/// A record of the ingest topic, as the gateway's shipper writes it.
fn accepted(bench: &Bench, seq: u64) -> Outgoing {
    let event: Box<RawValue> =
        serde_json::from_str(r#"{"type":"track","event":"Tested"}"#).expect("valid JSON");
    let envelope = Ingest {
        version: V1,
        workspace: Text::from(bench.pipeline.workspace.as_str()),
        source: Text::from("src_test"),
        key_id: Text::from("wk_test"),
        key_kind: KeyKind::Server,
        received_at: "2026-11-21T04:00:00.120Z".parse().expect("a time"),
        sent_at: None,
        ip: None,
        headers: BTreeMap::new(),
        marks: vec![],
        message_id: Text::from("m"),
        event: &event,
    };
    let headers = Headers::new().with(header::ID, id(0, seq).to_string());
    Outgoing {
        key: None,
        value: envelope.to_bytes(),
        headers,
    }
}

#[tokio::test]
async fn the_audit_names_an_accepted_event_that_nobody_decided_and_a_number_that_never_came() {
    let bench = Bench::start(vec![]).await;
    bench.send(0, bench.events(0, 0, 3)).await;
    bench.pipeline.rows(3, PATIENCE).await.expect("they arrive");
    // Number 2 was shipped twice, 3 was read and left out, 4 never came, 5 is not read yet.
    let records = [0, 1, 2, 2, 3, 5].map(|seq| accepted(&bench, seq)).to_vec();
    let topic = bench.pipeline.topic("ingest");
    bench.producer.send(&topic, 0, records).await.expect("delivered");
    let connection = Connection::new(bench.pipeline.kafka(), "test");
    let (bulker, rotor) = (bench.pipeline.group("bulker"), bench.pipeline.group("rotor"));
    let read = Committed {
        offset: 5,
        metadata: String::new(),
    };
    offsets::set(&connection, &rotor, &topic, 0, read)
        .await
        .expect("committed");
    let arguments = ["audit", "--group", &bulker, "--rotor-group", &rotor];
    let settled = until("everything is settled", PATIENCE, || async {
        let (status, answer) = bench.pipeline.millctl_ended(&arguments).await?;
        Ok(Some((status, answer)).filter(|(_, answer)| answer["hours"][0]["stored"] == 3))
    });
    let (status, answer) = settled.await.expect("it answers");
    assert_eq!((status, &answer["accepted"]), (Some(2), &5.into()), "{answer}");
    assert_eq!(answer["duplicates_in_ingest"], 1);
    let lost = serde_json::json!([format!("{}: accepted, read and never decided", id(0, 3))]);
    assert_eq!(answer["lost"]["named"], lost);
    let gap = serde_json::json!([format!("{} is not in the ingest topic", id(0, 4))]);
    assert_eq!(answer["gaps"]["named"], gap);
    let hour = &answer["hours"][0];
    assert_eq!(
        (&hour["lost"], &hour["under_way"]),
        (&1.into(), &1.into()),
        "{answer}"
    );
    assert_eq!(answer["missing"]["count"], 0);
    // What was received before is left out, gaps excepted.
    let later = [arguments.as_slice(), &["--since", "2026-11-21T05:00:00Z"]].concat();
    let (_, answer) = bench.pipeline.millctl_ended(&later).await.expect("it answers");
    assert_eq!((&answer["accepted"], &answer["events"]), (&0.into(), &0.into()));
}

#[tokio::test]
async fn a_dead_letter_is_listed_counted_shown_and_sent_round_again_only_when_that_has_a_point() {
    let bench = Bench::start(vec![]).await;
    bench.send(0, bench.events(0, 0, 1)).await;
    bench
        .pipeline
        .rows(1, PATIENCE)
        .await
        .expect("the column n is a number now");
    let bad = r#"{"type":"track","event":"Tested","properties":{"n":"one"}}"#;
    bench.send(0, vec![bench.forward(id(0, 1), &[bad])]).await;
    let (status, answer) = {
        bench.send(0, bench.events(0, 2, 1)).await;
        bench
            .pipeline
            .rows(2, PATIENCE)
            .await
            .expect("its neighbour arrives");
        audit(&bench).await
    };
    assert_eq!(
        status,
        Some(0),
        "a row that is a dead letter is not missing: {answer}"
    );

    let millctl = |arguments: &'static [&'static str]| bench.pipeline.millctl(arguments);
    let list = millctl(&["dlq", "list", "--code", "column_conflict"])
        .await
        .expect("listed");
    assert_eq!(list["total"], 1);
    let letter = &list["letters"][0];
    assert_eq!(
        (&letter["field"], &letter["id"]),
        (&"n".into(), &id(0, 1).to_string().into())
    );
    let none = millctl(&["dlq", "list", "--code", "thrown"])
        .await
        .expect("listed");
    assert_eq!(none["total"], 0);
    let stats = millctl(&["dlq", "stats"]).await.expect("counted");
    assert_eq!(
        (&stats["groups"][0]["count"], &stats["groups"][0]["stage"]),
        (&1.into(), &"bulker".into())
    );
    let at = letter["at"].as_str().expect("a place").to_owned();
    let shown = bench
        .pipeline
        .millctl(&["dlq", "show", &at])
        .await
        .expect("shown");
    assert_eq!(shown["value"]["output"]["event"]["properties"]["n"], "one");

    let nowhere = millctl(&["dlq", "list", "--at", "2-999999"])
        .await
        .expect("listed");
    assert_eq!(nowhere["total"], 0);
    let here = bench
        .pipeline
        .millctl(&["dlq", "list", "--at", &at])
        .await
        .expect("listed");
    assert_eq!(here["letters"][0]["at"], at.as_str());
    let named = ["dlq", "stats", "--workspace", &bench.pipeline.name];
    let of_workspace = bench.pipeline.millctl(&named).await.expect("counted");
    assert_eq!(of_workspace["total"], 1, "a workspace has a name and an id");

    let left = millctl(&["dlq", "replay"]).await.expect("judged");
    assert_eq!(
        (&left["replayed"], &left["left"]["pointless"]),
        (&0.into(), &1.into())
    );
    let dry = millctl(&["dlq", "replay", "--force", "--dry-run"])
        .await
        .expect("judged");
    assert_eq!(dry["replayed"], 1);
    let trail = millctl(&["dlq", "replays"]).await.expect("shown");
    assert_eq!(
        trail["replays"],
        serde_json::json!([]),
        "a dry run leaves no trail"
    );
    // Once the column takes it, there is a point without force.
    let wider = format!(
        "ALTER TABLE {} MODIFY COLUMN n Nullable(String)",
        bench.pipeline.table
    );
    bench.pipeline.execute(&wider).await.expect("altered");
    let replay = [
        "dlq",
        "replay",
        "--code",
        "column_conflict",
        "--by",
        "ada",
        "--rate",
        "10",
    ];
    let sent = bench.pipeline.millctl(&replay).await.expect("sent");
    assert_eq!(sent["replayed"], 1, "{sent}");
    let trail = millctl(&["dlq", "replays"]).await.expect("shown");
    let run = &trail["replays"][0];
    assert_eq!(
        (&run["by"], &run["letters"], &run["forced"]),
        (&"ada".into(), &1.into(), &false.into())
    );
    assert_eq!(
        (&run["filter"]["code"], &run["replay"]),
        (&"column_conflict".into(), &sent["replay"])
    );
    let named = "SELECT id, attempt, code, `by` FROM";
    let named = bench
        .pipeline
        .query(&format!("{named} {}_system.replays", bench.pipeline.name))
        .await
        .expect("kept");
    let wanted = serde_json::json!([{"id": id(0, 1).to_string(), "attempt": 1, "code": "column_conflict", "by": "ada"}]);
    assert_eq!(Value::from(named), wanted);
    let connection = Connection::new(bench.pipeline.kafka(), "test");
    let copies = reader::gather(&connection, &bench.pipeline.topic("retry-1s"))
        .await
        .expect("read");
    let copies: Vec<_> = copies.into_values().flatten().collect();
    assert_eq!(copies.len(), 1, "the dry run sent none");
    let retry = Retry::read(&copies[0].value).expect("an envelope");
    assert_eq!(
        (retry.stage, retry.attempt, retry.sub),
        (Stage::Bulker, 1, Some(0))
    );
    assert_eq!(
        copies[0].headers.text(header::ID),
        Some(id(0, 1).to_string().as_str())
    );
}

#[tokio::test]
async fn the_bulker_itself_counts_rows_that_its_tables_doubled_or_lost() {
    let quick = |name, text: &str| (name, text.to_owned());
    let settings = vec![
        quick("MILLRACE__AUDIT__EVERY", "200ms"),
        quick("MILLRACE__CHUNK__TIME", "20ms"),
    ];
    let bench = Bench::start(settings).await;
    let table = &bench.pipeline.table;
    bench.send(0, bench.events(0, 0, 1)).await;
    bench
        .pipeline
        .rows(1, PATIENCE)
        .await
        .expect("the partition is the bulker's");
    // Somebody copies a row to where number 5 will be, and makes a table whose engine merges rows away.
    let lossy = format!("{table}_lossy");
    for sql in [
        format!("INSERT INTO {table} SELECT * REPLACE (5 AS _seq) FROM {table} WHERE n = 0"),
        format!(
            "CREATE TABLE {lossy} ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(received_at) ORDER BY event \
             SETTINGS non_replicated_deduplication_window = 10000 AS SELECT * FROM {table} WHERE false"
        ),
    ] {
        bench.pipeline.execute(&sql).await.expect("done by hand");
    }
    let event = r#"{"type":"track","event":"Tested"}"#;
    let into_lossy = |seq| bench.write(id(0, seq), 0, Verdict::Forward, (&lossy, None), &[event]);
    let mut records = bench.events(0, 1, 10);
    records.extend((11..21).map(into_lossy));
    // One record after the hole of 21 to 23.
    records.extend(bench.events(0, 24, 1));
    bench.send(0, records).await;
    let found = |kind: &'static str| {
        bench
            .pipeline
            .metric("bulker", "millrace_bulker_audited_rows_total", kind)
    };
    let audited = until("the audit has seen it", PATIENCE, || async {
        let (duplicated, missing) = (found("duplicated").await?, found("missing").await?);
        Ok((duplicated >= 1.0 && missing >= 1.0).then_some((duplicated, missing)))
    });
    let audited = audited.await;
    assert!(audited.is_ok(), "{audited:?}: {}", bench.pipeline.tails());
    let (duplicated, _) = audited.expect("it is counted");
    assert_eq!(duplicated, 1.0);
    let all = until("every row was looked for", PATIENCE, || async {
        let (right, missing) = (found("right").await?, found("missing").await?);
        Ok((right + missing >= 22.0).then_some(right + missing))
    });
    assert_eq!(all.await.expect("they are"), 22.0, "each row once");
    let holes = "millrace_bulker_hole_numbers";
    let holes = bench.pipeline.counted("bulker", holes, "", 3.0, PATIENCE).await;
    assert_eq!(holes.expect("counted"), 3.0);
}
