//! What a function may return, and what becomes of it.

use millrace_event::frame::LogLevel;

use super::*;

#[test]
fn the_event_as_mutated_goes_on_when_nothing_is_returned() {
    let outcome = once(
        "export default function (event) { event.added = 1; }",
        r#"{"a":"é"}"#,
    );
    assert_eq!(forwarded(&outcome), [r#"{"a":"é","added":1}"#]);
}

#[test]
fn a_returned_object_replaces_the_event() {
    let outcome = once(
        "export default (event) => ({ was: event.a })",
        r#"{"a":[1,null]}"#,
    );
    assert_eq!(forwarded(&outcome), [r#"{"was":[1,null]}"#]);
}

#[test]
fn an_array_gives_several_events_in_order() {
    let outcome = once(
        "export default (event) => [{ n: 1 }, event, { n: 2 }]",
        r#"{"a":1}"#,
    );
    assert_eq!(forwarded(&outcome), [r#"{"n":1}"#, r#"{"a":1}"#, r#"{"n":2}"#]);
}

#[test]
fn null_false_drop_and_an_empty_array_drop_the_event() {
    for value in ["null", "false", "'drop'", "[]", "Promise.resolve(null)"] {
        let outcome = once(&format!("export default () => {value}"), "{}");
        assert_eq!(outcome.verdict, Verdict::Drop, "{value}: {outcome:?}");
    }
}

#[test]
fn anything_else_is_an_invalid_return() {
    for value in [
        "true", "1", "''", "'other'", "Symbol()", "1n", "() => 1", "[1]", "[[{}]]", "[null]",
    ] {
        let outcome = once(&format!("export default () => {value}"), "{}");
        assert_eq!(refused(&outcome).0, FunctionCode::InvalidReturn, "{value}");
    }
}

#[test]
fn a_value_that_json_cannot_write_is_the_functions_fault() {
    for body in [
        "event.self = event",
        "event.big = 1n",
        "event.toJSON = () => { throw new Error('no') }",
    ] {
        let outcome = once(&format!("export default (event) => {{ {body} }}"), "{}");
        assert_eq!(refused(&outcome).0, FunctionCode::Thrown, "{body}");
    }
    for body in [
        "event.toJSON = () => 7",
        "event.toJSON = () => undefined",
        "event.toJSON = () => [1]",
    ] {
        let outcome = once(&format!("export default (event) => {{ {body} }}"), "{}");
        assert_eq!(refused(&outcome).0, FunctionCode::InvalidReturn, "{body}");
    }
}

#[test]
fn functions_of_a_chain_run_in_order_and_each_sees_what_the_one_before_made() {
    let chain = open_with(
        LIMITS,
        &[
            "export default (event) => [{ ...event, n: 1 }, { ...event, n: 2 }, { ...event, n: 3 }]",
            "export default (event) => event.n === 2 ? null : undefined",
            "export default async (event) => { await null; event.n *= 10; }",
        ],
    );
    let (outcomes, _) = run(&chain, &[r#"{"a":1}"#]);
    assert_eq!(
        forwarded(&outcomes[0]),
        [r#"{"a":1,"n":10}"#, r#"{"a":1,"n":30}"#]
    );
}

#[test]
fn a_chain_without_functions_forwards_the_text_as_it_came() {
    let text = r#"{"n":12345678901234567890,"e":1e2,"s":"\ud800"}"#;
    let (outcomes, _) = run(&open_with(LIMITS, &[]), &[text]);
    assert_eq!(forwarded(&outcomes[0]), [text]);
}

#[test]
fn async_functions_are_awaited() {
    let code = "export default async (event) => {
        for (let i = 0; i < 100; i++) await Promise.resolve();
        return { ...event, waited: true };
    }";
    assert_eq!(forwarded(&once(code, "{}")), [r#"{"waited":true}"#]);
}

#[test]
fn a_throw_is_reported_with_function_line_and_column_and_harms_no_neighbour() {
    let code = "export default (event) => {\n  if (event.bad) {\n    throw new TypeError('boom');\n  }\n};";
    let chain = open_with(LIMITS, &["export default () => {}", code]);
    let (outcomes, _) = run(&chain, &[r#"{"n":1}"#, r#"{"bad":true}"#, r#"{"n":3}"#]);
    assert_eq!(forwarded(&outcomes[0]), [r#"{"n":1}"#]);
    assert_eq!(forwarded(&outcomes[2]), [r#"{"n":3}"#]);
    assert_eq!(refused(&outcomes[1]), (FunctionCode::Thrown, "TypeError: boom"));
    let fault = outcomes[1].fault.as_ref().expect("checked");
    assert_eq!(fault.function.as_deref(), Some("fn_1"));
    // V8 names the statement, QuickJS the place where the error was made.
    let column = if cfg!(feature = "engine-v8") { 5 } else { 11 };
    assert_eq!(
        (fault.function_version, fault.line, fault.column),
        (Some(5), Some(3), Some(column))
    );
}

#[test]
fn a_rejection_is_reported_like_a_throw() {
    let code = "const later = async () => {\n  await null;\n  throw new RangeError('later');\n};
        export default async () => { await later(); };";
    let outcome = once(code, "{}");
    assert_eq!(refused(&outcome), (FunctionCode::Thrown, "RangeError: later"));
    assert_eq!(outcome.fault.as_ref().and_then(|fault| fault.line), Some(3));
}

#[test]
fn whatever_is_thrown_is_a_fault_and_no_getter_of_it_is_asked() {
    let mut values = vec![
        "undefined",
        "null",
        "7",
        "'text'",
        "Symbol('s')",
        "{ toString() { for (;;); } }",
    ];
    if cfg!(feature = "engine-v8") {
        // The binding of QuickJS asks a proxy that is thrown, and meets the wall limit.
        values.push(
            "new Proxy({}, { get() { for (;;); }, getPrototypeOf() { for (;;); }, has() { for (;;); } })",
        );
    }
    for value in values {
        let outcome = once(&format!("export default () => {{ throw {value}; }}"), "{}");
        assert_eq!(refused(&outcome).0, FunctionCode::Thrown, "{value}");
    }
}

#[test]
fn a_retry_error_asks_for_another_try_with_its_delay() {
    for (options, after) in [
        ("{ after: '10s' }", Some(10_000)),
        ("{ after: 250 }", Some(250)),
        ("{ after: 'soon' }", None),
        ("undefined", None),
    ] {
        let outcome = once(
            &format!("export default () => {{ throw new RetryError('busy', {options}) }}"),
            "{}",
        );
        assert_eq!(outcome.verdict, Verdict::Retry, "{options}");
        assert_eq!(outcome.retry_after_ms, after, "{options}");
        let fault = outcome.fault.expect("a retry says why");
        assert_eq!(
            (fault.code, &*fault.message),
            (FunctionCode::Thrown, "RetryError: busy")
        );
    }
}

#[test]
fn an_error_that_only_looks_like_a_retry_error_is_a_throw() {
    let code = "export default () => {
        const fake = Object.create(RetryError.prototype);
        fake.after = '10s';
        throw fake;
    }";
    assert_eq!(refused(&once(code, "{}")).0, FunctionCode::Thrown);
}

#[test]
fn on_error_says_what_becomes_of_an_event_that_a_function_threw_on() {
    let run = |on_error: &str| {
        let config = format!("export const config = {{ onError: '{on_error}' }};");
        once(
            &format!("{config} export default (event) => {{ event.half = 1; throw new Error('x'); }}"),
            r#"{"a":1}"#,
        )
    };
    assert_eq!(refused(&run("dead-letter")).0, FunctionCode::Thrown);
    assert_eq!(run("retry").verdict, Verdict::Retry);
    assert_eq!(run("drop").verdict, Verdict::Drop);
    assert_eq!(forwarded(&run("pass")), [r#"{"a":1}"#]);
}

#[test]
fn on_error_pass_gives_the_event_as_it_was_before_the_function() {
    let chain = open_with(
        LIMITS,
        &[
            "export default (event) => { event.first = 1; }",
            "export const config = { onError: 'pass' };
             export default (event) => { event.half = 1; throw new Error('x'); }",
            "export default (event) => { event.third = 1; }",
        ],
    );
    let (outcomes, _) = run(&chain, &["{}"]);
    assert_eq!(forwarded(&outcomes[0]), [r#"{"first":1,"third":1}"#]);
}

#[test]
fn a_retry_resumes_at_the_function_that_asked_with_the_event_as_it_got_it() {
    let chain = open_with(
        LIMITS,
        &[
            "export default (event) => { event.first = (event.first ?? 0) + 1; }",
            "export default (event, ctx) => {
                event.second = 1;
                if (event.busy) { event.busy = false; throw new RetryError('busy', { after: '1s' }); }
            }",
            "export default (event) => { event.third = 1; }",
        ],
    );
    let (outcomes, _) = run(&chain, &[r#"{"busy":true}"#]);
    assert_eq!(outcomes[0].verdict, Verdict::Retry);
    let resume = outcomes[0].resume.as_ref().expect("a place to go on");
    assert_eq!(
        (resume.position, resume.event.as_str()),
        (1, r#"{"busy":true,"first":1}"#)
    );
    // Still busy: the place and the event stay.
    let (again, _) = run_from(&chain, 1, &[resume.event.as_str()]);
    let still = again[0].resume.as_ref().expect("a place to go on");
    assert_eq!((still.position, still.event.as_str()), (1, resume.event.as_str()));
    let (done, _) = run_from(&chain, 1, &[r#"{"busy":false,"first":1}"#]);
    assert_eq!(
        forwarded(&done[0]),
        [r#"{"busy":false,"first":1,"second":1,"third":1}"#]
    );
}

#[test]
fn a_retry_begins_anew_where_nothing_else_would_keep_every_event() {
    let fan_out = "export default (event) => [{ n: 1 }, { n: 2 }]";
    let busy = "export default (event) => { if (event.n !== 1) throw new RetryError('busy'); }";
    let (outcomes, _) = run(&open_with(LIMITS, &[fan_out, busy]), &["{}"]);
    assert_eq!(outcomes[0].verdict, Verdict::Retry);
    assert!(outcomes[0].resume.is_none(), "the sibling would be lost");
    let (outcomes, _) = run(&open_with(LIMITS, &[busy]), &["{}"]);
    assert!(outcomes[0].resume.is_none(), "the beginning needs no copy");
}

#[test]
fn what_is_kept_for_another_try_changes_nothing_for_the_function() {
    let chain = open_with(
        LIMITS,
        &[
            "export default (event) => { event.at = new Date(0); event.big = 7n; }",
            "export default (event) => {
                if (event.retry) throw new RetryError('later');
                event.at = event.at.getTime();
                event.big = Number(event.big);
            }",
        ],
    );
    let (outcomes, _) = run(&chain, &["{}", r#"{"retry":true}"#]);
    assert_eq!(forwarded(&outcomes[0]), [r#"{"at":0,"big":7}"#]);
    assert_eq!(outcomes[1].verdict, Verdict::Retry);
    assert!(outcomes[1].resume.is_none(), "a BigInt cannot be kept as text");
}

#[test]
fn on_error_retry_resumes_like_a_retry_error() {
    let chain = open_with(
        LIMITS,
        &[
            "export default (event) => { event.first = 1; }",
            "export const config = { onError: 'retry' };
             export default (event) => { event.half = 1; throw new Error('x'); }",
        ],
    );
    let (outcomes, _) = run(&chain, &["{}"]);
    let resume = outcomes[0].resume.as_ref().expect("a place to go on");
    assert_eq!((resume.position, resume.event.as_str()), (1, r#"{"first":1}"#));
}

#[test]
fn on_error_drop_costs_only_the_event_that_the_function_got() {
    let fan_out = "export default (event) => [{ n: 1 }, { n: 2 }, { n: 3 }]";
    let picky = "export const config = { onError: 'drop' };
        export default (event) => { if (event.n === 2) throw new Error('not you'); }";
    let (outcomes, _) = run(&open_with(LIMITS, &[fan_out, picky]), &["{}"]);
    assert_eq!(forwarded(&outcomes[0]), [r#"{"n":1}"#, r#"{"n":3}"#]);
    let never =
        "export const config = { onError: 'drop' }; export default () => { throw new Error('never'); }";
    let (outcomes, _) = run(&open_with(LIMITS, &[fan_out, never]), &["{}"]);
    assert_eq!(outcomes[0].verdict, Verdict::Drop);
    let fault = outcomes[0].fault.as_ref().expect("a drop by failure says why");
    assert_eq!(fault.message, "Error: never");
}

#[test]
fn an_event_becomes_at_most_so_many() {
    for code in [
        "export default () => Array.from({ length: 101 }, () => ({}))",
        "export default () => new Array(2 ** 32 - 1)",
    ] {
        assert_eq!(refused(&once(code, "{}")).0, FunctionCode::OutputLimit, "{code}");
    }
    let many = "export default () => Array.from({ length: 20 }, () => ({}))";
    let (outcomes, _) = run(&open_with(LIMITS, &[many, many]), &["{}"]);
    assert_eq!(refused(&outcomes[0]).0, FunctionCode::OutputLimit);
    assert_eq!(
        forwarded(&once(
            "export default () => Array.from({ length: 100 }, () => ({}))",
            "{}"
        ))
        .len(),
        100
    );
}

#[test]
fn the_context_says_where_the_event_comes_from() {
    let code = "export default (event, { log, store, fetch, ...rest }) => ({ ...rest, log: Object.keys(log), store: Object.keys(store), fetch: typeof fetch })";
    assert_eq!(
        forwarded(&once(code, "{}")),
        [concat!(
            r#"{"env":{"REGION":"eu"},"workspace":"demo","source":"web","destination":"warehouse","attempt":2,"#,
            r#""receivedAt":"2026-01-02T03:04:05.678Z","headers":{"user-agent":"curl/8.5.0"},"#,
            r#""geo":null,"ua":{"browser":{"name":"curl","version":"8.5.0"},"os":null,"device":"desktop","bot":false},"#,
            r#""log":["debug","info","warn","error"],"store":["get","set","del","incr"],"fetch":"function"}"#
        )]
    );
}

#[test]
fn lines_are_kept_with_level_and_event_and_are_bounded() {
    let code = "console.log('loading');
        export default (event, ctx) => {
            ctx.log.warn('n', event.n, { a: [1] }, undefined);
            console.error('x'.repeat(10000));
            for (let i = 0; i < 100; i++) ctx.log.debug(i);
        }";
    let (_, lines) = run(&open_with(LIMITS, &[code]), &[r#"{"n":1}"#, r#"{"n":2}"#]);
    assert_eq!(
        (lines[0].index, lines[0].level, &*lines[0].message),
        (None, LogLevel::Info, "loading")
    );
    assert_eq!(
        (lines[1].index, lines[1].level, &*lines[1].message),
        (Some(0), LogLevel::Warn, r#"n 1 {"a":[1]} undefined"#)
    );
    assert_eq!((lines[2].level, lines[2].message.len()), (LogLevel::Error, 4096));
    assert_eq!(lines.iter().filter(|line| line.index == Some(1)).count(), 10);
}

#[test]
fn code_that_does_not_load_is_a_compile_error_for_each_event() {
    for (code, message, line) in [
        (
            "export default function (event) {\n  return event +;\n}",
            "SyntaxError",
            Some(2),
        ),
        (
            "export const config = {};",
            "the default export is not a function",
            None,
        ),
        ("export default 7;", "the default export is not a function", None),
        (
            "\nthrow new Error('top'); export default () => {};",
            "Error: top",
            Some(2),
        ),
        (
            "import fs from 'node:fs'; export default () => {};",
            "a function cannot import",
            None,
        ),
        (
            "import { core } from 'ext:core/mod.js'; export default () => {};",
            "a function cannot import",
            None,
        ),
        (
            "await new Promise(() => {}); export default () => {};",
            "can never settle",
            None,
        ),
        (
            "export const config = { onError: 'shrug' }; export default () => {};",
            "config.onError",
            None,
        ),
        (
            "export const config = { timeout: 'long' }; export default () => {};",
            "config.timeout",
            None,
        ),
    ] {
        let (outcomes, _) = run(&open_with(LIMITS, &[code]), &["{}", "{}"]);
        for outcome in &outcomes {
            let (found, text) = refused(outcome);
            assert_eq!(found, FunctionCode::CompileError, "{code}");
            assert!(text.contains(message), "{code}: {text}");
            let fault = outcome.fault.as_ref().expect("checked");
            assert_eq!(fault.function.as_deref(), Some("fn_0"));
            if line.is_some() {
                assert_eq!(fault.line, line, "{code}");
            }
        }
    }
}

#[test]
fn the_engine_says_its_name_and_version() {
    let engine = millrace_script::engine();
    let name = if cfg!(feature = "engine-quickjs") {
        "quickjs"
    } else {
        "v8"
    };
    assert_eq!(engine.name, name);
    assert!(
        engine.version.starts_with(|first: char| first.is_ascii_digit()),
        "{engine:?}"
    );
}
