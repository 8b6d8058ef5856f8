//! What calls of functions came to.

use millrace_event::frame::Reply;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// What was asked for and what came of it; both from closed lists.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Carried {
    part: &'static str,
    result: &'static str,
}

/// Handles to the metrics of calls.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    calls: Family<Carried, Counter>,
}

impl Metrics {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "calls",
            "Calls of functions to the store and to other servers",
            metrics.calls.clone(),
        );
        metrics
    }

    pub(super) fn carried(&self, operation: &str, reply: &Reply) {
        let part = match operation {
            super::fetch::OPERATION => "fetch",
            operation if super::store::OPERATIONS.contains(&operation) => "store",
            _ => "unknown",
        };
        let result = match reply {
            Reply::Done(_) => "done",
            Reply::Failed(_) => "failed",
            Reply::Unavailable(_) => "unavailable",
        };
        self.calls.get_or_create(&Carried { part, result }).inc();
    }
}
