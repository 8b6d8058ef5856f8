use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use millrace_warehouse::{Batch, Block, Code, Config, Error, Insert, Limits, Outcome, Schema, TableName};

use crate::place::{DEADLINE, Place, at, raw, row, unhurried};

/// A block that is encoded for a schema, without a look at the table.
fn block(schema: &Arc<Schema>, seqs: std::ops::Range<u64>, event: &str) -> Block {
    let event = raw(event);
    let mut batch =
        Batch::new(Arc::clone(schema), Limits::default(), at("2026-11-21T04:00:02Z")).expect("a fit schema");
    for seq in seqs {
        batch.push(&row(seq, &event)).expect("a row");
    }
    batch
        .finish(schema)
        .expect("the schema it was made for")
        .pop()
        .expect("a block")
}

async fn count(place: &Place, table: &TableName) -> String {
    place
        .rows(&format!("SELECT count() FROM {}", table.quoted()))
        .await
        .concat()
}

fn code(outcome: &Outcome) -> Option<u32> {
    match outcome {
        Outcome::Ambiguous(error) => error.code().map(|Code(code)| code),
        other => panic!("an error that came from the server is ambiguous: {other:?}"),
    }
}

#[tokio::test]
async fn a_block_sent_again_with_its_token_is_there_once() {
    let place = Place::new().await;
    let (table, schema) = place.events().await;
    let rows = block(&schema, 0..10, r#"{"type":"track"}"#);
    for _ in 0..3 {
        assert!(matches!(
            place.insert(&table, &rows, "one").await,
            Outcome::Applied
        ));
    }
    assert_eq!(count(&place, &table).await, "10");
    // Also when the table got a column in between, and when the block is encoded anew.
    place
        .run(&format!("ALTER TABLE {} ADD COLUMN x String", table.quoted()))
        .await;
    let again = block(&schema, 0..10, r#"{"type":"page"}"#);
    assert!(matches!(
        place.insert(&table, &again, "one").await,
        Outcome::Applied
    ));
    assert_eq!(count(&place, &table).await, "10");
    // The token decides, not the rows: so it must name the rows.
    assert!(matches!(
        place.insert(&table, &rows, "other").await,
        Outcome::Applied
    ));
    assert_eq!(count(&place, &table).await, "20");
}

#[tokio::test]
async fn two_inserts_at_once_with_one_token_are_there_once() {
    let place = Place::new().await;
    let (table, schema) = place.events().await;
    let rows = block(&schema, 0..1000, r#"{"type":"track"}"#);
    let (a, b) = tokio::join!(
        place.insert(&table, &rows, "one"),
        place.insert(&table, &rows, "one")
    );
    assert!(
        matches!(a, Outcome::Applied) || matches!(b, Outcome::Applied),
        "{a:?} {b:?}"
    );
    assert_eq!(count(&place, &table).await, "1000");
}

#[tokio::test]
async fn a_view_target_gets_each_block_once_as_well() {
    let place = Place::new().await;
    let (table, schema) = place.events().await;
    let target = place.table("by_type");
    place
        .run(&format!(
            "CREATE TABLE {} (type String, n UInt64) ENGINE = MergeTree ORDER BY type \
             SETTINGS non_replicated_deduplication_window = 10000",
            target.quoted()
        ))
        .await;
    let view = place.table("view").quoted();
    place
        .run(&format!(
            "CREATE MATERIALIZED VIEW {view} TO {} AS SELECT type, count() AS n FROM {} GROUP BY type",
            target.quoted(),
            table.quoted()
        ))
        .await;
    place
        .warehouse
        .check_window(&target, millrace_warehouse::layout::DEDUPLICATION_WINDOW)
        .await
        .expect("fit");
    let rows = block(&schema, 0..10, r#"{"type":"track"}"#);
    for _ in 0..3 {
        assert!(matches!(
            place.insert(&table, &rows, "one").await,
            Outcome::Applied
        ));
    }
    let totals = format!(
        "SELECT (SELECT count() FROM {}), (SELECT sum(n) FROM {})",
        table.quoted(),
        target.quoted()
    );
    assert_eq!(place.rows(&totals).await, ["10\t10"]);
}

#[tokio::test]
async fn a_column_that_the_table_does_not_have_is_refused_and_not_skipped() {
    let place = Place::new().await;
    let (table, _) = place.events().await;
    place
        .run(&format!("ALTER TABLE {} ADD COLUMN gone String", table.quoted()))
        .await;
    let schema = Arc::new(Schema::read(&place.warehouse, &table).await.expect("a schema"));
    place
        .run(&format!("ALTER TABLE {} DROP COLUMN gone", table.quoted()))
        .await;
    let rows = block(&schema, 0..3, r#"{"properties":{"gone":"x"}}"#);
    let outcome = place.insert(&table, &rows, "one").await;
    assert_eq!(code(&outcome), Some(16));
    assert_eq!(outcome.error().map(Error::kind), Some("server_schema"));
    assert_eq!(count(&place, &table).await, "0");
}

#[tokio::test]
async fn a_column_of_another_type_is_refused_and_not_converted() {
    let place = Place::new().await;
    let (table, _) = place.events().await;
    for (kind, event) in [
        ("Float64", r#"{"properties":{"x":1.9}}"#),
        ("String", r#"{"properties":{"x":"17"}}"#),
    ] {
        place
            .run(&format!("ALTER TABLE {} ADD COLUMN x {kind}", table.quoted()))
            .await;
        let schema = Arc::new(Schema::read(&place.warehouse, &table).await.expect("a schema"));
        place
            .run(&format!("ALTER TABLE {} DROP COLUMN x", table.quoted()))
            .await;
        place
            .run(&format!("ALTER TABLE {} ADD COLUMN x Int64", table.quoted()))
            .await;
        let outcome = place.insert(&table, &block(&schema, 0..3, event), kind).await;
        let error = outcome.error().expect("refused");
        assert_eq!(
            (error.kind(), error.retry()),
            ("server_schema", millrace_warehouse::Retry::AfterSchema),
            "{error:?}"
        );
        assert_eq!(count(&place, &table).await, "0");
        place
            .run(&format!("ALTER TABLE {} DROP COLUMN x", table.quoted()))
            .await;
    }
}

#[tokio::test]
async fn only_an_insert_that_never_left_is_known_not_to_be_applied() {
    let place = Place::new().await;
    let (table, schema) = place.events().await;
    let rows = block(&schema, 0..3, "{}");
    // A port that was free a moment ago: nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port");
    let nobody = Config::new(format!("http://{free}")).build();
    let insert = Insert {
        table: &table,
        block: &rows,
        token: "t",
        query_id: "q",
        deadline: DEADLINE,
    };
    let outcome = nobody.insert(insert).await;
    assert!(
        matches!(outcome, Outcome::Definite(Error::Connect(_))),
        "{outcome:?}"
    );

    // Somebody who opens the line, takes the insert and hangs up: the client cannot know.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = place
        .url
        .trim_start_matches("http://")
        .trim_end_matches('/')
        .to_owned();
    let hangs_up = std::thread::spawn(move || {
        let (mut near, _) = listener.accept().expect("a connection");
        let mut far = std::net::TcpStream::connect(server).expect("the server");
        let mut some = [0; 4096];
        let length = near.read(&mut some).expect("the question that opens the line");
        far.write_all(&some[..length]).expect("taken");
        let mut answer = Vec::new();
        while !answer.ends_with(b"0\r\n\r\n") {
            let length = far.read(&mut some).expect("the answer");
            answer.extend_from_slice(&some[..length]);
        }
        near.write_all(&answer).expect("taken");
        near.read(&mut some[..64]).expect("a request")
    });
    let outcome = unhurried(&format!("http://{address}"))
        .build()
        .insert(insert)
        .await;
    assert!(
        matches!(outcome, Outcome::Ambiguous(Error::Network(_))),
        "{outcome:?}"
    );
    assert!(hangs_up.join().expect("no panic") > 0);
}

#[tokio::test]
async fn an_insert_that_outlives_its_client_is_ended_by_kill() {
    let place = Place::new().await;
    let (table, schema) = place.events().await;
    // The view holds every insert up: a second for each of its rows.
    place
        .run(&format!(
            "CREATE MATERIALIZED VIEW {} (n UInt8) ENGINE = MergeTree ORDER BY n \
             SETTINGS non_replicated_deduplication_window = 100 AS \
             SELECT sleepEachRow(1) AS n FROM {} SETTINGS function_sleep_max_microseconds_per_block = 0",
            place.table("slow").quoted(),
            table.quoted()
        ))
        .await;
    let rows = block(&schema, 0..120, "{}");
    let prefix = format!("millrace-{}-3-", place.database);
    let query_id = format!("{prefix}1");
    let deadline = Duration::from_millis(1_500);
    let insert = Insert {
        table: &table,
        block: &rows,
        token: "t",
        query_id: &query_id,
        deadline,
    };
    let outcome = place.warehouse.insert(insert).await;
    assert!(matches!(outcome, Outcome::Ambiguous(_)), "{outcome:?}");

    let running = format!("SELECT count() FROM system.processes WHERE startsWith(query_id, '{prefix}')");
    let killed = place.warehouse.kill(&prefix).await.expect("answered");
    assert!(killed.is_answered(), "{killed:?}");
    assert_eq!(place.rows(&running).await, ["0"]);
    // A second KILL finds nothing, and that is an answer too.
    let killed = place.warehouse.kill(&prefix).await.expect("answered");
    assert_eq!((killed.ended, killed.is_answered()), (0, true));
}

/// The control to the three tests above: what the server does with its own defaults.
#[tokio::test]
async fn without_its_settings_an_insert_would_be_answered_and_corrupted() {
    let place = Place::new().await;
    let (table, _) = place.events().await;
    place
        .run(&format!(
            "ALTER TABLE {} ADD COLUMN x Float64, ADD COLUMN gone String",
            table.quoted()
        ))
        .await;
    let schema = Arc::new(Schema::read(&place.warehouse, &table).await.expect("a schema"));
    let alter = "DROP COLUMN gone, MODIFY COLUMN x Int64";
    place
        .run(&format!("ALTER TABLE {} {alter}", table.quoted()))
        .await;
    let rows = block(&schema, 0..3, r#"{"properties":{"x":1.9,"gone":"x"}}"#);
    for _ in 0..2 {
        let sql = format!("INSERT INTO {} FORMAT Native", table.quoted());
        let mut insert = place.warehouse.client().insert_formatted_with(sql);
        insert = insert
            .with_setting("insert_deduplication_token", "one")
            .with_setting("deduplicate_insert", "disable");
        insert.send(rows.body().into()).await.expect("sent");
        insert.end().await.expect("answered as if nothing had happened");
    }
    let sql = format!("SELECT count(), uniqExact(_seq), any(x) FROM {}", table.quoted());
    assert_eq!(
        place.rows(&sql).await,
        ["6\t3\t1"],
        "twice, without a column, and 1.9 is 1"
    );
}
