//! What the rotor counts.

use millrace_event::Verdict;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The label of a verdict.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decided {
    verdict: &'static str,
}

/// Handles to the metrics of reading and writing.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) records: Counter,
    verdicts: Family<Decided, Counter>,
    pub(crate) sat_out: Counter,
    pub(crate) batch_seconds: Histogram,
    pub(crate) produce_seconds: Histogram,
    pub(crate) partitions: Gauge,
    pub(crate) sessions: Counter,
    pub(crate) session_failures: Counter,
    pub(crate) commit_failures: Counter,
    pub(crate) expired_records: Counter,
    pub(crate) config_version: Gauge,
}

impl Metrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let buckets = || Histogram::new(exponential_buckets(0.001, 2.0, 16));
        let metrics = Self {
            records: Counter::default(),
            verdicts: Family::default(),
            sat_out: Counter::default(),
            batch_seconds: buckets(),
            produce_seconds: buckets(),
            partitions: Gauge::default(),
            sessions: Counter::default(),
            session_failures: Counter::default(),
            commit_failures: Counter::default(),
            expired_records: Counter::default(),
            config_version: Gauge::default(),
        };
        let registry = registry.sub_registry_with_prefix("rotor");
        registry.register("records", "Records read", metrics.records.clone());
        registry.register(
            "verdicts",
            "Records written, by verdict",
            metrics.verdicts.clone(),
        );
        registry.register(
            "sat_out",
            "Events not run because their workspace took too much of its neighbours' time",
            metrics.sat_out.clone(),
        );
        registry.register(
            "batch_seconds",
            "From a batch read to its records made",
            metrics.batch_seconds.clone(),
        );
        registry.register(
            "produce_seconds",
            "Until a batch written is acknowledged",
            metrics.produce_seconds.clone(),
        );
        registry.register("partitions", "Partitions owned", metrics.partitions.clone());
        registry.register("sessions", "Sessions begun", metrics.sessions.clone());
        registry.register(
            "session_failures",
            "Sessions ended by a failure",
            metrics.session_failures.clone(),
        );
        registry.register(
            "commit_failures",
            "Commits that were not confirmed",
            metrics.commit_failures.clone(),
        );
        registry.register(
            "expired_records",
            "Records that retention took before they were read",
            metrics.expired_records.clone(),
        );
        registry.register(
            "config_version",
            "Version of the configuration in force",
            metrics.config_version.clone(),
        );
        metrics
    }

    pub(crate) fn decided(&self, verdict: Verdict) {
        self.verdicts
            .get_or_create(&Decided {
                verdict: verdict.as_str(),
            })
            .inc();
    }
}
