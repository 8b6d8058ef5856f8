//! What a record says: an event to run, a row that only passes through, or nothing that can be read.

use millrace_event::envelope::{Envelope as _, Ingest, ReadError, Resume, Retry, RowPayload, Stage, Text};
use millrace_event::{Identity, JournalId, Timestamp, header};
use millrace_kafka::Record;
use serde_json::value::RawValue;

/// Where a record was read.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: u32,
    /// Whether the topic is one of the retry topics.
    pub retry: bool,
    /// The ingest topic's configured incarnation.
    pub incarnation: &'a str,
}

/// A record, read. Strings and events borrow from it.
#[derive(Debug)]
pub struct Incoming<'a> {
    /// The event's identity.
    pub identity: Identity,
    /// How often the event went round.
    pub attempt: u32,
    /// Where it was read.
    pub place: Place<'a>,
    /// Its offset there.
    pub offset: u64,
    /// What is in it.
    pub content: Content<'a>,
}

/// What a record holds.
#[derive(Debug)]
pub enum Content<'a> {
    /// An event for its functions.
    Event {
        /// The envelope.
        ingest: Box<Ingest<'a>>,
        /// The envelope's text, which a retry or a dead letter keeps.
        original: &'a [u8],
        /// Where a chain goes on.
        resume: Option<Box<Resumed<'a>>>,
    },
    /// A row that the bulker could not write; its functions have run.
    Row {
        /// The row.
        row: Box<RowPayload<'a>>,
        /// Which of the event's rows it is.
        sub: Option<u16>,
    },
    /// Not an envelope of a known version.
    Unreadable {
        /// What is wrong with it.
        message: String,
        /// The record's own time.
        at: Timestamp,
    },
}

/// Where the chain of an event goes on after a retry.
#[derive(Debug)]
pub struct Resumed<'a> {
    /// Chain, place and event.
    pub at: Resume<'a>,
    /// The function that asked for the retry.
    pub function: Option<Text<'a>>,
}

impl<'a> Incoming<'a> {
    /// Reads a record. Whatever is in it, something comes out: each record read must give one written.
    pub fn read(record: &'a Record, place: Place<'a>) -> Self {
        let identity = record.headers.text(header::ID).and_then(|text| text.parse().ok());
        let identity = identity.unwrap_or_else(|| Identity {
            journal: JournalId::of_topic(place.topic, place.incarnation),
            partition: place.partition,
            seq: record.offset,
        });
        let header_attempt = record
            .headers
            .text(header::ATTEMPT)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0);
        let with = |attempt, content| Self {
            identity,
            attempt,
            place,
            offset: record.offset,
            content,
        };
        let unreadable = |attempt, error: &ReadError| {
            let at = Timestamp::clamped_from_millis(record.timestamp_ms);
            let message = described(error);
            with(attempt, Content::Unreadable { message, at })
        };
        let event = |attempt, ingest, original, resume| {
            let ingest = Box::new(ingest);
            let content = Content::Event {
                ingest,
                original,
                resume,
            };
            with(attempt, content)
        };
        if !place.retry {
            return match Ingest::read(&record.value) {
                Ok(ingest) => event(header_attempt, ingest, &record.value, None),
                Err(error) => unreadable(header_attempt, &error),
            };
        }
        let retry = match Retry::read(&record.value) {
            Ok(retry) => retry,
            Err(error) => return unreadable(header_attempt, &error),
        };
        let payload: &'a RawValue = retry.payload;
        let payload = payload.get().as_bytes();
        let attempt = retry.attempt;
        match retry.stage {
            Stage::Bulker => match RowPayload::read(payload) {
                Ok(row) => {
                    let (row, sub) = (Box::new(row), retry.sub);
                    with(attempt, Content::Row { row, sub })
                }
                Err(error) => unreadable(attempt, &error),
            },
            Stage::Ingest | Stage::Rotor => match Ingest::read(payload) {
                Ok(ingest) => {
                    let function = retry.reason.function;
                    let resume = retry.resume.map(|at| Box::new(Resumed { at, function }));
                    event(attempt, ingest, payload, resume)
                }
                Err(error) => unreadable(attempt, &error),
            },
        }
    }

    /// The record that it was read from, for people: a dead letter that cannot hold its original says where it is.
    pub fn whereabouts(&self) -> String {
        let Place { topic, partition, .. } = self.place;
        format!("offset {} of partition {partition} of {topic}", self.offset)
    }
}

fn described(error: &dyn std::error::Error) -> String {
    match error.source() {
        // Where it is wrong, and what was expected there: never a value.
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// When a record of a retry topic is due; at once where it does not say.
pub fn due_at(record: &Record) -> Option<Timestamp> {
    record.headers.text(header::DUE_AT)?.parse().ok()
}
