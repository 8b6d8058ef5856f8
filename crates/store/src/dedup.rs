//! The memory of `message_id`s: an event that a client sends twice is accepted once.
//!
//! An id is reserved before its event goes to the journal and marked done after: `SET pending` → append →
//! `SET done`. A copy that meets `done` is a duplicate. One that meets a pending must wait for its outcome,
//! because the event may yet fail to be journaled. When a process dies in between, its next run settles what
//! it left: see [`Settlement`].
//!
//! This is a memory and no ledger. Pendings expire, Redis can be away or lose its data; then an event may be
//! accepted twice and never refused or lost: availability goes before uniqueness, and the caller counts it.
//!
//! Ids are kept as the first 128 bits of their SHA-256, so that their size is ours and not the client's. All
//! keys of a workspace share one slot of a cluster. Calls that are ready at the same moment share a script, which
//! has up to [`CHUNK`] ids.

mod fingerprints;
mod group;
mod settlement;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fred::prelude::{KeysInterface, SetsInterface};
use millrace_event::JournalId;
use tokio::time::Instant;

use crate::id::random_text;
use crate::redis::gather::Gather;
use crate::redis::script::Script;
use crate::redis::{Redis, key};
use crate::{Error, Part, WorkspaceId};

pub(crate) use fingerprints::Fingerprints;
pub use fingerprints::{Fingerprint, MessageId};
use group::{Answer, Question, Step};
pub use settlement::{Settled, Settlement};

/// Most ids that one script takes; a script holds up every other client of the server while it runs.
pub const CHUNK: usize = 1000;

/// Most workspaces whose registration is remembered.
const REGISTERED_LIMIT: usize = 10_000;

static RESERVE: Script = Script::new(concat!(
    include_str!("dedup/pending.lua"),
    include_str!("dedup/reserve.lua")
));
static DONE: Script = Script::new(concat!(
    include_str!("dedup/pending.lua"),
    include_str!("dedup/done.lua")
));
static RELEASE: Script = Script::new(include_str!("dedup/release.lua"));

/// How long things are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long after an event its copies are known as such.
    pub live: Duration,
    /// The same for imports, which are repeated over days.
    pub import: Duration,
    /// How long a reservation holds when nobody settles it. After that, a client's repeat may become a second
    /// event.
    pub pending: Duration,
}

impl Default for Config {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(60 * 60);
        Self {
            live: HOUR * 24,
            import: HOUR * 24 * 7,
            pending: HOUR / 6,
        }
    }
}

/// Which of the two memories an event falls under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// An event as it happens.
    Live,
    /// History.
    Import,
}

/// What is known about a message id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reservation {
    /// Nothing was; it is this call's now, to be ended with [`Dedup::done`] or [`Dedup::release`].
    Reserved,
    /// Its event was accepted before: a duplicate.
    Done,
    /// This process, or an earlier run of it on the same journal, is about to accept it: wait for the outcome.
    PendingOwn,
    /// Another process is.
    PendingOther(JournalId),
    /// The same id stands earlier in this very call; its fate is that one's.
    Repeated,
}

/// The memory, as one run of a process with one journal uses it. Clones are the same run.
#[derive(Clone, Debug)]
pub struct Dedup {
    redis: Redis,
    journal: JournalId,
    run: Arc<str>,
    config: Config,
    /// Workspaces where this run is on the list that a later one settles by, and since when.
    registered: Arc<Mutex<HashMap<WorkspaceId, Instant>>>,
    together: Gather<Question, Answer>,
}

impl Dedup {
    /// A new run of the process that owns `journal`.
    ///
    /// # Errors
    /// When there are no random bytes to name the run.
    pub fn new(redis: Redis, journal: JournalId, config: Config) -> Result<Self, Error> {
        Ok(Self {
            redis,
            journal,
            run: random_text(8)?.into(),
            config,
            registered: Arc::default(),
            together: Gather::default(),
        })
    }

    /// Says what is known about each id, and reserves those that are new. The answers are in the order of the
    /// ids.
    ///
    /// # Errors
    /// When Redis is away or slow: accept the events, count them, and still call [`Dedup::done`] after the
    /// append, for the call may have taken effect.
    ///
    /// # Cancellation
    /// What was reserved stays so until it expires.
    pub async fn reserve(
        &self,
        workspace: &WorkspaceId,
        message_ids: &[impl MessageId],
    ) -> Result<Vec<Reservation>, Error> {
        if message_ids.is_empty() {
            return Ok(Vec::new());
        }
        self.register(workspace).await?;
        if let [_] = message_ids {
            return self.ask(workspace, Step::Reserve, collected(message_ids)).await;
        }
        let mut answers = vec![Reservation::Repeated; message_ids.len()];
        let mut first = HashSet::with_capacity(message_ids.len());
        let mut places = Vec::with_capacity(message_ids.len());
        let mut fingerprints = Fingerprints::with_capacity(message_ids.len());
        for (place, id) in message_ids.iter().map(MessageId::fingerprint).enumerate() {
            if first.insert(id) {
                places.push(place);
                fingerprints.push(id);
            }
        }
        let known = self.ask(workspace, Step::Reserve, fingerprints).await?;
        for (place, known) in places.iter().zip(known) {
            if let Some(answer) = answers.get_mut(*place) {
                *answer = known;
            }
        }
        Ok(answers)
    }

    /// Marks ids as done: their events are in the journal. Also for ids that could not be reserved.
    ///
    /// # Errors
    /// When Redis is away or slow: those ids stay pending until they expire.
    ///
    /// # Cancellation
    /// They may be marked.
    pub async fn done(
        &self,
        workspace: &WorkspaceId,
        window: Window,
        message_ids: &[impl MessageId],
    ) -> Result<(), Error> {
        self.tell(workspace, window.into(), message_ids).await
    }

    /// Gives up reservations of this run: their events did not get into the journal. What is not this run's
    /// is left as it is.
    ///
    /// # Errors
    /// When Redis is away or slow: those ids stay pending until they expire.
    ///
    /// # Cancellation
    /// They may be released.
    pub async fn release(
        &self,
        workspace: &WorkspaceId,
        message_ids: &[impl MessageId],
    ) -> Result<(), Error> {
        self.tell(workspace, Step::Release, message_ids).await
    }

    async fn tell(
        &self,
        workspace: &WorkspaceId,
        step: Step,
        message_ids: &[impl MessageId],
    ) -> Result<(), Error> {
        let fingerprints = collected(message_ids);
        match fingerprints.is_empty() {
            true => Ok(()),
            false => self.ask(workspace, step, fingerprints).await.map(drop),
        }
    }

    /// Asks together with whoever else asks at this moment.
    async fn ask(&self, workspace: &WorkspaceId, step: Step, fingerprints: Fingerprints) -> Answer {
        let question = Question {
            workspace: workspace.clone(),
            step,
            fingerprints,
        };
        let answer = self.together.call(question, || {
            let dedup = self.clone();
            move |questions| group::ask(dedup.clone(), questions)
        });
        let gone = || Error::Unavailable {
            part: Part::Redis,
            source: "the process ends".into(),
        };
        answer.await.unwrap_or_else(|| Err(gone()))
    }

    /// What earlier runs of this process left pending; to be settled once at start. New requests may be served
    /// meanwhile.
    ///
    /// # Errors
    /// When Redis is away or slow; it can be tried again later.
    pub async fn settlement(&self) -> Result<Settlement<'_>, Error> {
        let runs = key::runs(self.redis.prefix(), self.journal);
        let members: Vec<String> = self.redis.call(self.redis.client().smembers(runs)).await?;
        Ok(Settlement::of(self, &members))
    }

    /// Puts this run on the list of the journal's runs in a workspace, before it reserves anything there.
    pub(crate) async fn register(&self, workspace: &WorkspaceId) -> Result<(), Error> {
        let now = Instant::now();
        let fresh = |since: &Instant| now.duration_since(*since) < self.config.pending;
        {
            let registered = self.registered.lock().unwrap_or_else(PoisonError::into_inner);
            if registered.get(workspace).is_some_and(fresh) {
                return Ok(());
            }
        }
        let runs = key::runs(self.redis.prefix(), self.journal);
        let member = format!("{}:{workspace}", self.run);
        // Longer than the pendings that it leads to, registered anew before it ends.
        let lifetime = i64::try_from(self.config.pending.as_millis().saturating_mul(3)).unwrap_or(i64::MAX);
        let client = self.redis.client();
        let _: i64 = self.redis.call(client.sadd(runs.as_str(), member)).await?;
        let _: i64 = self
            .redis
            .call(client.pexpire(runs.as_str(), lifetime, None))
            .await?;
        let mut registered = self.registered.lock().unwrap_or_else(PoisonError::into_inner);
        if registered.len() >= REGISTERED_LIMIT {
            registered.clear();
        }
        registered.insert(workspace.clone(), now);
        Ok(())
    }

    /// Runs a script over the pendings of `run` and the keys of `fingerprints`: behind `arguments` come the prefix of
    /// the keys and the fingerprints, in one argument.
    async fn run_packed<T: fred::prelude::FromValue>(
        &self,
        script: &Script,
        workspace: &WorkspaceId,
        run: &str,
        mut arguments: Vec<String>,
        fingerprints: &Fingerprints,
    ) -> Result<T, Error> {
        arguments.push(key::message(self.redis.prefix(), workspace));
        arguments.push(fingerprints.text().to_owned());
        self.run_script(script, workspace, run, arguments).await
    }

    /// Runs a script over the pendings of `run`.
    async fn run_script<T: fred::prelude::FromValue>(
        &self,
        script: &Script,
        workspace: &WorkspaceId,
        run: &str,
        arguments: Vec<String>,
    ) -> Result<T, Error> {
        let pending = key::pending(self.redis.prefix(), workspace, &self.owner(run));
        let call = || (vec![pending.clone()], arguments.clone());
        script.run(&self.redis, call).await
    }

    /// The value of a pending: `p<journal><run>`.
    fn owner(&self, run: &str) -> String {
        format!("p{}{run}", self.journal)
    }

    /// What a script says of each id: a letter for each, and then the owner of each that is pending.
    fn reservations(&self, answer: &[String]) -> Result<Vec<Reservation>, Error> {
        let corrupt = || Error::Corrupt {
            part: Part::Redis,
            what: "the state of a message id",
        };
        let (letters, owners) = answer.split_first().ok_or_else(corrupt)?;
        let mut owners = owners.iter();
        letters
            .bytes()
            .map(|letter| self.reservation(letter, &mut owners).ok_or_else(corrupt))
            .collect()
    }

    /// What a script says of one id; none where it says nothing that is known.
    pub(crate) fn reservation<'o>(
        &self,
        letter: u8,
        owners: &mut impl Iterator<Item = &'o String>,
    ) -> Option<Reservation> {
        match letter {
            b'r' => Some(Reservation::Reserved),
            b'd' => Some(Reservation::Done),
            b'p' => {
                let journal: JournalId = owners.next()?.strip_prefix('p')?.get(..16)?.parse().ok()?;
                Some(match journal == self.journal {
                    true => Reservation::PendingOwn,
                    false => Reservation::PendingOther(journal),
                })
            }
            _ => None,
        }
    }

    pub(crate) const fn redis(&self) -> &Redis {
        &self.redis
    }

    /// The pendings of this run in a workspace.
    pub(crate) fn pendings(&self, workspace: &WorkspaceId) -> String {
        key::pending(self.redis.prefix(), workspace, &self.own())
    }

    /// The value of this run's pendings.
    pub(crate) fn own(&self) -> String {
        self.owner(&self.run)
    }

    /// In whole milliseconds: of a pending, of what is done, of history.
    pub(crate) fn lifetimes(&self) -> [u64; 3] {
        let Config {
            live,
            import,
            pending,
        } = self.config;
        [pending, live, import].map(|lifetime| u64::try_from(whole(lifetime)).unwrap_or(u64::MAX))
    }

    fn lifetime(&self, window: Window) -> String {
        millis(match window {
            Window::Live => self.config.live,
            Window::Import => self.config.import,
        })
    }
}

fn collected(message_ids: &[impl MessageId]) -> Fingerprints {
    message_ids.iter().map(MessageId::fingerprint).collect()
}

/// A lifetime as Redis takes it: whole milliseconds, at least one.
fn millis(duration: Duration) -> String {
    whole(duration).to_string()
}

fn whole(duration: Duration) -> u128 {
    duration.as_millis().max(1)
}
