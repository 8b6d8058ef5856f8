//! Functions: their versions, and which of them a chain runs.
//!
//! A version never changes once it is put. Promoting puts one in force for one chain; a rollback returns to
//! what was in force before that promotion, as often as there is something before.

mod language;
mod steps;

use millrace_event::Timestamp;

use crate::postgres::Fields;
use crate::{ChainId, Entity, Error, FunctionId, Name, Postgres, WorkspaceId};

use steps::{add, chain, enforce, existing, function, judge, lock};

pub use language::Language;

/// Most bytes of source text that a version may have.
pub const MAX_CODE_BYTES: usize = 1 << 20;

/// A version that was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The function.
    pub function: FunctionId,
    /// The version, from 1.
    pub version: u32,
    /// False when the newest version was this very code already.
    pub created: bool,
}

/// A version with its code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The function.
    pub function: FunctionId,
    /// Which version it is.
    pub version: u32,
    /// What it is written in.
    pub language: Language,
    /// Its source text.
    pub code: String,
}

/// Which chain of a workspace, by ids or names of its ends.
#[derive(Clone, Debug)]
pub struct Route {
    /// The source.
    pub source: String,
    /// The destination.
    pub destination: String,
}

impl Default for Route {
    fn default() -> Self {
        let part = Name::default_part().as_str().to_owned();
        Self {
            source: part.clone(),
            destination: part,
        }
    }
}

/// What is in force after a promotion or a rollback.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// The chain.
    pub chain: ChainId,
    /// The function.
    pub function: FunctionId,
    /// Its version.
    pub version: u32,
    /// Its place among the chain's functions, from 0.
    pub position: u32,
    /// The version that was in force there before; none where the function is new to the chain.
    pub before: Option<u32>,
}

/// A function as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The function.
    pub id: FunctionId,
    /// Its name.
    pub name: String,
    /// Its newest version.
    pub newest: u32,
    /// When that was put.
    pub put_at: Timestamp,
    /// Where it runs.
    pub promoted: Vec<Promoted>,
}

/// A place in a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promoted {
    /// The name of the chain's source.
    pub source: String,
    /// The name of the chain's destination.
    pub destination: String,
    /// The place among the chain's functions, from 0.
    pub position: u32,
    /// The version in force there.
    pub version: u32,
}

/// The repository of functions.
#[derive(Clone, Debug)]
pub struct Functions {
    postgres: Postgres,
}

impl Functions {
    /// On a pool.
    pub const fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// Adds a version of the function of that name, which is made when there is none. Nothing runs it before
    /// it is promoted. Putting the newest version's code again gives that version.
    ///
    /// This judges sizes only; whether the code compiles is for the caller to find out before.
    ///
    /// # Errors
    /// When the code is empty or too long, or Postgres does not answer.
    ///
    /// # Cancellation
    /// The version is there or it is not.
    pub async fn put(
        &self,
        workspace: &WorkspaceId,
        name: &Name,
        language: Language,
        code: &str,
    ) -> Result<Put, Error> {
        judge(code)?;
        self.postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = client.transaction().await?;
                let put = add(&transaction, workspace, name, language, code).await?;
                self.postgres.keep(transaction).await?;
                Ok(put)
            })
            .await
    }

    /// [Puts](Self::put) a version and [promotes](Self::promote) it: both are done or neither is.
    ///
    /// # Errors
    /// Those of the two.
    ///
    /// # Cancellation
    /// It is put and in force, or it is not.
    pub async fn put_in_force(
        &self,
        workspace: &WorkspaceId,
        route: &Route,
        name: &Name,
        language: Language,
        code: &str,
    ) -> Result<(Put, InForce), Error> {
        judge(code)?;
        self.postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = client.transaction().await?;
                lock(&transaction).await?;
                let put = add(&transaction, workspace, name, language, code).await?;
                let chain = chain(&transaction, workspace, route).await?;
                let now = enforce(&transaction, workspace, chain, put.function.clone(), put.version).await?;
                self.postgres.keep(transaction).await?;
                Ok((put, now))
            })
            .await
    }

    /// Puts a version in force: `version`, or the newest one. A function that the chain does not have yet goes
    /// to its end. Promoting what is in force changes nothing.
    ///
    /// # Errors
    /// When workspace, route, function or version do not exist, or Postgres does not answer.
    ///
    /// # Cancellation
    /// It is in force or it is not.
    pub async fn promote(
        &self,
        workspace: &WorkspaceId,
        route: &Route,
        id_or_name: &str,
        version: Option<u32>,
    ) -> Result<InForce, Error> {
        self.postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = client.transaction().await?;
                lock(&transaction).await?;
                let chain = chain(&transaction, workspace, route).await?;
                let function = function(&transaction, workspace, id_or_name, "").await?;
                let version = existing(&transaction, &function, version).await?;
                let now = enforce(&transaction, workspace, chain, function, version).await?;
                self.postgres.keep(transaction).await?;
                Ok(now)
            })
            .await
    }

    /// Returns to the version that was in force before the present one was promoted.
    ///
    /// # Errors
    /// When the function does not run there, nothing was in force before, or Postgres does not answer.
    ///
    /// # Cancellation
    /// It is rolled back or it is not.
    pub async fn rollback(
        &self,
        workspace: &WorkspaceId,
        route: &Route,
        id_or_name: &str,
    ) -> Result<InForce, Error> {
        self.postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = client.transaction().await?;
                lock(&transaction).await?;
                let chain = chain(&transaction, workspace, route).await?;
                let function = function(&transaction, workspace, id_or_name, "").await?;
                let query =
                    "SELECT now.id AS now, before.id AS before, before.version AS version, c.position,
                        now.version AS rolled_back
                    FROM chain_functions c
                    JOIN promotions now ON now.id = c.promotion
                    JOIN promotions before ON before.id = now.previous
                    WHERE c.chain = $1 AND c.function = $2";
                let Some(row) = transaction
                    .query_opt(query, &[&chain.as_str(), &function.as_str()])
                    .await?
                else {
                    return Err(Error::NothingToRollBack {
                        name: id_or_name.to_owned(),
                    });
                };
                let (now, before): (i64, i64) = (row.field("now")?, row.field("before")?);
                let mark = "UPDATE promotions SET rolled_back_at = now() WHERE id = $1";
                transaction.execute(mark, &[&now]).await?;
                let update = "UPDATE chain_functions SET promotion = $3 WHERE chain = $1 AND function = $2";
                transaction
                    .execute(update, &[&chain.as_str(), &function.as_str(), &before])
                    .await?;
                let now = InForce {
                    chain,
                    function,
                    version: row.version("version")?,
                    position: row.version("position")?,
                    before: Some(row.version("rolled_back")?),
                };
                self.postgres.keep(transaction).await?;
                Ok(now)
            })
            .await
    }

    /// A version with its code, in force or not: `version`, or the newest one. Without a workspace the function is
    /// named by its id.
    ///
    /// # Errors
    /// When there is none, or Postgres does not answer.
    pub async fn stored(
        &self,
        workspace: Option<&WorkspaceId>,
        id_or_name: &str,
        version: Option<u32>,
    ) -> Result<Stored, Error> {
        let query = "SELECT v.function, v.version, v.language, v.code
            FROM function_versions v JOIN functions f ON f.id = v.function
            WHERE (f.id = $2 OR f.name = $2 AND f.workspace = $1) AND f.workspace = coalesce($1, f.workspace)
                AND v.version = coalesce($3, v.version)
            ORDER BY f.id = $2 DESC, v.version DESC LIMIT 1";
        let workspace = workspace.map(WorkspaceId::as_str);
        // What does not fit the column does not exist either.
        let wanted = version.map(|version| i32::try_from(version).unwrap_or(0));
        self.postgres
            .call(async {
                let client = self.postgres.client().await?;
                let row = client
                    .query_opt(query, &[&workspace, &id_or_name, &wanted])
                    .await?;
                let row = row.ok_or_else(|| Error::not_found(Entity::Function, id_or_name))?;
                Ok(Stored {
                    function: row.parsed("function")?,
                    version: row.version("version")?,
                    language: row.parsed("language")?,
                    code: row.field("code")?,
                })
            })
            .await
    }

    /// The functions of a workspace by name, with where they run.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn list(&self, workspace: &WorkspaceId) -> Result<Vec<Listed>, Error> {
        let functions = "SELECT DISTINCT ON (f.name) f.id, f.name, v.version, v.created_at
            FROM functions f JOIN function_versions v ON v.function = f.id
            WHERE f.workspace = $1 ORDER BY f.name, v.version DESC";
        let places = "SELECT p.function, p.version, c.position, s.name AS source, d.name AS destination
            FROM chain_functions c
            JOIN promotions p ON p.id = c.promotion
            JOIN chains h ON h.id = c.chain
            JOIN sources s ON s.id = h.source
            JOIN destinations d ON d.id = h.destination
            WHERE c.workspace = $1 ORDER BY s.name, d.name, c.position";
        self.postgres
            .call(async {
                let client = self.postgres.client().await?;
                let rows = client.query(functions, &[&workspace.as_str()]).await?;
                let places = client.query(places, &[&workspace.as_str()]).await?;
                rows.iter()
                    .map(|row| {
                        let id: FunctionId = row.parsed("id")?;
                        let promoted = places
                            .iter()
                            .filter(|place| place.field::<&str>("function").is_ok_and(|f| f == id.as_str()))
                            .map(|place| {
                                Ok(Promoted {
                                    source: place.field("source")?,
                                    destination: place.field("destination")?,
                                    position: place.version("position")?,
                                    version: place.version("version")?,
                                })
                            })
                            .collect::<Result<_, Error>>()?;
                        Ok(Listed {
                            id,
                            name: row.field("name")?,
                            newest: row.version("version")?,
                            put_at: row.time("created_at")?,
                            promoted,
                        })
                    })
                    .collect()
            })
            .await
    }
}
