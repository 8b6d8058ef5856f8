//! Frames between the rotor and its worker processes.
//!
//! A frame is a header of 14 bytes and a payload. All integers are little endian:
//!
//! | Offset | Bytes | Field |
//! |---|---|---|
//! | 0 | 4 | length of the payload in bytes, at most [`MAX_PAYLOAD`] |
//! | 4 | 1 | version of the protocol, [`VERSION`] |
//! | 5 | 1 | kind, see [`Kind`] |
//! | 6 | 8 | id: an answer carries the id of what it answers |
//!
//! Payloads are JSON, but for those that carry events: see [`payload`]. One that is large may lie in memory that both sides
//! share; then a frame of kind [`Kind::Shared`] says how long it is. Events travel as the text they are; the
//! parent never builds a tree of one. Parent and worker are always the same binary, so an unknown version or kind is
//! refused, never skipped.
//! This module is bytes in, bytes out; it owns no socket.

mod answer;
mod extends;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod outcome;
pub mod payload;
mod shared;
mod text;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::code::FunctionCode;

pub use answer::Answer;
pub use outcome::{Outcome, OutputText, Resume};
pub use shared::Shared;
pub use text::EventText;

/// The protocol's version.
pub const VERSION: u8 = 1;

/// Bytes of a frame's header.
pub const HEADER_LEN: usize = 14;

/// The largest payload that either side sends or accepts, in bytes (64 MiB).
pub const MAX_PAYLOAD: usize = 64 << 20;

/// Calls of one event that may wait for their replies at once.
pub const MAX_CALLS: usize = 16;

/// Events of a batch that may be in flight at once, where the chain's functions allow it.
pub const MAX_FLIGHT: usize = 8;

/// The largest argument of a [`Call`], in bytes of JSON (2 MiB).
pub const MAX_ARGUMENT: usize = 2 << 20;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Parent to worker: a chain version to keep ready ([`Load`]). Not answered.
    Load = 1,
    /// Parent to worker: events for a chain that was loaded ([`Batch`]). Answered by [`Kind::Verdicts`].
    Batch = 2,
    /// Worker to parent: which event is being run ([`Progress`]).
    Progress = 3,
    /// Worker to parent: the answer to a batch ([`Verdicts`]).
    Verdicts = 4,
    /// Worker to parent: a request for something that only the parent may do ([`Call`]).
    Call = 5,
    /// Parent to worker: the answer to a call ([`Reply`]).
    Reply = 6,
    /// Worker to parent: lines that functions logged ([`Log`]), before the verdicts of the same batch.
    Log = 7,
    /// Worker to parent: nobody waits for the call with this id any more. Without a payload, not answered; a reply
    /// may be on its way all the same.
    Cancel = 8,
    /// Either way: a frame of this id whose payload lies in the memory that both sides share ([`Shared`]).
    Shared = 9,
}

impl TryFrom<u8> for Kind {
    type Error = FrameError;

    fn try_from(byte: u8) -> Result<Self, FrameError> {
        Ok(match byte {
            1 => Self::Load,
            2 => Self::Batch,
            3 => Self::Progress,
            4 => Self::Verdicts,
            5 => Self::Call,
            6 => Self::Reply,
            7 => Self::Log,
            8 => Self::Cancel,
            9 => Self::Shared,
            other => return Err(FrameError::UnknownKind(other)),
        })
    }
}

/// Why bytes are not a frame. None of these can be recovered from: the stream has lost its footing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The other side speaks another version.
    #[error("frame version {0} is not {VERSION}")]
    UnknownVersion(u8),
    /// The kind is not in the list.
    #[error("frame kind {0} is unknown")]
    UnknownKind(u8),
    /// The payload is over [`MAX_PAYLOAD`].
    #[error("frame payload of {0} bytes is over the limit")]
    TooLarge(usize),
    /// It speaks of shared memory that is not there, or not in the form that it must have.
    #[error("a frame speaks of shared memory that is not there")]
    NotShared,
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of payload that follow.
    pub payload_len: usize,
    /// What the payload is.
    pub kind: Kind,
    /// Pairs an answer with its request.
    pub id: u64,
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// When version or kind is unknown or the payload would be over the limit.
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, FrameError> {
        let [l0, l1, l2, l3, version, kind, id @ ..] = *bytes;
        if version != VERSION {
            return Err(FrameError::UnknownVersion(version));
        }
        let kind = Kind::try_from(kind)?;
        let payload_len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if payload_len > MAX_PAYLOAD {
            return Err(FrameError::TooLarge(payload_len));
        }
        Ok(Self {
            payload_len,
            kind,
            id: u64::from_le_bytes(id),
        })
    }
}

/// One whole frame, borrowed from the bytes it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What the payload is.
    pub kind: Kind,
    /// Pairs an answer with its request.
    pub id: u64,
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads the frame at the start of `bytes` and says how many bytes it took; `None` when it is not there
    /// as a whole yet.
    ///
    /// # Errors
    /// As [`Header::decode`].
    pub fn decode(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, FrameError> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let header = Header::decode(header)?;
        let Some(payload) = rest.get(..header.payload_len) else {
            return Ok(None);
        };
        let frame = Self {
            kind: header.kind,
            id: header.id,
            payload,
        };
        Ok(Some((frame, HEADER_LEN + header.payload_len)))
    }
}

/// Appends one frame to `out`; nothing is appended on an error.
///
/// # Errors
/// When the payload is over [`MAX_PAYLOAD`].
pub fn encode(kind: Kind, id: u64, payload: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
    let head = head(kind, id, payload.len())?;
    out.reserve(head.len() + payload.len());
    out.extend_from_slice(&head);
    out.extend_from_slice(payload);
    Ok(())
}

/// What stands in front of a payload of `payload_len` bytes.
///
/// # Errors
/// When the payload is over [`MAX_PAYLOAD`].
pub fn head(kind: Kind, id: u64, payload_len: usize) -> Result<[u8; HEADER_LEN], FrameError> {
    let too_large = FrameError::TooLarge(payload_len);
    if payload_len > MAX_PAYLOAD {
        return Err(too_large);
    }
    let [l0, l1, l2, l3] = u32::try_from(payload_len).map_err(|_| too_large)?.to_le_bytes();
    let [i0, i1, i2, i3, i4, i5, i6, i7] = id.to_le_bytes();
    Ok([
        l0, l1, l2, l3, VERSION, kind as u8, i0, i1, i2, i3, i4, i5, i6, i7,
    ])
}

/// A chain version: what the worker needs to run events through it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// The chain's id; with `version` it names one isolate.
    pub chain: String,
    /// The chain's version; another version is another isolate.
    pub version: u64,
    /// The workspace, as functions see it.
    pub workspace: String,
    /// The source, as functions see it.
    pub source: String,
    /// The destination, as functions see it.
    pub destination: String,
    /// The functions, in the order they run.
    pub functions: Vec<Function>,
    /// `ctx.env`: a JSON object of strings. Its values are taken out of what functions log and throw.
    pub environment: Text,
    /// Why there is no environment, where there should be one: a function that reads it asks for another try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment_fault: Option<String>,
    /// What one event may use.
    pub limits: Limits,
}

/// JSON text that compares by its bytes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Text(pub Box<RawValue>);

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Eq for Text {}

/// One function of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Function {
    /// Its id; reasons name it.
    pub id: String,
    /// Its version; reasons name it.
    pub version: u32,
    /// An ES module with a default export.
    pub code: String,
    /// Whether the code has types, which the worker takes out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub typescript: bool,
}

/// What one event may use in a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Wall time for one event through the whole chain, in milliseconds.
    pub wall_ms: u64,
    /// Processor time for the same, in milliseconds; `None`: as much as fits into the wall time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// Heap of one isolate, in bytes.
    pub heap_bytes: usize,
    /// JSON text of all events that one event became, in bytes.
    pub output_bytes: usize,
    /// Events that one event may become.
    pub outputs: usize,
    /// Log lines kept of one event.
    pub log_lines: usize,
    /// Promises that may be pending at once; `None`: as many as fit into the heap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promises: Option<usize>,
}

/// Events for one chain; in bytes as [`payload`] says.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch<'a> {
    /// The chain's id.
    pub chain: &'a str,
    /// The chain's version.
    pub version: u64,
    /// The events, run one after the other.
    pub records: Vec<Record<'a>>,
    /// Wall time for all of them together, in milliseconds: events past it are not run, and go round again. `None`: each
    /// has its own limit only.
    pub budget_ms: Option<u64>,
}

/// One event of a batch. It carries no identity: parent and worker match by place in the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What `ctx` says about it, as JSON text: an object with `attempt`, `receivedAt` and `headers`.
    pub context: &'a str,
    /// The event's text.
    pub event: &'a str,
    /// The place in the chain of the function to begin at, from 0: where an earlier attempt stopped.
    pub position: u32,
}

/// Which event of the batch is being run. Sent while a batch runs, when it changed; and once with frame id 0 when
/// a worker is ready for its first frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Its place in the batch, from 0.
    pub index: usize,
    /// The place in the chain of the function that runs, from 0, once one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u32>,
    /// The engine has no memory left and cannot go on: this worker is to be ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exhausted: bool,
}

/// The answer to a batch; in bytes as [`payload`] says.
#[derive(Debug)]
pub enum Verdicts {
    /// One outcome for each event, in order.
    Outcomes(Vec<Outcome>),
    /// The worker does not hold that chain version (any more): load it and send the batch again.
    UnknownChain,
}

/// Why a function gave no result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The class.
    pub code: FunctionCode,
    /// What people read; at most 1,024 characters.
    pub message: String,
    /// The function's id, when one can be blamed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// The function's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function_version: Option<u32>,
    /// Line in the function's source, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column in that line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// The frames of the chain's own functions, innermost first, one on a line; at most 2,048 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack: Option<String>,
}

impl Fault {
    /// A fault that no place in the code can be given for.
    pub fn new(code: FunctionCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            code,
            message,
            function: None,
            function_version: None,
            line: None,
            column: None,
            stack: None,
        }
    }
}

/// Lines that functions logged while a batch ran, and what it used.
#[derive(Debug, Serialize, Deserialize)]
pub struct Log {
    /// The lines, in order.
    pub lines: Vec<LogLine>,
    /// Lines that were over the limits and are not here.
    pub discarded: u64,
    /// What the batch used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// What a batch used in its worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time of the chain's thread, in microseconds.
    pub cpu_us: u64,
    /// Time from its beginning to its end, in microseconds.
    pub wall_us: u64,
    /// Of that, the time in which it waited, for calls or timers, in microseconds.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub waited_us: u64,
    /// Heap of the chain's isolate after it, in bytes.
    pub heap_bytes: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks in this way")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One line of `ctx.log` or `console`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// The event's place in the batch; `None` while the code was being loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// The place in the chain of the function that spoke, from 0; `None` where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u32>,
    /// How loud.
    pub level: LogLevel,
    /// What was said; at most 4,096 characters.
    pub message: String,
}

/// How loud a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// `log.debug`
    Debug,
    /// `log.info`, `console.log`
    Info,
    /// `log.warn`
    Warn,
    /// `log.error`
    Error,
}

/// Something that a function asks the parent to do: the worker itself can reach nothing. Sent while a batch runs and
/// only for it: with the batch's verdicts, or with the worker's death, its calls are over. The frame's id is the
/// call's own, never used twice by one worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Call {
    /// The operation's name.
    pub operation: String,
    /// Its argument, at most [`MAX_ARGUMENT`].
    pub argument: Box<RawValue>,
}

/// The answer to a [`Call`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The result.
    Done(Box<RawValue>),
    /// What went wrong, as the function will see it.
    Failed(String),
    /// What is away now and may be back later: as [`Reply::Failed`], and a function that does not catch it asks for
    /// another try.
    Unavailable(String),
}

#[cfg(test)]
mod tests;
