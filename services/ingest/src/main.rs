//! Starts the ingest service.

use std::process::ExitCode;

use millrace_service::About;

fn main() -> ExitCode {
    let about = About::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    millrace_service::run(about, millrace_ingest::serve)
}
