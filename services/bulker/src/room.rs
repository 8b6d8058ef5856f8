//! How large the chunks of a partition may become: its share of the memory, and where that is little for all that
//! waits, a turn at the room that the partitions have in common.
//!
//! Large chunks cost ClickHouse far less for each row than small ones. Shares of many partitions are small, so one that
//! is behind takes turns: it waits for one with what it has gathered, fills it, writes, and gives it back.

use std::sync::Arc;
use std::time::Duration;

use millrace_kafka::Record;
use millrace_kafka::group::{Share, Turn};

use crate::gather::Gatherer;

/// What of a partition's own share a chunk may take, in quarters. The rest is for what is gathered while it is written.
const QUARTERS_FOR_A_CHUNK: usize = 3;
/// Where nobody got a turn for this long, those that have one are stuck, and nobody waits for them.
const PATIENCE: Duration = Duration::from_secs(5);

/// What one partition may hold.
#[derive(Debug)]
pub struct Room {
    share: Arc<Share>,
    turn: Option<Turn>,
}

impl Room {
    /// A partition's share, without a turn.
    pub const fn new(share: Arc<Share>) -> Self {
        Self { share, turn: None }
    }

    /// Bounds the next chunk by what there is room for.
    pub fn limit(&self, gatherer: &mut Gatherer) {
        gatherer.limit_bytes(self.share.own_bytes() / 4 * QUARTERS_FOR_A_CHUNK);
    }

    /// Waits for more room for a chunk that fills the share and is not as large as it might be. False where it has had
    /// its turn already, or none is to be had.
    ///
    /// # Cancellation
    /// Leaves nothing behind.
    pub async fn widen(&mut self, gatherer: &mut Gatherer) -> bool {
        if self.turn.is_some() || !gatherer.is_cut_short() {
            return false;
        }
        self.turn = self.share.turn(PATIENCE).await;
        if self.turn.is_some() {
            let own = self.share.own_bytes() / 4 * QUARTERS_FOR_A_CHUNK;
            gatherer.widen(own + self.share.turn_bytes());
        }
        self.turn.is_some()
    }

    /// Records that are done with make room for others, and a turn is over.
    pub fn release(&mut self, chunk: Vec<Record>) {
        let bytes = chunk.iter().map(Record::size).sum();
        drop(chunk);
        self.share.release(bytes);
        self.turn = None;
    }

    /// See [`Share::must_go_on`].
    pub fn must_go_on(&self, must: bool) {
        self.share.must_go_on(must);
    }
}
