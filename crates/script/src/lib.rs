//! JavaScript functions in isolates; the only crate that names deno_core.
//!
//! A [`Host`] starts the engine. A [`Chain`] holds the functions of one chain version in one isolate on a thread of its own, runs batches of
//! events through them, and gives one [`Outcome`](millrace_event::frame::Outcome) per event. A function sees the
//! event and a small `ctx`; it reaches no file, no network, no process, no op of deno_core and cannot make code
//! from strings. What `ctx` offers beyond that are calls ([`Said::Call`]) that the owner of the process carries out,
//! or not, and answers through [`Replies`].
//!
//! What this crate promises about hostile code is what an engine can promise inside one process: a loop is
//! terminated, a heap that grows is terminated, a promise that cannot settle is noticed, and the isolate is
//! replaced for the rest of the batch. It does **not** promise that the process survives: the engine aborts on
//! some allocations and does not interrupt its own builtins. So chains run in worker processes, and whoever owns
//! the process keeps the last deadline and the memory cap.
#![deny(unsafe_code)]

#[cfg(all(feature = "engine-v8", feature = "engine-quickjs"))]
compile_error!("choose one engine: engine-v8 (default) or engine-quickjs");
#[cfg(not(any(feature = "engine-v8", feature = "engine-quickjs")))]
compile_error!("choose an engine: engine-v8 (default) or engine-quickjs");

mod account;
pub mod bare;
mod batch;
mod chain;
mod console;
mod cpu;
mod host;
mod isolate;
mod lanes;
mod outside;
mod place;
mod watchdog;

pub use chain::{Chain, ChainError, Said};
pub use console::Logged;
pub use host::Host;
pub use outside::Replies;

/// The JavaScript engine of this build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// `v8` or `quickjs`.
    pub name: &'static str,
    /// The engine's own version.
    pub version: String,
}

/// Which engine this build runs functions with. Starts nothing.
pub fn engine() -> Engine {
    let name = if cfg!(feature = "engine-quickjs") {
        "quickjs"
    } else {
        "v8"
    };
    Engine {
        name,
        version: deno_core::v8::VERSION_STRING.to_owned(),
    }
}
