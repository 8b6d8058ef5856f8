//! How long an event takes from its acknowledgement to being found by a query, through the real pipeline: with many
//! active workspaces, and with broken ones beside sound ones.

mod phase;
mod places;
mod run;
pub mod table;

pub use run::{Options, run};
pub use table::Measured;
