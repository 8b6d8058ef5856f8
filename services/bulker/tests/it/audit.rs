//! What `millctl` says of what the bulker has done: the audit, and dead letters.

use millrace_event::envelope::{Envelope as _, Retry, Stage};
use millrace_event::{Verdict, header};
use millrace_kafka::{Connection, reader};
use millrace_testkit::wait::until;
use serde_json::Value;

use super::{Bench, PATIENCE, id};

/// The audit once nothing is under way: its exit status and its answer.
async fn audit(bench: &Bench) -> (Option<i32>, Value) {
    let group = bench.pipeline.group("bulker");
    let settled = until("everything is settled", PATIENCE, || async {
        let (status, answer) = bench
            .pipeline
            .millctl_ended(&["audit", "--group", &group])
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

    let left = millctl(&["dlq", "replay"]).await.expect("judged");
    assert_eq!(
        (&left["replayed"], &left["left"]["pointless"]),
        (&0.into(), &1.into())
    );
    let dry = millctl(&["dlq", "replay", "--force", "--dry-run"])
        .await
        .expect("judged");
    assert_eq!(dry["replayed"], 1);
    let sent = millctl(&["dlq", "replay", "--force"]).await.expect("sent");
    assert_eq!(sent["replayed"], 1);
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
