//! The one thread that appends.
//!
//! It takes all requests that wait as one group: one write and, where answers wait for the disk, one sync.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;
use millrace_event::Identity;
use millrace_service::failpoint;
use tokio::sync::{mpsc, oneshot};

use super::disk::{Disk, SegmentFile};
use super::meta::{self, Ids};
use super::segment::{self, Header};
use super::state::{Health, Index, Segment, Shared, Slot};
use super::sync::{Syncer, Target};
use super::{AppendError, Config, Entry, Lane, Sync, frame};

/// A group takes no further request beyond this many bytes.
const GROUP: usize = 4 << 20;

/// What the writer is asked.
#[derive(Debug)]
pub(super) enum Command {
    Append {
        /// Each is taken whole or not at all.
        requests: Vec<Vec<Entry>>,
        reply: Reply,
    },
    /// Answered with whether everything is durable.
    Close { reply: oneshot::Sender<bool> },
}

type Taken = Result<Vec<Identity>, AppendError>;
type Reply = oneshot::Sender<Vec<Taken>>;

/// Requests that wait for one answer.
struct Waiting {
    requests: Vec<Request>,
    reply: Reply,
}

struct Request {
    entries: Vec<Entry>,
    size: usize,
    /// What becomes of it, as far as that is known.
    taken: Taken,
}

impl Request {
    fn of(entries: Vec<Entry>) -> Self {
        let sizes = entries.iter().map(frame::size);
        let size: Option<usize> = sizes.sum();
        Self {
            entries,
            size: size.unwrap_or(0),
            taken: size.map(|_| Vec::new()).ok_or(AppendError::TooLarge),
        }
    }
}

/// The requests of a group that nothing has refused.
fn open(group: &mut [Waiting]) -> impl Iterator<Item = &mut Request> {
    let requests = group.iter_mut().flat_map(|waiting| &mut waiting.requests);
    requests.filter(|request| request.taken.is_ok())
}

/// The segment that grows.
#[derive(Debug)]
struct Active {
    number: u64,
    file: Arc<dyn SegmentFile>,
    seed: u32,
    /// Where its records start.
    start: u64,
    length: u64,
}

#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    disk: Arc<dyn Disk>,
    sync: Sync,
    interval: std::time::Duration,
    segment_size: u64,
    limit: u64,
    ids: Ids,
    next: BTreeMap<Lane, u64>,
    /// Of the next segment.
    number: u64,
    active: Option<Active>,
    syncer: Option<Syncer>,
}

impl Writer {
    pub(super) fn new(
        shared: Arc<Shared>,
        config: &Config,
        disk: Arc<dyn Disk>,
        ids: Ids,
        next: BTreeMap<Lane, u64>,
        number: u64,
    ) -> Self {
        Self {
            shared,
            disk,
            sync: config.sync,
            interval: config.sync_interval,
            segment_size: config.segment.get(),
            limit: config.limit.get(),
            ids,
            next,
            number,
            active: None,
            syncer: None,
        }
    }

    /// Starts the thread. It ends when it is told to close, or when nobody can send any more.
    pub(super) fn spawn(mut self, queue: mpsc::Receiver<Command>) -> io::Result<()> {
        if self.sync == Sync::Interval {
            self.syncer = Some(Syncer::spawn(Arc::clone(&self.shared), self.interval)?);
        }
        // A full disk is no reason not to start: what is in the journal must still be shipped.
        if let Err(error) = self.start_segment() {
            tracing::warn!(%error, "no segment can be made, the journal takes nothing yet");
        }
        thread::Builder::new()
            .name("journal-write".to_owned())
            .spawn(move || self.run(queue))
            .map(drop)
    }

    fn run(mut self, mut queue: mpsc::Receiver<Command>) {
        while let Some(first) = queue.blocking_recv() {
            let mut group = Vec::new();
            let mut size = 0;
            let mut command = Some(first);
            while let Some(taken) = command {
                match taken {
                    Command::Append { requests, reply } => {
                        let requests: Vec<_> = requests.into_iter().map(Request::of).collect();
                        size += requests.iter().map(|request| request.size).sum::<usize>();
                        group.push(Waiting { requests, reply });
                    }
                    Command::Close { reply } => {
                        self.commit(group);
                        queue.close();
                        if reply.send(self.seal()).is_err() {
                            tracing::debug!("nobody waits for the journal to close");
                        }
                        return;
                    }
                }
                command = if size < GROUP { queue.try_recv().ok() } else { None };
            }
            self.commit(group);
        }
    }

    /// Writes a group and answers it.
    fn commit(&mut self, mut group: Vec<Waiting>) {
        if group.is_empty() {
            return;
        }
        if let Err(error) = self.keep(&mut group) {
            open(&mut group).for_each(|request| request.taken = Err(error));
        }
        for Waiting { requests, reply } in group {
            let taken = requests.into_iter().map(|request| request.taken).collect();
            // A client that went away does not take its events back.
            drop(reply.send(taken));
        }
    }

    /// Writes what there is room for; none of it is taken where this fails.
    fn keep(&mut self, group: &mut [Waiting]) -> Result<(), AppendError> {
        if self.shared.health() == Health::Failed {
            return Err(AppendError::Failed);
        }
        let used = self.shared.lock().bytes;
        let room = usize::try_from(self.limit.saturating_sub(used)).unwrap_or(usize::MAX);
        let mut size = 0;
        for request in open(group) {
            match size + request.size <= room {
                true => size += request.size,
                false => request.taken = Err(AppendError::Full),
            }
        }
        if size == 0 {
            return Ok(());
        }
        self.make_room(size)?;
        self.write(group, size)?;
        failpoint!("ingest::after_sync");
        Ok(())
    }

    /// Makes sure that a segment is open with room for `size` bytes; one group always fits an empty segment.
    fn make_room(&mut self, size: usize) -> Result<(), AppendError> {
        let size = u64::try_from(size).unwrap_or(u64::MAX);
        let full = |active: &Active| {
            active.length > active.start && active.length.saturating_add(size) > self.segment_size
        };
        if self.active.as_ref().is_some_and(full) && !self.seal() {
            return Err(AppendError::Failed);
        }
        if self.active.is_none() {
            self.start_segment().map_err(|error| {
                tracing::warn!(%error, "no new segment can be made");
                of_io(&error)
            })?;
        }
        Ok(())
    }

    fn write(&mut self, group: &mut [Waiting], size: usize) -> Result<(), AppendError> {
        let Some(active) = &mut self.active else {
            return Err(AppendError::Write);
        };
        let before = self.next.clone();
        let mut bytes = Vec::with_capacity(size);
        let mut index = Index::new();
        for request in open(group) {
            let mut minted = Vec::with_capacity(request.entries.len());
            for entry in &request.entries {
                let lane = Lane {
                    topic: entry.topic,
                    partition: entry.partition,
                };
                let next = self.next.entry(lane).or_default();
                let start = bytes.len();
                frame::encode(entry, *next, active.seed, &mut bytes);
                let offset = active.length + u64::try_from(start).unwrap_or(u64::MAX);
                index.entry(lane).or_default().push(Slot {
                    seq: *next,
                    offset,
                    size: bytes.len() - start,
                });
                minted.push(Identity {
                    journal: self.ids.of(lane.topic),
                    partition: lane.partition,
                    seq: *next,
                });
                *next += 1;
            }
            request.taken = Ok(minted);
        }
        failpoint!("ingest::before_append");
        if let Err(error) = active.file.write_all_at(&bytes, active.length) {
            tracing::warn!(%error, segment = active.number, "an append failed");
            let refused = of_io(&error);
            if self.cut_back() {
                self.next = before;
            }
            return Err(refused);
        }
        failpoint!("ingest::after_write");
        let offset = active.length;
        active.length += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let target = Target {
            segment: active.number,
            file: Arc::clone(&active.file),
            length: active.length,
        };
        self.publish(index, &target, (offset, bytes.into()));
        match (self.sync, &self.syncer) {
            (Sync::Always, _) => {
                if !self
                    .shared
                    .sync(target.segment, target.file.as_ref(), target.length)
                {
                    return Err(AppendError::Failed);
                }
            }
            (Sync::Interval, Some(syncer)) => syncer.mark(target),
            (Sync::Interval | Sync::Os, _) => self.shared.notify(),
        }
        Ok(())
    }

    /// Lists what was written at an offset. Where nothing is ever synced it may be shipped at once.
    fn publish(&self, index: Index, target: &Target, (offset, bytes): (u64, Bytes)) {
        let mut state = self.shared.lock();
        let state = &mut *state;
        let Some(segment) = state.segments.get_mut(&target.segment) else {
            return;
        };
        let records = index.values().map(Vec::len).sum();
        for (lane, slots) in index {
            state.records += u64::try_from(slots.len()).unwrap_or(0);
            if let Some(last) = slots.last() {
                segment.ends.insert(lane, last.seq + 1);
            }
            if let Some(known) = &mut segment.index {
                known.entry(lane).or_default().extend(slots);
            }
        }
        state.recent.push(target.segment, offset, records, bytes);
        state.bytes += target.length - segment.length;
        segment.length = target.length;
        if self.sync == Sync::Os {
            segment.readable = target.length;
        }
    }

    /// After a failed append: takes its bytes away, or closes the segment in front of them. False when bytes
    /// may stay behind: their numbers are used up then, for a recovery may find them whole.
    fn cut_back(&mut self) -> bool {
        let Some(active) = &self.active else { return true };
        let Err(error) = active.file.set_len(active.length) else {
            return true;
        };
        tracing::warn!(%error, segment = active.number, "a segment could not be cut back and is closed");
        self.seal();
        false
    }

    /// Closes the segment in use, everything in it durable and no room behind it. False when it is not durable.
    fn seal(&mut self) -> bool {
        let Some(active) = self.active.take() else {
            return self.shared.health() == Health::Sound;
        };
        // Before the sync, so that it is as durable as the records.
        if let Err(error) = active.file.set_len(active.length) {
            tracing::warn!(%error, segment = active.number, "the room behind a segment's records stays");
        }
        let durable = match self.sync {
            Sync::Os => true,
            Sync::Always | Sync::Interval => {
                self.shared
                    .sync(active.number, active.file.as_ref(), active.length)
            }
        };
        let now = self.shared.instant();
        let mut state = self.shared.lock();
        if let Some(segment) = state.segments.get_mut(&active.number) {
            segment.sealed = Some(now);
        }
        state.trim_indexes(None);
        durable
    }

    fn start_segment(&mut self) -> io::Result<()> {
        let spare = self.shared.lock().spares.pop();
        let header = Header {
            number: self.number,
            epoch: self.shared.epoch(),
            seed: meta::random_seed()?,
            ids: self.ids,
            next: self.next.clone(),
            recycled: spare.is_some(),
        };
        let bytes = header.encode();
        let path = segment::path(&self.shared.dir, header.number);
        let file = match &spare {
            Some(spare) => self.disk.reuse(spare, self.segment_size),
            None => self.disk.create(&path, self.segment_size),
        }?;
        // A number is used once, whatever becomes of its file.
        self.number += 1;
        failpoint!("ingest::in_new_segment");
        let renamed = || match &spare {
            // Under its new name only once its new header is durable.
            Some(spare) => std::fs::rename(spare, &path),
            None => Ok(()),
        };
        let made = file
            .write_all_at(&bytes, 0)
            .and_then(|()| file.sync())
            .and_then(|()| renamed())
            .and_then(|()| self.disk.sync_dir(&self.shared.dir));
        if let Err(error) = made {
            for path in spare.iter().chain([&path]) {
                match std::fs::remove_file(path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        tracing::warn!(%error, segment = header.number, "a segment without a header stays behind");
                    }
                    _ => {}
                }
            }
            return Err(error);
        }
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let mut state = self.shared.lock();
        state.bytes += length;
        state.segments.insert(
            header.number,
            Segment {
                epoch: header.epoch,
                seed: header.seed,
                length,
                readable: length,
                ends: BTreeMap::new(),
                index: Some(Index::new()),
                sealed: None,
                recovered: false,
            },
        );
        drop(state);
        self.active = Some(Active {
            number: header.number,
            file,
            seed: header.seed,
            start: length,
            length,
        });
        Ok(())
    }
}

fn of_io(error: &io::Error) -> AppendError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => AppendError::Full,
        _ => AppendError::Write,
    }
}
