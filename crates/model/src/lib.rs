//! The way from journal to table as a simulation: the real ledger against a log, a group and tables that do
//! everything that real ones were seen to do.
//!
//! A run is a function of its seed. Pods append, ship and die; a rotor whose functions change their mind makes one
//! record of each; two bulkers take turns, are stopped, continued and killed at every step; inserts are applied
//! and answered with an error, outlive their client, or find their token forgotten; tables fail and mend. Then
//! the faults stop, everything runs dry, and the [`oracle`] says whether each event is where it belongs, once.
//!
//! The bulker's shell here is the service's without its clients: the same calls of [`millrace_ledger`] in the same
//! order. A [`Control`] switches one protection off; a run under it is expected to go wrong.
//!
//! Modelled are one partition and its months. Not modelled: other partitions, views, schema changes, rewinds.

mod bulker;
mod control;
mod executor;
mod gateway;
mod oracle;
mod random;
mod rotor;
mod run;
mod warehouse;
mod world;

pub use control::Control;
pub use oracle::Violation;
pub use run::{Stats, run};
