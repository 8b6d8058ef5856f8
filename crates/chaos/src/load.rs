//! Clients that send numbered events at a steady rate, each event again until it is acknowledged.
//!
//! A person's events are all of one client, which sends them in the order of their numbers and none before the one
//! before it was acknowledged. So the order in which the log holds them is known.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use millrace_testkit::oracle::{Oracle, PERSONS};
use millrace_testkit::patient::{Effort, Patient};
use millrace_testkit::pipeline::Sender;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::fate::event;

const CLIENTS: u64 = 6;
/// Most events of a request.
const MOST: u64 = 25;
/// How often a client sends a request, unless it waits for an answer.
const TURN: Duration = Duration::from_millis(200);
/// Longest that an event may go without an acknowledgement.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the clients did.
#[derive(Debug, Default)]
pub struct Sent {
    /// What was sent and acknowledged, by number.
    pub oracle: Oracle,
    /// Events in requests that were sent again.
    pub again: AtomicU64,
    /// Events that ingest knew already, as it answered batches; other routes do not say.
    pub duplicates: AtomicU64,
}

impl Sent {
    fn client<'a>(&'a self, sender: &'a Sender) -> Patient<'a> {
        Patient {
            sender,
            oracle: &self.oracle,
            event,
            patience: PATIENCE,
        }
    }

    fn note(&self, effort: Effort) {
        self.again.fetch_add(effort.again, Ordering::Relaxed);
        self.duplicates.fetch_add(effort.known, Ordering::Relaxed);
    }
}

/// Sends about `rate` events a second from number `first` on until `end`, then waits for the last answers.
///
/// # Errors
/// An answer that no client may get, or none within five minutes.
pub async fn send(
    sender: &Sender,
    sent: &Arc<Sent>,
    first: u64,
    rate: u64,
    end: watch::Receiver<bool>,
) -> Result<()> {
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (sender, sent, end) = (sender.clone(), Arc::clone(sent), end.clone());
        clients.spawn(async move {
            let mut turns = interval(TURN);
            turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let turns_a_second = 1000 / u64::try_from(TURN.as_millis()).unwrap_or(1000).max(1);
            let size = (rate / CLIENTS / turns_a_second).clamp(1, MOST);
            let mut numbers = (first..).filter(|n| (n % PERSONS) % CLIENTS == client);
            let mut turn = 0_u64;
            while !*end.borrow() {
                turns.tick().await;
                turn += 1;
                let batch: Vec<u64> = numbers
                    .by_ref()
                    .take(usize::try_from(size).unwrap_or(1))
                    .collect();
                // One request in ten goes over the routes of the types, event by event.
                let client = sent.client(&sender);
                sent.note(match turn.is_multiple_of(10) {
                    true => client.one_by_one(&batch).await?,
                    false => client.batch(&batch).await?,
                });
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    Ok(())
}

/// Sends events that nothing may happen to yet.
///
/// # Errors
/// As [`send`].
pub async fn send_plain(sender: &Sender, sent: &Sent, count: u64) -> Result<()> {
    let numbers: Vec<u64> = (0..count).collect();
    for batch in numbers.chunks(20) {
        sent.note(sent.client(sender).batch(batch).await?);
    }
    Ok(())
}
