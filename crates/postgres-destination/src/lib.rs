//! PostgreSQL as a destination of rows: its tables, and the way in.
//!
//! - [`layout`]: the event table as DDL, its types, and the check that refuses a table which could hold a row twice;
//! - [`encode`]: events become rows of a binary `COPY`, by the same rules that make ClickHouse's columns of them;
//! - [`insert`]: one block, one transaction: the owner's fence, the block's token, the rows;
//! - [`question`]: which rows a table holds;
//! - [`fence`]: an owner that takes a partition over waits for what its predecessor began, and ends what it would begin.
//!
//! What makes it exactly once is the unique index over a row's identity: no two transactions, whoever they are, put one
//! row into a table twice. Token and fence are there so that a repeated block is known without a question, and so that
//! nobody's late block arrives after its successor has decided otherwise.
//!
//! This crate does not decide what is written when. It never sends a block a second time by itself, and never changes
//! a value to make it fit: what PostgreSQL cannot hold (a NUL character, a name of more than 63 bytes) goes to `extra`
//! or is refused with its field.
//!
//! Bounds: [`Config::connections`] connections to each destination, [`encode::MOST_BLOCK_BYTES`] for each block that is
//! ready to be sent, and all blocks of one chunk at a time.

pub mod client;
pub mod encode;
pub mod error;
pub mod fence;
pub mod insert;
pub mod layout;
mod own;
pub mod question;
mod sql;

pub use client::{Config, Line, Postgres};
pub use encode::{Block, Encoded};
pub use error::{Error, Unfit};
pub use insert::{Insert, Outcome};
