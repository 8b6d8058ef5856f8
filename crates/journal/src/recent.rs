//! What was appended last, kept in memory: the shipper mostly follows the writer closely, and need neither read nor
//! check again what has just been written. A group goes when the shipper has taken all of it, so that the memory that is
//! written next is what was used last.

use std::collections::VecDeque;

use bytes::Bytes;

/// The groups that were appended last, oldest first; a record lies in one of them whole. Never larger than its limit.
#[derive(Debug)]
pub(super) struct Recent {
    limit: usize,
    held: usize,
    groups: VecDeque<Group>,
}

#[derive(Debug)]
struct Group {
    segment: u64,
    offset: u64,
    bytes: Bytes,
    /// Records that nobody has taken yet.
    left: usize,
}

impl Group {
    fn place(&self) -> (u64, u64) {
        (self.segment, self.offset)
    }
}

impl Recent {
    /// Holds `limit` bytes at most; none where that is 0.
    pub(super) const fn new(limit: usize) -> Self {
        Self {
            limit,
            held: 0,
            groups: VecDeque::new(),
        }
    }

    /// Takes a group of so many records that lies at `offset` of a segment, behind all others, and gives up older ones
    /// for it.
    pub(super) fn push(&mut self, segment: u64, offset: u64, records: usize, bytes: Bytes) {
        if bytes.len() > self.limit {
            self.groups.clear();
            self.held = 0;
            return;
        }
        self.held += bytes.len();
        while self.held > self.limit
            && let Some(oldest) = self.groups.pop_front()
        {
            self.held -= oldest.bytes.len();
        }
        let group = Group {
            segment,
            offset,
            bytes,
            left: records,
        };
        debug_assert!(self.groups.back().is_none_or(|last| last.place() < group.place()));
        self.groups.push_back(group);
    }

    /// The bytes of a record, where they are still here. Whoever keeps them keeps all of their group.
    pub(super) fn get(&self, segment: u64, offset: u64, size: usize) -> Option<Bytes> {
        let group = self.groups.get(self.group_of(segment, offset)?)?;
        let start = usize::try_from(offset.checked_sub(group.offset)?).ok()?;
        let end = start.checked_add(size)?;
        let holds = group.segment == segment && end <= group.bytes.len();
        holds.then(|| group.bytes.slice(start..end))
    }

    /// Says that a record was taken and need not be found again. A group goes with the last of its records once all
    /// before it are gone.
    pub(super) fn taken(&mut self, segment: u64, offset: u64) {
        let group = self
            .group_of(segment, offset)
            .and_then(|place| self.groups.get_mut(place));
        if let Some(group) = group {
            group.left = group.left.saturating_sub(1);
        }
        while let Some(oldest) = self.groups.pop_front_if(|oldest| oldest.left == 0) {
            self.held -= oldest.bytes.len();
        }
    }

    /// The place of the last group that starts at or before an offset.
    fn group_of(&self, segment: u64, offset: u64) -> Option<usize> {
        let behind = self
            .groups
            .partition_point(|group| group.place() <= (segment, offset));
        behind.checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(byte: u8, length: usize) -> Bytes {
        Bytes::from(vec![byte; length])
    }

    #[test]
    fn records_of_the_last_groups_are_found_whole_and_nothing_else_is() {
        let mut recent = Recent::new(100);
        recent.push(1, 50, 1, bytes(1, 40));
        recent.push(1, 90, 1, bytes(2, 40));
        recent.push(2, 30, 1, bytes(3, 20));
        assert_eq!(recent.get(1, 50, 10), Some(bytes(1, 10)));
        assert_eq!(recent.get(1, 80, 10), Some(bytes(1, 10)));
        assert_eq!(recent.get(1, 90, 40), Some(bytes(2, 40)));
        assert_eq!(recent.get(2, 40, 10), Some(bytes(3, 10)));
        for (segment, offset, size) in [
            (1, 0, 10),
            (1, 85, 10),
            (1, 130, 1),
            (2, 0, 10),
            (2, 40, 11),
            (3, 30, 1),
        ] {
            assert_eq!(
                recent.get(segment, offset, size),
                None,
                "{segment} {offset} {size}"
            );
        }
    }

    #[test]
    fn older_groups_make_room_and_one_that_is_larger_than_all_is_not_kept() {
        let mut recent = Recent::new(100);
        recent.push(1, 0, 1, bytes(1, 60));
        recent.push(1, 60, 1, bytes(2, 60));
        assert_eq!(
            (recent.get(1, 0, 1), recent.get(1, 60, 1)),
            (None, Some(bytes(2, 1)))
        );
        recent.push(1, 120, 1, bytes(3, 101));
        assert_eq!(
            (recent.get(1, 60, 1), recent.get(1, 120, 1), recent.held),
            (None, None, 0)
        );
        let mut none = Recent::new(0);
        none.push(1, 0, 1, bytes(1, 1));
        assert_eq!(none.get(1, 0, 1), None);
    }

    #[test]
    fn a_group_goes_when_all_of_it_and_of_those_before_it_was_taken() {
        let mut recent = Recent::new(100);
        recent.push(1, 0, 2, bytes(1, 20));
        recent.push(1, 20, 1, bytes(2, 20));
        recent.push(2, 0, 1, bytes(3, 20));
        recent.taken(1, 20);
        recent.taken(1, 10);
        assert_eq!((recent.get(1, 20, 1), recent.held), (Some(bytes(2, 1)), 60));
        recent.taken(1, 0);
        assert_eq!(
            (recent.get(1, 20, 1), recent.get(1, 0, 1), recent.held),
            (None, None, 20)
        );
        assert_eq!(recent.get(2, 0, 1), Some(bytes(3, 1)));
        // What is not there any more is nobody's.
        recent.taken(1, 20);
        assert_eq!(recent.held, 20);
    }
}
