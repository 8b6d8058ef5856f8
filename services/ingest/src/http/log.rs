//! One line for each request. Never a payload of what was taken, never a secret.

use std::time::Duration;

use bytes::Bytes;

use super::redact::Redaction;
use crate::pipeline::{Accepted, Refusal, Rejected, Trail};

/// Most rejected events of one request that have a line of their own.
const REJECTED: usize = 10;
/// Most bytes of a path that leads nowhere.
const PATH: usize = 120;

/// What became of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Events were taken, some perhaps rejected.
    Taken(Accepted),
    /// Nothing was taken.
    Refused(Refusal),
    /// There was nothing to take.
    Answered,
}

/// A request that was answered.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) endpoint: &'a str,
    /// As sent, where it led nowhere.
    pub(super) path: &'a str,
    pub(super) request_id: &'a str,
    pub(super) status: u16,
    pub(super) elapsed: Duration,
    pub(super) trail: &'a Trail,
    pub(super) body: Option<&'a Bytes>,
}

impl Entry<'_> {
    pub(super) fn write(&self, outcome: &Outcome, redaction: &Redaction) {
        match outcome {
            Outcome::Taken(accepted) => {
                self.taken(accepted);
                for rejected in accepted.rejected.iter().take(REJECTED) {
                    self.rejected(rejected, redaction);
                }
            }
            Outcome::Refused(refusal) => self.refused(refusal, redaction),
            Outcome::Answered => tracing::debug!(
                target: "millrace_ingest::access",
                endpoint = self.endpoint,
                request_id = self.request_id,
                status = self.status,
                duration_ms = self.duration_ms(),
                "request answered"
            ),
        }
    }

    fn taken(&self, accepted: &Accepted) {
        let key = self.trail.key.as_deref();
        tracing::debug!(
            target: "millrace_ingest::access",
            endpoint = self.endpoint,
            request_id = self.request_id,
            workspace_id = key.map(|key| key.workspace.as_str()),
            source_id = key.map(|key| key.source.as_str()),
            api_key_id = key.map(|key| key.id.as_str()),
            message_id = self.trail.message_id.as_deref(),
            event_type = self.trail.kind.map(crate::pipeline::Kind::as_str),
            events = self.trail.events,
            accepted = accepted.accepted,
            duplicates = accepted.duplicates,
            rejected = accepted.rejected.len(),
            status = self.status,
            duration_ms = self.duration_ms(),
            "events taken"
        );
    }

    fn rejected(&self, rejected: &Rejected, redaction: &Redaction) {
        let key = self.trail.key.as_deref();
        let refusal = &rejected.refusal;
        tracing::info!(
            target: "millrace_ingest::access",
            endpoint = self.endpoint,
            request_id = self.request_id,
            workspace_id = key.map(|key| key.workspace.as_str()),
            source_id = key.map(|key| key.source.as_str()),
            message_id = rejected.message_id.as_deref(),
            index = rejected.index,
            code = refusal.code.as_str(),
            field = refusal.field.as_deref(),
            reason = %refusal.message,
            payload = self.payload(redaction, Some(rejected.index)),
            "event rejected"
        );
    }

    fn refused(&self, refusal: &Refusal, redaction: &Redaction) {
        let key = self.trail.key.as_deref();
        let lost = refusal.code == millrace_event::IngestCode::NotFound;
        tracing::info!(
            target: "millrace_ingest::access",
            endpoint = self.endpoint,
            path = lost.then(|| masked(self.path)),
            request_id = self.request_id,
            workspace_id = key.map(|key| key.workspace.as_str()),
            source_id = key.map(|key| key.source.as_str()),
            message_id = self.trail.message_id.as_deref(),
            code = refusal.code.as_str(),
            field = refusal.field.as_deref(),
            reason = %refusal.message,
            payload = self.payload(redaction, None),
            status = self.status,
            duration_ms = self.duration_ms(),
            "request refused"
        );
    }

    fn payload(&self, redaction: &Redaction, item: Option<usize>) -> Option<String> {
        redaction.payload(self.body?, item)
    }

    fn duration_ms(&self) -> f64 {
        self.elapsed.as_secs_f64() * 1e3
    }
}

/// A path without what may be the secret of a key, which follows a colon.
fn masked(path: &str) -> String {
    let mut masked = String::new();
    for part in path.split_inclusive('/') {
        let end = [":", "%3A", "%3a"]
            .iter()
            .filter_map(|colon| part.find(colon))
            .min();
        match end.and_then(|end| part.get(..end)) {
            Some(kept) => {
                masked.push_str(kept);
                masked.push_str(":[masked]");
                masked.push_str(if part.ends_with('/') { "/" } else { "" });
            }
            None => masked.push_str(part),
        }
        if masked.len() > PATH {
            return masked.chars().take(PATH).collect();
        }
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::masked;

    #[test]
    fn a_secret_in_a_path_is_masked() {
        assert_eq!(
            masked("/v2/projects/wk_a:s3cret/settings"),
            "/v2/projects/wk_a:[masked]/settings"
        );
        assert_eq!(masked("/x/wk_a%3As3cret"), "/x/wk_a:[masked]");
        assert_eq!(masked("/v2/batch"), "/v2/batch");
        assert_eq!(masked(&"/a".repeat(10_000)).len(), super::PATH);
    }
}
