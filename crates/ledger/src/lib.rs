//! Exactly once as a state machine: what was settled, what is planned, what counts as a duplicate.
//!
//! The state of one partition of the transformed topic lives in Kafka's own offset commit. The committed
//! offset H says that everything below it is settled; the commit's metadata, [`Metadata`], holds the plan that
//! is being carried out above H and the watermarks as of H. [`Ledger`] takes records in the order of the log
//! and says of each whether to take it; it does no I/O, so that it can be run against every fault in memory.
//! [`Passage`] is the rotor's part: when it may commit what it has read.

pub mod ledger;
pub mod metadata;
pub mod passage;
pub mod rows;
pub mod token;
pub mod watermark;

pub use ledger::{
    Arrival, Assigned, Capacity, Decision, Fate, Leaving, Ledger, Place, Recovery, Settlement, Stop,
};
pub use metadata::{BadRow, Metadata, MetadataError, Plan};
pub use passage::Passage;
pub use rows::Rows;
pub use token::Token;
pub use watermark::Watermark;
