//! The event and its rules, shared by every stage: identity, envelopes, headers, codes, names.
//!
//! This crate is pure: no I/O, no clock, no runtime. Services never depend on each other; they meet in Kafka
//! and in the types of this crate. Forms defined here cross process boundaries, so they change by version and
//! never in place; golden bytes for each live in `schemas/`.

pub mod code;
pub mod destination;
pub mod envelope;
pub mod flatten;
pub mod frame;
pub mod header;
pub mod identity;
pub mod json;
pub mod partition;
pub mod redact;
pub mod time;
pub mod topic;

pub use code::{FunctionCode, IngestCode, KeyKind, Verdict};
pub use identity::{Identity, JournalId};
pub use time::Timestamp;
