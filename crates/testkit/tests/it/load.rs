//! Sending numbered events as patient clients do: the same message id again until the answer is 200.

use std::ops::Range;
use std::sync::Arc;

use anyhow::Result;
use millrace_testkit::oracle::{Oracle, event};
use millrace_testkit::patient::Patient;
use millrace_testkit::pipeline::Sender;
use tokio::task::JoinSet;

use crate::PATIENCE;

const CLIENTS: u64 = 6;
const BATCH: u64 = 25;

/// Sends the events of `range`: nine tenths in batches, the rest one by one on the routes of their types.
pub(crate) async fn send(sender: &Sender, oracle: &Arc<Oracle>, range: Range<u64>) -> Result<()> {
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (sender, oracle, range) = (sender.clone(), Arc::clone(oracle), range.clone());
        clients.spawn(async move {
            let mut start = range.start + client * BATCH;
            while start < range.end {
                let numbers: Vec<u64> = (start..(start + BATCH).min(range.end)).collect();
                let client = Patient {
                    sender: &sender,
                    oracle: &oracle,
                    event,
                    patience: PATIENCE,
                };
                if (start / BATCH).is_multiple_of(10) {
                    client.one_by_one(&numbers).await?;
                } else {
                    client.batch(&numbers).await?;
                }
                start += CLIENTS * BATCH;
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    Ok(())
}
