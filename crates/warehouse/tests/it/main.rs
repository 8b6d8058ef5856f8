//! The warehouse against a real ClickHouse: each test has a database of its own.
#![expect(clippy::expect_used, reason = "what a test does not expect ends it")]

mod analytics;
mod counts;
mod encode;
mod evolve;
mod insert;
mod layout;
mod ledger;
mod line;
mod migrate;
mod model;
mod native;
mod place;
mod question;
mod retype;
mod server;
mod settings;
