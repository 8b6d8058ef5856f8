//! The Web interfaces that functions expect.

use super::*;

/// What an expression gives, as JSON; `undefined` where it gives nothing that JSON has.
#[track_caller]
fn value(expression: &str) -> String {
    let code = format!("export default async (event) => ({{ value: await ({expression}) }})");
    let text = forwarded(&once(&code, "{}"))[0].to_owned();
    text.strip_prefix(r#"{"value":"#)
        .and_then(|rest| rest.strip_suffix('}'))
        .unwrap_or("undefined")
        .to_owned()
}

/// The text of what an expression throws.
fn thrown(expression: &str) -> String {
    let code = format!("export default async (event) => {{ await ({expression}); }}");
    let outcome = once(&code, "{}");
    let (code, text) = refused(&outcome);
    assert_eq!(code, FunctionCode::Thrown, "{expression}");
    text.to_owned()
}

#[test]
fn text_goes_to_bytes_and_back() {
    assert_eq!(
        value("[...new TextEncoder().encode('aé😀\\ud800')]"),
        "[97,195,169,240,159,152,128,239,191,189]"
    );
    assert_eq!(
        value("new TextDecoder().decode(new Uint8Array([239,187,191,195,169]))"),
        r#""é""#
    );
    assert_eq!(
        value("new TextDecoder().decode(new Uint8Array([1,195,169,2]).subarray(1, 3))"),
        r#""é""#
    );
    assert_eq!(value("new TextDecoder().decode(new Uint8Array([255]))"), r#""�""#);
    assert_eq!(
        value("new TextDecoder('utf8', { ignoreBOM: true }).decode(new Uint8Array([239,187,191])).length"),
        "1"
    );
    assert!(
        thrown("new TextDecoder('utf-8', { fatal: true }).decode(new Uint8Array([255]))")
            .starts_with("TypeError")
    );
    assert!(thrown("new TextDecoder('latin1')").starts_with("RangeError"));
}

#[test]
fn base64_is_read_forgivingly_and_written_padded() {
    assert_eq!(value("btoa('a\\u00ff')"), r#""Yf8=""#);
    assert_eq!(
        value("[atob('Yf8='), atob(' Yf 8\\n'), atob('YQ==')].map((t) => t.length)"),
        "[2,2,1]"
    );
    assert_eq!(value("atob('Yf8=').charCodeAt(1)"), "255");
    for wrong in ["btoa('é€')", "atob('Y')", "atob('YQ=')", "atob('Y*==')"] {
        assert!(thrown(wrong).starts_with("InvalidCharacterError"), "{wrong}");
    }
}

#[test]
fn digests_and_identifiers() {
    let hex = |algorithm: &str| {
        value(&format!(
            "crypto.subtle.digest('{algorithm}', new TextEncoder().encode('abc'))
                .then((d) => [...new Uint8Array(d)].map((b) => b.toString(16).padStart(2, '0')).join(''))"
        ))
    };
    assert_eq!(hex("SHA-1"), r#""a9993e364706816aba3e25717850c26c9cd0d89d""#);
    assert_eq!(
        hex("sha-256"),
        r#""ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad""#
    );
    assert!(hex("SHA-384").starts_with("\"cb00753f45a35e8b"));
    assert!(hex("SHA-512").starts_with("\"ddaf35a193617aba"));
    assert!(thrown("crypto.subtle.digest('MD5', new Uint8Array())").starts_with("NotSupportedError"));
    let pattern = "/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/";
    assert_eq!(
        value(&format!(
            "[{pattern}.test(crypto.randomUUID()), crypto.randomUUID() !== crypto.randomUUID()]"
        )),
        "[true,true]"
    );
}

#[test]
fn addresses_are_taken_apart_and_changed() {
    assert_eq!(
        value("(({ origin, username, port, pathname, search, hash }) => [origin, username, port, pathname, search, hash])
            (new URL('../b?x=1#y', 'https://u:p@Example.COM:8443/a/c/'))"),
        r##"["https://example.com:8443","u","8443","/a/b","?x=1","#y"]"##
    );
    let changed = "(() => {
        const url = new URL('http://a.example/p?q=1');
        url.protocol = 'https'; url.host = 'b.example:444'; url.port = 'no'; url.searchParams.append('r', 'ä b');
        url.search += '&s=2'; url.hash = 'end';
        return [String(url), url.searchParams.get('s'), JSON.stringify({ url })];
    })()";
    assert_eq!(
        value(changed),
        r#"["https://b.example:444/p?q=1&r=%C3%A4+b&s=2#end","2","{\"url\":\"https://b.example:444/p?q=1&r=%C3%A4+b&s=2#end\"}"]"#
    );
    assert!(thrown("new URL('/only/a/path')").starts_with("TypeError: Invalid URL"));
    assert_eq!(
        value("[URL.canParse('x:y'), URL.canParse('y'), URL.parse('y')]"),
        "[true,false,null]"
    );
}

#[test]
fn queries_are_lists_of_names_and_values() {
    let used = "(() => {
        const params = new URLSearchParams('?b=2&a=1&b=3');
        params.set('b', '4'); params.append('c', 'x&y'); params.sort(); params.delete('a');
        return [params.toString(), params.getAll('b'), params.has('c'), params.get('z'), params.size, [...params]];
    })()";
    assert_eq!(
        value(used),
        r#"["b=4&c=x%26y",["4"],true,null,2,[["b","4"],["c","x&y"]]]"#
    );
    assert_eq!(
        value("new URLSearchParams({ a: 1, b: 'é' }).toString()"),
        r#""a=1&b=%C3%A9""#
    );
    assert_eq!(value("new URLSearchParams([['a', 'b']]).toString()"), r#""a=b""#);
}

#[test]
fn a_clone_shares_nothing_and_refuses_what_cannot_be_one() {
    let same = "(() => {
        const given = { d: new Date(5), m: new Map([['k', { n: 1n }]]), s: new Set([1]), b: new Uint8Array([1, 2]), u: undefined, l: [1, , 3] };
        given.self = given;
        const copy = structuredClone(given);
        return [copy !== given, copy.self === copy, copy.d.getTime(), copy.m.get('k').n === 1n, copy.m.get('k') !== given.m.get('k'),
            copy.s.has(1), copy.b[1], copy.b.buffer !== given.b.buffer, 'u' in copy, 1 in copy.l, structuredClone(new RangeError('x')).name];
    })()";
    assert_eq!(
        value(same),
        r#"[true,true,5,true,true,true,2,true,true,false,"RangeError"]"#
    );
    for wrong in [
        "structuredClone(() => 1)",
        "structuredClone({ s: Symbol() })",
        "structuredClone(Promise.resolve())",
    ] {
        assert!(thrown(wrong).starts_with("DataCloneError"), "{wrong}");
    }
}

#[test]
fn timers_run_in_order_within_their_event_and_never_after_it() {
    let ordered = "(async () => {
        const seen = [];
        const wait = (ms, n) => new Promise((done) => setTimeout((x) => { seen.push(x); done(); }, ms, n));
        clearTimeout(setTimeout(() => seen.push('cancelled'), 1));
        await Promise.all([wait(30, 3), wait(5, 1), wait(15, 2)]);
        return seen;
    })()";
    assert_eq!(value(ordered), "[1,2,3]");
    let code = "export default async (event) => {
        if (globalThis.late) event.late = true;
        setTimeout(() => { globalThis.late = true; }, 1);
        if (event.wait) await new Promise((done) => setTimeout(done, 50));
    }";
    let (outcomes, _) = run(
        &open_with(LIMITS, &[code]),
        &["{}", r#"{"n":2}"#, r#"{"wait":1}"#, "{}"],
    );
    assert_eq!(forwarded(&outcomes[1]), [r#"{"n":2}"#]);
    assert_eq!(
        forwarded(&outcomes[3]),
        [r#"{"late":true}"#],
        "only what the third event waited for ran"
    );
    assert!(thrown("(() => { for (;;) setTimeout(() => {}, 1); })()").contains("too many timers"));
}

#[test]
fn a_timer_that_never_ends_or_comes_too_late_meets_the_wall_limit() {
    let limits = Limits {
        wall_ms: 200,
        ..LIMITS
    };
    for code in [
        "export default () => new Promise(() => setTimeout(() => { for (;;); }, 1))",
        "export default () => new Promise((done) => setTimeout(done, 3_600_000))",
        "export default () => new Promise(() => { const again = () => setTimeout(again, 0); again(); })",
    ] {
        let (outcomes, _) = run(&open_with(limits, &[code]), &["{}"]);
        assert_eq!(refused(&outcomes[0]).0, FunctionCode::WallLimit, "{code}");
    }
}

#[test]
fn a_user_agent_is_read_when_it_is_asked_for() {
    let code = "export default (event, ctx) => ({ ua: ctx.ua && [ctx.ua.browser?.name, ctx.ua.browser?.version, ctx.ua.os?.name, ctx.ua.device, ctx.ua.bot] })";
    for (line, expected) in [
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36 Edg/126.0.2592.87",
            r#"["Edge","126.0.2592.87","Windows","desktop",false]"#,
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
            r#"["Safari","17.5","iOS","mobile",false]"#,
        ),
        (
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            r#"[null,null,null,"desktop",true]"#,
        ),
    ] {
        let outcome = once(code, &format!(r#"{{"context":{{"userAgent":"{line}"}}}}"#));
        assert_eq!(forwarded(&outcome), [format!(r#"{{"ua":{expected}}}"#)]);
    }
}
