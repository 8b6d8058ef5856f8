//! The engine without any protection: what the protection costs is measured against it.
//!
//! One isolate on the thread that made it, no limits, no watchdog, nothing between the text and the function. It is
//! for benchmarks; code that somebody else wrote does not belong here.

use deno_core::{JsRuntime, RuntimeOptions, v8};

/// A function in an isolate of its own.
pub struct Bare {
    // The handle goes before the runtime it belongs to.
    run: v8::Global<v8::Function>,
    runtime: JsRuntime,
}

impl std::fmt::Debug for Bare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bare").finish_non_exhaustive()
    }
}

impl Bare {
    /// Starts the engine and loads `code`, a function expression of one event. Needs an entered Tokio runtime.
    ///
    /// # Errors
    /// The code does not load; with what the engine says.
    pub fn new(code: &str) -> Result<Self, String> {
        let mut runtime = JsRuntime::new(RuntimeOptions::default());
        let script = format!(
            "(() => {{ const f = {code}; \
             return (text) => JSON.stringify(JSON.parse(text).map((event) => f(event, {{}}) ?? event)); }})()"
        );
        let made = runtime.execute_script("bare", script);
        let made = made.map_err(|error| error.to_string())?;
        let run = function(&mut runtime, &made)?;
        Ok(Self { run, runtime })
    }

    /// The JSON text of an array of events, through the function one by one, and back as text; `None` when the
    /// function threw or the engine has no room.
    pub fn run(&mut self, events: &str) -> Option<String> {
        deno_core::scope!(scope, self.runtime);
        let text = v8::String::new(scope, events)?;
        let this = v8::undefined(scope).into();
        let text = v8::Local::new(scope, &self.run).call(scope, this, &[text.into()])?;
        Some(text.to_rust_string_lossy(scope))
    }
}

fn function(
    runtime: &mut JsRuntime,
    made: &v8::Global<v8::Value>,
) -> Result<v8::Global<v8::Function>, String> {
    deno_core::scope!(scope, runtime);
    let made = v8::Local::new(scope, made);
    let run = v8::Local::<v8::Function>::try_from(made).map_err(|error| error.to_string())?;
    Ok(v8::Global::new(scope, run))
}
