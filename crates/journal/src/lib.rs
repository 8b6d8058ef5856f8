//! The journal: where an event is kept from the answer until Kafka has it.
//!
//! A directory of append-only segments, used by one process at a time. A record gets its identity here:
//! `seq` is dense per (journal id, partition), and a number that may have left the process is never given
//! again. What was appended survives the death of the process at once, and a loss of power as [`Sync`] says.
//! Only bytes that are as durable as the setting makes them are handed to the shipper.
//!
//! | File | Holds |
//! |---|---|
//! | `journal.lock` | nothing; locked while a process uses the directory |
//! | `journal.json` | the journal ids, the topics' partition count, how the last process ended |
//! | `<number>.journal` | records, and room behind them; taken away when Kafka has acknowledged all of them |
//! | `<number>.spare` | what was a segment and will be one again, two at most; nothing that anybody needs |
//! | `positions.json` | how far Kafka has acknowledged; saves work, proves nothing, synced at the end only |
//! | `aside.jsonl` | damaged bytes, and records that Kafka refused for good |

mod aside;
mod config;
mod disk;
mod error;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod inspect;
mod meta;
mod position;
mod reader;
mod recent;
mod recover;
mod segment;
pub mod ship;
mod state;
mod sync;
mod writer;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_event::header::Headers;
use millrace_event::{Identity, JournalId};
use millrace_service::Clock;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use disk::{Disk, RealDisk};
use meta::{Ids, Meta, Run};
use position::Position;
use state::{Shared, State};
use writer::{Command, Writer};

pub use config::{Accept, Config, Sync};
pub use disk::replace;
pub use error::{AppendError, OpenError, ReadError};
pub use inspect::Inspection;
pub use reader::{Batch, Limits, Reader, Shipped};
pub use recover::{Kept, Recovered};
pub use state::{Depth, Health};

/// Requests that wait for the writer; more wait in front of it.
const QUEUE: usize = 1024;
/// How often the lock is tried, and the pause in between: whoever inspects a journal holds it for a moment.
const LOCK_TRIES: (u32, Duration) = (20, Duration::from_millis(25));

/// Which topic a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Topic {
    /// Accepted events.
    Ingest,
    /// Refused events, set aside.
    Dlq,
}

impl Topic {
    /// Every topic.
    pub const ALL: [Self; 2] = [Self::Ingest, Self::Dlq];

    /// Its name in files and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Dlq => "dlq",
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Ingest => 0,
            Self::Dlq => 1,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.code() == code)
    }
}

/// One partition of one topic: the records in it are ordered, numbered and shipped on their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: u32,
}

/// What is to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it goes.
    pub topic: Topic,
    /// Its partition there.
    pub partition: u32,
    /// The Kafka key.
    pub key: Vec<u8>,
    /// Kafka headers; the identity is added when it is shipped.
    pub headers: Headers,
    /// The Kafka value.
    pub value: Vec<u8>,
}

/// An open journal. Dropped without [`Journal::close`] it is as if the process had been killed.
#[derive(Debug)]
pub struct Journal {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    ids: Ids,
    meta: Mutex<Meta>,
    dir: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

impl Journal {
    /// Opens the directory, making it where it is missing, and recovers what is in it. Blocks on the disk.
    ///
    /// # Errors
    /// When another process has it, its identity is lost, or the disk refuses.
    pub fn open(config: &Config, clock: Arc<dyn Clock>) -> Result<(Self, Recovered), OpenError> {
        Self::open_on(config, clock, Arc::new(RealDisk))
    }

    fn open_on(
        config: &Config,
        clock: Arc<dyn Clock>,
        disk: Arc<dyn Disk>,
    ) -> Result<(Self, Recovered), OpenError> {
        let dir = config.dir.clone();
        std::fs::create_dir_all(&dir).map_err(OpenError::io(&dir))?;
        let lock = lock(&dir)?;
        let meta = open_meta(&dir, config.sync)?;
        let (kept, next, number) = recover::recover(&dir, &meta, clock.as_ref())?;
        disk.sync_dir(&dir).map_err(OpenError::io(&dir))?;

        let recovered = kept.recovered();
        let ids = meta.ids();
        let shared = Arc::new(Shared::new(
            &dir,
            config,
            clock,
            meta.epochs.clone(),
            State::of(kept, config.recent.as_usize()),
        ));
        let (commands, queue) = mpsc::channel(QUEUE);
        Writer::new(Arc::clone(&shared), config, disk, ids, next, number)
            .spawn(queue)
            .map_err(OpenError::io(&dir))?;
        let journal = Self {
            shared,
            commands,
            ids,
            meta: Mutex::new(meta),
            dir,
            _lock: lock,
        };
        Ok((journal, recovered))
    }

    /// The id under which records of `topic` are numbered now.
    pub fn id(&self, topic: Topic) -> JournalId {
        self.ids.of(topic)
    }

    /// Keeps all of `entries`, or none, and says which identities they got. Returns once they are as durable
    /// as the setting promises.
    ///
    /// # Errors
    /// When they were not taken.
    ///
    /// # Cancellation
    /// They may be taken all the same.
    pub async fn append(&self, entries: Vec<Entry>) -> Result<Vec<Identity>, AppendError> {
        let appended = self.append_each(vec![entries]).await;
        appended.into_iter().next().unwrap_or(Err(AppendError::Closed))
    }

    /// As [`Journal::append`] for several requests at once, each by itself: the identities of one that was taken, or why
    /// it was not.
    ///
    /// # Cancellation
    /// They may be taken all the same.
    pub async fn append_each(&self, requests: Vec<Vec<Entry>>) -> Vec<Result<Vec<Identity>, AppendError>> {
        let count = requests.len();
        if requests.iter().all(Vec::is_empty) {
            return vec![Ok(Vec::new()); count];
        }
        let closed = || vec![Err(AppendError::Closed); count];
        let (reply, answer) = oneshot::channel();
        match self.commands.send(Command::Append { requests, reply }).await {
            Ok(()) => answer.await.unwrap_or_else(|_| closed()),
            Err(_) => closed(),
        }
    }

    /// Returns once Kafka has acknowledged everything that got `identities` from [`Journal::append`] of this
    /// process, or has refused it for good. Waits for as long as that takes.
    ///
    /// # Cancellation
    /// Loses nothing.
    pub async fn acknowledged(&self, identities: &[Identity]) {
        let mut ends: BTreeMap<Lane, u64> = BTreeMap::new();
        for identity in identities {
            for topic in Topic::ALL {
                if self.ids.of(topic) == identity.journal {
                    let partition = identity.partition;
                    let end = ends.entry(Lane { topic, partition }).or_default();
                    *end = (*end).max(identity.seq + 1);
                }
            }
        }
        let mut acknowledgements = self.shared.acknowledgements();
        // The sender lives as long as the journal.
        drop(
            acknowledgements
                .wait_for(|_| self.shared.is_acknowledged(&ends))
                .await,
        );
    }

    /// Returns once Kafka has acknowledged everything that earlier processes left.
    ///
    /// # Cancellation
    /// Loses nothing.
    pub async fn recovered_acknowledged(&self) {
        let mut acknowledgements = self.shared.acknowledgements();
        let shipped = acknowledgements.wait_for(|_| self.shared.lock().recovered_is_acknowledged());
        // The sender lives as long as the journal.
        drop(shipped.await);
    }

    /// The end that the shipper reads from.
    pub fn reader(&self) -> Reader {
        Reader::new(Arc::clone(&self.shared))
    }

    /// What the journal holds.
    pub fn depth(&self) -> Depth {
        self.shared.depth()
    }

    /// Whether it takes more.
    pub fn health(&self) -> Health {
        self.shared.health()
    }

    /// Syncs since it was opened.
    pub fn syncs(&self) -> u64 {
        self.shared.syncs()
    }

    /// How many partitions the topics had when Kafka was last asked.
    pub fn partitions(&self) -> Option<u32> {
        self.meta
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .partitions
    }

    /// Remembers how many partitions the topics have. Blocks on the disk.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn remember_partitions(&self, partitions: u32) -> std::io::Result<()> {
        let mut meta = self.meta.lock().unwrap_or_else(PoisonError::into_inner);
        if meta.partitions == Some(partitions) {
            return Ok(());
        }
        meta.partitions = Some(partitions);
        meta.store(&self.dir)
    }

    /// Takes no more, makes everything durable, and notes that the journal was closed in order. What is not
    /// shipped stays for the next process.
    ///
    /// # Errors
    /// When the disk refuses; the next process then finds a journal that was not closed.
    ///
    /// # Cancellation
    /// The journal counts as not closed.
    pub async fn close(&self) -> std::io::Result<()> {
        let (reply, done) = oneshot::channel();
        let sent = self.commands.send(Command::Close { reply }).await;
        let durable = sent.is_ok() && done.await.unwrap_or(false);
        self.shared.tidy(true)?;
        if !durable {
            return Err(std::io::Error::other("the last bytes are not durable"));
        }
        let mut meta = self.meta.lock().unwrap_or_else(PoisonError::into_inner);
        meta.run.clean = true;
        meta.store(&self.dir)
    }
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = lock_path(dir);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(OpenError::io(&path))?;
    for attempt in 1..=LOCK_TRIES.0 {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) if attempt < LOCK_TRIES.0 => {
                std::thread::sleep(LOCK_TRIES.1);
            }
            Err(std::fs::TryLockError::WouldBlock) => break,
            Err(std::fs::TryLockError::Error(source)) => return Err(OpenError::Io { path, source }),
        }
    }
    Err(OpenError::Locked(dir.to_owned()))
}

fn lock_path(dir: &Path) -> PathBuf {
    dir.join("journal.lock")
}

/// Loads or makes `journal.json`, and notes in it that this process now uses the directory.
fn open_meta(dir: &Path, sync: Sync) -> Result<Meta, OpenError> {
    let path = Meta::path(dir);
    let boot = meta::boot();
    let run = Run {
        sync,
        boot: boot.clone(),
        clean: false,
    };
    let mut dispensable = false;
    let meta = match Meta::load(dir).map_err(OpenError::io(&path))? {
        Some(mut meta) => {
            dispensable = true;
            if meta.may_have_lost_shipped_bytes(boot.as_deref()) {
                dispensable = false;
                meta.epochs.push(Ids::mint().map_err(OpenError::io(&path))?);
                tracing::warn!(
                    "the last run may have lost bytes it had shipped, numbering starts anew under a new id"
                );
            }
            meta.run = run;
            meta
        }
        None if recover::segments(dir)?.is_empty() => {
            Meta::new(Ids::mint().map_err(OpenError::io(&path))?, run)
        }
        None => return Err(OpenError::Orphaned(dir.to_owned())),
    };
    match meta.store(dir) {
        Ok(()) => Ok(meta),
        // What is in the journal must be shipped even from a full disk. Without syncs the note matters.
        Err(error) if dispensable && sync != Sync::Os => {
            tracing::warn!(%error, "journal.json could not be written");
            Ok(meta)
        }
        Err(source) => Err(OpenError::Io { path, source }),
    }
}

#[cfg(test)]
mod tests;
