//! Many events through one function at once: nothing of it shows, neither to the function nor in what comes out.

use super::*;

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| format!(r#"{{"n":{n}}}"#)).collect()
}

/// What becomes of so many numbered events.
fn swept(limits: Limits, code: &str, count: usize) -> (Vec<Outcome<String>>, Vec<LogLine>) {
    let events = numbered(count);
    let events: Vec<_> = events.iter().map(String::as_str).collect();
    run(&open_with(limits, &[code]), &events)
}

#[test]
fn every_event_comes_out_in_its_place_however_many_there_are() {
    for count in [1, 2, 31, 32, 33, 500] {
        let (outcomes, _) = swept(
            LIMITS,
            "export default (event) => { event.twice = event.n * 2; }",
            count,
        );
        for (n, outcome) in outcomes.iter().enumerate() {
            assert_eq!(forwarded(outcome), [format!(r#"{{"n":{n},"twice":{}}}"#, 2 * n)]);
        }
    }
}

#[test]
fn what_a_function_shares_between_events_is_written_as_each_of_them_left_it() {
    let code = "const shared = { seen: 0 }; const out = {}; let last;
        export default (event) => {
            if (last) last.late = true;
            last = event;
            shared.seen++;
            if (event.n % 2) { out.n = event.n; out.shared = shared; return out; }
            event.shared = shared;
        }";
    let (outcomes, _) = swept(LIMITS, code, 100);
    for (n, outcome) in outcomes.iter().enumerate() {
        let expected = format!(r#"{{"n":{n},"shared":{{"seen":{}}}}}"#, n + 1);
        assert_eq!(forwarded(outcome), [expected]);
    }
}

#[test]
fn each_event_gets_its_own_verdict_whatever_its_neighbours_do() {
    let code = "class Kind { constructor(n) { this.kind = n; } }
        export default (event) => {
            switch (event.n % 12) {
                case 0: return;
                case 1: return null;
                case 2: return false;
                case 3: return 'drop';
                case 4: return [];
                case 5: return [{ a: event.n }, { b: event.n }];
                case 6: throw new Error(`no ${event.n}`);
                case 7: throw new RetryError('later', { after: '5s' });
                case 8: return 'dorp';
                case 9: return new Kind(event.n);
                case 10: event.self = event; return;
                case 11: return Promise.resolve({ promised: event.n });
            }
        }";
    let (outcomes, _) = swept(LIMITS, code, 120);
    for (n, outcome) in outcomes.iter().enumerate() {
        match n % 12 {
            0 => assert_eq!(forwarded(outcome), [format!(r#"{{"n":{n}}}"#)]),
            1..=4 => assert_eq!(outcome.verdict, Verdict::Drop, "{n}: {outcome:?}"),
            5 => {
                let both = [format!(r#"{{"a":{n}}}"#), format!(r#"{{"b":{n}}}"#)];
                assert_eq!(forwarded(outcome), both);
            }
            6 => {
                let (code, message) = refused(outcome);
                assert_eq!(
                    (code, message),
                    (FunctionCode::Thrown, &*format!("Error: no {n}"))
                );
            }
            7 => {
                assert_eq!(outcome.verdict, Verdict::Retry, "{outcome:?}");
                assert_eq!(outcome.retry_after_ms, Some(5_000));
            }
            8 => assert_eq!(refused(outcome).0, FunctionCode::InvalidReturn),
            9 => assert_eq!(forwarded(outcome), [format!(r#"{{"kind":{n}}}"#)]),
            10 => assert_eq!(refused(outcome).0, FunctionCode::Thrown),
            _ => assert_eq!(forwarded(outcome), [format!(r#"{{"promised":{n}}}"#)]),
        }
    }
}

#[test]
fn on_error_is_about_the_event_that_failed() {
    let throws =
        "export default (event) => { event.touched = 1; if (event.n % 3 === 1) throw new Error('no'); }";
    for (on_error, verdict) in [
        ("pass", Verdict::Forward),
        ("drop", Verdict::Drop),
        ("retry", Verdict::Retry),
        ("dead-letter", Verdict::DeadLetter),
    ] {
        let code = format!("export const config = {{ onError: '{on_error}' }}; {throws}");
        let (outcomes, _) = swept(LIMITS, &code, 70);
        for (n, outcome) in outcomes.iter().enumerate() {
            if n % 3 != 1 {
                assert_eq!(forwarded(outcome), [format!(r#"{{"n":{n},"touched":1}}"#)]);
                continue;
            }
            assert_eq!(outcome.verdict, verdict, "{on_error}, {n}: {outcome:?}");
            if on_error == "pass" {
                assert_eq!(forwarded(outcome), [format!(r#"{{"n":{n}}}"#)]);
            }
        }
    }
}

#[test]
fn microtasks_of_an_event_run_before_the_next_event_does() {
    let code = "let settled = 0;
        export default (event) => { event.settled = settled; if (event.n >= 10) Promise.resolve().then(() => settled++); }";
    let (outcomes, _) = swept(LIMITS, code, 60);
    for (n, outcome) in outcomes.iter().enumerate() {
        let expected = format!(r#"{{"n":{n},"settled":{}}}"#, n.saturating_sub(10));
        assert_eq!(forwarded(outcome), [expected]);
    }
}

#[test]
fn lines_belong_to_the_event_that_wrote_them_and_each_has_as_many_as_it_may() {
    let code = "export default (event) => { for (let i = 0; i < event.n; i++) console.log(event.n); }";
    let limits = Limits {
        log_lines: 5,
        ..LIMITS
    };
    let (_, lines) = swept(limits, code, 40);
    for n in 0..40 {
        let own: Vec<_> = lines.iter().filter(|line| line.index == Some(n)).collect();
        assert_eq!(own.len(), n.min(5), "event {n}");
        assert!(
            own.iter()
                .all(|line| line.message == n.to_string() && line.position == Some(0))
        );
    }
}

#[test]
fn timers_and_limits_are_counted_for_each_event_alone() {
    let timers = "export default (event) => { for (let i = 0; i < 60; i++) setTimeout(() => {}, 1000); event.set = true; }";
    let (outcomes, _) = swept(LIMITS, timers, 50);
    outcomes.iter().for_each(|outcome| {
        forwarded(outcome);
    });

    let limits = Limits {
        wall_ms: 1000,
        output_bytes: 1000,
        ..LIMITS
    };
    let code = "export default (event) => {
            if (event.n % 40 === 7) for (;;);
            if (event.n % 40 === 9) event.text = 'x'.repeat(2000);
            event.ok = true;
        }";
    let (outcomes, _) = swept(limits, code, 80);
    for (n, outcome) in outcomes.iter().enumerate() {
        match n % 40 {
            7 => assert_eq!(refused(outcome).0, FunctionCode::WallLimit),
            9 => assert_eq!(refused(outcome).0, FunctionCode::OutputLimit),
            _ => assert_eq!(forwarded(outcome), [format!(r#"{{"n":{n},"ok":true}}"#)]),
        }
    }
}

#[test]
fn events_past_the_budget_of_their_batch_come_back_and_those_before_it_are_done() {
    let events = numbered(64);
    let events: Vec<_> = events.iter().map(String::as_str).collect();
    let code = "export default (event) => { if (event.n === 20) { for (;;); } event.ok = true; }";
    let (outcomes, _) = run_within(&open_with(LIMITS, &[code]), 0, Some(2_000), &events);
    for (n, outcome) in outcomes.iter().enumerate() {
        if n < 20 {
            forwarded(outcome);
        } else {
            assert_eq!(outcome.verdict, Verdict::Retry, "{n}: {outcome:?}");
        }
    }
}

#[test]
fn every_event_has_its_own_context_and_the_largest_come_through() {
    let chain = open_with(
        LIMITS,
        &[
            "export default (event, ctx) => { event.attempt = ctx.attempt; event.size = event.text.length; event.text = ''; }",
        ],
    );
    let sizes = [10, 40_000, 70_000, 20_000, 20_000, 30_000, 200_000, 1, 2, 3];
    let events: Vec<_> = sizes
        .iter()
        .map(|size| format!(r#"{{"text":"{}"}}"#, "ä".repeat(*size)))
        .collect();
    let contexts: Vec<_> = (0..sizes.len())
        .map(|n| format!(r#"{{"attempt":{n}}}"#))
        .collect();
    let records = events.iter().zip(&contexts).map(|(event, context)| Record {
        context,
        event,
        position: 0,
    });
    let batch = Batch {
        chain: "chain",
        version: 1,
        records: records.collect(),
        budget_ms: None,
    };
    let (answer, _) = chain
        .run(batch.encode().expect("it fits"), |_| Ok(()))
        .expect("the chain lives");
    let outcomes = read(answer);
    for (n, (outcome, size)) in outcomes.iter().zip(sizes).enumerate() {
        assert_eq!(
            forwarded(outcome),
            [format!(r#"{{"text":"","attempt":{n},"size":{size}}}"#)]
        );
    }
}

#[test]
fn async_functions_are_swept_and_each_event_gets_what_it_would_get_alone() {
    let code = r#"const shared = { seen: 0 };
        export default async (event) => {
            shared.seen++;
            event.seen = shared.seen;
            switch (event.n % 10) {
                case 1: throw new Error("no " + event.n);
                case 2: return null;
                case 3: return [event, { copy: event.n }];
                case 4: await 0; await Promise.resolve(1); event.waited = true; return;
                case 5: await new Promise((go) => setTimeout(go, 1)); event.slept = true; return;
                case 6: Promise.resolve().then(() => { event.late = true; }); return event;
                case 7: return Promise.resolve({ other: event.n });
                case 8: setTimeout(() => { shared.seen = -1000; }, 0); return event;
                case 9: return 7;
            }
        };"#;
    let (outcomes, _) = swept(LIMITS, code, 100);
    for (n, outcome) in outcomes.iter().enumerate() {
        let seen = n + 1;
        let rest = match n % 10 {
            1 => {
                assert_eq!(
                    refused(outcome),
                    (FunctionCode::Thrown, &*format!("Error: no {n}"))
                );
                continue;
            }
            2 => {
                assert_eq!(outcome.verdict, Verdict::Drop);
                continue;
            }
            3 => {
                let copy = format!(r#"{{"copy":{n}}}"#);
                let same = format!(r#"{{"n":{n},"seen":{seen}}}"#);
                assert_eq!(forwarded(outcome), [same, copy]);
                continue;
            }
            7 => {
                assert_eq!(forwarded(outcome), [format!(r#"{{"other":{n}}}"#)]);
                continue;
            }
            9 => {
                assert_eq!(refused(outcome).0, FunctionCode::InvalidReturn);
                continue;
            }
            4 => r#","waited":true"#,
            5 => r#","slept":true"#,
            6 => r#","late":true"#,
            _ => "",
        };
        assert_eq!(
            forwarded(outcome),
            [format!(r#"{{"n":{n},"seen":{seen}{rest}}}"#)]
        );
    }
}

#[test]
fn what_an_async_function_leaves_running_without_an_end_is_its_own_event_s_to_pay_for() {
    let code = "export default async (event) => {
            if (event.n === 3) { (async () => { for (;;) await 0; })(); }
            if (event.n === 5) { for (;;); }
        }";
    let limits = Limits {
        wall_ms: 2_000,
        ..LIMITS
    };
    let (outcomes, _) = swept(limits, code, 8);
    for (n, outcome) in outcomes.iter().enumerate() {
        if n == 3 || n == 5 {
            assert_eq!(refused(outcome).0, FunctionCode::WallLimit, "{n}");
        } else {
            assert_eq!(forwarded(outcome), [format!(r#"{{"n":{n}}}"#)]);
        }
    }
}

#[test]
fn a_call_that_an_async_function_did_not_wait_for_ends_with_its_event() {
    let code = "export default async (event, { store }) => { if (event.n % 2) store.get('k' + event.n); }";
    let chain = open_with(LIMITS, &[code]);
    let events = numbered(10);
    let events: Vec<_> = events.iter().map(String::as_str).collect();
    let (outcomes, seen) = outside::run_owned(&chain, &events, |_| None);
    for (n, outcome) in outcomes.iter().enumerate() {
        assert_eq!(forwarded(outcome), [format!(r#"{{"n":{n}}}"#)]);
    }
    assert_eq!((seen.calls.len(), seen.cancelled), (5, 5));
}
