//! What a workspace may take of the time of others on one partition. Pure but for its lock.
//!
//! The records of a batch are written together, and one batch follows the other, so whoever is slow makes its neighbours
//! wait. What a workspace takes beyond the usual is paid from an account, which holds `limits.batch_wall` and fills up
//! within `limits.batch_refill`: at once a workspace costs its neighbours so much and no more, and in the long run the
//! ratio of both, half a percent by default. That is why it is not seen in their 99th percentile. One whose account is
//! overdrawn sits out: its events are not run, and come back on a topic where they meet the slow.
//!
//! A batch that ran at its pace is free, so a workspace with much to do is not a slow one, and what counts is processor
//! time and waits, not time in which the machine was busy with others. Of a batch that was cut off all counts.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What each batch may take for nothing, and on top of it for each of its events: some eight times what an ordinary
/// function takes.
const FREE: Duration = Duration::from_millis(5);
const FREE_PER_EVENT: Duration = Duration::from_micros(100);

/// Accounts that are not full; past this the half that owes the least is let off.
const MOST: usize = 10_000;

/// How long a workspace counts as a neighbour after its last event.
const NEIGHBOURS: Duration = Duration::from_secs(600);

/// The accounts of all workspaces of this process.
#[derive(Debug)]
pub struct Budgets {
    whole: Duration,
    refill: Duration,
    /// Only those that are not full.
    accounts: Mutex<HashMap<String, Account>>,
}

/// How much was taken out of an account, as of a moment. It comes back with time; past the whole it is overdrawn.
#[derive(Clone, Copy, Debug)]
struct Account {
    taken: Duration,
    at: Instant,
}

impl Budgets {
    /// Each holds `whole` at first, and is full again `refill` after it was used up.
    pub fn new(whole: Duration, refill: Duration) -> Self {
        Self {
            whole,
            refill: refill.max(Duration::from_nanos(1)),
            accounts: Mutex::default(),
        }
    }

    /// What a workspace may take for so many events; `None`: it sits out.
    pub fn of(&self, workspace: &str, events: usize, now: Instant) -> Option<Duration> {
        let mut accounts = self.lock();
        let Some(account) = accounts.get(workspace) else {
            return Some(free(events) + self.whole);
        };
        let taken = self.taken(account, now);
        if taken.is_zero() {
            accounts.remove(workspace);
        }
        Some(free(events) + self.whole.checked_sub(taken)?)
    }

    /// What a workspace may take among events that come back, whatever its account says: ten times as much.
    pub fn returning(&self, events: usize) -> Duration {
        (free(events) + self.whole).saturating_mul(RETURNING)
    }

    /// Books what the events of a workspace took, of which nothing is free where they were `cut` off.
    pub fn took(&self, workspace: &str, events: usize, took: Duration, cut: bool, now: Instant) {
        let excess = match cut {
            true => took,
            false => took.saturating_sub(free(events)),
        };
        if excess.is_zero() {
            return;
        }
        let mut accounts = self.lock();
        let before = accounts
            .get(workspace)
            .map_or(Duration::ZERO, |account| self.taken(account, now));
        let account = Account {
            taken: before.saturating_add(excess),
            at: now,
        };
        accounts.insert(workspace.to_owned(), account);
        if accounts.len() > MOST {
            let mut owed: Vec<_> = accounts
                .values()
                .map(|account| self.taken(account, now))
                .collect();
            let (_, median, _) = owed.select_nth_unstable(MOST / 2);
            let median = *median;
            accounts.retain(|_, account| self.taken(account, now) > median);
        }
    }

    /// What is missing in an account by now.
    fn taken(&self, account: &Account, now: Instant) -> Duration {
        let since = now.saturating_duration_since(account.at).as_secs_f64();
        let back = self.whole.as_secs_f64() * since / self.refill.as_secs_f64();
        let back = Duration::try_from_secs_f64(back).unwrap_or(Duration::MAX);
        account.taken.saturating_sub(back)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn free(events: usize) -> Duration {
    FREE + FREE_PER_EVENT.saturating_mul(u32::try_from(events).unwrap_or(u32::MAX))
}

/// How much more than on the ingest topic a workspace may take among events that come back.
const RETURNING: u32 = 10;

/// Whose events came lately on one partition: two workspaces, which tells whether there is more than one.
#[derive(Debug, Default)]
pub struct Lately {
    workspaces: [Option<(String, Instant)>; 2],
}

impl Lately {
    /// Takes note of whose an event is.
    pub fn came(&mut self, workspace: &str, now: Instant) {
        let mut noted = self.workspaces.iter_mut().flatten();
        if let Some((_, at)) = noted.find(|(noted, _)| noted == workspace) {
            *at = now;
            return;
        }
        // The one that came last tells as much; two that came now tell all that there is to tell.
        let oldest = self
            .workspaces
            .iter_mut()
            .min_by_key(|noted| noted.as_ref().map(|(_, at)| *at));
        if let Some(oldest) = oldest.filter(|noted| noted.as_ref().is_none_or(|(_, at)| *at < now)) {
            *oldest = Some((workspace.to_owned(), now));
        }
    }

    /// Whether several workspaces share the partition.
    pub fn several(&self, now: Instant) -> bool {
        let lately = |noted: &Option<(String, Instant)>| {
            noted
                .as_ref()
                .is_some_and(|(_, at)| now.saturating_duration_since(*at) < NEIGHBOURS)
        };
        self.workspaces.iter().all(lately)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Duration = Duration::from_millis(100);
    const REFILL: Duration = Duration::from_secs(20);

    fn budgets() -> (Budgets, Instant) {
        (Budgets::new(WHOLE, REFILL), now())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "any moment will do, all others are counted from it"
    )]
    fn now() -> Instant {
        Instant::now()
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn what_runs_at_its_pace_is_free_however_much_it_is() {
        let (budgets, now) = budgets();
        for _ in 0..1_000 {
            budgets.took("quick", 500, ms(55), false, now);
        }
        assert_eq!(budgets.of("quick", 500, now), Some(ms(155)));
    }

    #[test]
    fn what_goes_beyond_is_paid_and_comes_back_with_time() {
        let (budgets, now) = budgets();
        budgets.took("slow", 0, ms(45), false, now);
        assert_eq!(budgets.of("slow", 0, now), Some(ms(65)));
        assert_eq!(budgets.of("another", 0, now), Some(ms(105)));
        assert_eq!(budgets.of("slow", 0, now + ms(4_000)), Some(ms(85)));
        assert_eq!(budgets.of("slow", 0, now + ms(8_000)), Some(ms(105)));
        assert_eq!(
            budgets.of("slow", 0, now + ms(80_000)),
            Some(ms(105)),
            "and no more"
        );
    }

    #[test]
    fn one_that_overdrew_its_account_sits_out_until_that_is_paid() {
        let (budgets, now) = budgets();
        budgets.took("hostile", 0, ms(120), true, now);
        assert_eq!(budgets.of("hostile", 500, now), None);
        assert_eq!(budgets.of("hostile", 500, now + ms(3_990)), None);
        assert_eq!(budgets.of("hostile", 0, now + ms(4_000)), Some(ms(5)));
    }

    #[test]
    fn in_the_long_run_a_workspace_costs_others_what_its_account_gets_back() {
        let (budgets, start) = budgets();
        let (mut now, mut cost) = (start, Duration::ZERO);
        while now - start < ms(600_000) {
            if let Some(most) = budgets.of("hostile", 1, now) {
                // Each time it takes all that it gets, and a new isolate.
                let took = most + ms(12);
                cost += took;
                budgets.took("hostile", 1, took, true, now + took);
                now += took;
            }
            now += ms(10);
        }
        assert!(cost < ms(100 + 12 + 3_100), "{cost:?} of ten minutes");
        assert!(cost > ms(2_000), "it has its turns: {cost:?}");
    }

    #[test]
    fn one_that_overdraws_and_behaves_by_turns_gains_nothing_by_it() {
        let (budgets, now) = budgets();
        budgets.took("sly", 1, ms(300), true, now);
        for _ in 0..100 {
            budgets.took("sly", 1, ms(1), false, now);
        }
        assert_eq!(budgets.of("sly", 1, now), None);
    }

    #[test]
    fn accounts_are_bounded_and_those_that_owe_the_most_are_kept() {
        let (budgets, now) = budgets();
        budgets.took("hostile", 0, ms(500), true, now);
        for other in 0..MOST * 2 {
            budgets.took(&format!("ws_{other}"), 0, ms(10), false, now);
        }
        assert!(budgets.lock().len() <= MOST);
        assert_eq!(budgets.of("hostile", 0, now), None);
    }

    #[test]
    fn a_partition_is_shared_while_another_came_within_ten_minutes() {
        let (mut lately, now) = (Lately::default(), now());
        lately.came("a", now);
        lately.came("a", now);
        assert!(!lately.several(now));
        lately.came("b", now);
        lately.came("a", now + ms(1));
        assert!(lately.several(now + ms(599_000)));
        lately.came("a", now + ms(600_000));
        assert!(!lately.several(now + ms(600_000)));
    }
}
