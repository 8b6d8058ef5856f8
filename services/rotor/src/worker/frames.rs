//! The frames that come to a worker.
//!
//! While nothing runs, the main thread reads the socket itself: a thread that only hands batches over would be woken for each
//! of them, and wakes the main thread in its turn. Replies to calls come while a batch runs, when the main thread waits for
//! other things: so with the first call of a batch the socket goes to a thread of its own, which gives it back with the next
//! frame that is no reply.

use std::io::Error;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use bytes::Bytes;
use millrace_event::frame::{Kind, Reply};
use millrace_rotor::wire::{Reader, Received};
use millrace_script::Replies;

use super::WorkerError;

/// A frame for the main thread.
pub(super) type Incoming = (Kind, u64, Bytes);

/// What [`Frames::next`] found.
pub(super) enum Next {
    Frame(Incoming),
    /// None came in time.
    Late,
    /// The parent is gone.
    Closed,
}

/// A reader that comes back, with what it read.
type Returned = (Reader, Result<Next, WorkerError>);

/// Owns the end of the socket that frames come in by.
pub(super) struct Frames {
    /// Not here while the other thread reads.
    reader: Option<Reader>,
    replies: Replies,
    lent: SyncSender<Reader>,
    returned: Receiver<Returned>,
}

impl Frames {
    /// Starts the thread that reads while a batch with calls runs; it sleeps until it is lent the socket.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(reader: Reader, replies: Replies) -> Result<Self, Error> {
        let (lent, borrowed) = mpsc::sync_channel::<Reader>(1);
        let (give_back, returned) = mpsc::sync_channel::<Returned>(1);
        let delivered = replies.clone();
        std::thread::Builder::new().name("reader".into()).spawn(move || {
            while let Ok(mut reader) = borrowed.recv() {
                let next = read(&mut reader, &delivered, None);
                if give_back.send((reader, next)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self {
            reader: Some(reader),
            replies,
            lent,
            returned,
        })
    }

    /// The next frame that is no reply, waited for at most so long. Replies that come late are delivered on the way.
    ///
    /// # Errors
    /// When the socket fails or something else than frames comes in.
    pub(super) fn next(&mut self, longest: Option<Duration>) -> Result<Next, WorkerError> {
        if let Some(reader) = &mut self.reader {
            return read(reader, &self.replies, longest);
        }
        let returned = match longest {
            Some(longest) => match self.returned.recv_timeout(longest) {
                Err(RecvTimeoutError::Timeout) => return Ok(Next::Late),
                returned => returned.ok(),
            },
            None => self.returned.recv().ok(),
        };
        let Some((reader, next)) = returned else {
            return Ok(Next::Closed);
        };
        self.reader = Some(reader);
        next
    }

    /// Lets replies come in while this thread does something else, until the next other frame.
    pub(super) fn lend(&mut self) {
        if let Some(reader) = self.reader.take()
            && let Err(mpsc::SendError(reader)) = self.lent.send(reader)
        {
            // Without its thread: calls then wait for their events' ends.
            self.reader = Some(reader);
        }
    }
}

fn read(reader: &mut Reader, replies: &Replies, longest: Option<Duration>) -> Result<Next, WorkerError> {
    loop {
        if let Some(longest) = longest
            && !reader.wait(longest)?
        {
            return Ok(Next::Late);
        }
        match reader.receive()? {
            Received::Nothing => {}
            Received::Closed => return Ok(Next::Closed),
            Received::Frame {
                kind: Kind::Reply,
                id,
                payload,
            } => {
                let reply: Reply = serde_json::from_slice(&payload).map_err(WorkerError::Frame)?;
                replies.deliver(id, reply);
            }
            Received::Frame { kind, id, payload } => return Ok(Next::Frame((kind, id, payload))),
        }
    }
}
