use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::MOST_NAMED;
use crate::faults::Tally;

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// How long faults went on.
    pub length: Duration,
    /// What was done.
    pub tally: Tally,
    /// Events acknowledged.
    pub accepted: u64,
    /// Events that clients sent again because an answer was missing or refused.
    pub sent_again: u64,
    /// Events of these that ingest said it had already.
    pub known: u64,
    /// Events in the table, once, as they were sent.
    pub stored: u64,
    /// Events dropped by their function.
    pub dropped: u64,
    /// Events that went round through a retry topic.
    pub retried: u64,
    /// Events among the dead letters.
    pub dead: u64,
    /// Records that a topic holds again, by what happened.
    pub twice: BTreeMap<&'static str, u64>,
    /// Blocks that went out again and that their table ignored for their token; at least so many.
    pub by_token: u64,
    /// Rows that a question found in their table, and that were not sent again; at least so many.
    pub by_question: u64,
    /// What must not be.
    pub violations: Vec<String>,
    /// Where the logs were left; only where something must not be.
    pub logs: Option<String>,
}

impl Report {
    /// Whether everything is where it belongs, once.
    pub const fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    /// Adds findings of one kind, the first ones by name.
    pub(super) fn name<T: fmt::Display>(&mut self, what: &str, found: impl IntoIterator<Item = T>) {
        let found: Vec<String> = found.into_iter().map(|one| one.to_string()).collect();
        if found.is_empty() {
            return;
        }
        let named: Vec<_> = found.iter().take(MOST_NAMED).cloned().collect();
        self.violations
            .push(format!("{what}: {} ({})", found.len(), named.join(", ")));
    }

    /// For programs.
    pub fn as_json(&self) -> Value {
        json!({
            "ok": self.is_clean(),
            "seed": self.seed,
            "seconds": self.length.as_secs(),
            "faults": self.tally.faults,
            "kills": self.tally.kills,
            "steps": self.tally.steps,
            "requests": self.tally.requests,
            "accepted": self.accepted,
            "sent_again": self.sent_again,
            "known_to_ingest": self.known,
            "stored": self.stored,
            "dropped": self.dropped,
            "retried": self.retried,
            "dead_letters": self.dead,
            "twice": self.twice,
            "blocks_ignored_for_their_token": self.by_token,
            "rows_found_by_the_question": self.by_question,
            "violations": self.violations,
            "logs": self.logs,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |what: &str, count: u64| writeln!(f, "  {what:<55} {count:>9}");
        let total = |counts: &BTreeMap<String, u64>| counts.values().sum::<u64>();
        line("faults", total(&self.tally.faults))?;
        for (fault, count) in &self.tally.faults {
            line(&format!("  {fault}"), *count)?;
        }
        line("SIGKILLs", total(&self.tally.kills))?;
        for (process, count) in &self.tally.kills {
            line(&format!("  {process}"), *count)?;
        }
        line("named steps hit", total(&self.tally.steps))?;
        line("requests broken on their way", self.tally.requests)?;
        line("accepted", self.accepted)?;
        line("  sent again by clients", self.sent_again)?;
        line("stored, once and unaltered", self.stored)?;
        line("dropped by the function", self.dropped)?;
        line("dead letters", self.dead)?;
        line("went round through a retry topic", self.retried)?;
        line("duplicates: known to ingest, removed there", self.known)?;
        for (what, count) in &self.twice {
            line(&format!("duplicates: {what}"), *count)?;
        }
        line(
            "duplicates: blocks ignored by their table, by token",
            self.by_token,
        )?;
        line("duplicates: rows that a question found there", self.by_question)?;
        line(
            "violations",
            u64::try_from(self.violations.len()).unwrap_or(u64::MAX),
        )?;
        for violation in &self.violations {
            writeln!(f, "  {violation}")?;
        }
        if let Some(logs) = &self.logs {
            writeln!(f, "  logs: {logs}")?;
        }
        write!(f, "seed {}, {} s of faults", self.seed, self.length.as_secs())
    }
}
