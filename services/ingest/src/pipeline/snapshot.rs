//! Known keys on disk, so that a gateway that starts while Postgres is away can serve them. Of secrets it
//! holds the hashes.

use std::io;
use std::path::Path;
use std::sync::Arc;

use millrace_store::keys::Key;
use serde::{Deserialize, Serialize};

use crate::journal;

const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Snapshot<K> {
    version: u8,
    keys: Vec<K>,
}

/// The keys written down; none where there is no file or it cannot be read, for Postgres knows them all.
pub(super) fn load(file: &Path) -> Vec<Key> {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            tracing::warn!(%error, "known keys cannot be read");
            return Vec::new();
        }
    };
    match serde_json::from_slice::<Snapshot<Key>>(&text) {
        Ok(snapshot) if snapshot.version == VERSION => snapshot.keys,
        Ok(snapshot) => {
            tracing::warn!(version = snapshot.version, "known keys are of another version");
            Vec::new()
        }
        Err(error) => {
            tracing::warn!(%error, "known keys cannot be read");
            Vec::new()
        }
    }
}

/// Replaces the file.
pub(super) fn store(file: &Path, keys: &[Arc<Key>]) -> io::Result<()> {
    let keys = keys.iter().map(Arc::as_ref).collect();
    journal::replace(
        file,
        &serde_json::to_vec(&Snapshot::<&Key> {
            version: VERSION,
            keys,
        })?,
    )
}
