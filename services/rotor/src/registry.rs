//! Which chains an event takes: a picture of the configuration, kept fresh by asking Postgres: when a notice says that
//! something changed, and every little while, since notices may be missed.
//!
//! While Postgres is away the last picture stays in force. An event whose source is not in it waits: its key may
//! be younger than the picture. A source that stays absent for the configured time is given up once, not once per
//! event, until it appears. A version whose code does not load is waited out in the same way: another one may come.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use millrace_event::frame::{Function, Limits, Load};
use millrace_service::{Clock, Condition};
use millrace_store::chains::{self, ConfigVersion, Snapshot};
use millrace_store::functions::Language;
use millrace_store::{Chains, Origin};
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::environment::{self, Environment, Environments, Opened};
use crate::outside::Reach;
use crate::pool::Chain;

/// Sources remembered as absent, and versions as broken; past this the memory starts over.
const MOST_ABSENT: usize = 10_000;

/// The way from a source to one destination.
#[derive(Debug)]
pub struct Way {
    /// The chain's id.
    pub id: String,
    /// The chain's version.
    pub version: u64,
    /// The destination's id.
    pub destination: String,
    /// The workspace of both ends.
    pub workspace: String,
    /// The database that its rows go to.
    pub database: String,
    /// The table there, unless an event names another one.
    pub table: String,
    /// The version of the destination's settings.
    pub config_version: u64,
    /// What runs in between; `None` where events pass as they are.
    pub chain: Option<Arc<Chain>>,
}

/// The tables of all destinations, as `database.table`, with the workspace that each belongs to.
pub type Tables = Arc<HashMap<String, String>>;

/// The ways of one source, at least one.
pub type Ways = Arc<[Arc<Way>]>;

#[derive(Debug)]
struct Picture {
    version: ConfigVersion,
    sources: HashMap<String, Ways>,
    tables: Tables,
    /// Whether there are secrets that could not be opened.
    unopened: bool,
}

/// What a picture is made of.
#[derive(Debug)]
pub struct Source {
    /// The chains in Postgres.
    pub chains: Chains,
    /// What one event may use.
    pub limits: Limits,
    /// What functions read as `ctx.env`.
    pub environments: Environments,
    /// Notified when something changed.
    pub changed: Arc<Notify>,
}

/// The picture and those who wait for it.
#[derive(Debug)]
pub struct Registry {
    picture: watch::Receiver<Option<Arc<Picture>>>,
    hold: Duration,
    clock: Arc<dyn Clock>,
    /// Since when they are waited for: sources by id, and chains as [`broken`] names them.
    absent: Mutex<HashMap<String, Instant>>,
}

impl Registry {
    /// Starts to ask, at once when `changed` is notified; ends when `ended` is cancelled. `condition` holds as long
    /// as the picture is fresh, and `version` shows which one is in force.
    pub fn start(
        source: Source,
        config: &config::Registry,
        condition: Condition,
        version: Gauge,
        clock: Arc<dyn Clock>,
        ended: CancellationToken,
    ) -> Self {
        let (publish, picture) = watch::channel(None);
        let poll = config.poll;
        tokio::spawn(async move {
            ended
                .run_until_cancelled(refresh(source, poll, condition, version, publish))
                .await;
        });
        Self {
            picture,
            hold: config.hold,
            clock,
            absent: Mutex::default(),
        }
    }

    /// Resolves when there is a first picture.
    ///
    /// # Cancellation
    /// Nothing is lost.
    pub async fn ready(&self) {
        let mut picture = self.picture.clone();
        // An error means that the process is ending.
        drop(picture.wait_for(Option::is_some).await);
    }

    /// The ways of a source. Waits for one that is not known; `None` when it stayed unknown for too long.
    ///
    /// # Cancellation
    /// Safe; the time that was waited counts.
    pub async fn ways(&self, source: &str) -> Option<Ways> {
        let mut picture = self.picture.clone();
        loop {
            let found = picture
                .borrow_and_update()
                .as_ref()
                .and_then(|picture| picture.sources.get(source).cloned());
            if found.is_some() {
                self.absent().remove(source);
                return found;
            }
            let left = self.left(source, || {
                tracing::warn!(source, hold = ?self.hold, "an event waits for the configuration of its source");
            });
            if left.is_zero() {
                return None;
            }
            another(&mut picture, left).await;
        }
    }

    /// Waits for another version of a source's chain whose code does not load; says whether it is not in force any more.
    /// Each version is waited for once and not once per event.
    ///
    /// # Cancellation
    /// Safe; the time that was waited counts.
    pub async fn mended(&self, source: &str, chain: &Chain) -> bool {
        let mut picture = self.picture.clone();
        let (id, version) = (&chain.load().chain, chain.load().version);
        let key = broken(id, version);
        loop {
            let in_force = picture
                .borrow_and_update()
                .as_ref()
                .and_then(|picture| picture.sources.get(source).cloned());
            let stays = in_force.iter().flat_map(|ways| ways.iter()).any(|way| {
                let load = way.chain.as_ref().map(|chain| chain.load());
                load.is_some_and(|load| load.chain == *id && load.version == version)
            });
            if !stays {
                self.absent().remove(&key);
                return true;
            }
            let left = self.left(&key, || {
                tracing::warn!(chain = id, version, hold = ?self.hold, "events wait for another version: the code of this one does not load");
            });
            if left.is_zero() {
                return false;
            }
            another(&mut picture, left).await;
        }
    }

    /// Every way in the picture in force, by the id of its source.
    pub fn all(&self) -> Vec<(String, Ways)> {
        let picture = self.picture.borrow();
        let sources = picture.iter().flat_map(|picture| &picture.sources);
        sources
            .map(|(source, ways)| (source.clone(), Arc::clone(ways)))
            .collect()
    }

    /// The tables of all destinations in the picture in force.
    pub fn tables(&self) -> Tables {
        let picture = self.picture.borrow();
        picture
            .as_ref()
            .map(|picture| Arc::clone(&picture.tables))
            .unwrap_or_default()
    }

    /// How much longer something is waited for; `begins` is told of what was not waited for before.
    fn left(&self, what: &str, begins: impl FnOnce()) -> Duration {
        let now = self.clock.instant();
        let mut absent = self.absent();
        if absent.len() >= MOST_ABSENT && !absent.contains_key(what) {
            absent.clear();
        }
        let since = *absent.entry(what.to_owned()).or_insert_with(|| {
            begins();
            now
        });
        (since + self.hold).saturating_duration_since(now)
    }

    fn absent(&self) -> std::sync::MutexGuard<'_, HashMap<String, Instant>> {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A version of a chain that is waited out. No source's id has a blank in it.
fn broken(chain: &str, version: u64) -> String {
    format!("{chain} {version}")
}

/// Waits for another picture, so long at most. A closed channel means that the process is ending: the wait goes on until
/// whoever asks gives up.
async fn another(picture: &mut watch::Receiver<Option<Arc<Picture>>>, longest: Duration) {
    if let Ok(Err(_)) = tokio::time::timeout(longest, picture.changed()).await {
        tokio::time::sleep(longest).await;
    }
}

async fn refresh(
    source: Source,
    poll: Duration,
    condition: Condition,
    version: Gauge,
    publish: watch::Sender<Option<Arc<Picture>>>,
) {
    loop {
        let known = publish.borrow().clone();
        match newer(&source, known.as_deref()).await {
            Ok(newer) => {
                if let Some(picture) = newer {
                    tracing::info!(
                        version = picture.version.0,
                        sources = picture.sources.len(),
                        "configuration is read"
                    );
                    let number = picture.version.0;
                    publish.send_replace(Some(Arc::new(picture)));
                    version.set(i64::try_from(number).unwrap_or(i64::MAX));
                }
                condition.holds();
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "configuration cannot be read, the last one stays in force");
                // Not having the newest picture is no reason to stop working; having none is.
                if known.is_none() {
                    condition.fails(error.to_string());
                }
            }
        }
        // A notice that comes in the meantime is kept: the next wait ends at once.
        drop(tokio::time::timeout(poll, source.changed.notified()).await);
    }
}

async fn newer(source: &Source, known: Option<&Picture>) -> Result<Option<Picture>, millrace_store::Error> {
    if let Some(known) = known
        && !known.unopened
        && source.chains.version().await? == known.version
    {
        return Ok(None);
    }
    let snapshot = source.chains.snapshot().await?;
    let environments = source.environments.open(&snapshot);
    let picture = Picture::of(&snapshot, known, &environments, source.limits);
    let is_same =
        known.is_some_and(|known| known.unopened && picture.unopened && known.version == picture.version);
    Ok((!is_same).then_some(picture))
}

impl Picture {
    fn of(snapshot: &Snapshot, known: Option<&Self>, environments: &Opened, limits: Limits) -> Self {
        let mut sources: HashMap<String, Vec<Arc<Way>>> = HashMap::new();
        let mut tables = HashMap::new();
        let empty = environment::empty();
        for chain in snapshot.iter() {
            let source = chain.source.as_str();
            let before = known.and_then(|known| known.sources.get(source));
            let before = before
                .into_iter()
                .flat_map(|ways| ways.iter())
                .find(|way| way.id == chain.id.as_str());
            let given = Given {
                environment: environments.get(&chain.workspace).unwrap_or(&empty),
                origins: snapshot.origins(&chain.workspace),
                limits,
            };
            let way = Way::of(chain, before.map(Arc::as_ref), &given);
            tables.insert(way.full_name(&way.table), way.workspace.clone());
            sources.entry(source.to_owned()).or_default().push(Arc::new(way));
        }
        let sources = sources.into_iter().map(|(source, mut ways)| {
            // The order of an event's rows must not depend on the order in which the database answers.
            ways.sort_by(|a, b| a.destination.cmp(&b.destination));
            (source, Ways::from(ways))
        });
        Self {
            version: snapshot.version,
            sources: sources.collect(),
            tables: Arc::new(tables),
            unopened: environments
                .values()
                .any(|environment| environment.fault.is_some()),
        }
    }
}

impl Way {
    /// A table of this way's database, as rows name it.
    pub fn full_name(&self, table: &str) -> String {
        format!("{}.{table}", self.database)
    }

    fn of(chain: &chains::Chain, before: Option<&Self>, given: &Given<'_>) -> Self {
        let version = given.environment.version(chain.version);
        let unchanged = before.filter(|before| {
            let loaded = before.chain.as_ref().map(|chain| chain.load().version);
            before.version == chain.version && loaded.is_none_or(|loaded| loaded == version)
        });
        let runs = match unchanged {
            Some(before) => before.chain.clone(),
            None if chain.functions.is_empty() => None,
            None => written(chain, given),
        };
        Self {
            id: chain.id.as_str().to_owned(),
            version: chain.version,
            destination: chain.destination.id.as_str().to_owned(),
            workspace: chain.workspace.as_str().to_owned(),
            database: chain.destination.database.clone(),
            table: chain.destination.table.clone(),
            config_version: chain.destination.config_version,
            chain: runs,
        }
    }
}

/// What a chain has besides its functions.
struct Given<'a> {
    environment: &'a Environment,
    origins: &'a [Origin],
    limits: Limits,
}

/// The chain as workers load it.
fn written(chain: &chains::Chain, given: &Given<'_>) -> Option<Arc<Chain>> {
    let functions = chain.functions.iter().map(|function| Function {
        id: function.id.as_str().to_owned(),
        version: function.version,
        code: function.code.as_ref().to_owned(),
        typescript: function.language == Language::TypeScript,
    });
    let load = Load {
        chain: chain.id.as_str().to_owned(),
        version: given.environment.version(chain.version),
        workspace: chain.workspace.as_str().to_owned(),
        source: chain.source.as_str().to_owned(),
        destination: chain.destination.id.as_str().to_owned(),
        functions: functions.collect(),
        environment: given.environment.values.clone(),
        environment_fault: given.environment.fault.clone(),
        limits: given.limits,
    };
    let reach = Reach {
        workspace: load.workspace.clone(),
        origins: given.origins.to_vec(),
    };
    #[expect(
        clippy::expect_used,
        reason = "strings, numbers and raw JSON always serialize"
    )]
    let chain = Chain::with_reach(load, Arc::new(reach)).expect("a chain serializes");
    Some(Arc::new(chain))
}
