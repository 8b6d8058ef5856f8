//! Which chains an event takes: a picture of the configuration, kept fresh by asking Postgres.
//!
//! While Postgres is away the last picture stays in force. An event whose source is not in it waits: its key may
//! be younger than the picture. A source that stays absent for the configured time is given up once, not once per
//! event, until it appears.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use millrace_event::frame::{Function, Limits, Load, Text};
use millrace_service::{Clock, Condition};
use millrace_store::Chains;
use millrace_store::chains::{self, ConfigVersion, Snapshot};
use millrace_store::functions::Language;
use prometheus_client::metrics::gauge::Gauge;
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::pool::Chain;

/// Sources remembered as absent; past this the memory starts over.
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
}

/// The picture and those who wait for it.
#[derive(Debug)]
pub struct Registry {
    picture: watch::Receiver<Option<Arc<Picture>>>,
    hold: Duration,
    clock: Arc<dyn Clock>,
    absent: Mutex<HashMap<String, Instant>>,
}

impl Registry {
    /// Starts to ask; ends when `ended` is cancelled. `condition` holds as long as the picture is fresh, and
    /// `version` shows which one is in force.
    pub fn start(
        chains: Chains,
        config: &config::Registry,
        limits: Limits,
        condition: Condition,
        version: Gauge,
        clock: Arc<dyn Clock>,
        ended: CancellationToken,
    ) -> Self {
        let (publish, picture) = watch::channel(None);
        let poll = config.poll;
        tokio::spawn(async move {
            ended
                .run_until_cancelled(refresh(chains, poll, limits, condition, version, publish))
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
            let left = self.left(source);
            if left.is_zero() {
                return None;
            }
            // A closed channel means that the process is ending: the wait goes on until whoever asks gives up.
            if let Ok(Err(_)) = tokio::time::timeout(left, picture.changed()).await {
                tokio::time::sleep(left).await;
            }
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

    fn left(&self, source: &str) -> Duration {
        let now = self.clock.instant();
        let mut absent = self.absent();
        if absent.len() >= MOST_ABSENT && !absent.contains_key(source) {
            absent.clear();
        }
        let since = *absent.entry(source.to_owned()).or_insert_with(|| {
            tracing::warn!(source, hold = ?self.hold, "an event waits for the configuration of its source");
            now
        });
        (since + self.hold).saturating_duration_since(now)
    }

    fn absent(&self) -> std::sync::MutexGuard<'_, HashMap<String, Instant>> {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn refresh(
    chains: Chains,
    poll: Duration,
    limits: Limits,
    condition: Condition,
    version: Gauge,
    publish: watch::Sender<Option<Arc<Picture>>>,
) {
    loop {
        let known = publish.borrow().clone();
        match newer(&chains, known.as_deref(), limits).await {
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
        tokio::time::sleep(poll).await;
    }
}

async fn newer(
    chains: &Chains,
    known: Option<&Picture>,
    limits: Limits,
) -> Result<Option<Picture>, millrace_store::Error> {
    if let Some(known) = known
        && chains.version().await? == known.version
    {
        return Ok(None);
    }
    let snapshot = chains.snapshot().await?;
    Ok(Some(Picture::of(&snapshot, known, limits)))
}

impl Picture {
    fn of(snapshot: &Snapshot, known: Option<&Self>, limits: Limits) -> Self {
        let mut sources: HashMap<String, Vec<Arc<Way>>> = HashMap::new();
        let mut tables = HashMap::new();
        for chain in snapshot.iter() {
            let source = chain.source.as_str();
            let before = known.and_then(|known| known.sources.get(source));
            let before = before
                .into_iter()
                .flat_map(|ways| ways.iter())
                .find(|way| way.id == chain.id.as_str());
            let way = Way::of(chain, before.map(Arc::as_ref), limits);
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
        }
    }
}

impl Way {
    /// A table of this way's database, as rows name it.
    pub fn full_name(&self, table: &str) -> String {
        format!("{}.{table}", self.database)
    }

    fn of(chain: &chains::Chain, before: Option<&Self>, limits: Limits) -> Self {
        let unchanged = before.filter(|before| before.version == chain.version);
        let runs = match unchanged {
            Some(before) => before.chain.clone(),
            None if chain.functions.is_empty() => None,
            None => written(chain, limits),
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

/// The chain as workers load it.
fn written(chain: &chains::Chain, limits: Limits) -> Option<Arc<Chain>> {
    let functions = chain.functions.iter().map(|function| Function {
        id: function.id.as_str().to_owned(),
        version: function.version,
        code: function.code.as_ref().to_owned(),
        typescript: function.language == Language::TypeScript,
    });
    let load = Load {
        chain: chain.id.as_str().to_owned(),
        version: chain.version,
        workspace: chain.workspace.as_str().to_owned(),
        source: chain.source.as_str().to_owned(),
        destination: chain.destination.id.as_str().to_owned(),
        functions: functions.collect(),
        environment: Text(empty_object()),
        limits,
    };
    #[expect(
        clippy::expect_used,
        reason = "strings, numbers and raw JSON always serialize"
    )]
    let chain = Chain::new(load).expect("a chain serializes");
    Some(Arc::new(chain))
}

fn empty_object() -> Box<RawValue> {
    #[expect(clippy::expect_used, reason = "the text is a constant")]
    RawValue::from_string("{}".to_owned()).expect("an object")
}
