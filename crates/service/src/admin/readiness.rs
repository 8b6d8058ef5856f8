//! Whether this process should be sent traffic.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

/// Ready means: started, not draining, and every gating condition holds. Conditions that only inform
/// are shown beside them and change nothing.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    started: bool,
    draining: bool,
    conditions: BTreeMap<&'static str, Entry>,
}

#[derive(Clone, Debug, Serialize)]
struct Entry {
    ready: bool,
    gating: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// What `/ready` answers.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) ready: bool,
    started: bool,
    draining: bool,
    conditions: BTreeMap<&'static str, Entry>,
}

impl Readiness {
    /// Adds a condition that must hold. It does not, until somebody says so.
    pub fn condition(&self, name: &'static str) -> Condition {
        self.add(name, true)
    }

    /// Adds a condition that is only shown.
    pub fn observation(&self, name: &'static str) -> Condition {
        self.add(name, false)
    }

    /// Releases the latch that holds the process unready while it starts. Never taken back.
    pub fn started(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).started = true;
    }

    /// Makes the process unready for good, so that balancers look elsewhere while it ends.
    pub fn draining(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).draining = true;
    }

    /// True when traffic is welcome.
    pub fn is_ready(&self) -> bool {
        self.report().ready
    }

    pub(super) fn report(&self) -> Report {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = state
            .conditions
            .values()
            .all(|entry| entry.ready || !entry.gating);
        Report {
            ready: state.started && !state.draining && holds,
            started: state.started,
            draining: state.draining,
            conditions: state.conditions.clone(),
        }
    }

    fn add(&self, name: &'static str, gating: bool) -> Condition {
        let entry = Entry {
            ready: false,
            gating,
            detail: Some("starting".to_owned()),
        };
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .conditions
            .insert(name, entry);
        Condition {
            readiness: self.clone(),
            name,
        }
    }
}

/// A handle on one named condition.
#[derive(Clone, Debug)]
pub struct Condition {
    readiness: Readiness,
    name: &'static str,
}

impl Condition {
    /// The condition holds.
    pub fn holds(&self) {
        self.set(true, None);
    }

    /// The condition does not hold, because of `detail`.
    pub fn fails(&self, detail: impl Into<String>) {
        self.set(false, Some(detail.into()));
    }

    fn set(&self, ready: bool, detail: Option<String>) {
        let mut state = self
            .readiness
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = state.conditions.get_mut(self.name) {
            if entry.ready != ready {
                tracing::info!(condition = self.name, ready, detail, "condition changed");
            }
            entry.ready = ready;
            entry.detail = detail;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_when_it_started_and_every_gating_condition_holds() {
        let readiness = Readiness::default();
        let journal = readiness.condition("journal");
        let kafka = readiness.observation("kafka");
        assert!(!readiness.is_ready());
        readiness.started();
        assert!(!readiness.is_ready());
        journal.holds();
        assert!(readiness.is_ready());
        kafka.fails("connection refused");
        assert!(readiness.is_ready(), "an observation gates nothing");
        journal.fails("fsync failed");
        assert!(!readiness.is_ready());
        journal.holds();
        readiness.draining();
        assert!(!readiness.is_ready());
    }

    #[test]
    fn the_report_names_each_condition_with_its_detail() {
        let readiness = Readiness::default();
        readiness.condition("journal").fails("disk is full");
        let report = serde_json::to_value(readiness.report()).unwrap();
        assert_eq!(report["ready"], false);
        assert_eq!(report["conditions"]["journal"]["detail"], "disk is full");
    }
}
