//! What is known of every destination, kept fresh for those who write to them.
//!
//! Postgres is asked when a notice says that something changed, and every little while, since notices may be missed.
//! While it is away what is known goes on. A destination that nobody knew before it went away is not known to be
//! absent: who asks for it has to wait.
//!
//! All destinations are held, each at most 4 KiB of settings; of ids that do not exist at most [`MOST_ABSENT`].

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::{Configured, Destinations, Everything, Kind};
use crate::chains::ConfigVersion;
use crate::destinations::InvalidSetting;
use crate::{DestinationId, Error, Postgres};

/// Ids remembered as absent; past this the memory starts over.
const MOST_ABSENT: usize = 10_000;

/// What is known of an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// The destination.
    Destination(Arc<Configured>),
    /// There is one, with settings that this program cannot read.
    Unreadable(InvalidSetting),
    /// Postgres answered that there is none.
    Absent,
}

/// What is known of every destination.
#[derive(Debug)]
pub struct Directory {
    destinations: Destinations,
    picture: Mutex<Option<Picture>>,
    /// One reads at a time; the others have it from there.
    turn: tokio::sync::Mutex<()>,
    changed: Notify,
}

#[derive(Debug)]
struct Picture {
    version: ConfigVersion,
    destinations: HashMap<DestinationId, Result<Arc<Configured>, InvalidSetting>>,
    by_table: HashMap<(String, String), DestinationId>,
    absent: HashSet<String>,
}

impl Picture {
    fn of(everything: Everything) -> Self {
        let Everything {
            version,
            destinations,
        } = everything;
        let tables = destinations.values().flatten();
        let by_table = tables
            .filter(|one| one.settings.kind() == Kind::ClickHouse)
            .map(|one| {
                let destination = &one.destination;
                let table = (destination.database.clone(), destination.table.clone());
                (table, destination.id.clone())
            });
        Self {
            version,
            by_table: by_table.collect(),
            destinations,
            absent: HashSet::new(),
        }
    }

    fn get(&self, id: &str) -> Option<Known> {
        let id: DestinationId = match id.parse() {
            Ok(id) => id,
            Err(_) => return Some(Known::Absent),
        };
        match self.destinations.get(&id) {
            Some(Ok(configured)) => Some(Known::Destination(Arc::clone(configured))),
            Some(Err(error)) => Some(Known::Unreadable(error.clone())),
            None => self.absent.contains(id.as_str()).then_some(Known::Absent),
        }
    }
}

impl Directory {
    /// Knows nothing yet.
    pub fn new(postgres: Postgres) -> Self {
        Self {
            destinations: Destinations::new(postgres),
            picture: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// What is known of an id; nothing where Postgres has to be asked.
    pub fn known(&self, id: &str) -> Option<Known> {
        self.picture().as_ref()?.get(id)
    }

    /// The destination whose own table in ClickHouse this is, where it is one's.
    pub fn owner(&self, database: &str, table: &str) -> Option<Arc<Configured>> {
        let picture = self.picture();
        let picture = picture.as_ref()?;
        let id = picture.by_table.get(&(database.to_owned(), table.to_owned()))?;
        picture.destinations.get(id)?.as_ref().ok().map(Arc::clone)
    }

    /// What is known of an id, asking Postgres where that is nothing.
    ///
    /// # Errors
    /// When Postgres does not answer, so that nothing is known.
    ///
    /// # Cancellation
    /// Leaves nothing behind.
    pub async fn find(&self, id: &str) -> Result<Known, Error> {
        if let Some(known) = self.known(id) {
            return Ok(known);
        }
        let turn = self.turn.lock().await;
        if let Some(known) = self.known(id) {
            return Ok(known);
        }
        self.read().await?;
        drop(turn);
        let mut picture = self.picture();
        let Some(picture) = picture.as_mut() else {
            return Ok(Known::Absent);
        };
        if let Some(known) = picture.get(id) {
            return Ok(known);
        }
        // Postgres was asked after somebody wanted it: it is not there.
        if picture.absent.len() >= MOST_ABSENT {
            picture.absent.clear();
        }
        picture.absent.insert(id.to_owned());
        Ok(Known::Absent)
    }

    /// Reads what is newer; what is known stays where Postgres does not answer.
    ///
    /// # Errors
    /// When Postgres does not answer.
    ///
    /// # Cancellation
    /// Leaves nothing behind.
    pub async fn refresh(&self) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        self.read().await
    }

    /// Somebody says that something changed: [`Self::follow`] asks at once.
    pub fn changed(&self) {
        self.changed.notify_one();
    }

    /// Whether it was ever read.
    pub fn is_known(&self) -> bool {
        self.picture().is_some()
    }

    /// Keeps it fresh until dropped; `heard` is told how each look went.
    ///
    /// # Cancellation
    /// Nothing is lost.
    pub async fn follow(&self, poll: Duration, mut heard: impl FnMut(Result<(), Error>) + Send) {
        loop {
            heard(self.refresh().await);
            // A notice that comes in the meantime is kept: the next wait ends at once.
            drop(tokio::time::timeout(poll, self.changed.notified()).await);
        }
    }

    async fn read(&self) -> Result<(), Error> {
        let known = self.picture().as_ref().map(|picture| picture.version);
        let Some(mut newer) = self.destinations.newer(known).await? else {
            return Ok(());
        };
        let mut picture = self.picture();
        for (id, one) in &mut newer.destinations {
            let Err(error) = &one else { continue };
            let before = picture.as_ref().and_then(|picture| picture.destinations.get(id));
            let kept = before.and_then(|before| before.as_ref().ok());
            tracing::error!(destination = %id, %error, kept = kept.is_some(), "a destination's settings cannot be read");
            if let Some(kept) = kept {
                *one = Ok(Arc::clone(kept));
            }
        }
        *picture = Some(Picture::of(newer));
        Ok(())
    }

    fn picture(&self) -> std::sync::MutexGuard<'_, Option<Picture>> {
        self.picture.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
