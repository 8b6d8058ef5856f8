//! What a workspace asks of its events beside their types: names that were changed, fields that must be there.
//!
//! They are few and every event needs them, so they travel with the write key ([`crate::keys::Key`]).

use std::fmt;
use std::str::FromStr;

use deadpool_postgres::Client;
use serde::{Deserialize, Serialize};

use crate::postgres::{Fields as _, Taken};
use crate::{Entity, Error, Postgres, WorkspaceId};

/// Longest name of a field here.
const LONGEST: usize = 200;

/// The rules of one workspace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rules {
    /// Names that were changed.
    pub aliases: Vec<Alias>,
    /// Flattened names that every event must have.
    pub required: Vec<String>,
}

/// A top-level name in `properties` that became another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// As it was.
    pub old: String,
    /// As it is.
    pub new: String,
    /// What becomes of an event that has one of them.
    pub mode: AliasMode,
}

/// How far the change of a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AliasMode {
    /// Events stay as they are.
    Old,
    /// Events get both names.
    Both,
    /// Events get the new name only.
    New,
}

impl AliasMode {
    /// Its spelling in the store and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::Both => "both",
            Self::New => "new",
        }
    }
}

impl fmt::Display for AliasMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AliasMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        [Self::Old, Self::Both, Self::New]
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or(Error::Invalid {
                what: "a mode",
                reason: "is `old`, `both` or `new`",
            })
    }
}

/// The repository of rules.
#[derive(Clone, Debug)]
pub struct Store {
    postgres: Postgres,
}

impl Rules {
    pub(crate) async fn read(client: &Client, workspace: &WorkspaceId) -> Result<Self, Error> {
        let query = "SELECT
            (SELECT coalesce(jsonb_agg(jsonb_build_object('old', old, 'new', new, 'mode', mode) ORDER BY old), '[]')
                FROM aliases WHERE workspace = $1) AS aliases,
            (SELECT coalesce(jsonb_agg(name ORDER BY name), '[]')
                FROM required_fields WHERE workspace = $1) AS required";
        let statement = client.prepare_cached(query).await?;
        let row = client.query_one(&statement, &[&workspace.as_str()]).await?;
        Ok(Self {
            aliases: row.json("aliases")?,
            required: row.json("required")?,
        })
    }
}

impl Store {
    /// On a pool.
    pub const fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// The rules of a workspace.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn of(&self, workspace: &WorkspaceId) -> Result<Rules, Error> {
        self.postgres
            .call(async { Rules::read(&self.postgres.client().await?, workspace).await })
            .await
    }

    /// Says that a name was changed, or how far that is. Gives what was said before.
    ///
    /// # Errors
    /// When a name is empty or too long, the new name is another's, or Postgres does not answer.
    pub async fn set_alias(&self, workspace: &WorkspaceId, alias: &Alias) -> Result<Option<Alias>, Error> {
        check(&alias.old)?;
        check(&alias.new)?;
        if alias.old == alias.new {
            return Err(Error::Invalid {
                what: "the new name",
                reason: "is the old one",
            });
        }
        let statement = "INSERT INTO aliases (workspace, old, new, mode) VALUES ($1, $2, $3, $4)
            ON CONFLICT (workspace, old) DO UPDATE SET new = excluded.new, mode = excluded.mode";
        self.postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = client.transaction().await?;
                let (old, new, mode) = (&alias.old, &alias.new, alias.mode.as_str());
                let query = "SELECT new, mode FROM aliases WHERE workspace = $1 AND old = $2 FOR UPDATE";
                let row = transaction.query_opt(query, &[&workspace.as_str(), old]).await?;
                let before = row.map(|row| {
                    Ok::<_, Error>(Alias {
                        old: old.clone(),
                        new: row.field("new")?,
                        mode: row.parsed("mode")?,
                    })
                });
                transaction
                    .execute(statement, &[&workspace.as_str(), old, new, &mode])
                    .await
                    .or_taken(Entity::Alias, new)?;
                self.postgres.keep(transaction).await?;
                before.transpose()
            })
            .await
    }

    /// Forgets that a name was changed.
    ///
    /// # Errors
    /// When it was not, or Postgres does not answer.
    pub async fn drop_alias(&self, workspace: &WorkspaceId, old: &str) -> Result<(), Error> {
        let statement = "DELETE FROM aliases WHERE workspace = $1 AND old = $2";
        self.delete(statement, workspace, old, Entity::Alias).await
    }

    /// Says that every event must have a field; saying it again changes nothing, and gives false.
    ///
    /// # Errors
    /// When the name is empty or too long, or Postgres does not answer.
    pub async fn require(&self, workspace: &WorkspaceId, name: &str) -> Result<bool, Error> {
        check(name)?;
        let statement =
            "INSERT INTO required_fields (workspace, name) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        self.postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = client.transaction().await?;
                let added = transaction
                    .execute(statement, &[&workspace.as_str(), &name])
                    .await?;
                self.postgres.keep(transaction).await?;
                Ok(added > 0)
            })
            .await
    }

    /// Says that events may lack a field.
    ///
    /// # Errors
    /// When they might, or Postgres does not answer.
    pub async fn release(&self, workspace: &WorkspaceId, name: &str) -> Result<(), Error> {
        let statement = "DELETE FROM required_fields WHERE workspace = $1 AND name = $2";
        self.delete(statement, workspace, name, Entity::Field).await
    }

    async fn delete(
        &self,
        statement: &str,
        workspace: &WorkspaceId,
        name: &str,
        entity: Entity,
    ) -> Result<(), Error> {
        self.postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = client.transaction().await?;
                let gone = transaction
                    .execute(statement, &[&workspace.as_str(), &name])
                    .await?;
                self.postgres.keep(transaction).await?;
                match gone {
                    0 => Err(Error::not_found(entity, name)),
                    _ => Ok(()),
                }
            })
            .await
    }
}

fn check(name: &str) -> Result<(), Error> {
    if name.is_empty() || name.len() > LONGEST {
        return Err(Error::Invalid {
            what: "the name of a field",
            reason: "has 1 to 200 bytes",
        });
    }
    Ok(())
}
