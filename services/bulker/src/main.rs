//! Starts the bulker.

use std::process::ExitCode;

use millrace_service::About;

fn main() -> ExitCode {
    millrace_service::run(
        About::new("millrace-bulker", env!("CARGO_PKG_VERSION")),
        millrace_bulker::run,
    )
}
