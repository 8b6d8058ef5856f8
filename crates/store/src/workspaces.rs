//! Workspaces with their sources and destinations.

use std::fmt;
use std::str::FromStr;

use deadpool_postgres::Transaction;
use millrace_event::Timestamp;
use millrace_event::destination::Settings;
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;

use crate::postgres::{Fields, Taken};
use crate::{ChainId, DestinationId, Entity, Error, Name, OrganizationId, Postgres, SourceId, WorkspaceId};

/// What a workspace pays for, which decides its limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// The smallest.
    #[default]
    Default,
    /// In between.
    Pro,
    /// Limits come from the workspace itself; those it does not set do not exist.
    Enterprise,
}

impl Tier {
    /// The spelling in the store and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Pro => "pro",
            Self::Enterprise => "enterprise",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Tier {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "default" => Ok(Self::Default),
            "pro" => Ok(Self::Pro),
            "enterprise" => Ok(Self::Enterprise),
            _ => Err(Error::Invalid {
                what: "a tier",
                reason: "is `default`, `pro` or `enterprise`",
            }),
        }
    }
}

/// Limits of one workspace that differ from its tier's; what is absent is the tier's.
///
/// Limits that this program does not know are passed over: a newer one may have set them, and no key must stop
/// opening because of that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Events per second, sustained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_per_second: Option<u64>,
    /// Events per day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events_per_day: Option<u64>,
    /// Events within five seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u64>,
}

/// One limit, to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewLimit {
    /// This many events.
    Events(u64),
    /// What the tier says.
    OfTier,
}

/// What is to change; what is absent stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// What it pays for.
    pub tier: Option<Tier>,
    /// Events per second, sustained.
    pub events_per_second: Option<NewLimit>,
    /// Events per day.
    pub events_per_day: Option<NewLimit>,
    /// Events within five seconds.
    pub burst: Option<NewLimit>,
}

impl Change {
    /// The workspace as it is afterwards.
    fn apply(self, workspace: &mut Workspace) {
        let set = |limit: &mut Option<u64>, new: Option<NewLimit>| match new {
            Some(NewLimit::Events(events)) => *limit = Some(events),
            Some(NewLimit::OfTier) => *limit = None,
            None => {}
        };
        workspace.tier = self.tier.unwrap_or(workspace.tier);
        set(&mut workspace.limits.events_per_second, self.events_per_second);
        set(&mut workspace.limits.events_per_day, self.events_per_day);
        set(&mut workspace.limits.burst, self.burst);
    }
}

/// A workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// Its id.
    pub id: WorkspaceId,
    /// Its name, unique in the installation.
    pub name: String,
    /// Who is billed.
    pub organization: OrganizationId,
    /// What it pays for.
    pub tier: Tier,
    /// Where it differs from its tier.
    pub limits: Limits,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A source of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its id.
    pub id: SourceId,
    /// Its name, unique in the workspace.
    pub name: String,
}

/// A table in ClickHouse where a workspace's rows go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Its id.
    pub id: DestinationId,
    /// Its name, unique in the workspace.
    pub name: String,
    /// The database.
    pub database: String,
    /// The table, unless an event names another in that database.
    pub table: String,
    /// Counts the settings it has had, from 1; travels with every row written for it.
    pub config_version: u64,
}

impl Destination {
    pub(crate) fn from_row(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            id: row.parsed("destination")?,
            name: row.field("destination_name")?,
            database: row.field("database")?,
            table: row.field("table")?,
            config_version: row.version("destination_version")?.into(),
        })
    }
}

/// What is to be made.
#[derive(Clone, Debug)]
pub struct NewWorkspace {
    /// Its name.
    pub name: Name,
    /// The name of its organization, made when there is none.
    pub organization: Name,
    /// What it pays for.
    pub tier: Tier,
    /// The ClickHouse database of its rows.
    pub database: String,
    /// The table of its rows.
    pub table: String,
    /// How they are kept there.
    pub settings: Settings,
}

/// A workspace with the parts that it starts with: one source, one destination, the chain between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provisioned {
    /// The workspace.
    pub workspace: Workspace,
    /// The source `default`.
    pub source: Source,
    /// The destination `default`.
    pub destination: Destination,
    /// Made by this call, rather than there before.
    pub created: bool,
}

/// The repository of workspaces.
#[derive(Clone, Debug)]
pub struct Workspaces {
    postgres: Postgres,
}

const COLUMNS: &str = "id, name, organization, tier, limits, created_at";

impl Workspaces {
    /// On a pool.
    pub const fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// Makes a workspace with its source, its destination and the chain between them, or finds the one of that
    /// name: calling it again changes nothing.
    ///
    /// # Errors
    /// When the name belongs to another organization, the table to another workspace, or Postgres does not
    /// answer.
    ///
    /// # Cancellation
    /// All of it is made or nothing.
    pub async fn create(&self, new: &NewWorkspace) -> Result<Provisioned, Error> {
        self.postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = client.transaction().await?;
                let organization = organization(&transaction, &new.organization).await?;
                let made = make(&transaction, new, &organization).await?;
                let workspace = named(&transaction, new.name.as_str()).await?;
                if workspace.organization != organization {
                    return Err(Error::Taken {
                        entity: Entity::Workspace,
                        name: new.name.to_string(),
                        by: " by another organization".to_owned(),
                    });
                }
                let part = Name::default_part();
                let source = source(&transaction, &workspace.id, part.as_str()).await?;
                let destination = destination(&transaction, &workspace.id, part.as_str()).await?;
                self.postgres.keep(transaction).await?;
                Ok(Provisioned {
                    workspace,
                    source,
                    destination,
                    created: made,
                })
            })
            .await
    }

    /// The workspace of that id or name.
    ///
    /// # Errors
    /// When there is none, or Postgres does not answer.
    pub async fn find(&self, id_or_name: &str) -> Result<Workspace, Error> {
        self.postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = client.transaction().await?;
                named(&transaction, id_or_name).await
            })
            .await
    }

    /// Changes what a workspace may send, and gives it before and after.
    ///
    /// Limits that this program does not know stay as they are.
    ///
    /// # Errors
    /// When there is none of that id or name, or Postgres does not answer.
    ///
    /// # Cancellation
    /// All of it is changed or nothing.
    pub async fn set(&self, id_or_name: &str, change: Change) -> Result<(Workspace, Workspace), Error> {
        self.postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = client.transaction().await?;
                let found = named(&transaction, id_or_name).await?;
                // Two changes at a time must not undo each other.
                let row = transaction
                    .query_one(
                        &format!("SELECT {COLUMNS} FROM workspaces WHERE id = $1 FOR UPDATE"),
                        &[&found.id.as_str()],
                    )
                    .await?;
                let before = workspace(&row)?;
                let mut after = before.clone();
                change.apply(&mut after);
                let update = "UPDATE workspaces SET tier = $2, limits = (limits - $3::text[]) || $4::jsonb
                    WHERE id = $1";
                let known = ["events_per_second", "events_per_day", "burst"]
                    .map(str::to_owned)
                    .to_vec();
                let limits = tokio_postgres::types::Json(after.limits);
                transaction
                    .execute(
                        update,
                        &[&after.id.as_str(), &after.tier.as_str(), &known, &limits],
                    )
                    .await?;
                self.postgres.keep(transaction).await?;
                Ok((before, after))
            })
            .await
    }

    /// Every workspace, by name.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn list(&self) -> Result<Vec<Workspace>, Error> {
        self.postgres
            .call(async {
                let client = self.postgres.client().await?;
                let rows = client
                    .query(&format!("SELECT {COLUMNS} FROM workspaces ORDER BY name"), &[])
                    .await?;
                rows.iter().map(workspace).collect()
            })
            .await
    }

    /// A source of the workspace by its id or name.
    ///
    /// # Errors
    /// When there is none, or Postgres does not answer.
    pub async fn source(&self, workspace: &WorkspaceId, id_or_name: &str) -> Result<Source, Error> {
        self.postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = client.transaction().await?;
                source(&transaction, workspace, id_or_name).await
            })
            .await
    }

    /// A destination of the workspace by its id or name.
    ///
    /// # Errors
    /// When there is none, or Postgres does not answer.
    pub async fn destination(&self, workspace: &WorkspaceId, id_or_name: &str) -> Result<Destination, Error> {
        self.postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = client.transaction().await?;
                destination(&transaction, workspace, id_or_name).await
            })
            .await
    }
}

fn workspace(row: &Row) -> Result<Workspace, Error> {
    Ok(Workspace {
        id: row.parsed("id")?,
        name: row.field("name")?,
        organization: row.parsed("organization")?,
        tier: row.parsed("tier")?,
        limits: row.json("limits")?,
        created_at: row.time("created_at")?,
    })
}

/// The id of the organization of that name, made when there is none.
async fn organization(transaction: &Transaction<'_>, name: &Name) -> Result<OrganizationId, Error> {
    let insert = "INSERT INTO organizations (id, name) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING";
    transaction
        .execute(insert, &[&OrganizationId::mint()?.as_str(), &name.as_str()])
        .await?;
    let row = transaction
        .query_one("SELECT id FROM organizations WHERE name = $1", &[&name.as_str()])
        .await?;
    row.parsed("id")
}

/// Makes the rows of a workspace; false when its name is there already.
async fn make(
    transaction: &Transaction<'_>,
    new: &NewWorkspace,
    organization: &OrganizationId,
) -> Result<bool, Error> {
    let id = WorkspaceId::mint()?;
    // A second creator of the same name waits here until the first one has committed all of its rows.
    let insert = "INSERT INTO workspaces (id, organization, name, tier) VALUES ($1, $2, $3, $4)
        ON CONFLICT (name) DO NOTHING";
    let values = [
        id.as_str(),
        organization.as_str(),
        new.name.as_str(),
        new.tier.as_str(),
    ];
    if transaction
        .execute(insert, &[&values[0], &values[1], &values[2], &values[3]])
        .await?
        == 0
    {
        return Ok(false);
    }
    let part = Name::default_part();
    let source = SourceId::mint()?;
    let insert = "INSERT INTO sources (id, workspace, name) VALUES ($1, $2, $3)";
    transaction
        .execute(insert, &[&source.as_str(), &id.as_str(), &part.as_str()])
        .await?;
    let destination = DestinationId::mint()?;
    let insert = "INSERT INTO destinations (id, workspace, name, kind, database, \"table\", settings)
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    transaction
        .execute(
            insert,
            &[
                &destination.as_str(),
                &id.as_str(),
                &part.as_str(),
                &new.settings.kind().as_str(),
                &new.database,
                &new.table,
                &tokio_postgres::types::Json(new.settings.to_json()),
            ],
        )
        .await
        .or_taken(Entity::Table, format_args!("{}.{}", new.database, new.table))?;
    let chain = ChainId::mint()?;
    let insert = "INSERT INTO chains (id, workspace, source, destination) VALUES ($1, $2, $3, $4)";
    transaction
        .execute(
            insert,
            &[
                &chain.as_str(),
                &id.as_str(),
                &source.as_str(),
                &destination.as_str(),
            ],
        )
        .await?;
    Ok(true)
}

async fn named(transaction: &Transaction<'_>, id_or_name: &str) -> Result<Workspace, Error> {
    // An id wins over a name that looks like it.
    let query =
        format!("SELECT {COLUMNS} FROM workspaces WHERE $1 IN (id, name) ORDER BY id = $1 DESC LIMIT 1");
    let row = transaction.query_opt(&query, &[&id_or_name]).await?;
    workspace(&row.ok_or_else(|| Error::not_found(Entity::Workspace, id_or_name))?)
}

pub(crate) async fn source(
    transaction: &Transaction<'_>,
    workspace: &WorkspaceId,
    id_or_name: &str,
) -> Result<Source, Error> {
    let query = "SELECT id, name FROM sources
        WHERE workspace = $1 AND $2 IN (id, name) ORDER BY id = $2 DESC LIMIT 1";
    let row = transaction
        .query_opt(query, &[&workspace.as_str(), &id_or_name])
        .await?;
    let row = row.ok_or_else(|| Error::not_found(Entity::Source, id_or_name))?;
    Ok(Source {
        id: row.parsed("id")?,
        name: row.field("name")?,
    })
}

pub(crate) async fn destination(
    transaction: &Transaction<'_>,
    workspace: &WorkspaceId,
    id_or_name: &str,
) -> Result<Destination, Error> {
    let query = "SELECT id AS destination, name AS destination_name, database, \"table\",
            version AS destination_version
        FROM destinations WHERE workspace = $1 AND $2 IN (id, name) ORDER BY id = $2 DESC LIMIT 1";
    let row = transaction
        .query_opt(query, &[&workspace.as_str(), &id_or_name])
        .await?;
    Destination::from_row(&row.ok_or_else(|| Error::not_found(Entity::Destination, id_or_name))?)
}
