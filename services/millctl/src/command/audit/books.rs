//! What the log says of each event, and whether tables and topics agree.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::RangeInclusive;

use millrace_event::envelope::{Envelope as _, Transformed};
use millrace_event::header;
use millrace_event::{Identity, JournalId, Timestamp, Verdict};
use millrace_kafka::Record;

/// A row in its table: table, journal, partition, seq, sub.
pub(super) type Held = (String, JournalId, u32, u64, u16);

/// A row of an event.
type RowOf = (Identity, String, u16);

/// What is decided once: an event, its attempt, and for a row that came back its table and sub.
type Key = (Identity, u32, Option<(String, u16)>);

#[derive(Debug)]
struct Event {
    workspace: String,
    hour: String,
    /// The latest attempt that was decided, and how.
    decided: Option<(u32, Verdict)>,
    /// A record about it is not settled yet.
    under_way: bool,
}

#[derive(Debug, Default)]
pub(super) struct Books {
    since: Option<Timestamp>,
    settled: BTreeMap<u32, u64>,
    seen: HashSet<Key>,
    events: HashMap<Identity, Event>,
    rows: BTreeSet<RowOf>,
    dead_events: HashSet<Identity>,
    dead_rows: HashSet<RowOf>,
    copies: HashSet<Key>,
    duplicates: u64,
}

/// Events of one workspace and hour, by where they are.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) stored: u64,
    pub(super) dropped: u64,
    pub(super) dead: u64,
    pub(super) waiting: u64,
    pub(super) under_way: u64,
    pub(super) lost: u64,
}

/// What came out.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) events: usize,
    pub(super) rows: usize,
    pub(super) duplicates: u64,
    pub(super) missing: Vec<String>,
    pub(super) duplicated: Vec<String>,
    pub(super) stray: Vec<String>,
    pub(super) lost: Vec<String>,
    /// Numbers of journals that are in no record of the ingest topic.
    pub(super) gaps: Vec<String>,
    /// Events that the ingest topic holds.
    pub(super) accepted: usize,
    /// Records of the ingest topic that were there already.
    pub(super) shipped_again: u64,
    pub(super) hours: BTreeMap<(String, String), Counts>,
}

impl Findings {
    pub(super) fn is_clean(&self) -> bool {
        let kinds = [
            &self.missing,
            &self.duplicated,
            &self.stray,
            &self.lost,
            &self.gaps,
        ];
        kinds.iter().all(|found| found.is_empty())
    }
}

impl Books {
    /// Books about events received at `since` or later; `settled` is what the bulkers' group has committed.
    pub(super) fn new(since: Option<Timestamp>, settled: BTreeMap<u32, u64>) -> Self {
        Self {
            since,
            settled,
            ..Self::default()
        }
    }

    /// A record of the transformed log, each partition's in order.
    pub(super) fn decided(&mut self, partition: u32, record: &Record) {
        let Ok(envelope) = Transformed::read(&record.value) else {
            return;
        };
        let received_at = envelope.origin.received_at;
        if self.since.is_some_and(|since| received_at < since) {
            return;
        }
        let settled = self
            .settled
            .get(&partition)
            .is_some_and(|end| record.offset < *end);
        let event = self.events.entry(envelope.id).or_insert_with(|| Event {
            workspace: envelope.origin.workspace.to_string(),
            hour: received_at.to_string().chars().take(13).collect(),
            decided: None,
            under_way: false,
        });
        if !settled {
            event.under_way = true;
        }
        let row = envelope.sub.zip(envelope.outputs.first());
        let row = row.map(|(sub, output)| (output.table.to_string(), sub));
        if !self.seen.insert((envelope.id, envelope.attempt, row.clone())) {
            self.duplicates += 1;
            return;
        }
        if row.is_none()
            && event
                .decided
                .is_none_or(|(attempt, _)| attempt < envelope.attempt)
        {
            event.decided = Some((envelope.attempt, envelope.verdict));
        }
        if envelope.verdict == Verdict::Forward {
            for (index, output) in envelope.outputs.iter().enumerate() {
                let sub = envelope
                    .sub
                    .or_else(|| u16::try_from(index).ok())
                    .unwrap_or(u16::MAX);
                self.rows.insert((envelope.id, output.table.to_string(), sub));
            }
        }
    }

    /// Whether anything was decided about an event.
    pub(super) fn knows(&self, identity: Identity) -> bool {
        self.events.contains_key(&identity)
    }

    /// A dead letter.
    pub(super) fn dead(&mut self, _partition: u32, record: &Record) {
        let Some((identity, _, row)) = named(record) else {
            return;
        };
        match row {
            Some((table, sub)) => self.dead_rows.insert((identity, table, sub)),
            None => self.dead_events.insert(identity),
        };
    }

    /// A copy in a retry topic, whether it was read or not.
    pub(super) fn waiting(&mut self, _partition: u32, record: &Record) {
        self.copies.extend(named(record));
    }

    /// What to ask of which table, so that every row of every event is covered.
    pub(super) fn ranges(&mut self) -> Vec<(String, JournalId, u32, RangeInclusive<u64>)> {
        let mut ranges: BTreeMap<(String, JournalId, u32), (u64, u64)> = BTreeMap::new();
        for (identity, table, _) in &self.rows {
            let key = (table.clone(), identity.journal, identity.partition);
            let range = ranges.entry(key).or_insert((identity.seq, identity.seq));
            *range = (range.0.min(identity.seq), range.1.max(identity.seq));
        }
        let range = |((table, journal, partition), (from, to))| (table, journal, partition, from..=to);
        ranges.into_iter().map(range).collect()
    }

    /// Compares.
    pub(super) fn findings(&self, held: &BTreeMap<Held, u64>) -> Findings {
        let mut findings = Findings {
            events: self.events.len(),
            rows: self.rows.len(),
            duplicates: self.duplicates,
            ..Findings::default()
        };
        // Copies whose attempt nobody has decided yet: their event or row waits.
        let waiting = |key: &&Key| !self.seen.contains(*key);
        let mut waiting_events = HashSet::new();
        let mut waiting_rows = HashSet::new();
        for (identity, _, row) in self.copies.iter().filter(waiting) {
            match row {
                Some((table, sub)) => drop(waiting_rows.insert((*identity, table.clone(), *sub))),
                None => drop(waiting_events.insert(*identity)),
            }
        }
        for row in &self.rows {
            let (identity, table, sub) = row;
            let place = (
                table.clone(),
                identity.journal,
                identity.partition,
                identity.seq,
                *sub,
            );
            let copies = held.get(&place).copied().unwrap_or(0);
            let open = self.events.get(identity).is_some_and(|event| event.under_way);
            let elsewhere = open || self.dead_rows.contains(row) || waiting_rows.contains(row);
            let name = format!("{identity} sub {sub} in {table}");
            match copies {
                0 if !elsewhere => findings.missing.push(name),
                0 | 1 => {}
                _ => findings.duplicated.push(format!("{name}, {copies} times")),
            }
        }
        for ((table, journal, partition, seq, sub), copies) in held {
            let identity = Identity {
                journal: *journal,
                partition: *partition,
                seq: *seq,
            };
            // Events outside of the books are not judged.
            let known = self.events.get(&identity).is_some_and(|event| !event.under_way);
            if known && !self.rows.contains(&(identity, table.clone(), *sub)) {
                let name = format!("{identity} sub {sub} in {table}, {copies} times");
                findings.stray.push(name);
            }
        }
        for (identity, event) in &self.events {
            let key = (event.workspace.clone(), event.hour.clone());
            let counts = findings.hours.entry(key).or_default();
            let dead = self.dead_events.contains(identity);
            let count = match event.decided {
                _ if event.under_way => &mut counts.under_way,
                _ if waiting_events.contains(identity) => &mut counts.waiting,
                Some((_, Verdict::Forward)) | None => &mut counts.stored,
                Some((_, Verdict::Drop)) => &mut counts.dropped,
                Some((_, Verdict::DeadLetter | Verdict::Retry)) if dead => &mut counts.dead,
                Some((attempt, verdict)) => {
                    findings
                        .lost
                        .push(format!("{identity}, attempt {attempt}: {verdict}"));
                    &mut counts.lost
                }
            };
            *count += 1;
        }
        findings.lost.sort_unstable();
        findings
    }
}

/// What a copy or a dead letter is about, by its headers.
fn named(record: &Record) -> Option<Key> {
    let headers = &record.headers;
    let identity = headers.text(header::ID)?.parse().ok()?;
    let attempt = headers.text(header::ATTEMPT)?.parse().ok()?;
    let sub: Option<u16> = headers.text(header::SUB).and_then(|sub| sub.parse().ok());
    let row = headers.text(header::TABLE).zip(sub);
    Some((identity, attempt, row.map(|(table, sub)| (table.to_owned(), sub))))
}

#[cfg(test)]
mod tests;
