//! What an isolate does about functions that do not behave, as far as one process can.

use super::*;

/// The innocent share it, so it is long for what they do.
const TIGHT: Limits = Limits {
    wall_ms: 1000,
    ..LIMITS
};

/// A batch with the event in the middle: it gets `code`, its neighbours their own verdict.
#[track_caller]
fn guilty_among_innocents(limits: Limits, body: &str, code: FunctionCode) {
    let function = format!(
        "export default async (event) => {{ if (!event.bad) {{ event.ok = true; return; }} {body} }}"
    );
    let chain = open_with(limits, &[&function]);
    for _round in 0..2 {
        let (outcomes, _) = run(
            &chain,
            &[
                r#"{"n":1}"#,
                r#"{"bad":1}"#,
                r#"{"n":2}"#,
                r#"{"bad":2}"#,
                r#"{"n":3}"#,
            ],
        );
        for (at, n) in [(0, 1), (2, 2), (4, 3)] {
            assert_eq!(
                forwarded(&outcomes[at]),
                [format!(r#"{{"n":{n},"ok":true}}"#)],
                "{body}"
            );
        }
        for at in [1, 3] {
            assert_eq!(refused(&outcomes[at]).0, code, "{body}: {:?}", outcomes[at]);
        }
    }
}

#[test]
fn an_endless_loop_meets_the_wall_limit() {
    guilty_among_innocents(TIGHT, "for (;;);", FunctionCode::WallLimit);
}

#[test]
fn a_loop_that_catches_everything_meets_the_wall_limit() {
    guilty_among_innocents(
        TIGHT,
        "for (;;) { try { for (;;); } catch {} finally { continue; } }",
        FunctionCode::WallLimit,
    );
}

#[test]
fn endless_microtasks_meet_the_wall_limit() {
    guilty_among_innocents(TIGHT, "for (;;) await null;", FunctionCode::WallLimit);
}

#[test]
fn an_endless_getter_of_the_returned_event_meets_the_wall_limit() {
    guilty_among_innocents(
        TIGHT,
        "return { get trap() { for (;;); } };",
        FunctionCode::WallLimit,
    );
}

#[test]
fn an_endless_loop_at_the_top_level_meets_the_wall_limit() {
    let (outcomes, _) = run(
        &open_with(TIGHT, &["for (;;); export default () => {};"]),
        &["{}", "{}"],
    );
    assert_eq!(refused(&outcomes[0]).0, FunctionCode::WallLimit);
    assert_eq!(refused(&outcomes[1]).0, FunctionCode::WallLimit);
}

#[test]
fn a_functions_own_timeout_counts_when_it_is_shorter() {
    let code = "export const config = { timeout: '50ms' }; export default () => { for (;;); };";
    let limits = Limits {
        wall_ms: 3_600_000,
        ..LIMITS
    };
    let (outcomes, _) = run(&open_with(limits, &[code]), &["{}"]);
    assert_eq!(refused(&outcomes[0]).0, FunctionCode::WallLimit);
}

#[test]
fn a_functions_own_timeout_does_not_bind_the_next_function() {
    let hasty = "export const config = { timeout: '500ms' }; export default () => {};";
    let slow = "export default (event) => {
        const until = Date.now() + 700;
        while (Date.now() < until);
        event.done = true;
    };";
    let limits = Limits {
        wall_ms: 60_000,
        ..LIMITS
    };
    let (outcomes, _) = run(&open_with(limits, &[hasty, slow]), &["{}"]);
    assert_eq!(forwarded(&outcomes[0]), [r#"{"done":true}"#]);
}

#[test]
fn a_promise_that_nothing_can_settle_is_noticed_at_once() {
    guilty_among_innocents(
        Limits {
            wall_ms: 3_600_000,
            ..LIMITS
        },
        "await new Promise(() => {});",
        FunctionCode::Unsettled,
    );
}

#[test]
fn a_heap_that_grows_meets_the_heap_limit() {
    guilty_among_innocents(
        Limits {
            wall_ms: 30_000,
            ..LIMITS
        },
        "const kept = []; for (;;) kept.push({ n: kept.length });",
        FunctionCode::HeapLimit,
    );
}

#[test]
fn deep_recursion_is_a_throw() {
    guilty_among_innocents(LIMITS, "const f = () => f() + 1; f();", FunctionCode::Thrown);
}

#[test]
fn a_result_over_the_limit_is_refused() {
    let limits = Limits {
        output_bytes: 1000,
        ..LIMITS
    };
    guilty_among_innocents(
        limits,
        "event.text = 'x'.repeat(1000);",
        FunctionCode::OutputLimit,
    );
    guilty_among_innocents(limits, "event.text = 'é'.repeat(499);", FunctionCode::OutputLimit);
}

#[test]
fn more_events_than_allowed_are_refused_anywhere_in_the_chain() {
    let split = "export default (event) => Array.from({ length: 11 }, (_, n) => ({ n }))";
    let (outcomes, _) = run(&open_with(LIMITS, &[split]), &["{}"]);
    assert_eq!(forwarded(&outcomes[0]).len(), 11);
    let (outcomes, _) = run(
        &open_with(LIMITS, &[split, split, "export default () => null"]),
        &["{}"],
    );
    assert_eq!(refused(&outcomes[0]).0, FunctionCode::OutputLimit);
}

/// The binding of QuickJS itself uses what the global object holds.
#[cfg(feature = "engine-v8")]
#[test]
fn intrinsics_that_a_function_overwrites_are_not_the_ones_that_are_used() {
    let code = "
        const evil = () => { throw new Error('evil'); };
        JSON.parse = JSON.stringify = evil;
        Array.isArray = evil;
        Array.prototype[Symbol.iterator] = Array.prototype.push = Array.prototype.map = evil;
        Object.defineProperty(Array.prototype, '0', { set: evil, configurable: true });
        Object.defineProperty(Object.prototype, 'attempt', { set: evil, configurable: true });
        String.prototype.slice = evil;
        Promise.prototype.then = evil;
        Function.prototype.call = Function.prototype.apply = evil;
        Reflect.apply = Object.keys = evil;
        export default (event, ctx) => { event.attempt2 = ctx.attempt; ctx.log.info('still here'); }";
    let (outcomes, lines) = run(&open_with(LIMITS, &[code]), &[r#"{"a":[1]}"#]);
    assert_eq!(forwarded(&outcomes[0]), [r#"{"a":[1],"attempt2":2}"#]);
    assert_eq!(lines[0].message, "still here");
}

#[test]
fn a_rejection_that_nobody_handles_harms_no_neighbour() {
    let code = "export default (event) => { (async () => { throw new Error('lost'); })(); event.ok = 1; }";
    let (outcomes, _) = run(&open_with(LIMITS, &[code]), &["{}", "{}"]);
    assert_eq!(forwarded(&outcomes[0]), [r#"{"ok":1}"#]);
    assert_eq!(forwarded(&outcomes[1]), [r#"{"ok":1}"#]);
}

#[test]
fn processor_time_has_a_limit_of_its_own_and_waiting_is_none() {
    let limits = Limits {
        wall_ms: 3_600_000,
        cpu_ms: Some(300),
        ..LIMITS
    };
    guilty_among_innocents(limits, "for (;;);", FunctionCode::CpuLimit);
    guilty_among_innocents(limits, "for (;;) await null;", FunctionCode::CpuLimit);
    let waits = "export default async (event) => {
        await new Promise((done) => setTimeout(done, 700));
        event.done = true;
    }";
    let (outcomes, _) = run(&open_with(limits, &[waits]), &["{}"]);
    assert_eq!(forwarded(&outcomes[0]), [r#"{"done":true}"#]);
}

#[test]
fn the_function_that_ran_into_a_limit_is_named() {
    let loops = "export default () => { for (;;); }";
    let (outcomes, _) = run(&open_with(TIGHT, &["export default () => {}", loops]), &["{}"]);
    let fault = outcomes[0].fault.as_ref().expect("a fault");
    assert_eq!(
        (fault.code, fault.function.as_deref(), fault.function_version),
        (FunctionCode::WallLimit, Some("fn_1"), Some(5))
    );
}

#[test]
fn past_the_budget_of_a_batch_events_go_round_again_and_none_is_blamed() {
    let code = "export default (event) => { if (event.bad) for (;;); event.ok = 1; }";
    let limits = Limits {
        wall_ms: 3_600_000,
        ..LIMITS
    };
    let chain = open_with(limits, &[code]);
    let events = [r#"{"n":1}"#, r#"{"bad":1}"#, r#"{"n":2}"#];
    let (outcomes, _) = run_within(&chain, 0, Some(1000), &events);
    assert_eq!(forwarded(&outcomes[0]), [r#"{"n":1,"ok":1}"#]);
    for late in &outcomes[1..] {
        assert_eq!(late.verdict, Verdict::Retry, "{late:?}");
        assert_eq!(late.retry_after_ms, None, "the first tier");
        let fault = late.fault.as_ref().expect("a retry says why");
        assert_eq!(fault.code, FunctionCode::WallLimit);
        assert!(fault.message.contains("its workspace"), "{fault:?}");
    }
    let (outcomes, _) = run_within(&chain, 0, Some(60_000), &[r#"{"n":2}"#]);
    assert_eq!(forwarded(&outcomes[0]), [r#"{"n":2,"ok":1}"#]);
}

/// QuickJS notes no frames that could be read without running code of the function.
#[cfg(feature = "engine-v8")]
#[test]
fn an_error_carries_the_frames_of_the_chains_functions_and_no_others() {
    let code = "const inner = () => {
  throw new Error('deep');
};
export default function outer(event) {
  [1].forEach(() => inner());
}";
    let outcome = once(code, "{}");
    let stack = outcome.fault.expect("a fault").stack.expect("frames");
    let lines: Vec<_> = stack.lines().collect();
    assert_eq!(
        lines,
        [
            "at inner (fn_0@5:2:9)",
            "at (anonymous) (fn_0@5:5:21)",
            "at outer (fn_0@5:5:7)"
        ]
    );
    let forged = "export default () => { throw { stack: 'at /etc/passwd:1:1', message: 'x' }; }";
    assert_eq!(once(forged, "{}").fault.expect("a fault").stack, None);
    let endless = "const f = () => f() + 1; export default () => f();";
    let stack = once(endless, "{}").fault.expect("a fault").stack.expect("frames");
    assert!(
        stack.len() <= 2048 && stack.starts_with("at f (fn_0@5:1:"),
        "{stack}"
    );
}

#[test]
fn a_line_says_which_function_spoke() {
    let first = "console.log('loading'); export default (event, ctx) => { ctx.log.info('first'); }";
    let second = "export default (event, ctx) => { ctx.log.info('second'); }";
    let (_, lines) = run(&open_with(LIMITS, &[first, second]), &["{}"]);
    let places: Vec<_> = lines.iter().map(|line| (line.index, line.position)).collect();
    assert_eq!(places, [(None, None), (Some(0), Some(0)), (Some(0), Some(1))]);
}

/// Whether this engine counts promises.
fn counts_promises() -> bool {
    millrace_script::engine().name == "v8"
}

#[test]
fn promises_that_are_pending_have_a_limit_of_their_own() {
    if !counts_promises() {
        return;
    }
    let held = "const held = []; for (let i = 0; i < 1100; i++) held.push(new Promise(() => {}));";
    let derived =
        "let last = new Promise(() => {}); for (let i = 0; i < 1100; i++) last = last.then(() => {});";
    let waiting =
        "const wait = async () => { await new Promise(() => {}); }; for (let i = 0; i < 600; i++) wait();";
    for code in [held, derived, waiting] {
        guilty_among_innocents(LIMITS, code, FunctionCode::PromiseLimit);
    }
    let sync = format!("export default (event) => {{ if (event.guilty) {{ {held} }} }}");
    let (outcomes, _) = run(&open_with(LIMITS, &[&sync]), &["{}", r#"{"guilty":true}"#, "{}"]);
    assert_eq!(forwarded(&outcomes[0]), ["{}"]);
    let limit = "had more than 1000 promises pending";
    assert_eq!(refused(&outcomes[1]), (FunctionCode::PromiseLimit, limit));
    assert_eq!(forwarded(&outcomes[2]), ["{}"]);
}

#[test]
fn promises_that_were_settled_do_not_count_however_many_there_are() {
    let code = "
        for (let i = 0; i < 3000; i++) await i;
        for (let i = 0; i < 3000; i++) Promise.resolve(i);
        for (let i = 0; i < 3000; i++) { Promise.reject(i).catch(() => {}); if (i % 300 === 0) await null; }
        const wait = async (n) => { await null; return n; };
        for (let i = 0; i < 20; i++) await Promise.all(Array.from({ length: 150 }, (_, n) => wait(n)));
        for (let i = 0; i < 1500; i++) await wait(i);
        try { await Promise.any([Promise.reject(1)]); } catch {}
        event.done = true;";
    let limits = Limits {
        wall_ms: 60_000,
        ..LIMITS
    };
    let code = format!("export default async (event) => {{ {code} }}");
    let (outcomes, _) = run(&open_with(limits, &[&code]), &["{}", "{}"]);
    for outcome in &outcomes {
        assert_eq!(forwarded(outcome), [r#"{"done":true}"#]);
    }
}
