//! The real `millctl` against real servers; each test has a database, a ClickHouse database and topics of its own.
#![expect(clippy::expect_used, reason = "what a test does not expect ends it")]

mod destinations;
mod failures;
mod functions;
mod generate;
mod installation;
mod migrations;
mod postgres_destinations;
mod reach;
mod topics;
mod trials;
mod workspaces;
