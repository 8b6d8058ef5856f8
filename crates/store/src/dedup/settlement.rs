//! What a process does with the reservations that its earlier runs left behind.

use std::collections::HashMap;

use fred::prelude::SetsInterface;

use super::{CHUNK, Dedup, Fingerprint, Fingerprints, Window};
use crate::redis::key;
use crate::redis::script::Script;
use crate::{Error, WorkspaceId};

static SETTLE: Script = Script::new(include_str!("settle.lua"));
static DISCARD: Script = Script::new(include_str!("discard.lua"));

/// How it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Pendings that are done now: the journal has their events.
    pub done: u64,
    /// Pendings that are forgotten now: it does not.
    pub discarded: u64,
}

/// Turns pendings of earlier runs into done where the journal has their events, and forgets the rest.
///
/// Tell it everything that the journal took since its checkpoint with [`Settlement::held`], then
/// [`Settlement::finish`]. Dropped before that it forgets nothing, so that a journal that could not be read to
/// its end costs waiting and never a duplicate. It never touches what the present run reserved.
#[derive(Debug)]
pub struct Settlement<'dedup> {
    dedup: &'dedup Dedup,
    /// Earlier runs by the workspace they reserved in.
    earlier: HashMap<WorkspaceId, Vec<String>>,
    /// Fingerprints waiting for a script, one list for each window.
    waiting: HashMap<(WorkspaceId, bool), Fingerprints>,
    settled: Settled,
}

impl<'dedup> Settlement<'dedup> {
    /// From the members `<run>:<workspace>` of the journal's list.
    pub(super) fn of(dedup: &'dedup Dedup, members: &[String]) -> Self {
        let mut earlier: HashMap<WorkspaceId, Vec<String>> = HashMap::new();
        for (run, workspace) in members.iter().filter_map(|member| member.split_once(':')) {
            if run != &*dedup.run
                && let Ok(workspace) = workspace.parse()
            {
                earlier.entry(workspace).or_default().push(run.to_owned());
            }
        }
        Self {
            dedup,
            earlier,
            waiting: HashMap::new(),
            settled: Settled::default(),
        }
    }

    /// True when earlier runs left nothing: the journal need not be read.
    pub fn is_empty(&self) -> bool {
        self.earlier.is_empty()
    }

    /// An event of that id is in the journal.
    ///
    /// # Errors
    /// When Redis is away or slow: drop the settlement and begin another.
    ///
    /// # Cancellation
    /// As on an error.
    pub async fn held(
        &mut self,
        workspace: &WorkspaceId,
        window: Window,
        message_id: &str,
    ) -> Result<(), Error> {
        if !self.earlier.contains_key(workspace) {
            return Ok(());
        }
        let key = (workspace.clone(), window == Window::Import);
        let waiting = self.waiting.entry(key).or_default();
        waiting.push(Fingerprint::of(message_id));
        if waiting.len() >= CHUNK {
            let full = std::mem::take(waiting);
            self.settle(workspace, window, &full).await?;
        }
        Ok(())
    }

    /// Ends it: the journal holds nothing else.
    ///
    /// # Errors
    /// When Redis is away or slow: begin another.
    ///
    /// # Cancellation
    /// As on an error.
    pub async fn finish(mut self) -> Result<Settled, Error> {
        for ((workspace, import), fingerprints) in std::mem::take(&mut self.waiting) {
            let window = if import { Window::Import } else { Window::Live };
            self.settle(&workspace, window, &fingerprints).await?;
        }
        for (workspace, runs) in std::mem::take(&mut self.earlier) {
            for run in runs {
                self.discard(&workspace, &run).await?;
            }
        }
        Ok(self.settled)
    }

    async fn settle(
        &mut self,
        workspace: &WorkspaceId,
        window: Window,
        fingerprints: &Fingerprints,
    ) -> Result<(), Error> {
        if fingerprints.is_empty() {
            return Ok(());
        }
        let dedup = self.dedup;
        for run in self.earlier.get(workspace).into_iter().flatten() {
            let arguments = vec![dedup.owner(run), dedup.lifetime(window)];
            self.settled.done += dedup
                .run_packed::<u64>(&SETTLE, workspace, run, arguments, fingerprints)
                .await?;
        }
        Ok(())
    }

    async fn discard(&mut self, workspace: &WorkspaceId, run: &str) -> Result<(), Error> {
        let dedup = self.dedup;
        let prefix = key::message(dedup.redis.prefix(), workspace);
        loop {
            let arguments = vec![dedup.owner(run), prefix.clone(), CHUNK.to_string()];
            let (taken, discarded): (u64, u64) =
                dedup.run_script(&DISCARD, workspace, run, arguments).await?;
            self.settled.discarded += discarded;
            if taken == 0 {
                break;
            }
        }
        let runs = key::runs(dedup.redis.prefix(), dedup.journal);
        let member = format!("{run}:{workspace}");
        let _: i64 = dedup.redis.call(dedup.redis.client().srem(runs, member)).await?;
        Ok(())
    }
}
