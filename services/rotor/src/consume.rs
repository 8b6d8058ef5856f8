//! Reading, as a member of the group, in sessions.
//!
//! A session is one idempotent producer and one membership. Any delivery error ends it: the producer goes, the
//! member leaves, and the next session goes on at the committed offsets. A record is never produced again on its
//! own: its neighbours would overtake it, and whoever reads the transformed log takes a gap for a loss.

mod batch;
mod partition;
mod run;

use std::sync::Arc;
use std::time::Duration;

use millrace_event::topic::Topics;
use millrace_kafka::group::{self, Consumer, Event};
use millrace_kafka::producer::Producer;
use millrace_kafka::{Connection, Error};
use millrace_service::{Causes, Clock, Condition};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::budget::Budgets;
use crate::geo::Geo;
use crate::logs::Logs;
use crate::metrics::Metrics;
use crate::pool::Pool;
use crate::quarantine::Quarantine;
use crate::registry::Registry;

/// The pauses between sessions that fail: the first, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// A session that lived this long was a good one: the next failure starts at the first pause again.
const GOOD: Duration = Duration::from_secs(60);

/// What every partition works with.
#[derive(Debug)]
pub struct Shared {
    /// How to reach the cluster.
    pub connection: Connection,
    /// How the member behaves.
    pub group: group::Config,
    /// The topics' names.
    pub topics: Topics,
    /// The ingest topic's incarnation.
    pub incarnation: String,
    /// Which chains there are.
    pub registry: Arc<Registry>,
    /// Where they run.
    pub pool: Arc<Pool>,
    /// Which of them are held back.
    pub quarantine: Quarantine,
    /// What a workspace may take of the time of others.
    pub budgets: Budgets,
    /// Half of the workers: more are never busy with events that come back, among which are the slow ones.
    pub returning: Semaphore,
    /// Where addresses are.
    pub geo: Geo,
    /// Where what functions log goes.
    pub logs: Logs,
    /// What is counted.
    pub metrics: Metrics,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// Why a session ended other than by its wish.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("kafka")]
    Kafka(#[from] Error),
    #[error("the member left its group")]
    Left,
    #[error("a partition's task failed")]
    Task,
}

/// Runs sessions until `ended` is cancelled, and then drains. `condition` shows whether one is running.
///
/// # Cancellation
/// Work under way is lost and done again by the next session: nothing is committed before it is acknowledged.
pub async fn run(shared: Arc<Shared>, condition: Condition, ended: CancellationToken) {
    let mut pause = BACKOFF.0;
    while !ended.is_cancelled() {
        let began = shared.clock.instant();
        shared.metrics.sessions.inc();
        match Box::pin(session(&shared, &condition, &ended)).await {
            Ok(()) => return,
            Err(error) => {
                shared.metrics.session_failures.inc();
                let cause = Causes(&error).to_string();
                tracing::warn!(cause, pause = ?pause, "a session ended, the next one goes on at the committed offsets");
                condition.fails(cause);
            }
        }
        if shared.clock.instant().saturating_duration_since(began) >= GOOD {
            pause = BACKOFF.0;
        }
        ended.run_until_cancelled(tokio::time::sleep(pause)).await;
        pause = (pause * 2).min(BACKOFF.1);
    }
}

async fn session(
    shared: &Arc<Shared>,
    condition: &Condition,
    ended: &CancellationToken,
) -> Result<(), Broken> {
    let producer = Arc::new(Producer::new(&shared.connection)?);
    let retry = shared.topics.retry.iter().map(|tier| tier.topic.as_str());
    let topics: Vec<_> = [shared.topics.ingest.as_str()].into_iter().chain(retry).collect();
    let mut consumer = Consumer::start(&shared.connection, &shared.group, &topics)?;
    condition.holds();
    // Cancelled when the session is over: nobody waits for anything then.
    let over = CancellationToken::new();
    let mut partitions: JoinSet<Result<(), Error>> = JoinSet::new();
    let result = loop {
        tokio::select! {
            () = ended.cancelled() => break Ok(()),
            event = consumer.next() => match event {
                Some(Event::Assigned(partition)) => {
                    let task = partition::serve(Arc::clone(shared), Arc::clone(&producer), partition, over.clone());
                    partitions.spawn(task);
                }
                Some(Event::Failed(error)) => break Err(Broken::Kafka(error)),
                None => break Err(Broken::Left),
            },
            Some(done) = partitions.join_next() => match done {
                Ok(Ok(())) => {}
                Ok(Err(error)) => break Err(Broken::Kafka(error)),
                Err(_) => break Err(Broken::Task),
            },
        }
    };
    if result.is_err() {
        over.cancel();
    }
    // Revokes every partition; those that are producing finish and commit, within the drain budget.
    consumer.close().await;
    over.cancel();
    while partitions.join_next().await.is_some() {}
    result
}
