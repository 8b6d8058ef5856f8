//! How many lines of a workspace are kept. Pure.

use std::collections::HashMap;
use std::time::Instant;

/// Workspaces remembered; past this the memory starts over, and each has its full share again.
const MOST: usize = 10_000;

/// Lines kept in the first moment after a quiet time, in seconds' worth.
const BURST: f64 = 2.0;

/// A bucket of lines for each workspace, filled by the second.
#[derive(Debug)]
pub(super) struct Sampler {
    rate: f64,
    debug_rate: f64,
    buckets: HashMap<String, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    lines: f64,
    at: Instant,
}

impl Sampler {
    pub(super) fn new(per_second: u32, debug_per_second: u32) -> Self {
        Self {
            rate: f64::from(per_second),
            debug_rate: f64::from(debug_per_second),
            buckets: HashMap::new(),
        }
    }

    /// How many of `wanted` lines are kept now.
    pub(super) fn take(&mut self, workspace: &str, wanted: usize, debug: bool, now: Instant) -> usize {
        let rate = if debug { self.debug_rate } else { self.rate };
        if self.buckets.len() >= MOST && !self.buckets.contains_key(workspace) {
            self.buckets.clear();
        }
        let full = || Bucket {
            lines: rate * BURST,
            at: now,
        };
        // The key is copied once for each workspace, not for each batch.
        if !self.buckets.contains_key(workspace) {
            self.buckets.insert(workspace.to_owned(), full());
        }
        let Some(bucket) = self.buckets.get_mut(workspace) else {
            return 0;
        };
        let elapsed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.at = now;
        bucket.lines = (bucket.lines + elapsed * rate).min(rate * BURST);
        let mut kept = 0;
        while kept < wanted && bucket.lines >= 1.0 {
            bucket.lines -= 1.0;
            kept += 1;
        }
        kept
    }
}
