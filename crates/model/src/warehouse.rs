//! Tables that do what real ones were seen to do.

use std::collections::{BTreeMap, BTreeSet};

use millrace_event::JournalId;
use millrace_ledger::{Place, Token, Watermark};

use crate::control::Control;
use crate::executor::turn;
use crate::random::Random;
use crate::record::{ArbiterKey, Message, Row, TABLES};
use crate::server::{Body, Ended, Query};
use crate::world::{KEEP_ALIVE, World};

/// How long a client waits for an answer, in steps.
const PATIENCE: u64 = 25;

/// How long an insert may hang, with or without its client.
const LONGEST_HANG: u64 = 400;

/// What its client knows of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Applied,
    Definite,
    Ambiguous,
}

/// Runs one of the inserts that wait, or lets it fail.
pub(crate) fn serve(world: &World) {
    let mut state = world.get();
    let state = &mut *state;
    if state.server.running.is_empty() || state.server.away || state.random.chance(400) {
        return;
    }
    let index = state.random.index(state.server.running.len());
    if state.server.running[index].not_before > state.now {
        return;
    }
    let broken = match &state.server.running[index].body {
        Body::Rows(table, _) => state.server.broken.contains(table),
        Body::Outcomes(_) | Body::Journals(_) => false,
    };
    if broken && state.random.chance(700) {
        // It hangs.
        return;
    }
    let fails = broken || (state.chaos && state.random.chance(60));
    // An error proves nothing: a view may have failed after the rows were written.
    let applies = !fails || (!broken && state.random.chance(500));
    let query = state.server.running.swap_remove(index);
    // The view comes behind its table: it may fail alone, and an insert that failed may have reached it.
    let of_rows = matches!(query.body, Body::Rows(..)) && !state.server.forgets();
    let view_fails = of_rows && applies && state.chaos && state.random.chance(if fails { 500 } else { 80 });
    let ended = match fails || view_fails {
        true => Ended::Error,
        false => Ended::Ok,
    };
    state.server.ended.insert(query.id, ended);
    if !applies {
        return;
    }
    let tokens = state.control != Control::Token;
    if of_rows
        && !view_fails
        && let Body::Rows(table, rows) = &query.body
        && (!tokens || state.server.view_tokens.take(query.token, state.now))
    {
        state.server.views.entry(*table).or_default().extend(rows);
    }
    if tokens && !state.server.tokens.take(query.token, state.now) {
        state.stats.deduplicated += 1;
        return;
    }
    match query.body {
        Body::Rows(table, rows) => state.server.tables.entry(table).or_default().extend(rows),
        Body::Outcomes(rows) => {
            for (key, place) in rows {
                let first = state.server.deciders.entry(key).or_insert(place);
                if place.offset < first.offset {
                    *first = place;
                }
            }
        }
        Body::Journals(rows) => state.server.journals.extend(rows),
    }
}

impl World {
    /// Sends a partition's block over a connection that was open at `checked`, and waits for the answer.
    pub(crate) async fn insert(&self, partition: u32, checked: u64, token: Token, body: Body) -> Outcome {
        turn().await;
        let id = {
            let mut state = self.get();
            let late = state.now - checked > KEEP_ALIVE
                && state.control != Control::Wait
                && state.control != Control::Token;
            if late || state.server.away || state.fault(30) {
                return Outcome::Definite;
            }
            state.server.queries += 1;
            let id = state.server.queries;
            let hangs = if state.fault(80) {
                state.random.below(LONGEST_HANG)
            } else {
                0
            };
            let not_before = state.now + hangs;
            state.server.running.push(Query {
                id,
                partition,
                token,
                body,
                not_before,
            });
            id
        };
        let patience = {
            let mut state = self.get();
            state.now + 4 + state.random.below(PATIENCE)
        };
        loop {
            turn().await;
            let mut state = self.get();
            if let Some(ended) = state.server.ended.remove(&id) {
                // The answer can be lost on its way.
                return match ended {
                    Ended::Ok if !state.fault(40) => Outcome::Applied,
                    Ended::Ok | Ended::Error => Outcome::Ambiguous,
                };
            }
            if state.chaos && state.now > patience {
                return Outcome::Ambiguous;
            }
        }
    }

    /// Whether the server answers a question now.
    async fn answers(&self) -> bool {
        turn().await;
        let mut state = self.get();
        !state.server.away && !state.fault(100)
    }

    /// Ends everything that runs for a partition; false where there was no answer.
    pub(crate) async fn kill(&self, partition: u32) -> bool {
        if self.control(Control::Kill) {
            return true;
        }
        let answered = self.answers().await;
        let mut state = self.get();
        // It may be carried out and not answered.
        if answered || (!state.server.away && state.fault(500)) {
            let other = state.control == Control::KillOther;
            let server = &mut state.server;
            let of = |query: &mut Query| (query.partition == partition) != other;
            for query in server.running.extract_if(.., of) {
                server.ended.insert(query.id, Ended::Error);
            }
        }
        answered
    }

    /// Which of these rows the table holds; nothing where it does not answer.
    pub(crate) async fn which(&self, table: u8, rows: &BTreeSet<Row>) -> Option<BTreeSet<Row>> {
        if !self.answers().await {
            return None;
        }
        let state = self.get();
        if state.server.broken.contains(&table) {
            return None;
        }
        if state.control == Control::Question {
            return Some(BTreeSet::new());
        }
        let held = rows.iter().filter(|row| state.server.holds(table, row));
        Some(held.copied().collect())
    }

    pub(crate) async fn ask_deciders(&self, keys: &[ArbiterKey]) -> Option<BTreeMap<ArbiterKey, Place>> {
        if keys.is_empty() {
            return Some(BTreeMap::new());
        }
        if !self.answers().await {
            return None;
        }
        let state = self.get();
        if state.control == Control::Outcomes {
            return Some(BTreeMap::new());
        }
        let found = keys
            .iter()
            .filter_map(|key| Some((*key, *state.server.deciders.get(key)?)));
        Some(found.collect())
    }

    /// What was written about a journal of a partition, at the highest position not above this one.
    pub(crate) async fn look_up(
        &self,
        partition: u32,
        journal: JournalId,
        position: u64,
    ) -> Option<Option<Watermark>> {
        if !self.answers().await {
            return None;
        }
        let state = self.get();
        let any = state.control == Control::JournalAlone;
        let rows = state.server.journals.iter();
        let known = rows.filter(|left| {
            left.journal == journal && left.position <= position && (any || left.partition == partition)
        });
        Some(
            known
                .max_by_key(|left| left.position)
                .map(|left| left.mark.clone()),
        )
    }

    /// Whether the server answers at all, which tells a failing table from one that is away.
    pub(crate) async fn ping(&self) -> bool {
        self.answers().await
    }
}

/// What an operator and a bad day do to the tables.
pub(crate) fn weather(world: &World) {
    let mut state = world.get();
    let state = &mut *state;
    let random = &mut state.random;
    let constrain = |random: &mut Random, bad: &mut BTreeSet<Message>| {
        let message = || u32::try_from(random.below(30)).unwrap_or(0);
        bad.extend(std::iter::repeat_with(message).take(6));
    };
    match random.below(12) {
        0 => state.server.away = !state.server.away,
        1 | 2 => {
            let table = u8::try_from(random.below(u64::from(TABLES))).unwrap_or(0);
            if state.server.broken.remove(&table) {
                // It comes back with other constraints.
                constrain(random, &mut state.server.bad);
            } else {
                state.server.broken.insert(table);
            }
        }
        3 if state.server.forgets() => state.server.tokens.forget(),
        4 | 5 => constrain(random, &mut state.server.bad),
        6 => state.server.bad.clear(),
        _ => {}
    }
}
