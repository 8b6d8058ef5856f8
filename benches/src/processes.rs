//! Processes that a load program started.

use anyhow::{Context, Result};

/// The processes that process `parent` started and that still run.
///
/// # Errors
/// `/proc` is not there.
pub fn children(parent: u32) -> Result<Vec<u32>> {
    let parent = parent.to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("/proc cannot be read")? {
        let entry = entry?;
        let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
        // A process that ends while we look is none.
        let (Some(id), Ok(stat)) = (id, std::fs::read_to_string(entry.path().join("stat"))) else {
            continue;
        };
        // Behind the name, which may hold blanks: the state, then the parent.
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
        let mut fields = fields.split_ascii_whitespace();
        let state = fields.next();
        if fields.next() == Some(&parent) && state != Some("Z") {
            found.push(id);
        }
    }
    Ok(found)
}
