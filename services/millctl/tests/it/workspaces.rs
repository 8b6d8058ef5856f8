use millrace_event::KeyKind;
use millrace_store::keys::Presented;
use millrace_store::{Chains, Keys, Tokens};
use millrace_warehouse::layout::DEDUPLICATION_WINDOW;
use millrace_warehouse::{Database, TableName};

use serde_json::{Value, json};

use crate::installation::{Installation, field};

#[tokio::test]
async fn a_workspace_comes_with_its_table_and_is_made_once() {
    let (installation, made) = Installation::with_workspace().await;
    let database: Database = field(&made, "database").parse().expect("a database");
    assert_eq!(database.as_str(), format!("ws_{}", installation.name));
    let table = TableName::new(database, field(&made, "table")).expect("a table");
    installation
        .warehouse()
        .check_table(&table, DEDUPLICATION_WINDOW)
        .await
        .expect("a table fit for events");

    let again = installation.create_workspace();
    assert_eq!(
        (made["created"].clone(), again["created"].clone()),
        (true.into(), false.into())
    );
    for name in ["workspace", "source", "destination", "database", "table"] {
        assert_eq!(made[name], again[name], "{name}");
    }
    let snapshot = Chains::new(installation.postgres())
        .snapshot()
        .await
        .expect("a snapshot");
    assert_eq!(
        snapshot.of(field(&made, "source"))[0].destination.id.as_str(),
        field(&made, "destination")
    );
    assert!(
        installation
            .text(&["workspace", "list"])
            .contains(field(&made, "workspace"))
    );
    installation.clean().await;
}

#[tokio::test]
async fn a_table_that_was_lost_is_made_again() {
    let (installation, made) = Installation::with_workspace().await;
    let (database, table) = (field(&made, "database"), field(&made, "table"));
    let warehouse = installation.warehouse();
    warehouse
        .client()
        .query(&format!("DROP TABLE {database}.{table} SYNC"))
        .execute()
        .await
        .expect("dropped");
    installation.create_workspace();
    let name = TableName::new(database.parse().expect("a database"), table).expect("a table");
    warehouse
        .check_table(&name, DEDUPLICATION_WINDOW)
        .await
        .expect("a table fit for events");
    installation.clean().await;
}

#[tokio::test]
async fn keys_of_every_kind_open_and_stop_opening_when_revoked() {
    let (installation, made) = Installation::with_workspace().await;
    let keys = Keys::new(installation.postgres());
    let workspace = installation.name.as_str();
    for (kind, more) in [
        ("server", &[][..]),
        ("import", &[]),
        ("browser", &["--origin", "http://localhost"]),
    ] {
        // A workspace is found by its name and by its id.
        let by = if kind == "import" {
            field(&made, "workspace")
        } else {
            workspace
        };
        let arguments = [&["key", "create", "--workspace", by, "--kind", kind], more].concat();
        let shown = installation.json(&arguments);
        let presented = Presented::parse(field(&shown, "key")).expect("the form of a key");
        assert_eq!(presented.id.as_str(), field(&shown, "id"));
        let found = keys.find(&presented.id).await.expect("an answer").expect("a key");
        assert_eq!(
            (found.kind.as_str(), found.source.as_str()),
            (kind, field(&made, "source"))
        );
        assert_eq!(found.origins.len(), usize::from(found.kind == KeyKind::Browser));
        found.admit(presented.secret.as_ref()).expect("it opens");

        installation.json(&["key", "revoke", field(&shown, "id")]);
        assert!(keys.find(&presented.id).await.expect("an answer").is_none());
    }
    let listed = installation.json(&["key", "list", "--workspace", workspace]);
    assert_eq!(listed["keys"].as_array().expect("a list").len(), 3);
    installation.clean().await;
}

#[tokio::test]
async fn a_token_opens_until_it_is_revoked() {
    let installation = Installation::migrated().await;
    let tokens = Tokens::new(installation.postgres());
    let shown = installation.json(&["token", "create", "--name", "ci"]);
    let found = tokens
        .verify(field(&shown, "token"))
        .await
        .expect("an answer")
        .expect("a token");
    assert_eq!(found.id.as_str(), field(&shown, "id"));
    installation.json(&["token", "revoke", field(&shown, "id")]);
    assert_eq!(
        tokens.verify(field(&shown, "token")).await.expect("an answer"),
        None
    );
    installation.clean().await;
}

#[tokio::test]
async fn the_limits_of_a_workspace_are_set_one_by_one_and_given_back_to_its_tier() {
    let (installation, made) = Installation::with_workspace().await;
    let name = installation.name.as_str();
    let set = |arguments: &[&str]| {
        let set = installation.json(&[&["workspace", "set", name], arguments].concat());
        assert_eq!(set["workspace"], made["workspace"]);
        (set["before"].clone(), set["after"].clone())
    };
    let state = |tier: &str, limits: Value| json!({ "tier": tier, "limits": limits });
    let none = || json!({});
    let tried = set(&["--tier", "pro", "--burst", "9", "--dry-run"]);
    let wanted = state("pro", json!({ "burst": 9 }));
    assert_eq!(tried, (state("default", none()), wanted.clone()), "a dry run");
    assert_eq!(
        set(&["--tier", "pro", "--burst", "9"]),
        (state("default", none()), wanted.clone())
    );
    // A limit that a newer version knows.
    let client = installation.database.client().await.expect("a connection");
    client
        .execute("UPDATE workspaces SET limits = limits || '{\"bytes\": 7}'", &[])
        .await
        .expect("updated");
    let both = state("pro", json!({ "events_per_day": 70, "burst": 9 }));
    assert_eq!(set(&["--events-per-day", "70"]), (wanted, both));
    assert_eq!(
        set(&["--burst", "tier", "--events-per-day", "tier"]).1,
        state("pro", none())
    );
    let row = client
        .query_one("SELECT limits::text FROM workspaces", &[])
        .await
        .expect("one workspace");
    assert_eq!(
        row.get::<_, String>(0),
        "{\"bytes\": 7}",
        "what is not known stays"
    );
    let listed = installation.text(&["workspace", "list"]);
    assert!(
        listed.contains("500 events/s, 2500 in 5 s, 10000000 a day"),
        "{listed}"
    );
    for (arguments, expected) in [
        (&["--burst", "0"][..], "a number of events from 1"),
        (&[][..], "required"),
        (&["--tier", "gold"][..], "enterprise"),
    ] {
        let (_, said) = installation.failure(&[&["workspace", "set", name], arguments].concat());
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    let (_, said) = installation.failure(&["workspace", "set", "nobody", "--tier", "pro"]);
    assert!(said.contains("nobody"), "{said}");
    installation.clean().await;
}
