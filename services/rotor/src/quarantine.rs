//! Functions that are held back because they kill workers.
//!
//! Kills are counted in Postgres, over all rotors ([`millrace_store::quarantine`]). While Postgres is away this process
//! counts for itself, by the same rule: the protection must not depend on a database. What is held back is asked for every
//! little while, and every event that would run is checked against the answer without waiting for anything.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use millrace_event::FunctionCode;
use millrace_event::frame::Load;
use millrace_service::config::Faults;
use millrace_service::{Clock, Condition};
use millrace_store::Quarantines;
use millrace_store::quarantine::{Held as Stored, Kills, Policy, Record};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::pool::Kill;

/// Kills that wait to be counted; more are counted with the next ones of their chain.
const QUEUE: usize = 256;

/// Chains named in the detail of the condition.
const NAMED: usize = 10;

/// `[quarantine]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// So many kills within `window` hold a chain version back.
    pub kills: u32,
    /// How long a kill counts.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// How long it is held back the first time; twice as long each time after.
    #[serde(with = "humantime_serde")]
    pub first: Duration,
    /// How long at most.
    #[serde(with = "humantime_serde")]
    pub longest: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kills: 5,
            window: Duration::from_secs(600),
            first: Duration::from_secs(60),
            longest: Duration::from_secs(3600),
        }
    }
}

impl Config {
    /// Reports a rule that holds back everybody or nobody.
    pub fn check(&self, faults: &mut Faults) {
        if self.kills == 0 {
            faults.add("quarantine.kills", "at least one is needed");
        }
        if self.first.is_zero() || self.longest < self.first {
            faults.add(
                "quarantine.longest",
                "must be as long as quarantine.first, and that longer than nothing",
            );
        }
    }

    fn policy(&self) -> Policy {
        Policy {
            kills: self.kills,
            window: self.window,
            first: self.first,
            longest: self.longest,
        }
    }
}

/// Handles to the metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    kills: Counter,
    held_chains: Gauge,
    pub(crate) held_events: Counter,
}

impl Metrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            kills: Counter::default(),
            held_chains: Gauge::default(),
            held_events: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("quarantine");
        registry.register(
            "kills",
            "Events whose function killed its worker",
            metrics.kills.clone(),
        );
        registry.register(
            "chains",
            "Chain versions that are held back now",
            metrics.held_chains.clone(),
        );
        registry.register(
            "events",
            "Events that were not run because their chain is held back",
            metrics.held_events.clone(),
        );
        metrics
    }
}

/// A chain version that is held back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// For how long it still is.
    pub left: Duration,
    /// The function that killed the last time, and its version, where they are known.
    pub function: Option<(String, u32)>,
    /// How the last worker ended.
    pub code: String,
}

#[derive(Clone, Debug)]
struct Entry {
    version: u64,
    until: Instant,
    function: Option<(String, u32)>,
    code: String,
}

type Table = HashMap<String, Entry>;

/// What is held back, and where kills are reported.
#[derive(Debug)]
pub struct Quarantine {
    table: Arc<RwLock<Table>>,
    kills: mpsc::Sender<Kills>,
    clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
}

impl Quarantine {
    /// Starts to count, and asks every `poll` until `ended`. `condition` shows what is held back.
    pub fn start(
        stored: Quarantines,
        config: &Config,
        poll: Duration,
        condition: Condition,
        metrics: Metrics,
        clock: Arc<dyn Clock>,
        ended: CancellationToken,
    ) -> Self {
        let (kills, reported) = mpsc::channel(QUEUE);
        let table = Arc::new(RwLock::new(Table::new()));
        let warden = Warden {
            stored,
            policy: config.policy(),
            poll,
            condition,
            table: Arc::clone(&table),
            own: HashMap::new(),
            metrics: metrics.clone(),
            clock: Arc::clone(&clock),
        };
        tokio::spawn(async move { ended.run_until_cancelled(warden.serve(reported)).await });
        Self {
            table,
            kills,
            clock,
            metrics,
        }
    }

    /// What a chain version is held back by, if it is. Another version of the chain is not.
    pub fn held(&self, chain: &str, version: u64) -> Option<Held> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let entry = table.get(chain).filter(|entry| entry.version == version)?;
        let left = entry.until.saturating_duration_since(self.clock.instant());
        (!left.is_zero()).then(|| Held {
            left,
            function: entry.function.clone(),
            code: entry.code.clone(),
        })
    }

    /// Reports the kills of one batch.
    pub fn killed(&self, load: &Load, kills: &[Kill]) {
        let Some(last) = kills.last() else { return };
        let count = u32::try_from(kills.len()).unwrap_or(u32::MAX);
        self.metrics.kills.inc_by(u64::from(count));
        let kills = Kills {
            chain: load.chain.clone(),
            version: load.version,
            function: last.function.clone(),
            code: last.code.as_str().to_owned(),
            count,
        };
        // A full queue holds kills of the same functions: enough of them to hold those back.
        drop(self.kills.try_send(kills));
    }
}

/// The task: the only one that writes the table.
struct Warden {
    stored: Quarantines,
    policy: Policy,
    poll: Duration,
    condition: Condition,
    table: Arc<RwLock<Table>>,
    /// Counted here while Postgres is away, each with the time of its counting.
    own: HashMap<String, (u64, Record, Instant)>,
    metrics: Metrics,
    clock: Arc<dyn Clock>,
}

impl Warden {
    async fn serve(mut self, mut reported: mpsc::Receiver<Kills>) {
        loop {
            self.refresh().await;
            let kills = tokio::time::timeout(self.poll, reported.recv()).await;
            match kills {
                Ok(Some(kills)) => self.count(&kills).await,
                Ok(None) => return,
                Err(_) => {}
            }
        }
    }

    async fn count(&mut self, kills: &Kills) {
        match self.stored.count(kills, &self.policy).await {
            Ok(Some(held)) => self.hold(&held),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, chain = kills.chain, "kills are counted here, the database cannot be asked");
                self.count_alone(kills);
            }
        }
    }

    fn count_alone(&mut self, kills: &Kills) {
        let now = self.clock.instant();
        let known = self
            .own
            .get(&kills.chain)
            .filter(|(version, ..)| *version == kills.version);
        let before = known.map_or_else(Record::default, |(_, record, then)| aged(*record, now - *then));
        let after = self.policy.after(before, kills.count);
        self.own.insert(kills.chain.clone(), (kills.version, after, now));
        if !after.held.is_zero() {
            self.hold(&Stored {
                chain: kills.chain.clone(),
                version: kills.version,
                function: kills.function.clone(),
                code: kills.code.clone(),
                left: after.held,
                times: after.times,
            });
        }
    }

    fn hold(&self, held: &Stored) {
        tracing::warn!(
            chain = held.chain,
            version = held.version,
            code = held.code,
            left = ?held.left,
            times = held.times,
            "a chain is held back, its functions kill workers"
        );
        let entry = self.entry(held);
        self.write(|table| {
            table.insert(held.chain.clone(), entry);
        });
    }

    /// Asks what is held back; without an answer what is known goes on until its own time.
    async fn refresh(&mut self) {
        let now = self.clock.instant();
        match self.stored.held().await {
            Ok(held) => {
                self.own.retain(|_, (_, record, then)| {
                    let record = aged(*record, now - *then);
                    !record.held.is_zero() || !record.window.is_zero()
                });
                let mut table: Table = held
                    .iter()
                    .map(|(chain, held)| (chain.clone(), self.entry(held)))
                    .collect();
                let current = self.table.read().unwrap_or_else(PoisonError::into_inner).clone();
                for (chain, entry) in current {
                    if self.own.contains_key(&chain) {
                        table.entry(chain).or_insert(entry);
                    }
                }
                self.write(|current| *current = table);
            }
            Err(error) => tracing::debug!(%error, "what is held back cannot be asked for"),
        }
        self.write(|table| table.retain(|_, entry| entry.until > now));
        self.show();
    }

    fn entry(&self, held: &Stored) -> Entry {
        Entry {
            version: held.version,
            until: self.clock.instant() + held.left,
            function: held.function.clone(),
            code: held.code.clone(),
        }
    }

    fn write(&self, change: impl FnOnce(&mut Table)) {
        change(&mut self.table.write().unwrap_or_else(PoisonError::into_inner));
        self.show();
    }

    fn show(&self) {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        self.metrics
            .held_chains
            .set(i64::try_from(table.len()).unwrap_or(i64::MAX));
        if table.is_empty() {
            self.condition.holds();
            return;
        }
        let now = self.clock.instant();
        let mut names: Vec<_> = table
            .iter()
            .map(|(chain, entry)| {
                let function = entry.function.as_ref();
                let function = function
                    .map(|(id, version)| format!(" ({id}@{version})"))
                    .unwrap_or_default();
                let left = entry.until.saturating_duration_since(now).as_secs();
                format!(
                    "chain {chain} version {}{function} after {}, {left} s left",
                    entry.version, entry.code
                )
            })
            .collect();
        names.sort();
        let more = names.len().saturating_sub(NAMED);
        names.truncate(NAMED);
        let more = if more > 0 {
            format!("; and {more} more")
        } else {
            String::new()
        };
        self.condition
            .fails(format!("quarantined: {}{more}", names.join("; ")));
    }
}

/// A record after some time.
fn aged(record: Record, by: Duration) -> Record {
    Record {
        window: record.window.saturating_sub(by),
        held: record.held.saturating_sub(by),
        released: if record.times > 0 {
            record.released.saturating_add(by.saturating_sub(record.held))
        } else {
            Duration::ZERO
        },
        ..record
    }
}

/// What a held event says.
pub(crate) fn message(held: &Held) -> String {
    format!(
        "not run: its functions killed workers ({}), and are held back for {} s more",
        held.code,
        held.left.as_secs().max(1)
    )
}

/// The code of events that are held back.
pub(crate) const CODE: FunctionCode = FunctionCode::Quarantined;
