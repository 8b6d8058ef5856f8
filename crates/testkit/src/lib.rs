//! For tests: clients of the local stack, unique names, real binaries, the oracle.
//!
//! The addresses of the stack come from the environment, as `./dev test` and `./dev env` set it. A part that is
//! not there is an error, never a skipped test. Everything made here is bounded in time and gone when it is
//! dropped.

pub mod broker;
pub mod clickhouse;
pub mod http;
pub mod mmdb;
pub mod oracle;
pub mod otlp;
pub mod patient;
pub mod pipeline;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod server;
pub mod stack;
pub mod tls;
pub mod wait;
