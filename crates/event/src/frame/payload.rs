//! Payloads that carry events: a batch and its answer.
//!
//! These are not JSON. Nearly all of their bytes are texts of events, and a JSON parser would have to look at each
//! byte to find where a text ends; here its length stands in front. Integers are little endian, a text is a length
//! of 4 bytes and that many bytes of UTF-8:
//!
//! | Payload | Form |
//! |---|---|
//! | [`Batch`] | chain: text; version: 8 bytes; budget: 8, in milliseconds, all ones for none; records: 4; for each: position: 4, context: text, event: text |
//! | [`Verdicts`] | 0 and nothing else where the chain is unknown; else 1; outcomes: 4; for each: head: text, events: 4, each a text |
//!
//! The head of an outcome is a JSON object with `verdict`, `fault`, `retry_after_ms` and `resume`, the place to go on
//! at: then the last text is the event to go on with. An empty head stands for `forward`.
//!
//! A worker runs what somebody else wrote, so what it answers is not believed: [`Verdicts::decode`] reads every text
//! as JSON before it gives it on.

use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::extends::extends;
use super::{Answer, Batch, EventText, Fault, Outcome, Record, Resume, Verdicts};
use crate::code::Verdict;
use crate::json::check::end_of_value;
use crate::json::known;

/// Why bytes are not a payload.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// They end too early, or too late.
    #[error("a payload is not as long as it says")]
    Length,
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    Text(#[source] std::str::Utf8Error),
    /// An event or a head is not JSON.
    #[error("a text is not JSON")]
    Json(#[source] serde_json::Error),
    /// A form that this version does not know.
    #[error("form {0} of a payload is unknown")]
    Form(u8),
}

const NO_BUDGET: u64 = u64::MAX;

/// Most things that room is made for before they are read: a number in a payload is only what somebody says.
const AT_ONCE: usize = 1024;

const UNKNOWN_CHAIN: u8 = 0;
pub(super) const OUTCOMES: u8 = 1;

/// An outcome without its texts.
#[derive(Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) verdict: Verdict,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) fault: Option<Fault>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) retry_after_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) resume: Option<u32>,
}

impl<'a> Batch<'a> {
    /// Its bytes.
    ///
    /// # Errors
    /// The chain's id or the number of records does not fit in 4 bytes.
    pub fn encode(&self) -> Result<Vec<u8>, PayloadError> {
        let mut records = Records::default();
        for record in &self.records {
            records.push(*record);
        }
        let mut out = Self::head(self.chain, self.version, self.budget_ms, records.len())?;
        out.extend_from_slice(records.bytes(0..records.len()));
        Ok(out)
    }

    /// What stands in front of `count` records: the two together are a batch.
    ///
    /// # Errors
    /// The chain's id or the number of records does not fit in 4 bytes.
    pub fn head(
        chain: &str,
        version: u64,
        budget_ms: Option<u64>,
        count: usize,
    ) -> Result<Vec<u8>, PayloadError> {
        let mut out = Vec::with_capacity(24 + chain.len());
        put_text(&mut out, chain)?;
        out.extend_from_slice(&version.to_le_bytes());
        out.extend_from_slice(&budget_ms.unwrap_or(NO_BUDGET).to_le_bytes());
        put_length(&mut out, count)?;
        Ok(out)
    }

    /// Reads one. The texts of its records are not looked at: the engine reads them.
    ///
    /// # Errors
    /// The bytes are not a batch.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, PayloadError> {
        let mut rest = bytes;
        let (chain, version) = head_of(&mut rest)?;
        let budget_ms = u64::from_le_bytes(array(&mut rest)?);
        let count = length(&mut rest)?;
        let mut records = Vec::with_capacity(count.min(AT_ONCE));
        for _ in 0..count {
            records.push(Record {
                position: u32::from_le_bytes(array(&mut rest)?),
                context: text(&mut rest)?,
                event: text(&mut rest)?,
            });
        }
        ended(rest)?;
        Ok(Self {
            chain,
            version,
            records,
            budget_ms: (budget_ms != NO_BUDGET).then_some(budget_ms),
        })
    }

    /// Which chain a batch is for, and its version; its records are not looked at.
    ///
    /// # Errors
    /// The bytes are not a batch.
    pub fn chain_of(mut bytes: &'a [u8]) -> Result<(&'a str, u64), PayloadError> {
        head_of(&mut bytes)
    }
}

/// Records as a batch carries them, written once: any part of them can be sent, and sent again, as it stands here.
#[derive(Clone, Debug, Default)]
pub struct Records {
    bytes: Vec<u8>,
    spans: Vec<Span>,
}

/// Where one record is.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    /// Where its event's text begins.
    event: usize,
    end: usize,
}

impl Records {
    /// With room for so many records, of so many bytes together.
    pub fn with_capacity(records: usize, bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            spans: Vec::with_capacity(records),
        }
    }

    /// Bytes that a record takes.
    pub const fn size_of(record: &Record<'_>) -> usize {
        12 + record.context.len() + record.event.len()
    }

    /// Writes one more. A text over 4 GiB makes a batch that no frame takes, see [`MAX_PAYLOAD`](super::MAX_PAYLOAD).
    pub fn push(&mut self, record: Record<'_>) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&record.position.to_le_bytes());
        for text in [record.context, record.event] {
            let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
            self.bytes.extend_from_slice(&length.to_le_bytes());
            self.bytes.extend_from_slice(text.as_bytes());
        }
        let end = self.bytes.len();
        self.spans.push(Span {
            start,
            event: end - record.event.len(),
            end,
        });
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Bytes of the event's text of one record; 0 where there is none.
    pub fn event_len(&self, index: usize) -> usize {
        self.spans.get(index).map_or(0, |span| span.end - span.event)
    }

    /// The event's text of one record, as it is written.
    pub fn event_bytes(&self, index: usize) -> Option<&[u8]> {
        let span = self.spans.get(index)?;
        self.bytes.get(span.event..span.end)
    }

    /// The event's text of one record.
    pub fn event(&self, index: usize) -> Option<&str> {
        utf8(self.event_bytes(index)?).ok()
    }

    /// The bytes of the records in `range`; nothing where they are not there.
    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        let spans = self.spans.get(range).unwrap_or_default();
        let (Some(first), Some(last)) = (spans.first(), spans.last()) else {
            return &[];
        };
        self.bytes.get(first.start..last.end).unwrap_or_default()
    }
}

impl Verdicts {
    /// The bytes of outcomes as a worker has them.
    ///
    /// # Errors
    /// A text or a number does not fit in 4 bytes.
    pub fn encode(outcomes: &[Outcome<String>]) -> Result<Vec<u8>, PayloadError> {
        let texts = outcomes.iter().flat_map(|outcome| &outcome.events);
        let size: usize = texts.map(|text| 12 + text.len()).sum();
        let mut answer = Answer::with_capacity(outcomes.len(), size);
        for outcome in outcomes {
            answer.push(outcome)?;
        }
        answer.finish()
    }

    /// The bytes of [`Verdicts::UnknownChain`].
    pub fn unknown_chain() -> Vec<u8> {
        vec![UNKNOWN_CHAIN]
    }

    /// Reads one, each of its texts as JSON.
    ///
    /// # Errors
    /// The bytes are not verdicts, or a text in them is not JSON.
    pub fn decode(bytes: &[u8]) -> Result<Self, PayloadError> {
        Self::decode_beside(&Bytes::copy_from_slice(bytes), |_| None)
    }

    /// As [`Verdicts::decode`], beside the events that the outcomes are of: where one went on with nothing changed and at most
    /// something added, that is seen faster, and the outcome is [`intact`](Outcome::intact). `source` is the text of the event
    /// at a place; it must be JSON. The events' texts stay where they are, in `payload`.
    ///
    /// # Errors
    /// As [`Verdicts::decode`].
    pub fn decode_beside<'a>(
        payload: &Bytes,
        source: impl Fn(usize) -> Option<&'a [u8]>,
    ) -> Result<Self, PayloadError> {
        let mut rest = payload.as_ref();
        let [form] = array(&mut rest)?;
        if form == UNKNOWN_CHAIN {
            ended(rest)?;
            return Ok(Self::UnknownChain);
        }
        if form != OUTCOMES {
            return Err(PayloadError::Form(form));
        }
        let count = length(&mut rest)?;
        let mut outcomes = Vec::with_capacity(count.min(AT_ONCE));
        for index in 0..count {
            outcomes.push(outcome(payload, &mut rest, source(index))?);
        }
        ended(rest)?;
        Ok(Self::Outcomes(outcomes))
    }
}

fn outcome(payload: &Bytes, rest: &mut &[u8], source: Option<&[u8]>) -> Result<Outcome, PayloadError> {
    let head = text(rest)?;
    let head = if head.is_empty() {
        Head {
            verdict: Verdict::Forward,
            fault: None,
            retry_after_ms: None,
            resume: None,
        }
    } else {
        serde_json::from_str(head).map_err(PayloadError::Json)?
    };
    let count = length(rest)?;
    let kept = usize::from(head.resume.is_some());
    let forwarded = count.checked_sub(kept).ok_or(PayloadError::Length)?;
    let mut events = Vec::with_capacity(forwarded.min(AT_ONCE));
    let mut intact = count > 0;
    for _ in 0..forwarded {
        let event = text(rest)?;
        let extends = source.is_some_and(|source| extends(source, event.as_bytes()));
        intact &= extends;
        let event = if extends { event } else { json(event)?.get() };
        events.push(EventText::known(payload.slice_ref(event.as_bytes())));
    }
    let resume = match head.resume {
        Some(position) => {
            let event = text(rest)?;
            intact &= source.is_some_and(|source| extends(source, event.as_bytes()));
            let event = json(event)?.to_owned();
            Some(Resume { position, event })
        }
        None => None,
    };
    Ok(Outcome {
        verdict: head.verdict,
        events,
        fault: head.fault,
        retry_after_ms: head.retry_after_ms,
        resume,
        intact,
    })
}

/// The value that a text is. The parser is asked only where the faster check does not see one: what is nested deep, or has
/// white space around it.
fn json(text: &str) -> Result<&RawValue, PayloadError> {
    let seen = end_of_value(text.as_bytes(), 0) == Some(text.len());
    match seen.then(|| known(text)).flatten() {
        Some(value) => Ok(value),
        None => serde_json::from_str(text).map_err(PayloadError::Json),
    }
}

fn head_of<'a>(rest: &mut &'a [u8]) -> Result<(&'a str, u64), PayloadError> {
    Ok((text(rest)?, u64::from_le_bytes(array(rest)?)))
}

pub(super) fn put_length(out: &mut Vec<u8>, length: usize) -> Result<(), PayloadError> {
    let length = u32::try_from(length).map_err(|_| PayloadError::Length)?;
    out.extend_from_slice(&length.to_le_bytes());
    Ok(())
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) -> Result<(), PayloadError> {
    put_length(out, text.len())?;
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], PayloadError> {
    let (bytes, behind) = rest.split_first_chunk().ok_or(PayloadError::Length)?;
    *rest = behind;
    Ok(*bytes)
}

fn length(rest: &mut &[u8]) -> Result<usize, PayloadError> {
    usize::try_from(u32::from_le_bytes(array(rest)?)).map_err(|_| PayloadError::Length)
}

fn text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, PayloadError> {
    let length = length(rest)?;
    let (bytes, behind) = rest.split_at_checked(length).ok_or(PayloadError::Length)?;
    *rest = behind;
    utf8(bytes)
}

/// The bytes as text; a good deal faster than the standard library, which says where they are none.
fn utf8(bytes: &[u8]) -> Result<&str, PayloadError> {
    match simdutf8::basic::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(_) => std::str::from_utf8(bytes).map_err(PayloadError::Text),
    }
}

fn ended(rest: &[u8]) -> Result<(), PayloadError> {
    if rest.is_empty() {
        Ok(())
    } else {
        Err(PayloadError::Length)
    }
}
