use std::time::Duration;

use millrace_store::destinations::{Directory, Kind, Known, NewDestination, Settings};
use millrace_store::postgres::{self, Postgres};
use millrace_store::{Destinations, Error, Locks};
use millrace_testkit::proxy::Proxy;
use serde_json::{Value, json};

use crate::{migrated, name, workspace};

const PATIENCE: Duration = Duration::from_secs(30);

fn settings(object: &Value) -> Settings {
    Settings::read(Kind::ClickHouse, object.as_object().expect("an object")).expect("settings")
}

fn changes(setting: &str, value: Value) -> Vec<(String, Value)> {
    vec![(setting.to_owned(), value)]
}

#[tokio::test]
async fn settings_change_with_their_version_and_a_try_changes_nothing() {
    let (_database, postgres) = migrated().await;
    let demo = workspace(&postgres, "demo").await.workspace.id;
    let destinations = Destinations::new(postgres.clone());
    for handle in [postgres.trying(), postgres] {
        let changes = changes("ttl_days", json!(90));
        let changed = Destinations::new(handle).set(&demo, "default", &changes).await;
        let (before, after) = changed.expect("changed");
        assert_eq!(before.settings.to_json(), json!({}));
        assert_eq!(after.settings.to_json(), json!({"ttl_days": 90}));
        assert_eq!(
            (
                before.destination.config_version,
                after.destination.config_version
            ),
            (1, 2)
        );
    }
    for (setting, value, said) in [
        ("ttl_days", json!(0), "`ttl_days` is a number of days"),
        ("nothing", json!(1), "`nothing` is no setting"),
        ("layout", json!("shared"), "`ttl_days` is of a table of one's own"),
    ] {
        let refused = destinations.set(&demo, "default", &changes(setting, value)).await;
        let refused = refused.expect_err("refused");
        assert!(
            matches!(refused, Error::Setting(_)) && refused.to_string().contains(said),
            "{refused}"
        );
    }
    destinations
        .set(&demo, "default", &changes("ttl_days", Value::Null))
        .await
        .expect("unset");
    let refused = destinations
        .set(&demo, "default", &changes("layout", json!("shared")))
        .await;
    let refused = refused.expect_err("refused").to_string();
    assert!(
        refused.contains("decided when a destination is made"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_second_destination_gets_a_chain_from_each_source_and_only_one_of_a_workspace_is_shared() {
    let (_database, postgres) = migrated().await;
    let made = workspace(&postgres, "demo").await;
    let destinations = Destinations::new(postgres.clone());
    let new = |called: &str, table: &str, object: Value| NewDestination {
        name: name(called),
        database: "ws_demo".to_owned(),
        table: table.to_owned(),
        settings: settings(&object),
    };
    let shared = new("shared", "small", json!({"layout": "shared"}));
    for created in [true, false] {
        let (one, was) = destinations
            .create(&made.workspace.id, &shared)
            .await
            .expect("made");
        assert_eq!(
            (one.settings.to_json(), was),
            (json!({"layout": "shared"}), created)
        );
    }
    let snapshot = millrace_store::Chains::new(postgres)
        .snapshot()
        .await
        .expect("a snapshot");
    assert_eq!(snapshot.of(made.source.id.as_str()).len(), 2);
    let again = new("again", "other", json!({"layout": "shared"}));
    assert!(destinations.create(&made.workspace.id, &again).await.is_err());
    let taken = new("taken", "small", json!({}));
    assert!(matches!(
        destinations.create(&made.workspace.id, &taken).await,
        Err(Error::Taken { .. })
    ));
}

#[tokio::test]
async fn what_is_known_goes_on_while_postgres_is_away_and_what_is_not_known_is_not_called_absent() {
    let (database, own) = migrated().await;
    let made = workspace(&own, "demo").await;
    let (proxy, url) = Proxy::through(database.url(), 5432).await.expect("a proxy");
    let mut config = postgres::Config::new(url);
    config.call_timeout = PATIENCE;
    let directory = Directory::new(Postgres::new(&config).expect("a pool"));
    let id = made.destination.id.as_str();
    assert_eq!(directory.known(id), None, "nothing was read yet");
    assert!(matches!(
        directory.find(id).await.expect("answered"),
        Known::Destination(_)
    ));
    assert_eq!(
        directory.find("dst_nobody").await.expect("answered"),
        Known::Absent
    );

    proxy.set_up(false);
    proxy.cut();
    assert!(directory.refresh().await.is_err());
    let Some(Known::Destination(known)) = directory.known(id) else {
        panic!("what was known is known")
    };
    assert_eq!(known.settings.to_json(), json!({}));
    assert_eq!(directory.known("dst_nobody"), Some(Known::Absent));
    assert!(
        directory.find("dst_new").await.is_err(),
        "nobody can say that it is not there"
    );

    proxy.set_up(true);
    Destinations::new(own)
        .set(&made.workspace.id, "default", &changes("columns", json!(7)))
        .await
        .expect("changed");
    assert_eq!(directory.find("dst_new").await.expect("answered"), Known::Absent);
    let Some(Known::Destination(known)) = directory.known(id) else {
        panic!("it is known")
    };
    assert_eq!(known.settings.to_json(), json!({"columns": 7}), "read with it");
    let owner = directory.owner("ws_demo", "events").expect("an owner");
    assert_eq!(owner.destination.id, made.destination.id);
}

#[tokio::test]
async fn settings_that_a_newer_release_wrote_do_not_replace_those_that_are_known() {
    let (database, postgres) = migrated().await;
    let made = workspace(&postgres, "demo").await;
    let neighbour = workspace(&postgres, "neighbour").await;
    let directory = Directory::new(postgres.clone());
    directory.refresh().await.expect("read");
    let client = database.client().await.expect("a client");
    let newer = "UPDATE destinations SET settings = '{\"of_tomorrow\": 1}' WHERE id = $1";
    client
        .execute(newer, &[&made.destination.id.as_str()])
        .await
        .expect("set");
    directory.refresh().await.expect("read");
    let id = made.destination.id.as_str();
    assert!(
        matches!(directory.known(id), Some(Known::Destination(_))),
        "as it was"
    );
    let fresh = Directory::new(postgres);
    let found = fresh.find(id).await.expect("answered");
    assert!(
        matches!(&found, Known::Unreadable(error) if error.to_string().contains("`of_tomorrow` is no setting")),
        "{found:?}"
    );
    let found = fresh
        .find(neighbour.destination.id.as_str())
        .await
        .expect("answered");
    assert!(matches!(found, Known::Destination(_)), "others are not held up");
    let large = format!(
        "UPDATE destinations SET settings = '{{\"x\": \"{}\"}}'",
        "x".repeat(5000)
    );
    assert!(client.execute(&large, &[]).await.is_err(), "settings are bounded");
}

#[tokio::test]
async fn a_lock_is_one_ones_at_a_time_and_waited_for_no_longer_than_said() {
    let (_database, postgres) = migrated().await;
    let locks = Locks::new(postgres);
    let brief = Duration::from_millis(50);
    let held = locks
        .take("table a", PATIENCE)
        .await
        .expect("answered")
        .expect("free");
    assert!(
        locks.take("table a", brief).await.expect("answered").is_none(),
        "somebody has it"
    );
    assert!(
        locks.take("table b", brief).await.expect("answered").is_some(),
        "another one is free"
    );
    drop(held);
    // The server notices the end of the connection a moment later.
    let again = locks
        .take("table a", Duration::from_secs(4))
        .await
        .expect("answered");
    assert!(again.is_some(), "it was let go");
}
