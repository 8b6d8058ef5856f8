//! What destinations ask of their tables, while events go on.

use millrace_kafka::Outgoing;
use millrace_store::destinations::{Kind, NewDestination, Settings};
use millrace_store::postgres::Config;
use millrace_store::{Destinations, Postgres, WorkspaceId};
use millrace_testkit::pipeline::Options;
use millrace_testkit::postgres::Server;
use millrace_testkit::wait::until;
use serde_json::{Value, json};

use super::{Bench, PATIENCE, id};

/// The same record for a destination that is there.
fn to(destination: &str, mut record: Outgoing) -> Outgoing {
    let text = String::from_utf8(record.value).expect("text");
    record.value = text.replace("dst_test", destination).into_bytes();
    record
}

async fn default_destination(bench: &Bench) -> String {
    let shown = bench
        .pipeline
        .millctl(&["destination", "show", "--workspace", &bench.pipeline.name])
        .await;
    shown.expect("shown")["destination"]
        .as_str()
        .expect("an id")
        .to_owned()
}

fn destinations(bench: &Bench) -> (Destinations, WorkspaceId) {
    let postgres = Postgres::new(&Config::new(bench.pipeline.postgres())).expect("a pool");
    (
        Destinations::new(postgres),
        bench.pipeline.workspace.parse().expect("an id"),
    )
}

async fn one(bench: &Bench, sql: &str) -> Value {
    let rows = bench.pipeline.query(sql).await.expect("answered");
    rows.into_iter().next().expect("a row")
}

#[tokio::test]
async fn a_table_follows_its_destination_without_a_restart_and_its_cap_of_columns_holds() {
    let bench = Bench::start(vec![("MILLRACE__DESTINATIONS__POLL", "100ms".into())]).await;
    let destination = default_destination(&bench).await;
    let send = async |seq: u64, event: &str| {
        let record = to(&destination, bench.forward(id(0, seq), &[event]));
        bench.send(0, vec![record]).await;
    };
    send(0, r#"{"type":"track","properties":{"a":1}}"#).await;
    bench.pipeline.rows(1, PATIENCE).await.expect("written");
    let (store, workspace) = destinations(&bench);
    let changes = [
        ("ttl_days".to_owned(), json!(90)),
        ("columns".to_owned(), json!(1)),
    ];
    store.set(&workspace, "default", &changes).await.expect("set");
    let (database, _) = bench.pipeline.table.split_once('.').expect("a name");
    let sql = format!(
        "SELECT position(engine_full, 'toIntervalDay(90)') > 0 AS follows FROM system.tables \
         WHERE database = '{database}' AND name = 'events'"
    );
    // It follows with the rows that come: nothing wakes it for a table that nobody writes to.
    let mut seq = 1;
    while one(&bench, &sql).await["follows"] != 1 {
        send(seq, r#"{"type":"track","properties":{"a":1}}"#).await;
        seq += 1;
        bench.pipeline.rows(seq, PATIENCE).await.expect("written");
    }
    send(seq, r#"{"type":"track","properties":{"a":1,"b":2}}"#).await;
    bench.pipeline.rows(seq + 1, PATIENCE).await.expect("written");
    let sql = format!("SELECT extra FROM {} WHERE _seq = {seq}", bench.pipeline.table);
    assert_eq!(
        one(&bench, &sql).await["extra"],
        r#"{"b":2}"#,
        "one column more than it may have"
    );
}

#[tokio::test]
async fn workspaces_share_a_table_in_one_insert_and_each_sees_its_rows_once_though_the_bulker_is_killed() {
    let mut bench = Bench::start(vec![("MILLRACE__INSERT__LATEST_ARRIVAL", "3s".into())]).await;
    let (store, workspace) = destinations(&bench);
    let name = bench.pipeline.name.clone();
    let new = NewDestination {
        name: "shared".parse().expect("a name"),
        database: format!("{name}_a"),
        table: "events".to_owned(),
        settings: Settings::read(
            Kind::ClickHouse,
            json!({"layout": "shared"}).as_object().expect("an object"),
        )
        .expect("settings"),
    };
    let (mine, _) = store.create(&workspace, &new).await.expect("made");
    let other = format!("{name}-b");
    let made = bench
        .pipeline
        .millctl(&[
            "workspace",
            "create",
            &other,
            "--organization",
            &name,
            "--set",
            "layout=shared",
        ])
        .await
        .expect("made");
    let text = |field: &str| made[field].as_str().expect("text").to_owned();
    let sides = [
        (
            mine.destination.id.to_string(),
            bench.pipeline.workspace.clone(),
            format!("{name}_a.events"),
        ),
        (
            text("destination"),
            text("workspace"),
            format!("{}.events", text("database")),
        ),
    ];
    let own = bench.pipeline.workspace.clone();
    let own_table = bench.pipeline.table.clone();
    let records = |seqs: std::ops::Range<u64>| -> Vec<Outgoing> {
        seqs.map(|seq| {
            let (destination, workspace, table) = if seq % 3 == 0 { &sides[0] } else { &sides[1] };
            let event = format!(
                r#"{{"type":"track","event":"Shared","properties":{{"n{}":{seq}}}}}"#,
                seq % 3
            );
            let record = to(destination, bench.forward(id(1, seq), &[&event]));
            let text = String::from_utf8(record.value).expect("text");
            let text = text.replace(&own_table, table).replace(&own, workspace);
            Outgoing {
                value: text.into_bytes(),
                ..record
            }
        })
        .collect()
    };
    let (first, second) = (records(0..300), records(300..600));
    bench.send(1, first).await;
    let shared = format!("{name}_system_shared.events");
    let all = async |bench: &Bench, wanted: u64| {
        let sql = format!("SELECT toUInt32(count()) AS n, toUInt32(uniqExact(_seq)) AS seqs FROM {shared}");
        let all = until("the rows of both", PATIENCE, || async {
            // The table is made with the first rows.
            let held = bench.pipeline.query(&sql).await.unwrap_or_default();
            let held = held.first().cloned().unwrap_or_default();
            Ok((held["seqs"].as_u64() == Some(wanted)).then_some(held))
        });
        let held = all
            .await
            .unwrap_or_else(|error| panic!("{error:#}\n{}", bench.pipeline.tails()));
        assert_eq!(held["n"], held["seqs"], "each once");
    };
    all(&bench, 300).await;
    bench.send(1, second).await;
    bench
        .pipeline
        .kill_and_restart("bulker")
        .await
        .expect("killed and started");
    bench.pipeline.ready("bulker").await.expect("ready");
    all(&bench, 600).await;
    for ((_, _, view), (wanted, columns)) in sides.iter().zip([(200, "n0"), (400, "n1, n2")]) {
        // The columns that the rows brought are in the view, and no row of the other's.
        let sql = format!(
            "SELECT toUInt32(count()) AS n, toUInt32(countIf(_seq % 3 = 0)) AS thirds FROM \
             (SELECT _seq, {columns} FROM {view})"
        );
        let thirds = if wanted == 200 { 200 } else { 0 };
        assert_eq!(
            one(&bench, &sql).await,
            json!({"n": wanted, "thirds": thirds}),
            "{view}"
        );
    }
    for database in [
        format!("{name}_a"),
        text("database"),
        format!("{name}_system_shared"),
    ] {
        bench
            .pipeline
            .execute(&format!("DROP DATABASE {database} SYNC"))
            .await
            .expect("dropped");
    }
}

#[tokio::test]
async fn postgres_away_stops_nobody_whose_destination_is_known_and_others_wait_without_loss() {
    let mut server = Server::start().await.expect("a Postgres");
    let bench = Bench::with(Options {
        services: Some(vec!["bulker"]),
        settings: [("bulker", vec![("MILLRACE__DESTINATIONS__POLL", "100ms".into())])].into(),
        postgres: Some(server.url()),
        ..Options::default()
    })
    .await;
    let destination = default_destination(&bench).await;
    let send = async |partition: u32, seq: u64, destination: &str| {
        let event = r#"{"type":"track","event":"Away"}"#;
        let record = to(destination, bench.forward(id(partition, seq), &[event]));
        bench.send(partition, vec![record]).await;
    };
    send(0, 0, &destination).await;
    bench.pipeline.rows(1, PATIENCE).await.expect("written");
    server.kill().await.expect("killed");
    // A destination that nobody knows: its partition waits, and the other one does not.
    send(1, 0, "dst_new").await;
    send(0, 1, &destination).await;
    bench
        .pipeline
        .rows(2, PATIENCE)
        .await
        .expect("written while Postgres is away");
    server.start_again().await.expect("started");
    bench
        .pipeline
        .rows(3, PATIENCE)
        .await
        .expect("written when it can be known");
    let sql = format!(
        "SELECT toUInt32(uniqExact(_partition, _seq)) AS n FROM {}",
        bench.pipeline.table
    );
    assert_eq!(one(&bench, &sql).await["n"], 3);
}
