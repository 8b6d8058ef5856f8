//! How many events may come, of a workspace and of those who send under its public keys.
//!
//! The counters are in Redis, shared by all gateways. Where Redis is away each gateway goes by a bucket of its
//! own, which is never stricter than the shared windows: a limit is no reason for an outage.

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

use super::Refusal;
use crate::metrics::Metrics;

/// A guest sends more than is usual.
pub(super) const GUEST: &str = "guest_rate";
/// Most workspaces with a bucket of their own.
const BUCKETS: usize = 10_000;
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
    own: Mutex<Own>,
}

#[derive(Debug, Default)]
struct Own {
    buckets: HashMap<WorkspaceId, Bucket>,
    said: Option<Instant>,
}

impl RateLimits {
    pub(crate) fn new(limiter: Limiter, guests: &Guests, clock: Arc<dyn Clock>, metrics: Metrics) -> Self {
        Self {
            limiter,
            guests: guests.windows(),
            clock,
            metrics,
            own: Mutex::default(),
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
        let charged = match self.limiter.charge(&key.workspace, &demand).await {
            Ok(charged) => charged,
            Err(error) => self.charge_own(&key.workspace, rate, demand.events, &error),
        };
        match charged {
            Charged::Taken { noticed } => Ok(noticed.then_some(GUEST)),
            Charged::Refused { reset } => {
                let mut refusal = Refusal::new(
                    IngestCode::RateLimited,
                    "too many events in too little time, send them again later",
                );
                refusal.reset = Some(reset);
                Err(refusal)
            }
        }
    }

    fn charge_own(&self, workspace: &WorkspaceId, rate: Rate, events: u64, error: &Error) -> Charged {
        self.metrics.limits_away.inc();
        let now = self.clock.instant();
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if own
            .said
            .is_none_or(|said| now.saturating_duration_since(said) >= SAY_AGAIN)
        {
            own.said = Some(now);
            tracing::warn!(error = %millrace_service::Causes(error), "limits are kept by each gateway alone");
        }
        if own.buckets.len() >= BUCKETS && !own.buckets.contains_key(workspace) {
            own.buckets.clear();
        }
        let bucket = own
            .buckets
            .entry(workspace.clone())
            .or_insert_with(|| Bucket { level: 0.0, at: now });
        bucket.charge(rate, events, now)
    }
}

/// Fills with events and leaks at the sustained rate; holds a burst.
#[derive(Debug)]
struct Bucket {
    level: f64,
    at: Instant,
}

impl Bucket {
    #[expect(clippy::cast_precision_loss, reason = "limits are far below 2^52")]
    fn charge(&mut self, rate: Rate, events: u64, now: Instant) -> Charged {
        let Some(burst) = rate.burst else {
            return Charged::Taken { noticed: false };
        };
        let leak = rate.per_second.map_or(burst as f64 / 5.0, |rate| rate as f64);
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.level = (self.level - elapsed * leak).max(0.0);
        let above = self.level + events as f64 - burst as f64;
        if above > 0.0 && self.level > 0.0 {
            let wait = above.min(self.level) / leak.max(f64::MIN_POSITIVE);
            let reset = Duration::try_from_secs_f64(wait).unwrap_or(SAY_AGAIN);
            return Charged::Refused { reset };
        }
        self.level += events as f64;
        Charged::Taken { noticed: false }
    }
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
    fn the_own_bucket_takes_a_burst_then_the_sustained_rate() {
        let rate = Rate {
            per_second: Some(10),
            per_day: None,
            burst: Some(50),
        };
        let start = millrace_service::SystemClock.instant();
        let mut bucket = Bucket {
            level: 0.0,
            at: start,
        };
        let taken = Charged::Taken { noticed: false };
        assert_eq!(bucket.charge(rate, 50, start), taken);
        let reset = Duration::from_millis(100);
        assert_eq!(bucket.charge(rate, 1, start), Charged::Refused { reset });
        assert_eq!(bucket.charge(rate, 1, start + reset), taken);
        assert_eq!(
            bucket.charge(rate, 500, start + Duration::from_secs(60)),
            taken,
            "alone it may go"
        );
    }

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
