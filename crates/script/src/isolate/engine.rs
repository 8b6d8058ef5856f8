//! A bare isolate: how much memory it may have, and which of deno_core's ops work in it.

#[cfg(feature = "engine-v8")]
use deno_core::error::prepare_stack_trace_callback;
use deno_core::{Extension, JsRuntime, OpDecl, RuntimeOptions, v8};
use millrace_event::FunctionCode;
use millrace_event::frame::{Fault, Limits};

use super::snapshot;

/// In front of the names of our own scripts.
#[cfg(feature = "engine-v8")]
const OWN_SCRIPTS: &str = "millrace:";

/// What the young generation has from the start, in bytes: three times one of its halves. Nearly everything that an
/// event makes is garbage when it is done, so the engine sees no reason to let it grow, and collects all the more
/// often. Only what is used becomes memory of the process.
#[cfg(feature = "engine-v8")]
const YOUNG_BYTES: usize = 3 * (2 << 20);

/// The only ops of deno_core that keep working: what its own start and event loop call. None of them is reachable from a
/// function, since `Deno` is taken away before one is loaded; the list holds even if one found a way.
const OPS: &[&str] = &[
    "op_dispatch_exception",
    "op_drain_pending_rejections",
    "op_event_loop_has_more_work",
    "op_get_ext_import_meta_proto",
    "op_get_extras_binding_object",
    "op_immediate_check",
    "op_run_microtasks",
    "op_set_captured_bootstrap",
    "op_set_format_exception_callback",
    "op_set_handled_promise_rejection_handler",
    "op_timer_now",
    "op_timer_schedule",
    "op_timer_track",
    "op_timer_untrack",
];

/// Lets the ops in [`OPS`] through and no others. A snapshot must be made with what it is used with.
pub(super) fn gate() -> Extension {
    Extension {
        name: "millrace",
        middleware_fn: Some(Box::new(
            |op: OpDecl| if OPS.contains(&op.name) { op } else { op.disable() },
        )),
        ..Extension::default()
    }
}

fn create_params(limits: &Limits) -> v8::CreateParams {
    let params = v8::CreateParams::default().heap_limits(0, limits.heap_bytes);
    #[cfg(feature = "engine-v8")]
    let params = params.set_initial_young_generation_size_in_bytes(YOUNG_BYTES);
    params
}

/// An isolate with deno_core's own scripts and nothing of ours yet.
///
/// # Errors
/// `configuration`: the engine does not start.
pub(super) fn runtime(limits: &Limits) -> Result<JsRuntime, Fault> {
    let runtime = JsRuntime::try_new(RuntimeOptions {
        extensions: vec![gate()],
        startup_snapshot: snapshot::get(),
        create_params: Some(create_params(limits)),
        ..RuntimeOptions::default()
    })
    .map_err(|error| {
        Fault::new(
            FunctionCode::Configuration,
            format!("the engine did not start: {error}"),
        )
    });
    #[cfg(feature = "engine-v8")]
    let runtime = runtime.map(|mut runtime| {
        runtime
            .v8_isolate()
            .set_prepare_stack_trace_callback(prepare_stack_trace);
        runtime
    });
    runtime
}

/// Gives a stack to whoever looks at one, without the frames of our own scripts: how the host calls a function is not the
/// function's to see.
#[cfg(feature = "engine-v8")]
fn prepare_stack_trace<'s, 'i>(
    scope: &mut v8::PinScope<'s, 'i>,
    error: v8::Local<'s, v8::Value>,
    sites: v8::Local<'s, v8::Array>,
) -> v8::Local<'s, v8::Value> {
    let mut own = Vec::new();
    for index in 0..sites.length() {
        if let Some(site) = sites.get_index(scope, index)
            && !is_ours(scope, site)
        {
            own.push(site);
        }
    }
    let own = v8::Array::new_with_elements(scope, &own);
    prepare_stack_trace_callback(scope, error, own)
}

/// Whether a place in a stack is in a script of ours. Functions never hold such a place itself, so its methods are the
/// engine's.
#[cfg(feature = "engine-v8")]
fn is_ours(scope: &mut v8::PinScope<'_, '_>, site: v8::Local<'_, v8::Value>) -> bool {
    let name = || {
        let site = v8::Local::<v8::Object>::try_from(site).ok()?;
        let key = v8::String::new(scope, "getFileName")?;
        let method = v8::Local::<v8::Function>::try_from(site.get(scope, key.into())?).ok()?;
        Some(method.call(scope, site.into(), &[])?.to_rust_string_lossy(scope))
    };
    name().is_some_and(|name| name.starts_with(OWN_SCRIPTS))
}
