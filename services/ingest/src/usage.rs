//! An event for each request, for whoever bills and plans: to Kafka, beside the events themselves. No request waits for
//! it. It may stand in its topic twice, so readers count a `request_id` once.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use millrace_event::Timestamp;
use millrace_event::header::Headers;
use millrace_kafka::Outgoing;
use millrace_kafka::edge::Producer;
use millrace_kafka::notes::{Gathering, Note, Notes, Reporter, notes};
use millrace_service::config::Faults;
use millrace_store::keys::Key;
use serde::{Deserialize, Serialize};

use crate::metrics::Metrics;

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
pub(crate) type Usage = Notes<Request>;

/// Both ends of the buffer.
pub(crate) fn usage(
    config: &Config,
    producer: Producer,
    topic: String,
    metrics: &Metrics,
) -> (Usage, Reporter<Request>) {
    let gathering = Gathering {
        buffer: config.buffer,
        batch: config.batch,
        interval: config.interval,
    };
    notes(gathering, producer, topic, metrics.usage.clone())
}

/// Room for a record.
const RECORD: usize = 384;

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
        let mut value = Vec::with_capacity(RECORD);
        // Plain strings and numbers: there is nothing in it that JSON lacks.
        let written = serde_json::to_writer(&mut value, &record);
        debug_assert!(written.is_ok(), "a record always serializes");
        value
    }

    fn organization(&self) -> Option<&[u8]> {
        self.key
            .as_deref()
            .map(|key| key.organization.as_str().as_bytes())
    }
}

impl Note for Request {
    const MANY: &'static str = "usage events";

    fn spread(&self) -> &[u8] {
        self.organization().unwrap_or(self.request_id.as_bytes())
    }

    fn outgoing(&self) -> Outgoing {
        Outgoing {
            key: self.organization().map(<[u8]>::to_vec),
            value: self.record(),
            headers: Headers::new(),
        }
    }
}

#[cfg(test)]
mod tests {
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
}
