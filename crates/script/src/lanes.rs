//! The events of one batch, taken by the lanes of a chain: each event by one of them, in order.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use bytes::Bytes;
use millrace_event::frame::payload::PayloadError;
use millrace_event::frame::{Answer, Batch, Outcome, Progress};

use crate::chain::{ChainError, Told};
use crate::console::{BATCH_LINES, Logged};
use crate::place::Place;

/// Which event is next.
#[derive(Debug, Default)]
pub(crate) struct Cursor(AtomicUsize);

impl Cursor {
    /// The index of an event that no other lane has.
    pub(crate) fn next(&self) -> usize {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes so many more events, for a lane that has no other beside it.
    pub(crate) fn skip(&self, events: usize) {
        self.0.fetch_add(events, Ordering::Relaxed);
    }
}

/// What came of the events that one lane took.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) answer: Answer,
    /// The index in the batch of each of them.
    pub(crate) indices: Vec<usize>,
}

impl Written {
    /// With room for what a batch usually becomes, where the lane takes all of it.
    pub(crate) fn new(batch: &Batch<'_>, alone: bool) -> Self {
        if !alone {
            return Self::default();
        }
        let count = batch.records.len();
        let bytes: usize = batch.records.iter().map(|record| record.event.len()).sum();
        Self {
            answer: Answer::with_capacity(count, bytes + bytes / 4 + 64 * count),
            indices: Vec::with_capacity(count),
        }
    }

    pub(crate) fn push(&mut self, index: usize, outcome: &Outcome<String>) -> Result<(), PayloadError> {
        self.answer.push(outcome)?;
        self.indices.push(index);
        Ok(())
    }
}

/// What one lane did of a batch.
#[derive(Debug, Default)]
pub(crate) struct Share {
    pub(crate) written: Written,
    pub(crate) logged: Logged,
    /// How many events the functions let be in flight, once they are loaded.
    pub(crate) in_flight: Option<usize>,
}

/// What a lane is given.
pub(crate) struct Job {
    pub(crate) batch: Bytes,
    pub(crate) cursor: Arc<Cursor>,
    /// Whether no other lane takes events of this batch.
    pub(crate) alone: bool,
    pub(crate) place: Arc<Place>,
    pub(crate) told: SyncSender<Told>,
}

/// A chain's thread.
#[derive(Debug)]
pub(crate) struct Lane {
    jobs: SyncSender<Job>,
}

impl Lane {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Job>) {
        let (jobs, incoming) = mpsc::sync_channel(1);
        (Self { jobs }, incoming)
    }

    pub(crate) fn take(&self, job: Job) -> Result<(), ChainError> {
        self.jobs.send(job).map_err(|_| ChainError::Gone)
    }
}

/// An event and one of the functions.
type At = (usize, Option<u32>);

/// Where each lane is, and since when.
pub(crate) struct Places {
    lanes: Vec<(Arc<Place>, At, Instant)>,
}

impl Places {
    pub(crate) fn new(lanes: usize, now: Instant) -> Self {
        let place = || {
            let place = Arc::new(Place::new());
            let at = place.get();
            (place, at, now)
        };
        Self {
            lanes: std::iter::repeat_with(place).take(lanes).collect(),
        }
    }

    pub(crate) fn of(&self, lane: usize) -> Arc<Place> {
        self.lanes
            .get(lane)
            .map_or_else(|| Arc::new(Place::new()), |(place, ..)| Arc::clone(place))
    }

    /// The place of the lane that is at its own for the longest: whoever watches the batch sees a lane that is stuck
    /// however busy the others are.
    pub(crate) fn slowest(&mut self, now: Instant) -> Progress {
        for (place, seen, since) in &mut self.lanes {
            let at = place.get();
            if at != *seen {
                (*seen, *since) = (at, now);
            }
        }
        let busy = self.lanes.iter().filter(|(place, ..)| !place.is_done());
        let (index, position) = busy
            .min_by_key(|(.., since)| *since)
            .map_or((0, None), |(_, at, _)| *at);
        Progress {
            index,
            position,
            exhausted: crate::isolate::is_exhausted(),
        }
    }
}

/// Puts the shares of all lanes together again.
pub(crate) fn together(mut shares: Vec<Share>) -> (Answer, Logged) {
    let mut all = Logged::default();
    let (mut wall, mut waited) = (0, 0);
    for Share { logged, .. } in &mut shares {
        all.lines.append(&mut logged.lines);
        all.discarded += logged.discarded;
        all.usage.cpu_us += logged.usage.cpu_us;
        all.usage.heap_bytes += logged.usage.heap_bytes;
        wall = wall.max(logged.usage.wall_us);
        waited = waited.max(logged.usage.waited_us);
    }
    (all.usage.wall_us, all.usage.waited_us) = (wall, waited);
    all.lines.sort_by_key(|line| line.index);
    let over = all.lines.len().saturating_sub(BATCH_LINES);
    all.lines.truncate(BATCH_LINES);
    all.discarded += u64::try_from(over).unwrap_or(u64::MAX);
    (in_order(shares), all)
}

/// The outcomes of all lanes in the order of their events.
fn in_order(mut shares: Vec<Share>) -> Answer {
    if shares.len() == 1 {
        return shares.pop().unwrap_or_default().written.answer;
    }
    let mut places: Vec<(usize, &Answer, usize)> = Vec::new();
    for Share { written, .. } in &shares {
        let indices = written.indices.iter().enumerate();
        places.extend(indices.map(|(place, index)| (*index, &written.answer, place)));
    }
    places.sort_by_key(|(index, ..)| *index);
    let mut answer = Answer::default();
    for (_, written, place) in places {
        answer.take_over(written, place);
    }
    answer
}
