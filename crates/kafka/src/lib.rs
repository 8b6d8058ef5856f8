//! Kafka as Millrace uses it: the only crate that names a Kafka client.
//!
//! Each client where it is strong. [`edge`] produces from the gateway's journal, in two requests of the protocol
//! that it speaks itself: one stream of batches per partition, no process-wide queue, no C library on the path of an
//! answer. [`group`] consumes and [`producer`] republishes with librdkafka, which has consumer groups, commit metadata
//! and idempotence. [`bounds`] asks where logs begin and end, with rskafka: from the runtime, without a thread.
//!
//! Nothing here knows what is in a record.

pub mod bounds;
pub mod config;
pub mod edge;
pub mod error;
pub mod group;
pub mod notes;
pub mod offsets;
pub mod producer;
pub mod reader;
pub mod record;
mod slab;
pub mod topics;

pub use config::Connection;
pub use error::Error;
pub use record::{Outgoing, Record};
