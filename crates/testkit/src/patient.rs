//! A patient client: it sends numbered events, each again with the same message id, until the answer is 200.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::oracle::Oracle;
use crate::pipeline::Sender;

/// Before an event is sent again.
const PAUSE: Duration = Duration::from_millis(100);

/// Who sends what, and how long an event may go without an acknowledgement.
#[derive(Clone, Copy, Debug)]
pub struct Patient<'a> {
    /// The way to the gateway.
    pub sender: &'a Sender,
    /// What is told of every event that is sent or acknowledged.
    pub oracle: &'a Oracle,
    /// The event of a number.
    pub event: fn(u64) -> Value,
    /// Longest that an event may go without an acknowledgement.
    pub patience: Duration,
}

/// What it took until events were acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effort {
    /// Events in requests that were sent again.
    pub again: u64,
    /// Events that the gateway knew already, as it answered batches; other routes do not say.
    pub known: u64,
}

impl Patient<'_> {
    /// Sends the events of `numbers` as one batch.
    ///
    /// # Errors
    /// An answer that no client may get, or none in time.
    pub async fn batch(&self, numbers: &[u64]) -> Result<Effort> {
        let events: Vec<_> = numbers.iter().map(|n| (self.event)(*n)).collect();
        self.until_acknowledged("/v1/batch", &json!({ "batch": events }), numbers)
            .await
    }

    /// Sends them one by one, on the routes of their types.
    ///
    /// # Errors
    /// As [`Self::batch`].
    pub async fn one_by_one(&self, numbers: &[u64]) -> Result<Effort> {
        let mut effort = Effort::default();
        for n in numbers {
            let event = (self.event)(*n);
            let path = format!("/v1/{}", event["type"].as_str().unwrap_or("track"));
            let one = self.until_acknowledged(&path, &event, &[*n]).await?;
            effort.again += one.again;
            effort.known += one.known;
        }
        Ok(effort)
    }

    async fn until_acknowledged(&self, path: &str, body: &Value, numbers: &[u64]) -> Result<Effort> {
        let end = Instant::now() + self.patience;
        let mut effort = Effort::default();
        loop {
            for n in numbers {
                self.oracle.sending(*n);
            }
            let said = match self.sender.post(path, body).await {
                Ok(answer) if answer.status == 200 => {
                    let answered = answer.json()?;
                    if answered["success"] != true || answered.get("rejected").is_some() {
                        bail!("{path} was answered 200 with {}", answer.body);
                    }
                    effort.known = answered["duplicates"].as_u64().unwrap_or(0);
                    for n in numbers {
                        self.oracle.acknowledged(*n);
                    }
                    return Ok(effort);
                }
                Ok(answer) if answer.status == 429 || answer.status == 503 => answer.body,
                Ok(answer) => bail!("{path} was answered {}: {}", answer.status, answer.body),
                // The connection broke: the process was killed, and comes back.
                Err(error) => format!("{error:#}"),
            };
            if Instant::now() > end {
                bail!(
                    "{path} was not acknowledged within {:?}; last: {said}",
                    self.patience
                );
            }
            effort.again += u64::try_from(numbers.len()).unwrap_or(0);
            tokio::time::sleep(PAUSE).await;
        }
    }
}
