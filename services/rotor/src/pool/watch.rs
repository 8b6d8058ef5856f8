//! A worker's account while a batch runs: how far it is, how long it took, what it holds.

use std::time::{Duration, Instant};

use millrace_event::FunctionCode;
use millrace_event::frame::{Fault, Progress};

use super::{Chain, Config};

/// How often a worker's clock and memory are looked at.
pub(super) const LOOK: Duration = Duration::from_millis(20);

/// What a worker gets on top of a batch's budget before it is killed: it ends an event at the budget by itself, unless
/// that is in a builtin of the engine.
const BUDGET_GRACE: Duration = Duration::from_millis(100);

pub(super) struct Watch {
    /// What one event may take here: loading each function and running the chain, each within its own limit.
    allowance: Duration,
    deadline: Instant,
    /// What all events may take together, from the moment on at which the first function was seen running.
    budget: Option<Duration>,
    budget_ends: Option<Instant>,
    index: usize,
    position: Option<u32>,
    next_look: Instant,
    rss_limit: u64,
}

impl Watch {
    pub(super) fn new(chain: &Chain, config: &Config, budget: Option<Duration>, now: Instant) -> Self {
        let turns = u32::try_from(chain.load.functions.len())
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        let wall = Duration::from_millis(chain.load.limits.wall_ms);
        let allowance = wall.saturating_mul(turns).saturating_add(config.grace);
        Self {
            allowance,
            deadline: now + allowance,
            budget,
            budget_ends: None,
            index: 0,
            position: None,
            next_look: now + LOOK,
            rss_limit: config.rss_limit,
        }
    }

    pub(super) fn moved(&mut self, progress: Progress, now: Instant) {
        self.position = progress.position;
        if progress.index != self.index {
            self.index = progress.index;
            self.deadline = now + self.allowance;
        }
        if self.budget_ends.is_none() && (progress.position.is_some() || progress.index > 0) {
            self.budget_ends = self.budget.map(|budget| now + budget + BUDGET_GRACE);
        }
    }

    pub(super) fn look(&mut self, now: Instant, resident: impl FnOnce() -> Option<u64>) -> Option<Fault> {
        if now < self.next_look {
            return None;
        }
        self.next_look = now + LOOK;
        if self.budget_ends.is_some_and(|end| now >= end) {
            let text = "its workspace used up the time that it has beside others in one batch, and could not be interrupted";
            return Some(Fault::new(FunctionCode::WallLimit, text));
        }
        if now >= self.deadline {
            let text = format!(
                "did not end within {} ms and could not be interrupted",
                self.allowance.as_millis()
            );
            return Some(Fault::new(FunctionCode::WallLimit, text));
        }
        let resident = resident()?;
        (resident > self.rss_limit).then(|| {
            let text = format!(
                "its process used {resident} bytes of memory, {} are allowed",
                self.rss_limit
            );
            Fault::new(FunctionCode::RssLimit, text)
        })
    }

    /// Names the function that ran when the worker was lost: the one that was seen the last, or the only one.
    pub(super) fn name(&self, mut fault: Fault, chain: &Chain) -> Fault {
        let functions = chain.load.functions.as_slice();
        let ran = match (self.position, functions) {
            (Some(position), functions) => usize::try_from(position).ok().and_then(|at| functions.get(at)),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        if let (None, Some(ran)) = (&fault.function, ran) {
            fault.function = Some(ran.id.clone());
            fault.function_version = Some(ran.version);
        }
        fault
    }
}
