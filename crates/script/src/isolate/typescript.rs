//! TypeScript: types are blanked in place, so that every line and column stays where its author sees it.
//!
//! What needs code of its own (enums, namespaces with values, parameter properties) is refused. The parser runs here,
//! in the worker, because what it reads is as hostile as what it leaves.

use std::sync::{Arc, Mutex, PoisonError};

use millrace_event::FunctionCode;
use millrace_event::frame::Fault;
use swc_common::errors::{DiagnosticBuilder, Emitter, Handler};
use swc_common::sync::Lrc;
use swc_common::{SourceMap, Span};
use swc_ts_fast_strip::{Options, operate};

/// What the parser says, and where.
type Said = (String, Option<Span>);

/// The first thing that the parser complained about.
#[derive(Clone, Default)]
struct Complaint(Arc<Mutex<Option<Said>>>);

impl Emitter for Complaint {
    fn emit(&mut self, diagnostic: &mut DiagnosticBuilder<'_>) {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_none() {
            *first = Some((diagnostic.message(), diagnostic.span.primary_span()));
        }
    }
}

/// The code without its types, every other character in its place.
///
/// # Errors
/// `compile_error` with the place, when it is no TypeScript or has types that cannot just be taken out.
pub(super) fn strip(code: &str) -> Result<String, Fault> {
    let map: Lrc<SourceMap> = Lrc::default();
    let complaint = Complaint::default();
    let handler = Handler::with_emitter(true, false, Box::new(complaint.clone()));
    let options = Options {
        module: Some(true),
        ..Options::default()
    };
    let error = match operate(&map, &handler, code.to_owned(), options) {
        Ok(stripped) => return Ok(stripped.code),
        Err(error) => error,
    };
    let first = complaint.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    let (message, span) = first.unwrap_or((error.message, None));
    let mut fault = Fault::new(FunctionCode::CompileError, format!("SyntaxError: {message}"));
    if let Some(span) = span {
        let place = map.lookup_char_pos(span.lo);
        fault.line = u32::try_from(place.line).ok();
        fault.column = u32::try_from(place.col.0 + 1).ok();
    }
    Err(fault)
}
