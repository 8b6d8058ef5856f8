//! One table's failure is not the others': read-only, a view that throws, rows that only the server refuses.

use millrace_event::{Verdict, header};
use millrace_testkit::pipeline::Options;
use millrace_testkit::wait::until;

use super::{Bench, PATIENCE, id};

const TABLES: u64 = 20;
const READ_ONLY: u64 = 3;
const THROWING: u64 = 7;

fn settings() -> Vec<(&'static str, String)> {
    vec![("MILLRACE__CHUNK__TIME", "50ms".into())]
}

/// A round of events, one for each table and partition; the tables take turns in a partition's log.
async fn round(bench: &Bench, round: u64) {
    for partition in 0..3 {
        let records = (0..TABLES).map(|n| {
            let event = format!(r#"{{"type":"track","event":"Tested","properties":{{"n":{n}}}}}"#);
            let id = id(partition, round * TABLES + n);
            bench.write(id, 0, Verdict::Forward, (&table(bench, n), None), &[&event])
        });
        bench.send(partition, records.collect()).await;
    }
}

fn table(bench: &Bench, n: u64) -> String {
    format!("{}_{n}", bench.pipeline.table)
}

/// How many rows, and how many different ones, each table holds.
async fn held(bench: &Bench) -> anyhow::Result<Vec<(u64, u64)>> {
    let (database, prefix) = bench.pipeline.table.split_once('.').expect("two names");
    let sql = format!(
        "SELECT _table AS t, toUInt32(count()) AS n, toUInt32(uniqExact(_partition, _seq)) AS u \
         FROM merge('{database}', '^{prefix}_[0-9]+$') GROUP BY t"
    );
    let rows = bench.pipeline.query(&sql).await?;
    let of = |n: u64| {
        let name = format!("{prefix}_{n}");
        let row = rows.iter().find(|row| row["t"] == name);
        row.map_or((0, 0), |row| {
            (row["n"].as_u64().unwrap_or(0), row["u"].as_u64().unwrap_or(0))
        })
    };
    Ok((0..TABLES).map(of).collect())
}

async fn until_held(bench: &Bench, what: &str, wanted: impl Fn(u64) -> u64) {
    let last = std::cell::RefCell::new(Vec::new());
    let complete = until(what, PATIENCE, || async {
        let held = held(bench).await?;
        let all = (0..).zip(&held).all(|(n, (rows, _))| *rows >= wanted(n));
        *last.borrow_mut() = held;
        Ok(all.then_some(()))
    });
    // What is missing shows below.
    complete.await.ok();
    let last = last.into_inner();
    let wanted: Vec<_> = (0..TABLES).map(|n| (wanted(n), wanted(n))).collect();
    assert_eq!(
        last,
        wanted,
        "{what}: rows and different rows by table\n{}",
        bench.pipeline.tails()
    );
}

#[tokio::test]
async fn eighteen_workspaces_go_on_beside_a_read_only_one_and_one_whose_view_throws_and_those_get_their_rows_once_when_mended()
 {
    let bench = Bench::with(Options {
        services: Some(vec!["rotor", "bulker"]),
        settings: [("bulker", settings())].into(),
        ..Options::default()
    })
    .await;
    round(&bench, 0).await;
    until_held(&bench, "before anything breaks", |_| 3).await;
    let read_only = table(&bench, READ_ONLY);
    let throwing = table(&bench, THROWING);
    let view = format!("{throwing}_view");
    for sql in [
        format!("ALTER TABLE {read_only} MODIFY SETTING table_readonly = 1"),
        format!(
            "CREATE TABLE {view}_target (n Float64) ENGINE = MergeTree ORDER BY n \
             SETTINGS non_replicated_deduplication_window = 10000"
        ),
        format!(
            "CREATE MATERIALIZED VIEW {view} TO {view}_target AS SELECT n + throwIf(n >= 0) AS n FROM {throwing}"
        ),
    ] {
        bench.pipeline.execute(&sql).await.expect("broken");
    }
    for number in 1..=5 {
        round(&bench, number).await;
        // A view that throws leaves its table complete; nobody waits for the one that is read-only.
        let due = (number + 1) * 3;
        until_held(&bench, "while two are broken", |n| {
            if n == READ_ONLY { 3 } else { due }
        })
        .await;
    }
    // Rows can be seen before what became of them is counted, and nobody waited for those of the read-only table.
    for (name, least) in [
        ("millrace_bulker_view_failures_total", 1.0),
        ("millrace_bulker_rows_handed_over_total", 15.0),
    ] {
        let counted = bench.pipeline.counted("bulker", name, "", least, PATIENCE);
        counted.await.expect("counted");
    }
    let refused = bench
        .pipeline
        .metric("bulker", "millrace_bulker_rows_refused_total", "");
    assert_eq!(
        refused.await.expect("there"),
        0.0,
        "no row was taken for a bad one"
    );

    for sql in [
        format!("ALTER TABLE {read_only} MODIFY SETTING table_readonly = 0"),
        format!("DROP VIEW {view}"),
    ] {
        bench.pipeline.execute(&sql).await.expect("mended");
    }
    until_held(&bench, "after the repair", |_| 18).await;
}

#[tokio::test]
async fn a_row_that_only_the_server_refuses_is_named_and_its_neighbours_arrive() {
    let bench = Bench::start(settings()).await;
    bench.send(0, bench.events(0, 0, 10)).await;
    bench.pipeline.rows(10, PATIENCE).await.expect("they arrive");
    let constraint = format!(
        "ALTER TABLE {} ADD CONSTRAINT no_thirteens CHECK n % 100 != 13",
        bench.pipeline.table
    );
    bench.pipeline.execute(&constraint).await.expect("altered");
    bench.send(0, bench.events(0, 10, 300)).await;
    bench
        .pipeline
        .rows(307, PATIENCE)
        .await
        .expect("the neighbours arrive");
    let letters = super::delivery::dead_letters(&bench, 3).await;
    for (letter, seq) in letters.iter().zip([13, 113, 213]) {
        let headers = &letter.headers;
        assert_eq!(headers.text(header::ID), Some(id(0, seq).to_string().as_str()));
        assert_eq!(headers.text(header::ERROR_CODE), Some("row_rejected"));
        let message = headers.text(header::ERROR_MESSAGE).expect("a message");
        assert!(message.contains("no_thirteens"), "{message}");
    }
    assert_eq!(bench.pipeline.count().await.expect("answered"), 307);
    let clones = format!(
        "SELECT name FROM system.tables WHERE database = '{}_system' AND name LIKE 'clone%'",
        bench.pipeline.name
    );
    let clones = until("the clones are gone", PATIENCE, || async {
        let left = bench.pipeline.query(&clones).await?;
        Ok(left.is_empty().then_some(()))
    });
    clones.await.expect("they go");
    // A chunk is counted once however often it was sorted.
    let rows = bench
        .pipeline
        .counted(
            "bulker",
            "millrace_bulker_records_total",
            "\"row\"",
            310.0,
            PATIENCE,
        )
        .await;
    assert_eq!(rows.expect("they are counted"), 310.0);
}

#[tokio::test]
async fn more_rows_than_a_plan_can_name_that_only_the_server_refuses_go_round_once_and_are_sorted_out_then() {
    // All of them are one chunk on any machine.
    let settings = [("MILLRACE__CHUNK__ROWS", "140"), ("MILLRACE__CHUNK__TIME", "3s")];
    let settings = settings.map(|(name, value)| (name, value.to_owned())).to_vec();
    let bench = Bench::with(Options {
        services: Some(vec!["rotor", "bulker"]),
        settings: [("bulker", settings)].into(),
        ..Options::default()
    })
    .await;
    bench.send(0, bench.events(0, 0, 10)).await;
    bench.pipeline.rows(10, PATIENCE).await.expect("they arrive");
    let constraint = format!(
        "ALTER TABLE {} ADD CONSTRAINT no_odd_ones CHECK n < 10 OR n % 2 = 0",
        bench.pipeline.table
    );
    bench.pipeline.execute(&constraint).await.expect("altered");
    bench.send(0, bench.events(0, 10, 140)).await;
    // Each of them is found by halving, and the pace of inserts is bounded.
    bench
        .pipeline
        .rows(80, 4 * PATIENCE)
        .await
        .expect("the others arrive");
    let letters = super::delivery::dead_letters(&bench, 70).await;
    let codes: std::collections::BTreeSet<_> = letters
        .iter()
        .map(|letter| letter.headers.text(header::ERROR_CODE))
        .collect();
    assert_eq!(codes, [Some("row_rejected")].into());
    let round = "millrace_bulker_rows_handed_over_total";
    let round = bench.pipeline.counted("bulker", round, "", 140.0, PATIENCE);
    round.await.expect("they went round");
    let sql = format!(
        "SELECT toUInt32(count()) AS held, toUInt32(uniqExact(_seq)) AS different, toUInt32(countIf(_seq >= 10 AND \
         _seq % 2 = 1)) AS refused FROM {}",
        bench.pipeline.table
    );
    let held = &bench.pipeline.query(&sql).await.expect("answered")[0];
    assert_eq!(
        (&held["held"], &held["different"], &held["refused"]),
        (&80.into(), &80.into(), &0.into())
    );
}
