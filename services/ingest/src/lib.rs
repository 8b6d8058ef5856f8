//! The gateway: takes events over a Segment-compatible HTTP API and keeps what it answered with 200.
//!
//! `http` reads requests and writes answers, `pipeline` holds the rules and knows no HTTP. The journal, a crate
//! of its own, keeps events on disk and ships them to Kafka. An answer waits for the journal, and for Kafka only
//! where `journal.accept` says so; Kafka, Postgres and Redis may all be away while events are taken under keys
//! that are known.

pub mod config;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod http;
mod metrics;
pub mod pipeline;
mod service;
mod usage;

pub use config::Config;
pub use service::serve;

pub(crate) use millrace_journal as journal;
