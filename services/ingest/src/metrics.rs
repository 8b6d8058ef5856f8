//! What the gateway counts.

use millrace_event::IngestCode;
use millrace_kafka::notes::Tally;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// A histogram of the seconds that requests of one status take.
type Durations = Family<Status, Histogram, fn() -> Histogram>;

/// Handles on every metric. Clones count into the same metrics.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) request_seconds: Durations,
    pub(crate) requests_open: Gauge,
    pub(crate) accepted: Counter,
    pub(crate) duplicates: Counter,
    pub(crate) refused: Family<Code, Counter>,
    pub(crate) unreserved: Counter,
    pub(crate) marks_lost: Counter,
    pub(crate) key_lookups_failed: Counter,
    pub(crate) limits_away: Counter,
    pub(crate) fields_unchecked: Counter,
    pub(crate) shipped: Counter,
    pub(crate) produce_failures: Counter,
    pub(crate) set_aside: Counter,
    pub(crate) journal_bytes: Gauge,
    pub(crate) journal_records: Gauge,
    pub(crate) journal_syncs: Gauge,
    pub(crate) usage: Tally,
}

/// The status of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Status {
    pub(crate) status: u16,
}

/// Why something was refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Code {
    code: &'static str,
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            request_seconds: Family::new_with_constructor(request_buckets),
            requests_open: Gauge::default(),
            accepted: Counter::default(),
            duplicates: Counter::default(),
            refused: Family::default(),
            unreserved: Counter::default(),
            marks_lost: Counter::default(),
            key_lookups_failed: Counter::default(),
            limits_away: Counter::default(),
            fields_unchecked: Counter::default(),
            shipped: Counter::default(),
            produce_failures: Counter::default(),
            set_aside: Counter::default(),
            journal_bytes: Gauge::default(),
            journal_records: Gauge::default(),
            journal_syncs: Gauge::default(),
            usage: Tally::default(),
        };
        let registry = registry.sub_registry_with_prefix("ingest");
        registry.register_with_unit(
            "request_duration",
            "From the head of a request to its answer",
            Unit::Seconds,
            metrics.request_seconds.clone(),
        );
        registry.register(
            "requests_open",
            "Requests that are not answered yet",
            metrics.requests_open.clone(),
        );
        registry.register(
            "events_accepted",
            "Events journaled and answered",
            metrics.accepted.clone(),
        );
        registry.register(
            "events_duplicate",
            "Copies of accepted events",
            metrics.duplicates.clone(),
        );
        registry.register("refused", "Requests and events refused", metrics.refused.clone());
        registry.register(
            "dedup_unreserved",
            "Events accepted without the memory of message ids",
            metrics.unreserved.clone(),
        );
        registry.register(
            "dedup_marks_lost",
            "Accepted events whose message id could not be marked",
            metrics.marks_lost.clone(),
        );
        registry.register(
            "key_lookups_failed",
            "Lookups of write keys without an answer",
            metrics.key_lookups_failed.clone(),
        );
        registry.register(
            "limits_away",
            "Requests that were limited by this gateway alone",
            metrics.limits_away.clone(),
        );
        registry.register(
            "fields_unchecked",
            "New fields that passed while Postgres was away",
            metrics.fields_unchecked.clone(),
        );
        registry.register(
            "records_shipped",
            "Records that Kafka acknowledged",
            metrics.shipped.clone(),
        );
        registry.register(
            "produce_failures",
            "Batches to be sent again",
            metrics.produce_failures.clone(),
        );
        registry.register(
            "records_set_aside",
            "Records that Kafka refused for good",
            metrics.set_aside.clone(),
        );
        registry.register_with_unit(
            "journal",
            "Size of the journal",
            Unit::Bytes,
            metrics.journal_bytes.clone(),
        );
        registry.register(
            "journal_records",
            "Records not acknowledged",
            metrics.journal_records.clone(),
        );
        registry.register(
            "journal_syncs",
            "Syncs since the start",
            metrics.journal_syncs.clone(),
        );
        registry.register(
            "usage_sent",
            "Usage events that Kafka has",
            metrics.usage.sent.clone(),
        );
        registry.register(
            "usage_dropped",
            "Usage events lost to a full buffer or to Kafka",
            metrics.usage.dropped.clone(),
        );
        metrics
    }

    /// Counts a request as open until the guard is dropped.
    pub(crate) fn open(&self) -> Open {
        self.requests_open.inc();
        Open(self.requests_open.clone())
    }

    pub(crate) fn refuse(&self, code: IngestCode, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.refused
            .get_or_create(&Code { code: code.as_str() })
            .inc_by(count);
    }
}

/// A request that is not answered yet.
#[derive(Debug)]
pub(crate) struct Open(Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn request_buckets() -> Histogram {
    Histogram::new([
        0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    ])
}
