//! `millrace-rotor`: the service, and with `worker` the process that it starts for itself.

mod worker;

use std::process::ExitCode;

use millrace_service::About;

fn main() -> ExitCode {
    if !millrace_service::processor::suffices() {
        return ExitCode::FAILURE;
    }
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == "worker") {
        return worker::main(arguments);
    }
    let about = About::new("millrace-rotor", env!("CARGO_PKG_VERSION"));
    let engine = millrace_script::engine();
    about.set("engine", engine.name);
    about.set("engine_version", engine.version);
    millrace_service::run(about, millrace_rotor::run)
}
