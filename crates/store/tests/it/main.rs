//! The store against real servers: each test has a database or a key prefix of its own.
#![expect(clippy::expect_used, reason = "what a test does not expect ends it")]

mod configuration;
mod credentials;
mod dedup;
mod destinations;
mod limits;
mod migrations;
mod model;
mod outages;
mod quarantine;
mod reach;
mod settlement;
mod tls;
mod together;
mod values;

use millrace_store::destinations::{Kind, Settings};
use millrace_store::postgres::{Config, Postgres, migrate};
use millrace_store::workspaces::{NewWorkspace, Provisioned, Tier};
use millrace_store::{Name, Workspaces};
use millrace_testkit::postgres::Database;

/// A database with the schema in it. The first value keeps it alive.
async fn migrated() -> (Database, Postgres) {
    let database = Database::create().await.expect("a database");
    let postgres = Postgres::new(&Config::new(database.url())).expect("a pool");
    migrate::up(&postgres).await.expect("migrations");
    (database, postgres)
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn new_workspace(workspace: &str) -> NewWorkspace {
    NewWorkspace {
        name: name(workspace),
        organization: name("acme"),
        tier: Tier::Default,
        database: format!("ws_{workspace}"),
        table: "events".to_owned(),
        settings: Settings::none(Kind::ClickHouse),
    }
}

async fn workspace(postgres: &Postgres, workspace: &str) -> Provisioned {
    Workspaces::new(postgres.clone())
        .create(&new_workspace(workspace))
        .await
        .expect("a workspace")
}
