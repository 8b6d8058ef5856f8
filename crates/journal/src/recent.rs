//! What was appended last, kept in memory: the shipper mostly follows the writer closely, and need neither read nor
//! check again what has just been written.

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

    /// Takes a group that lies at `offset` of a segment, behind all others, and gives up older ones for it.
    pub(super) fn push(&mut self, segment: u64, offset: u64, bytes: Bytes) {
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
        };
        debug_assert!(self.groups.back().is_none_or(|last| last.place() < group.place()));
        self.groups.push_back(group);
    }

    /// The bytes of a record, where they are still here. Whoever keeps them keeps all of their group.
    pub(super) fn get(&self, segment: u64, offset: u64, size: usize) -> Option<Bytes> {
        let behind = self
            .groups
            .partition_point(|group| group.place() <= (segment, offset));
        let group = self.groups.get(behind.checked_sub(1)?)?;
        let start = usize::try_from(offset.checked_sub(group.offset)?).ok()?;
        let end = start.checked_add(size)?;
        let holds = group.segment == segment && end <= group.bytes.len();
        holds.then(|| group.bytes.slice(start..end))
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
        recent.push(1, 50, bytes(1, 40));
        recent.push(1, 90, bytes(2, 40));
        recent.push(2, 30, bytes(3, 20));
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
        recent.push(1, 0, bytes(1, 60));
        recent.push(1, 60, bytes(2, 60));
        assert_eq!(
            (recent.get(1, 0, 1), recent.get(1, 60, 1)),
            (None, Some(bytes(2, 1)))
        );
        recent.push(1, 120, bytes(3, 101));
        assert_eq!(
            (recent.get(1, 60, 1), recent.get(1, 120, 1), recent.held),
            (None, None, 0)
        );
        let mut none = Recent::new(0);
        none.push(1, 0, bytes(1, 1));
        assert_eq!(none.get(1, 0, 1), None);
    }
}
