//! Writing one chunk: outcomes, tables, copies.

use std::collections::BTreeMap;

use millrace_event::Identity;
use millrace_ledger::rows::Step;
use millrace_ledger::{BadRow, Leaving, Place, Rows, Token};

use super::shell::{End, Shell};
use super::sort::{Record, Sorted};
use crate::control::Control;
use crate::executor::turn;
use crate::record::{ArbiterKey, DeadLetter, Row};
use crate::server::{Body, Left};
use crate::warehouse::Outcome;

/// Steps after which a failing table is given up.
const GIVE_UP: u64 = 150;

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

    fn token(&self, table: u8, block: &[Row]) -> Token {
        let month = block.first().map_or(0, |row| row.month());
        let alone = self.control(Control::NumbersAlone);
        let ids = block.iter().map(|row| {
            let partition = if alone { 0 } else { row.identity.partition };
            (
                Identity {
                    partition,
                    ..row.identity
                },
                row.sub,
            )
        });
        Token::of(&format!("model.t{table}"), &month.to_string(), 0, ids)
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
        let token = self.token(table, &block);
        match self
            .world
            .insert(self.partition, checked, token, Body::Rows(table, block.clone()))
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
                    if !block.is_empty() && block.iter().all(there) && !self.world.get().server.forgets() {
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
            let token = self.token(table, &block);
            let checked = self.check()?;
            match self
                .world
                .insert(self.partition, checked, token, Body::Rows(table, block.clone()))
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
                partition: self.partition,
                seq: left.position,
            };
            (identity, 0)
        });
        let part = self.ledger.settled_offset().to_string();
        let token = Token::of("model.journals", &part, 0, ids);
        let row = |left: &Leaving| Left {
            partition: self.partition,
            journal: left.journal,
            position: left.position,
            mark: left.watermark.clone(),
        };
        let rows = leaving.iter().map(row).collect();
        self.write_own(token, Body::Journals(rows)).await
    }

    async fn write_own(&self, token: Token, body: Body) -> Result<(), End> {
        loop {
            let checked = self.check()?;
            match self
                .world
                .insert(self.partition, checked, token, body.clone())
                .await
            {
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
            self.world.get().copy(record);
        }
        for copy in &sorted.handed_over {
            self.deliver().await?;
            self.world.get().go_round(*copy);
        }
        for letter in &sorted.dead_rows {
            self.deliver().await?;
            self.world.get().dead.push(*letter);
        }
        for letter in &sorted.waited_out {
            self.deliver().await?;
            self.give_out(letter);
        }
        self.deliver().await
    }

    /// A row that has waited for a day is a dead letter. Its table may have taken it without saying so, and perhaps without
    /// its view: nobody can ask while it fails. The letter says that it is not known.
    fn give_out(&self, letter: &DeadLetter) {
        let mut state = self.world.get();
        state.stats.waited_out += 1;
        if let Some((table, sub)) = letter.row {
            let row = Row {
                identity: letter.identity,
                sub,
                message: letter.message,
            };
            if state.server.holds(table, &row) {
                state.both.insert((letter.event(), table, sub));
                state.alarmed.insert((table, row));
            }
        }
        state.dead.push(*letter);
    }

    async fn deliver(&self) -> Result<(), End> {
        turn().await;
        match self.world.get().fault(40) {
            true => Err(End::Session),
            false => Ok(()),
        }
    }
}
