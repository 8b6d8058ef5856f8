//! What the stack's server has not: a cluster that it is part of, and users who may read less than everything.

use std::sync::Arc;

use millrace_testkit::clickhouse::ClickHouse;
use millrace_warehouse::error::UnfitReason;
use millrace_warehouse::{Error, Layout, Retry, TableName, share};
use serde_json::json;
use tempfile::TempDir;

use crate::place::{JOURNAL, Place, id, raw, rows_of_two, unhurried};
use crate::settings::{settings, write};

/// A server of the test's own, and a database in it.
async fn place(users: Option<&str>, database: &str) -> (Place, ClickHouse, TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let server = ClickHouse::start_for(directory.path(), users).await;
    let server = server.expect("a ClickHouse");
    let place = Place {
        warehouse: unhurried(&server.url()).build(),
        database: database.parse().expect("a name"),
        url: server.url(),
    };
    (place, server, directory)
}

#[tokio::test]
async fn a_table_or_a_view_that_spreads_rows_over_a_cluster_is_refused() {
    let (place, _server, _directory) = place(None, "ws_demo").await;
    place.run("CREATE DATABASE ws_demo").await;
    let (table, _) = place.events().await;
    let window = Layout::default().deduplication_window;
    let spread = place.table("spread");
    // It is what people make first on a cluster, over the very table that would be right.
    place
        .run("CREATE TABLE ws_demo.spread AS ws_demo.events ENGINE = Distributed(alone, ws_demo, events, rand())")
        .await;
    let made = place.warehouse.create_table(&spread, &Layout::default()).await;
    let checked = place.warehouse.check_table(&spread, window).await;
    for refused in [made, checked] {
        let Err(error @ Error::UnfitTable { reason, .. }) = &refused else {
            panic!("taken: {refused:?}");
        };
        assert_eq!(*reason, UnfitReason::Engine("Distributed".to_owned()));
        assert_eq!(error.retry(), Retry::Permanent, "it does not change by itself");
    }
    place
        .run("CREATE MATERIALIZED VIEW ws_demo.onwards TO ws_demo.spread AS SELECT * FROM ws_demo.events")
        .await;
    let behind = place.warehouse.check_table(&table, window).await;
    let Err(Error::UnfitTable { reason, .. }) = &behind else {
        panic!("taken: {behind:?}");
    };
    assert!(
        matches!(reason, UnfitReason::ViewTarget { target, .. } if target == "ws_demo.spread"),
        "{reason}"
    );
}

/// A user who has what a workspace's role has, and its policies, as a server reads them from its file of users.
///
/// A library's server keeps nothing that is said in SQL about access; the policies and grants are the same.
fn reader(name: &str, statements: &[String]) -> String {
    let role = share::role_of(name);
    let mut filters = String::new();
    let mut grants = String::new();
    for statement in statements {
        let of_role = statement.strip_suffix(&format!(" TO `{role}`"));
        match of_role.and_then(|statement| statement.split_once(" USING ")) {
            Some((_, condition)) => filters.push_str(&format!(
                "<millrace_shared><events><filter>{condition}</filter></events></millrace_shared>"
            )),
            None if statement.starts_with("GRANT ") => {
                let grant = of_role.expect("a grant to the role");
                grants.push_str(&format!("<query>{grant}</query>"));
            }
            None => {}
        }
    }
    format!(
        "<{name}><password/><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota>\
         <databases>{filters}</databases><grants>{grants}</grants></{name}>"
    )
}

#[tokio::test]
async fn whoever_may_read_a_shared_table_itself_sees_the_rows_of_one_workspace_alone() {
    let shared: TableName = "millrace_shared.events".parse().expect("a name");
    let workspaces = ["ws_one", "ws_two"];
    let view = |workspace: &str| -> TableName { format!("{workspace}.events").parse().expect("a name") };
    let statements = workspaces.map(|workspace| share::policies(&shared, &view(workspace), workspace));
    let users = format!(
        "<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users>{}{}\
         <default><password/><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota>\
         <databases><millrace_shared><events><filter>1</filter></events></millrace_shared></databases></default>\
         </users></clickhouse>",
        reader("ws_one", &statements[0]),
        reader("ws_two", &statements[1])
    );
    let (place, server, _directory) = place(Some(&users), "millrace_shared").await;
    // The server reads each statement as it is meant, whether or not it has somewhere to keep it.
    for statement in statements.iter().flatten() {
        let quoted = statement.replace('\\', "\\\\").replace('\'', "\\'");
        let read = place
            .rows(&format!("SELECT formatQuerySingleLine('{quoted}')"))
            .await;
        assert_eq!(read.len(), 1, "{statement}");
    }
    let layout = Layout::from(&settings(&json!({"layout": "shared"})));
    let schema = place.warehouse.create_table(&shared, &layout).await;
    let schema = Arc::new(schema.expect("a table"));
    for workspace in workspaces {
        let made = place
            .warehouse
            .create_share(&shared, &view(workspace), workspace)
            .await;
        made.expect("a view, though this server keeps no policies that are said in SQL");
    }
    let event = raw(r#"{"type":"track","event":"Bought","anonymousId":"a","properties":{"price":1.5}}"#);
    let rows = rows_of_two(&event);
    write(&place, &shared, &layout, &schema, &rows).await;

    for (workspace, other, wanted) in [("ws_one", "ws_two", "2"), ("ws_two", "ws_one", "3")] {
        let mut config = unhurried(&server.url());
        config.user = Some(workspace.to_owned());
        let reader = Place {
            warehouse: config.build(),
            database: place.database.clone(),
            url: String::new(),
        };
        for table in [shared.quoted(), view(workspace).quoted()] {
            // A condition that is always true, and an aggregate that a server could answer from its parts alone.
            for sql in [
                format!("SELECT count() FROM {table}"),
                format!("SELECT countIf(price = 1.5) FROM {table} WHERE 1 OR type != ''"),
            ] {
                assert_eq!(reader.rows(&sql).await, [wanted], "{workspace}: {sql}");
            }
        }
        let others = reader
            .warehouse
            .client()
            .query(&format!("SELECT count() FROM {other}.events"));
        let refused = others.fetch_one::<u64>().await.map_err(Error::from);
        let code = refused.expect_err("another's view is not granted").code();
        assert_eq!(code.map(|code| code.0), Some(497));
    }
    let held = place
        .warehouse
        .which(&shared, JOURNAL, id(0).identity.partition, &[0, 1, 2, 3, 4, 5])
        .await;
    assert_eq!(held.expect("answered").len(), 5, "who writes sees every row");
}
