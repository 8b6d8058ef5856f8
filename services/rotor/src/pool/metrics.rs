//! What the pool counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Why a worker died; values are function error codes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Reason {
    pub(super) reason: &'static str,
}

/// Handles to the pool's metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) started: Counter,
    pub(super) start_failures: Counter,
    pub(super) deaths: Family<Reason, Counter>,
    pub(super) reruns: Counter,
    pub(super) batch_seconds: Histogram,
    pub(super) log_lines: Counter,
    pub(super) log_lines_discarded: Counter,
}

impl Metrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            started: Counter::default(),
            start_failures: Counter::default(),
            deaths: Family::default(),
            reruns: Counter::default(),
            batch_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 16)),
            log_lines: Counter::default(),
            log_lines_discarded: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("workers");
        registry.register("started", "Worker processes started", metrics.started.clone());
        registry.register(
            "start_failures",
            "Workers that did not become ready",
            metrics.start_failures.clone(),
        );
        registry.register(
            "deaths",
            "Workers that died or were killed during a batch",
            metrics.deaths.clone(),
        );
        registry.register(
            "reruns",
            "Batches run again record by record",
            metrics.reruns.clone(),
        );
        registry.register(
            "batch_seconds",
            "Time of a batch in a worker",
            metrics.batch_seconds.clone(),
        );
        registry.register(
            "log_lines",
            "Lines that functions logged",
            metrics.log_lines.clone(),
        );
        registry.register(
            "log_lines_discarded",
            "Lines of functions that were over their limit",
            metrics.log_lines_discarded.clone(),
        );
        metrics
    }
}
