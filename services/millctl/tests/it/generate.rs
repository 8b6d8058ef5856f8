use serde_json::Value;

use crate::installation::{Installation, field};

/// Rows, different rows, and people of the workspace's table.
async fn counted(installation: &Installation, made: &Value) -> (u64, u64, u64) {
    let sql = format!(
        "SELECT count() AS rows, uniqExact(_seq) AS different, uniqExact(anonymous_id) AS people FROM {}.{}",
        field(made, "database"),
        field(made, "table")
    );
    let warehouse = installation.warehouse();
    warehouse
        .client()
        .query(&sql)
        .fetch_one()
        .await
        .expect("answered")
}

#[tokio::test]
async fn a_generated_shop_is_there_once_however_often_it_is_generated() {
    let (installation, made) = Installation::with_workspace().await;
    let name = installation.name.clone();
    let generate = [
        "generate",
        "--workspace",
        &name,
        "--events",
        "3000",
        "--days",
        "40",
        "--from",
        "2026-09-20T00:00:00Z",
    ];
    let dry = installation.json(&[generate.as_slice(), &["--dry-run"]].concat());
    assert_eq!((&dry["dry_run"], &dry["events"]), (&true.into(), &Value::Null));
    assert_eq!(counted(&installation, &made).await.0, 0);
    let answer = installation.json(&generate);
    let events = answer["events"].as_u64().expect("a number");
    assert!((3000..3010).contains(&events), "{answer}");
    let (rows, different, people) = counted(&installation, &made).await;
    assert_eq!((rows, different), (events, events));
    assert!(people > 500, "{people} people");
    assert_eq!(installation.json(&generate)["events"], events);
    assert_eq!(
        counted(&installation, &made).await,
        (rows, different, people),
        "nothing twice"
    );
    // Another seed is another shop, beside it.
    let other = installation.json(&[generate.as_slice(), &["--seed", "2"]].concat());
    let others = other["events"].as_u64().expect("a number");
    assert_eq!(counted(&installation, &made).await.0, rows + others);
    installation.clean().await;
}
