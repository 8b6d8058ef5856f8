//! Whose functions' debug lines are kept, for a while.

use std::collections::HashSet;
use std::time::Duration;

use crate::postgres::Fields;
use crate::{Error, Postgres, WorkspaceId};

/// The switches, one for each workspace; each turns itself off.
#[derive(Clone, Debug)]
pub struct FunctionDebug {
    postgres: Postgres,
}

impl FunctionDebug {
    /// On a pool.
    pub const fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// Keeps a workspace's debug lines from now on, for so long.
    ///
    /// # Errors
    /// When there is no such workspace, or Postgres does not answer.
    pub async fn on(&self, workspace: &WorkspaceId, time: Duration) -> Result<(), Error> {
        let query =
            "INSERT INTO function_debug (workspace, ends_at) VALUES ($1, now() + $2::float8 * interval '1 second')
            ON CONFLICT (workspace) DO UPDATE SET ends_at = excluded.ends_at";
        self.postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = client.transaction().await?;
                transaction
                    .execute(query, &[&workspace.as_str(), &time.as_secs_f64()])
                    .await?;
                self.postgres.keep(transaction).await
            })
            .await
    }

    /// Keeps them no longer; a switch that is off stays off.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn off(&self, workspace: &WorkspaceId) -> Result<(), Error> {
        self.postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = client.transaction().await?;
                transaction
                    .execute(
                        "DELETE FROM function_debug WHERE workspace = $1",
                        &[&workspace.as_str()],
                    )
                    .await?;
                self.postgres.keep(transaction).await
            })
            .await
    }

    /// The workspaces, by id, whose switch is on now.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn all(&self) -> Result<HashSet<String>, Error> {
        let query = "SELECT workspace FROM function_debug WHERE ends_at > now()";
        self.postgres
            .call(async {
                let client = self.postgres.client().await?;
                let statement = client.prepare_cached(query).await?;
                let rows = client.query(&statement, &[]).await?;
                rows.iter().map(|row| row.field("workspace")).collect()
            })
            .await
    }
}
