//! What must be true when everything has run dry.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::record::{Event, Transformed, Verdict};
use crate::world::State;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// An event that was answered 200 is nowhere.
    Lost(String),
    /// A row is in its table more than once.
    Twice(String),
    /// Something is somewhere where it does not belong.
    Stray(String),
    /// It never ran dry.
    Stuck(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(what) => write!(f, "lost: {what}"),
            Self::Twice(what) => write!(f, "twice: {what}"),
            Self::Stray(what) => write!(f, "stray: {what}"),
            Self::Stuck(what) => write!(f, "stuck: {what}"),
        }
    }
}

/// A row as it is expected: event, table, sub.
type Place = (Event, u8, u16);

/// How an event ended, by the first record of each attempt in the log.
enum End<'a> {
    Forward(&'a Transformed),
    Drop,
    Dead,
    /// It was to go round, and did not.
    Nowhere,
}

pub(crate) fn check(state: &State) -> Result<(), Violation> {
    let mut rows: BTreeMap<Place, usize> = BTreeMap::new();
    for (table, held) in &state.server.tables {
        for row in held {
            let event = (row.identity, row.message);
            *rows.entry((event, *table, row.sub)).or_default() += 1;
        }
    }
    if let Some((place, count)) = rows.iter().find(|(_, count)| **count > 1) {
        return Err(Violation::Twice(format!("{place:?} is there {count} times")));
    }
    let dead_rows: BTreeSet<Place> = state
        .dead
        .iter()
        .filter_map(|letter| letter.row.map(|(table, sub)| (letter.event(), table, sub)))
        .collect();
    let dead: BTreeSet<Event> = state
        .dead
        .iter()
        .filter(|letter| letter.row.is_none())
        .map(|letter| letter.event())
        .collect();
    let accepted = accepted(state)?;
    let refused = state.refused.iter();
    let refused = refused.map(|(message, identity)| ((*identity, *message), true));
    let mut expected = BTreeSet::new();
    for (event, refused) in accepted.into_iter().map(|event| (event, false)).chain(refused) {
        let (end, was_dead) = end(state, event, refused);
        if dead.contains(&event) && !was_dead {
            return Err(Violation::Stray(format!("event {event:?} is a dead letter too")));
        }
        match end {
            End::Nowhere => return Err(Violation::Lost(format!("event {event:?} is nowhere"))),
            End::Drop => {}
            End::Dead if dead.contains(&event) => {}
            End::Dead => return Err(Violation::Lost(format!("event {event:?} is no dead letter"))),
            End::Forward(record) => {
                for (sub, table) in record.outputs.iter().enumerate() {
                    expected.insert((event, *table, u16::try_from(sub).unwrap_or(0)));
                }
            }
        }
    }
    for place in &expected {
        match (rows.contains_key(place), dead_rows.contains(place)) {
            (false, false) => return Err(Violation::Lost(format!("row {place:?} is nowhere"))),
            (true, true) if !state.both.contains(place) => {
                return Err(Violation::Stray(format!("row {place:?} is a dead letter too")));
            }
            _ => {}
        }
    }
    check_views(state)?;
    let stray = rows
        .keys()
        .chain(&dead_rows)
        .find(|place| !expected.contains(place));
    match stray {
        Some(place) => Err(Violation::Stray(format!("nobody decided on row {place:?}"))),
        None => Ok(()),
    }
}

/// The events that journals hold. A message is one of them once, and once more for each time that it came again when what
/// was known of it had expired.
fn accepted(state: &State) -> Result<Vec<Event>, Violation> {
    let events: Vec<Event> = state.gateway.accepted().collect();
    let mut times: BTreeMap<_, u64> = BTreeMap::new();
    for (_, message) in &events {
        *times.entry(*message).or_default() += 1;
    }
    for (message, count) in &times {
        let lapses = state.gateway.lapses.get(message).copied().unwrap_or(0);
        if *count > 1 + lapses {
            let what = format!("message {message} was accepted {count} times and forgotten {lapses} times");
            return Err(Violation::Twice(what));
        }
    }
    match state.answered.iter().find(|message| !times.contains_key(message)) {
        Some(message) => Err(Violation::Lost(format!("message {message} is in no journal"))),
        None => Ok(events),
    }
}

/// A view holds what its table holds, once; where it lacks something, somebody was told.
fn check_views(state: &State) -> Result<(), Violation> {
    if state.server.forgets() {
        return Ok(());
    }
    for (table, held) in &state.server.tables {
        let seen = state.server.views.get(table).map_or(&[][..], Vec::as_slice);
        for row in held {
            let times = seen.iter().filter(|other| *other == row).count();
            let what = format!("row {row:?} in the view of table {table}");
            match times {
                0 if !state.alarmed.contains(&(*table, *row)) => return Err(Violation::Lost(what)),
                0 | 1 => {}
                _ => return Err(Violation::Twice(what)),
            }
        }
    }
    for (table, seen) in &state.server.views {
        let held = state.server.tables.get(table).map_or(&[][..], Vec::as_slice);
        if let Some(row) = seen.iter().find(|row| !held.contains(row)) {
            return Err(Violation::Stray(format!(
                "row {row:?} is in the view of table {table} alone"
            )));
        }
    }
    Ok(())
}

/// Follows an event through its attempts: of each, the first record in the log decides. Also whether one of them
/// made it a dead letter.
fn end(state: &State, event: Event, refused: bool) -> (End<'_>, bool) {
    let decider = |attempt| {
        let mut log = state.decided(event.0.partition).iter();
        log.find(|record| {
            let from = record.from;
            from.event() == event && from.attempt == attempt && from.row.is_none()
        })
    };
    let mut end = if refused { End::Dead } else { End::Nowhere };
    let mut was_dead = refused;
    let mut attempt = u32::from(refused);
    while let Some(record) = decider(attempt) {
        end = match record.verdict {
            Verdict::Forward => return (End::Forward(record), was_dead),
            Verdict::Drop => return (End::Drop, was_dead),
            Verdict::DeadLetter => End::Dead,
            Verdict::Retry => End::Nowhere,
        };
        was_dead |= record.verdict == Verdict::DeadLetter;
        attempt += 1;
    }
    (end, was_dead)
}
