//! How many events may come, of a workspace and of those who send under its public keys.
//!
//! The counters are in Redis, shared by all gateways. Where Redis is away each gateway goes by a bucket of its
//! own, which is never stricter than the shared windows: a limit is no reason for an outage.

mod own;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use millrace_event::{IngestCode, KeyKind};
use millrace_service::Clock;
use millrace_service::config::Faults;
use millrace_store::keys::Key;
use millrace_store::limits::{Charged, Demand, GuestWindows, Guests as Sender, Limiter, Rate, Window};
use millrace_store::{Error, WorkspaceId};
use serde::{Deserialize, Serialize};

use own::Own;

use super::Refusal;
use crate::metrics::Metrics;

/// A guest sends more than is usual.
pub(super) const GUEST: &str = "guest_rate";
/// Between two lines about Redis being away.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// `[guests]`: what may come under one public key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Guests {
    /// Events of one anonymous id in ten seconds.
    pub id: Steps,
    /// Events of one network, a /24 or an IPv6 /64, in ten seconds. Loose: offices and phones share one.
    pub network: Steps,
    /// Anonymous ids seen for the first time, of one key in a minute. Known ones go on beyond it.
    pub first_seen: Steps,
    /// How long an anonymous id counts as seen.
    #[serde(with = "humantime_serde")]
    pub remember: Duration,
}

/// A limit in two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Steps {
    /// Beyond this events are marked.
    pub mark: u64,
    /// Beyond this requests are refused.
    pub refuse: u64,
}

impl Default for Guests {
    fn default() -> Self {
        let steps = |mark, refuse| Steps { mark, refuse };
        Self {
            id: steps(200, 1_000),
            network: steps(5_000, 50_000),
            first_seen: steps(3_000, 30_000),
            remember: Duration::from_secs(60 * 60),
        }
    }
}

impl Guests {
    /// Reports limits that refuse before they mark.
    pub fn check(&self, faults: &mut Faults) {
        for (name, steps) in [
            ("guests.id", self.id),
            ("guests.network", self.network),
            ("guests.first_seen", self.first_seen),
        ] {
            if steps.refuse < steps.mark {
                faults.add(name, "must mark before it refuses");
            }
        }
    }

    fn windows(&self) -> GuestWindows {
        let window = |steps: Steps, span| Window {
            span,
            steps: 10,
            soft: steps.mark,
            hard: steps.refuse,
        };
        let (seconds, minute) = (Duration::from_secs(10), Duration::from_secs(60));
        GuestWindows {
            id: window(self.id, seconds),
            network: window(self.network, seconds),
            first_seen: window(self.first_seen, minute),
            remember: self.remember,
        }
    }
}

/// The limits with all that they need.
#[derive(Debug)]
pub(crate) struct RateLimits {
    limiter: Limiter,
    guests: GuestWindows,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    alone: Mutex<Alone>,
}

#[derive(Debug, Default)]
struct Alone {
    buckets: Own,
    said: Option<Instant>,
}

impl RateLimits {
    pub(crate) fn new(limiter: Limiter, guests: &Guests, clock: Arc<dyn Clock>, metrics: Metrics) -> Self {
        Self {
            limiter,
            guests: guests.windows(),
            clock,
            metrics,
            alone: Mutex::default(),
        }
    }

    /// Charges a request with its events. Gives a mark for them when a guest sends more than is usual.
    ///
    /// # Errors
    /// When it is too much; nothing is charged then.
    pub(super) async fn charge<'p>(
        &self,
        key: &Key,
        ip: Option<IpAddr>,
        events: usize,
        people: impl Iterator<Item = &'p str>,
    ) -> Result<Option<&'static str>, Refusal> {
        let rate = Rate::of(key.tier, &key.limits);
        let guests = (key.kind == KeyKind::Browser).then(|| Sender {
            key: &key.id,
            ids: counted(people),
            network: ip.map(network),
            windows: self.guests,
        });
        let demand = Demand {
            events: u64::try_from(events).unwrap_or(u64::MAX),
            rate,
            guests,
        };
        judged(match self.limiter.charge(&key.workspace, &demand).await {
            Ok(charged) => charged,
            Err(error) => self.charge_own(&key.workspace, &demand, &error),
        })
    }

    /// Charges a request under a server's key where Redis does not answer.
    ///
    /// # Errors
    /// When it is too much for this gateway alone.
    pub(super) fn charge_alone(&self, key: &Key, events: usize, error: &Error) -> Result<(), Refusal> {
        let demand = Demand {
            events: u64::try_from(events).unwrap_or(u64::MAX),
            rate: Rate::of(key.tier, &key.limits),
            guests: None,
        };
        if demand.rate == Rate::NONE {
            return Ok(());
        }
        judged(self.charge_own(&key.workspace, &demand, error)).map(drop)
    }

    fn charge_own(&self, workspace: &WorkspaceId, demand: &Demand<'_>, error: &Error) -> Charged {
        self.metrics.limits_away.inc();
        let now = self.clock.instant();
        let mut alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        if alone
            .said
            .is_none_or(|said| now.saturating_duration_since(said) >= SAY_AGAIN)
        {
            alone.said = Some(now);
            tracing::warn!(error = %millrace_service::Causes(error), "limits are kept by each gateway alone");
        }
        alone.buckets.charge(workspace, demand, now)
    }
}

fn judged(charged: Charged) -> Result<Option<&'static str>, Refusal> {
    match charged {
        Charged::Taken { noticed } => Ok(noticed.then_some(GUEST)),
        Charged::Refused { reset } => Err(beyond(reset)),
    }
}

/// What a request beyond its limit hears.
pub(super) fn beyond(reset: Duration) -> Refusal {
    let mut refusal = Refusal::new(
        IngestCode::RateLimited,
        "too many events in too little time, send them again later",
    );
    refusal.reset = Some(reset);
    refusal
}

/// Every id once, with how many events name it.
fn counted<'p>(people: impl Iterator<Item = &'p str>) -> Vec<(&'p str, u64)> {
    let mut counts: HashMap<&str, u64> = HashMap::new();
    for person in people {
        *counts.entry(person).or_default() += 1;
    }
    counts.into_iter().collect()
}

/// Those who share a network share this text.
fn network(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            format!("{a}.{b}.{c}")
        }
        IpAddr::V6(ip) => format!("{:x}", ip.to_bits() >> 64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_a_24_or_a_64() {
        for (ip, expected) in [
            ("10.1.2.3", "10.1.2"),
            ("::ffff:10.1.2.9", "10.1.2"),
            ("2001:db8:0:7::1", "20010db800000007"),
        ] {
            assert_eq!(network(ip.parse().unwrap()), expected);
        }
        assert_eq!(
            network("2001:db8:0:7::1".parse().unwrap()),
            network("2001:db8:0:7:ffff::".parse().unwrap())
        );
    }
}
