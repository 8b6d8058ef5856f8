//! The side file: what could not be read, and what Kafka refused for good. Kept for people; nothing reads
//! it back by itself.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use millrace_event::Timestamp;
use serde::Serialize;

const FILE: &str = "aside.jsonl";

/// One line of the side file.
#[derive(Debug, Serialize)]
pub(super) struct Line<'a> {
    pub(super) at: Timestamp,
    /// Why it is here.
    pub(super) reason: &'a str,
    /// The segment it was in.
    pub(super) segment: Option<u64>,
    /// Where in the segment it started.
    pub(super) offset: Option<u64>,
    pub(super) topic: Option<&'a str>,
    pub(super) id: Option<String>,
    #[serde(serialize_with = "base64")]
    pub(super) key: &'a [u8],
    #[serde(serialize_with = "base64")]
    pub(super) bytes: &'a [u8],
}

fn base64<S: serde::Serializer>(bytes: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

/// Adds lines and makes them durable.
pub(super) fn add(dir: &Path, lines: &[Line<'_>]) -> io::Result<()> {
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, line)?;
        text.push(b'\n');
    }
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path(dir))?;
    file.write_all(&text)?;
    file.sync_data()
}

/// Where the lines are.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join(FILE)
}
