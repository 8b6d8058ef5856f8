//! What the loop may hold and how often it may insert, whatever comes.

use millrace_testkit::pipeline::Options;
use millrace_testkit::wait::until;

use super::{Bench, PATIENCE, id};

const MIB: usize = 1 << 20;

#[tokio::test]
async fn large_events_of_many_partitions_stay_within_the_memory_budget_and_all_arrive() {
    const PARTITIONS: u32 = 8;
    const EACH: u64 = 24;
    const EVENT: usize = 400 << 10;
    const BUDGET: usize = 12 * MIB;
    let bench = Bench::with(Options {
        services: Some(vec!["bulker"]),
        partitions: Some(PARTITIONS),
        settings: [(
            "bulker",
            vec![
                ("MILLRACE__MEMORY__RECORDS", "12MiB".into()),
                ("MILLRACE__CONSUMER__PREFETCH_KIB", "4096".into()),
                // Long chunks: without the budget everything would be held at once.
                ("MILLRACE__CHUNK__TIME", "3s".into()),
            ],
        )]
        .into(),
        ..Options::default()
    })
    .await;
    let event = format!(
        r#"{{"type":"track","event":"Large","properties":{{"text":"{}"}}}}"#,
        "x".repeat(EVENT)
    );
    for partition in 0..PARTITIONS {
        let records = (0..EACH).map(|seq| bench.forward(id(partition, seq), &[&event]));
        bench.send(partition, records.collect()).await;
    }
    let all = u64::from(PARTITIONS) * EACH;
    bench.pipeline.rows(all, PATIENCE * 2).await.expect("all arrive");
    assert_eq!(bench.not_once(PARTITIONS, EACH).await, [0_u8; 0]);

    let most = until("what was held is told", PATIENCE, || async {
        let metric = "millrace_bulker_held_bytes_most";
        let most = bench.pipeline.metric("bulker", metric, "").await?;
        let held = bench
            .pipeline
            .metric("bulker", "millrace_bulker_held_bytes", "")
            .await?;
        Ok(Some(most).filter(|most| *most > 0.0 && held == 0.0))
    });
    let most = most.await.expect("it is told, and nothing is held any more");
    // One record of each partition may be over the bound.
    let bound = BUDGET + (EVENT + 4096) * PARTITIONS as usize;
    #[expect(clippy::cast_precision_loss, reason = "the numbers are small")]
    let (bound, budget) = (bound as f64, BUDGET as f64);
    assert!(most <= bound, "{most} bytes were held, {bound} may be");
    assert!(
        most > budget / 2.0,
        "the budget was used, or this shows nothing: {most}"
    );
}

#[tokio::test]
async fn with_more_active_tables_than_inserts_a_second_chunks_take_longer_and_every_row_arrives_once() {
    const TABLES: u64 = 40;
    const ROUNDS: u64 = 8;
    let bench = Bench::with(Options {
        services: Some(vec!["bulker"]),
        settings: [(
            "bulker",
            vec![
                ("MILLRACE__INSERT__PER_SECOND", "20".into()),
                ("MILLRACE__CHUNK__TIME", "50ms".into()),
            ],
        )]
        .into(),
        ..Options::default()
    })
    .await;
    let table = |n: u64| format!("{}_{n}", bench.pipeline.table);
    let event = r#"{"type":"track","event":"Tested","properties":{"n":1}}"#;
    for round in 0..ROUNDS {
        let records = (0..TABLES).map(|n| {
            let id = id(0, round * TABLES + n);
            bench.write(
                id,
                0,
                millrace_event::Verdict::Forward,
                (&table(n), None),
                &[event],
            )
        });
        bench.send(0, records.collect()).await;
    }
    let database = bench.pipeline.table.split('.').next().expect("a database");
    let sql = format!(
        "SELECT toUInt32(count()) AS n, toUInt32(uniqExact(_seq)) AS u, toUInt32(uniqExact(_table)) AS t \
         FROM merge('{database}', '^{}_[0-9]+$')",
        bench.pipeline.table.split('.').nth(1).expect("a table")
    );
    let held = until("all rows", PATIENCE * 2, || async {
        let rows = bench.pipeline.query(&sql).await.ok();
        Ok(rows.filter(|rows| rows[0]["n"] == TABLES * ROUNDS))
    });
    let held = held.await.expect("they arrive");
    assert_eq!(
        (&held[0]["u"], &held[0]["t"]),
        (&(TABLES * ROUNDS).into(), &TABLES.into())
    );
    // Without the budget each of the rounds could have been a chunk of its own. What waited shares its inserts.
    let inserts = bench
        .pipeline
        .metric("bulker", "millrace_bulker_inserts_total", "applied")
        .await
        .expect("there");
    #[expect(clippy::cast_precision_loss, reason = "the numbers are small")]
    let (fewest, most) = (TABLES as f64, (TABLES * ROUNDS) as f64);
    assert!(inserts >= fewest && inserts <= most * 0.75, "{inserts} inserts");
}
