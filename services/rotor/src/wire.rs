//! Frames over the socket pair, blocking, the same on both sides.

use std::io::{ErrorKind, IoSlice, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use millrace_event::frame::{self, FrameError, HEADER_LEN, Header, Kind, Shared};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::net::{RecvFlags, recv};
use serde::Serialize;

use crate::region::Region;

/// Bytes asked for while it is not known how many will come.
const CHUNK: usize = 64 << 10;

/// Frames up to this size are copied out of the buffer they came in; a larger one takes the buffer with it.
const SMALL: usize = 4 << 10;

/// What the socket is asked to hold of what is under way, so that a batch goes over in one piece: the system gives what
/// it allows.
const UNDER_WAY: usize = 2 << 20;

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
        payload: Bytes,
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
    region: Option<Arc<Region>>,
}

/// The half of an end that frames go out by.
#[derive(Debug)]
pub struct Writer {
    stream: UnixStream,
    /// Frames that go out with the next one: one at most, with the lines that a batch logged.
    held: Vec<u8>,
    region: Option<Arc<Region>>,
}

impl Wire {
    /// This end. What is large goes by the `region`, where there is one.
    ///
    /// # Errors
    /// When the system gives no second descriptor for the socket.
    pub fn new(stream: UnixStream, region: Option<Region>) -> std::io::Result<Self> {
        let region = region.map(Arc::new);
        if let Err(error) = set_socket_send_buffer_size(&stream, UNDER_WAY) {
            tracing::debug!(%error, "the socket to the other side keeps its size");
        }
        let reader = Reader {
            stream: stream.try_clone()?,
            incoming: Vec::new(),
            region: region.clone(),
        };
        let writer = Writer {
            stream,
            held: Vec::new(),
            region,
        };
        Ok(Self { writer, reader })
    }

    /// Both halves, for two threads.
    pub fn split(self) -> (Reader, Writer) {
        (self.reader, self.writer)
    }

    /// As [`Writer::send_parts`].
    ///
    /// # Errors
    /// As [`Writer::send`].
    pub fn send_parts(&mut self, kind: Kind, id: u64, parts: &[&[u8]]) -> Result<(), WireError> {
        self.writer.send_parts(kind, id, parts)
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

    /// [`Writer::send`] for a payload that is bytes already.
    ///
    /// # Errors
    /// As [`Writer::send`].
    pub fn send_bytes(&mut self, kind: Kind, id: u64, payload: &[u8]) -> Result<(), WireError> {
        self.send_parts(kind, id, &[payload])
    }

    /// [`Writer::send`] for a payload that lies in several places.
    ///
    /// # Errors
    /// As [`Writer::send`].
    pub fn send_parts(&mut self, kind: Kind, id: u64, parts: &[&[u8]]) -> Result<(), WireError> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        // A batch and its verdicts take turns, so what lay in the region before was read.
        if matches!(kind, Kind::Batch | Kind::Verdicts)
            && length > SMALL
            && let Some(region) = &self.region
            && let Ok(payload_len) = u32::try_from(length)
            && region.put(parts)
        {
            let shared = Shared { kind, payload_len };
            return self.write(Kind::Shared, id, &[&shared.encode()]);
        }
        self.write(kind, id, parts)
    }

    /// Writes to the socket.
    fn write(&mut self, kind: Kind, id: u64, parts: &[&[u8]]) -> Result<(), WireError> {
        let length = parts.iter().map(|part| part.len()).sum();
        let head = frame::head(kind, id, length).map_err(WireError::Frame)?;
        let mut slices = Vec::with_capacity(parts.len() + 2);
        slices.extend([IoSlice::new(&self.held), IoSlice::new(&head)]);
        slices.extend(parts.iter().map(|part| IoSlice::new(part)));
        let mut rest = &mut slices[..];
        // Takes what is empty away.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            match self.stream.write_vectored(rest) {
                Ok(0) => return Err(WireError::Socket(ErrorKind::WriteZero.into())),
                Ok(written) => IoSlice::advance_slices(&mut rest, written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(WireError::Socket(error)),
            }
        }
        self.held.clear();
        self.held.shrink_to(SMALL);
        Ok(())
    }

    /// Keeps one small frame and sends it in front of the next one, with the same call to the system.
    ///
    /// # Errors
    /// When the payload cannot be written or does not fit in a frame.
    pub fn hold(&mut self, kind: Kind, id: u64, payload: &impl Serialize) -> Result<(), WireError> {
        let payload = serde_json::to_vec(payload).map_err(WireError::Payload)?;
        frame::encode(kind, id, &payload, &mut self.held).map_err(WireError::Frame)
    }
}

impl Reader {
    fn buffered(&mut self) -> Result<Option<Received>, WireError> {
        let Some(Header {
            payload_len,
            kind,
            id,
        }) = self.header()?
        else {
            return Ok(None);
        };
        let total = HEADER_LEN + payload_len;
        if self.incoming.len() < total {
            return Ok(None);
        }
        let payload = if total <= SMALL {
            let payload = self.incoming.get(HEADER_LEN..total).unwrap_or_default();
            let payload = Bytes::copy_from_slice(payload);
            self.incoming.drain(..total);
            payload
        } else {
            let behind = self.incoming.split_off(total);
            let whole = std::mem::replace(&mut self.incoming, behind);
            Bytes::from(whole).slice(HEADER_LEN..)
        };
        if kind == Kind::Shared {
            return self.shared(id, &payload).map(Some).map_err(WireError::Frame);
        }
        Ok(Some(Received::Frame { kind, id, payload }))
    }

    /// The frame whose payload lies in the region.
    fn shared(&self, id: u64, payload: &[u8]) -> Result<Received, FrameError> {
        let Shared { kind, payload_len } = Shared::decode(payload)?;
        let length = usize::try_from(payload_len).map_err(|_| FrameError::NotShared)?;
        let taken = self.region.as_ref().and_then(|region| region.take(length));
        let payload = Bytes::from(taken.ok_or(FrameError::NotShared)?);
        Ok(Received::Frame { kind, id, payload })
    }

    /// The header of the frame that is coming in, once it is there.
    fn header(&self) -> Result<Option<Header>, WireError> {
        let head = self.incoming.first_chunk::<HEADER_LEN>();
        head.map(Header::decode).transpose().map_err(WireError::Frame)
    }

    /// Waits until something is there to be read, at most so long; says whether it is.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn wait(&self, longest: Duration) -> Result<bool, WireError> {
        if !self.incoming.is_empty() {
            return Ok(true);
        }
        let longest = Timespec::try_from(longest).ok();
        let mut socket = [PollFd::new(&self.stream, PollFlags::IN)];
        match poll(&mut socket, longest.as_ref()) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(WireError::Socket(error.into())),
        }
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
            match self.header()? {
                // Room for the rest of this frame, and for nothing behind it.
                Some(header) => {
                    let missing = (HEADER_LEN + header.payload_len).saturating_sub(self.incoming.len());
                    self.incoming.reserve_exact(missing);
                }
                None => self.incoming.reserve(CHUNK),
            }
            match recv(
                &self.stream,
                spare_capacity(&mut self.incoming),
                RecvFlags::empty(),
            ) {
                Ok((0, _)) => return Ok(Received::Closed),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Received::Nothing),
                Err(Errno::CONNRESET | Errno::PIPE) => return Ok(Received::Closed),
                Err(error) => return Err(WireError::Socket(error.into())),
            }
        }
    }
}
