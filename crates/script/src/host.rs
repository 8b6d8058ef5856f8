//! The engine in this process: started once, and the parent of every chain's thread.

use std::sync::mpsc::{self, Receiver, SyncSender};

use deno_core::JsRuntime;
use millrace_event::frame::Load;

use crate::chain::{self, Chain, ChainError};
use crate::isolate::snapshot;
use crate::lanes::{Job, Lane};
use crate::outside::Replies;
use crate::watchdog::Watchdog;

/// Stack of a chain's thread, in bytes. The engine limits JavaScript to about 1 MiB of it; parsing and
/// compiling need some more.
const STACK: usize = 4 << 20;

/// Starts chains. Keep one for the whole process.
#[derive(Debug)]
pub struct Host {
    chains: SyncSender<Start>,
    replies: Replies,
}

struct Start {
    load: Load,
    jobs: Receiver<Job>,
    started: SyncSender<std::io::Result<()>>,
}

impl Host {
    /// Starts the engine and the thread that ends what runs too long.
    ///
    /// Where the processor has memory protection keys, V8 gives the right to its code pages to the thread that
    /// starts it and to that thread's children, and to no others. So the engine is started on a thread of its
    /// own, and that thread starts every chain's.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start() -> std::io::Result<Self> {
        let watchdog = Watchdog::start()?;
        let (chains, starts) = mpsc::sync_channel::<Start>(1);
        let replies = Replies::default();
        let waiting = replies.clone();
        std::thread::Builder::new().name("engine".into()).spawn(move || {
            engine_flags();
            JsRuntime::init_platform(None);
            snapshot::prepare();
            for Start { load, jobs, started } in starts {
                let (watchdog, replies) = (watchdog.clone(), waiting.clone());
                let thread = std::thread::Builder::new()
                    .name("chain".into())
                    .stack_size(STACK)
                    .spawn(move || chain::serve(load, watchdog, replies, &jobs));
                // Whoever asked may be gone; then the chain's thread finds its queue closed and ends.
                drop(started.send(thread.map(drop)));
            }
        })?;
        Ok(Self { chains, replies })
    }

    /// Where the replies to calls are handed in.
    pub fn replies(&self) -> Replies {
        self.replies.clone()
    }

    /// Starts the first thread of one chain version; its isolate is made with the first batch.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn open(&self, load: Load) -> Result<Chain, ChainError> {
        Chain::open(Starter {
            load,
            chains: self.chains.clone(),
        })
    }
}

/// Starts the threads of one chain version.
pub(crate) struct Starter {
    load: Load,
    chains: SyncSender<Start>,
}

impl std::fmt::Debug for Starter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Starter")
            .field("chain", &self.load.chain)
            .finish_non_exhaustive()
    }
}

impl Starter {
    pub(crate) fn start(&self) -> Result<Lane, ChainError> {
        let (lane, jobs) = Lane::new();
        let (started, outcome) = mpsc::sync_channel(1);
        let load = self.load.clone();
        self.chains
            .send(Start { load, jobs, started })
            .map_err(|_| ChainError::Gone)?;
        outcome
            .recv()
            .map_err(|_| ChainError::Gone)?
            .map_err(ChainError::Start)?;
        Ok(lane)
    }
}

/// There are as many workers as cores: threads that help one of them to collect garbage take the time from another,
/// and waking them for the little that an event leaves costs more than they do.
#[cfg(feature = "engine-v8")]
fn engine_flags() {
    deno_core::v8::V8::set_flags_from_string("--single-threaded-gc");
}

#[cfg(feature = "engine-quickjs")]
const fn engine_flags() {}
