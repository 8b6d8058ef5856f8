//! Destinations with their settings: for people who change them, and for those who write to them.

mod address;
mod directory;

use std::collections::HashMap;
use std::sync::Arc;

use deadpool_postgres::Transaction;
pub use millrace_event::destination::{
    ClickHouse, Codec, InvalidSetting, Kind, Postgres as PostgresSettings, SealedUrl, Settings, TableLayout,
    Ttl,
};
use serde_json::{Map, Value};
use tokio_postgres::Row;
use tokio_postgres::types::Json;

use crate::chains::{self, ConfigVersion};
use crate::postgres::{Fields as _, Taken as _, one_moment};
use crate::workspaces::Destination;
use crate::{ChainId, DestinationId, Entity, Error, Name, Postgres, WorkspaceId};

pub use address::{open_url, seal_url};
pub use directory::{Directory, Known};

/// A destination with its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    /// Where rows go.
    pub destination: Destination,
    /// Whose they are.
    pub workspace: WorkspaceId,
    /// How they are kept; also says which kind of destination it is.
    pub settings: Settings,
}

/// A destination that is to be made.
#[derive(Clone, Debug)]
pub struct NewDestination {
    /// Its name, unique in the workspace.
    pub name: Name,
    /// The database, or for PostgreSQL the schema, of its tables.
    pub database: String,
    /// The table, unless an event names another.
    pub table: String,
    /// How rows are kept.
    pub settings: Settings,
}

/// Settings to change: a name and a value each; `null` unsets.
pub type Changes = [(String, Value)];

/// Every destination at one version of the configuration.
#[derive(Debug)]
pub struct Everything {
    /// The version.
    pub version: ConfigVersion,
    /// By id. Settings that this program cannot read are an error of their destination alone.
    pub destinations: HashMap<DestinationId, Result<Arc<Configured>, InvalidSetting>>,
}

/// The repository of destinations.
#[derive(Clone, Debug)]
pub struct Destinations {
    postgres: Postgres,
}

const COLUMNS: &str =
    "id AS destination, name AS destination_name, workspace, kind, database, \"table\", settings,
    version AS destination_version";

impl Destinations {
    /// On a pool.
    pub const fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// The destinations of a workspace, by name.
    ///
    /// # Errors
    /// When one has settings that this program does not know, or Postgres does not answer.
    pub async fn list(&self, workspace: &WorkspaceId) -> Result<Vec<Configured>, Error> {
        let query = format!("SELECT {COLUMNS} FROM destinations WHERE workspace = $1 ORDER BY name");
        self.postgres
            .call(async {
                let client = self.postgres.client().await?;
                let rows = client.query(&query, &[&workspace.as_str()]).await?;
                rows.iter().map(|row| Ok(read(row)??)).collect()
            })
            .await
    }

    /// A destination of a workspace, by its id or name.
    ///
    /// # Errors
    /// When there is none, its settings are not known to this program, or Postgres does not answer.
    pub async fn find(&self, workspace: &WorkspaceId, id_or_name: &str) -> Result<Configured, Error> {
        self.postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = client.transaction().await?;
                named(&transaction, workspace, id_or_name, "").await
            })
            .await
    }

    /// Makes a destination, and the chain to it from each source of the workspace; one of that name that is there is
    /// left as it is. The flag says whether it was made.
    ///
    /// # Errors
    /// When its table is another destination's, its settings contradict one another, or Postgres does not answer.
    ///
    /// # Cancellation
    /// All of it is made or nothing.
    pub async fn create(
        &self,
        workspace: &WorkspaceId,
        new: &NewDestination,
    ) -> Result<(Configured, bool), Error> {
        new.settings.check()?;
        self.postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = client.transaction().await?;
                let insert =
                    "INSERT INTO destinations (id, workspace, name, kind, database, \"table\", settings)
                    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (workspace, name) DO NOTHING";
                let id = DestinationId::mint()?;
                let made = transaction
                    .execute(
                        insert,
                        &[
                            &id.as_str(),
                            &workspace.as_str(),
                            &new.name.as_str(),
                            &new.settings.kind().as_str(),
                            &new.database,
                            &new.table,
                            &Json(new.settings.to_json()),
                        ],
                    )
                    .await
                    .or_taken(Entity::Table, format_args!("{}.{}", new.database, new.table))?;
                if made > 0 {
                    let sources = "SELECT id FROM sources WHERE workspace = $1";
                    for row in transaction.query(sources, &[&workspace.as_str()]).await? {
                        let chain = ChainId::mint()?;
                        let source: String = row.field("id")?;
                        let insert =
                            "INSERT INTO chains (id, workspace, source, destination) VALUES ($1, $2, $3, $4)";
                        transaction
                            .execute(
                                insert,
                                &[&chain.as_str(), &workspace.as_str(), &source, &id.as_str()],
                            )
                            .await?;
                    }
                }
                let configured = named(&transaction, workspace, new.name.as_str(), "").await?;
                self.postgres.keep(transaction).await?;
                Ok((configured, made > 0))
            })
            .await
    }

    /// Changes settings, and gives the destination before and after.
    ///
    /// Whose table it is cannot change: rows that are on their way would be looked for in another table than they
    /// were written to.
    ///
    /// # Errors
    /// When there is no such destination, a setting cannot have that value, or Postgres does not answer.
    ///
    /// # Cancellation
    /// All of it is changed or nothing.
    pub async fn set(
        &self,
        workspace: &WorkspaceId,
        id_or_name: &str,
        changes: &Changes,
    ) -> Result<(Configured, Configured), Error> {
        self.postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = client.transaction().await?;
                // Two changes at a time must not undo each other.
                let before = named(&transaction, workspace, id_or_name, "FOR UPDATE").await?;
                let mut settings = before.settings.clone();
                for (name, value) in changes {
                    settings.set(name, value)?;
                }
                settings.check()?;
                if layout(&settings) != layout(&before.settings) {
                    let reason = "is decided when a destination is made: make another one";
                    return Err(InvalidSetting::new("layout", reason).into());
                }
                let id = before.destination.id.as_str();
                let update = "UPDATE destinations SET settings = $2 WHERE id = $1";
                transaction
                    .execute(update, &[&id, &Json(settings.to_json())])
                    .await?;
                let after = named(&transaction, workspace, id, "").await?;
                self.postgres.keep(transaction).await?;
                Ok((before, after))
            })
            .await
    }

    /// Every destination, where the configuration is another one than `known`.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn newer(&self, known: Option<ConfigVersion>) -> Result<Option<Everything>, Error> {
        self.postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = one_moment(&mut client).await?;
                let version = chains::version(&transaction).await?;
                if known == Some(version) {
                    return Ok(None);
                }
                let query = format!("SELECT {COLUMNS} FROM destinations");
                let mut destinations = HashMap::new();
                for row in transaction.query(&query, &[]).await? {
                    destinations.insert(row.parsed("destination")?, read(&row)?.map(Arc::new));
                }
                Ok(Some(Everything {
                    version,
                    destinations,
                }))
            })
            .await
    }
}

fn layout(settings: &Settings) -> Option<TableLayout> {
    settings.clickhouse().map(ClickHouse::layout)
}

async fn named(
    transaction: &Transaction<'_>,
    workspace: &WorkspaceId,
    id_or_name: &str,
    lock: &str,
) -> Result<Configured, Error> {
    let query = format!(
        "SELECT {COLUMNS} FROM destinations WHERE workspace = $1 AND $2 IN (id, name) ORDER BY id = $2 DESC LIMIT 1 {lock}"
    );
    let row = transaction
        .query_opt(&query, &[&workspace.as_str(), &id_or_name])
        .await?;
    let row = row.ok_or_else(|| Error::not_found(Entity::Destination, id_or_name))?;
    Ok(read(&row)??)
}

/// The outer error is of the row, the inner of its settings.
fn read(row: &Row) -> Result<Result<Configured, InvalidSetting>, Error> {
    let (destination, workspace) = (Destination::from_row(row)?, row.parsed("workspace")?);
    let object: Map<String, Value> = row.json("settings")?;
    let kind: Result<Kind, _> = row.field::<&str>("kind")?.parse();
    let settings = kind.and_then(|kind| Settings::read(kind, &object));
    Ok(settings.map(|settings| Configured {
        destination,
        workspace,
        settings,
    }))
}
