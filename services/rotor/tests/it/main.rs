//! The rotor with its real binary; what reads or writes Kafka needs the local stack.
#![expect(clippy::expect_used, reason = "a test fails where its ground does")]

mod alone;
mod api;
mod fetch;
mod ground;
mod neighbours;
mod outages;
mod outside;
mod pool;
mod reach;
mod refused;
mod region;
mod restore;
mod route;
mod sandbox;
mod service;

use millrace_testkit::process::children;

/// The binary under test.
const BINARY: &str = env!("CARGO_BIN_EXE_millrace-rotor");
