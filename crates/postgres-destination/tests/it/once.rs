use millrace_postgres_destination::{Error, Outcome};
use millrace_testkit::wait::until;

use super::{Bench, JOURNAL, PARTITION, destination, token};

#[tokio::test]
async fn a_block_that_is_sent_again_is_known_by_its_token_and_written_once() {
    let bench = Bench::start().await;
    let blocks = bench.blocks(0..100).await;
    for _ in 0..3 {
        let outcome = bench.insert(&bench.destination, &blocks[0], &token(1)).await;
        assert!(matches!(outcome, Outcome::Applied), "{outcome:?}");
    }
    assert_eq!(bench.count().await, 100);
}

#[tokio::test]
async fn without_its_token_a_block_is_refused_as_a_whole_and_the_question_names_what_is_there() {
    let bench = Bench::start().await;
    let first = bench.blocks(0..60).await;
    let outcome = bench.insert(&bench.destination, &first[0], &token(1)).await;
    assert!(matches!(outcome, Outcome::Applied), "{outcome:?}");
    bench.execute("DELETE FROM millrace_ledger.blocks").await;

    let second = bench.blocks(40..100).await;
    let outcome = bench.insert(&bench.destination, &second[0], &token(2)).await;
    let Outcome::Ambiguous(error) = outcome else {
        panic!("{outcome:?}");
    };
    assert!(error.is_a_known_row() && !error.may_be_a_row(), "{error:?}");
    assert_eq!(bench.count().await, 60, "nothing of the second came in");

    let seqs: Vec<u64> = (40..100).collect();
    let held = bench
        .destination
        .which(&bench.table, JOURNAL, PARTITION, &seqs)
        .await
        .expect("answered");
    assert_eq!(held, (40..60).map(|seq| (seq, 0)).collect());
    let sum = bench
        .destination
        .sum(&bench.table, JOURNAL, PARTITION, 0..=99)
        .await
        .expect("answered");
    assert_eq!(sum, (60, 60));
}

#[tokio::test]
async fn who_was_overtaken_writes_nothing_more() {
    let bench = Bench::start().await;
    let blocks = bench.blocks(0..10).await;
    let line = bench.destination.line(PARTITION).await.expect("a line");
    drop(line);
    let successor = destination(&bench.database);
    successor.take_over(PARTITION).await.expect("taken over");
    let outcome = bench.insert(&bench.destination, &blocks[0], &token(1)).await;
    assert!(
        matches!(outcome, Outcome::Ambiguous(Error::Fenced(PARTITION))),
        "{outcome:?}"
    );
    assert_eq!(bench.count().await, 0);
    let outcome = bench.insert(&successor, &blocks[0], &token(1)).await;
    assert!(matches!(outcome, Outcome::Applied), "{outcome:?}");
    assert_eq!(bench.count().await, 10);
}

#[tokio::test]
async fn a_takeover_is_answered_only_after_what_its_predecessor_began_is_over() {
    let bench = Bench::start().await;
    bench.destination.take_over(PARTITION).await.expect("taken over");
    // A predecessor within its transaction, which holds the partition's lock.
    let mut predecessor = bench.database.client().await.expect("connected");
    let transaction = predecessor.transaction().await.expect("begun");
    let lock = "SELECT epoch FROM millrace_ledger.owners FOR UPDATE";
    transaction.query_one(lock, &[]).await.expect("locked");
    let successor = destination(&bench.database);
    let taking = tokio::spawn(async move { successor.take_over(PARTITION).await });
    let client = bench.database.client().await.expect("connected");
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    until(
        "the successor waits",
        std::time::Duration::from_secs(60),
        || async {
            let row = client.query_one(waiting, &[]).await?;
            Ok((row.get::<_, i64>(0) > 0).then_some(()))
        },
    )
    .await
    .expect("it comes to the lock");
    assert!(!taking.is_finished());
    transaction.commit().await.expect("committed");
    taking.await.expect("no panic").expect("taken over");
}

#[tokio::test]
async fn a_rehearsal_says_what_the_table_would_and_leaves_nothing() {
    let bench = Bench::start().await;
    bench.blocks(0..1).await;
    bench
        .execute("ALTER TABLE millrace.events ADD CONSTRAINT no_thirteens CHECK (n <> 13)")
        .await;
    for (seqs, refused) in [(0..10, false), (10..20, true)] {
        let blocks = bench.blocks(seqs).await;
        let line = bench.destination.line(PARTITION).await.expect("a line");
        let insert = millrace_postgres_destination::Insert {
            table: &bench.table,
            block: &blocks[0],
            token: &token(1),
            partition: PARTITION,
            first_offset: 0,
            deadline: std::time::Duration::from_secs(60),
            rehearsal: true,
        };
        match bench.destination.insert_over(line, insert).await {
            Outcome::Applied => assert!(!refused),
            Outcome::Ambiguous(error) => {
                assert!(refused && error.may_be_a_row(), "{error:?}");
                assert!(error.said().expect("a message").contains("no_thirteens"));
            }
            other @ Outcome::Definite(_) => panic!("{other:?}"),
        }
    }
    assert_eq!(bench.count().await, 0);
    let blocks = bench.blocks(0..10).await;
    let outcome = bench.insert(&bench.destination, &blocks[0], &token(1)).await;
    assert!(
        matches!(outcome, Outcome::Applied),
        "the rehearsal kept no token: {outcome:?}"
    );
    assert_eq!(bench.count().await, 10);
}
