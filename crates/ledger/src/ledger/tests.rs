use super::*;
use crate::metadata::table_hash;

const TABLE: &str = "ws_demo.events";

fn id(journal: u64, seq: u64) -> Identity {
    Identity {
        journal: JournalId(journal),
        partition: 3,
        seq,
    }
}

/// A first arrival of an event.
fn first(journal: u64, seq: u64) -> Arrival {
    Arrival {
        offset: seq,
        identity: id(journal, seq),
        attempt: 0,
        row: None,
    }
}

/// A copy that went round, read at an offset.
fn copy(seq: u64, attempt: u32, offset: u64) -> Arrival {
    Arrival {
        offset,
        attempt,
        ..first(1, seq)
    }
}

/// A ledger in which journal 1 was looked up and found new.
fn fresh() -> Ledger {
    let mut ledger = Ledger::restore(3, 0, None).expect("nothing to read").0;
    ledger.learn(JournalId(1), None);
    ledger
}

fn settle(ledger: &mut Ledger, next: Option<u64>) -> Commit {
    let settlement = ledger.settlement();
    ledger.settled(settlement, next).expect("small")
}

fn successor(commit: &Commit) -> (Ledger, Recovery) {
    Ledger::restore(3, commit.offset, Some(&commit.metadata)).expect("own metadata")
}

fn bad(seq: u64) -> BadRow {
    BadRow {
        journal: JournalId(1),
        seq,
        sub: 0,
    }
}

#[test]
fn a_record_that_was_settled_before_is_a_duplicate() {
    let mut ledger = fresh();
    ledger.plan(1).expect("small");
    assert_eq!(ledger.decide(&first(1, 0), None), Decision::Take);
    assert_eq!(ledger.decide(&first(1, 1), None), Decision::Take);
    settle(&mut ledger, Some(3));
    assert_eq!(ledger.decide(&first(1, 0), None), Decision::Duplicate);
    assert_eq!(ledger.decide(&first(1, 2), None), Decision::Take);
}

#[test]
fn nothing_is_dropped_for_being_early_and_what_comes_late_is_taken_once() {
    let mut ledger = fresh();
    ledger.plan(9).expect("small");
    let ahead = Decision::TakeAhead {
        journal: JournalId(1),
        missing: 0..5,
    };
    assert_eq!(ledger.decide(&first(1, 5), None), ahead);
    assert_eq!(ledger.decide(&first(1, 2), None), Decision::Take);
    assert_eq!(ledger.decide(&first(1, 2), None), Decision::Duplicate);
}

#[test]
fn an_identity_of_another_partition_is_foreign() {
    let mut elsewhere = first(1, 0);
    elsewhere.identity.partition = 4;
    assert_eq!(fresh().decide(&elsewhere, None), Decision::Foreign);
}

#[test]
fn a_copy_that_nobody_decided_is_taken_and_moves_no_watermark() {
    let mut ledger = fresh();
    ledger.plan(9).expect("small");
    assert_eq!(ledger.decide(&copy(0, 1, 4), None), Decision::Take);
    assert_eq!(ledger.decide(&first(1, 0), None), Decision::Take);
}

#[test]
fn a_copy_that_another_record_decided_is_a_duplicate_and_the_decider_itself_is_taken_again() {
    let mut ledger = fresh();
    ledger.plan(9).expect("small");
    let decider = Some(Place {
        partition: 3,
        offset: 4,
    });
    assert_eq!(ledger.decide(&copy(0, 1, 5), decider), Decision::Duplicate);
    assert_eq!(
        ledger.decide(&copy(0, 1, 4), decider),
        Decision::Take,
        "a successor finishing the plan"
    );
}

#[test]
fn of_two_copies_of_an_attempt_in_one_chunk_the_first_wins_and_other_attempts_are_others() {
    let mut ledger = fresh();
    ledger.plan(9).expect("small");
    assert_eq!(ledger.decide(&copy(0, 1, 4), None), Decision::Take);
    assert_eq!(ledger.decide(&copy(0, 1, 5), None), Decision::Duplicate);
    assert_eq!(ledger.decide(&copy(0, 2, 6), None), Decision::Take);
    ledger.decide_again();
    assert_eq!(ledger.decide(&copy(0, 1, 4), None), Decision::Take);
}

#[test]
fn two_rows_of_one_event_that_come_back_are_decided_each_for_itself() {
    let mut ledger = fresh();
    ledger.plan(9).expect("small");
    for (offset, sub) in [(4, 0), (5, 1)] {
        let row = Some((table_hash(TABLE), sub));
        let arrival = Arrival {
            row,
            ..copy(0, 1, offset)
        };
        assert_eq!(ledger.decide(&arrival, None), Decision::Take);
        assert_eq!(ledger.row(&arrival, table_hash(TABLE), sub), Fate::AskFirst);
    }
}

#[test]
fn a_row_that_two_records_of_a_chunk_bring_is_written_for_the_first() {
    let mut ledger = fresh();
    ledger.plan(9).expect("small");
    assert_eq!(ledger.row(&first(1, 0), table_hash(TABLE), 0), Fate::Insert);
    assert_eq!(ledger.row(&copy(0, 1, 5), table_hash(TABLE), 0), Fate::Repeated);
    assert_eq!(ledger.row(&copy(0, 1, 5), table_hash(TABLE), 1), Fate::Insert);
}

#[test]
fn of_two_records_that_bring_a_row_of_a_given_up_table_the_later_carries_it_on() {
    let mut ledger = fresh();
    ledger.plan(9).expect("small");
    ledger.give_up(table_hash(TABLE)).expect("small");
    let came_back = Arrival {
        row: Some((table_hash(TABLE), 0)),
        ..copy(0, 1, 5)
    };
    assert_eq!(ledger.decide(&first(1, 0), None), Decision::Take);
    assert_eq!(ledger.row(&first(1, 0), table_hash(TABLE), 0), Fate::HandOver);
    // The first one's copy will be attempt 1 again, which this record decides: it must make a copy too.
    assert_eq!(ledger.decide(&came_back, None), Decision::Take);
    assert_eq!(ledger.row(&came_back, table_hash(TABLE), 0), Fate::HandOver);
    assert_eq!(
        ledger.row(&came_back, table_hash("another"), 0),
        Fate::AskFirst,
        "where it can be written it is"
    );
}

#[test]
fn a_successor_finishes_the_plan_with_the_decisions_of_its_predecessor() {
    let mut ledger = fresh();
    ledger.plan(0).expect("small");
    ledger.decide(&first(1, 0), None);
    let commit = settle(&mut ledger, Some(2));
    // The predecessor decides and dies while it writes: none of that is in the commit.
    assert_eq!(ledger.decide(&first(1, 1), None), Decision::Take);

    let (mut next, recovery) = successor(&commit);
    assert_eq!(recovery, Recovery::Finish(Plan::new(1, 2)));
    assert_eq!(next.decide(&first(1, 0), None), Decision::Duplicate);
    assert_eq!(next.decide(&first(1, 1), None), Decision::Take);
    let commit = settle(&mut next, None);
    assert_eq!((commit.offset, successor(&commit).1), (3, Recovery::Clean));
}

#[test]
fn a_plan_made_anew_forgets_what_was_decided_for_the_one_before() {
    let mut ledger = fresh();
    ledger.plan(9).expect("small");
    assert_eq!(ledger.decide(&first(1, 0), None), Decision::Take);
    assert_eq!(ledger.decide(&first(1, 1), None), Decision::Take);
    ledger.plan(0).expect("small");
    assert_eq!(ledger.decide(&first(1, 0), None), Decision::Take);
    settle(&mut ledger, Some(1));
    assert_eq!(
        ledger.decide(&first(1, 1), None),
        Decision::Take,
        "it was never settled"
    );
}

#[test]
fn bad_rows_are_named_in_the_plan_that_a_successor_finds_and_are_never_inserted() {
    let mut ledger = fresh();
    ledger.plan(99).expect("small");
    ledger.name_bad_rows([bad(3), bad(4)]).expect("few");
    let commit = ledger.name_bad_rows([bad(4), bad(5)]).expect("few");
    let (mut next, recovery) = successor(&commit);
    let Recovery::Finish(plan) = recovery else {
        panic!("a plan was committed")
    };
    assert_eq!(plan.bad_rows, [bad(3), bad(4), bad(5)]);
    assert_eq!(next.row(&first(1, 3), table_hash(TABLE), 0), Fate::Dead);
    assert_eq!(next.row(&first(1, 6), table_hash(TABLE), 0), Fate::Insert);
}

#[test]
fn more_bad_rows_than_a_plan_can_name_are_a_failing_table_and_none_is_named() {
    let mut ledger = fresh();
    ledger.plan(99).expect("small");
    assert!(matches!(
        ledger.name_bad_rows((0..65).map(bad)),
        Err(MetadataError::TooManyBadRows(65))
    ));
    assert_eq!(ledger.current_plan(), Some(&Plan::new(0, 99)));
}

#[test]
fn rows_of_a_table_that_is_given_up_are_handed_over_by_whoever_finishes_the_plan_but_for_named_ones() {
    let mut ledger = fresh();
    ledger.plan(99).expect("small");
    ledger.name_bad_rows([bad(3)]).expect("few");
    let commit = ledger.give_up(table_hash(TABLE)).expect("small");
    let (mut next, _) = successor(&commit);
    assert_eq!(next.row(&first(1, 2), table_hash(TABLE), 0), Fate::HandOver);
    assert_eq!(next.row(&first(1, 3), table_hash(TABLE), 0), Fate::Dead);
    assert_eq!(
        next.row(&first(1, 4), table_hash("ws_demo.others"), 0),
        Fate::Insert
    );
    let row = Some((table_hash(TABLE), 0));
    let back = Arrival {
        row,
        ..copy(5, 1, 50)
    };
    assert_eq!(next.row(&back, table_hash(TABLE), 0), Fate::HandOver);
    settle(&mut next, Some(199));
    assert_eq!(
        next.row(&first(1, 6), table_hash(TABLE), 0),
        Fate::Insert,
        "only in that plan"
    );
}

#[test]
fn nothing_is_decided_about_a_journal_that_was_not_looked_up() {
    let mut ledger = fresh();
    ledger.plan(9).expect("small");
    let arrivals = [first(1, 0), first(2, 7), copy(1, 1, 8), first(2, 8)];
    assert_eq!(ledger.unknown(arrivals), [JournalId(2)].into());
    assert_eq!(ledger.decide(&first(2, 7), None), Decision::Unknown(JournalId(2)));
    ledger.learn(JournalId(2), None);
    assert_eq!(ledger.unknown(arrivals), [].into());
    assert!(matches!(
        ledger.decide(&first(2, 7), None),
        Decision::TakeAhead { .. }
    ));
}

#[test]
fn a_journal_that_left_the_metadata_goes_on_where_it_was_holes_included() {
    let capacity = Capacity {
        journals: 1,
        ..Capacity::default()
    };
    let mut ledger = fresh().with_capacity(capacity);
    ledger.learn(JournalId(2), None);
    ledger.plan(1).expect("small");
    ledger.decide(&first(1, 2), None);
    settle(&mut ledger, Some(3));
    ledger.learn(JournalId(2), None);
    ledger.decide(&first(2, 0), None);
    let settlement = ledger.settlement();
    let [left] = settlement.leaving() else {
        panic!("the one that was silent leaves: {settlement:?}")
    };
    let left = left.clone();
    assert_eq!((left.journal, left.position), (JournalId(1), 4));
    let commit = ledger.settled(settlement, None).expect("small");

    let (next, _) = successor(&commit);
    let mut next = next.with_capacity(capacity);
    next.plan(9).expect("small");
    assert_eq!(next.unknown([first(1, 1), first(2, 1)]), [JournalId(1)].into());
    next.learn(JournalId(1), Some(left.watermark));
    assert_eq!(next.decide(&first(1, 2), None), Decision::Duplicate);
    assert_eq!(next.decide(&first(1, 1), None), Decision::Take, "it was a hole");
    assert_eq!(next.decide(&first(1, 1), None), Decision::Duplicate);
}

#[test]
fn what_was_learned_is_not_written_again_unless_it_changed() {
    let mut ledger = fresh().with_capacity(Capacity {
        journals: 0,
        ..Capacity::default()
    });
    ledger.learn(JournalId(2), Watermark::from_parts(7, []));
    ledger.plan(0).expect("small");
    ledger.decide(&first(1, 0), None);
    assert_eq!(ledger.decide(&first(2, 6), None), Decision::Duplicate);
    let settlement = ledger.settlement();
    let leaving: Vec<_> = settlement.leaving().iter().map(|left| left.journal).collect();
    assert_eq!(leaving, [JournalId(1)]);
}

#[test]
fn a_journal_with_more_holes_than_the_metadata_takes_lives_in_the_table() {
    let mut ledger = fresh();
    ledger.plan(99).expect("small");
    for seq in (0..=66).step_by(2) {
        ledger.decide(&first(1, seq), None);
    }
    let settlement = ledger.settlement();
    assert_eq!(settlement.leaving().len(), 1);
    assert_eq!(settlement.leaving()[0].watermark.holes().len(), 33);
}

#[test]
fn however_many_journals_there_are_the_commit_has_room_for_a_plan_with_names() {
    let mut ledger = Ledger::restore(3, 0, None).expect("nothing to read").0;
    ledger.plan(999).expect("small");
    for journal in 0..1000 {
        ledger.learn(JournalId(journal), None);
        ledger.decide(&first(journal, 1 << 40), None);
    }
    let settlement = ledger.settlement();
    assert!(settlement.leaving().len() >= 800);
    ledger.settled(settlement, Some(5000)).expect("it fits");
    ledger.name_bad_rows((0..32).map(bad)).expect("it fits");
    ledger.give_up(1).expect("it fits");
}

#[test]
fn an_offset_that_does_not_match_its_plan_is_refused() {
    let commit = fresh().plan(4).expect("small");
    let error = Ledger::restore(3, 2, Some(&commit.metadata)).expect_err("someone moved the offset");
    assert!(matches!(error, MetadataError::Malformed(_)));
}

#[test]
fn a_partition_that_was_never_committed_starts_with_its_log() {
    let assigned = Ledger::assign(3, None, 5..9).expect("it starts");
    assert_eq!((assigned.ledger.settled_offset(), assigned.lost), (5, 0));
}

#[test]
fn where_nothing_is_committed_every_row_of_the_present_log_is_asked_for_and_no_later_one() {
    let mut ledger = Ledger::assign(3, None, 5..9).expect("it starts").ledger;
    ledger.learn(JournalId(1), None);
    let fates = |ledger: &mut Ledger, offsets: std::ops::Range<u64>| -> Vec<Fate> {
        let arrival = |offset| Arrival {
            offset,
            ..first(1, offset)
        };
        offsets.map(|offset| ledger.row(&arrival(offset), 7, 0)).collect()
    };
    ledger.plan(6).expect("small");
    assert_eq!(fates(&mut ledger, 5..7), [Fate::AskFirst; 2]);
    // A successor knows it from the commit.
    let commit = settle(&mut ledger, None);
    let (mut ledger, recovery) = successor(&commit);
    assert_eq!((recovery, ledger.asks_until()), (Recovery::Clean, Some(9)));
    ledger.plan(10).expect("small");
    assert_eq!(
        fates(&mut ledger, 7..11),
        [Fate::AskFirst, Fate::AskFirst, Fate::Insert, Fate::Insert]
    );
    let commit = settle(&mut ledger, None);
    assert_eq!(successor(&commit).0.asks_until(), None);
    let read = crate::Metadata::decode(&commit.metadata).expect("own metadata");
    assert_eq!(read.ask_until, 0, "the commits are as ever again");
}

#[test]
fn an_empty_log_has_nothing_to_ask_for() {
    let assigned = Ledger::assign(3, None, 9..9).expect("it starts");
    assert_eq!(assigned.ledger.asks_until(), None);
}

#[test]
fn a_partition_that_was_adopted_goes_on_and_asks() {
    let text = crate::Metadata::adopting(9).encode().expect("small");
    let assigned = Ledger::assign(3, Some((2, text.as_str())), 0..20).expect("it goes on");
    assert_eq!(assigned.recovery, Recovery::Clean);
    assert_eq!(
        (assigned.ledger.settled_offset(), assigned.ledger.asks_until()),
        (2, Some(9))
    );
}

#[test]
fn metadata_of_somebody_else_stops_the_partition() {
    for metadata in ["", "consumer-1 says hello"] {
        let stop = Ledger::assign(3, Some((2, metadata)), 0..9).expect_err("not ours");
        assert!(matches!(stop, Stop::Metadata { offset: 2, .. }));
    }
}

#[test]
fn an_offset_or_a_plan_above_the_log_stops_the_partition() {
    let commit = fresh().plan(9).expect("small");
    let held = Some((commit.offset, commit.metadata.as_str()));
    let stop = Ledger::assign(3, held, 0..9).expect_err("offset 9 is not there");
    assert_eq!(stop, Stop::PlanBeyondTheLog { last: 9, end: 9 });
    assert!(Ledger::assign(3, held, 0..10).is_ok());
    let stop = Ledger::assign(3, Some((10, commit.metadata.as_str())), 0..9).expect_err("above");
    assert_eq!(stop, Stop::BeyondTheLog { offset: 10, end: 9 });
}

#[test]
fn what_retention_deleted_before_it_was_settled_is_counted() {
    let commit = settle(&mut fresh(), None);
    let assigned = Ledger::assign(3, Some((commit.offset, commit.metadata.as_str())), 40..90);
    assert_eq!(assigned.expect("it goes on").lost, 40);
}
