//! The edge: reads requests within limits, hands them to the pipeline, writes answers.
//!
//! Nothing here decides about events, and nothing behind it knows a status code.

mod answer;
mod body;
mod coding;
mod config;
mod cors;
mod credential;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod handle;
mod log;
mod memory;
mod peer;
mod pixel;
mod query;
mod redact;
mod route;
mod server;
mod settings;

pub use config::Config;
pub use server::Server;

pub(crate) use handle::Handler;
