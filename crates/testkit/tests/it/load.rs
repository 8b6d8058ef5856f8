//! Sending numbered events as patient clients do: the same message id again until the answer is 200.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use millrace_testkit::oracle::{Oracle, event};
use millrace_testkit::pipeline::Sender;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::PATIENCE;

const CLIENTS: u64 = 6;
const BATCH: u64 = 25;
const PAUSE: Duration = Duration::from_millis(100);

/// Sends the events of `range`: nine tenths in batches, the rest one by one on the routes of their types.
pub(crate) async fn send(sender: &Sender, oracle: &Arc<Oracle>, range: Range<u64>) -> Result<()> {
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let (sender, oracle, range) = (sender.clone(), Arc::clone(oracle), range.clone());
        clients.spawn(async move {
            let mut start = range.start + client * BATCH;
            while start < range.end {
                let numbers: Vec<u64> = (start..(start + BATCH).min(range.end)).collect();
                if (start / BATCH).is_multiple_of(10) {
                    for n in numbers {
                        let event = event(n);
                        let path = format!("/v1/{}", event["type"].as_str().unwrap_or("track"));
                        until_acknowledged(&sender, &oracle, &path, &event, &[n]).await?;
                    }
                } else {
                    let batch: Vec<_> = numbers.iter().map(|n| event(*n)).collect();
                    until_acknowledged(
                        &sender,
                        &oracle,
                        "/v1/batch",
                        &json!({ "batch": batch }),
                        &numbers,
                    )
                    .await?;
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

async fn until_acknowledged(
    sender: &Sender,
    oracle: &Oracle,
    path: &str,
    body: &Value,
    numbers: &[u64],
) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    loop {
        for n in numbers {
            oracle.sending(*n);
        }
        let said = match sender.post(path, body).await {
            Ok(answer) if answer.status == 200 => {
                let answered = answer.json()?;
                if answered["success"] != true || answered.get("rejected").is_some() {
                    bail!("{path} was answered 200 with {}", answer.body);
                }
                for n in numbers {
                    oracle.acknowledged(*n);
                }
                return Ok(());
            }
            Ok(answer) if answer.status == 429 || answer.status == 503 => answer.body,
            Ok(answer) => bail!("{path} was answered {}: {}", answer.status, answer.body),
            // The connection broke: the process was killed, and comes back.
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() > end {
            bail!("{path} was not acknowledged within {PATIENCE:?}; last: {said}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}
