//! Secrets of a workspace, which its functions read as `ctx.env`. They leave here sealed, or not at all.

use std::collections::HashMap;

use deadpool_postgres::Transaction;
use millrace_event::Timestamp;
use tokio_postgres::types::ToSql;

use crate::keyring::{Keyring, OpenError, Sealed};
use crate::postgres::Fields as _;
use crate::{Entity, Error, Postgres, WorkspaceId};

/// Longest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 16 << 10;
/// Longest name, in bytes.
const MAX_NAME_BYTES: usize = 128;
/// Secrets of one workspace.
const MOST: i64 = 100;

type Row<'a> = &'a [&'a (dyn ToSql + Sync)];

/// What is known of a secret without opening it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// The key it is sealed under.
    pub key_id: String,
    /// When it was set.
    pub set_at: Timestamp,
}

/// What came of sealing everything anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resealed {
    /// Secrets that are under the new key now.
    pub moved: u64,
    /// Secrets that were there before.
    pub kept: u64,
    /// Secrets that did not open, as they are: workspace and why.
    pub failed: Vec<(WorkspaceId, OpenError)>,
}

/// The repository of secrets.
#[derive(Clone, Debug)]
pub struct Secrets {
    postgres: Postgres,
}

impl Secrets {
    /// On a pool.
    pub const fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// Sets a secret, in place of what it was.
    ///
    /// # Errors
    /// When name or value are outside of what is allowed, there is no such workspace, it has too many, or Postgres does
    /// not answer.
    pub async fn set(
        &self,
        keys: &Keyring,
        workspace: &WorkspaceId,
        name: &str,
        value: &str,
    ) -> Result<(), Error> {
        let invalid = |what, reason| Err(Error::Invalid { what, reason });
        let head = name
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
        let rest = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !(head && rest && name.len() <= MAX_NAME_BYTES) {
            return invalid(
                "the name of a secret",
                "is made of letters, digits and underscores, and begins with no digit",
            );
        }
        if value.is_empty() || value.len() > MAX_VALUE_BYTES {
            return invalid("a secret", "has between 1 byte and 16KiB");
        }
        let sealed = keys.seal(workspace, name, value)?;
        let query = "INSERT INTO secrets (workspace, name, key_id, sealed)
            SELECT $1, $2, $3, $4
            WHERE EXISTS (SELECT 1 FROM secrets WHERE workspace = $1 AND name = $2)
               OR (SELECT count(*) FROM secrets WHERE workspace = $1) < $5
            ON CONFLICT (workspace, name) DO UPDATE SET key_id = $3, sealed = $4, set_at = now()";
        let changed = self
            .postgres
            .call(async {
                let id = workspace.as_str();
                let row: Row<'_> = &[&id, &name, &sealed.key_id, &sealed.bytes, &MOST];
                self.execute(query, row).await
            })
            .await?;
        if changed == 0 {
            return invalid("a workspace", "has 100 secrets at most");
        }
        Ok(())
    }

    /// Forgets a secret.
    ///
    /// # Errors
    /// When there is none, or Postgres does not answer.
    pub async fn unset(&self, workspace: &WorkspaceId, name: &str) -> Result<(), Error> {
        let query = "DELETE FROM secrets WHERE workspace = $1 AND name = $2";
        let changed = self
            .postgres
            .call(async { self.execute(query, &[&workspace.as_str(), &name]).await })
            .await?;
        if changed == 0 {
            return Err(Error::NotFound {
                entity: Entity::Secret,
                name: name.to_owned(),
            });
        }
        Ok(())
    }

    /// A workspace's secrets by name, without their values.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn list(&self, workspace: &WorkspaceId) -> Result<Vec<Listed>, Error> {
        let query = "SELECT name, key_id, set_at FROM secrets WHERE workspace = $1 ORDER BY name";
        self.postgres
            .call(async {
                let client = self.postgres.client().await?;
                let statement = client.prepare_cached(query).await?;
                let rows = client.query(&statement, &[&workspace.as_str()]).await?;
                let listed = rows.iter().map(|row| {
                    Ok(Listed {
                        name: row.field("name")?,
                        key_id: row.field("key_id")?,
                        set_at: row.time("set_at")?,
                    })
                });
                listed.collect()
            })
            .await
    }

    /// Seals every secret of every workspace under the key that seals now. What does not open stays as it is.
    ///
    /// # Errors
    /// When Postgres does not answer; what was sealed anew until then stays so.
    pub async fn reseal(&self, keys: &Keyring) -> Result<Resealed, Error> {
        let all = self
            .postgres
            .call(async {
                let client = self.postgres.client().await?;
                let rows = client
                    .query(
                        "SELECT workspace, name, key_id, sealed FROM secrets ORDER BY 1, 2",
                        &[],
                    )
                    .await?;
                rows.iter().map(sealed).collect::<Result<Vec<_>, _>>()
            })
            .await?;
        let mut resealed = Resealed::default();
        for (workspace, before) in all {
            if before.key_id == keys.current() {
                resealed.kept += 1;
                continue;
            }
            let value = match keys.open(&workspace, &before) {
                Ok(value) => value,
                Err(error) => {
                    resealed.failed.push((workspace, error));
                    continue;
                }
            };
            let now = keys.seal(&workspace, &before.name, &value)?;
            // One that was set in the meantime is newer.
            let query = "UPDATE secrets SET key_id = $3, sealed = $4 WHERE workspace = $1 AND name = $2 AND sealed = $5";
            let moved = self
                .postgres
                .call(async {
                    let id = workspace.as_str();
                    let row: Row<'_> = &[&id, &now.name, &now.key_id, &now.bytes, &before.bytes];
                    self.execute(query, row).await
                })
                .await?;
            resealed.moved += moved;
        }
        Ok(resealed)
    }

    /// A statement that is a change of its own.
    async fn execute(&self, statement: &'static str, row: Row<'_>) -> Result<u64, Error> {
        let mut client = self.postgres.client().await?;
        let transaction = client.transaction().await?;
        let changed = transaction.execute(statement, row).await?;
        self.postgres.keep(transaction).await?;
        Ok(changed)
    }
}

fn sealed(row: &tokio_postgres::Row) -> Result<(WorkspaceId, Sealed), Error> {
    let sealed = Sealed {
        name: row.field("name")?,
        key_id: row.field("key_id")?,
        bytes: row.field("sealed")?,
    };
    Ok((row.parsed("workspace")?, sealed))
}

/// The secrets of every workspace, as they lie.
pub(crate) async fn all(transaction: &Transaction<'_>) -> Result<HashMap<WorkspaceId, Vec<Sealed>>, Error> {
    let query = "SELECT workspace, name, key_id, sealed FROM secrets ORDER BY workspace, name";
    let mut secrets: HashMap<WorkspaceId, Vec<Sealed>> = HashMap::new();
    for row in transaction.query(query, &[]).await? {
        let (workspace, sealed) = sealed(&row)?;
        secrets.entry(workspace).or_default().push(sealed);
    }
    Ok(secrets)
}
