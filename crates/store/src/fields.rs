//! What a workspace knows about the fields of its events: their types, as the first who may say so fixed them.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use deadpool_postgres::Transaction;
use millrace_event::Timestamp;
use sha2::{Digest, Sha256};

use crate::postgres::Fields as _;
use crate::{Entity, Error, Postgres, WorkspaceId};

/// What a value is. Numbers with and without a fraction are one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldType {
    /// Text.
    String,
    /// A number.
    Number,
    /// A truth value.
    Boolean,
    /// Text that is an RFC 3339 date-time.
    DateTime,
    /// A list.
    Array,
    /// An object.
    Object,
}

impl FieldType {
    /// Every type.
    pub const ALL: [Self; 6] = [
        Self::String,
        Self::Number,
        Self::Boolean,
        Self::DateTime,
        Self::Array,
        Self::Object,
    ];

    /// Its spelling in the store, in answers and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::DateTime => "date-time",
            Self::Array => "array",
            Self::Object => "object",
        }
    }

    /// Whether a value of type `other` may stand in a field of this one. Nothing is converted: a date-time is
    /// text already.
    pub fn takes(self, other: Self) -> bool {
        self == other || (self == Self::String && other == Self::DateTime)
    }
}

impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for FieldType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|known| known.as_str() == text)
            .ok_or(Error::Invalid {
                what: "a type",
                reason: "is `string`, `number`, `boolean`, `date-time`, `array` or `object`",
            })
    }
}

/// A field of an event that nothing is known about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sighting {
    /// Its flattened name.
    pub name: String,
    /// What it holds.
    pub field_type: FieldType,
    /// Who says so, where that is a stranger.
    pub guest: Guest,
}

/// Who speaks for a field under a public key: a hash of the anonymous id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Guest([u8; 16]);

impl Guest {
    /// The guest of that id.
    pub fn of(id: &str) -> Self {
        let digest: [u8; 32] = Sha256::digest(id.as_bytes()).into();
        let mut half = [0; 16];
        half.copy_from_slice(digest.split_at(16).0);
        Self(half)
    }
}

/// How fields are learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Learning {
    /// Most fields of a workspace.
    pub fields: u32,
    /// Most proposals of strangers that wait for agreement.
    pub proposals: u32,
    /// How many strangers must agree.
    pub agreement: u32,
}

/// What is known after a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// Fields whose type is fixed.
    pub fixed: Vec<(String, FieldType)>,
    /// Fields that there is no room for.
    pub refused: Vec<String>,
}

/// A field as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its flattened name.
    pub name: String,
    /// Its type.
    pub field_type: FieldType,
    /// Since when.
    pub created_at: Timestamp,
}

/// The repository of fields.
#[derive(Clone, Debug)]
pub struct Fields {
    postgres: Postgres,
}

impl Fields {
    /// On a pool.
    pub const fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// The types of all fields of a workspace that have one.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn all(&self, workspace: &WorkspaceId) -> Result<HashMap<String, FieldType>, Error> {
        let listed = self.list(workspace).await?;
        Ok(listed
            .into_iter()
            .map(|field| (field.name, field.field_type))
            .collect())
    }

    /// Learns fields, in one call: the first who may fix a type wins, whoever else calls at the same time.
    /// Strangers (`by_guests`) only propose.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn learn(
        &self,
        workspace: &WorkspaceId,
        seen: &[Sighting],
        by_guests: bool,
        learning: Learning,
    ) -> Result<Learned, Error> {
        let names: Vec<&str> = seen.iter().map(|field| field.name.as_str()).collect();
        let types: Vec<&str> = seen.iter().map(|field| field.field_type.as_str()).collect();
        let guests: Option<Vec<&[u8]>> =
            by_guests.then(|| seen.iter().map(|field| field.guest.0.as_slice()).collect());
        let count = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
        let query = "SELECT field, field_type FROM learn_fields($1, $2, $3, $4, $5, $6, $7)";
        self.postgres
            .call(async {
                let client = self.postgres.client().await?;
                let statement = client.prepare_cached(query).await?;
                let rows = client
                    .query(
                        &statement,
                        &[
                            &workspace.as_str(),
                            &names,
                            &types,
                            &guests,
                            &count(learning.agreement),
                            &count(learning.fields),
                            &count(learning.proposals),
                        ],
                    )
                    .await?;
                let mut learned = Learned::default();
                for row in &rows {
                    let name: String = row.field("field")?;
                    match row.field::<Option<&str>>("field_type")? {
                        Some(text) => learned.fixed.push((name, text.parse()?)),
                        None => learned.refused.push(name),
                    }
                }
                Ok(learned)
            })
            .await
    }

    /// The fields of a workspace that have a type, by name.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn list(&self, workspace: &WorkspaceId) -> Result<Vec<Listed>, Error> {
        let query = "SELECT name, type, created_at FROM fields WHERE workspace = $1 ORDER BY name";
        self.postgres
            .call(async {
                let client = self.postgres.client().await?;
                let statement = client.prepare_cached(query).await?;
                let rows = client.query(&statement, &[&workspace.as_str()]).await?;
                rows.iter()
                    .map(|row| {
                        Ok(Listed {
                            name: row.field("name")?,
                            field_type: row.parsed("type")?,
                            created_at: row.time("created_at")?,
                        })
                    })
                    .collect()
            })
            .await
    }

    /// Gives a field another type. What is in the warehouse stays as it is.
    ///
    /// # Errors
    /// When there is no such field, or Postgres does not answer.
    pub async fn retype(
        &self,
        workspace: &WorkspaceId,
        name: &str,
        field_type: FieldType,
    ) -> Result<(), Error> {
        let statement = "UPDATE fields SET type = $3 WHERE workspace = $1 AND name = $2";
        self.change(workspace, name, async |transaction| {
            let values: [&str; 3] = [workspace.as_str(), name, field_type.as_str()];
            let changed = transaction
                .execute(statement, &[&values[0], &values[1], &values[2]])
                .await?;
            Ok((changed, ()))
        })
        .await
    }

    /// Forgets a field, with what strangers said of it: the next event fixes its type anew. Gives the type that it
    /// had; nothing where strangers had only proposed some.
    ///
    /// # Errors
    /// When there is no such field, or Postgres does not answer.
    pub async fn forget(&self, workspace: &WorkspaceId, name: &str) -> Result<Option<FieldType>, Error> {
        self.change(workspace, name, async |transaction| {
            let statement = "DELETE FROM fields WHERE workspace = $1 AND name = $2 RETURNING type";
            let row = transaction
                .query_opt(statement, &[&workspace.as_str(), &name])
                .await?;
            let before = row.map(|row| row.parsed("type")).transpose()?;
            let statement = "DELETE FROM field_proposals WHERE workspace = $1 AND name = $2";
            let proposals = transaction
                .execute(statement, &[&workspace.as_str(), &name])
                .await?;
            Ok((proposals + u64::from(before.is_some()), before))
        })
        .await
    }

    /// Does `change`, which says how many rows it changed and what else there is to say.
    async fn change<T>(
        &self,
        workspace: &WorkspaceId,
        name: &str,
        change: impl AsyncFnOnce(&Transaction<'_>) -> Result<(u64, T), Error>,
    ) -> Result<T, Error> {
        self.postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = client.transaction().await?;
                // In turn with those who learn.
                let lock = "SELECT pg_advisory_xact_lock(hashtextextended('fields ' || $1, 0))";
                transaction.execute(lock, &[&workspace.as_str()]).await?;
                let (changed, said) = change(&transaction).await?;
                self.postgres.keep(transaction).await?;
                match changed {
                    0 => Err(Error::not_found(Entity::Field, name)),
                    _ => Ok(said),
                }
            })
            .await
    }
}
