//! Steps 7 and 8 up to the first look at the types, and the record that the journal gets.

use std::borrow::Cow;
use std::fmt::Write as _;

use millrace_event::IngestCode;
use millrace_event::envelope::ingest::{Common, Own, Writer};
use millrace_event::header::{Headers, TRACEPARENT};
use millrace_event::json::Value;
use millrace_event::partition;
use millrace_event::topic::MAX_RECORD_BYTES;
use millrace_store::dedup::Fingerprint;
use millrace_store::keys::Key;

use super::acceptance::Candidate;
use super::event::{Fields, Prepared};
use super::outcome::Fault;
use super::shapes::Shapes;
use super::types::Said;
use super::{Refusal, Submission, rules, types};
use crate::journal::{Entry, Topic};

/// Room for what an envelope has beside its event.
const AROUND: usize = 640;

/// Puts the events of one request into their envelopes; what they share is made once.
pub(super) struct Sealer<'s> {
    key: &'s Key,
    fixed: &'s types::Fixed,
    submission: &'s Submission,
    partitions: u32,
    /// What is noticed about the request.
    mark: Option<&'static str>,
    writer: Writer,
}

impl<'s> Sealer<'s> {
    pub(super) fn new(
        key: &'s Key,
        fixed: &'s types::Fixed,
        submission: &'s Submission,
        partitions: u32,
        mark: Option<&'static str>,
    ) -> Self {
        let ip = submission.ip.and_then(|ip| key.ip_policy.apply(ip));
        let ip = ip.map(|ip| {
            // As long as the longest address: written piece by piece, it would grow twice.
            let mut text = String::with_capacity(40);
            let written = write!(text, "{ip}");
            debug_assert!(written.is_ok(), "a text takes every write");
            text
        });
        let writer = Writer::new(Common {
            workspace: key.workspace.as_str(),
            source: key.source.as_str(),
            key_id: key.id.as_str(),
            key_kind: key.kind,
            received_at: submission.received_at,
            ip: ip.as_deref(),
            headers: &submission.headers,
        });
        Self {
            key,
            fixed,
            submission,
            partitions,
            mark,
            writer,
        }
    }

    /// The event number `index` of the request as the journal gets it.
    pub(super) fn seal(
        &self,
        index: usize,
        event: &Prepared<'_>,
        shapes: &mut Shapes<'_>,
    ) -> Result<Candidate, Fault> {
        let message_id = &*event.message_id;
        let fault = |refusal| Fault {
            message_id: Some(message_id.to_owned()),
            refusal,
        };
        let text = Value::from(&*event.event);
        if let Some(field) = rules::missing(text, &self.key.rules.required) {
            return Err(fault(Refusal::of_field(
                IngestCode::MissingField,
                field.to_owned(),
                "every event of the workspace needs this field",
            )));
        }
        let said = match event.fields {
            Fields::Fit => Said::default(),
            Fields::Unread | Fields::Changed => {
                types::read(text, event.person.as_deref(), self.key.kind, self.fixed)
            }
        };
        if event.fields == Fields::Unread && said.fits() {
            shapes.learn(Value::from(event.source));
        }
        let mut marks = Cow::Borrowed(event.marks.as_slice());
        if let Some(mark) = self.mark {
            marks.to_mut().push(mark);
        }
        let own = Own {
            sent_at: event.sent_at,
            marks: &marks,
            message_id,
            event: &event.event,
        };
        let mut value = Vec::with_capacity(text.text().len() + AROUND);
        self.writer.write(own, &mut value);
        if value.len() + event.key.len() > MAX_RECORD_BYTES {
            return Err(fault(Refusal::new(
                IngestCode::EventTooLarge,
                "the event is too large with its envelope",
            )));
        }
        let mut headers = Headers::new();
        if let Some(traceparent) = &self.submission.traceparent {
            headers.push(TRACEPARENT, traceparent.as_bytes());
        }
        let key = event.key.as_bytes();
        Ok(Candidate {
            index,
            message_id: message_id.to_owned(),
            fingerprint: Fingerprint::of(message_id),
            received_at: self.submission.received_at,
            said,
            entry: Entry {
                topic: Topic::Ingest,
                partition: partition::of_key(key, self.partitions),
                key: key.to_vec(),
                headers,
                value,
            },
        })
    }
}
