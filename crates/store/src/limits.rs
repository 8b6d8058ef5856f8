//! How many events may come in how much time: sliding windows in Redis, shared by every gateway.
//!
//! A request is charged once, with the number of its events: all counters that it touches are charged, or none.
//! Requests that wait together share a call. What a workspace may is its tier's and its own; guests (what comes in under a public key) have
//! counters of their own inside of it, of which the one for ids seen for the first time is the one that minting
//! ids does not help against.
//!
//! All keys of a workspace share one slot of a cluster.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;
use sha2::{Digest, Sha256};

use crate::redis::gather::Gather;
use crate::redis::script::Script;
use crate::redis::{Redis, key};
use crate::workspaces::{Limits, Tier};
use crate::{Error, KeyId, Part, WorkspaceId};

/// Most ids of guests that one request is charged for one by one.
const GUESTS: usize = 100;

static CHARGE: Script = Script::new(concat!(
    include_str!("limits/window.lua"),
    include_str!("limits/charge.lua")
));

/// A span of time and what it may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The span.
    pub span: Duration,
    /// In how many steps it slides.
    pub steps: u32,
    /// Beyond this it is noticed.
    pub soft: u64,
    /// Beyond this it is refused.
    pub hard: u64,
}

impl Window {
    /// The milliseconds of a slot, and how many slots there are.
    pub(crate) fn slots(self) -> (u64, u64) {
        let steps = self.steps.max(1);
        let step = u64::try_from((self.span / steps).as_millis()).unwrap_or(u64::MAX);
        (step.max(1), steps.into())
    }

    const fn hard(span: Duration, steps: u32, limit: u64) -> Self {
        Self {
            span,
            steps,
            soft: u64::MAX,
            hard: limit,
        }
    }
}

/// The rate that a workspace may keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Events per second, sustained.
    pub per_second: Option<u64>,
    /// Events per day.
    pub per_day: Option<u64>,
    /// Events within five seconds.
    pub burst: Option<u64>,
}

const SECOND: Duration = Duration::from_secs(1);
const BURST_SECONDS: u32 = 5;

impl Rate {
    /// Nothing is limited.
    pub const NONE: Self = Self {
        per_second: None,
        per_day: None,
        burst: None,
    };

    /// The tier's, with what the workspace sets itself instead.
    pub fn of(tier: Tier, own: &Limits) -> Self {
        let (per_second, per_day, burst) = match tier {
            Tier::Default => (Some(100), Some(1_000_000), Some(500)),
            Tier::Pro => (Some(500), Some(10_000_000), Some(2_500)),
            Tier::Enterprise => (None, None, None),
        };
        let per_second = own.events_per_second.or(per_second);
        Self {
            per_second,
            per_day: own.events_per_day.or(per_day),
            burst: own
                .burst
                .or(burst)
                .or(per_second.map(|rate| rate.saturating_mul(BURST_SECONDS.into()))),
        }
    }

    pub(crate) fn windows(self) -> Vec<Window> {
        let minute = self.per_second.map(|rate| rate.saturating_mul(60));
        let windows = [
            (SECOND * BURST_SECONDS, 10, self.burst),
            (SECOND * 60, 12, minute),
            (SECOND * 86_400, 48, self.per_day),
        ];
        windows
            .into_iter()
            .filter_map(|(span, steps, limit)| Some(Window::hard(span, steps, limit?)))
            .collect()
    }
}

/// What guests may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestWindows {
    /// Events of one id.
    pub id: Window,
    /// Events of one network.
    pub network: Window,
    /// Ids of one key that were not seen before.
    pub first_seen: Window,
    /// How long an id counts as seen.
    pub remember: Duration,
}

/// Who sends a request under a public key.
#[derive(Clone, Debug)]
pub struct Guests<'a> {
    /// The key.
    pub key: &'a KeyId,
    /// The ids that its events name, each with how many; every id once.
    pub ids: Vec<(&'a str, u64)>,
    /// The network that it comes from.
    pub network: Option<String>,
    /// What they may.
    pub windows: GuestWindows,
}

/// What is to be charged.
#[derive(Clone, Debug)]
pub struct Demand<'a> {
    /// How many events.
    pub events: u64,
    /// What the workspace may.
    pub rate: Rate,
    /// Who sends, under a public key.
    pub guests: Option<Guests<'a>>,
}

/// Whether a request may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charged {
    /// It may. `noticed` when a soft limit is passed.
    Taken {
        /// Whether it is to be marked.
        noticed: bool,
    },
    /// It may not; nothing was charged.
    Refused {
        /// When it may.
        reset: Duration,
    },
}

/// The counters.
#[derive(Clone, Debug)]
pub struct Limiter {
    redis: Redis,
    together: Gather<Call, Answer>,
}

impl Limiter {
    /// In that Redis.
    pub fn new(redis: Redis) -> Self {
        Self {
            redis,
            together: Gather::default(),
        }
    }

    /// Charges a request, together with those that are charged at the same moment. Asks nobody where nothing is limited.
    ///
    /// # Errors
    /// When Redis is away or slow; it may be charged all the same.
    ///
    /// # Cancellation
    /// As an error.
    pub async fn charge(&self, workspace: &WorkspaceId, demand: &Demand<'_>) -> Result<Charged, Error> {
        let call = Call::of(self.redis.prefix(), workspace, demand);
        if call.keys.is_empty() {
            return Ok(Charged::Taken { noticed: false });
        }
        let answer = self.together.call(call, || {
            let redis = self.redis.clone();
            move |calls| charge_all(redis.clone(), calls)
        });
        let gone = || Error::Unavailable {
            part: Part::Redis,
            source: "the process ends".into(),
        };
        answer.await.unwrap_or_else(|| Err(gone()))
    }
}

type Answer = Result<Charged, Error>;

/// Charges all of `calls`, in one pipeline. Those of one workspace that charge the same counters are charged with
/// their sum; only where that is too much each is charged alone, in their order.
async fn charge_all(redis: Redis, calls: Vec<Call>) -> Vec<Answer> {
    let mut answers: Vec<Option<Answer>> = Vec::new();
    answers.resize_with(calls.len(), || None);
    let mut groups: HashMap<&[String], Vec<usize>> = HashMap::new();
    for (place, call) in calls.iter().enumerate() {
        groups.entry(&call.keys).or_default().push(place);
    }
    let sums: Vec<(Vec<usize>, Call)> = groups
        .into_values()
        .filter_map(|places| {
            let sum = Call::sum(places.iter().filter_map(|place| calls.get(*place)))?;
            Some((places, sum))
        })
        .collect();
    let charged = join_all(sums.iter().map(|(_, sum)| sum.charge(&redis))).await;
    for ((places, _), charged) in sums.into_iter().zip(charged) {
        if matches!(charged, Ok(Charged::Refused { .. })) {
            continue;
        }
        for place in places {
            if let Some(answer) = answers.get_mut(place) {
                *answer = Some(match &charged {
                    Ok(charged) => Ok(*charged),
                    Err(error) => Err(error.copy()),
                });
            }
        }
    }
    let alone = calls
        .iter()
        .zip(&mut answers)
        .filter(|(_, answer)| answer.is_none());
    let redis = &redis;
    let alone = alone.map(|(call, answer)| async move { *answer = Some(call.charge(redis).await) });
    join_all(alone).await;

    let corrupt = || Error::Corrupt {
        part: Part::Redis,
        what: "the answer of a limit",
    };
    answers
        .into_iter()
        .map(|answer| answer.unwrap_or_else(|| Err(corrupt())))
        .collect()
}

/// One run of the script.
#[derive(Clone, Debug, Default)]
struct Call {
    keys: Vec<String>,
    /// Of each counter in turn: what it is charged, then its windows.
    arguments: Vec<u64>,
    /// The smallest hard limit.
    most: Option<u64>,
    first_seen: usize,
    remember: u128,
}

impl Call {
    /// One call for several that charge a workspace's own counter and nothing else. None where there is nothing to
    /// add up, or where the sum is more than a window holds: that may go where nothing else counts, as each of
    /// them may, and they may not all go.
    fn sum<'c>(mut calls: impl Iterator<Item = &'c Self>) -> Option<Self> {
        let mut sum = calls.next()?.clone();
        let mut count = 1;
        for call in calls {
            // The windows may differ for a moment, when a workspace is given others.
            if call.arguments.get(1..) != sum.arguments.get(1..) {
                return None;
            }
            let (own, further) = (sum.arguments.first_mut()?, call.arguments.first()?);
            *own = own.saturating_add(*further);
            count += 1;
        }
        let cost = *sum.arguments.first()?;
        let fits = sum.most.is_none_or(|most| cost <= most);
        (count > 1 && sum.keys.len() == 1 && sum.first_seen == 0 && fits).then_some(sum)
    }

    async fn charge(&self, redis: &Redis) -> Answer {
        let arguments = || {
            let head = [self.first_seen.to_string(), self.remember.to_string()];
            let arguments = head.into_iter().chain(self.arguments.iter().map(u64::to_string));
            (self.keys.clone(), arguments.collect())
        };
        let answer: Vec<i64> = CHARGE.run(redis, arguments).await?;
        match answer.as_slice() {
            [1, noticed] => Ok(Charged::Taken {
                noticed: *noticed == 1,
            }),
            [0, reset, _] => Ok(Charged::Refused {
                reset: Duration::from_millis(u64::try_from(*reset).unwrap_or_default()),
            }),
            _ => Err(Error::Corrupt {
                part: Part::Redis,
                what: "the answer of a limit",
            }),
        }
    }

    fn of(prefix: &str, workspace: &WorkspaceId, demand: &Demand<'_>) -> Self {
        let mut call = Self::default();
        let name = key::rate(prefix, workspace);
        let windows = demand.rate.windows();
        if !windows.is_empty() {
            call.counter(name.clone(), demand.events, false, &windows);
        }
        let Some(guests) = &demand.guests else {
            return call;
        };
        let allowed = guests.windows;
        let of_key = format!("{name}:{}", guests.key);
        for (id, events) in guests.ids.iter().take(GUESTS) {
            let digest: [u8; 32] = Sha256::digest(id.as_bytes()).into();
            let (half, _) = digest.split_at(16);
            let id = half
                .iter()
                .fold(String::new(), |id, byte| id + &format!("{byte:02x}"));
            call.counter(format!("{of_key}:id:{id}"), *events, true, &[allowed.id]);
        }
        if let Some(network) = &guests.network {
            let network = format!("{of_key}:network:{network}");
            call.counter(network, demand.events, false, &[allowed.network]);
        }
        call.counter(format!("{of_key}:first-seen"), 0, false, &[allowed.first_seen]);
        call.first_seen = call.keys.len();
        call.remember = allowed.remember.as_millis().max(1);
        call
    }

    fn counter(&mut self, name: String, cost: u64, is_subject: bool, windows: &[Window]) {
        let count = u64::try_from(windows.len()).unwrap_or(u64::MAX);
        self.keys.push(name);
        self.arguments.extend([cost, u64::from(is_subject), count]);
        for window in windows {
            self.most = Some(self.most.map_or(window.hard, |most| most.min(window.hard)));
            let (step, steps) = window.slots();
            self.arguments.extend([step, steps, window.soft, window.hard]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_has_the_limits_of_its_tier_but_for_those_of_its_own() {
        let own = Limits {
            events_per_second: Some(7),
            ..Limits::default()
        };
        let none = Limits::default();
        let rate = |per_second, per_day, burst| Rate {
            per_second,
            per_day,
            burst,
        };
        for (tier, limits, expected) in [
            (Tier::Default, none, rate(Some(100), Some(1_000_000), Some(500))),
            (Tier::Pro, none, rate(Some(500), Some(10_000_000), Some(2_500))),
            (Tier::Enterprise, none, rate(None, None, None)),
            (Tier::Default, own, rate(Some(7), Some(1_000_000), Some(500))),
            (Tier::Enterprise, own, rate(Some(7), None, Some(35))),
        ] {
            assert_eq!(Rate::of(tier, &limits), expected);
        }
    }
}
