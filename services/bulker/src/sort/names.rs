use std::collections::HashMap;

use millrace_event::envelope::Output;
use millrace_ledger::metadata::table_hash;
use millrace_warehouse::TableName;

use crate::destinations::{Target, Targets};

/// The tables that a chunk's records name, each found once: a chunk has far fewer of them than rows. By destination and
/// name, with the table's hash; nothing for what is no name.
#[derive(Debug)]
pub(super) struct Names<'a> {
    targets: &'a Targets<'a>,
    known: HashMap<(&'a str, &'a str), Option<(Target, u64)>>,
}

impl<'a> Names<'a> {
    pub(super) fn new(targets: &'a Targets<'a>) -> Self {
        Self {
            targets,
            known: HashMap::new(),
        }
    }

    /// Where an output goes, with the hash of the table that it is written into.
    pub(super) fn read(&mut self, output: &'a Output<'_>) -> Option<&(Target, u64)> {
        let key = (output.destination.as_str(), output.table.as_str());
        let targets = self.targets;
        let known = self.known.entry(key).or_insert_with(|| {
            let named: TableName = output.table.as_str().parse().ok()?;
            let target = targets.of(key.0, named);
            let hash = table_hash(&target.table.to_string());
            Some((target, hash))
        });
        known.as_ref()
    }
}
