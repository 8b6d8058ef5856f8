//! The ClickHouse side of the bulker: what a row looks like, how tables follow the events, and the way in.
//!
//! - [`layout`]: the event table as DDL, and the check that refuses a table which would break exactly-once;
//! - [`counts`]: live counts beside it, by the minute;
//! - [`retype`]: a column moves to another type while events go on;
//! - [`share`]: what a workspace sees of a table that it shares with others;
//! - [`batch`]: events become columns, straight from their JSON text, without a tree in between;
//! - [`native`]: columns become one Native block;
//! - [`evolve`]: unknown columns are added, and what the table then says is what counts;
//! - [`insert`]: one block, one request, one of three outcomes;
//! - [`question`]: which identities a table holds, and `KILL QUERY`;
//! - [`outcomes`] and [`journals`]: the bulker's own tables, made by [`migrate`];
//! - [`system`] and [`replays`]: what services and people did, in tables beside them.
//!
//! This crate does not decide what is written when: plans, tokens and retries belong to its caller. It never
//! sends a request a second time by itself, never converts a value to make it fit, and never calls an insert
//! "not applied" on the strength of an error that came after the connection stood.

pub mod batch;
pub mod client;
pub mod column_type;
pub mod counts;
pub mod error;
pub mod evolve;
mod fixed;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod insert;
pub mod journals;
pub mod layout;
pub mod line;
pub mod migrate;
pub mod name;
pub mod native;
pub mod outcomes;
pub mod question;
mod rehearsal;
pub mod replays;
pub mod retype;
pub mod sample;
pub mod schema;
pub mod share;
pub mod system;
mod value;
mod views;

pub use batch::{AsRow, Batch, Block, Limits, Row, RowError, RowErrorKind, RowId};
pub use client::{Config, Turn, Turns, Warehouse};
pub use error::{Code, CodeClass, Error, Retry};
pub use evolve::Encoded;
pub use insert::{Insert, Outcome};
pub use layout::{Codecs, Layout};
pub use line::Line;
pub use name::{Database, TableName};
pub use retype::Retype;
pub use schema::{ColumnSpec, Dialect, Schema};
