//! The way from journal to table as a simulation: the real ledger against a log, a group and tables that do
//! everything that real ones were seen to do.
//!
//! A run is a function of its seed. Pods append, ship and die, and forget message ids when their time is over; a rotor whose
//! functions change their mind makes one record of each; two bulkers share two partitions, which move between them one at
//! a time, and are stopped, continued and killed at every step; inserts are applied and answered with an error, outlive
//! their client, or find their token forgotten; tables fail and mend, some later than a row may wait. Then the faults stop,
//! everything runs dry, and the [`oracle`] says whether each event is where it belongs, once.
//!
//! The bulker's shell here is the service's without its clients: the same calls of [`millrace_ledger`] in the same
//! order. A [`Control`] switches one protection off; a run under it is expected to go wrong.
//!
//! The clock is the count of steps. It decides what is silent for too long, which connection is too old, and what is
//! forgotten: message ids, reservations, tokens. Two partitions stand for all, because partitions are alike, no record
//! leaves its own, and what they share (members, tables, tokens, the store of watermarks) one finds changed by another in
//! the same way however many others there are. Not modelled: schema changes, moves of columns, retention.
//!
//! Files use those below them only: words (`record`, `control`, `random`, `stats`), what outlives processes
//! (`server`, `pods`, `world`), what processes and servers do (`warehouse`, `gateway`, `rotor`, `bulker`), and
//! the run with its [`oracle`].

mod bulker;
mod control;
mod executor;
mod gateway;
mod oracle;
mod pods;
mod random;
mod record;
mod rotor;
mod run;
mod server;
mod stats;
mod warehouse;
mod world;

pub use control::Control;
pub use oracle::Violation;
pub use run::run;
pub use stats::Stats;
