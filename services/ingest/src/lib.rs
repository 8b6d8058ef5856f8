//! The gateway: takes events over a Segment-compatible HTTP API and keeps what it answered with 200.
//!
//! `http` reads requests and writes answers, `pipeline` holds the rules and knows no HTTP, `journal` keeps
//! events on disk, `ship` moves them to Kafka. An answer waits for the journal and never for Kafka; Kafka,
//! Postgres and Redis may all be away while events are taken under keys that are known.

pub mod config;
pub mod http;
pub mod journal;
mod metrics;
pub mod pipeline;
mod service;
mod ship;
mod usage;

pub use config::Config;
pub use service::serve;
