//! Write keys in memory, so that a request costs no lookup.
//!
//! A key is asked for again when its time is up, first in Redis, then in Postgres; a notice ends its time early.
//! While both are away the last answer holds, also across a start; what was never known cannot be judged, and
//! the client is asked to come again.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millrace_event::IngestCode;
use millrace_service::{Clock, Condition};
use millrace_store::keys::{Cache, Cached, Key};
use millrace_store::{KeyId, Keys as Store, Notice};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore};

use super::{Refusal, snapshot};
use crate::metrics::Metrics;

/// Lookups at a time; a flood of unknown keys must not take every connection.
const LOOKUPS: usize = 8;
/// How long Postgres is left alone after it did not answer.
const REST: Duration = Duration::from_secs(1);
/// Between a change and its being written down, so that many changes are one.
const SETTLE: Duration = Duration::from_millis(100);

/// `[keys]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyCache {
    /// How long a key is believed: between this and twice as long, so that they are not all asked for at once.
    /// It bounds how long a revoked key works where nobody could be told.
    #[serde(with = "humantime_serde")]
    pub ttl: Duration,
    /// How long the absence of a key is believed.
    #[serde(with = "humantime_serde")]
    pub absent_ttl: Duration,
    /// Most keys remembered, absent ones included.
    pub capacity: usize,
}

impl Default for KeyCache {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(30),
            absent_ttl: Duration::from_secs(10),
            capacity: 10_000,
        }
    }
}

/// The keys that this process knows.
#[derive(Debug)]
pub(crate) struct Keys {
    store: Store,
    cache: Cache,
    config: KeyCache,
    clock: Arc<dyn Clock>,
    known: Mutex<Known>,
    lookups: Semaphore,
    /// Where keys are written down.
    file: PathBuf,
    changed: Notify,
    condition: Condition,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct Known {
    keys: HashMap<KeyId, Entry>,
    away_until: Option<Instant>,
    /// Counts the notices, so that an answer from before one is not believed after it.
    notices: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    key: Option<Arc<Key>>,
    until: Instant,
}

impl Keys {
    /// Starts with the keys written down in `file`, to be asked for again at their first use.
    pub(crate) fn new(
        store: Store,
        cache: Cache,
        config: KeyCache,
        clock: Arc<dyn Clock>,
        file: PathBuf,
        condition: Condition,
        metrics: Metrics,
    ) -> Self {
        let until = clock.instant();
        let mut known = Known::default();
        for key in snapshot::load(&file) {
            known.keys.insert(
                key.id.clone(),
                Entry {
                    key: Some(Arc::new(key)),
                    until,
                },
            );
        }
        Self {
            store,
            cache,
            config,
            clock,
            known: Mutex::new(known),
            lookups: Semaphore::new(LOOKUPS),
            file,
            changed: Notify::new(),
            condition,
            metrics,
        }
    }

    /// The key of that id; none when there is none in force.
    ///
    /// # Errors
    /// When it is not known here and neither Redis nor Postgres answers.
    pub(crate) async fn find(&self, id: &KeyId) -> Result<Option<Arc<Key>>, Refusal> {
        match self.remembered(id) {
            Remembered::Fresh(key) => Ok(key),
            // Rare and large: the way of every other request is not to carry it.
            Remembered::Stale { .. } => Box::pin(self.ask_for(id)).await,
        }
    }

    async fn ask_for(&self, id: &KeyId) -> Result<Option<Arc<Key>>, Refusal> {
        let unavailable = || {
            Refusal::new(
                IngestCode::KeyLookupUnavailable,
                "the write key cannot be looked up now, send it again",
            )
        };
        let _permit = self.lookups.acquire().await.map_err(|_| unavailable())?;
        loop {
            // Somebody else may have asked in the meantime.
            let (stale, ask, notices) = match self.remembered(id) {
                Remembered::Fresh(key) => return Ok(key),
                Remembered::Stale { key, ask, notices } => (key, ask, notices),
            };
            match self.look_up(id, ask).await {
                Some(found) => {
                    if let Some(key) = self.learn(id, found, notices) {
                        return Ok(key);
                    }
                }
                None => return stale.map(Some).ok_or_else(unavailable),
            }
        }
    }

    /// Asks Redis, then Postgres unless it is left alone; none when nobody answers.
    async fn look_up(&self, id: &KeyId, ask: bool) -> Option<Found> {
        match self.cache.find(id).await {
            Ok(Cached::Key { key, left }) => return Some(Found::key(*key, left)),
            Ok(Cached::Revoked) => return Some(Found::absent(self.config.absent_ttl)),
            Ok(Cached::Unknown) => {}
            Err(error) => tracing::debug!(%error, key_id = %id, "a write key was not looked for in redis"),
        }
        if !ask {
            return None;
        }
        match self.store.find(id).await {
            Ok(None) => {
                self.condition.holds();
                Some(Found::absent(self.config.absent_ttl))
            }
            Ok(Some(key)) => {
                self.condition.holds();
                let ttl = self.config.ttl + jitter(self.config.ttl);
                if let Err(error) = self.cache.remember(&key, ttl).await {
                    tracing::debug!(%error, key_id = %id, "a write key was not kept in redis");
                }
                Some(Found::key(key, ttl))
            }
            Err(error) => {
                self.metrics.key_lookups_failed.inc();
                tracing::warn!(error = %millrace_service::Causes(&error), key_id = %id, "a write key could not be looked up");
                self.lock().away_until = Some(self.clock.instant() + REST);
                None
            }
        }
    }

    /// Takes a notice: what it is about is not believed any more.
    pub(crate) fn hear(&self, notice: &Notice) {
        let now = self.clock.instant();
        let mut known = self.lock();
        known.notices += 1;
        match notice {
            Notice::KeyRevoked(id) => {
                if let Some(entry) = known.keys.get_mut(id) {
                    // Revoked for good, so nobody needs to be asked.
                    *entry = Entry {
                        key: None,
                        until: now + self.config.absent_ttl,
                    };
                    self.changed.notify_one();
                    tracing::info!(key_id = %id, "a write key was revoked");
                }
            }
            Notice::WorkspaceChanged(workspace) => known
                .keys
                .values_mut()
                .filter(|entry| entry.key.as_ref().is_some_and(|key| key.workspace == *workspace))
                .for_each(|entry| entry.until = now),
            Notice::ConfigurationChanged => {}
            Notice::Missed => known.keys.values_mut().for_each(|entry| entry.until = now),
        }
    }

    /// True when some key can be judged whatever Postgres does.
    pub(crate) fn knows_any(&self) -> bool {
        self.lock().keys.values().any(|entry| entry.key.is_some())
    }

    /// Writes keys down as they become known, until dropped.
    ///
    /// # Cancellation
    /// The last changes may not be written.
    pub(crate) async fn keep_snapshot(self: Arc<Self>) {
        loop {
            self.changed.notified().await;
            tokio::time::sleep(SETTLE).await;
            self.store_snapshot().await;
        }
    }

    /// Writes down what is known now.
    pub(crate) async fn store_snapshot(&self) {
        let keys: Vec<_> = self
            .lock()
            .keys
            .values()
            .filter_map(|entry| entry.key.clone())
            .collect();
        let file = self.file.clone();
        match tokio::task::spawn_blocking(move || snapshot::store(&file, &keys)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "known keys could not be written down"),
            Err(error) => tracing::warn!(%error, "writing known keys down ended early"),
        }
    }

    fn remembered(&self, id: &KeyId) -> Remembered {
        let now = self.clock.instant();
        let known = self.lock();
        match known.keys.get(id) {
            Some(entry) if now < entry.until => Remembered::Fresh(entry.key.clone()),
            entry => Remembered::Stale {
                key: entry.and_then(|entry| entry.key.clone()),
                ask: known.away_until.is_none_or(|until| now >= until),
                notices: known.notices,
            },
        }
    }

    /// Believes an answer, unless a notice came since the question.
    fn learn(&self, id: &KeyId, found: Found, notices: u64) -> Option<Option<Arc<Key>>> {
        let now = self.clock.instant();
        let Found { key, ttl } = found;
        let mut known = self.lock();
        if known.notices != notices {
            return None;
        }
        known.away_until = None;
        if known.keys.len() >= self.config.capacity && !known.keys.contains_key(id) {
            // Absent keys first: they are what a stranger can make many of.
            known.keys.retain(|_, entry| entry.key.is_some());
            if known.keys.len() >= self.config.capacity {
                known.keys.retain(|_, entry| now < entry.until);
            }
        }
        let room = known.keys.len() < self.config.capacity;
        let before = if room || known.keys.contains_key(id) {
            let entry = Entry {
                key: key.clone(),
                until: now + ttl,
            };
            known.keys.insert(id.clone(), entry)
        } else {
            None
        };
        drop(known);
        let before = before.and_then(|entry| entry.key);
        if before.is_some() != key.is_some() {
            self.changed.notify_one();
        }
        Some(key)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer, and how long it is believed.
struct Found {
    key: Option<Arc<Key>>,
    ttl: Duration,
}

impl Found {
    fn key(key: Key, ttl: Duration) -> Self {
        Self {
            key: Some(Arc::new(key)),
            ttl,
        }
    }

    const fn absent(ttl: Duration) -> Self {
        Self { key: None, ttl }
    }
}

/// Anything below `most`.
fn jitter(most: Duration) -> Duration {
    let share = f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX);
    most.mul_f64(share)
}

enum Remembered {
    Fresh(Option<Arc<Key>>),
    /// `ask` is false while Postgres is left alone.
    Stale {
        key: Option<Arc<Key>>,
        ask: bool,
        notices: u64,
    },
}

#[cfg(test)]
mod tests;
