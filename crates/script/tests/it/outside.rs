//! Calls of functions to the owner of the process: who gets which reply, and what becomes of calls nobody waits for.

use millrace_event::frame::{Call, Reply};
use millrace_script::Said;

use super::*;

/// What the owner of the process saw while a batch ran.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) calls: Vec<(String, String)>,
    pub(super) cancelled: usize,
}

/// Runs events; `owner` says what each call is answered with, if anything.
pub(super) fn run_owned(
    chain: &Chain,
    events: &[&str],
    mut owner: impl FnMut(&Call) -> Option<Reply>,
) -> (Vec<Outcome<String>>, Seen) {
    let records = events.iter().map(|event| Record {
        context: r#"{"attempt":0,"headers":{}}"#,
        event,
        position: 0,
    });
    let batch = Batch {
        chain: "chain",
        version: 1,
        records: records.collect(),
        budget_ms: None,
    };
    let batch = batch.encode().expect("it fits");
    let (mut seen, mut ids) = (Seen::default(), Vec::new());
    let ran = chain.run(batch, |said| {
        match said {
            Said::Progress(_) => {}
            Said::Call(id, call) => {
                assert!(!ids.contains(&id), "an id is used twice");
                ids.push(id);
                seen.calls
                    .push((call.operation.clone(), call.argument.get().to_owned()));
                if let Some(reply) = owner(call) {
                    host().replies().deliver(id, reply);
                }
            }
            Said::Cancel(id) => {
                assert!(ids.contains(&id), "a call that was never made is cancelled");
                seen.cancelled += 1;
            }
        }
        Ok(())
    });
    (read(ran.expect("the chain lives").0), seen)
}

fn done(text: &str) -> Option<Reply> {
    Some(Reply::Done(raw(text)))
}

#[test]
fn a_function_waits_for_what_it_asked_for() {
    let code = r#"export default async (event, { store }) => {
        event.before = await store.get("visits");
        await store.set("visits", { n: 1, list: ["é"] }, { ttl: "90s" });
        event.sum = await store.incr("sum", 5, { ttl: 1500 });
        event.gone = await store.del("visits");
    }"#;
    let (outcomes, seen) = run_owned(&open_with(LIMITS, &[code]), &["{}"], |call| {
        done(match call.operation.as_str() {
            "store.get" => r#""{\"n\":0}""#,
            "store.set" => "null",
            "store.incr" => "47",
            _ => "true",
        })
    });
    assert_eq!(
        forwarded(&outcomes[0]),
        [r#"{"before":{"n":0},"sum":47,"gone":true}"#]
    );
    let expected = [
        ("store.get", r#"{"key":"visits"}"#),
        (
            "store.set",
            r#"{"key":"visits","value":"{\"n\":1,\"list\":[\"é\"]}","ttl":90000}"#,
        ),
        ("store.incr", r#"{"key":"sum","by":5,"ttl":1500}"#),
        ("store.del", r#"{"key":"visits"}"#),
    ];
    assert_eq!(seen.calls, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    assert_eq!(seen.cancelled, 0);
}

#[test]
fn calls_of_one_event_wait_at_the_same_time_and_take_their_own_replies() {
    let code = r#"export default async (event, { store }) => {
        event.got = await Promise.all(["a", "b", "c"].map((key) => store.get(key)));
    }"#;
    let mut held = Vec::new();
    let chain = open_with(LIMITS, &[code]);
    // The replies come in the opposite order, and only when all three calls were made.
    let records = vec![Record {
        context: "{}",
        event: "{}",
        position: 0,
    }];
    let batch = Batch {
        chain: "chain",
        version: 1,
        records,
        budget_ms: None,
    };
    let (answer, _) = chain
        .run(batch.encode().expect("it fits"), |said| {
            if let Said::Call(id, call) = said {
                let key: serde_json::Value = serde_json::from_str(call.argument.get()).expect("JSON");
                held.push((
                    id,
                    format!("\"\\\"{}!\\\"\"", key["key"].as_str().expect("a key")),
                ));
                if held.len() == 3 {
                    for (id, text) in held.drain(..).rev() {
                        host().replies().deliver(id, Reply::Done(raw(&text)));
                    }
                }
            }
            Ok(())
        })
        .expect("the chain lives");
    assert_eq!(forwarded(&read(answer)[0]), [r#"{"got":["a!","b!","c!"]}"#]);
}

#[test]
fn what_failed_is_an_error_and_what_is_away_asks_for_another_try() {
    let code = r#"export default async (event, { store }) => {
        try { await store.get("k"); } catch (error) {
            if (event.catches) return { name: error.name, message: error.message, retry: error instanceof RetryError };
            throw error;
        }
    }"#;
    let chain = open_with(LIMITS, &[code]);
    let events = ["{}", r#"{"catches":true}"#];
    let (outcomes, _) = run_owned(&chain, &events, |_| {
        Some(Reply::Failed("the quota is used up".into()))
    });
    assert_eq!(
        refused(&outcomes[0]),
        (FunctionCode::Thrown, "Error: the quota is used up")
    );
    assert_eq!(
        forwarded(&outcomes[1]),
        [r#"{"name":"Error","message":"the quota is used up","retry":false}"#]
    );
    let (outcomes, _) = run_owned(&chain, &events, |_| {
        Some(Reply::Unavailable("the store is away".into()))
    });
    assert_eq!(outcomes[0].verdict, Verdict::Retry);
    assert_eq!(
        outcomes[0].fault.as_ref().expect("why").message,
        "RetryError: the store is away"
    );
    assert_eq!(
        forwarded(&outcomes[1]),
        [r#"{"name":"RetryError","message":"the store is away","retry":true}"#]
    );
}

#[test]
fn waiting_for_a_reply_counts_towards_the_deadline() {
    let code = r#"export default async (event, { store }) => { if (event.waits) await store.get("k"); event.ok = true; }"#;
    let chain = open_with(
        Limits {
            wall_ms: 1000,
            ..LIMITS
        },
        &[code],
    );
    let (outcomes, seen) = run_owned(&chain, &[r#"{"waits":true}"#], |_| None);
    assert_eq!(refused(&outcomes[0]).0, FunctionCode::WallLimit);
    assert_eq!((seen.calls.len(), seen.cancelled), (1, 1));
    // The next isolate of the chain makes calls as the first one did.
    let (outcomes, _) = run_owned(&chain, &[r#"{"waits":true}"#], |_| done("null"));
    assert_eq!(forwarded(&outcomes[0]), [r#"{"waits":true,"ok":true}"#]);
}

#[test]
fn a_call_that_nobody_waited_for_ends_with_its_event() {
    let code = r#"export default (event, { store }) => { if (event.n === 1) store.get("k").then(() => { globalThis.late = true; });
        event.late = globalThis.late ?? false; }"#;
    let chain = open_with(LIMITS, &[code]);
    let before = host().replies().outstanding();
    let (outcomes, seen) = run_owned(&chain, &[r#"{"n":1}"#, r#"{"n":2}"#, r#"{"n":3}"#], |_| None);
    for (at, n) in [(0, 1), (1, 2), (2, 3)] {
        assert_eq!(forwarded(&outcomes[at]), [format!(r#"{{"n":{n},"late":false}}"#)]);
    }
    assert_eq!((seen.calls.len(), seen.cancelled), (1, 1));
    assert!(
        host().replies().outstanding() <= before + 8,
        "calls are forgotten"
    );
}

#[test]
fn at_most_so_many_calls_wait_at_once() {
    let code = r#"export default async (event, { store }) => {
        const calls = Array.from({ length: 20 }, (_, n) => store.get(`k${n}`));
        const ended = await Promise.allSettled(calls);
        event.refused = ended.filter((one) => one.status === "rejected").map((one) => one.reason.message);
    }"#;
    let (outcomes, seen) = run_owned(&open_with(LIMITS, &[code]), &["{}"], |_| done("null"));
    assert_eq!(seen.calls.len(), 16);
    let text = "more than 16 calls wait at once";
    let refused = serde_json::to_string(&vec![text; 4]).expect("plain");
    assert_eq!(forwarded(&outcomes[0]), [format!(r#"{{"refused":{refused}}}"#)]);
}

#[test]
fn what_cannot_be_handed_over_is_said_before_anything_leaves() {
    for attempt in [
        "store.get('')",
        "store.get(7)",
        "store.set('k', undefined)",
        "store.set('k', 1n)",
        "store.set('k', 1, { ttl: 'soon' })",
        "store.set('k', 1, { ttl: 0 })",
        "store.set('k', 'x'.repeat(3 << 20))",
        "store.incr('k', 1.5)",
        "fetch('https://a.example', { signal: null })",
        "fetch('https://a.example', { timeout: -1 })",
    ] {
        let code = format!("export default async (event, {{ store, fetch }}) => {{ await {attempt}; }}");
        let (outcomes, seen) = run_owned(&open_with(LIMITS, &[&code]), &["{}"], |_| done("null"));
        let (code, message) = refused(&outcomes[0]);
        assert_eq!(code, FunctionCode::Thrown, "{attempt}");
        assert!(message.starts_with("TypeError"), "{attempt}: {message}");
        assert!(seen.calls.is_empty(), "{attempt}");
    }
}

#[test]
fn an_answer_of_another_server_reads_as_fetch_gives_it() {
    let code = r#"export default async (event, { fetch }) => {
        const response = await fetch(new URL("https://api.example/x"), {
            method: "post", headers: { "X-One": " 1 ", accept: "a/b" }, body: new URLSearchParams({ q: "é" }), timeout: "2s",
        });
        const copy = response.clone();
        const again = [];
        const used = response.bodyUsed;
        const json = await response.json();
        try { await response.text(); } catch (error) { again.push(error.message); }
        return {
            status: response.status, statusText: response.statusText, ok: response.ok, url: response.url,
            redirected: response.redirected, type: response.headers.get("Content-Type"), all: [...response.headers],
            cookies: response.headers.getSetCookie(), has: response.headers.has("nothing"), json, again,
            text: await copy.text(), used: [used, response.bodyUsed], kind: String(response),
        };
    }"#;
    let answer = r#"{"status":201,"statusText":"Created","url":"https://api.example/y","redirected":true,
        "headers":[["content-type","application/json"],["set-cookie","a=1"],["set-cookie","b=2"]],"body":"eyJhIjoiw6kifQ=="}"#;
    let (outcomes, seen) = run_owned(&open_with(LIMITS, &[code]), &["{}"], |_| done(answer));
    assert_eq!(
        forwarded(&outcomes[0]),
        [concat!(
            r#"{"status":201,"statusText":"Created","ok":true,"url":"https://api.example/y","redirected":true,"#,
            r#""type":"application/json","all":[["content-type","application/json"],["set-cookie","a=1, b=2"]],"#,
            r#""cookies":["a=1","b=2"],"has":false,"json":{"a":"é"},"again":["the body was read before"],"#,
            r#""text":"{\"a\":\"é\"}","used":[false,true],"kind":"[object Response]"}"#
        )]
    );
    let argument = concat!(
        r#"{"url":"https://api.example/x","method":"POST","headers":[["x-one","1"],["accept","a/b"],"#,
        r#"["content-type","application/x-www-form-urlencoded;charset=UTF-8"]],"#,
        r#""body":{"text":"q=%C3%A9"},"redirect":"follow","timeout":2000}"#
    );
    assert_eq!(seen.calls, [("fetch".to_owned(), argument.to_owned())]);
}
