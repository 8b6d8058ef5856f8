//! What the log says of each event, and whether tables and topics agree.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use millrace_event::destination::postgres::table_of;
use millrace_event::envelope::{Envelope as _, Ingest, Output, Retry, RowPayload, Transformed};
use millrace_event::header;
use millrace_event::{Identity, JournalId, Timestamp, Verdict};
use millrace_kafka::Record;

use super::findings::Findings;
use super::names::Names;
use super::numbers::Numbers;
use super::scope::{Scope, block};

/// What an entry takes at most, in bytes: the largest kind of entry in a B-tree whose nodes are as empty as they may be.
pub(super) const BYTES_PER_ENTRY: u64 = 112;

/// A row of an event in a table, by the table's number in [`Books::tables`].
type RowOf = (u32, Identity, u16);

/// What is decided once: an event, its attempt, and for a row that came back its table and sub.
type Key = (Identity, u32, Option<(u32, u16)>);

#[derive(Clone, Copy, Debug)]
struct Event {
    /// Its workspace and hour, by their number in [`Books::hours`].
    hour: u32,
    /// The latest attempt that was decided, and how.
    decided: Option<(u32, Verdict)>,
    /// Its first attempt has a record in the log.
    begun: bool,
    /// Any record about it is in the log.
    logged: bool,
    /// A record about it is not settled yet.
    under_way: bool,
    /// It is in the ingest topic; whether the rotor has read it, and the log goes back far enough to have its decision.
    accepted: Option<bool>,
}

/// What is the same for every pass.
#[derive(Clone, Debug, Default)]
pub(super) struct Terms {
    /// Only events received at this time or later are judged.
    pub(super) since: Option<Timestamp>,
    /// What the bulkers have settled of the transformed log, by partition.
    pub(super) settled: BTreeMap<u32, u64>,
    /// What the rotor has taken on of the ingest topic, by partition.
    pub(super) taken_on: BTreeMap<u32, u64>,
    /// In milliseconds: ingest records of a partition that are older have decisions that retention deleted.
    pub(super) log_begins: BTreeMap<u32, i64>,
    /// The ingest topic and its incarnation, which name records without an identity.
    pub(super) topic: String,
    pub(super) incarnation: String,
    /// Most entries.
    pub(super) most: usize,
    /// The ids of PostgreSQL destinations.
    pub(super) postgres: BTreeSet<String>,
}

/// One pass: the events of its scope.
#[derive(Debug, Default)]
pub(super) struct Books {
    terms: Terms,
    scope: Scope,
    tables: Names,
    hours: Names,
    events: BTreeMap<Identity, Event>,
    /// Attempts after the first, and rows that came back.
    seen: BTreeSet<Key>,
    rows: BTreeSet<RowOf>,
    dead_events: BTreeSet<Identity>,
    dead_rows: BTreeSet<RowOf>,
    copies: BTreeSet<Key>,
    numbers: Numbers,
    duplicates: u64,
}

/// A question to a table: how often does it hold each row of these events?
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) table: String,
    pub(super) journal: JournalId,
    pub(super) partition: u32,
    pub(super) seqs: RangeInclusive<u64>,
}

impl Books {
    pub(super) fn new(terms: &Terms, scope: &Scope) -> Self {
        Self {
            terms: terms.clone(),
            scope: scope.clone(),
            ..Self::default()
        }
    }

    /// Whether there is no more room: what was entered is worth nothing then.
    pub(super) fn is_full(&self) -> bool {
        let entries = self.events.len()
            + self.seen.len()
            + self.rows.len()
            + self.dead_events.len()
            + self.dead_rows.len()
            + self.copies.len();
        entries > self.terms.most
    }

    fn event(&mut self, identity: Identity, workspace: &str, received_at: Timestamp) -> &mut Event {
        let hours = &mut self.hours;
        self.events.entry(identity).or_insert_with(|| {
            let time = received_at.to_string();
            let hour = time.get(..13).unwrap_or(&time);
            Event {
                hour: hours.number(&format!("{workspace} {hour}")),
                decided: None,
                begun: false,
                logged: false,
                under_way: false,
                accepted: None,
            }
        })
    }

    /// A record of the transformed log, each partition's in order.
    pub(super) fn decided(&mut self, partition: u32, record: &Record) {
        let Ok(envelope) = Transformed::read(&record.value) else {
            return;
        };
        let (identity, received_at) = (envelope.id, envelope.origin.received_at);
        if !self.scope.holds(identity) || self.terms.since.is_some_and(|since| received_at < since) {
            return;
        }
        let settled = self.terms.settled.get(&partition);
        let settled = settled.is_some_and(|end| record.offset < *end);
        let row = envelope.sub.zip(envelope.outputs.first());
        let row = row.map(|(sub, output)| (self.table(output), sub));
        let later = envelope.attempt > 0 || row.is_some();
        let known = later && !self.seen.insert((identity, envelope.attempt, row));
        let event = self.event(identity, envelope.origin.workspace.as_str(), received_at);
        event.logged = true;
        event.under_way |= !settled;
        if known || (!later && std::mem::replace(&mut event.begun, true)) {
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
                let table = self.table(output);
                self.rows.insert((table, identity, sub));
            }
        }
    }

    /// A dead letter.
    pub(super) fn dead(&mut self, _partition: u32, record: &Record) {
        match self.named(record) {
            Some((identity, _, Some((table, sub)))) => drop(self.dead_rows.insert((table, identity, sub))),
            Some((identity, _, None)) => drop(self.dead_events.insert(identity)),
            None => {}
        }
    }

    /// A copy in a retry topic, whether it was read or not.
    pub(super) fn waiting(&mut self, _partition: u32, record: &Record) {
        let key = self.named(record);
        self.copies.extend(key);
    }

    /// What a copy or a dead letter of this pass is about, by its headers.
    fn named(&mut self, record: &Record) -> Option<Key> {
        let headers = &record.headers;
        let identity = headers.text(header::ID)?.parse().ok()?;
        let attempt = headers.text(header::ATTEMPT)?.parse().ok()?;
        let sub: Option<u16> = headers.text(header::SUB).and_then(|sub| sub.parse().ok());
        let row = headers.text(header::TABLE).zip(sub);
        let row = row.map(|(table, sub)| {
            // Headers do not say which destination it was; the row that they stand before does.
            let name = match self.terms.postgres.is_empty() {
                true => None,
                false => self.name_in(&record.value),
            };
            (self.tables.number(name.as_deref().unwrap_or(table)), sub)
        });
        self.scope.holds(identity).then_some((identity, attempt, row))
    }

    /// The table that a row goes to.
    fn table(&mut self, output: &Output<'_>) -> u32 {
        let name = self.name_of(output);
        self.tables
            .number(name.as_deref().unwrap_or(output.table.as_str()))
    }

    /// What a table of a PostgreSQL destination is called here; nothing for others.
    fn name_of(&self, output: &Output<'_>) -> Option<String> {
        let id = output.destination.as_str();
        let known = self.terms.postgres.contains(id);
        known.then(|| table_of(id, output.table.as_str()))
    }

    /// The same of the row in a dead letter or a copy.
    fn name_in(&self, value: &[u8]) -> Option<String> {
        if let Ok(row) = RowPayload::read(value) {
            return self.name_of(&row.output);
        }
        let copy = Retry::read(value).ok()?;
        let row = RowPayload::read(copy.payload.get().as_bytes()).ok()?;
        self.name_of(&row.output)
    }

    /// A record of the ingest topic. One that is no envelope is not counted as an event: the rotor makes a dead letter
    /// of it.
    pub(super) fn accepted(&mut self, partition: u32, record: &Record) {
        let named = record.headers.text(header::ID).and_then(|id| id.parse().ok());
        let identity: Identity = named.unwrap_or_else(|| Identity {
            journal: JournalId::of_topic(&self.terms.topic, &self.terms.incarnation),
            partition,
            seq: record.offset,
        });
        // Gaps are looked for in everything that was read, as times are not in the order of numbers.
        if self.scope.gaps {
            self.numbers.take(identity);
        }
        if !self.scope.holds(identity) {
            return;
        }
        let Ok(envelope) = Ingest::read(&record.value) else {
            return;
        };
        if self.terms.since.is_some_and(|since| envelope.received_at < since) {
            return;
        }
        let read = self.terms.taken_on.get(&partition);
        let read = read.is_some_and(|end| record.offset < *end);
        let begins = self.terms.log_begins.get(&partition).copied();
        let judged = read && record.timestamp_ms >= begins.unwrap_or(i64::MIN);
        self.event(identity, envelope.workspace.as_str(), envelope.received_at)
            .accepted
            .get_or_insert(judged);
    }

    /// What to ask of which table, so that every row of every event is covered, and rows that nobody decided on are seen
    /// as well.
    pub(super) fn questions(&self) -> Vec<Question> {
        let mut tables: BTreeMap<(JournalId, u32), BTreeSet<u32>> = BTreeMap::new();
        for (table, identity, _) in &self.rows {
            let of = tables.entry((identity.journal, identity.partition)).or_default();
            of.insert(*table);
        }
        let mut blocks: Vec<(Identity, u64)> = Vec::new();
        for (identity, _) in self.events.iter().filter(|(_, event)| event.logged) {
            match blocks.last_mut() {
                Some((first, last))
                    if (first.journal, first.partition) == (identity.journal, identity.partition)
                        && block(*first) == block(*identity) =>
                {
                    *last = identity.seq;
                }
                _ => blocks.push((*identity, identity.seq)),
            }
        }
        let mut questions = Vec::new();
        for (first, last) in blocks {
            for table in tables
                .get(&(first.journal, first.partition))
                .into_iter()
                .flatten()
            {
                questions.push(Question {
                    table: self.tables.name(*table).to_owned(),
                    journal: first.journal,
                    partition: first.partition,
                    seqs: first.seq..=last,
                });
            }
        }
        questions
    }

    /// Compares what a table answered with what must be there.
    pub(super) fn compare(
        &mut self,
        question: &Question,
        held: &BTreeMap<(u64, u16), u64>,
        findings: &mut Findings,
    ) {
        let number = self.tables.number(&question.table);
        let identity = |seq| Identity {
            journal: question.journal,
            partition: question.partition,
            seq,
        };
        let (first, last) = (identity(*question.seqs.start()), identity(*question.seqs.end()));
        let asked = (number, first, 0)..=(number, last, u16::MAX);
        for row in self.rows.range(asked) {
            let (_, identity, sub) = *row;
            let copies = held.get(&(identity.seq, sub)).copied().unwrap_or(0);
            let open = self.events.get(&identity).is_some_and(|event| event.under_way);
            let elsewhere = open || self.dead_rows.contains(row) || self.row_waits(*row);
            let name = || format!("{identity} sub {sub} in {}", question.table);
            match copies {
                0 if !elsewhere => findings.missing.push(name()),
                0 | 1 => {}
                _ => findings.duplicated.push(format!("{}, {copies} times", name())),
            }
        }
        for ((seq, sub), copies) in held {
            let identity = identity(*seq);
            // Events outside of the books are not judged.
            let event = self.events.get(&identity);
            let known = event.is_some_and(|event| event.logged && !event.under_way);
            if known && !self.rows.contains(&(number, identity, *sub)) {
                let name = format!("{identity} sub {sub} in {}, {copies} times", question.table);
                findings.stray.push(name);
            }
        }
    }

    /// Copies of an event, or of one of its rows, whose attempt nobody has decided yet.
    fn waits(&self, identity: Identity, row: Option<(u32, u16)>) -> bool {
        let all = (identity, 0, None)..=(identity, u32::MAX, Some((u32::MAX, u16::MAX)));
        let mut copies = self.copies.range(all).filter(|(.., of)| *of == row);
        copies.any(|key| !self.seen.contains(key))
    }

    fn row_waits(&self, (table, identity, sub): RowOf) -> bool {
        self.waits(identity, Some((table, sub)))
    }

    /// Adds everything but what [`Self::compare`] finds.
    pub(super) fn report(self, findings: &mut Findings) {
        findings.rows += self.rows.len();
        findings.duplicates += self.duplicates;
        for (identity, event) in &self.events {
            findings.accepted += usize::from(event.accepted.is_some());
            findings.events += usize::from(event.logged);
            let name = self.hours.name(event.hour);
            let (workspace, hour) = name.split_once(' ').unwrap_or((name, ""));
            let key = (workspace.to_owned(), hour.to_owned());
            let counts = findings.hours.entry(key).or_default();
            let count = match event.decided {
                _ if !event.logged => match event.accepted {
                    Some(true) => {
                        let name = format!("{identity}: accepted, read and never decided");
                        findings.lost.push(name);
                        &mut counts.lost
                    }
                    // Where decisions of the partition were deleted, an event without one is not under way.
                    _ if self.terms.log_begins.contains_key(&identity.partition) => continue,
                    _ => &mut counts.under_way,
                },
                _ if event.under_way => &mut counts.under_way,
                _ if self.waits(*identity, None) => &mut counts.waiting,
                Some((_, Verdict::Forward)) | None => &mut counts.stored,
                Some((_, Verdict::Drop)) => &mut counts.dropped,
                Some((_, Verdict::DeadLetter | Verdict::Retry)) if self.dead_events.contains(identity) => {
                    &mut counts.dead
                }
                Some((attempt, verdict)) => {
                    let name = format!("{identity}, attempt {attempt}: {verdict}");
                    findings.lost.push(name);
                    &mut counts.lost
                }
            };
            *count += 1;
        }
        self.numbers.report(findings);
    }
}

#[cfg(test)]
mod tests;
