//! Kafka as Millrace uses it: the only crate that names a Kafka client.
//!
//! Two clients, each where it is strong. [`edge`] produces from the gateway's journal, in two requests of the protocol
//! that it speaks itself: one stream of batches per partition, no process-wide queue, no C library on the path of an
//! answer. [`group`] consumes and [`producer`] republishes with librdkafka, which has consumer groups, commit metadata
//! and idempotence.
//!
//! Nothing here knows what is in a record.

pub mod config;
pub mod edge;
pub mod error;
pub mod group;
pub mod notes;
pub mod offsets;
pub mod producer;
pub mod reader;
pub mod record;
pub mod topics;

pub use config::Connection;
pub use error::Error;
pub use record::{Outgoing, Record};
