//! One dead letter: what its headers say, and the copy that sends it round again.

use std::collections::HashMap;

use millrace_event::code::RowCode;
use millrace_event::envelope::{Envelope as _, Ingest, Reason, Retry, RowPayload, Stage, Text, V1};
use millrace_event::header::{self, Headers};
use millrace_event::{Identity, Timestamp};
use millrace_kafka::{Outgoing, Record};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::cli::Letters;

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

    pub(super) const fn partition(&self) -> u32 {
        self.partition
    }

    pub(super) const fn offset(&self) -> u64 {
        self.record.offset
    }

    /// Its place, `<partition>-<offset>`.
    pub(super) fn at(&self) -> String {
        format!("{}-{}", self.partition, self.record.offset)
    }

    fn text(&self, name: &str) -> &str {
        self.record.headers.text(name).unwrap_or_default()
    }

    /// When it was set aside.
    pub(super) fn failed_at(&self) -> Timestamp {
        let said = self.text(header::FAILED_AT).parse();
        said.unwrap_or_else(|_| Timestamp::clamped_from_millis(self.record.timestamp_ms))
    }

    pub(super) fn has_function(&self) -> bool {
        !self.text(header::FUNCTION).is_empty()
    }

    pub(super) fn is_wanted(&self, wanted: &Letters) -> bool {
        let is =
            |name, wanted: &Option<String>| wanted.as_ref().is_none_or(|wanted| wanted == self.text(name));
        is(header::WORKSPACE, &wanted.workspace)
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
            "at": self.at(),
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
        json!({ "at": self.at(), "key": key, "headers": headers, "value": value })
    }

    /// Whether it would fail again: the version that failed is in force, or its value still has no column.
    pub(super) fn is_pointless(&self, in_force: &HashMap<String, Vec<u32>>) -> bool {
        let failed: Option<u32> = self.text(header::FUNCTION_VERSION).parse().ok();
        let function = in_force.get(self.text(header::FUNCTION));
        let same = function
            .zip(failed)
            .is_some_and(|(versions, failed)| versions.contains(&failed));
        let code = self.text(header::ERROR_CODE);
        same || code == RowCode::ColumnConflict.as_str() || code == RowCode::InvalidRecord.as_str()
    }

    /// The copy that sends it round, due at once: one attempt more, under the same identity.
    pub(super) fn copy(&self, now: Timestamp) -> Result<Outgoing, Unfit> {
        let identity: Identity = self.text(header::ID).parse().map_err(|_| Unfit::NoIdentity)?;
        let failed: u32 = self.text(header::ATTEMPT).parse().unwrap_or(0);
        let attempt = failed + 1;
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
            key: self.record.key.clone(),
            value: retry.to_bytes(),
            headers,
        })
    }
}
