//! The chain versions that this worker keeps ready: the one used least leaves first, one that nobody uses leaves after a
//! while, and gives its memory back.

use std::time::{Duration, Instant};

use bytes::Bytes;
use millrace_event::frame::{Answer, Batch, Load};
use millrace_script::{Chain, ChainError, Host, Logged, Said};
use millrace_service::Clock;

/// What became of a batch.
pub(super) enum Ran {
    Done(Answer, Logged),
    UnknownChain,
}

struct Ready {
    id: String,
    version: u64,
    chain: Chain,
    used: Instant,
}

/// Bounded: at most `capacity` isolates, in order of use, the last used at the end.
pub(super) struct Chains {
    host: Host,
    capacity: usize,
    idle: Duration,
    ready: Vec<Ready>,
}

impl Chains {
    pub(super) fn new(host: Host, capacity: usize, idle: Duration) -> Self {
        Self {
            host,
            capacity,
            idle,
            ready: Vec::new(),
        }
    }

    /// Keeps a chain version ready; the other versions of that chain go.
    pub(super) fn load(&mut self, load: Load, now: Instant) -> Result<(), ChainError> {
        self.ready.retain(|ready| ready.id != load.chain);
        if self.ready.len() >= self.capacity {
            self.ready.remove(0);
        }
        let (id, version) = (load.chain.clone(), load.version);
        let chain = self.host.open(load)?;
        self.ready.push(Ready {
            id,
            version,
            chain,
            used: now,
        });
        Ok(())
    }

    /// Lets those go that nobody used for too long, and says when the next one is due; `None` while there is none.
    pub(super) fn tidy(&mut self, now: Instant) -> Option<Duration> {
        let idle = self.idle;
        self.ready
            .retain(|ready| now.saturating_duration_since(ready.used) < idle);
        let oldest = self.ready.iter().map(|ready| ready.used).min()?;
        Some((oldest + idle).saturating_duration_since(now))
    }

    /// Runs a batch on the chain it names.
    pub(super) fn run(
        &mut self,
        batch: Bytes,
        clock: &dyn Clock,
        tell: impl FnMut(Said<'_>) -> std::io::Result<()>,
    ) -> Result<Ran, ChainError> {
        let (chain, version) = Batch::chain_of(&batch)?;
        let found = self
            .ready
            .iter()
            .position(|ready| ready.id == chain && ready.version == version);
        let Some(at) = found else {
            return Ok(Ran::UnknownChain);
        };
        let mut ready = self.ready.remove(at);
        let ran = ready.chain.run(batch, tell);
        ready.used = clock.instant();
        self.ready.push(ready);
        // A chain that has several events in flight keeps an isolate for each.
        let isolates = |ready: &[Ready]| ready.iter().map(|ready| ready.chain.isolates()).sum::<usize>();
        while self.ready.len() > 1 && isolates(&self.ready) > self.capacity {
            self.ready.remove(0);
        }
        ran.map(|(answer, logged)| Ran::Done(answer, logged))
    }
}
