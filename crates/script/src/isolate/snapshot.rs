//! The engine's state once deno_core's own scripts have run, so that an isolate need not run them again.
//!
//! Made in this process when the engine starts and kept in its memory: no file that somebody could change, and no
//! version to compare. Nothing of any chain is in it; what functions can reach is prepared in each isolate anew.

#[cfg(feature = "engine-v8")]
mod made {
    use std::sync::OnceLock;

    use deno_core::{JsRuntimeForSnapshot, RuntimeOptions};

    use crate::isolate::engine::gate;

    static SNAPSHOT: OnceLock<Option<&'static [u8]>> = OnceLock::new();

    /// Makes the snapshot, on the thread that started the engine and before any isolate. A failure costs time with
    /// each isolate and nothing else. Needs no runtime; repeated calls do nothing.
    pub(crate) fn prepare() {
        SNAPSHOT.get_or_init(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build();
            let runtime = runtime.ok()?;
            let _entered = runtime.enter();
            let engine = JsRuntimeForSnapshot::try_new(RuntimeOptions {
                extensions: vec![gate()],
                ..RuntimeOptions::default()
            });
            match engine {
                // The engine reads from it as long as the process lives: about half a megabyte, once.
                Ok(engine) => Some(&*Box::leak(engine.snapshot())),
                Err(error) => {
                    tracing::warn!(%error, "isolates start without a snapshot");
                    None
                }
            }
        });
    }

    /// What [`prepare`] made.
    pub(crate) fn get() -> Option<&'static [u8]> {
        SNAPSHOT.get().copied().flatten()
    }
}

/// QuickJS has no snapshots.
#[cfg(feature = "engine-quickjs")]
mod made {
    pub(crate) const fn prepare() {}

    pub(crate) const fn get() -> Option<&'static [u8]> {
        None
    }
}

pub(crate) use made::{get, prepare};
