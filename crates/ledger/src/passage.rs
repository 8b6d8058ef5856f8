//! The way of a partition's records through a stage that writes one record out for each one in.
//!
//! One batch is on its way at a time. Its end is committed when every record of it is acknowledged, so what is
//! committed is always a prefix; a batch that is not acknowledged ends the session, and no record of it is written
//! again on its own: the next session begins at what is committed and writes the rest in order.

/// The state of one partition in one session, from its assignment on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// The first offset that was not read yet.
    next: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle,
    Writing { end: u64 },
    Committing { end: u64 },
    Over,
}

/// What became of a batch that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Every record is acknowledged.
    All,
    /// At least one is not, or its answer is not known.
    Failed,
    /// Nobody waited for the answers: the session is ending.
    Abandoned,
}

/// What the group answered to a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It holds.
    Confirmed,
    /// The partition belongs to somebody else by now.
    NotOwned,
    /// Nobody knows whether it holds.
    Unknown,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Read on.
    Read,
    /// Write a record for each record of the batch, in their order.
    Write,
    /// Commit this offset: everything below it is written and acknowledged.
    Commit(u64),
    /// The partition is not ours any more.
    Leave,
    /// Drop the producer and leave the group; the next session goes on at what is committed.
    EndSession,
}

impl Passage {
    /// A passage that reads on at `next`.
    pub const fn new(next: u64) -> Self {
        Self {
            next,
            state: State::Idle,
        }
    }

    /// A batch was read, whose offsets go from `first` to `last`; some in between may not exist.
    pub const fn read(&mut self, first: u64, last: u64) -> Step {
        match self.state {
            State::Idle if first >= self.next && first <= last => {
                self.state = State::Writing { end: last + 1 };
                Step::Write
            }
            // A log that goes backwards, or a second batch: neither may move the offset.
            _ => self.over(Step::EndSession),
        }
    }

    /// The batch was written.
    pub const fn delivered(&mut self, delivery: Delivery) -> Step {
        match (self.state, delivery) {
            (State::Writing { end }, Delivery::All) => {
                self.state = State::Committing { end };
                Step::Commit(end)
            }
            (State::Writing { .. }, Delivery::Abandoned) => self.over(Step::Leave),
            _ => self.over(Step::EndSession),
        }
    }

    /// The commit was answered. One that may not hold needs no repetition: the next one covers it, and a record that
    /// is written twice is known by its identity.
    pub const fn committed(&mut self, answer: Answer) -> Step {
        match (self.state, answer) {
            (State::Committing { end }, Answer::Confirmed | Answer::Unknown) => {
                self.next = end;
                self.state = State::Idle;
                Step::Read
            }
            (State::Committing { .. }, Answer::NotOwned) => self.over(Step::Leave),
            _ => self.over(Step::EndSession),
        }
    }

    const fn over(&mut self, step: Step) -> Step {
        self.state = State::Over;
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_is_committed_when_everything_below_it_is_acknowledged_and_not_before() {
        let mut passage = Passage::new(5);
        assert_eq!(passage.read(5, 9), Step::Write);
        assert_eq!(passage.delivered(Delivery::All), Step::Commit(10));
        assert_eq!(passage.committed(Answer::Confirmed), Step::Read);
        assert_eq!(
            passage.read(12, 12),
            Step::Write,
            "offsets may be missing in a log"
        );
        assert_eq!(passage.delivered(Delivery::All), Step::Commit(13));
    }

    #[test]
    fn a_batch_that_is_not_acknowledged_ends_the_session_and_commits_nothing_ever_after() {
        let mut passage = Passage::new(0);
        assert_eq!(passage.read(0, 9), Step::Write);
        assert_eq!(passage.delivered(Delivery::Failed), Step::EndSession);
        assert_eq!(passage.read(0, 9), Step::EndSession);
        assert_eq!(passage.delivered(Delivery::All), Step::EndSession);
        assert_eq!(passage.committed(Answer::Confirmed), Step::EndSession);
    }

    #[test]
    fn a_second_batch_never_overtakes_the_one_on_its_way() {
        let mut passage = Passage::new(0);
        assert_eq!(passage.read(0, 4), Step::Write);
        assert_eq!(passage.read(5, 9), Step::EndSession);
        assert_eq!(passage.delivered(Delivery::All), Step::EndSession);
    }

    #[test]
    fn a_log_that_goes_backwards_is_not_followed() {
        let mut passage = Passage::new(10);
        assert_eq!(passage.read(9, 12), Step::EndSession);
    }

    #[test]
    fn a_commit_without_an_answer_is_covered_by_the_next_one() {
        let mut passage = Passage::new(0);
        assert_eq!(passage.read(0, 4), Step::Write);
        assert_eq!(passage.delivered(Delivery::All), Step::Commit(5));
        assert_eq!(passage.committed(Answer::Unknown), Step::Read);
        assert_eq!(passage.read(5, 6), Step::Write);
        assert_eq!(passage.delivered(Delivery::All), Step::Commit(7));
    }

    #[test]
    fn a_partition_that_moved_away_is_left() {
        let mut passage = Passage::new(0);
        assert_eq!(passage.read(0, 4), Step::Write);
        assert_eq!(passage.delivered(Delivery::All), Step::Commit(5));
        assert_eq!(passage.committed(Answer::NotOwned), Step::Leave);
        assert_eq!(passage.read(5, 6), Step::EndSession);
        let mut passage = Passage::new(0);
        assert_eq!(passage.read(0, 4), Step::Write);
        assert_eq!(passage.delivered(Delivery::Abandoned), Step::Leave);
    }
}
