//! Negative controls: one protection each, switched off.

/// What is switched off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Control {
    /// Nothing: no run may go wrong.
    #[default]
    None,
    /// Inserts carry no token, and nobody waits for late ones.
    Token,
    /// A recovered plan does not wait for late inserts, and tables keep few tokens.
    Wait,
    /// The table is not asked; everything is taken as missing.
    Question,
    /// The offset is committed before the rows are inserted.
    CommitFirst,
    /// No plan is committed.
    Plan,
    /// A former owner commits without comparing epochs.
    Epoch,
    /// KILL is taken as answered.
    Kill,
    /// The store of outcomes is not asked.
    Outcomes,
    /// The holes of a watermark are not kept.
    Holes,
    /// The rotor writes retry copies and dead letters itself.
    CopiesByRotor,
    /// The rotor commits what it has read before it is written and acknowledged.
    RotorCommitsFirst,
    /// Accepted and refused events share a journal id.
    OneJournal,
    /// Watermarks that leave the metadata are not written down.
    Journals,
    /// Rows go to the dead letters without being named in the plan.
    BadRows,
    /// A table is given up without being named in the plan.
    GivenUp,
    /// Rows that come back are inserted without asking their table.
    AskReturned,
    /// A pod marks a message id after its append, instead of reserving it before.
    Reserve,
    /// A partition is adopted without having its tables asked.
    Adoption,
    /// A block whose view failed is not sent again, and nobody is told.
    Views,
    /// An owner asks whether it is a member, not whether the partition is still its.
    Membership,
    /// A token is made of journals and numbers, which every partition has.
    NumbersAlone,
    /// What is written of a journal is taken from whichever partition wrote it last.
    JournalAlone,
    /// KILL ends what another partition has running, and not one's own.
    KillOther,
    /// Message ids are forgotten long before their time.
    ForgetsIds,
    /// Whether a row has waited for its table for long enough is judged by the clock when it is asked.
    Clock,
    /// Of two records of one plan that bring a row of a table that is given up, only the first hands it over.
    LaterCopy,
}

impl Control {
    /// Every control but [`Self::None`].
    pub const ALL: [Self; 26] = [
        Self::Token,
        Self::Wait,
        Self::Question,
        Self::CommitFirst,
        Self::Plan,
        Self::Epoch,
        Self::Kill,
        Self::Outcomes,
        Self::Holes,
        Self::CopiesByRotor,
        Self::RotorCommitsFirst,
        Self::OneJournal,
        Self::Journals,
        Self::BadRows,
        Self::GivenUp,
        Self::AskReturned,
        Self::Reserve,
        Self::Adoption,
        Self::Views,
        Self::Membership,
        Self::NumbersAlone,
        Self::JournalAlone,
        Self::KillOther,
        Self::ForgetsIds,
        Self::Clock,
        Self::LaterCopy,
    ];
}
