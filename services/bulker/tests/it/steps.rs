//! Killed at every named step of a chunk, and what its successor makes of it.

use std::collections::BTreeSet;

use millrace_event::{Verdict, header};
use millrace_kafka::{Connection, reader};
use millrace_testkit::wait::until;

use super::{Bench, PATIENCE, id};

const ROWS: u64 = 120;

fn settings() -> Vec<(&'static str, String)> {
    [
        ("MILLRACE__CHUNK__ROWS", "50"),
        ("MILLRACE__CHUNK__TIME", "50ms"),
        ("MILLRACE__CONSUMER__SESSION_TIMEOUT", "6s"),
        ("MILLRACE__INSERT__LATEST_ARRIVAL", "1s"),
        ("MILLRACE__INSERT__GIVE_UP_AFTER", "1s"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .to_vec()
}

impl Bench {
    /// Starts the bulker anew with a step at which it dies.
    pub(super) async fn dies_at(&mut self, step: &str) {
        let bulker = self.pipeline.process("bulker");
        if bulker.id().is_some() {
            bulker.terminate(PATIENCE).await.expect("it ends");
        }
        bulker.arm(Some(&format!("{step}=1*return(kill)")));
        bulker.start_again().expect("started");
        bulker.arm(None);
    }

    /// Waits until it died there.
    pub(super) async fn died_at(&mut self, step: &str) {
        let bulker = self.pipeline.process("bulker");
        bulker.killed(PATIENCE).await.expect("it comes to the step");
        assert!(bulker.hits(step) > 0, "{}", bulker.tail());
    }

    /// Kills it at each step in turn, each time over rows of its own; the last successor runs on.
    async fn is_killed_at(&mut self, steps: &[&str]) {
        for (round, step) in (0..).zip(steps) {
            self.dies_at(step).await;
            for partition in 0..3 {
                let events = self.events(partition, round * ROWS, ROWS);
                self.send(partition, events).await;
            }
            self.died_at(step).await;
        }
        self.pipeline.process("bulker").start_again().expect("started");
        let rounds = u64::try_from(steps.len()).expect("few");
        self.pipeline
            .rows(3 * rounds * ROWS, 2 * PATIENCE)
            .await
            .expect("all arrive");
        assert_eq!(self.not_once(3, rounds * ROWS).await, [0_u8; 0]);
    }
}

#[tokio::test]
async fn killed_before_and_after_its_plan_the_table_holds_each_identity_once() {
    let mut bench = Bench::start(settings()).await;
    bench
        .is_killed_at(&[
            "bulker::before_plan",
            "bulker::after_plan",
            "bulker::after_outcomes",
        ])
        .await;
}

#[tokio::test]
async fn killed_before_during_and_after_the_insert_the_table_holds_each_identity_once() {
    let mut bench = Bench::start(settings()).await;
    bench
        .is_killed_at(&[
            "bulker::before_insert",
            "bulker::insert_checked",
            "bulker::after_insert",
        ])
        .await;
}

#[tokio::test]
async fn killed_before_and_after_its_commit_the_table_holds_each_identity_once() {
    let mut bench = Bench::start(settings()).await;
    bench
        .is_killed_at(&["bulker::before_commit", "bulker::after_commit"])
        .await;
}

#[tokio::test]
async fn killed_between_naming_a_bad_row_and_its_dead_letter_the_row_stays_out_though_the_table_is_mended_meanwhile()
 {
    let mut bench = Bench::start(settings()).await;
    let event = |x: &str| format!(r#"{{"type":"track","event":"Tested","properties":{{"x":{x}}}}}"#);
    bench.send(0, vec![bench.forward(id(0, 0), &[&event("1")])]).await;
    bench
        .pipeline
        .rows(1, PATIENCE)
        .await
        .expect("the column x is a number now");
    bench.dies_at("bulker::after_naming").await;
    let mut records = bench.events(0, 1, 10);
    records.insert(5, bench.forward(id(0, 11), &[&event("\"one\"")]));
    records.push(bench.record(id(0, 12), 0, Verdict::Drop, &[]));
    bench.send(0, records).await;
    bench.died_at("bulker::after_naming").await;
    let table = bench.pipeline.table.clone();
    for sql in [
        format!("ALTER TABLE {table} DROP COLUMN x"),
        format!("ALTER TABLE {table} ADD COLUMN x String"),
    ] {
        bench.pipeline.execute(&sql).await.expect("mended");
    }
    for step in ["bulker::before_copies", "bulker::after_copies"] {
        bench.dies_at(step).await;
        bench.died_at(step).await;
    }
    bench.pipeline.process("bulker").start_again().expect("started");
    bench.send(0, bench.events(0, 13, 10)).await;
    bench
        .pipeline
        .rows(21, 2 * PATIENCE)
        .await
        .expect("the others arrive");

    let sql = format!("SELECT count() AS n, countIf(_seq = 11) AS bad, uniqExact(_seq) AS u FROM {table}");
    let held = &bench.pipeline.query(&sql).await.expect("answered")[0];
    let number = |field: &str| held[field].to_string().replace('"', "");
    assert_eq!(
        (number("n"), number("u"), number("bad")),
        ("21".into(), "21".into(), "0".into())
    );
    // The one that died after its copies wrote it, and so did its successor: a letter says whose it is.
    let connection = Connection::new(bench.pipeline.kafka(), "test");
    let letters = reader::gather(&connection, &bench.pipeline.topic("dlq"))
        .await
        .expect("read");
    let ids: BTreeSet<_> = letters
        .values()
        .flatten()
        .filter_map(|letter| letter.headers.text(header::ID))
        .collect();
    assert_eq!(ids, BTreeSet::from([id(0, 11).to_string().as_str()]));
    let outcomes = format!(
        "SELECT count() AS n FROM {}_system.outcomes WHERE verdict = 'drop'",
        bench.pipeline.name
    );
    let drops = bench.pipeline.query(&outcomes).await.expect("answered");
    assert_ne!(
        drops[0]["n"].to_string().replace('"', ""),
        "0",
        "the drop is accounted for"
    );
}

#[tokio::test]
async fn killed_after_the_insert_with_every_token_forgotten_meanwhile_the_table_is_asked_and_holds_each_identity_once()
 {
    let mut bench = died_with_its_rows_written(50).await;
    forget_every_token(&bench).await;
    bench.pipeline.process("bulker").start_again().expect("started");
    bench.send(0, bench.events(0, 50, 50)).await;
    bench.pipeline.rows(100, 2 * PATIENCE).await.expect("all arrive");
    assert_eq!(bench.not_once(1, 100).await, [0_u8; 0]);
    let found = bench
        .pipeline
        .counted("bulker", "millrace_bulker_rows_found_total", "", 50.0, PATIENCE)
        .await;
    assert_eq!(found.expect("counted"), 50.0, "it was the question that told");
}

/// A bulker that died after its insert of `rows` events of partition 0, which are in their table and not settled.
pub(crate) async fn died_with_its_rows_written(rows: u64) -> Bench {
    let mut settings = settings();
    settings.retain(|(name, _)| !name.starts_with("MILLRACE__CHUNK__"));
    // By their number alone, so that all of them are one chunk on any machine.
    settings.push(("MILLRACE__CHUNK__ROWS", rows.to_string()));
    settings.push(("MILLRACE__CHUNK__TIME", "60s".into()));
    let mut bench = Bench::start(settings).await;
    bench.dies_at("bulker::after_insert").await;
    bench.send(0, bench.events(0, 0, rows)).await;
    loop {
        bench.died_at("bulker::after_insert").await;
        match bench.pipeline.count().await.expect("answered") {
            // On a busy machine an insert may not have been sent, or not be answered and carried out yet.
            held if held < rows => bench.dies_at("bulker::after_insert").await,
            held => {
                assert_eq!(held, rows);
                return bench;
            }
        }
    }
}

/// The same rows in a table that never saw a token.
pub(crate) async fn forget_every_token(bench: &Bench) {
    let table = &bench.pipeline.table;
    for sql in [
        format!("CREATE TABLE {table}_copy AS {table}"),
        format!("INSERT INTO {table}_copy SELECT * FROM {table}"),
        format!("RENAME TABLE {table} TO {table}_before, {table}_copy TO {table}"),
    ] {
        bench.pipeline.execute(&sql).await.expect("done by hand");
    }
}

#[tokio::test]
async fn applied_before_a_crash_and_given_up_at_the_recovery_a_row_that_comes_back_is_asked_for_and_not_written_again()
 {
    let mut bench = Bench::start(settings()).await;
    bench.dies_at("bulker::after_insert").await;
    bench.send(0, bench.events(0, 0, 5)).await;
    bench.died_at("bulker::after_insert").await;
    let table = bench.pipeline.table.clone();
    for sql in [
        format!("RENAME TABLE {table} TO {table}_away"),
        format!("CREATE TABLE {table} (x UInt8) ENGINE = Memory"),
    ] {
        bench.pipeline.execute(&sql).await.expect("broken by hand");
    }
    bench.pipeline.process("bulker").start_again().expect("started");
    bench
        .pipeline
        .counted(
            "bulker",
            "millrace_bulker_rows_handed_over_total",
            "",
            5.0,
            2 * PATIENCE,
        )
        .await
        .expect("given up");
    for sql in [
        format!("DROP TABLE {table}"),
        format!("RENAME TABLE {table}_away TO {table}"),
    ] {
        bench.pipeline.execute(&sql).await.expect("mended by hand");
    }
    // The table is left alone for a while yet: until then its rows go round once more.
    let attempt = std::cell::Cell::new(0);
    let event = |seq| {
        format!(r#"{{"type":"track","event":"Tested","anonymousId":"a{seq}","properties":{{"n":{seq}}}}}"#)
    };
    let asked = until("the rows are found", 2 * PATIENCE, || async {
        attempt.set(attempt.get() + 1);
        let back = (0..5).map(|seq| bench.came_back(id(0, seq), attempt.get(), (&table, 0), &event(seq)));
        bench.send(0, back.collect()).await;
        let found = bench
            .pipeline
            .metric("bulker", "millrace_bulker_rows_found_total", "");
        Ok((found.await? >= 5.0).then_some(()))
    });
    asked.await.expect("asked for");
    assert_eq!(bench.not_once(1, 5).await, [0_u8; 0]);
}
