//! The limits of one gateway alone, for as long as Redis is away: leaking buckets instead of sliding windows.
//!
//! A bucket holds what its window may hold and leaks at the window's rate, so it never refuses what the window
//! would have taken. Each gateway begins with empty ones and knows nothing of the others.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::time::{Duration, Instant};

use millrace_store::WorkspaceId;
use millrace_store::limits::{Charged, Demand, Guests, Rate, Window};

/// Most workspaces with buckets of their own.
const WORKSPACES: usize = 10_000;
/// Most guests and networks with a bucket of their own; beyond it all of them begin anew.
const GUESTS: usize = 100_000;
/// Longest wait that is told.
const LONGEST: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(86_400);
const BURST: Duration = Duration::from_secs(5);

/// All buckets.
#[derive(Debug, Default)]
pub(super) struct Own {
    workspaces: HashMap<WorkspaceId, Workspace>,
    /// By a hash of the key and of what is counted under it.
    guests: HashMap<u64, Bucket>,
    hasher: RandomState,
}

#[derive(Clone, Copy, Debug, Default)]
struct Workspace {
    burst: Bucket,
    day: Bucket,
}

/// What a bucket may hold and how fast it leaks.
#[derive(Clone, Copy, Debug)]
struct Size {
    soft: f64,
    hard: f64,
    per_second: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    level: f64,
    at: Option<Instant>,
}

/// A bucket that a request is charged to.
struct Due {
    bucket: Bucket,
    size: Size,
    cost: f64,
    place: Place,
}

#[derive(Clone, Copy)]
enum Place {
    Burst,
    Day,
    Guest(u64),
}

impl Own {
    /// Charges every bucket of a request, or none.
    pub(super) fn charge(&mut self, workspace: &WorkspaceId, demand: &Demand<'_>, now: Instant) -> Charged {
        let mut due = self.due(workspace, demand);
        let mut noticed = false;
        let mut reset = None;
        for due in &mut due {
            due.bucket.leak(due.size, now);
            match due.bucket.wait(due.size, due.cost) {
                Some(wait) => reset = reset.max(Some(wait)),
                None => noticed |= due.bucket.level + due.cost > due.size.soft,
            }
        }
        if let Some(reset) = reset {
            return Charged::Refused { reset };
        }
        self.make_room(workspace);
        for Due {
            bucket, cost, place, ..
        } in due
        {
            let bucket = Bucket {
                level: bucket.level + cost,
                ..bucket
            };
            match place {
                Place::Burst => self.workspaces.entry(workspace.clone()).or_default().burst = bucket,
                Place::Day => self.workspaces.entry(workspace.clone()).or_default().day = bucket,
                Place::Guest(guest) => drop(self.guests.insert(guest, bucket)),
            }
        }
        Charged::Taken { noticed }
    }

    fn due(&self, workspace: &WorkspaceId, demand: &Demand<'_>) -> Vec<Due> {
        let own = self.workspaces.get(workspace).copied().unwrap_or_default();
        let cost = number(demand.events);
        let mut due = Vec::new();
        if let Some(size) = Size::burst(demand.rate) {
            due.push(Due {
                bucket: own.burst,
                size,
                cost,
                place: Place::Burst,
            });
        }
        if let Some(per_day) = demand.rate.per_day {
            let size = Size::of(u64::MAX, per_day, DAY);
            due.push(Due {
                bucket: own.day,
                size,
                cost,
                place: Place::Day,
            });
        }
        if let Some(guests) = &demand.guests {
            self.due_of_guests(guests, cost, &mut due);
        }
        due
    }

    fn due_of_guests(&self, guests: &Guests<'_>, cost: f64, due: &mut Vec<Due>) {
        let windows = &guests.windows;
        let mut add = |what: &str, name: &str, window: &Window, cost: f64| {
            let guest = self.hasher.hash_one((guests.key, what, name));
            let known = self.guests.get(&guest);
            due.push(Due {
                bucket: known.copied().unwrap_or_default(),
                size: Size::of(window.soft, window.hard, window.span),
                cost,
                place: Place::Guest(guest),
            });
            known.is_none()
        };
        let mut fresh = 0;
        for (id, events) in &guests.ids {
            fresh += u64::from(add("id", id, &windows.id, number(*events)));
        }
        if let Some(network) = &guests.network {
            add("network", network, &windows.network, cost);
        }
        add("first-seen", "", &windows.first_seen, number(fresh));
    }

    fn make_room(&mut self, workspace: &WorkspaceId) {
        if self.workspaces.len() >= WORKSPACES && !self.workspaces.contains_key(workspace) {
            self.workspaces.clear();
        }
        if self.guests.len() >= GUESTS {
            self.guests.clear();
        }
    }
}

impl Size {
    fn of(soft: u64, hard: u64, span: Duration) -> Self {
        Self {
            soft: number(soft),
            hard: number(hard),
            per_second: number(hard) / span.as_secs_f64().max(f64::MIN_POSITIVE),
        }
    }

    fn burst(rate: Rate) -> Option<Self> {
        let burst = rate.burst?;
        let sustained = Self::of(u64::MAX, burst, BURST);
        Some(Self {
            per_second: rate.per_second.map_or(sustained.per_second, number),
            ..sustained
        })
    }
}

impl Bucket {
    fn leak(&mut self, size: Size, now: Instant) {
        let elapsed = self
            .at
            .map_or(0.0, |at| now.saturating_duration_since(at).as_secs_f64());
        self.level = (self.level - elapsed * size.per_second).max(0.0);
        self.at = Some(now);
    }

    /// How long until it has room; none where it has. What is larger than the bucket goes into an empty one.
    fn wait(&self, size: Size, cost: f64) -> Option<Duration> {
        let above = self.level + cost - size.hard;
        if cost <= 0.0 || above <= 0.0 || self.level <= 0.0 {
            return None;
        }
        let seconds = above.min(self.level) / size.per_second.max(f64::MIN_POSITIVE);
        let wait = Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST);
        Some(wait.min(LONGEST))
    }
}

#[expect(clippy::cast_precision_loss, reason = "limits and counts are far below 2^52")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use millrace_service::Clock as _;
    use millrace_store::KeyId;
    use millrace_store::limits::GuestWindows;

    use super::*;

    const TAKEN: Charged = Charged::Taken { noticed: false };
    const MARKED: Charged = Charged::Taken { noticed: true };

    fn rate(per_second: Option<u64>, per_day: Option<u64>, burst: Option<u64>) -> Rate {
        Rate {
            per_second,
            per_day,
            burst,
        }
    }

    fn workspace() -> WorkspaceId {
        "ws_a".parse().unwrap()
    }

    #[test]
    fn a_burst_is_taken_then_the_sustained_rate() {
        let (mut own, start) = (Own::default(), millrace_service::SystemClock.instant());
        let mut charge = |events, after: Duration| {
            let demand = Demand {
                events,
                rate: rate(Some(10), None, Some(50)),
                guests: None,
            };
            own.charge(&workspace(), &demand, start + after)
        };
        let reset = Duration::from_millis(100);
        assert_eq!(charge(50, Duration::ZERO), TAKEN);
        assert_eq!(charge(1, Duration::ZERO), Charged::Refused { reset });
        assert_eq!(charge(1, reset), TAKEN);
        assert_eq!(charge(500, Duration::from_secs(60)), TAKEN, "alone it may go");
    }

    #[test]
    fn a_day_is_limited_too_and_nothing_is_charged_where_one_bucket_is_full() {
        let (mut own, start) = (Own::default(), millrace_service::SystemClock.instant());
        let mut charge = |events, after: u64| {
            let demand = Demand {
                events,
                rate: rate(None, Some(1_000), Some(600)),
                guests: None,
            };
            own.charge(&workspace(), &demand, start + Duration::from_secs(after))
        };
        assert_eq!(charge(600, 0), TAKEN);
        assert!(matches!(charge(500, 60), Charged::Refused { .. }), "of the day");
        assert_eq!(charge(400, 60), TAKEN);
        assert!(matches!(charge(100, 120), Charged::Refused { .. }));
        assert_eq!(charge(100, 86_400), TAKEN);
    }

    #[test]
    fn guests_are_marked_then_refused_and_new_names_do_not_help() {
        let (mut own, now) = (Own::default(), millrace_service::SystemClock.instant());
        let key: KeyId = "wk_a".parse().unwrap();
        let window = |soft, hard| Window {
            span: Duration::from_secs(10),
            steps: 10,
            soft,
            hard,
        };
        let windows = GuestWindows {
            id: window(1, 2),
            network: window(8, 8),
            first_seen: window(3, 3),
            remember: Duration::from_secs(60),
        };
        let mut charge = |id: &str| {
            let demand = Demand {
                events: 1,
                rate: rate(None, None, None),
                guests: Some(Guests {
                    key: &key,
                    ids: vec![(id, 1)],
                    network: Some("10.0.0".to_owned()),
                    windows,
                }),
            };
            own.charge(&workspace(), &demand, now)
        };
        assert_eq!([charge("ann"), charge("ann")], [TAKEN, MARKED]);
        assert!(matches!(charge("ann"), Charged::Refused { .. }));
        assert_eq!([charge("bob"), charge("cid")], [TAKEN, TAKEN]);
        assert!(matches!(charge("dan"), Charged::Refused { .. }), "a fourth name");
        assert_eq!([charge("bob"), charge("cid")], [MARKED, MARKED]);
    }
}
