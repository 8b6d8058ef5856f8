//! What a run had to deal with.

/// What a run had to deal with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Steps that the world took.
    pub steps: u64,
    /// Processes killed.
    pub kills: u64,
    /// Processes stopped and continued.
    pub stops: u64,
    /// Moves of one partition between live members.
    pub moves: u64,
    /// Moves that left a partition with a member that goes on with the other one.
    pub halves: u64,
    /// Plans of a predecessor that were finished.
    pub recoveries: u64,
    /// Records that counted as duplicates.
    pub duplicates: u64,
    /// Inserts that a token held back.
    pub deduplicated: u64,
    /// Rows that the question found.
    pub found: u64,
    /// Rows named as bad.
    pub bad_rows: u64,
    /// Tables given up.
    pub given_up: u64,
    /// Rows that waited for their table for as long as they may.
    pub waited_out: u64,
    /// Watermarks written to the table `journals`.
    pub journals: u64,
    /// Plans that were cut shorter.
    pub cuts: u64,
    /// Blocks that went out once more for their view.
    pub views: u64,
    /// Partitions whose offset was lost or set by hand, and that were adopted.
    pub adoptions: u64,
    /// Repeats that were known as such.
    pub repeats: u64,
    /// Messages that were taken again because what was known of them had expired.
    pub lapses: u64,
}

impl Stats {
    /// Adds another run's.
    pub const fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.kills += other.kills;
        self.stops += other.stops;
        self.moves += other.moves;
        self.halves += other.halves;
        self.recoveries += other.recoveries;
        self.duplicates += other.duplicates;
        self.deduplicated += other.deduplicated;
        self.found += other.found;
        self.bad_rows += other.bad_rows;
        self.given_up += other.given_up;
        self.waited_out += other.waited_out;
        self.journals += other.journals;
        self.cuts += other.cuts;
        self.views += other.views;
        self.adoptions += other.adoptions;
        self.repeats += other.repeats;
        self.lapses += other.lapses;
    }
}
