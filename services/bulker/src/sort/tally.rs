use std::collections::BTreeMap;

use crate::metrics::{Kind, Metrics};

/// What a chunk's records were.
#[derive(Debug, Default)]
pub struct Tally {
    /// How many there are of each kind of [`Metrics::records`].
    pub records: BTreeMap<&'static str, u64>,
    /// Numbers of journals that were skipped.
    pub skipped: u64,
}

impl Tally {
    pub(super) fn record(&mut self, kind: &'static str) {
        *self.records.entry(kind).or_default() += 1;
    }

    /// Counts the chunk, which is settled now.
    pub fn count(&self, metrics: &Metrics) {
        for (kind, count) in &self.records {
            metrics.records.get_or_create(&Kind { kind }).inc_by(*count);
        }
        metrics.skipped.inc_by(self.skipped);
    }
}
