//! Making an isolate: limits, the few things a function may reach, and the functions themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deno_core::{JsRuntime, v8};
use millrace_event::FunctionCode;
use millrace_event::frame::{self, Fault, Load, MAX_FLIGHT};
use serde_json::value::RawValue;

use super::engine::runtime;
use super::fault::{Described, describe, duration};
use super::native::natives;
use super::promises::{Hooks, Promises, over};
use super::settle::{Settled, settle};
use super::signature::takes_context;
use super::sweep::{Loop, Sweep, begins_to_sweep};
use super::timers::Timers;
use super::typescript::strip;
use super::value::{stringify, text_of};
use super::{Calls, Function, Isolate, OnError, Parts};
use crate::console::Console;
use crate::watchdog::{StopReason, Stopped, Watch, Watchdog};

const BOOTSTRAP: &str = include_str!("bootstrap.js");

/// Gives the Web interfaces, of what [`natives`] gives.
const WEB: &str = include_str!("web.js");

/// Gives what `ctx` reaches outside, of what [`natives`] gives.
const OUTSIDE: &str = include_str!("outside.js");

/// What the heap may grow by after the limit was reached, so that the termination finds room to unwind in.
const HEAP_SLACK: usize = 16 << 20;

/// Log lines kept while code is being loaded.
const LOAD_LOG_LINES: usize = 100;

/// Set when the engine ran out of memory where it cannot throw.
static EXHAUSTED: AtomicBool = AtomicBool::new(false);

/// Whether an isolate of this process ran out of memory in a way that the engine does not come back from.
pub(crate) fn is_exhausted() -> bool {
    EXHAUSTED.load(Ordering::Acquire)
}

/// V8 aborts the process when this returns. It does not: the thread stays here, another one says why the process
/// cannot go on, and whoever owns the process ends it.
#[cfg(feature = "engine-v8")]
extern "C" fn on_out_of_memory(_location: *const std::ffi::c_char, _details: &v8::OomDetails) {
    EXHAUSTED.store(true, Ordering::Release);
    loop {
        std::thread::park();
    }
}

/// `ctx` fields that are the same for every event of a chain.
#[derive(serde::Serialize)]
struct Constants<'a> {
    workspace: &'a str,
    source: &'a str,
    destination: &'a str,
    env: &'a RawValue,
    #[serde(rename = "envFault")]
    env_fault: Option<&'a str>,
}

/// The JavaScript functions that [`BOOTSTRAP`] returns, and one native one.
struct Ground {
    context: v8::Global<v8::Function>,
    retry_after: v8::Global<v8::Function>,
    nothing: v8::Global<v8::Function>,
    stringify: v8::Global<v8::Function>,
    sweep: Loop,
    hooks: Hooks,
}

impl Isolate {
    /// Makes an isolate and loads the functions of one chain version into it.
    ///
    /// # Errors
    /// `compile_error` when a function does not load (imports, no default export, an exception at the top level
    /// included), `wall_limit` or `heap_limit` when loading ran into one.
    ///
    /// # Cancellation
    /// Everything made so far is dropped.
    pub(crate) async fn load(
        load: &Load,
        watchdog: &Watchdog,
        console: &Console,
        calls: &mut Calls,
    ) -> Result<Self, Fault> {
        console.open(None, LOAD_LOG_LINES);
        let mut runtime = runtime(&load.limits)?;
        let stopped = Arc::new(StopReason::default());
        guard_heap(&mut runtime, &stopped);
        let watch = watchdog.watch(runtime.v8_isolate().thread_safe_handle(), Arc::clone(&stopped));
        let limit = Duration::from_millis(load.limits.wall_ms);
        let timers = Timers::default();
        calls.attach(&mut runtime);
        let promises = Promises::new(load.limits.promises);
        let sweep = Sweep::new(
            (watch.clone(), Arc::clone(&stopped)),
            promises.clone(),
            timers.clone(),
            console.clone(),
            load.limits,
        );
        let ground = ground(&mut runtime, load, console, &timers, (&sweep, &promises))?;
        let mut functions = Vec::with_capacity(load.functions.len());
        for (position, source) in load.functions.iter().enumerate() {
            let loaded = function(&mut runtime, &timers, calls, &watch, limit, position, source).await;
            timers.clear();
            calls.clear();
            match (loaded, stopped.get()) {
                (Ok(function), None) => functions.push(function),
                (Err(fault), None) => return Err(named(fault, source)),
                (_, Some(Stopped::Wall | Stopped::Cpu | Stopped::Promises)) => {
                    let text = format!("did not load within {} ms", load.limits.wall_ms);
                    return Err(named(Fault::new(FunctionCode::WallLimit, text), source));
                }
                (_, Some(Stopped::Heap)) => {
                    let text = format!("loading used more than {} bytes of heap", load.limits.heap_bytes);
                    return Err(named(Fault::new(FunctionCode::HeapLimit, text), source));
                }
            }
        }
        let Ground {
            context,
            retry_after,
            nothing,
            stringify,
            sweep: sweep_loop,
            hooks,
        } = ground;
        let sweeping = entered(&mut runtime, |scope| {
            Some(Ok(begins_to_sweep(scope, &functions, &hooks, &promises)))
        })?;
        let parts = Parts {
            functions,
            context,
            retry_after,
            nothing,
            stringify,
            sweep: sweep_loop,
            hooks,
            outputs: load.limits.outputs,
            output_bytes: load.limits.output_bytes,
        };
        Ok(Self {
            parts,
            runtime,
            watch,
            stopped,
            timers,
            console: console.clone(),
            limits: load.limits,
            sweep,
            promises,
            sweeping,
        })
    }
}

fn named(fault: Fault, source: &frame::Function) -> Fault {
    Fault {
        function: Some(source.id.clone()),
        function_version: Some(source.version),
        ..fault
    }
}

fn refused(message: impl Into<String>) -> Fault {
    Fault::new(FunctionCode::CompileError, message)
}

fn guard_heap(runtime: &mut JsRuntime, stopped: &Arc<StopReason>) {
    let stopped = Arc::clone(stopped);
    let isolate = runtime.v8_isolate().thread_safe_handle();
    #[cfg(feature = "engine-v8")]
    runtime.v8_isolate().set_oom_error_handler(on_out_of_memory);
    runtime.add_near_heap_limit_callback(move |current, _initial| {
        stopped.set(Stopped::Heap);
        isolate.terminate_execution();
        current.saturating_add(HEAP_SLACK)
    });
}

/// Clears the global object and prepares what the host calls.
fn ground(
    runtime: &mut JsRuntime,
    load: &Load,
    console: &Console,
    timers: &Timers,
    counted: (&Sweep, &Promises),
) -> Result<Ground, Fault> {
    let failed = |what: String| Fault::new(FunctionCode::Configuration, format!("bootstrap: {what}"));
    let constants = Constants {
        workspace: &load.workspace,
        source: &load.source,
        destination: &load.destination,
        env: &load.environment.0,
        env_fault: load.environment_fault.as_deref(),
    };
    let constants = serde_json::to_string(&constants).map_err(|error| failed(error.to_string()))?;
    let mut script = |name, text: &str| {
        let value = runtime.execute_script(name, text.to_owned());
        value.map_err(|error| failed(error.to_string()))
    };
    let web = script("millrace:web", WEB)?;
    let outside = script("millrace:outside", OUTSIDE)?;
    let bootstrap = script("millrace:bootstrap", BOOTSTRAP)?;
    runtime.op_state().borrow_mut().put(timers.clone());
    deno_core::scope!(scope, runtime);
    v8::tc_scope!(let scope, scope);
    #[cfg(feature = "engine-v8")]
    scope
        .get_current_context()
        .set_allow_generation_from_strings(false);
    let made = prepared(scope, [&web, &outside, &bootstrap], &constants, console, counted);
    made.ok_or_else(|| {
        let text = scope
            .message()
            .map(|message| message.get(scope).to_rust_string_lossy(scope));
        failed(text.unwrap_or_else(|| "gave nothing back".into()))
    })
}

fn prepared(
    scope: &mut v8::PinScope<'_, '_>,
    scripts: [&v8::Global<v8::Value>; 3],
    constants: &str,
    console: &Console,
    (sweep, promises): (&Sweep, &Promises),
) -> Option<Ground> {
    let stringify = stringify(scope)?;
    let [web, outside, bootstrap] =
        scripts.map(|script| v8::Local::<v8::Function>::try_from(v8::Local::new(scope, script)));
    let (web, outside, bootstrap) = (web.ok()?, outside.ok()?, bootstrap.ok()?);
    let write_line = console.function(scope)?;
    let constants = v8::String::new(scope, constants)?;
    let this = v8::undefined(scope).into();
    let natives = natives(scope)?;
    let web = web.call(scope, this, &[natives.into()])?;
    let outside = outside.call(scope, this, &[natives.into()])?;
    let (pending, over) = (
        promises.buffer(scope).into(),
        v8::Function::new(scope, over)?.into(),
    );
    let arguments = [write_line.into(), constants.into(), web, outside, pending, over];
    let made = bootstrap.call(scope, this, &arguments)?;
    let made = v8::Local::<v8::Array>::try_from(made).ok()?;
    let mut functions = Vec::with_capacity(10);
    for index in 0..made.length() {
        let function = v8::Local::<v8::Function>::try_from(made.get_index(scope, index)?).ok()?;
        functions.push(v8::Global::new(scope, function));
    }
    let [
        context,
        retry_after,
        take,
        go,
        marks,
        first,
        made,
        before,
        after,
        settles,
    ] = <[_; 10]>::try_from(functions).ok()?;
    let hooks = Hooks::new([first, made, before, after, settles]);
    let nothing = v8::Function::new(scope, do_nothing)?;
    let [done, settled] = sweep.functions(scope)?;
    Some(Ground {
        context,
        retry_after,
        nothing: v8::Global::new(scope, nothing),
        stringify: v8::Global::new(scope, stringify),
        sweep: Loop {
            take,
            go,
            marks,
            done: v8::Global::new(scope, done),
            settled: v8::Global::new(scope, settled),
        },
        hooks,
    })
}

fn do_nothing(
    _scope: &mut v8::PinScope<'_, '_>,
    _args: v8::FunctionCallbackArguments<'_>,
    _returned: v8::ReturnValue<'_>,
) {
}

/// A module that was compiled and whose evaluation has begun.
struct Begun {
    module: v8::Global<v8::Module>,
    evaluated: v8::Global<v8::Promise>,
}

async fn function(
    runtime: &mut JsRuntime,
    timers: &Timers,
    calls: &mut Calls,
    watch: &Watch,
    limit: Duration,
    position: usize,
    source: &frame::Function,
) -> Result<Function, Fault> {
    let script = format!("function:{position}/{}", source.id);
    let stripped = source.typescript.then(|| strip(&source.code)).transpose()?;
    let code = stripped.as_deref().unwrap_or(&source.code);
    let deadline = watch.arm(limit);
    let begun = entered(runtime, |scope| begin(scope, &script, code))?;
    match settle(runtime, timers, calls, &begun.evaluated, deadline).await {
        Settled::Yes => {}
        Settled::Never => return Err(refused("an await at the top level can never settle")),
        Settled::TooLate => return Err(Fault::new(FunctionCode::WallLimit, "did not load in time")),
    }
    let (
        entry,
        Config {
            on_error,
            timeout,
            in_flight,
        },
    ) = entered(runtime, |scope| exports(scope, &begun))?;
    let takes_context = entered(runtime, |scope| Some(Ok(takes_context(scope, &entry))))?;
    watch.disarm();
    // A copy before each call is dear. A function that finds `RetryError` by another way than its name makes the
    // chain begin at its first function again, which is as right and only slower.
    let keeps = matches!(on_error, OnError::Pass | OnError::Retry) || source.code.contains("RetryError");
    Ok(Function {
        keeps,
        takes_context,
        script,
        id: source.id.clone(),
        version: source.version,
        entry,
        on_error,
        timeout,
        in_flight,
    })
}

/// Enters the isolate; what JavaScript throws is a `compile_error`.
fn entered<T>(
    runtime: &mut JsRuntime,
    work: impl FnOnce(&mut v8::PinScope<'_, '_>) -> Option<Result<T, Fault>>,
) -> Result<T, Fault> {
    deno_core::scope!(scope, runtime);
    v8::tc_scope!(let scope, scope);
    if let Some(done) = work(scope) {
        return done;
    }
    let (exception, message) = (scope.exception(), scope.message());
    match exception {
        Some(exception) => Err(thrown(scope, exception, message)),
        None => Err(refused("the code was stopped or is larger than the engine holds")),
    }
}

fn thrown<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    exception: v8::Local<'s, v8::Value>,
    message: Option<v8::Local<'s, v8::Message>>,
) -> Fault {
    let Described {
        text, line, column, ..
    } = describe(scope, exception, message);
    Fault {
        line,
        column,
        ..refused(text)
    }
}

fn begin(scope: &mut v8::PinScope<'_, '_>, script: &str, code: &str) -> Option<Result<Begun, Fault>> {
    let name = v8::String::new(scope, script)?;
    let origin = v8::ScriptOrigin::new(
        scope,
        name.into(),
        0,
        0,
        false,
        -1,
        None,
        false,
        false,
        true,
        None,
    );
    let code = v8::String::new(scope, code)?;
    let mut source = v8::script_compiler::Source::new(code, Some(&origin));
    let module = v8::script_compiler::compile_module(scope, &mut source)?;
    if module.get_module_requests().length() > 0 {
        return Some(Err(refused("a function cannot import: bundle what it needs")));
    }
    module.instantiate_module(scope, no_import)?;
    let evaluated = module.evaluate(scope)?;
    scope.perform_microtask_checkpoint();
    let Ok(evaluated) = v8::Local::<v8::Promise>::try_from(evaluated) else {
        return Some(Err(refused("the module did not evaluate")));
    };
    let nothing = v8::Function::new(scope, do_nothing)?;
    evaluated.catch(scope, nothing)?;
    Some(Ok(Begun {
        module: v8::Global::new(scope, module),
        evaluated: v8::Global::new(scope, evaluated),
    }))
}

/// Never called: a module with imports is refused before.
fn no_import<'s>(
    _context: v8::Local<'s, v8::Context>,
    _specifier: v8::Local<'s, v8::String>,
    _attributes: v8::Local<'s, v8::FixedArray>,
    _referrer: v8::Local<'s, v8::Module>,
) -> Option<v8::Local<'s, v8::Module>> {
    None
}

type Exports = (v8::Global<v8::Function>, Config);

/// What a function says of itself.
struct Config {
    on_error: OnError,
    timeout: Option<Duration>,
    in_flight: usize,
}

fn exports(scope: &mut v8::PinScope<'_, '_>, begun: &Begun) -> Option<Result<Exports, Fault>> {
    let evaluated = v8::Local::new(scope, &begun.evaluated);
    if evaluated.state() == v8::PromiseState::Rejected {
        let exception = evaluated.result(scope);
        return Some(Err(thrown(scope, exception, None)));
    }
    let module = v8::Local::new(scope, &begun.module);
    let namespace = v8::Local::<v8::Object>::try_from(module.get_module_namespace()).ok()?;
    let key = v8::String::new(scope, "default")?;
    let entry = namespace.get(scope, key.into())?;
    let Ok(entry) = v8::Local::<v8::Function>::try_from(entry) else {
        return Some(Err(refused("the default export is not a function")));
    };
    let entry = v8::Global::new(scope, entry);
    let key = v8::String::new(scope, "config")?;
    let config = namespace.get(scope, key.into())?;
    let Ok(config) = v8::Local::<v8::Object>::try_from(config) else {
        let config = Config {
            on_error: OnError::DeadLetter,
            timeout: None,
            in_flight: 1,
        };
        return Some(Ok((entry, config)));
    };
    let on_error = match text_of(scope, config, "onError")?.as_deref() {
        None | Some("dead-letter") => OnError::DeadLetter,
        Some("retry") => OnError::Retry,
        Some("drop") => OnError::Drop,
        Some("pass") => OnError::Pass,
        Some(_) => {
            return Some(Err(refused(
                "config.onError must be \"dead-letter\", \"retry\", \"pass\" or \"drop\"",
            )));
        }
    };
    let timeout = match text_of(scope, config, "timeout")? {
        None => None,
        Some(text) => match duration(&text) {
            Some(timeout) if !timeout.is_zero() => Some(timeout),
            _ => {
                return Some(Err(refused(
                    "config.timeout must be a duration such as \"250ms\" or \"2s\"",
                )));
            }
        },
    };
    let in_flight = match text_of(scope, config, "inFlight")? {
        None => 1,
        Some(text) => match text.parse() {
            Ok(most @ 1..=MAX_FLIGHT) => most,
            _ => {
                let text = format!("config.inFlight must be a whole number between 1 and {MAX_FLIGHT}");
                return Some(Err(refused(text)));
            }
        },
    };
    let config = Config {
        on_error,
        timeout,
        in_flight,
    };
    Some(Ok((entry, config)))
}
