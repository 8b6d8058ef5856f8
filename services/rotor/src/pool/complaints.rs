//! What a worker writes to standard error: the engine's last words, for the log.

use std::io::{ErrorKind, Read};
use std::process::ChildStderr;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// Bytes kept, the latest.
const TAIL: usize = 4 << 10;

/// A worker's standard error. It is read between batches, so a worker that writes more than a pipe holds during
/// one waits, and meets its deadline.
#[derive(Debug)]
pub(super) struct Complaints {
    pipe: ChildStderr,
    tail: Vec<u8>,
}

impl Complaints {
    pub(super) fn new(pipe: ChildStderr) -> std::io::Result<Self> {
        fcntl_setfl(&pipe, fcntl_getfl(&pipe)? | OFlags::NONBLOCK)?;
        Ok(Self {
            pipe,
            tail: Vec::new(),
        })
    }

    /// Reads what is there now, never waiting, at most a pipe's worth.
    pub(super) fn read(&mut self) {
        let mut chunk = [0_u8; TAIL];
        for _ in 0..16 {
            match self.pipe.read(&mut chunk) {
                Ok(0) => return,
                Ok(count) => {
                    self.tail.extend(chunk.iter().take(count));
                    let over = self.tail.len().saturating_sub(TAIL);
                    self.tail.drain(..over);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    /// The latest words, on one line; `None` when there are none.
    pub(super) fn take(&mut self) -> Option<String> {
        self.read();
        let text = String::from_utf8_lossy(&self.tail);
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        self.tail.clear();
        (!line.is_empty()).then_some(line)
    }
}
