//! `ctx.env`, and what is not said of it.

use super::*;

fn open_in(environment: &str, fault: Option<&str>, code: &str) -> Chain {
    let load = Load {
        environment: Text(raw(environment)),
        environment_fault: fault.map(ToOwned::to_owned),
        ..load_of(LIMITS, &[code])
    };
    host().open(load).expect("a thread")
}

#[test]
fn a_secret_is_taken_out_of_lines_and_messages_however_it_got_there() {
    let code = r#"export default (event, { env, log }) => {
        log.info(env.KEY, { nested: [env.KEY] }, new Error(env.KEY).message);
        console.error("x".repeat(4090) + env.KEY);
        const kinds = {
            error: () => { throw new Error(env.KEY); }, text: () => { throw env.KEY; }, object: () => { throw { key: env.KEY }; },
            retry: () => { throw new RetryError(`try ${env.KEY}`); }, long: () => { throw new Error("x".repeat(1010) + env.KEY); },
            reference: () => JSON.parse(env.KEY), cited: () => JSON.parse(env.LONG),
        };
        kinds[event.kind]();
    }"#;
    let secret = r#"s3cr3t "quoted" é"#;
    // The engine cites its first letters.
    let long = "t0kenword".repeat(7);
    let environment = serde_json::json!({ "KEY": secret, "LONG": long }).to_string();
    let chain = open_in(&environment, None, code);
    for kind in ["error", "text", "object", "retry", "long", "reference", "cited"] {
        let (outcomes, lines) = run(&chain, &[&format!(r#"{{"kind":"{kind}"}}"#)]);
        let fault = outcomes[0].fault.as_ref().expect("a fault");
        let all = format!("{fault:?} {lines:?}");
        assert!(!all.contains("s3cr3t") && !all.contains("t0ken"), "{kind}: {all}");
        assert_eq!(lines.len(), 2);
        let expected = r#"[secret KEY] {"nested":["[secret KEY]"]} [secret KEY]"#;
        assert_eq!(lines[0].message, expected);
        assert!(
            lines[1].message.ends_with("x[secret KEY]"),
            "{}",
            lines[1].message
        );
    }
}

#[test]
fn an_environment_that_could_not_be_opened_asks_for_another_try_where_it_is_read() {
    let code =
        "export default (event, ctx) => { if (event.reads) event.value = ctx.env.KEY; event.ok = true; }";
    let chain = open_in("{}", Some("no key"), code);
    let (outcomes, _) = run(&chain, &[r#"{"reads":true}"#, "{}"]);
    assert_eq!(outcomes[0].verdict, Verdict::Retry);
    assert_eq!(
        outcomes[0].fault.as_ref().expect("why").message,
        "RetryError: no key"
    );
    assert_eq!(forwarded(&outcomes[1]), [r#"{"ok":true}"#]);
}
