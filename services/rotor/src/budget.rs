//! What a workspace may take of a batch that holds events of others too. Pure but for its lock.
//!
//! All records of a batch are written together, so whoever is slow makes its neighbours wait. Within its budget a workspace
//! may be; past it its events go round again, on a topic where they meet the slow. A workspace that used its budget up gets
//! half as much the next time, down to a sixteenth, and twice as much after a batch within it: what it costs others in the
//! long run is little, and once it behaves it has everything back.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How often a budget is halved at most.
const DEEPEST: u32 = 4;

/// Workspaces remembered; past this the memory starts over, and each has its whole budget again.
const MOST: usize = 10_000;

/// The budgets of all workspaces.
#[derive(Debug)]
pub struct Budgets {
    whole: Duration,
    halved: Mutex<HashMap<String, u32>>,
}

impl Budgets {
    /// Each has `whole` at first.
    pub fn new(whole: Duration) -> Self {
        Self {
            whole,
            halved: Mutex::default(),
        }
    }

    /// What a workspace may take of the next batch.
    pub fn of(&self, workspace: &str) -> Duration {
        let halved = self.halved.lock().unwrap_or_else(PoisonError::into_inner);
        let times = halved.get(workspace).copied().unwrap_or(0);
        self.whole / 2_u32.pow(times.min(DEEPEST))
    }

    /// Learns from a batch whether a workspace used up what it had.
    pub fn settle(&self, workspace: &str, used_up: bool) {
        let mut halved = self.halved.lock().unwrap_or_else(PoisonError::into_inner);
        if used_up {
            if halved.len() >= MOST && !halved.contains_key(workspace) {
                halved.clear();
            }
            let times = halved.entry(workspace.to_owned()).or_default();
            *times = (*times + 1).min(DEEPEST);
        } else if let Some(times) = halved.get_mut(workspace) {
            *times -= 1;
            if *times == 0 {
                halved.remove(workspace);
            }
        }
    }
}
