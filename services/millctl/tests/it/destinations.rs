use serde_json::json;

use crate::installation::{Installation, field};

/// What the server says of the engine of a table.
async fn engine(installation: &Installation, database: &str, table: &str) -> String {
    let query = installation
        .warehouse()
        .client()
        .query("SELECT engine_full FROM system.tables WHERE database = ? AND name = ?")
        .bind(database)
        .bind(table)
        .fetch_one::<String>();
    query.await.expect("a table")
}

#[tokio::test]
async fn settings_are_shown_tried_and_set_and_the_table_follows() {
    let (installation, made) = Installation::with_workspace().await;
    let (name, database) = (installation.name.clone(), field(&made, "database"));
    let set = |more: &[&str]| {
        let arguments = [&["destination", "set", "--workspace", name.as_str()], more].concat();
        installation.json(&arguments)
    };
    let tried = set(&["ttl_days=90", "columns=100", "--dry-run"]);
    assert_eq!(tried["before"], json!({}));
    assert_eq!(tried["after"], json!({"ttl_days": 90, "columns": 100}));
    let statement = tried["statements"][0].as_str().expect("a statement");
    assert!(
        statement.contains("MODIFY TTL toDateTime(received_at) + INTERVAL 90 DAY"),
        "{statement}"
    );
    assert!(
        !engine(&installation, database, "events").await.contains("TTL"),
        "it was only tried"
    );
    let show = ["destination", "show", "--workspace", name.as_str()];
    assert_eq!(installation.json(&show)["settings"], json!({}));

    set(&["ttl_days=90", "columns=100", "codec_text=ZSTD(3)"]);
    assert!(
        engine(&installation, database, "events")
            .await
            .contains("toIntervalDay(90)")
    );
    let shown = installation.json(&show);
    assert_eq!(
        (
            shown["settings"].clone(),
            shown["version"].clone(),
            shown["pending"].clone()
        ),
        (
            json!({"ttl_days": 90, "columns": 100, "codec_text": "ZSTD(3)"}),
            json!(2),
            json!([])
        )
    );
    set(&["ttl_days=never", "columns=default", "codec_text=default"]);
    assert!(!engine(&installation, database, "events").await.contains("TTL"));
    let listed = installation.text(&["destination", "list", "--workspace", &name]);
    assert!(
        listed.contains("ttl_days=never") && !listed.contains("columns"),
        "{listed}"
    );
    installation.clean().await;
}

#[tokio::test]
async fn a_setting_that_cannot_be_is_refused_with_what_would_be_right() {
    let (installation, _) = Installation::with_workspace().await;
    let name = installation.name.clone();
    for (change, said) in [
        (
            "ttl=90",
            "`ttl` is no setting of a clickhouse destination; these are: `ttl_days`",
        ),
        (
            "ttl_days=0",
            "`ttl_days` is a number of days from 1 to 65535, or `never`, not 0",
        ),
        ("layout=shared", "`layout` is decided when a destination is made"),
    ] {
        let (code, told) = installation.failure(&["destination", "set", "--workspace", &name, change]);
        assert!(
            code == Some(1) && told.matches(said).count() == 1,
            "{change}: {code:?} {told}"
        );
    }
    installation.clean().await;
}

#[tokio::test]
async fn workspaces_that_share_a_table_see_their_own_rows_and_columns_of_it_cannot_be_moved_by_one() {
    let installation = Installation::migrated().await;
    let names = ["one", "two"].map(|which| format!("{}{which}", installation.name));
    for name in &names {
        installation.json(&[
            "workspace",
            "create",
            "--organization",
            "acme",
            name,
            "--set",
            "layout=shared",
        ]);
    }
    for (name, events) in names.iter().zip(["300", "700"]) {
        installation.json(&["generate", "--workspace", name, "--events", events]);
    }
    let count = async |name: &str| {
        let sql = format!("SELECT count() FROM `ws_{}`.events", name.to_lowercase());
        let counted = installation
            .warehouse()
            .client()
            .query(&sql)
            .fetch_one::<u64>()
            .await;
        counted.expect("a view")
    };
    let (one, two) = (count(&names[0]).await, count(&names[1]).await);
    assert!(
        (300..400).contains(&one) && (700..800).contains(&two),
        "{one} {two}"
    );
    let sql = format!(
        "SELECT count() FROM `{}_millrace_shared`.events",
        installation.name
    );
    let all = installation
        .warehouse()
        .client()
        .query(&sql)
        .fetch_one::<u64>()
        .await;
    assert_eq!(all.expect("a table"), one + two);
    let retype = ["fields", "retype", "--workspace", &names[0], "revenue", "string"];
    let (_, told) = installation.failure(&retype);
    assert!(told.contains("shared table"), "{told}");
    for database in [
        format!("ws_{}", names[0]),
        format!("ws_{}", names[1]),
        format!("{}_millrace_shared", installation.name),
    ] {
        let sql = format!("DROP DATABASE IF EXISTS `{database}` SYNC");
        let dropped = installation.warehouse().client().query(&sql).execute().await;
        dropped.expect("dropped");
    }
    installation.clean().await;
}

#[tokio::test]
async fn a_field_moves_to_another_type_with_its_column() {
    let (installation, made) = Installation::with_workspace().await;
    let (name, database) = (installation.name.clone(), field(&made, "database"));
    installation.json(&["generate", "--workspace", &name, "--events", "2000"]);
    let retype = [
        "fields",
        "retype",
        "--workspace",
        name.as_str(),
        "revenue",
        "string",
    ];
    let tried = installation.json(&[&retype[..], &["--dry-run"]].concat());
    assert_eq!(tried["columns"][0]["kept"], "_revenue_number");
    assert_eq!(
        tried["columns"][0]["statements"].as_array().map(Vec::len),
        Some(8)
    );
    let one = async |what: &str| {
        let sql = format!("SELECT assumeNotNull({what}) FROM `{database}`.events");
        let answer = installation
            .warehouse()
            .client()
            .query(&sql)
            .fetch_one::<String>()
            .await;
        answer.expect("a row")
    };
    assert_eq!(
        one("any(toTypeName(revenue))").await,
        "Nullable(Float64)",
        "it was only tried"
    );
    let sum = one("toString(sum(revenue))").await;
    let moved = installation.json(&retype);
    assert_eq!(moved["columns"][0]["table"], format!("{database}.events"));
    assert_eq!(one("any(toTypeName(revenue))").await, "String");
    assert_eq!(one("toString(sum(toFloat64OrZero(revenue)))").await, sum);
    assert_eq!(one("toString(sum(_revenue_number))").await, sum);
    let (_, told) = installation.failure(&["fields", "retype", "--workspace", &name, "nothing", "string"]);
    assert!(told.contains("no field `nothing`"), "{told}");
    installation.clean().await;
}
