//! Where rows go: the destinations that a chunk names, with their settings, and the tables that these lead to.
//!
//! The table of a row is a function of its record and of its destination's layout, which never changes: whoever
//! finishes a plan finds the same tables. So a chunk is not begun before each of its destinations is known. A
//! destination that Postgres has no row of, such as one that was removed with rows on their way, is as one without
//! settings.

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use millrace_store::destinations::{Configured, Directory, InvalidSetting, Kind, Known, TableLayout};
use millrace_store::notice::{self, Notice};
use millrace_store::{Locks, Postgres, Redis};
use millrace_warehouse::{Database, TableName, Turn, Turns};

use crate::claim::Claim;
use crate::error::Error;
use crate::sort::Parsed;

/// Between two attempts to ask for a destination that nobody knows.
const PAUSE: Duration = Duration::from_secs(1);

/// What is known of the installation's destinations.
#[derive(Debug)]
pub struct Destinations {
    directory: Arc<Directory>,
    shared: Database,
}

/// The destinations of a chunk.
#[derive(Debug)]
pub struct Targets<'a> {
    of: &'a Destinations,
    known: HashMap<String, Known>,
}

/// Where a row goes.
#[derive(Clone, Debug)]
pub struct Target {
    /// The table that it is written into.
    pub table: TableName,
    /// The destination, where it has a row of its own; settings that cannot be read keep its rows waiting.
    pub destination: Option<Result<Arc<Configured>, InvalidSetting>>,
}

impl Destinations {
    /// Over what is known; `shared` is the database of tables that several workspaces have in common.
    pub const fn new(directory: Arc<Directory>, shared: Database) -> Self {
        Self { directory, shared }
    }

    /// What every destination of these records is. Waits for Postgres where one is not known.
    ///
    /// # Errors
    /// [`Error::Revoked`].
    pub async fn of(&self, parsed: &[Parsed<'_>], claim: &Claim) -> Result<Targets<'_>, Error> {
        let envelopes = parsed.iter().filter_map(|parsed| parsed.envelope.as_ref());
        let outputs = envelopes.flat_map(|envelope| &envelope.outputs);
        let ids: BTreeSet<&str> = outputs.map(|output| output.destination.as_str()).collect();
        let mut known = HashMap::with_capacity(ids.len());
        for id in ids {
            known.insert(id.to_owned(), self.find(id, claim).await?);
        }
        Ok(Targets { of: self, known })
    }

    /// No destination at all: for chunks without rows.
    pub fn none(&self) -> Targets<'_> {
        Targets {
            of: self,
            known: HashMap::new(),
        }
    }

    async fn find(&self, id: &str, claim: &Claim) -> Result<Known, Error> {
        loop {
            match self.directory.find(id).await {
                Ok(known) => return Ok(known),
                Err(error) => {
                    tracing::warn!(destination = id, %error, "a destination is not known, its partition waits");
                    claim.waits_for(format!("destination {id} is not known: {error}"));
                }
            }
            tokio::select! {
                biased;
                () = claim.revoked.cancelled() => return Err(Error::Revoked),
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
}

impl Targets<'_> {
    /// Where a row of that destination goes that names this table.
    pub fn of(&self, destination: &str, named: TableName) -> Target {
        let directory = &self.of.directory;
        let destination = match self.known.get(destination) {
            Some(Known::Destination(configured)) if configured.settings.kind() == Kind::Postgres => {
                let table = in_postgres(configured.destination.id.as_str(), &named).unwrap_or(named);
                let destination = Some(Ok(Arc::clone(configured)));
                return Target { table, destination };
            }
            // A table that several destinations name is kept as the one wants whose own it is.
            Some(Known::Destination(configured)) => {
                let owner = directory.owner(named.database().as_str(), named.table());
                Some(Ok(owner.unwrap_or_else(|| Arc::clone(configured))))
            }
            Some(Known::Unreadable(error)) => Some(Err(error.clone())),
            Some(Known::Absent) | None => None,
        };
        let settings = destination
            .iter()
            .flatten()
            .next()
            .and_then(|one| one.settings.clickhouse());
        let is_shared = settings.is_some_and(|settings| settings.layout() == TableLayout::Shared);
        let shared = || TableName::new(self.of.shared.clone(), named.table()).ok();
        let table = is_shared.then(shared).flatten().unwrap_or(named);
        Target { table, destination }
    }
}

/// What stands in front of the id of a PostgreSQL destination where a table's database has its place. One name can be a
/// table in two servers; plans, tokens and copies must tell them apart.
const POSTGRES_DATABASE: &str = "postgres-";

/// A table of a PostgreSQL destination, as everything here knows it.
fn in_postgres(id: &str, named: &TableName) -> Option<TableName> {
    let database: Database = format!("{POSTGRES_DATABASE}{id}").parse().ok()?;
    TableName::new(database, named.table()).ok()
}

/// Keeps what is known fresh until dropped: by notices, and by asking every `poll`. `heard` is told how each look
/// went.
pub async fn follow(
    directory: Arc<Directory>,
    redis: Redis,
    poll: Duration,
    heard: impl FnMut(Result<(), millrace_store::Error>) + Send,
) {
    let told = Arc::clone(&directory);
    let listen = notice::listen(redis, move |notice| match notice {
        Notice::ConfigurationChanged | Notice::Missed => told.changed(),
        Notice::KeyRevoked(_) | Notice::WorkspaceChanged(_) => {}
    });
    tokio::join!(listen, directory.follow(poll, heard));
}

/// A directory over the Postgres at `url`. Connects to nothing yet.
///
/// # Errors
/// The address cannot be read.
pub fn directory(url: &str) -> Result<Arc<Directory>, millrace_store::Error> {
    let postgres = Postgres::new(&millrace_store::postgres::Config::new(url))?;
    Ok(Arc::new(Directory::new(postgres)))
}

/// How long a change of a table waits for those of other processes.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
/// Connections for locks: one for each change of a table that runs at once.
const LOCK_CONNECTIONS: usize = 4;

/// Turns at changing tables: a lock in Postgres for each. Where Postgres is away the change goes on without.
#[derive(Debug)]
pub struct TableLocks(Locks);

impl TableLocks {
    /// On connections of their own to the Postgres at `url`.
    ///
    /// # Errors
    /// The address cannot be read.
    pub fn new(url: &str) -> Result<Self, millrace_store::Error> {
        let mut config = millrace_store::postgres::Config::new(url);
        config.connections = LOCK_CONNECTIONS;
        Ok(Self(Locks::new(Postgres::new(&config)?)))
    }
}

impl Turns for TableLocks {
    fn take(&self, table: &TableName) -> Pin<Box<dyn Future<Output = Option<Turn>> + Send>> {
        let (locks, name) = (self.0.clone(), format!("table {table}"));
        Box::pin(async move {
            match locks.take(&name, LOCK_PATIENCE).await {
                Ok(Some(lock)) => Some(Box::new(lock) as Turn),
                Ok(None) => {
                    tracing::warn!(
                        lock = name,
                        "somebody else changes a table for long, going on beside"
                    );
                    None
                }
                Err(error) => {
                    tracing::warn!(lock = name, %error, "a table is changed without its lock");
                    None
                }
            }
        })
    }
}
