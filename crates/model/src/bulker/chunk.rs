//! One chunk: decide, write outcomes, tables, copies.

use std::collections::BTreeMap;

use millrace_event::{Identity, JournalId};
use millrace_ledger::metadata::table_hash;
use millrace_ledger::rows::Step;
use millrace_ledger::{Arrival, BadRow, Decision, Fate, Leaving, Place, Rows, Token};

use super::{End, Shell, filled};
use crate::control::Control;
use crate::executor::turn;
use crate::rotor;
use crate::warehouse::{Body, Outcome};
use crate::world::{ArbiterKey, DeadLetter, Incoming, PARTITION, Row, Transformed, Verdict};

/// Steps after which a failing table is given up.
const GIVE_UP: u64 = 150;

pub(super) type Record = (u64, Transformed);

/// How writing ended.
pub(super) enum Written {
    All,
    /// These rows fit no table; whether something was written.
    Refused(Vec<BadRow>, bool),
    Failing(u8),
}

enum Halt {
    End(End),
    Failing(u8),
}

impl From<End> for Halt {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

#[derive(Default)]
pub(super) struct Sorted {
    tables: BTreeMap<u8, Table>,
    outcomes: Vec<(ArbiterKey, Place)>,
    copies: Vec<Transformed>,
    handed_over: Vec<Incoming>,
    dead_rows: Vec<DeadLetter>,
}

#[derive(Default)]
struct Table {
    rows: Vec<Row>,
    came_back: bool,
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

fn token(table: u8, block: &[Row]) -> Token {
    let month = block.first().map_or(0, |row| row.month());
    let ids = block.iter().map(|row| (row.identity, row.sub));
    Token::of(&format!("model.t{table}"), &month.to_string(), 0, ids)
}

const fn key(from: &Incoming) -> ArbiterKey {
    (from.identity, from.attempt, from.row)
}

impl Shell {
    pub(super) async fn write_once(&mut self, records: &[Record], uncertain: bool) -> Result<Written, End> {
        let deciders = self.deciders(records).await?;
        self.ledger.decide_again();
        self.learn(records).await?;
        let sorted = self.sort(records, &deciders);
        match self.write_sorted(&sorted, uncertain).await {
            Ok(written) => Ok(written),
            Err(Halt::Failing(table)) => Ok(Written::Failing(table)),
            Err(Halt::End(end)) => Err(end),
        }
    }

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
                if let Some(written) = self.world.look_up(journal, position).await {
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
                partition: PARTITION,
                offset: arrival.offset,
            };
            sorted.outcomes.push((key(&from), place));
        }
    }

    async fn write_sorted(&self, sorted: &Sorted, uncertain: bool) -> Result<Written, Halt> {
        let mut refused = Vec::new();
        let mut ready = Vec::new();
        for (number, table) in &sorted.tables {
            let rows = table.rows.iter().copied();
            let state = match uncertain || table.came_back {
                true => Rows::uncertain(rows),
                false => Rows::fresh(rows),
            };
            let state = self.prepare(*number, state, &table.rows, &mut refused).await?;
            ready.push((*number, table, state));
        }
        if !refused.is_empty() {
            return Ok(Written::Refused(refused, uncertain));
        }
        self.write_outcomes(&sorted.outcomes).await?;
        for (number, table, state) in ready {
            self.write_table(number, state, &table.rows, &mut refused).await?;
        }
        if !refused.is_empty() {
            return Ok(Written::Refused(refused, true));
        }
        self.write_copies(sorted).await?;
        Ok(Written::All)
    }

    /// The rows in blocks, one a month; those that do not fit now are noted.
    fn encode<'r>(&self, rows: impl Iterator<Item = &'r Row>, refused: &mut Vec<BadRow>) -> Vec<Vec<Row>> {
        let state = self.world.get();
        let mut months: BTreeMap<u32, Vec<Row>> = BTreeMap::new();
        for row in rows {
            if state.server.bad.contains(&row.message) {
                refused.push(BadRow {
                    journal: row.identity.journal,
                    seq: row.identity.seq,
                    sub: row.sub,
                });
            } else {
                months.entry(row.month()).or_default().push(*row);
            }
        }
        months.into_values().collect()
    }

    /// Finds out which rows are to be written and tries their encoding, before anything of the plan is sent.
    async fn prepare(
        &self,
        table: u8,
        mut state: Rows<Row>,
        rows: &[Row],
        refused: &mut Vec<BadRow>,
    ) -> Result<Rows<Row>, Halt> {
        let mut failing_since = None;
        loop {
            match state.step() {
                Step::Done => return Ok(state),
                Step::Kill => {
                    self.kill().await?;
                    state.killed();
                }
                Step::Ask if self.ask(table, &mut state).await => {
                    // What an earlier attempt may have left of a view is not known.
                    let held = rows.iter().filter(|row| !state.missing().contains(row));
                    self.alarm(table, held);
                }
                Step::Ask => self.failed(table, &mut failing_since).await?,
                Step::Insert => {
                    self.encode(state.missing().iter(), refused);
                    return Ok(state);
                }
            }
        }
    }

    /// False where the table did not answer.
    async fn ask(&self, table: u8, state: &mut Rows<Row>) -> bool {
        let Some(held) = self.world.which(table, state.missing()).await else {
            return false;
        };
        self.world.get().stats.found += u64::try_from(held.len()).unwrap_or(0);
        state.held(&held);
        true
    }

    fn alarm<'r>(&self, table: u8, rows: impl Iterator<Item = &'r Row>) {
        let rows: Vec<_> = rows.map(|row| (table, *row)).collect();
        self.world.get().alarmed.extend(rows);
    }

    /// The table holds a block whose insert failed: the same block goes out once more, for its view. Where that fails too
    /// somebody is told.
    async fn complete_view(&self, table: u8, block: Vec<Row>) -> Result<(), End> {
        if self.control(Control::Views) {
            return Ok(());
        }
        self.world.get().stats.views += 1;
        let checked = self.check()?;
        let token = token(table, &block);
        match self
            .world
            .insert(checked, token, Body::Rows(table, block.clone()))
            .await
        {
            Outcome::Applied => {}
            Outcome::Definite | Outcome::Ambiguous => {
                self.kill().await?;
                self.alarm(table, block.iter());
            }
        }
        Ok(())
    }

    async fn write_table(
        &self,
        table: u8,
        mut state: Rows<Row>,
        rows: &[Row],
        refused: &mut Vec<BadRow>,
    ) -> Result<(), Halt> {
        let mut failing_since = None;
        let mut doubt = None;
        loop {
            let went_well = match state.step() {
                Step::Done => return Ok(()),
                Step::Kill => {
                    self.kill().await?;
                    state.killed();
                    true
                }
                Step::Ask if self.ask(table, &mut state).await => {
                    let block: Vec<Row> = doubt.take().unwrap_or_default();
                    let there = |row: &Row| !state.missing().contains(row);
                    if !block.is_empty() && block.iter().all(there) && !self.world.get().server.forgets {
                        self.complete_view(table, block).await?;
                    }
                    true
                }
                Step::Ask => false,
                Step::Insert => {
                    let before = refused.len();
                    let missing = rows.iter().filter(|row| state.missing().contains(row));
                    let blocks = self.encode(missing, refused);
                    if refused.len() > before {
                        return Ok(());
                    }
                    self.send(table, &mut state, blocks, &mut doubt).await?
                }
            };
            if !went_well {
                self.failed(table, &mut failing_since).await?;
            }
        }
    }

    /// Sends blocks until one is in doubt or was not sent.
    async fn send(
        &self,
        table: u8,
        state: &mut Rows<Row>,
        blocks: Vec<Vec<Row>>,
        doubt: &mut Option<Vec<Row>>,
    ) -> Result<bool, End> {
        for block in blocks {
            let token = token(table, &block);
            let checked = self.check()?;
            match self
                .world
                .insert(checked, token, Body::Rows(table, block.clone()))
                .await
            {
                Outcome::Applied => state.applied(&block),
                Outcome::Definite => return Ok(false),
                Outcome::Ambiguous => {
                    state.in_doubt();
                    *doubt = Some(block);
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    async fn failed(&self, table: u8, since: &mut Option<u64>) -> Result<(), Halt> {
        self.pause().await?;
        if !self.world.ping().await {
            *since = None;
            return Ok(());
        }
        let now = self.check()?;
        match now - *since.get_or_insert(now) >= GIVE_UP {
            true => Err(Halt::Failing(table)),
            false => Ok(()),
        }
    }

    async fn write_outcomes(&self, outcomes: &[(ArbiterKey, Place)]) -> Result<(), End> {
        if outcomes.is_empty() {
            return Ok(());
        }
        let ids = outcomes.iter().map(|((identity, ..), _)| (*identity, 0));
        let part = self.ledger.settled_offset().to_string();
        let token = Token::of("model.outcomes", &part, 0, ids);
        self.write_own(token, Body::Outcomes(outcomes.to_vec())).await
    }

    pub(super) async fn write_journals(&self, leaving: &[Leaving]) -> Result<(), End> {
        if leaving.is_empty() {
            return Ok(());
        }
        self.world.get().stats.journals += u64::try_from(leaving.len()).unwrap_or(0);
        let ids = leaving.iter().map(|left| {
            let identity = Identity {
                journal: left.journal,
                partition: PARTITION,
                seq: left.position,
            };
            (identity, 0)
        });
        let part = self.ledger.settled_offset().to_string();
        let token = Token::of("model.journals", &part, 0, ids);
        let row =
            |left: &Leaving| -> (JournalId, u64, _) { (left.journal, left.position, left.watermark.clone()) };
        let rows = leaving.iter().map(row).collect();
        self.write_own(token, Body::Journals(rows)).await
    }

    async fn write_own(&self, token: Token, body: Body) -> Result<(), End> {
        loop {
            let checked = self.check()?;
            match self.world.insert(checked, token, body.clone()).await {
                Outcome::Applied => return Ok(()),
                Outcome::Definite => {}
                Outcome::Ambiguous => self.kill().await?,
            }
            self.pause().await?;
        }
    }

    /// Copies go one by one: a crash in between leaves some of them, and so does a delivery that fails, which ends
    /// the session.
    async fn write_copies(&self, sorted: &Sorted) -> Result<(), End> {
        let by_rotor = self.control(Control::CopiesByRotor);
        for record in sorted.copies.iter().filter(|_| !by_rotor) {
            self.deliver().await?;
            rotor::copy(&mut self.world.get(), record);
        }
        for copy in &sorted.handed_over {
            self.deliver().await?;
            self.world.get().go_round(*copy);
        }
        for letter in &sorted.dead_rows {
            self.deliver().await?;
            self.world.get().dead.push(*letter);
        }
        self.deliver().await
    }

    async fn deliver(&self) -> Result<(), End> {
        turn().await;
        match self.world.get().fault(40) {
            true => Err(End::Session),
            false => Ok(()),
        }
    }
}
