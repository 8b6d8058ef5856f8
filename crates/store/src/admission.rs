//! What requests of one workspace need of Redis before the journal takes their events: their limit is charged, their
//! message ids are reserved, and what was journaled before them is marked done. One script and one round trip for all
//! that wait together.
//!
//! It is [`Limiter`](crate::Limiter) and [`Dedup`] in one call, over the same counters and the same memory; both say what
//! their parts mean. A request beyond its limit reserves nothing.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::time::Duration;

use crate::dedup::{CHUNK, Dedup, Fingerprint, Fingerprints, Reservation, Window};
use crate::limits::Rate;
use crate::redis::key;
use crate::redis::script::Script;
use crate::{Error, Part, WorkspaceId};

static ADMIT: Script = Script::new(concat!(
    include_str!("dedup/pending.lua"),
    include_str!("limits/window.lua"),
    include_str!("admission/admit.lua")
));

/// Most ids that one round reserves, and most that it marks: a script holds up every other client of the server while it
/// runs.
pub const ROUND: usize = CHUNK;

/// Requests of one workspace that wait together.
#[derive(Debug, Default)]
pub struct Round {
    requests: Vec<Request>,
    reserve: Fingerprints,
    done: [Fingerprints; 2],
}

#[derive(Debug)]
struct Request {
    events: u64,
    /// Of each of its ids in turn, whether it is the first of that id in the request.
    firsts: Firsts,
}

#[derive(Debug)]
enum Firsts {
    All(usize),
    Some(Vec<bool>),
}

/// Whether a request may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// It may, with those of its ids that are new.
    Taken(Vec<Reservation>),
    /// It is beyond its limit: nothing was charged, nothing is reserved.
    Refused {
        /// When it may.
        reset: Duration,
    },
}

impl Round {
    /// Adds a request that is charged with so many events and wants these ids.
    pub fn request(&mut self, events: u64, ids: impl ExactSizeIterator<Item = Fingerprint>) {
        let count = ids.len();
        let firsts = if count < 2 {
            ids.for_each(|id| self.reserve.push(id));
            Firsts::All(count)
        } else {
            let mut met = HashSet::with_capacity(count);
            let firsts: Vec<bool> = ids
                .map(|id| {
                    let is_first = met.insert(id);
                    if is_first {
                        self.reserve.push(id);
                    }
                    is_first
                })
                .collect();
            match met.len() == count {
                true => Firsts::All(count),
                false => Firsts::Some(firsts),
            }
        };
        self.requests.push(Request { events, firsts });
    }

    /// Adds ids whose events are in the journal.
    pub fn done(&mut self, window: Window, ids: &[Fingerprint]) {
        let done = match window {
            Window::Live => &mut self.done[0],
            Window::Import => &mut self.done[1],
        };
        ids.iter().for_each(|id| done.push(*id));
    }
}

impl Request {
    fn reserves(&self) -> usize {
        match &self.firsts {
            Firsts::All(count) => *count,
            Firsts::Some(firsts) => firsts.iter().filter(|is_first| **is_first).count(),
        }
    }
}

/// Asks for the requests of a round, in their order; `rate` is what the workspace may.
///
/// # Errors
/// When Redis is away or slow: the round may have taken effect all the same.
///
/// # Cancellation
/// As an error.
pub async fn admit(
    dedup: &Dedup,
    workspace: &WorkspaceId,
    rate: Rate,
    round: &Round,
) -> Result<Vec<Admitted>, Error> {
    if !round.reserve.is_empty() {
        dedup.register(workspace).await?;
    }
    let windows = rate.windows();
    let mut numbers = String::with_capacity(96 + 8 * round.requests.len());
    for number in dedup.lifetimes() {
        add(&mut numbers, number);
    }
    add(&mut numbers, u64::try_from(windows.len()).unwrap_or(0));
    for window in &windows {
        let (step, steps) = window.slots();
        [step, steps, window.hard]
            .into_iter()
            .for_each(|number| add(&mut numbers, number));
    }
    for request in &round.requests {
        add(&mut numbers, request.events);
        add(&mut numbers, u64::try_from(request.reserves()).unwrap_or(0));
    }
    let prefix = dedup.redis().prefix();
    let call = || {
        let mut keys = vec![dedup.pendings(workspace)];
        if !windows.is_empty() {
            keys.push(key::rate(prefix, workspace));
        }
        let arguments = vec![
            dedup.own(),
            key::message(prefix, workspace),
            round.done[0].text().to_owned(),
            round.done[1].text().to_owned(),
            round.reserve.text().to_owned(),
            numbers.clone(),
        ];
        (keys, arguments)
    };
    let answer: Vec<String> = ADMIT.run(dedup.redis(), call).await?;
    read(dedup, round, &answer).ok_or(Error::Corrupt {
        part: Part::Redis,
        what: "the answer to requests that wait together",
    })
}

fn add(numbers: &mut String, number: u64) {
    let written = write!(numbers, "{number} ");
    debug_assert!(written.is_ok(), "a text takes every write");
}

/// What the script said of each request; none where it is not an answer to them.
fn read(dedup: &Dedup, round: &Round, answer: &[String]) -> Option<Vec<Admitted>> {
    let (letters, rest) = answer.split_first()?;
    let limited = letters.bytes().filter(|letter| *letter == b'l').count();
    let (resets, owners) = rest.split_at_checked(limited)?;
    let (mut letters, mut resets, mut owners) = (letters.bytes(), resets.iter(), owners.iter());
    let mut admitted = Vec::with_capacity(round.requests.len());
    for request in &round.requests {
        match letters.next()? {
            b'l' => {
                let reset = Duration::from_millis(resets.next()?.parse().ok()?);
                admitted.push(Admitted::Refused { reset });
                continue;
            }
            b't' => {}
            _ => return None,
        }
        let mut next = || dedup.reservation(letters.next()?, &mut owners);
        let known = match &request.firsts {
            Firsts::All(count) => (0..*count).map(|_| next()).collect::<Option<_>>(),
            Firsts::Some(firsts) => firsts
                .iter()
                .map(|is_first| match is_first {
                    true => next(),
                    false => Some(Reservation::Repeated),
                })
                .collect(),
        };
        admitted.push(Admitted::Taken(known?));
    }
    (letters.next().is_none() && owners.next().is_none()).then_some(admitted)
}
