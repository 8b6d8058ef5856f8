//! Where rows go: the destinations that a chunk names, with their settings, and the tables that these lead to.
//!
//! The table of a row is a function of its record and of its destination's layout, which never changes: whoever
//! finishes a plan finds the same tables. So a chunk is not begun before each of its destinations is known. A
//! destination that Postgres has no row of, such as one that was removed with rows on their way, is as one without
//! settings.

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_event::destination::postgres::table_of;
use millrace_store::destinations::{Configured, Directory, InvalidSetting, Kind, Known, TableLayout};
use millrace_store::notice::{self, Notice};
use millrace_store::{Locks, Postgres, Redis};
use millrace_warehouse::{Database, Layout, TableName, Turn, Turns, Warehouse};
use tokio::time::Instant;

use crate::claim::Claim;
use crate::error::Error;
use crate::sort::Parsed;

/// Between two attempts to ask for a destination that nobody knows.
const PAUSE: Duration = Duration::from_secs(1);

/// Between two attempts to make a view.
const VIEW_PAUSE: Duration = Duration::from_secs(10);
/// Views remembered as made; past it all are made again, which changes nothing.
const MOST_VIEWS: usize = 10_000;

/// What is known of the installation's destinations.
#[derive(Debug)]
pub struct Destinations {
    directory: Arc<Directory>,
    shared: Database,
    warehouse: Warehouse,
    /// Views of shared tables: when each may be made again where that failed, nothing where it is there.
    views: Mutex<HashMap<TableName, Option<Instant>>>,
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
    pub fn new(directory: Arc<Directory>, shared: Database, warehouse: Warehouse) -> Self {
        Self {
            directory,
            shared,
            warehouse,
            views: Mutex::default(),
        }
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
        Box::pin(self.show(parsed, &known)).await;
        Ok(Targets { of: self, known })
    }

    /// Makes the views by which workspaces see their rows of shared tables, each once. Rows do not wait for that: where
    /// it fails it is tried again later.
    async fn show(&self, parsed: &[Parsed<'_>], known: &HashMap<String, Known>) {
        let shared: HashMap<&str, &Arc<Configured>> = known
            .iter()
            .filter_map(|(id, known)| match known {
                Known::Destination(configured) if is_shared(configured) => Some((id.as_str(), configured)),
                _ => None,
            })
            .collect();
        if shared.is_empty() {
            return;
        }
        let envelopes = parsed.iter().filter_map(|parsed| parsed.envelope.as_ref());
        let outputs = envelopes.flat_map(|envelope| &envelope.outputs);
        let named: BTreeSet<(&str, &str)> = outputs
            .map(|output| (output.destination.as_str(), output.table.as_str()))
            .filter(|(destination, _)| shared.contains_key(destination))
            .collect();
        for (destination, named) in named {
            if let (Some(configured), Ok(view)) = (shared.get(destination), named.parse()) {
                self.show_one(configured, view).await;
            }
        }
    }

    async fn show_one(&self, configured: &Configured, view: TableName) {
        let Ok(table) = TableName::new(self.shared.clone(), view.table()) else {
            return;
        };
        let now = Instant::now();
        match self.views().get(&view) {
            Some(None) => return,
            Some(Some(again_at)) if now < *again_at => return,
            Some(Some(_)) | None => {}
        }
        let Some(settings) = configured.settings.clickhouse() else {
            return;
        };
        let made = async {
            self.warehouse
                .create_table(&table, &Layout::from(settings))
                .await?;
            self.warehouse
                .create_share(&table, &view, configured.workspace.as_str())
                .await
        };
        let again_at = match made.await {
            Ok(()) => None,
            Err(error) => {
                tracing::warn!(%view, error = %error, "a view of a shared table could not be made, its rows are in the table");
                Some(now + VIEW_PAUSE)
            }
        };
        let mut views = self.views();
        if views.len() >= MOST_VIEWS {
            views.clear();
        }
        views.insert(view, again_at);
    }

    fn views(&self) -> std::sync::MutexGuard<'_, HashMap<TableName, Option<Instant>>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
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
                let table = table_of(configured.destination.id.as_str(), &named.to_string());
                let table = table.parse().unwrap_or(named);
                let destination = Some(Ok(Arc::clone(configured)));
                return Target { table, destination };
            }
            Some(Known::Destination(configured)) if is_shared(configured) => {
                let table = TableName::new(self.of.shared.clone(), named.table()).unwrap_or(named);
                let destination = Some(Ok(Arc::clone(configured)));
                return Target { table, destination };
            }
            // A table that several destinations name is kept as the one wants whose own it is.
            Some(Known::Destination(configured)) => {
                let owner = directory.owner(named.database().as_str(), named.table());
                let owner = owner.filter(|owner| !is_shared(owner));
                Some(Ok(owner.unwrap_or_else(|| Arc::clone(configured))))
            }
            Some(Known::Unreadable(error)) => Some(Err(error.clone())),
            Some(Known::Absent) | None => None,
        };
        Target {
            table: named,
            destination,
        }
    }
}

fn is_shared(configured: &Configured) -> bool {
    let settings = configured.settings.clickhouse();
    settings.is_some_and(|settings| settings.layout() == TableLayout::Shared)
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
