//! `positions.json`: how far Kafka has acknowledged each lane.
//!
//! It only saves work: where it is missing or old, records are sent again, and the reader of the topic
//! removes them by their identity.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Lane, Topic, disk};

const FILE: &str = "positions.json";

/// The next record of a lane to be acknowledged. Ordered as the lane is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Position {
    pub(super) epoch: u32,
    pub(super) seq: u64,
}

/// Positions of all lanes.
pub(super) type Positions = BTreeMap<Lane, Position>;

#[derive(Serialize, Deserialize)]
struct File {
    version: u8,
    lanes: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    topic: Topic,
    partition: u32,
    #[serde(flatten)]
    position: Position,
}

/// Reads the file; none is none acknowledged.
pub(super) fn load(dir: &Path) -> io::Result<Positions> {
    let text = match std::fs::read(dir.join(FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Positions::new()),
        Err(error) => return Err(error),
    };
    let file: File = serde_json::from_slice(&text)?;
    let lane = |entry: &Entry| Lane {
        topic: entry.topic,
        partition: entry.partition,
    };
    Ok(file
        .lanes
        .iter()
        .map(|entry| (lane(entry), entry.position))
        .collect())
}

/// Replaces the file; `durable` also for a loss of power.
pub(super) fn store(dir: &Path, positions: &Positions, durable: bool) -> io::Result<()> {
    let lanes = positions
        .iter()
        .map(|(lane, position)| Entry {
            topic: lane.topic,
            partition: lane.partition,
            position: *position,
        })
        .collect();
    let (path, text) = (dir.join(FILE), serde_json::to_vec(&File { version: 1, lanes })?);
    match durable {
        true => disk::replace(&path, &text),
        false => disk::replace_lightly(&path, &text),
    }
}
