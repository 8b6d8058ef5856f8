//! Negative controls: with a protection switched off, what it guards against happens. So the tests that find nothing
//! wrong would find it.

use super::steps::{died_with_its_rows_written, forget_every_token};
use super::{Bench, PATIENCE};

#[tokio::test]
async fn without_the_question_a_recovered_plan_whose_tokens_are_forgotten_is_written_twice() {
    let mut bench = died_with_its_rows_written(50).await;
    forget_every_token(&bench).await;
    let bulker = bench.pipeline.process("bulker");
    bulker.arm(Some("control::question=return(error)"));
    bulker.start_again().expect("started");
    bulker.arm(None);
    bench.send(0, bench.events(0, 50, 50)).await;
    bench
        .pipeline
        .rows(150, 2 * PATIENCE)
        .await
        .expect("all arrive, and some again");
    let wrong = bench.not_once(1, 100).await;
    assert_eq!(wrong.len(), 50, "every row of the plan");
    assert!(wrong.iter().all(|row| {
        row["s"]
            .to_string()
            .replace('"', "")
            .parse::<u64>()
            .is_ok_and(|s| s < 50)
    }));
}

#[tokio::test]
async fn without_the_token_a_block_that_goes_out_again_for_its_view_is_in_its_table_twice() {
    let mut bench = Bench::start(vec![("MILLRACE__CHUNK__TIME", "50ms".into())]).await;
    bench.send(0, bench.events(0, 0, 10)).await;
    bench.pipeline.rows(10, PATIENCE).await.expect("they arrive");
    let table = bench.pipeline.table.clone();
    for sql in [
        format!(
            "CREATE TABLE {table}_target (n Float64) ENGINE = MergeTree ORDER BY n \
             SETTINGS non_replicated_deduplication_window = 10000"
        ),
        format!(
            "CREATE MATERIALIZED VIEW {table}_view TO {table}_target AS SELECT n + throwIf(n >= 0) AS n FROM {table}"
        ),
    ] {
        bench.pipeline.execute(&sql).await.expect("made by hand");
    }
    let bulker = bench.pipeline.process("bulker");
    bulker.terminate(PATIENCE).await.expect("it ends");
    bulker.arm(Some("control::token=return(error)"));
    bulker.start_again().expect("started");
    bulker.arm(None);
    bench.send(0, bench.events(0, 10, 10)).await;
    bench
        .pipeline
        .rows(30, PATIENCE)
        .await
        .expect("ten of them twice");
    assert_eq!(bench.not_once(1, 20).await.len(), 10);
}
