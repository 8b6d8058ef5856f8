//! How to reach the cluster.

use rdkafka::config::ClientConfig;
use serde::{Deserialize, Serialize};

/// The cluster's address and who is asking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Connection {
    /// Bootstrap brokers, `host:port`, separated by commas.
    pub brokers: String,
    /// Shown in the brokers' logs and quotas.
    pub client_id: String,
}

impl Default for Connection {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".into(),
            client_id: "millrace".into(),
        }
    }
}

impl Connection {
    /// The connection to `brokers` under the name `client_id`.
    pub fn new(brokers: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            client_id: client_id.into(),
        }
    }

    /// The bootstrap brokers one by one.
    pub(crate) fn bootstrap(&self) -> Vec<String> {
        self.brokers
            .split(',')
            .map(|broker| broker.trim().to_owned())
            .filter(|broker| !broker.is_empty())
            .collect()
    }

    /// What every librdkafka client here starts from.
    pub(crate) fn librdkafka(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client_id)
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "2000")
            .set("socket.keepalive.enable", "true")
            // A broker restart is expected; the clients retry by themselves and the callers log what matters.
            .set("log.connection.close", "false");
        config
    }
}
