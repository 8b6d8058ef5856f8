//! The chain versions that this worker keeps ready, the least used one leaving first.

use millrace_event::frame::{Batch, Load, Outcome};
use millrace_script::{Chain, ChainError, Host, Logged, Said};

/// What became of a batch.
pub(super) enum Ran {
    Done(Vec<Outcome<String>>, Logged),
    UnknownChain,
}

struct Ready {
    id: String,
    version: u64,
    chain: Chain,
}

/// Bounded: at most `capacity` isolates, in order of use, the last used at the end.
pub(super) struct Chains {
    host: Host,
    capacity: usize,
    ready: Vec<Ready>,
}

impl Chains {
    pub(super) fn new(host: Host, capacity: usize) -> Self {
        Self {
            host,
            capacity,
            ready: Vec::new(),
        }
    }

    /// Keeps a chain version ready; the other versions of that chain go.
    pub(super) fn load(&mut self, load: Load) -> Result<(), ChainError> {
        self.ready.retain(|ready| ready.id != load.chain);
        if self.ready.len() >= self.capacity {
            self.ready.remove(0);
        }
        let (id, version) = (load.chain.clone(), load.version);
        let chain = self.host.open(load)?;
        self.ready.push(Ready { id, version, chain });
        Ok(())
    }

    /// Runs a batch on the chain it names.
    pub(super) fn run(
        &mut self,
        batch: Vec<u8>,
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
        let ready = self.ready.remove(at);
        let ran = ready.chain.run(batch, tell);
        self.ready.push(ready);
        ran.map(|(outcomes, logged)| Ran::Done(outcomes, logged))
    }
}
