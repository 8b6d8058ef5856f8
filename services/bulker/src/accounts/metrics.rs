//! What is counted of requests and log lines.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::metrics::Kind;

/// The handles; each by table.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Rows written.
    pub rows: Family<Kind, Counter>,
    /// Rows that a predecessor had written.
    pub found: Family<Kind, Counter>,
    /// Records that have no row: no record of their topic.
    pub unreadable: Family<Kind, Counter>,
    /// Inserts and questions that failed and were tried again.
    pub failures: Family<Kind, Counter>,
}

impl Metrics {
    /// Registers every metric under `bulker_accounts_`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("bulker_accounts");
        let families = [
            ("rows", "Rows written, by table", &metrics.rows),
            (
                "found",
                "Rows that a predecessor had written, by table",
                &metrics.found,
            ),
            (
                "unreadable",
                "Records that have no row, by table",
                &metrics.unreadable,
            ),
            (
                "failures",
                "Failed inserts and questions, by table",
                &metrics.failures,
            ),
        ];
        for (name, help, family) in families {
            registry.register(name, help, family.clone());
        }
        metrics
    }
}
