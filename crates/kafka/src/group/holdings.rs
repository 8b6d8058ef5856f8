//! The partitions that a member holds.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::budget::Share;
use crate::record::Record;

/// One assigned partition, seen from the consumer thread.
pub(super) struct Held {
    pub(super) topic: String,
    pub(super) number: u32,
    pub(super) epoch: u64,
    pub(super) queue: mpsc::Sender<Vec<Record>>,
    pub(super) revoked: CancellationToken,
    pub(super) share: Arc<Share>,
    /// The batch that was polled and is not in the queue yet. While there is one, nothing more is polled.
    pub(super) polled: Option<Vec<Record>>,
    /// Whether its share was used up and not half of it is free again.
    pub(super) full: bool,
}

/// All of them. Records come in runs of one partition, so the one that was found last is looked at first.
#[derive(Default)]
pub(super) struct Holdings {
    held: Vec<Held>,
    last: usize,
}

impl Holdings {
    /// The partition, where it is held.
    pub(super) fn find(&mut self, topic: &str, number: u32) -> Option<&mut Held> {
        let wanted = |held: &Held| held.number == number && held.topic == topic;
        if !self.held.get(self.last).is_some_and(wanted) {
            self.last = self.held.iter().position(wanted)?;
        }
        self.held.get_mut(self.last)
    }

    /// The assignment of that epoch, where it is held.
    pub(super) fn of_epoch(&mut self, epoch: u64) -> Option<&mut Held> {
        self.held.iter_mut().find(|held| held.epoch == epoch)
    }

    /// Adds one, in place of an earlier assignment of the same partition.
    pub(super) fn insert(&mut self, held: Held) {
        self.remove(&held.topic, held.number);
        self.held.push(held);
    }

    /// Removes one, if it is held.
    pub(super) fn remove(&mut self, topic: &str, number: u32) {
        self.held
            .retain(|held| held.number != number || held.topic != topic);
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Held> {
        self.held.iter_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::Budget;

    fn held(topic: &str, number: u32, epoch: u64) -> Held {
        Held {
            topic: topic.to_owned(),
            number,
            epoch,
            queue: mpsc::channel(1).0,
            revoked: CancellationToken::new(),
            share: Budget::unlimited().share(),
            polled: None,
            full: false,
        }
    }

    #[test]
    fn a_partition_is_found_by_topic_and_number_also_after_others_came_and_went() {
        let mut holdings = Holdings::default();
        for (topic, number) in [("a", 0), ("a", 1), ("b", 0)] {
            holdings.insert(held(topic, number, 1));
        }
        let mut epoch = |topic, number| holdings.find(topic, number).map(|held| held.epoch);
        assert_eq!(
            (epoch("b", 0), epoch("b", 0), epoch("b", 1)),
            (Some(1), Some(1), None)
        );
        holdings.insert(held("a", 1, 2));
        holdings.remove("b", 0);
        let mut epoch = |topic, number| holdings.find(topic, number).map(|held| held.epoch);
        assert_eq!(
            (epoch("b", 0), epoch("a", 1), epoch("a", 0)),
            (None, Some(2), Some(1))
        );
        holdings.remove("a", 0);
        holdings.remove("a", 1);
        assert!(holdings.is_empty());
    }
}
