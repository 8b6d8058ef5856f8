//! The bulker: carries out what the transformed log decided, exactly once.
//!
//! ```text
//! consume ──► partition ──► gather ──► sort ──► write ──► commit
//!   (group)    (ledger)      (chunk)   (decide)  tables, then copies
//! ```
//!
//! Each assigned partition is a task of its own with its own ledger. A chunk's plan is committed before
//! anything of it is written, and its offset only after ClickHouse and Kafka have answered for all of it. After
//! anything uncertain the table is asked what it holds. While a chunk is written the next one is gathered; what all
//! partitions hold together is bounded. `docs/delivery.md` has the whole argument.
//!
//! Beside it, and apart from it, [`accounts`] fills the tables of requests and log lines.

pub mod accounts;
pub mod audit;
pub mod claim;
pub mod config;
pub mod consume;
pub mod copies;
pub mod credentials;
pub mod destinations;
pub mod error;
pub mod gather;
pub mod metrics;
pub mod pace;
pub mod partition;
pub mod room;
pub mod sort;
pub mod watch;
pub mod write;

pub use config::Configuration;
pub use consume::run;
