use std::collections::BTreeSet;

use millrace_store::Error;
use millrace_store::postgres::{Config, Postgres, migrate};
use millrace_testkit::postgres::Database;

use crate::migrated;

/// Everything that the schema consists of, by kind and name.
async fn objects(database: &Database) -> BTreeSet<(String, String)> {
    let query = "
        SELECT 'relation ' || relkind::text, relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
        UNION SELECT 'function', proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION SELECT 'trigger', tgrelid::regclass || '.' || tgname FROM pg_trigger WHERE NOT tgisinternal";
    let client = database.client().await.expect("a connection");
    let rows = client.query(query, &[]).await.expect("a query");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test]
async fn the_schema_goes_up_down_to_nothing_and_up_again() {
    let (database, postgres) = migrated().await;
    let first = objects(&database).await;
    assert!(
        first.contains(&("relation r".to_owned(), "write_keys".to_owned())),
        "{first:?}"
    );

    let all = migrate::MIGRATIONS.len();
    let taken_back = migrate::down(&postgres, all).await.expect("down");
    assert_eq!(taken_back.len(), all);
    let left: Vec<_> = objects(&database)
        .await
        .into_iter()
        .map(|(_, name)| name)
        .collect();
    assert_eq!(
        left,
        ["migrations_pkey", "migrations"],
        "only the history itself is left"
    );
    assert!(
        migrate::status(&postgres)
            .await
            .expect("status")
            .iter()
            .all(|line| line.applied_at.is_none())
    );

    assert_eq!(migrate::up(&postgres).await.expect("up").len(), all);
    assert_eq!(objects(&database).await, first);
    assert!(
        migrate::up(&postgres).await.expect("up").is_empty(),
        "nothing is pending any more"
    );
}

#[tokio::test]
async fn every_single_step_can_be_taken_back_and_forth() {
    let (database, postgres) = migrated().await;
    for _ in migrate::MIGRATIONS {
        migrate::down(&postgres, 1).await.expect("down");
        let before = objects(&database).await;
        let next = migrate::up(&postgres).await.expect("up").len();
        migrate::down(&postgres, next).await.expect("down");
        assert_eq!(objects(&database).await, before);
    }
}

#[tokio::test]
async fn runners_that_start_at_once_take_turns() {
    let database = Database::create().await.expect("a database");
    let runners: Vec<_> = (0..4)
        .map(|_| Postgres::new(&Config::new(database.url())).expect("a pool"))
        .collect();
    let (a, b, c, d) = tokio::join!(
        migrate::up(&runners[0]),
        migrate::up(&runners[1]),
        migrate::up(&runners[2]),
        migrate::up(&runners[3])
    );
    let applied: usize = [a, b, c, d]
        .into_iter()
        .map(|result| result.expect("up").len())
        .sum();
    assert_eq!(
        applied,
        migrate::MIGRATIONS.len(),
        "each migration was applied by one of them"
    );
}

#[tokio::test]
async fn a_migration_that_was_edited_after_it_was_applied_is_refused() {
    let (database, postgres) = migrated().await;
    let client = database.client().await.expect("a connection");
    client
        .batch_execute("UPDATE migrations SET checksum = '\\x00' WHERE version = 2")
        .await
        .expect("an update");
    for result in [migrate::up(&postgres).await, migrate::down(&postgres, 1).await] {
        assert!(
            matches!(result, Err(Error::Migration { version: 2, .. })),
            "{result:?}"
        );
    }
}

#[tokio::test]
async fn what_a_newer_program_applied_is_shown_and_not_taken_back() {
    let (database, postgres) = migrated().await;
    let client = database.client().await.expect("a connection");
    let row = "INSERT INTO migrations (version, name, checksum) VALUES (9999, 'tomorrow', '\\x00')";
    client.batch_execute(row).await.expect("an insert");
    let status = migrate::status(&postgres).await.expect("status");
    assert!(
        status.iter().any(|line| line.version == 9999 && !line.known),
        "{status:?}"
    );
    assert!(
        migrate::up(&postgres)
            .await
            .expect("an older program still starts")
            .is_empty()
    );
    let refused = migrate::down(&postgres, 1).await;
    assert!(
        matches!(refused, Err(Error::Migration { version: 9999, .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn the_status_of_an_empty_database_changes_nothing_in_it() {
    let database = Database::create().await.expect("a database");
    let postgres = Postgres::new(&Config::new(database.url())).expect("a pool");
    let status = migrate::status(&postgres).await.expect("status");
    assert_eq!(status.len(), migrate::MIGRATIONS.len());
    assert!(objects(&database).await.is_empty());
}
