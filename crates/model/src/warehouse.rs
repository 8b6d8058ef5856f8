//! Tables that do what real ones were seen to do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use millrace_event::JournalId;
use millrace_ledger::{Token, Watermark};

use crate::control::Control;
use crate::executor::turn;
use crate::world::{ArbiterKey, KEEP_ALIVE, Row, TABLES, World};
use millrace_ledger::Place;

/// How long a client waits for an answer, in steps.
const PATIENCE: u64 = 25;

/// How long an insert may hang, with or without its client.
const LONGEST_HANG: u64 = 400;

/// What an insert brings.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    Rows(u8, Vec<Row>),
    Outcomes(Vec<(ArbiterKey, Place)>),
    Journals(Vec<(JournalId, u64, Watermark)>),
}

#[derive(Debug)]
struct Query {
    id: u64,
    token: Token,
    body: Body,
    /// It hangs until then.
    not_before: u64,
}

/// How an insert that is over ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Ok,
    Error,
}

/// What its client knows of an insert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Applied,
    Definite,
    Ambiguous,
}

#[derive(Debug, Default)]
pub(crate) struct Server {
    pub(crate) tables: BTreeMap<u8, Vec<Row>>,
    /// What the view of each table holds.
    pub(crate) views: BTreeMap<u8, Vec<Row>>,
    pub(crate) journals: Vec<(JournalId, u64, Watermark)>,
    tokens: Tokens,
    view_tokens: Tokens,
    /// Tokens are forgotten at any time. Where they are not, tables have views that fail: whoever completes a view relies
    /// on its table to know the block a moment later.
    pub(crate) forgets: bool,
    running: Vec<Query>,
    ended: BTreeMap<u64, Ended>,
    queries: u64,
    /// Tables that cannot be written now.
    pub(crate) broken: BTreeSet<u8>,
    /// Messages whose rows their table does not take.
    pub(crate) bad: BTreeSet<u32>,
    /// Nobody answers.
    pub(crate) away: bool,
}

/// The tokens that a table, or the views, remember.
#[derive(Debug, Default)]
struct Tokens {
    kept: VecDeque<Token>,
    window: usize,
}

impl Tokens {
    fn of(window: usize) -> Self {
        Self {
            kept: VecDeque::new(),
            window,
        }
    }

    /// False where it was known.
    fn take(&mut self, token: Token) -> bool {
        if self.kept.contains(&token) {
            return false;
        }
        self.kept.push_back(token);
        while self.kept.len() > self.window {
            self.kept.pop_front();
        }
        true
    }
}

impl Server {
    /// A server that keeps so many tokens; all of them where nothing is said.
    pub(crate) fn with_window(window: Option<usize>) -> Self {
        let kept = window.unwrap_or(usize::MAX);
        Self {
            tokens: Tokens::of(kept),
            view_tokens: Tokens::of(kept),
            forgets: window.is_some(),
            ..Self::default()
        }
    }

    /// Whether an insert still runs.
    pub(crate) fn is_busy(&self) -> bool {
        !self.running.is_empty()
    }
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
    let of_rows = matches!(query.body, Body::Rows(..)) && !state.server.forgets;
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
        && (!tokens || state.server.view_tokens.take(query.token))
    {
        state.server.views.entry(*table).or_default().extend(rows);
    }
    if tokens && !state.server.tokens.take(query.token) {
        state.stats.deduplicated += 1;
        return;
    }
    match query.body {
        Body::Rows(table, rows) => state.server.tables.entry(table).or_default().extend(rows),
        Body::Outcomes(rows) => {
            for (key, place) in rows {
                let first = state.deciders.entry(key).or_insert(place);
                if place.offset < first.offset {
                    *first = place;
                }
            }
        }
        Body::Journals(rows) => state.server.journals.extend(rows),
    }
}

impl World {
    /// Sends a block over a connection that was open at `checked`, and waits for the answer.
    pub(crate) async fn insert(&self, checked: u64, token: Token, body: Body) -> Outcome {
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

    /// Ends everything that runs; false where there was no answer.
    pub(crate) async fn kill(&self) -> bool {
        if self.control(Control::Kill) {
            return true;
        }
        let answered = self.answers().await;
        let mut state = self.get();
        // It may be carried out and not answered.
        if answered || (!state.server.away && state.fault(500)) {
            for query in std::mem::take(&mut state.server.running) {
                state.server.ended.insert(query.id, Ended::Error);
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
        let held = state.server.tables.get(&table);
        let same = |row: &&Row| {
            held.is_some_and(|held| {
                held.iter()
                    .any(|other| (other.identity, other.sub) == (row.identity, row.sub))
            })
        };
        Some(rows.iter().filter(same).copied().collect())
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
            .filter_map(|key| Some((*key, *state.deciders.get(key)?)));
        Some(found.collect())
    }

    pub(crate) async fn look_up(&self, journal: JournalId, position: u64) -> Option<Option<Watermark>> {
        if !self.answers().await {
            return None;
        }
        let state = self.get();
        let rows = state.server.journals.iter();
        let known = rows.filter(|(of, at, _)| *of == journal && *at <= position);
        Some(
            known
                .max_by_key(|(_, at, _)| *at)
                .map(|(_, _, mark)| mark.clone()),
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
    let constrain = |random: &mut crate::random::Random, bad: &mut BTreeSet<u32>| {
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
        3 if state.server.forgets => state.server.tokens.kept.clear(),
        4 | 5 => constrain(random, &mut state.server.bad),
        6 => state.server.bad.clear(),
        _ => {}
    }
}
