//! One dead letter: what its headers say, and the copy that sends it round again.

use millrace_event::IngestCode;
use millrace_event::code::RowCode;
use millrace_event::envelope::{Envelope as _, Ingest, Reason, Retry, RowPayload, Stage, Text, V1};
use millrace_event::header::{self, Headers};
use millrace_event::{Identity, Timestamp};
use millrace_kafka::{Outgoing, Record};
use millrace_warehouse::{Row, RowId, replays};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::cli::{Letters, Place};

/// A record of the dead-letter topic.
#[derive(Debug)]
pub(super) struct Letter {
    partition: u32,
    record: Record,
}

/// Why a letter cannot go round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It does not say whose it is.
    NoIdentity,
    /// It holds neither an event nor a row.
    NoEnvelope,
}

impl Letter {
    pub(super) const fn new(partition: u32, record: Record) -> Self {
        Self { partition, record }
    }

    /// Where it is.
    pub(super) const fn place(&self) -> Place {
        Place {
            partition: self.partition,
            offset: self.record.offset,
        }
    }

    fn text(&self, name: &str) -> &str {
        self.record.headers.text(name).unwrap_or_default()
    }

    /// When it was set aside.
    pub(super) fn failed_at(&self) -> Timestamp {
        let said = self.text(header::FAILED_AT).parse();
        said.unwrap_or_else(|_| Timestamp::clamped_from_millis(self.record.timestamp_ms))
    }

    /// Its workspace's id.
    pub(super) fn workspace(&self) -> &str {
        self.text(header::WORKSPACE)
    }

    /// The table that its row was meant for.
    pub(super) fn table(&self) -> Option<&str> {
        Some(self.text(header::TABLE)).filter(|table| !table.is_empty())
    }

    /// The function that failed, and its version.
    pub(super) fn function(&self) -> Option<(&str, u32)> {
        let version = self.text(header::FUNCTION_VERSION).parse().ok()?;
        Some((self.text(header::FUNCTION), version)).filter(|(function, _)| !function.is_empty())
    }

    fn has_code(&self, codes: &[&str]) -> bool {
        codes.contains(&self.text(header::ERROR_CODE))
    }

    /// Whether no change could make it fit.
    pub(super) fn is_never_fit(&self) -> bool {
        self.has_code(&[RowCode::InvalidRecord.as_str(), RowCode::CopyTooLarge.as_str()])
    }

    /// Whether it failed on the type of a field, so that the table says whether it would again.
    pub(super) fn is_about_types(&self) -> bool {
        self.has_code(&[
            RowCode::ColumnConflict.as_str(),
            IngestCode::TypeConflict.as_str(),
        ])
    }

    /// Calls `look` with the row that the letter holds, or that its event is without functions.
    pub(super) fn with_row<T>(&self, look: impl FnOnce(&Row<'_>) -> T) -> Option<T> {
        let id = RowId {
            identity: self.text(header::ID).parse().ok()?,
            sub: self.text(header::SUB).parse().unwrap_or(0),
        };
        let value = &self.record.value;
        if let Ok(held) = RowPayload::read(value) {
            let origin = &held.origin;
            return Some(look(&Row {
                id,
                received_at: origin.received_at,
                sent_at: origin.sent_at,
                source: origin.source.as_str(),
                workspace: origin.workspace.as_str(),
                message_id: origin.message_id.as_str(),
                event: held.output.event,
            }));
        }
        let ingest = Ingest::read(value).ok()?;
        Some(look(&Row {
            id,
            received_at: ingest.received_at,
            sent_at: ingest.sent_at,
            source: ingest.source.as_str(),
            workspace: ingest.workspace.as_str(),
            message_id: ingest.message_id.as_str(),
            event: ingest.event,
        }))
    }

    /// How the audit trail names it.
    pub(super) fn entry(&self) -> replays::Letter {
        replays::Letter {
            partition: self.partition,
            offset: self.record.offset,
            event: self.text(header::ID).to_owned(),
            attempt: self.attempt() + 1,
            workspace: self.workspace().to_owned(),
            code: self.text(header::ERROR_CODE).to_owned(),
        }
    }

    fn attempt(&self) -> u32 {
        self.text(header::ATTEMPT).parse().unwrap_or(0)
    }

    pub(super) fn is_wanted(&self, wanted: &Letters) -> bool {
        let is =
            |name, wanted: &Option<String>| wanted.as_ref().is_none_or(|wanted| wanted == self.text(name));
        (wanted.places.is_empty() || wanted.places.contains(&self.place()))
            && is(header::WORKSPACE, &wanted.workspace)
            && is(header::ERROR_CODE, &wanted.code)
            && is(header::FUNCTION, &wanted.function)
            && wanted.since.is_none_or(|since| self.failed_at() >= since)
            && wanted.until.is_none_or(|until| self.failed_at() < until)
    }

    /// Workspace, stage, code and function.
    pub(super) fn group(&self) -> [String; 4] {
        [
            header::WORKSPACE,
            header::STAGE,
            header::ERROR_CODE,
            header::FUNCTION,
        ]
        .map(|name| self.text(name).to_owned())
    }

    pub(super) fn summary(&self) -> Value {
        json!({
            "at": self.place().to_string(),
            "failed_at": self.failed_at().to_string(),
            "workspace": self.text(header::WORKSPACE),
            "stage": self.text(header::STAGE),
            "code": self.text(header::ERROR_CODE),
            "message": self.text(header::ERROR_MESSAGE),
            "field": self.text(header::ERROR_FIELD),
            "function": self.text(header::FUNCTION),
            "function_version": self.text(header::FUNCTION_VERSION),
            "id": self.text(header::ID),
            "attempt": self.text(header::ATTEMPT),
            "table": self.text(header::TABLE),
        })
    }

    /// Everything: headers, key and value, JSON as JSON.
    pub(super) fn whole(&self) -> Value {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = self.record.headers.iter();
        let headers: serde_json::Map<String, Value> = headers
            .map(|(name, value)| (name.to_owned(), text(value).into()))
            .collect();
        let value = &self.record.value;
        let value: Value = serde_json::from_slice(value).unwrap_or_else(|_| text(value).into());
        let key = self.record.key.as_deref().map(text);
        json!({ "at": self.place().to_string(), "key": key, "headers": headers, "value": value })
    }

    /// The copy that sends it round, due at once: one attempt more, under the same identity.
    pub(super) fn copy(&self, now: Timestamp) -> Result<Outgoing, Unfit> {
        let identity: Identity = self.text(header::ID).parse().map_err(|_| Unfit::NoIdentity)?;
        let attempt = self.attempt() + 1;
        let value = &self.record.value;
        let sub: Option<u16> = self.text(header::SUB).parse().ok();
        let table = Some(self.text(header::TABLE)).filter(|table| !table.is_empty());
        let row = table.zip(sub);
        let reads = match row {
            Some(_) => RowPayload::read(value).is_ok(),
            None => Ingest::read(value).is_ok(),
        };
        let payload: &RawValue = match serde_json::from_slice(value) {
            Ok(payload) if reads => payload,
            _ => return Err(Unfit::NoEnvelope),
        };
        let reason = Reason {
            code: Text::from(self.text(header::ERROR_CODE)),
            message: Text::from(self.text(header::ERROR_MESSAGE)),
            field: None,
            function: None,
            function_version: None,
            stack: None,
        };
        let stage = if row.is_some() {
            Stage::Bulker
        } else {
            Stage::Rotor
        };
        let retry = Retry {
            version: V1,
            stage,
            attempt,
            due_at: now,
            resume: None,
            reason,
            table: row.map(|(table, _)| Text::from(table)),
            sub,
            payload,
        };
        let mut headers = Headers::new()
            .with(header::ID, identity.to_string())
            .with(header::ATTEMPT, attempt.to_string())
            .with(header::STAGE, stage.as_str())
            .with(header::WORKSPACE, self.text(header::WORKSPACE))
            .with(header::DUE_AT, now.to_string());
        if let Some((table, sub)) = row {
            headers = headers
                .with(header::TABLE, table)
                .with(header::SUB, sub.to_string());
        }
        if let Some(trace) = self.record.headers.get(header::TRACEPARENT) {
            headers.push(header::TRACEPARENT, trace);
        }
        Ok(Outgoing {
            key: self.record.key.as_deref().map(<[u8]>::to_vec),
            value: retry.to_bytes(),
            headers,
        })
    }
}
