use std::collections::HashMap;

use millrace_event::envelope::Output;
use millrace_ledger::metadata::table_hash;
use millrace_warehouse::TableName;

use crate::destinations::{Target, Targets};

/// A destination and a table's name, as an output has them.
type Named<'a> = (&'a str, &'a str);

/// The tables that a chunk's records name, each found once: a chunk has far fewer of them than rows, and mostly the
/// next row is for the table of the last one. With the table's hash; nothing for what is no name.
#[derive(Debug)]
pub(super) struct Names<'a> {
    targets: &'a Targets<'a>,
    found: Vec<Option<(Target, u64)>>,
    /// Where each is in `found`.
    known: HashMap<Named<'a>, usize>,
    last: Option<(Named<'a>, usize)>,
}

impl<'a> Names<'a> {
    pub(super) fn new(targets: &'a Targets<'a>) -> Self {
        Self {
            targets,
            found: Vec::new(),
            known: HashMap::new(),
            last: None,
        }
    }

    /// Where an output goes, with the hash of the table that it is written into.
    pub(super) fn read(&mut self, output: &'a Output<'_>) -> Option<&(Target, u64)> {
        let key = (output.destination.as_str(), output.table.as_str());
        let at = match self.last {
            Some((last, at)) if last == key => at,
            _ => self.find(key),
        };
        self.last = Some((key, at));
        self.found.get(at)?.as_ref()
    }

    fn find(&mut self, key: Named<'a>) -> usize {
        let (targets, found) = (self.targets, &mut self.found);
        *self.known.entry(key).or_insert_with(|| {
            let named: Option<TableName> = key.1.parse().ok();
            found.push(named.map(|named| {
                let target = targets.of(key.0, named);
                let hash = table_hash(&target.table.to_string());
                (target, hash)
            }));
            found.len() - 1
        })
    }
}
