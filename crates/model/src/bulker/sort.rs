//! What is to be done with each record of a chunk, and with each of its rows.

use std::collections::{BTreeMap, BTreeSet};

use millrace_event::Identity;
use millrace_ledger::metadata::table_hash;
use millrace_ledger::{Arrival, BadRow, Decision, Fate, Metadata, Place, Watermark};

use super::shell::{End, Shell};
use crate::control::Control;
use crate::record::{ArbiterKey, DeadLetter, Incoming, Row, Transformed, Verdict};

/// The attempt at which a row whose table cannot be written has waited for as long as it may.
const LAST_ROUND: u32 = 2;
/// The same by the clock, under one control.
const LONGEST_WAIT: u64 = 300;

pub(super) type Record = (u64, Transformed);

/// A chunk, by what is done with it.
#[derive(Default)]
pub(super) struct Sorted {
    pub(super) tables: BTreeMap<u8, Table>,
    pub(super) outcomes: Vec<(ArbiterKey, Place)>,
    pub(super) copies: Vec<Transformed>,
    pub(super) handed_over: Vec<Incoming>,
    pub(super) dead_rows: Vec<DeadLetter>,
    /// Rows that have waited for their table for as long as they may.
    pub(super) waited_out: Vec<DeadLetter>,
    /// Rows that were handed over, under the control that does it once.
    named: BTreeSet<(Identity, u16)>,
}

#[derive(Default)]
pub(super) struct Table {
    pub(super) rows: Vec<Row>,
    pub(super) came_back: bool,
}

pub(super) fn hash(table: u8) -> u64 {
    table_hash(&format!("model.t{table}"))
}

fn arrival(offset: u64, record: &Transformed) -> Arrival {
    Arrival {
        offset,
        identity: record.from.identity,
        attempt: record.from.attempt,
        row: record.from.row.map(|(table, sub)| (hash(table), sub)),
    }
}

const fn key(from: &Incoming) -> ArbiterKey {
    (from.identity, from.attempt, from.row)
}

/// A commit's metadata as if every number below the watermarks had come.
pub(super) fn without_holes(metadata: &str) -> String {
    let forgotten = Metadata::decode(metadata).and_then(|mut metadata| {
        for watermark in metadata.watermarks.values_mut() {
            *watermark = filled(watermark);
        }
        metadata.encode()
    });
    forgotten.unwrap_or_default()
}

fn filled(watermark: &Watermark) -> Watermark {
    Watermark::from_parts(watermark.next(), []).unwrap_or_default()
}

impl Shell {
    pub(super) async fn deciders(&self, records: &[Record]) -> Result<BTreeMap<ArbiterKey, Place>, End> {
        let later = records.iter().filter(|(_, record)| record.from.attempt > 0);
        let keys: Vec<_> = later.map(|(_, record)| key(&record.from)).collect();
        loop {
            if let Some(answer) = self.world.ask_deciders(&keys).await {
                return Ok(answer);
            }
            self.pause().await?;
        }
    }

    pub(super) async fn learn(&mut self, records: &[Record]) -> Result<(), End> {
        let arrivals: Vec<_> = records.iter().map(|(at, record)| arrival(*at, record)).collect();
        for journal in self.ledger.unknown(arrivals) {
            let written = loop {
                let position = self.ledger.settled_offset();
                if let Some(written) = self.world.look_up(self.partition, journal, position).await {
                    break written;
                }
                self.pause().await?;
            };
            let written = match self.control(Control::Holes) {
                true => written.as_ref().map(filled),
                false => written,
            };
            self.ledger.learn(journal, written);
        }
        Ok(())
    }

    pub(super) fn sort(&mut self, records: &[Record], deciders: &BTreeMap<ArbiterKey, Place>) -> Sorted {
        let mut sorted = Sorted::default();
        for (offset, record) in records {
            let arrival = arrival(*offset, record);
            let decided_by = deciders.get(&key(&record.from)).copied();
            match self.ledger.decide(&arrival, decided_by) {
                Decision::Take | Decision::TakeAhead { .. } => self.carry_out(&mut sorted, &arrival, record),
                Decision::Duplicate | Decision::Foreign | Decision::Unknown(_) => {
                    self.world.get().stats.duplicates += 1;
                }
            }
        }
        sorted
    }

    fn carry_out(&mut self, sorted: &mut Sorted, arrival: &Arrival, record: &Transformed) {
        let from = record.from;
        for (index, table) in record.outputs.iter().enumerate() {
            let sub = from
                .row
                .map_or(u16::try_from(index).unwrap_or(u16::MAX), |(_, sub)| sub);
            let fate = match self.ledger.row(arrival, hash(*table), sub) {
                Fate::Repeated => continue,
                Fate::AskFirst if self.control(Control::AskReturned) => Fate::Insert,
                fate => fate,
            };
            let name = BadRow {
                journal: from.identity.journal,
                seq: from.identity.seq,
                sub,
            };
            let fate = match fate {
                Fate::Insert | Fate::AskFirst if self.unnamed_rows.contains(&name) => Fate::Dead,
                Fate::Insert | Fate::AskFirst if self.unnamed_tables.contains(table) => Fate::HandOver,
                fate => fate,
            };
            let row = Some((*table, sub));
            match fate {
                Fate::Insert | Fate::AskFirst => {
                    let of = sorted.tables.entry(*table).or_default();
                    of.came_back |= fate == Fate::AskFirst;
                    of.rows.push(Row {
                        identity: from.identity,
                        sub,
                        message: from.message,
                    });
                }
                Fate::Dead => sorted.dead_rows.push(DeadLetter {
                    identity: from.identity,
                    message: from.message,
                    attempt: from.attempt,
                    row,
                }),
                Fate::HandOver
                    if self.control(Control::LaterCopy) && !sorted.named.insert((from.identity, sub)) => {}
                Fate::HandOver if self.has_waited_out(&from, (*table, sub)) => {
                    sorted.waited_out.push(DeadLetter {
                        identity: from.identity,
                        message: from.message,
                        attempt: from.attempt,
                        row,
                    });
                }
                Fate::HandOver => sorted.handed_over.push(Incoming {
                    attempt: from.attempt + 1,
                    row,
                    ..from
                }),
                Fate::Repeated => {}
            }
        }
        if record.verdict != Verdict::Forward {
            sorted.copies.push(record.clone());
        }
        if record.verdict != Verdict::Forward || from.attempt > 0 {
            let place = Place {
                partition: self.partition,
                offset: arrival.offset,
            };
            sorted.outcomes.push((key(&from), place));
        }
    }

    /// By how often it went round, which is the same for everyone who finishes the plan.
    fn has_waited_out(&self, from: &Incoming, (table, sub): (u8, u16)) -> bool {
        if !self.control(Control::Clock) {
            return from.attempt >= LAST_ROUND;
        }
        let mut state = self.world.get();
        let now = state.now;
        let since = state
            .first_failed
            .entry((from.identity, table, sub))
            .or_insert(now);
        now >= *since + LONGEST_WAIT
    }
}
