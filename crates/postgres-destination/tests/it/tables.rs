use millrace_postgres_destination::{Error, Unfit};
use millrace_warehouse::TableName;

use super::{Bench, Outcome, destination, token};

#[tokio::test]
async fn a_table_that_could_hold_a_row_twice_or_lose_one_is_refused_with_its_reason() {
    let bench = Bench::start().await;
    bench.schema().await;
    let refused = async || match bench.destination.check_table(&bench.table).await {
        Err(Error::UnfitTable { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    bench.execute("ALTER TABLE millrace.events SET UNLOGGED").await;
    assert_eq!(refused().await, Unfit::Unlogged);
    bench
        .execute("ALTER TABLE millrace.events SET LOGGED, ALTER _seq TYPE integer")
        .await;
    assert!(matches!(refused().await, Unfit::Column { name, .. } if name == "_seq"));
    bench.execute("ALTER TABLE millrace.events ALTER _seq TYPE bigint; ALTER TABLE millrace.events RENAME extra TO rest").await;
    assert!(matches!(refused().await, Unfit::Column { name, .. } if name == "extra"));
    bench.execute(
        "DO $$ DECLARE c text; BEGIN SELECT conname INTO c FROM pg_constraint WHERE conrelid = 'millrace.events'::regclass \
         AND contype = 'u'; EXECUTE format('ALTER TABLE millrace.events DROP CONSTRAINT %I', c); END $$; \
         CREATE UNIQUE INDEX ON millrace.events (_journal, _partition, _seq, _sub) WHERE type <> ''",
    )
    .await;
    assert_eq!(refused().await, Unfit::Index, "a partial index is none");
    bench
        .execute("DROP TABLE millrace.events; CREATE VIEW millrace.events AS SELECT 1 AS _seq")
        .await;
    assert_eq!(refused().await, Unfit::Kind);

    let long: TableName = format!("postgres-dst_test.{}", "t".repeat(64))
        .parse()
        .expect("a name");
    let error = bench
        .destination
        .create_table(&long)
        .await
        .expect_err("it would be cut");
    assert!(
        matches!(
            error,
            Error::UnfitTable {
                reason: Unfit::Name,
                ..
            }
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn two_who_make_a_table_and_its_columns_at_once_agree_on_them() {
    let bench = Bench::start().await;
    let others: Vec<_> = (0..4).map(|_| destination(&bench.database)).collect();
    let made = others.iter().map(|one| one.create_table(&bench.table));
    for schema in futures_util::future::join_all(made).await {
        schema.expect("a table");
    }
    let event = |x: &str| format!(r#"{{"type":"track","properties":{{"x":{x},"y":{x}}}}}"#);
    let (number, text) = (
        bench.encode(&[(0, event("1"))]).await,
        bench.encode(&[(1, event("\"one\""))]).await,
    );
    assert_eq!(number.refused, []);
    let (index, error) = &text.refused[0];
    assert_eq!((*index, error.field.as_str()), (0, "x"), "the stored type wins");
    assert_eq!(
        error.to_string(),
        "field \"x\": a string does not fit the column's type double precision"
    );
}

#[tokio::test]
async fn a_column_whose_type_was_changed_by_hand_is_read_again() {
    let bench = Bench::start().await;
    let event = |x: &str| format!(r#"{{"type":"track","properties":{{"x":{x}}}}}"#);
    let before = bench.encode(&[(0, event("1"))]).await;
    bench
        .execute("ALTER TABLE millrace.events ALTER x TYPE text")
        .await;
    let outcome = bench
        .insert(&bench.destination, &before.blocks[0], &token(1))
        .await;
    // Eight bytes are text too, mostly: whether they are taken for it is for the server to say, so NUL is in them.
    assert!(
        matches!(&outcome, Outcome::Ambiguous(error) if error.may_be_a_row()),
        "{outcome:?}"
    );
    let after = bench.encode(&[(0, event("\"one\""))]).await;
    assert_eq!(after.refused, []);
}
