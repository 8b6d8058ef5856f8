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
        value,
        headers,
    }
}

/// Books in which the first ten offsets are settled.
fn books() -> Books {
    Books::new(None, [(0, 10)].into())
}

fn place(sub: u16) -> Held {
    ("ws_a.events".to_owned(), JournalId(0xaa), 0, 7, sub)
}

#[test]
fn rows_that_are_there_once_are_in_order_and_others_are_named() {
    let mut books = books();
    books.decided(0, &log(0, 0, "forward", 2));
    let held: BTreeMap<_, _> = [(place(0), 1), (place(1), 1)].into();
    assert!(books.findings(&held).is_clean());
    let held: BTreeMap<_, _> = [(place(0), 2), (place(2), 1)].into();
    let findings = books.findings(&held);
    assert_eq!(
        findings.duplicated,
        [format!("{ID} sub 0 in ws_a.events, 2 times")]
    );
    assert_eq!(findings.missing, [format!("{ID} sub 1 in ws_a.events")]);
    assert_eq!(findings.stray, [format!("{ID} sub 2 in ws_a.events, 1 times")]);
}

#[test]
fn the_first_record_of_an_attempt_decides_and_later_ones_are_duplicates() {
    let mut books = books();
    books.decided(0, &log(0, 0, "drop", 0));
    books.decided(0, &log(1, 0, "forward", 1));
    let findings = books.findings(&BTreeMap::new());
    assert!(findings.is_clean());
    assert_eq!(findings.duplicates, 1);
    let stray = books.findings(&[(place(0), 1)].into());
    assert_eq!(stray.stray.len(), 1, "the drop was first");
}

#[test]
fn an_event_that_was_to_go_round_waits_while_its_copy_does_and_is_lost_without_one() {
    let mut books = books();
    books.decided(0, &log(0, 0, "retry", 0));
    let lost = books.findings(&BTreeMap::new());
    assert_eq!(lost.lost, [format!("{ID}, attempt 0: retry")]);
    books.waiting(0, &copy(1));
    let findings = books.findings(&BTreeMap::new());
    assert!(findings.is_clean());
    assert_eq!(
        findings.hours.values().map(|counts| counts.waiting).sum::<u64>(),
        1
    );
    // Its copy was read, and the event is a dead letter now.
    books.decided(0, &log(1, 1, "dead_letter", 0));
    assert!(!books.findings(&BTreeMap::new()).is_clean());
    books.dead(0, &copy(1));
    assert!(books.findings(&BTreeMap::new()).is_clean());
}

#[test]
fn what_is_not_settled_yet_is_under_way_and_not_missing() {
    let mut books = books();
    books.decided(0, &log(10, 0, "forward", 1));
    let findings = books.findings(&BTreeMap::new());
    assert!(findings.is_clean());
    assert_eq!(
        findings
            .hours
            .values()
            .map(|counts| counts.under_way)
            .sum::<u64>(),
        1
    );
}

#[test]
fn events_before_the_time_asked_for_are_not_judged() {
    let since = "2026-11-21T05:00:00.000Z".parse().expect("a time");
    let mut books = Books::new(Some(since), [(0, 10)].into());
    books.decided(0, &log(0, 0, "forward", 1));
    assert_eq!(books.findings(&BTreeMap::new()).events, 0);
}
