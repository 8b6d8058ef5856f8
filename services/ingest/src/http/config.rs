//! `[http]`

use std::net::SocketAddr;
use std::time::Duration;

use millrace_service::config::{ByteSize, Faults};
use serde::{Deserialize, Serialize};

use super::peer::Proxies;
use super::settings::Public;

/// The public port and its limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Most connections; more wait in the backlog.
    pub connections: usize,
    /// Most bytes of one body as it is sent.
    pub body_limit: ByteSize,
    /// Most bytes of one body that was sent encoded, once decoded.
    pub decoded_limit: ByteSize,
    /// Most bytes that a byte sent decodes to, where the whole exceeds 1 MiB.
    pub decoded_ratio: usize,
    /// Most bytes of all bodies at a time.
    pub body_memory: ByteSize,
    /// For the head of a request; also how long a connection may be idle.
    #[serde(with = "humantime_serde")]
    pub header_timeout: Duration,
    /// For a whole body.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// Networks of proxies whose `X-Forwarded-For` is believed, such as `10.0.0.0/8`.
    #[serde(deserialize_with = "millrace_service::config::list")]
    pub trusted_proxies: Vec<String>,
    /// Whether the payload of what is refused goes into the log, redacted.
    pub log_payload_on_error: bool,
    /// Names of fields whose values are never logged, at any depth; case, `_` and `-` do not matter.
    #[serde(deserialize_with = "millrace_service::config::list")]
    pub redact: Vec<String>,
    /// Where browsers reach this gateway, such as `https://events.example.com`; goes into the settings that
    /// they load.
    pub public_url: Option<String>,
}

/// What is kept out of logs unless configured otherwise.
const REDACTED: [&str; 18] = [
    "address",
    "api_key",
    "authorization",
    "birthday",
    "card_number",
    "cookie",
    "credit_card",
    "cvv",
    "email",
    "first_name",
    "iban",
    "ip",
    "last_name",
    "password",
    "phone",
    "secret",
    "ssn",
    "token",
];

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 3049)),
            connections: 8_192,
            body_limit: ByteSize::mib(4),
            decoded_limit: ByteSize::mib(8),
            decoded_ratio: 100,
            body_memory: ByteSize::mib(256),
            header_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(30),
            trusted_proxies: Vec::new(),
            log_payload_on_error: false,
            redact: REDACTED.map(str::to_owned).into(),
            public_url: None,
        }
    }
}

impl Config {
    /// Reports limits that contradict each other.
    pub fn check(&self, faults: &mut Faults) {
        if self.connections == 0 {
            faults.add("http.connections", "must be 1 at least");
        }
        // An encoded body, what it decodes to, and the decoder's window.
        if self.body_memory.get() < self.body_limit.get() + 2 * self.decoded_limit.get() {
            faults.add(
                "http.body_memory",
                "must hold one body at least: body_limit and twice decoded_limit",
            );
        }
        if self.decoded_ratio == 0 {
            faults.add("http.decoded_ratio", "must be 1 at least");
        }
        if let Err(network) = Proxies::new(&self.trusted_proxies) {
            faults.add(
                "http.trusted_proxies",
                format!("{network:?} is no network such as 10.0.0.0/8"),
            );
        }
        if self
            .public_url
            .as_deref()
            .is_some_and(|url| Public::of(url).is_none())
        {
            faults.add("http.public_url", "must be http(s)://host or http(s)://host:port");
        }
        if self.body_memory > ByteSize::mib(1 << 20) {
            faults.add("http.body_memory", "must be 1TiB at most");
        }
    }
}
