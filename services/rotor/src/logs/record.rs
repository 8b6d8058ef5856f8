//! A line as it stands in the topic: `functions.log.v1` of `schemas/functions`.

use millrace_event::frame::LogLevel;
use millrace_event::header::Headers;
use millrace_event::{Identity, Timestamp};
use millrace_kafka::Outgoing;
use serde::Serialize;

use super::Line;

#[derive(Serialize)]
struct Record<'a> {
    version: u32,
    workspace: &'a str,
    source: &'a str,
    destination: &'a str,
    chain: &'a str,
    chain_version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function_version: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Identity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    level: LogLevel,
    message: &'a str,
    timestamp: Timestamp,
    #[serde(skip_serializing_if = "is_zero")]
    discarded: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Line {
    pub(super) fn record(&self) -> Outgoing {
        let load = self.chain.load();
        let functions = load.functions.as_slice();
        // Where a chain has several and the line does not say which, none is named.
        let function = match (self.line.position, functions) {
            (Some(position), functions) => usize::try_from(position).ok().and_then(|at| functions.get(at)),
            (None, [only]) => Some(only),
            (None, _) => None,
        };
        let about = self.about.as_ref();
        let record = Record {
            version: 1,
            workspace: &load.workspace,
            source: &load.source,
            destination: &load.destination,
            chain: &load.chain,
            chain_version: load.version,
            function: function.map(|function| function.id.as_str()),
            function_version: function.map(|function| function.version),
            id: about.map(|about| about.identity),
            message_id: about.map(|about| about.message_id.as_str()),
            attempt: about.map(|about| about.attempt),
            level: self.line.level,
            message: &self.line.message,
            timestamp: self.at,
            discarded: self.discarded,
        };
        Outgoing {
            key: Some(load.workspace.as_bytes().to_vec()),
            // Plain strings and numbers: there is nothing in it that JSON lacks.
            value: serde_json::to_vec(&record).unwrap_or_default(),
            headers: Headers::new(),
        }
    }
}
