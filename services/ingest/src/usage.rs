//! An event for each request, for whoever bills and plans: to Kafka, beside the events themselves.
//!
//! No request waits for it. What the buffer cannot hold is dropped, counted and logged: a lost count is
//! borne, a slow answer is not. A batch whose fate is unknown is sent again, so readers count a `request_id`
//! once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use millrace_event::header::Headers;
use millrace_event::{Timestamp, partition};
use millrace_kafka::Outgoing;
use millrace_kafka::edge::Producer;
use millrace_kafka::error::ProduceError;
use millrace_service::Causes;
use millrace_service::config::Faults;
use millrace_store::keys::Key;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Between attempts, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// `[usage]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Most events that wait; more are dropped.
    pub buffer: usize,
    /// How many are sent at once.
    pub batch: usize,
    /// How long the first of them waits for the others.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            buffer: 1_000,
            batch: 100,
            interval: Duration::from_millis(500),
        }
    }
}

impl Config {
    /// Reports a buffer that holds no batch.
    pub fn check(&self, faults: &mut Faults) {
        if self.batch == 0 || self.batch > self.buffer {
            faults.add("usage.batch", "must lie between 1 and usage.buffer");
        }
        if self.buffer > 1_000_000 {
            faults.add("usage.buffer", "must be 1000000 at most");
        }
    }
}

/// A request that was answered.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) request_id: String,
    /// The key, where one was admitted.
    pub(crate) key: Option<Arc<Key>>,
    /// The pattern of the path.
    pub(crate) endpoint: Arc<str>,
    pub(crate) method: Method,
    pub(crate) status: StatusCode,
    pub(crate) elapsed: Duration,
    pub(crate) at: Timestamp,
}

/// Takes note of requests.
#[derive(Clone, Debug)]
pub(crate) struct Usage {
    sender: mpsc::Sender<Request>,
    metrics: Metrics,
}

/// Sends what was noted.
#[derive(Debug)]
pub(crate) struct Reporter {
    receiver: mpsc::Receiver<Request>,
    producer: Producer,
    topic: String,
    config: Config,
    metrics: Metrics,
    partitions: Option<u32>,
    /// Drops that the log has.
    told: u64,
}

#[derive(Serialize)]
struct Record<'a> {
    version: u32,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    organization_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key_id: Option<&'a str>,
    endpoint: &'a str,
    method: &'a str,
    status_code: u16,
    response_time_ms: f64,
    timestamp: Timestamp,
    billable: bool,
}

impl Usage {
    /// Both ends of the buffer.
    pub(crate) fn new(
        config: &Config,
        producer: Producer,
        topic: String,
        metrics: Metrics,
    ) -> (Self, Reporter) {
        let (sender, receiver) = mpsc::channel(config.buffer);
        let reporter = Reporter {
            receiver,
            producer,
            topic,
            config: config.clone(),
            metrics: metrics.clone(),
            partitions: None,
            told: 0,
        };
        (Self { sender, metrics }, reporter)
    }

    /// Notes a request, or drops it where the buffer is full.
    pub(crate) fn note(&self, request: Request) {
        if self.sender.try_send(request).is_err() {
            self.metrics.usage_dropped.inc();
        }
    }
}

impl Request {
    fn record(&self) -> Vec<u8> {
        let key = self.key.as_deref();
        let standard = [
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::PATCH,
            Method::DELETE,
            Method::OPTIONS,
            Method::CONNECT,
            Method::TRACE,
        ];
        let record = Record {
            version: 1,
            request_id: &self.request_id,
            organization_id: key.map(|key| key.organization.as_str()),
            api_key_id: key.map(|key| key.id.as_str()),
            endpoint: &self.endpoint,
            // Anybody can make methods up.
            method: standard
                .iter()
                .find(|method| **method == self.method)
                .map_or("OTHER", Method::as_str),
            status_code: self.status.as_u16(),
            response_time_ms: (self.elapsed.as_secs_f64() * 1e6).round() / 1e3,
            timestamp: self.at,
            billable: self.status.is_success() || self.status.is_client_error(),
        };
        // Plain strings and numbers: there is nothing in it that JSON lacks.
        serde_json::to_vec(&record).unwrap_or_default()
    }

    fn outgoing(&self, partitions: u32) -> (u32, Outgoing) {
        let key = self.key.as_deref().map(|key| key.organization.as_str());
        let spread = key.unwrap_or(&self.request_id).as_bytes();
        let record = Outgoing {
            key: key.map(|key| key.as_bytes().to_vec()),
            value: self.record(),
            headers: Headers::new(),
        };
        (partition::of_key(spread, partitions), record)
    }
}

impl Reporter {
    /// Sends until `end`, and then once more what is left.
    ///
    /// # Cancellation
    /// What was not sent is lost; what was being sent may be.
    pub(crate) async fn run(mut self, end: CancellationToken) {
        let mut batch = Vec::with_capacity(self.config.batch);
        loop {
            let ending = tokio::select! {
                biased;
                ending = self.gather(&mut batch) => ending,
                () = end.cancelled() => {
                    self.receiver.close();
                    while let Ok(request) = self.receiver.try_recv() {
                        batch.push(request);
                    }
                    true
                }
            };
            if !batch.is_empty() {
                self.send(&batch, &end).await;
                batch.clear();
            }
            self.tell();
            if ending {
                return;
            }
        }
    }

    /// Fills the batch; true when nothing will come any more. Loses nothing when dropped: what has come is in
    /// the batch.
    async fn gather(&mut self, batch: &mut Vec<Request>) -> bool {
        let limit = self.config.batch;
        if self.receiver.recv_many(batch, limit).await == 0 {
            return true;
        }
        let deadline = Instant::now() + self.config.interval;
        while batch.len() < limit {
            match timeout_at(deadline, self.receiver.recv_many(batch, limit - batch.len())).await {
                Ok(0) => return true,
                Ok(_) => {}
                Err(_) => break,
            }
        }
        false
    }

    /// Sends a batch until Kafka has it, or, once the process ends, tries to.
    async fn send(&mut self, batch: &[Request], end: &CancellationToken) {
        let mut left: Option<BTreeMap<u32, Vec<Outgoing>>> = None;
        let mut pause = BACKOFF.0;
        loop {
            match self.attempt(batch, &mut left).await {
                Ok(()) => return,
                Err(error) if end.is_cancelled() => {
                    let count = left.map_or(batch.len(), |left| left.values().map(Vec::len).sum());
                    self.drop_for(count, &error);
                    return;
                }
                Err(error) => tracing::debug!(%error, "usage events are not sent yet"),
            }
            tokio::select! {
                () = end.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    async fn attempt(
        &mut self,
        batch: &[Request],
        left: &mut Option<BTreeMap<u32, Vec<Outgoing>>>,
    ) -> Result<(), String> {
        let partitions = match self.partitions {
            Some(partitions) => partitions,
            None => {
                let asked = self.producer.partitions(&self.topic).await;
                *self
                    .partitions
                    .insert(asked.map_err(|error| Causes(&error).to_string())?)
            }
        };
        let left = left.get_or_insert_with(|| {
            let mut lanes: BTreeMap<u32, Vec<Outgoing>> = BTreeMap::new();
            for (partition, record) in batch.iter().map(|request| request.outgoing(partitions)) {
                lanes.entry(partition).or_default().push(record);
            }
            lanes
        });
        while let Some(entry) = left.first_entry() {
            let records = entry.get().clone();
            let count = records.len();
            match self.producer.produce(&self.topic, *entry.key(), records).await {
                Ok(()) => {
                    let count = u64::try_from(count).unwrap_or(u64::MAX);
                    self.metrics.usage_sent.inc_by(count);
                }
                Err(error @ ProduceError::Refused { .. }) => {
                    self.drop_for(count, &Causes(&error).to_string())
                }
                Err(error) => return Err(Causes(&error).to_string()),
            }
            left.pop_first();
        }
        Ok(())
    }

    fn drop_for(&self, count: usize, error: &str) {
        let dropped = u64::try_from(count).unwrap_or(u64::MAX);
        self.metrics.usage_dropped.inc_by(dropped);
        tracing::warn!(count, error, "usage events could not be sent");
    }

    fn tell(&mut self) {
        let dropped = self.metrics.usage_dropped.get();
        if dropped > self.told {
            let count = dropped - self.told;
            self.told = dropped;
            tracing::warn!(count, "usage events were dropped");
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_kafka::Connection;
    use prometheus_client::registry::Registry;

    use super::*;

    fn request(status: StatusCode, method: Method) -> Request {
        Request {
            request_id: "req_019d1f2e5c127c4b8e664a1d3b9f5c21".to_owned(),
            key: None,
            endpoint: "/v1/track".into(),
            method,
            status,
            elapsed: Duration::from_micros(250),
            at: "2026-11-21T04:00:00.130Z".parse().unwrap(),
        }
    }

    #[test]
    fn a_request_without_a_known_key_is_written_like_its_golden_bytes() {
        let golden = include_str!("../../../schemas/usage/usage.requests.v1.unknown_key.golden.json");
        let record = request(StatusCode::UNAUTHORIZED, Method::POST).record();
        assert_eq!(String::from_utf8(record).unwrap(), golden.trim_end());
    }

    #[test]
    fn what_the_gateway_is_to_blame_for_is_not_billed() {
        for (status, billable) in [(200, true), (204, true), (301, false), (429, true), (503, false)] {
            let request = request(StatusCode::from_u16(status).unwrap(), Method::POST);
            let record: serde_json::Value = serde_json::from_slice(&request.record()).unwrap();
            assert_eq!(record["billable"], billable, "{status}");
        }
        let odd = request(StatusCode::OK, Method::from_bytes(b"x-odd").unwrap());
        assert!(
            String::from_utf8(odd.record())
                .unwrap()
                .contains(r#""method":"OTHER""#)
        );
    }

    #[test]
    fn what_the_buffer_cannot_hold_is_dropped_and_counted() {
        let metrics = Metrics::register(&mut Registry::default());
        let config = Config {
            buffer: 2,
            batch: 2,
            ..Config::default()
        };
        let producer = Producer::new(Connection::new("127.0.0.1:1", "test"), Duration::from_secs(1));
        let (usage, _reporter) = Usage::new(&config, producer, "t".to_owned(), metrics.clone());
        for _ in 0..5 {
            usage.note(request(StatusCode::OK, Method::POST));
        }
        assert_eq!(metrics.usage_dropped.get(), 3);
    }
}
