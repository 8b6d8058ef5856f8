//! Frames over the socket pair, blocking, the same on both sides.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use millrace_event::frame::{self, Frame, FrameError, Kind};
use serde::Serialize;

/// Bytes asked for at a time.
const CHUNK: usize = 64 << 10;

/// Buffers larger than this are given back once they are empty.
const KEEP: usize = 1 << 20;

/// Why the other side cannot be spoken with any more.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The socket failed.
    #[error("the socket to the other side failed")]
    Socket(#[source] std::io::Error),
    /// What came is not a frame, or what should go does not fit in one.
    #[error("not a frame")]
    Frame(#[source] FrameError),
    /// A payload cannot be written as JSON.
    #[error("a payload cannot be written")]
    Payload(#[source] serde_json::Error),
}

/// What [`Reader::receive`] found.
#[derive(Debug)]
pub enum Received {
    /// A whole frame.
    Frame {
        /// What it is.
        kind: Kind,
        /// What it belongs to.
        id: u64,
        /// Its payload.
        payload: Vec<u8>,
    },
    /// The socket's read timeout passed without one.
    Nothing,
    /// The other side is gone.
    Closed,
}

/// One end of the socket pair.
#[derive(Debug)]
pub struct Wire {
    writer: Writer,
    reader: Reader,
}

/// The half of an end that frames come in by.
#[derive(Debug)]
pub struct Reader {
    stream: UnixStream,
    incoming: Vec<u8>,
}

/// The half of an end that frames go out by.
#[derive(Debug)]
pub struct Writer {
    stream: UnixStream,
}

impl Wire {
    /// This end.
    ///
    /// # Errors
    /// When the system gives no second descriptor for the socket.
    pub fn new(stream: UnixStream) -> std::io::Result<Self> {
        let reader = Reader {
            stream: stream.try_clone()?,
            incoming: Vec::new(),
        };
        let writer = Writer { stream };
        Ok(Self { writer, reader })
    }

    /// Both halves, for two threads.
    pub fn split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }

    /// Sends one frame, whole, for a payload that is JSON already.
    ///
    /// # Errors
    /// As [`Writer::send`].
    pub fn send_bytes(&mut self, kind: Kind, id: u64, payload: &[u8]) -> Result<(), WireError> {
        self.writer.send_bytes(kind, id, payload)
    }

    /// As [`Reader::receive`].
    ///
    /// # Errors
    /// As [`Reader::receive`].
    pub fn receive(&mut self) -> Result<Received, WireError> {
        self.reader.receive()
    }

    /// A whole frame that was read before, if there is one; asks the socket nothing.
    ///
    /// # Errors
    /// When the bytes are not a frame.
    pub fn buffered(&mut self) -> Result<Option<Received>, WireError> {
        self.reader.buffered()
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.stream.as_fd()
    }
}

impl Writer {
    /// Sends one frame, whole.
    ///
    /// # Errors
    /// When the socket fails or its write timeout passes: the other side has lost its footing then.
    pub fn send(&mut self, kind: Kind, id: u64, payload: &impl Serialize) -> Result<(), WireError> {
        let payload = serde_json::to_vec(payload).map_err(WireError::Payload)?;
        self.send_bytes(kind, id, &payload)
    }

    /// [`Writer::send`] for a payload that is JSON already.
    ///
    /// # Errors
    /// As [`Writer::send`].
    pub fn send_bytes(&mut self, kind: Kind, id: u64, payload: &[u8]) -> Result<(), WireError> {
        let head = frame::head(kind, id, payload).map_err(WireError::Frame)?;
        let mut parts = [IoSlice::new(&head), IoSlice::new(payload)];
        let mut rest = &mut parts[..];
        while !rest.is_empty() {
            match self.stream.write_vectored(rest) {
                Ok(0) => return Err(WireError::Socket(ErrorKind::WriteZero.into())),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(WireError::Socket(error)),
            }
        }
        Ok(())
    }
}

impl Reader {
    fn buffered(&mut self) -> Result<Option<Received>, WireError> {
        let Some((frame, taken)) = Frame::decode(&self.incoming).map_err(WireError::Frame)? else {
            return Ok(None);
        };
        let Frame { kind, id, payload } = frame;
        let payload = payload.to_vec();
        self.incoming.drain(..taken);
        if self.incoming.is_empty() && self.incoming.capacity() > KEEP {
            self.incoming = Vec::new();
        }
        Ok(Some(Received::Frame { kind, id, payload }))
    }

    /// Waits for the next frame, as long as the socket's read timeout says.
    ///
    /// # Errors
    /// When the socket fails or the bytes are not a frame.
    pub fn receive(&mut self) -> Result<Received, WireError> {
        loop {
            if let Some(received) = self.buffered()? {
                return Ok(received);
            }
            let filled = self.incoming.len();
            self.incoming.resize(filled + CHUNK, 0);
            let read = self
                .incoming
                .get_mut(filled..)
                .map_or(Ok(0), |space| self.stream.read(space));
            self.incoming.truncate(filled + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Ok(Received::Closed),
                Ok(_) => {}
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Ok(Received::Nothing),
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => return Ok(Received::Closed),
                    _ => return Err(WireError::Socket(error)),
                },
            }
        }
    }
}
