//! What a submission comes to.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use millrace_event::IngestCode;
use millrace_store::keys::Key;

use super::Kind;

/// Why a submission or an event was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// The code, of the closed list.
    pub code: IngestCode,
    /// What to do about it, for a person. Never a value of the event.
    pub message: Cow<'static, str>,
    /// The field at fault, when there is one.
    pub field: Option<Cow<'static, str>>,
    /// When a limit that was met gives way, where that is known.
    pub reset: Option<Duration>,
}

impl Refusal {
    /// A refusal without a field.
    pub fn new(code: IngestCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            field: None,
            reset: None,
        }
    }

    /// A refusal because of `field`.
    pub fn of_field(
        code: IngestCode,
        field: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            code,
            message: message.into(),
            field: Some(field.into()),
            reset: None,
        }
    }

    pub(crate) fn draining() -> Self {
        Self::new(
            IngestCode::Draining,
            "the gateway is shutting down, send it again",
        )
    }

    pub(crate) fn empty() -> Self {
        Self::new(IngestCode::InvalidJson, "there is no event")
    }
}

/// What became known of a submission on its way, whatever became of it: for logs and accounts.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    /// The key, once it was admitted.
    pub key: Option<Arc<Key>>,
    /// The message id of the first event.
    pub message_id: Option<String>,
    /// The type of the first event.
    pub kind: Option<Kind>,
    /// How many events there were.
    pub events: usize,
}

/// An event of a batch that was refused while others were not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its place in the batch.
    pub index: usize,
    /// Its id, where it had one.
    pub message_id: Option<String>,
    /// Why.
    pub refusal: Refusal,
}

/// A submission that was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Events that are in the journal.
    pub accepted: usize,
    /// Copies of events that were accepted before, or earlier in the same submission.
    pub duplicates: usize,
    /// Events refused, each alone.
    pub rejected: Vec<Rejected>,
}

/// What is wrong with one event.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) message_id: Option<String>,
    pub(super) refusal: Refusal,
}

impl Fault {
    pub(super) fn at(self, index: usize) -> Rejected {
        Rejected {
            index,
            message_id: self.message_id,
            refusal: self.refusal,
        }
    }
}
