use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::budget::{Budget, Share};
use super::command::{Command, CommitError, Committed};
use super::holdings::{Held, Holdings};
use super::lanes::Lane;
use super::partition::Partition;
use super::pulse::Pulse;
use super::{Config, Event};
use crate::error::Error;
use crate::record::Record;

/// How long a request of the consumer thread to the group's coordinator may take.
const REQUEST: Duration = Duration::from_secs(10);

/// The member's state. It lives in librdkafka's callback context because a rebalance must reach it from within
/// a poll; only the consumer thread touches it, so the locks are never contended.
pub(super) struct Membership {
    config: Config,
    budget: Budget,
    pulse: Arc<Pulse>,
    commands: SyncSender<Command>,
    requests: Mutex<Receiver<Command>>,
    state: Mutex<State>,
    consumer: OnceLock<Weak<BaseConsumer<Self>>>,
}

struct State {
    held: Holdings,
    /// Lanes of partitions that came and that the consumer thread has not taken yet.
    arrived: Vec<Lane>,
    next_epoch: u64,
    leaving: bool,
    done: Option<oneshot::Sender<()>>,
    announce: Option<mpsc::Sender<Event>>,
}

impl Membership {
    pub(super) fn new(
        config: Config,
        budget: Budget,
        commands: SyncSender<Command>,
        requests: Receiver<Command>,
        announce: mpsc::Sender<Event>,
    ) -> Self {
        let state = State {
            held: Holdings::default(),
            arrived: Vec::new(),
            next_epoch: 1,
            leaving: false,
            done: None,
            announce: Some(announce),
        };
        Self {
            pulse: Arc::new(Pulse::new(config.session_timeout)),
            config,
            budget,
            commands,
            requests: Mutex::new(requests),
            state: Mutex::new(state),
            consumer: OnceLock::new(),
        }
    }

    /// Tells it which consumer it is the context of, before that one subscribes.
    pub(super) fn belongs_to(&self, consumer: &Arc<BaseConsumer<Self>>) {
        self.consumer.get_or_init(|| Arc::downgrade(consumer));
    }

    pub(super) fn beat(&self) {
        self.pulse.beat();
    }

    pub(super) const fn config(&self) -> &Config {
        &self.config
    }

    /// How much of records' memory is kept to be used again.
    pub(super) fn reusable_bytes(&self) -> usize {
        self.budget.reusable_bytes()
    }

    pub(super) fn drain_budget(&self) -> Duration {
        self.config.drain
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.state().leaving
    }

    pub(super) fn holds_nothing(&self) -> bool {
        self.state().held.is_empty()
    }

    /// Ends the stream of events; gives back who waits for that.
    pub(super) fn has_left(&self) -> Option<oneshot::Sender<()>> {
        let mut state = self.state();
        state.announce = None;
        // They hold the consumer, which holds this.
        state.arrived.clear();
        state.done.take()
    }

    /// Tells the service; where it has stopped listening, the member leaves.
    pub(super) fn announce(&self, event: Event) {
        let Some(announce) = self.state().announce.clone() else {
            return;
        };
        if announce.try_send(event).is_err() {
            self.state().leaving = true;
        }
    }

    /// The lanes of partitions that came since the last call.
    pub(super) fn arrived(&self) -> Vec<Lane> {
        std::mem::take(&mut self.state().arrived)
    }

    /// Whether the assignment of that epoch is held.
    pub(super) fn holds(&self, epoch: u64) -> bool {
        self.state().held.of_epoch(epoch).is_some()
    }

    /// The share of an assignment that may be polled: what was polled before is in its queue, and it has room.
    pub(super) fn room(&self, epoch: u64) -> Option<Arc<Share>> {
        let mut state = self.state();
        let held = state.held.of_epoch(epoch)?;
        let room = held.polled.is_none() && !held.full;
        room.then(|| Arc::clone(&held.share))
    }

    /// Notes a batch that was polled for its partition; where that is not held any more (it was just revoked), its next
    /// owner reads it again.
    pub(super) fn take(&self, epoch: u64, batch: Vec<Record>) {
        if let Some(held) = self.state().held.of_epoch(epoch) {
            held.polled = Some(batch);
        }
    }

    /// Moves polled batches into the partitions' queues, and looks which partitions have room for more.
    pub(super) fn hand_out(&self) {
        for held in self.state().held.iter_mut() {
            if let Some(batch) = held.polled.take() {
                match held.queue.try_send(batch) {
                    // A closed queue belongs to a service that has finished with the partition.
                    Ok(()) | Err(TrySendError::Closed(_)) => {}
                    Err(TrySendError::Full(batch)) => held.polled = Some(batch),
                }
            }
            held.full = held.share.is_full(held.full);
        }
    }

    /// Carries out every command that is waiting.
    pub(super) fn obey_all(&self, consumer: &BaseConsumer<Self>) {
        while let Some(command) = self.next_command(Duration::ZERO) {
            self.obey(consumer, command);
        }
    }

    fn next_command(&self, wait: Duration) -> Option<Command> {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        // The sender lives in this very struct, so the channel is never disconnected.
        requests.recv_timeout(wait).ok()
    }

    fn obey(&self, consumer: &BaseConsumer<Self>, command: Command) {
        match command {
            Command::Commit {
                topic,
                partition,
                epoch,
                committed,
                answer,
            } => {
                let owned = self
                    .state()
                    .held
                    .find(&topic, partition)
                    .is_some_and(|held| held.epoch == epoch);
                let result = if owned {
                    commit(consumer, &topic, partition, &committed)
                } else {
                    Err(CommitError::NotOwned)
                };
                drop(answer.send(result));
            }
            Command::Fetch {
                topic,
                partition,
                answer,
            } => {
                drop(answer.send(fetch_committed(consumer, &topic, partition)));
            }
            Command::Release {
                topic,
                partition,
                epoch,
            } => {
                let mut state = self.state();
                let held = state.held.find(&topic, partition);
                if held.is_some_and(|held| held.epoch == epoch) {
                    state.held.remove(&topic, partition);
                }
            }
            Command::Leave { done } => {
                let mut state = self.state();
                state.leaving = true;
                if done.is_some() {
                    state.done = done;
                }
            }
        }
    }

    /// Takes partitions on: where they stand, from when on they count as ours, and where reading starts.
    fn assign(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        for mut element in list.elements() {
            self.beat();
            let topic = element.topic().to_owned();
            let Ok(number) = u32::try_from(element.partition()) else {
                continue;
            };
            match position(consumer, &topic, number) {
                Ok((committed, log_start, log_end)) => {
                    let wanted = committed.as_ref().map_or(log_start, |committed| committed.offset);
                    let start = wanted.clamp(log_start, log_end.max(log_start));
                    let offset = Offset::Offset(i64::try_from(start).unwrap_or(i64::MAX));
                    if let Err(source) = element.set_offset(offset) {
                        self.announce(Event::Failed(Error::Cluster {
                            request: "an assignment",
                            source,
                        }));
                        continue;
                    }
                    self.hold(topic, number, committed, log_start..log_end);
                }
                Err(source) => {
                    // Without the committed offset nothing may be read: the session starts over.
                    self.announce(Event::Failed(Error::Cluster {
                        request: "the committed offset",
                        source,
                    }));
                }
            }
        }
    }

    fn hold(&self, topic: String, number: u32, committed: Option<Committed>, log: Range<u64>) {
        let (queue, records) = mpsc::channel(self.config.queue_batches.max(1));
        let revoked = CancellationToken::new();
        let share = self.budget.share();
        let mut state = self.state();
        let epoch = state.next_epoch;
        state.next_epoch += 1;
        let consumer = self.consumer.get().and_then(Weak::upgrade);
        let Some(lane) = consumer.and_then(|consumer| Lane::open(&consumer, (&topic, number), epoch)) else {
            drop(state);
            tracing::error!(topic, partition = number, "an assigned partition has no queue");
            return self.announce(Event::Failed(Error::Closed));
        };
        state.arrived.push(lane);
        let held = Held {
            topic: topic.clone(),
            number,
            epoch,
            queue,
            revoked: revoked.clone(),
            share: Arc::clone(&share),
            polled: None,
            full: false,
        };
        state.held.insert(held);
        drop(state);
        let commands = self.commands.clone();
        let partition = Partition {
            topic,
            number,
            committed,
            log_start: log.start,
            log_end: log.end,
            records,
            revoked,
            share,
            pulse: Arc::clone(&self.pulse),
            epoch,
            commands,
        };
        self.announce(Event::Assigned(partition));
    }

    /// Gives partitions back: tells their tasks, and answers their commits until they have finished.
    fn revoke(&self, consumer: &BaseConsumer<Self>, list: &TopicPartitionList) {
        let keys: Vec<_> = list
            .elements()
            .iter()
            .filter_map(|element| {
                Some((
                    element.topic().to_owned(),
                    u32::try_from(element.partition()).ok()?,
                ))
            })
            .collect();
        {
            let mut state = self.state();
            for (topic, number) in &keys {
                if let Some(held) = state.held.find(topic, *number) {
                    held.polled = None;
                    held.revoked.cancel();
                    // The end of the queue reaches a task that is waiting for records.
                    held.queue = mpsc::channel(1).0;
                }
            }
        }
        const TURN: Duration = Duration::from_millis(20);
        let mut left = self.drain_budget();
        while keys
            .iter()
            .any(|(topic, number)| self.state().held.find(topic, *number).is_some())
        {
            self.beat();
            match self.next_command(TURN) {
                Some(command) => self.obey(consumer, command),
                None => left = left.saturating_sub(TURN),
            }
            if left.is_zero() {
                tracing::warn!(
                    partitions = keys.len(),
                    "revoked partitions did not finish in time; what they have begun is recovered by the next owner"
                );
                break;
            }
        }
        let mut state = self.state();
        for (topic, number) in &keys {
            state.held.remove(topic, *number);
        }
    }
}

impl ClientContext for Membership {}

impl ConsumerContext for Membership {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => self.assign(consumer, list),
            Rebalance::Revoke(list) => self.revoke(consumer, list),
            Rebalance::Error(error) => tracing::warn!(%error, "a rebalance failed"),
        }
    }
}

fn commit(
    consumer: &BaseConsumer<Membership>,
    topic: &str,
    partition: u32,
    committed: &Committed,
) -> Result<(), CommitError> {
    let number = i32::try_from(partition).unwrap_or(i32::MAX);
    let offset = Offset::Offset(i64::try_from(committed.offset).unwrap_or(i64::MAX));
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(topic, number, offset)
        .map_err(CommitError::Unknown)?;
    if let Some(mut element) = list.find_partition(topic, number) {
        element.set_metadata(committed.metadata.as_str());
    }
    consumer
        .commit(&list, CommitMode::Sync)
        .map_err(CommitError::Unknown)
}

fn fetch_committed(
    consumer: &BaseConsumer<Membership>,
    topic: &str,
    partition: u32,
) -> Result<Option<Committed>, CommitError> {
    let number = i32::try_from(partition).unwrap_or(i32::MAX);
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition(topic, number);
    let answer = consumer
        .committed_offsets(list, REQUEST)
        .map_err(CommitError::Unknown)?;
    let Some(element) = answer.find_partition(topic, number) else {
        return Ok(None);
    };
    element.error().map_err(CommitError::Unknown)?;
    let Offset::Offset(offset) = element.offset() else {
        return Ok(None);
    };
    let offset = u64::try_from(offset).unwrap_or(0);
    Ok(Some(Committed {
        offset,
        metadata: element.metadata().to_owned(),
    }))
}

/// What is committed, and the log's first and next offset.
fn position(
    consumer: &BaseConsumer<Membership>,
    topic: &str,
    partition: u32,
) -> Result<(Option<Committed>, u64, u64), rdkafka::error::KafkaError> {
    let committed = match fetch_committed(consumer, topic, partition) {
        Ok(committed) => committed,
        Err(CommitError::Unknown(source)) => return Err(source),
        Err(CommitError::NotOwned) => None,
    };
    let number = i32::try_from(partition).unwrap_or(i32::MAX);
    let (low, high) = consumer.fetch_watermarks(topic, number, REQUEST)?;
    Ok((
        committed,
        u64::try_from(low).unwrap_or(0),
        u64::try_from(high).unwrap_or(0),
    ))
}
