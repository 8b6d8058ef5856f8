//! The workspaces of a run: made in Postgres, with a key and a table each.

use anyhow::{Context as _, Result};
use millrace_event::KeyKind;
use millrace_store::destinations::{Kind, Settings};
use millrace_store::keys::{Keys, NewKey};
use millrace_store::postgres::{Config, Postgres};
use millrace_store::workspaces::{NewWorkspace, Tier, Workspaces};
use millrace_testkit::pipeline::{Pipeline, Sender};

/// Workspaces that are watched.
const MOST_WATCHED: u64 = 20;
/// Which one's table becomes read-only.
const READ_ONLY: u64 = 3;
/// Which one's view throws.
const THROWING: u64 = 7;

/// Workspaces with their tables in one database of this run.
#[derive(Debug)]
pub(crate) struct Places {
    /// The database.
    pub(crate) database: String,
    /// A way in for each workspace.
    pub(crate) senders: Vec<Sender>,
}

impl Places {
    pub(crate) async fn make(pipeline: &Pipeline, count: u64) -> Result<Self> {
        let postgres = Postgres::new(&Config::new(pipeline.postgres()))?;
        let (workspaces, keys) = (Workspaces::new(postgres.clone()), Keys::new(postgres));
        let database = format!("{}_fresh", pipeline.name);
        let mut senders = Vec::new();
        for n in 0..count {
            let new = NewWorkspace {
                name: format!("{}-{n}", pipeline.name).parse()?,
                organization: pipeline.name.parse()?,
                tier: Tier::Enterprise,
                database: database.clone(),
                table: table(n),
                settings: Settings::none(Kind::ClickHouse),
            };
            let made = workspaces.create(&new).await?;
            let key = keys
                .create(&NewKey {
                    kind: KeyKind::Server,
                    workspace: made.workspace.id,
                    source: made.source.id,
                    origins: Vec::new(),
                })
                .await?;
            senders.push(pipeline.sender_as(&key.expose()));
        }
        // The rotor reads its configuration anew, and has every workspace then.
        pipeline
            .put_function("pass", "export default function (event) { return event; }")
            .await?;
        Ok(Self { database, senders })
    }

    pub(crate) fn count(&self) -> u64 {
        u64::try_from(self.senders.len()).unwrap_or(u64::MAX)
    }

    /// The workspaces that are watched, evenly among all.
    pub(crate) fn watched(&self) -> Vec<u64> {
        let count = self.count();
        let watched = count.clamp(1, MOST_WATCHED);
        (0..watched).map(|n| n * count / watched).collect()
    }

    /// Those of them that are never broken.
    pub(crate) fn sound(&self) -> Vec<u64> {
        let mut sound = self.watched();
        sound.retain(|n| ![READ_ONLY, THROWING].contains(n));
        sound
    }

    /// The tables of some workspaces, as a source for `FROM`.
    pub(crate) fn merged(&self, of: &[u64]) -> String {
        let numbers: Vec<_> = of.iter().map(ToString::to_string).collect();
        format!("merge('{}', '^ws_({})$')", self.database, numbers.join("|"))
    }

    pub(crate) fn all(&self) -> Vec<u64> {
        (0..self.count()).collect()
    }

    pub(crate) async fn break_two(&self, pipeline: &Pipeline) -> Result<()> {
        let name = |n| format!("{}.{}", self.database, table(n));
        let (read_only, throwing) = (name(READ_ONLY), name(THROWING));
        for sql in [
            format!("ALTER TABLE {read_only} MODIFY SETTING table_readonly = 1"),
            format!(
                "CREATE TABLE {throwing}_target (n Float64) ENGINE = MergeTree ORDER BY n \
                 SETTINGS non_replicated_deduplication_window = 10000"
            ),
            format!(
                "CREATE MATERIALIZED VIEW {throwing}_view TO {throwing}_target AS \
                 SELECT n + throwIf(n >= 0) AS n FROM {throwing}"
            ),
        ] {
            pipeline.execute(&sql).await.context("nothing could be broken")?;
        }
        Ok(())
    }

    pub(crate) async fn mend(&self, pipeline: &Pipeline) -> Result<()> {
        let name = |n| format!("{}.{}", self.database, table(n));
        let (read_only, throwing) = (name(READ_ONLY), name(THROWING));
        for sql in [
            format!("ALTER TABLE {read_only} MODIFY SETTING table_readonly = 0"),
            format!("DROP VIEW {throwing}_view"),
        ] {
            pipeline.execute(&sql).await?;
        }
        Ok(())
    }

    /// Removes the tables.
    pub(crate) async fn remove(&self, pipeline: &Pipeline) -> Result<()> {
        pipeline
            .execute(&format!("DROP DATABASE IF EXISTS {}", self.database))
            .await
    }
}

fn table(n: u64) -> String {
    format!("ws_{n}")
}
