//! The stall watchdog: a partition that has records left and stands still makes the process not ready, and says why.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_kafka::bounds::Bounds;
use millrace_kafka::group::Budget;
use millrace_service::{Causes, Condition};

use crate::claim::{Claim, Standing};
use crate::metrics::Metrics;

/// Longest between two looks.
const LONGEST_TURN: Duration = Duration::from_secs(5);
const SHORTEST_TURN: Duration = Duration::from_millis(200);
/// Partitions that are named where more stand still.
const MOST_NAMED: usize = 3;

type Standings = BTreeMap<u32, Arc<Standing>>;

/// The partitions that are worked on.
#[derive(Debug, Default)]
pub struct Watch(Mutex<Standings>);

/// Watches over a partition until it is dropped.
#[derive(Debug)]
pub struct Watched<'a> {
    watch: &'a Watch,
    partition: u32,
    standing: Arc<Standing>,
}

impl Watch {
    /// Watches over a partition.
    pub fn over(&self, partition: u32, claim: &Claim) -> Watched<'_> {
        let standing = Arc::clone(&claim.standing);
        self.standings().insert(partition, Arc::clone(&standing));
        Watched {
            watch: self,
            partition,
            standing,
        }
    }

    /// Looks at the partitions again and again; a partition with records left that stood still for `after` fails
    /// `condition`. Never returns.
    pub async fn run(
        &self,
        log: &Bounds,
        after: Duration,
        budget: &Budget,
        condition: &Condition,
        metrics: &Metrics,
    ) {
        let mut known = BTreeMap::new();
        loop {
            let standings = self.standings().clone();
            let partitions: Vec<_> = standings.keys().copied().collect();
            match log.ends(&partitions).await {
                Ok(ends) => known = ends,
                // What was known of the ends still says who has something left to do.
                Err(error) => {
                    tracing::warn!(error = %Causes(&error), "the ends of the log could not be asked for")
                }
            }
            let (lag, stalled) = judge(&standings, &known, after);
            metrics.lag.set(gauge(lag));
            metrics.held_bytes.set(gauge(budget.held()));
            metrics.most_held_bytes.set(gauge(budget.most_held()));
            metrics.stalled.set(gauge(stalled.len()));
            if stalled.is_empty() {
                condition.holds();
            } else {
                let named: Vec<_> = stalled.iter().take(MOST_NAMED).map(String::as_str).collect();
                let more = stalled.len() - named.len();
                let others = if more == 0 {
                    String::new()
                } else {
                    format!("; and {more} more")
                };
                condition.fails(format!("{}{others}", named.join("; ")));
            }
            tokio::time::sleep((after / 10).clamp(SHORTEST_TURN, LONGEST_TURN)).await;
        }
    }

    fn standings(&self) -> std::sync::MutexGuard<'_, Standings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        let mut standings = self.watch.standings();
        let ours = standings.get(&self.partition);
        if ours.is_some_and(|standing| Arc::ptr_eq(standing, &self.standing)) {
            standings.remove(&self.partition);
        }
    }
}

/// How many records are left in all, and what is to be said of partitions that stand still.
fn judge(standings: &Standings, ends: &BTreeMap<u32, u64>, after: Duration) -> (u64, Vec<String>) {
    let mut lag = 0;
    let mut stalled = Vec::new();
    for (partition, standing) in standings {
        let Some(end) = ends.get(partition) else { continue };
        let left = end.saturating_sub(standing.offset());
        lag += left;
        if left == 0 {
            standing.idle();
        } else if let Some(why) = standing.stalled(after) {
            stalled.push(format!("partition {partition} is {left} records behind: {why}"));
        }
    }
    (lag, stalled)
}

fn gauge(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}
