use millrace_event::header::Headers;

use super::*;

const ID: &str = "00000000000000aa-0-7";

fn log(offset: u64, attempt: u32, verdict: &str, outputs: usize) -> Record {
    let output = r#"{"destination":"d","table":"ws_a.events","config_version":1,"event":{}}"#;
    let outputs = vec![output; outputs].join(",");
    let value = format!(
        r#"{{"version":1,"id":"{ID}","attempt":{attempt},"origin":{{"workspace":"w","source":"s","message_id":"m",
           "received_at":"2026-11-21T04:05:06.000Z"}},"verdict":"{verdict}","outputs":[{outputs}]}}"#
    );
    record(offset, value.into_bytes(), Headers::new())
}

fn copy(attempt: u32) -> Record {
    let headers = Headers::new()
        .with(header::ID, ID)
        .with(header::ATTEMPT, attempt.to_string());
    record(0, Vec::new(), headers)
}

fn record(offset: u64, value: Vec<u8>, headers: Headers) -> Record {
    Record {
        offset,
        timestamp_ms: 0,
        key: None,
        value: value.into(),
        headers,
    }
}

/// Books in which the first ten offsets are settled.
fn books() -> Books {
    books_since(None)
}

fn books_since(since: Option<Timestamp>) -> Books {
    let terms = Terms {
        since,
        settled: [(0, 10)].into(),
        most: 100,
        ..Terms::default()
    };
    Books::new(&terms, &Scope::of(vec![0]))
}

/// What comes out when the table holds these rows of the event, by sub.
fn findings(mut books: Books, held: &[(u16, u64)]) -> Findings {
    let question = Question {
        table: "ws_a.events".to_owned(),
        journal: JournalId(0xaa),
        partition: 0,
        seqs: 7..=7,
    };
    let asked = books.questions();
    assert!(asked.iter().all(|asked| *asked == question), "{asked:?}");
    let held = held.iter().map(|(sub, copies)| ((7, *sub), *copies)).collect();
    let mut findings = Findings::default();
    books.compare(&question, &held, &mut findings);
    books.report(&mut findings);
    findings
}

fn names(found: &super::super::findings::Named) -> Vec<&str> {
    found.names().collect()
}

fn sum(findings: &Findings, count: impl Fn(&super::super::findings::Counts) -> u64) -> u64 {
    findings.hours.values().map(count).sum()
}

#[test]
fn rows_that_are_there_once_are_in_order_and_others_are_named() {
    let books = || {
        let mut books = books();
        books.decided(0, &log(0, 0, "forward", 2));
        books
    };
    assert!(findings(books(), &[(0, 1), (1, 1)]).is_clean());
    let findings = findings(books(), &[(0, 2), (2, 1)]);
    assert_eq!(
        names(&findings.duplicated),
        [format!("{ID} sub 0 in ws_a.events, 2 times")]
    );
    assert_eq!(names(&findings.missing), [format!("{ID} sub 1 in ws_a.events")]);
    assert_eq!(
        names(&findings.stray),
        [format!("{ID} sub 2 in ws_a.events, 1 times")]
    );
}

#[test]
fn the_first_record_of_an_attempt_decides_and_later_ones_are_duplicates() {
    let books = || {
        let mut books = books();
        books.decided(0, &log(0, 0, "drop", 0));
        books.decided(0, &log(1, 0, "forward", 1));
        books
    };
    let clean = findings(books(), &[]);
    assert!(clean.is_clean());
    assert_eq!((clean.duplicates, clean.events), (1, 1));
    assert_eq!(
        findings(books(), &[(0, 1)]).stray.count(),
        1,
        "the drop was first"
    );
}

#[test]
fn an_event_that_was_to_go_round_waits_while_its_copy_does_and_is_lost_without_one() {
    let books = |way: &[&str]| {
        let mut books = books();
        books.decided(0, &log(0, 0, "retry", 0));
        for step in way {
            match *step {
                "copy" => books.waiting(0, &copy(1)),
                "read" => books.decided(0, &log(1, 1, "dead_letter", 0)),
                _ => books.dead(0, &copy(1)),
            }
        }
        findings(books, &[])
    };
    assert_eq!(names(&books(&[]).lost), [format!("{ID}, attempt 0: retry")]);
    let waiting = books(&["copy"]);
    assert!(waiting.is_clean());
    assert_eq!(sum(&waiting, |counts| counts.waiting), 1);
    // Its copy was read, and the event is a dead letter now.
    assert!(!books(&["copy", "read"]).is_clean());
    assert!(books(&["copy", "read", "letter"]).is_clean());
}

#[test]
fn what_is_not_settled_yet_is_under_way_and_not_missing() {
    let mut books = books();
    books.decided(0, &log(10, 0, "forward", 1));
    let findings = findings(books, &[]);
    assert!(findings.is_clean());
    assert_eq!(sum(&findings, |counts| counts.under_way), 1);
}

#[test]
fn events_before_the_time_asked_for_are_not_judged() {
    let since = "2026-11-21T05:00:00.000Z".parse().expect("a time");
    let mut books = books_since(Some(since));
    books.decided(0, &log(0, 0, "forward", 1));
    assert_eq!(findings(books, &[]).events, 0);
}

#[test]
fn books_are_full_past_their_bound_and_an_entry_takes_no_more_than_is_said() {
    let terms = Terms {
        most: 3,
        ..Terms::default()
    };
    let mut books = Books::new(&terms, &Scope::of(vec![0]));
    books.decided(0, &log(0, 0, "forward", 2));
    assert!(!books.is_full(), "an event and two rows");
    books.dead(0, &copy(1));
    assert!(books.is_full());
    // A leaf of a B-tree has room for 11 entries and holds at least 5; beside them there are a pointer and two lengths, and
    // for every sixth leaf a node above.
    let entry = [
        size_of::<(Identity, Event)>(),
        size_of::<Key>(),
        size_of::<RowOf>(),
        size_of::<Identity>(),
    ];
    let largest = entry.into_iter().max().expect("several");
    let leaf = 11 * largest + 16;
    let bound = leaf.div_ceil(5) + leaf.div_ceil(5 * 6);
    println!("an entry takes {bound} bytes at most, {largest} of them its own");
    assert!(u64::try_from(bound).expect("small") <= BYTES_PER_ENTRY, "{bound}");
}
