//! What a function can reach.

use super::*;

#[test]
fn the_global_object_holds_the_language_and_our_own_names_only() {
    let code = "export default () => ({ names: Object.getOwnPropertyNames(globalThis).sort() })";
    let outcome = once(code, "{}");
    let text = forwarded(&outcome)[0];
    for absent in [
        "Deno",
        "__bootstrap",
        "eval",
        "WebAssembly",
        "SharedArrayBuffer",
        "Atomics",
        "queueMicrotask",
        "gc",
    ] {
        assert!(
            !text.contains(&format!("{absent:?}")),
            "{absent} is reachable: {text}"
        );
    }
    for present in ["Object", "Promise", "Intl", "RetryError", "console"] {
        assert!(
            text.contains(&format!("{present:?}")),
            "{present} is missing: {text}"
        );
    }
}

#[test]
fn no_symbol_or_hidden_field_of_the_global_object_leads_to_the_engine() {
    let code = "export default () => ({
        symbols: Object.getOwnPropertySymbols(globalThis).map(String),
        inherited: (() => {
            const found = [];
            for (let o = Object.getPrototypeOf(globalThis); o && o !== Object.prototype; o = Object.getPrototypeOf(o)) {
                found.push(...Reflect.ownKeys(o).map(String));
            }
            return found.filter((name) => name !== 'constructor');
        })(),
        meta: Object.keys(import.meta),
    })";
    assert_eq!(
        forwarded(&once(code, "{}")),
        [r#"{"symbols":[],"inherited":[],"meta":[]}"#]
    );
}

#[test]
fn code_cannot_be_made_from_strings() {
    for attempt in [
        "eval('1')",
        "(0, globalThis.eval)('1')",
        "new Function('return 1')()",
        "Function('return 1')()",
        "(() => {}).constructor('return 1')()",
        "(async () => {}).constructor('return 1')()",
        "(function* () {}).constructor('yield 1')()",
        "(async function* () {}).constructor('yield 1')()",
        "Reflect.construct(Object.getPrototypeOf(class {}).constructor, ['return 1'])()",
        "console.log.constructor('return 1')()",
        "RetryError.constructor('return 1')()",
    ] {
        let code = format!("export default (event) => {{ event.made = {attempt}; }}");
        assert_eq!(refused(&once(&code, "{}")).0, FunctionCode::Thrown, "{attempt}");
    }
}

#[test]
fn nothing_can_be_imported_while_running() {
    for specifier in [
        "ext:core/mod.js",
        "ext:core/ops",
        "node:fs",
        "file:///etc/passwd",
        "data:text/javascript,1",
        "x",
    ] {
        let code = format!(
            "export default async (event) => {{ event.module = Object.keys(await import('{specifier}')); }}"
        );
        let outcome = once(&code, "{}");
        assert_eq!(
            refused(&outcome).0,
            FunctionCode::Thrown,
            "{specifier}: {outcome:?}"
        );
    }
}

#[test]
fn stack_traces_and_their_hooks_show_no_function_of_the_host() {
    let code = "export default () => {
        const found = [];
        Error.prepareStackTrace = (_, sites) => { found.push(...sites.map((site) => String(site.getFileName?.()))); return ''; };
        const error = new Error('x');
        const stack = String(error.stack);
        return { found, stack };
    }";
    let outcome = once(code, "{}");
    let text = forwarded(&outcome)[0];
    assert!(!text.contains("ext:") && !text.contains("millrace:"), "{text}");
}

#[test]
fn what_one_chain_leaves_on_its_globals_is_not_seen_by_another() {
    let code = "export default (event) => { event.seen = globalThis.left ?? null; globalThis.left = 1; }";
    let first = open_with(LIMITS, &[code]);
    assert_eq!(forwarded(&run(&first, &["{}", "{}"]).0[1]), [r#"{"seen":1}"#]);
    let second = open_with(LIMITS, &[code]);
    assert_eq!(forwarded(&run(&second, &["{}"]).0[0]), [r#"{"seen":null}"#]);
}

/// Everything that can be reached from the global object and from `ctx` by names, against the list that is kept.
/// Run with `MILLRACE_WRITE_GOLDEN=1` to write the list anew, and read the difference: a new line is a new thing that
/// hostile code holds in its hands.
#[cfg(feature = "engine-v8")]
#[test]
fn what_can_be_reached_is_the_list_that_is_kept() {
    let code = "export default (event, ctx) => {
        const seen = new Set();
        const found = [];
        const visit = (value, path) => {
            if ((typeof value !== 'object' && typeof value !== 'function') || value === null || seen.has(value)) return;
            seen.add(value);
            const prototype = Object.getPrototypeOf(value);
            const next = [];
            for (const key of Reflect.ownKeys(value)) {
                const name = `${path}${typeof key === 'symbol' ? `[${key.description}]` : `.${key}`}`;
                const { value: inner, get, set } = Object.getOwnPropertyDescriptor(value, key);
                found.push(get || set ? `${name} (accessor)` : name);
                next.push([inner, name], [get, `${name}<get>`], [set, `${name}<set>`]);
            }
            for (const [inner, name] of next) visit(inner, name);
            visit(prototype, `${path}<prototype>`);
        };
        visit(globalThis, 'globalThis');
        visit(ctx, 'ctx');
        return { found: found.filter((name) => !/\\.(length|name|arguments|caller|prototype|constructor)$/.test(name)).sort() };
    }";
    let limits = Limits {
        wall_ms: 10_000,
        ..LIMITS
    };
    let (outcomes, _) = run(&open_with(limits, &[code]), &["{}"]);
    let text = forwarded(&outcomes[0])[0];
    let read: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let lines: Vec<_> = read["found"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|line| line.as_str().expect("text").replace('\n', " "))
        .collect();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/reachable.txt");
    let now = format!("{}\n", lines.join("\n"));
    if std::env::var_os("MILLRACE_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &now).expect("the list is written");
    }
    let kept = std::fs::read_to_string(&path).expect("the list is kept");
    let kept: std::collections::BTreeSet<_> = kept.lines().collect();
    let now: std::collections::BTreeSet<_> = now.lines().collect();
    let new: Vec<_> = now.difference(&kept).collect();
    let gone: Vec<_> = kept.difference(&now).collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "new: {new:#?}\ngone: {gone:#?}"
    );
}
