//! What the rotor runs: every chain with its functions, as one consistent picture.

use std::collections::HashMap;
use std::sync::Arc;

use deadpool_postgres::Transaction;

use crate::functions::Language;
use crate::keyring::Sealed;
use crate::postgres::{Fields, one_moment};
use crate::workspaces::Destination;
use crate::{ChainId, Error, FunctionId, Origin, Part, Postgres, SourceId, WorkspaceId, fetch, secrets};

/// Grows with every change of the configuration. Compare for inequality: a database that was restored from a
/// backup may be at a lower one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigVersion(pub u64);

/// Every chain of the installation at one version of its configuration.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The version that this is.
    pub version: ConfigVersion,
    sources: HashMap<SourceId, Vec<Chain>>,
    secrets: HashMap<WorkspaceId, Vec<Sealed>>,
    origins: HashMap<WorkspaceId, Vec<Origin>>,
}

/// The way from a source to one destination.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Its id.
    pub id: ChainId,
    /// Counts the changes of its functions, and of what its workspace gives them, from 1.
    pub version: u64,
    /// The workspace of both ends and of the functions.
    pub workspace: WorkspaceId,
    /// Where the events come from.
    pub source: SourceId,
    /// Where the rows go.
    pub destination: Destination,
    /// What runs in between, in order; without any, events pass as they are.
    pub functions: Vec<Function>,
}

/// A function in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// The function.
    pub id: FunctionId,
    /// Its name, for people.
    pub name: Arc<str>,
    /// The version in force.
    pub version: u32,
    /// What it is written in.
    pub language: Language,
    /// Its source text; chains that run the same version share it.
    pub code: Arc<str>,
}

impl Snapshot {
    /// The chains of a source, ordered by the destination's name. Empty for a source that is not known, which
    /// is not the same as a chain without functions.
    pub fn of(&self, source: &str) -> &[Chain] {
        self.sources.get(source).map_or(&[], Vec::as_slice)
    }

    /// A workspace's secrets, by name.
    pub fn secrets(&self, workspace: &WorkspaceId) -> &[Sealed] {
        self.secrets.get(workspace).map_or(&[], Vec::as_slice)
    }

    /// Where functions of a workspace may send requests to.
    pub fn origins(&self, workspace: &WorkspaceId) -> &[Origin] {
        self.origins.get(workspace).map_or(&[], Vec::as_slice)
    }

    /// Every chain, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Chain> {
        self.sources.values().flatten()
    }
}

/// The repository of chains, for those who run them.
#[derive(Clone, Debug)]
pub struct Chains {
    postgres: Postgres,
}

impl Chains {
    /// On a pool.
    pub const fn new(postgres: Postgres) -> Self {
        Self { postgres }
    }

    /// The version of the configuration: one row by its key, cheap enough to ask every second.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn version(&self) -> Result<ConfigVersion, Error> {
        self.postgres
            .call(async {
                let client = self.postgres.client().await?;
                let statement = client.prepare_cached(VERSION).await?;
                config_version(&client.query_one(&statement, &[]).await?)
            })
            .await
    }

    /// Everything at one moment: no chain is seen half changed, and the version belongs to what is seen.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        self.postgres
            .call(async {
                let mut client = self.postgres.client().await?;
                let transaction = one_moment(&mut client).await?;
                let version = version(&transaction).await?;
                let functions = functions(&transaction).await?;
                let sources = chains(&transaction, functions).await?;
                Ok(Snapshot {
                    version,
                    sources,
                    secrets: secrets::all(&transaction).await?,
                    origins: fetch::all(&transaction).await?,
                })
            })
            .await
    }
}

const VERSION: &str = "SELECT version FROM config_version";

/// The version that a transaction sees.
pub(crate) async fn version(transaction: &Transaction<'_>) -> Result<ConfigVersion, Error> {
    config_version(&transaction.query_one(VERSION, &[]).await?)
}

fn config_version(row: &tokio_postgres::Row) -> Result<ConfigVersion, Error> {
    let version = u64::try_from(row.field::<i64>("version")?);
    version.map(ConfigVersion).map_err(|_| Error::Corrupt {
        part: Part::Postgres,
        what: "config_version",
    })
}

/// The functions in force of each chain, in order; the text of a version is read and kept once.
async fn functions(transaction: &Transaction<'_>) -> Result<HashMap<ChainId, Vec<Function>>, Error> {
    let versions = "SELECT v.function, v.version, v.language, v.code, f.name
        FROM function_versions v JOIN functions f ON f.id = v.function
        WHERE EXISTS (SELECT 1 FROM promotions p JOIN chain_functions c ON c.promotion = p.id
                      WHERE p.function = v.function AND p.version = v.version)";
    let mut texts = HashMap::new();
    for row in transaction.query(versions, &[]).await? {
        let (id, version): (FunctionId, u32) = (row.parsed("function")?, row.version("version")?);
        let function = Function {
            id: id.clone(),
            name: row.field::<&str>("name")?.into(),
            version,
            language: row.parsed("language")?,
            code: row.field::<&str>("code")?.into(),
        };
        texts.insert((id, version), function);
    }
    let places = "SELECT c.chain, p.function, p.version
        FROM chain_functions c JOIN promotions p ON p.id = c.promotion ORDER BY c.chain, c.position";
    let mut functions: HashMap<ChainId, Vec<Function>> = HashMap::new();
    for row in transaction.query(places, &[]).await? {
        let key = (row.parsed("function")?, row.version("version")?);
        let Some(function) = texts.get(&key) else {
            return Err(Error::Corrupt {
                part: Part::Postgres,
                what: "promoted version",
            });
        };
        functions
            .entry(row.parsed("chain")?)
            .or_default()
            .push(function.clone());
    }
    Ok(functions)
}

async fn chains(
    transaction: &Transaction<'_>,
    mut functions: HashMap<ChainId, Vec<Function>>,
) -> Result<HashMap<SourceId, Vec<Chain>>, Error> {
    let query =
        "SELECT c.id, c.version, c.workspace, c.source, d.id AS destination, d.name AS destination_name,
            d.database, d.\"table\", d.version AS destination_version
        FROM chains c JOIN destinations d ON d.id = c.destination ORDER BY c.source, d.name";
    let mut sources: HashMap<SourceId, Vec<Chain>> = HashMap::new();
    for row in transaction.query(query, &[]).await? {
        let id: ChainId = row.parsed("id")?;
        let chain = Chain {
            version: row.version("version")?.into(),
            workspace: row.parsed("workspace")?,
            source: row.parsed("source")?,
            destination: Destination::from_row(&row)?,
            functions: functions.remove(&id).unwrap_or_default(),
            id,
        };
        sources.entry(chain.source.clone()).or_default().push(chain);
    }
    Ok(sources)
}
