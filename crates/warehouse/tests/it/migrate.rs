use millrace_warehouse::Error;
use millrace_warehouse::layout::DEDUPLICATION_WINDOW;

use crate::place::Place;

#[tokio::test]
async fn migrations_go_up_and_down_and_up_again() {
    let place = Place::empty();
    let (warehouse, database) = (&place.warehouse, &place.database);
    let applied = async || {
        let status = warehouse.migration_status(database).await.expect("a status");
        status
            .into_iter()
            .map(|migration| migration.applied)
            .collect::<Vec<_>>()
    };
    assert_eq!(applied().await, [false; 3]);
    assert_eq!(
        warehouse
            .migrate_down(database)
            .await
            .expect("nothing to take back"),
        None
    );
    for _ in 0..2 {
        let done = warehouse.migrate_up(database).await.expect("up");
        assert_eq!(done.len(), 3);
        assert_eq!(warehouse.migrate_up(database).await.expect("nothing to do"), []);
        assert_eq!(applied().await, [true; 3]);
        let tables = format!("SELECT name FROM system.tables WHERE database = '{database}' ORDER BY name");
        let (ledger, accounts) = (
            ["journals", "outcomes"],
            [
                "function_logs",
                "usage_events",
                "usage_hourly",
                "usage_hourly_view",
            ],
        );
        let mut all = [&["migrations", "replays"][..], &ledger, &accounts].concat();
        all.sort_unstable();
        assert_eq!(place.rows(&tables).await, all);
        all.retain(|name| *name != "replays");
        let left = [
            all,
            vec!["journals", "migrations", "outcomes"],
            vec!["migrations"],
        ];
        for (version, left) in [3, 2, 1].into_iter().zip(left) {
            let down = warehouse
                .migrate_down(database)
                .await
                .expect("down")
                .expect("one");
            assert_eq!((down.version, down.applied), (version, false));
            assert_eq!(place.rows(&tables).await, left);
        }
    }
}

#[tokio::test]
async fn requests_are_counted_by_the_hour_and_every_table_takes_a_token() {
    let place = Place::new().await;
    place.warehouse.migrate_up(&place.database).await.expect("up");
    let usage = place.table("usage_events").quoted();
    let columns = "request_id, organization_id, api_key_id, endpoint, method, status_code, response_time_ms, \
                   timestamp, billable, _seq";
    let insert = format!(
        "INSERT INTO {usage} ({columns}) SETTINGS async_insert = 0, insert_deduplicate = 1, \
         insert_deduplication_token = 'one', deduplicate_blocks_in_dependent_materialized_views = 1 VALUES \
         ('r1', 'org_1', 'wk_1', '/v1/batch', 'POST', 200, 1.5, '2026-11-21 04:10:00.122', true, 1), \
         ('r2', 'org_1', 'wk_1', '/v1/batch', 'POST', 200, 2.5, '2026-11-21 04:59:59.999', true, 2), \
         ('r3', '', '', '/v1/track', 'POST', 503, 9, '2026-11-21 05:00:00.000', false, 3)"
    );
    place.run(&insert).await;
    place.run(&insert).await;
    let hourly = format!(
        "SELECT hour, organization_id, status_code, sum(requests), sum(billable), max(slowest_ms), \
         length(quantilesTDigestMerge(0.5, 0.95, 0.99)(response_time_ms)) FROM {} GROUP BY ALL ORDER BY hour",
        place.table("usage_hourly").quoted()
    );
    assert_eq!(
        place.rows(&hourly).await,
        [
            "2026-11-21 04:00:00\torg_1\t200\t2\t2\t2.5\t3",
            "2026-11-21 05:00:00\t\t503\t1\t0\t9\t3",
        ]
    );
    for table in [
        "usage_events",
        "usage_hourly",
        "function_logs",
        "outcomes",
        "journals",
    ] {
        let table = place.table(table);
        let checked = place.warehouse.check_window(&table, DEDUPLICATION_WINDOW);
        checked.await.expect("a window");
    }
}

#[tokio::test]
async fn an_interrupted_migration_is_run_again() {
    let place = Place::new().await;
    // The first statement was done when the process died, and nothing was recorded.
    place.warehouse.migrate_up(&place.database).await.expect("up");
    place
        .run(&format!("DROP TABLE {}", place.table("journals").quoted()))
        .await;
    place
        .run(&format!("TRUNCATE TABLE {}", place.table("migrations").quoted()))
        .await;
    assert_eq!(
        place
            .warehouse
            .migrate_up(&place.database)
            .await
            .expect("up")
            .len(),
        3
    );
    let exists = format!("EXISTS TABLE {}", place.table("journals").quoted());
    assert_eq!(place.rows(&exists).await, ["1"]);
}

#[tokio::test]
async fn a_database_of_another_build_is_left_alone() {
    let place = Place::new().await;
    place.warehouse.migrate_up(&place.database).await.expect("up");
    let records = place.table("migrations").quoted();
    place
        .run(&format!(
            "INSERT INTO {records} (version, name, applied, checksum) VALUES (99, 'later', true, 1)"
        ))
        .await;
    let refused = place.warehouse.migrate_up(&place.database).await;
    assert!(
        matches!(refused, Err(Error::UnknownMigration { version: 99 })),
        "{refused:?}"
    );
    let refused = place.warehouse.migrate_down(&place.database).await;
    assert!(
        matches!(refused, Err(Error::UnknownMigration { version: 99 })),
        "{refused:?}"
    );

    place
        .run(&format!(
            "INSERT INTO {records} (version, name, applied, checksum) VALUES (99, 'later', false, 1)"
        ))
        .await;
    place
        .run(&format!(
            "INSERT INTO {records} (version, name, applied, checksum) VALUES (1, 'ledger', true, 1)"
        ))
        .await;
    let refused = place.warehouse.migrate_up(&place.database).await;
    assert!(
        matches!(refused, Err(Error::ChangedMigration { version: 1 })),
        "{refused:?}"
    );
}
