//! The real pipeline under random faults and load, and the oracle that judges it.
//!
//! ```text
//! load ──► ingest ──► Kafka ──► rotor ──► Kafka ──► bulker ──► ClickHouse
//!   │         ▲ faults: SIGKILL, SIGSTOP past the session, failpoints, members that come and go, servers killed
//!   └──────────────────────────────► verdict: logs and tables against what was answered
//! ```
//!
//! Broker and ClickHouse are the run's own; Postgres and Redis are the stack's. The choice of faults follows from the
//! seed, their moment against the events does not: a seed that went wrong once need not do so again.

pub mod fate;
pub mod faults;
pub mod load;
pub mod run;
mod stages;
pub mod verdict;

pub use run::{Options, Progress, run};
pub use verdict::Report;
