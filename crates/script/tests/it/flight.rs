//! Several events of a batch in flight, where the functions allow it: each with its own account.

use std::collections::BTreeSet;

use millrace_event::frame::Reply;
use millrace_script::Said;

use super::outside::run_owned;
use super::*;

const WAITS: &str = r#"export const config = { inFlight: 4 };
    export default async (event, { store, log }) => {
        log.info(`begin ${event.n}`);
        if (event.loops) for (;;);
        if (event.waits) await store.get(`k${event.n}`);
        event.ok = true;
    }"#;

fn waiting(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| format!(r#"{{"n":{n},"waits":true}}"#))
        .collect()
}

/// Runs events and answers no call before `together` of them wait; says how many ever waited at once.
fn run_together(
    chain: &Chain,
    events: &[String],
    together: usize,
) -> (Vec<Outcome<String>>, Vec<LogLine>, usize) {
    let records = events.iter().map(|event| Record {
        context: "{}",
        event,
        position: 0,
    });
    let batch = Batch {
        budget_ms: None,
        chain: "chain",
        version: 1,
        records: records.collect(),
    };
    let (mut held, mut most) = (BTreeSet::new(), 0);
    let (answer, logged) = chain
        .run(batch.encode().expect("it fits"), |said| {
            match said {
                Said::Call(id, _) => assert!(held.insert(id)),
                Said::Cancel(id) => assert!(held.remove(&id)),
                Said::Progress(_) => {}
            }
            most = most.max(held.len());
            if held.len() >= together {
                for id in std::mem::take(&mut held).into_iter().rev() {
                    host().replies().deliver(id, Reply::Done(raw("null")));
                }
            }
            Ok(())
        })
        .expect("the chain lives");
    (read(answer), logged.lines, most)
}

fn in_order(outcomes: &[Outcome<String>]) {
    for (n, outcome) in outcomes.iter().enumerate() {
        assert_eq!(
            forwarded(outcome),
            [format!(r#"{{"n":{n},"waits":true,"ok":true}}"#)]
        );
    }
}

#[test]
fn as_many_events_wait_at_once_as_the_function_allows_and_come_out_in_order() {
    let chain = open_with(LIMITS, &[WAITS]);
    // The first batch loads the code, which says how many may be in flight.
    let (outcomes, _, most) = run_together(&chain, &waiting(3), 1);
    in_order(&outcomes);
    assert_eq!((most, chain.isolates()), (1, 1));
    let (outcomes, lines, most) = run_together(&chain, &waiting(20), 4);
    in_order(&outcomes);
    assert_eq!((most, chain.isolates()), (4, 4));
    let said: Vec<_> = lines
        .iter()
        .map(|line| (line.index, line.message.clone()))
        .collect();
    let expected: Vec<_> = (0..20).map(|n| (Some(n), format!("begin {n}"))).collect();
    assert_eq!(said, expected, "each line is its event's");
}

#[test]
fn without_a_word_of_the_function_one_event_runs_after_the_other() {
    let chain = open_with(LIMITS, &[&WAITS.replace("inFlight: 4", "timeout: '60s'")]);
    for _ in 0..2 {
        let (outcomes, _, most) = run_together(&chain, &waiting(5), 1);
        in_order(&outcomes);
        assert_eq!((most, chain.isolates()), (1, 1));
    }
    // And of several functions the one that allows the fewest decides.
    let chain = open_with(LIMITS, &[WAITS, "export default () => {};"]);
    for _ in 0..2 {
        assert_eq!(run_together(&chain, &waiting(5), 1).2, 1);
    }
}

#[test]
fn an_event_that_meets_its_limit_takes_none_of_those_in_flight_with_it() {
    let chain = open_with(
        Limits {
            wall_ms: 1000,
            ..LIMITS
        },
        &[WAITS],
    );
    let answered = |events: &[&str]| run_owned(&chain, events, |_| Some(Reply::Done(raw("null")))).0;
    answered(&[r#"{"n":0}"#]);
    for _round in 0..2 {
        let events: Vec<String> = (0..12)
            .map(|n| {
                format!(
                    r#"{{"n":{n},"waits":true{}}}"#,
                    if n % 5 == 2 { r#","loops":true"# } else { "" }
                )
            })
            .collect();
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        for (n, outcome) in answered(&events).iter().enumerate() {
            if n % 5 == 2 {
                assert_eq!(refused(outcome).0, FunctionCode::WallLimit, "{n}");
            } else {
                assert_eq!(
                    forwarded(outcome),
                    [format!(r#"{{"n":{n},"waits":true,"ok":true}}"#)]
                );
            }
        }
    }
}

#[test]
fn how_many_may_be_in_flight_is_a_whole_number_within_bounds() {
    for bad in ["0", "9", "-1", "1.5", "'many'", "NaN"] {
        let code = format!("export const config = {{ inFlight: {bad} }}; export default () => {{}};");
        let outcome = once(&code, "{}");
        assert_eq!(
            refused(&outcome).0,
            FunctionCode::CompileError,
            "{bad}: {outcome:?}"
        );
    }
    forwarded(&once(
        "export const config = { inFlight: 8 }; export default () => {};",
        "{}",
    ));
}
