//! Starts the ingest service.

use std::process::ExitCode;

use millrace_service::About;

/// Bodies, envelopes and groups are large, short-lived and freed on other threads than they were made on: the
/// system's allocator spends a quarter of a batch's CPU on merging and splitting them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let about = About::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    millrace_service::run(about, millrace_ingest::serve)
}
