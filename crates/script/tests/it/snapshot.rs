//! What isolates share because they begin with the same picture of memory: nothing that a function could tell.

use super::*;

#[test]
fn isolates_draw_different_random_numbers() {
    let code = "export default () => ({ drawn: [Math.random(), Math.random(), Math.random()] })";
    let drawn: Vec<String> = (0..3)
        .map(|_| forwarded(&once(code, "{}"))[0].to_owned())
        .collect();
    assert_ne!(drawn[0], drawn[1]);
    assert_ne!(drawn[1], drawn[2]);
    assert_ne!(drawn[0], drawn[2]);
}

#[test]
fn what_one_isolate_does_to_the_language_stays_in_it() {
    let spoil = "Object.prototype.left = 'here'; Array.prototype.map = () => 'spoilt';
        JSON.stringify = () => '{}'; globalThis.left = 'here';
        export default (event) => { event.spoilt = [1].map((n) => n); }";
    assert_eq!(forwarded(&once(spoil, "{}")), [r#"{"spoilt":"spoilt"}"#]);
    let look = "export default () => ({ left: [typeof ({}).left, typeof globalThis.left], mapped: [1].map((n) => n + 1),
        text: JSON.stringify({ a: 1 }) })";
    assert_eq!(
        forwarded(&once(look, "{}")),
        [r#"{"left":["undefined","undefined"],"mapped":[2],"text":"{\"a\":1}"}"#]
    );
}

#[test]
fn a_function_of_one_name_is_called_without_ctx_and_every_other_one_with_it() {
    for (code, sees) in [
        ("export default (event) => { event.n = 1; }", 1),
        ("export default event => { event.n = 1; }", 1),
        ("export default async function named(event) { event.n = 1; }", 1),
        (
            "export default (event, ctx) => { event.n = typeof ctx === 'object' ? 2 : 1; }",
            2,
        ),
        (
            "export default (event, ...rest) => { event.n = 1 + rest.length; }",
            2,
        ),
        (
            "export default (event, ctx = null) => { event.n = ctx ? 2 : 1; }",
            2,
        ),
        (
            "export default function (event) { event.n = arguments.length; }",
            2,
        ),
        (
            "export default function (event) { event.n = \\u0061rguments.length; }",
            2,
        ),
        ("export default (...all) => { all[0].n = all.length; }", 2),
        ("export default ({ n }, ctx) => ({ n: ctx ? 2 : 1 })", 2),
        (
            "const f = function (a) { a.n = arguments.length; }; export default f.bind(null)",
            2,
        ),
        (
            "export default new Proxy((a) => a, { apply: (f, self, all) => ({ n: all.length }) })",
            2,
        ),
    ] {
        let outcome = once(code, "{}");
        assert_eq!(forwarded(&outcome), [format!(r#"{{"n":{sees}}}"#)], "{code}");
    }
}
