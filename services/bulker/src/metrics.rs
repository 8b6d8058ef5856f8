//! What the bulker counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::audit;

/// A counter's one label, from a closed list.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    /// Which of the list.
    pub kind: &'static str,
}

/// The handles.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Records settled, by what they were: `row`, `drop`, `retry`, `dead_letter`, `duplicate`, `repeated_row`, `invalid`.
    pub records: Family<Kind, Counter>,
    /// Rows that are in a table now.
    pub rows: Counter,
    /// Rows that were found in their table after a doubt, and not written again.
    pub rows_found: Counter,
    /// Rows whose table has no place for them, now dead letters.
    pub rows_refused: Counter,
    /// Rows handed to the retry topics because their table could not be written.
    pub rows_handed_over: Counter,
    /// Journals whose watermark was written to the table `journals`.
    pub journals_written: Counter,
    /// Inserts, by outcome: `applied`, `definite`, `ambiguous`.
    pub inserts: Family<Kind, Counter>,
    /// Chunks settled.
    pub chunks: Counter,
    /// Plans of a predecessor that were finished.
    pub recoveries: Counter,
    /// Numbers of a journal that were skipped when a later one arrived.
    pub skipped: Counter,
    /// Offsets that retention deleted before they were read.
    pub lost_offsets: Counter,
    /// Partitions that stopped and wait for somebody.
    pub stopped: Gauge,
    /// Records of the log that are not settled, over the partitions that are ours.
    pub lag: Gauge,
    /// Partitions with records left that stand still.
    pub stalled: Gauge,
    /// Bytes of records that were read and are not settled.
    pub held_bytes: Gauge,
    /// The most of them in this session.
    pub most_held_bytes: Gauge,
    /// Blocks that a view did not take although their table did.
    pub view_failures: Counter,
    /// Ends of consumer sessions, by reason.
    pub sessions_ended: Family<Kind, Counter>,
    /// Seconds from a chunk's plan to its commit.
    pub chunk_seconds: Histogram,
    /// What the audit found.
    pub audit: audit::Metrics,
}

impl Metrics {
    /// Registers every metric under `bulker_`.
    pub fn register(registry: &mut Registry) -> Self {
        let seconds = [
            0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
        ];
        let metrics = Self {
            records: Family::default(),
            rows: Counter::default(),
            rows_found: Counter::default(),
            rows_refused: Counter::default(),
            rows_handed_over: Counter::default(),
            journals_written: Counter::default(),
            inserts: Family::default(),
            chunks: Counter::default(),
            recoveries: Counter::default(),
            skipped: Counter::default(),
            lost_offsets: Counter::default(),
            stopped: Gauge::default(),
            lag: Gauge::default(),
            stalled: Gauge::default(),
            held_bytes: Gauge::default(),
            most_held_bytes: Gauge::default(),
            view_failures: Counter::default(),
            sessions_ended: Family::default(),
            chunk_seconds: Histogram::new(seconds),
            audit: audit::Metrics::default(),
        };
        let registry = registry.sub_registry_with_prefix("bulker");
        let metrics = Self {
            audit: audit::Metrics::register(registry),
            ..metrics
        };
        registry.register(
            "records",
            "Records settled, by what they were",
            metrics.records.clone(),
        );
        registry.register("rows", "Rows that are in a table now", metrics.rows.clone());
        registry.register(
            "rows_found",
            "Rows found in their table after a doubt",
            metrics.rows_found.clone(),
        );
        registry.register(
            "rows_refused",
            "Rows that no table takes",
            metrics.rows_refused.clone(),
        );
        registry.register(
            "rows_handed_over",
            "Rows handed to the retry topics because their table failed",
            metrics.rows_handed_over.clone(),
        );
        registry.register(
            "journals_written",
            "Watermarks that left the commit metadata",
            metrics.journals_written.clone(),
        );
        registry.register("inserts", "Inserts, by outcome", metrics.inserts.clone());
        registry.register("chunks", "Chunks settled", metrics.chunks.clone());
        registry.register(
            "recoveries",
            "Plans of a predecessor that were finished",
            metrics.recoveries.clone(),
        );
        registry.register(
            "skipped",
            "Journal numbers skipped by a later one",
            metrics.skipped.clone(),
        );
        registry.register(
            "lost_offsets",
            "Offsets deleted before they were read",
            metrics.lost_offsets.clone(),
        );
        registry.register(
            "stopped_partitions",
            "Partitions waiting for somebody",
            metrics.stopped.clone(),
        );
        registry.register("lag", "Records that are not settled", metrics.lag.clone());
        registry.register(
            "stalled_partitions",
            "Partitions with records left that stand still",
            metrics.stalled.clone(),
        );
        registry.register(
            "held_bytes",
            "Bytes of records that were read and are not settled",
            metrics.held_bytes.clone(),
        );
        registry.register(
            "held_bytes_most",
            "The most of held_bytes in this session",
            metrics.most_held_bytes.clone(),
        );
        registry.register(
            "view_failures",
            "Blocks that a view did not take although their table did",
            metrics.view_failures.clone(),
        );
        registry.register(
            "sessions_ended",
            "Ends of consumer sessions, by reason",
            metrics.sessions_ended.clone(),
        );
        registry.register(
            "chunk_seconds",
            "From a chunk's plan to its commit",
            metrics.chunk_seconds.clone(),
        );
        metrics
    }
}
