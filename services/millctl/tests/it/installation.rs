//! One installation for one test, and the binary with its settings.

use std::collections::BTreeMap;
use std::process::{Command, Output};

use millrace_store::Postgres;
use millrace_store::postgres::Config;
use millrace_testkit::postgres::Database;
use millrace_warehouse::Warehouse;
use serde_json::Value;
use uuid::Uuid;

/// Settings under which the binary sees nothing of other tests.
pub(crate) struct Installation {
    pub(crate) database: Database,
    /// Unique; also the name of the workspace that a test makes.
    pub(crate) name: String,
    settings: BTreeMap<&'static str, String>,
}

impl Installation {
    /// Empty stores.
    pub(crate) async fn empty() -> Self {
        let database = Database::create().await.expect("a database");
        let name = format!("t{}", Uuid::new_v4().simple());
        let settings = BTreeMap::from([
            ("MILLRACE__POSTGRES__URL", database.url().to_owned()),
            ("MILLRACE__CLICKHOUSE__URL", server("MILLRACE_TEST_CLICKHOUSE")),
            ("MILLRACE__CLICKHOUSE__DATABASE", format!("{name}_millrace")),
            ("MILLRACE__KAFKA__BROKERS", server("MILLRACE_TEST_KAFKA")),
            ("MILLRACE__REDIS__URL", server("MILLRACE_TEST_REDIS")),
        ]);
        Self {
            database,
            name,
            settings,
        }
    }

    /// No settings at all: the binary knows of no server.
    pub(crate) async fn nowhere() -> Self {
        let mut installation = Self::empty().await;
        installation.settings.clear();
        installation
    }

    /// Migrated stores.
    pub(crate) async fn migrated() -> Self {
        let installation = Self::empty().await;
        installation.json(&["migrate", "up"]);
        installation
    }

    /// Migrated stores and a workspace; gives what its creation printed.
    pub(crate) async fn with_workspace() -> (Self, Value) {
        let installation = Self::migrated().await;
        let made = installation.create_workspace();
        (installation, made)
    }

    pub(crate) fn create_workspace(&self) -> Value {
        self.json(&["workspace", "create", "--organization", "acme", &self.name])
    }

    /// The same installation with another setting.
    pub(crate) fn set(&mut self, variable: &'static str, value: impl Into<String>) {
        self.settings.insert(variable, value.into());
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary runs")
    }

    /// A command that was not started yet.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millctl"));
        command.args(arguments).env_clear().envs(&self.settings);
        command
    }

    /// What a command that succeeds prints for scripts.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        assert!(output.status.success(), "{arguments:?}: {out}{err}");
        assert!(err.is_empty(), "{err}");
        serde_json::from_str(&out).expect("one JSON object")
    }

    /// What a command that succeeds prints for people.
    pub(crate) fn text(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text")
    }

    /// The status and the explanation of a command that fails.
    pub(crate) fn failure(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.run(arguments);
        assert!(
            !output.status.success() && output.stdout.is_empty(),
            "{arguments:?}: {output:?}"
        );
        (
            output.status.code(),
            String::from_utf8(output.stderr).expect("text"),
        )
    }

    pub(crate) fn postgres(&self) -> Postgres {
        Postgres::new(&Config::new(self.database.url())).expect("a pool")
    }

    pub(crate) fn warehouse(&self) -> Warehouse {
        millrace_warehouse::Config::new(&self.settings["MILLRACE__CLICKHOUSE__URL"]).build()
    }

    /// Removes what the test left in ClickHouse.
    pub(crate) async fn clean(self) {
        let client = self.warehouse().client().clone();
        for database in [format!("ws_{}", self.name), format!("{}_millrace", self.name)] {
            client
                .query(&format!("DROP DATABASE IF EXISTS {database} SYNC"))
                .execute()
                .await
                .expect("dropped");
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the address of the test stack is no configuration of a service"
)]
pub(crate) fn server(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: this test needs it, see `./dev env`"))
}

/// A text field of what a command printed.
pub(crate) fn field<'value>(value: &'value Value, name: &str) -> &'value str {
    value[name]
        .as_str()
        .unwrap_or_else(|| panic!("no text `{name}` in {value}"))
}
