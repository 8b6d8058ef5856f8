//! Starts the bulker.

use std::process::ExitCode;

use millrace_service::About;

/// Every record is read on one thread and freed on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    millrace_service::run(
        About::new("millrace-bulker", env!("CARGO_PKG_VERSION")),
        millrace_bulker::run,
    )
}
