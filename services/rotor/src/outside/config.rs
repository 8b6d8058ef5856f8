//! The sections of the configuration about what functions know and reach.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use millrace_service::config::{ByteSize, Faults};
use millrace_store::values::Quota;
use serde::{Deserialize, Serialize};

use super::fetch;

/// `[store]`: what one workspace may keep with `ctx.store`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSection {
    /// Keys.
    pub keys: u64,
    /// All keys and values.
    pub total: ByteSize,
    /// One value, as JSON.
    pub value: ByteSize,
}

/// `[fetch]`: what `ctx.fetch` may cost. Where it may go is set per workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FetchSection {
    /// For one call, redirects and the answer's body included; the event's own limit ends it before.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// Body of an answer.
    pub response: ByteSize,
    /// Redirects that are followed.
    pub redirects: usize,
    /// PEM file with the certificates that servers are known by.
    pub certificates: PathBuf,
    /// One more such file, of authorities that only this network knows: its certificates count beside the others.
    pub ca_file: Option<PathBuf>,
    /// Addresses that are reached although they are private, loopback or the like. Each is a hole for every workspace
    /// that may name a host which resolves to it: for tests.
    pub unsafe_reachable: Vec<IpAddr>,
}

/// `[secrets]`: how `ctx.env` is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecretsSection {
    /// The file with the keys, as `millctl secret init-key` makes it. Read again whenever the configuration changes.
    pub key_file: Option<PathBuf>,
}

/// `[geo]`: where `ctx.geo` comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GeoSection {
    /// A `.mmdb` file with cities or countries; absent: `ctx.geo` is `null`. It is held in memory, and read again when it
    /// is replaced.
    pub database: Option<PathBuf>,
}

impl Default for StoreSection {
    fn default() -> Self {
        Self {
            keys: 10_000,
            total: ByteSize::mib(16),
            value: ByteSize::kib(64),
        }
    }
}

impl Default for FetchSection {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            response: ByteSize::mib(1),
            redirects: 5,
            certificates: PathBuf::from("/etc/ssl/certs/ca-certificates.crt"),
            ca_file: None,
            unsafe_reachable: Vec::new(),
        }
    }
}

impl StoreSection {
    /// As the store is told.
    pub fn quota(&self) -> Quota {
        Quota {
            keys: self.keys,
            bytes: self.total.get(),
            value_bytes: self.value.as_usize(),
        }
    }
}

impl FetchSection {
    /// As the client is told.
    pub fn client(&self) -> fetch::Config {
        fetch::Config {
            timeout: self.timeout,
            response_bytes: self.response.as_usize(),
            redirects: self.redirects,
            certificates: self.certificates.clone(),
            ca_file: self.ca_file.clone(),
            unsafe_reachable: self.unsafe_reachable.clone(),
        }
    }

    /// What cannot be.
    pub fn check(&self, faults: &mut Faults) {
        if self.timeout.is_zero() {
            faults.add("fetch.timeout", "must be longer than nothing");
        }
        if self.response > ByteSize::mib(16) {
            faults.add(
                "fetch.response",
                "16MiB at most: it is held in memory several times",
            );
        }
        if self.redirects > 20 {
            faults.add("fetch.redirects", "20 at most");
        }
    }
}
