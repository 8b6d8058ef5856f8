//! What only the running processes know: blocks that their table ignored, and rows that a question found.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_testkit::http::Client;
use tokio::task::JoinSet;

/// Between two looks; what a process counted after the last look before its death is not seen.
const TURN: Duration = Duration::from_millis(200);

const BLOCKS: &str = "SELECT toString(value) FROM system.events WHERE event = 'DuplicatedInsertedBlocks'";
const FOUND: &str = "millrace_bulker_rows_found_total ";

/// A counter of a process that may be killed: what earlier lives counted, and the last that was seen of this one.
#[derive(Debug, Default)]
struct Counter {
    before: u64,
    seen: u64,
}

impl Counter {
    fn look(&mut self, now: u64) {
        if now < self.seen {
            self.before += self.seen;
        }
        self.seen = now;
    }

    const fn sum(&self) -> u64 {
        self.before + self.seen
    }
}

/// Looks again and again until it is dropped.
#[derive(Debug)]
pub(crate) struct Stages {
    counters: Arc<Mutex<[Counter; 2]>>,
    _looking: JoinSet<()>,
}

impl Stages {
    /// Watches a ClickHouse, at its own address, and a bulker.
    pub(crate) fn watch(clickhouse: String, bulker: String) -> Self {
        let counters = Arc::<Mutex<[Counter; 2]>>::default();
        let mut looking = JoinSet::new();
        let client = Client::default();
        let into = Arc::clone(&counters);
        looking.spawn(async move {
            loop {
                tokio::time::sleep(TURN).await;
                // They are away now and then.
                let blocks = client.post(&clickhouse, &[], BLOCKS.to_owned()).await.ok();
                let blocks = blocks.filter(|answer| answer.status == 200);
                // Before the first there is none to count.
                let blocks = blocks.map(|answer| answer.body.trim().parse().unwrap_or(0));
                let metrics = client.get(&format!("{bulker}/metrics")).await.ok();
                let found = metrics.and_then(|answer| {
                    let mut lines = answer.body.lines().filter_map(|line| line.strip_prefix(FOUND));
                    lines.next()?.trim().parse().ok()
                });
                let mut counters = into.lock().unwrap_or_else(PoisonError::into_inner);
                for (counter, now) in counters.iter_mut().zip([blocks, found]) {
                    if let Some(now) = now {
                        counter.look(now);
                    }
                }
            }
        });
        Self {
            counters,
            _looking: looking,
        }
    }

    /// Blocks that their table ignored for their token, and rows that were found and not sent again: at least so many.
    pub(crate) fn counted(&self) -> (u64, u64) {
        let counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        let [blocks, found] = &*counters;
        (blocks.sum(), found.sum())
    }
}
