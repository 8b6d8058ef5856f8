//! The functions, and what may be said of each.

/// One way to misbehave.
#[derive(Debug)]
pub(crate) struct Case {
    /// What an event says to have it.
    pub(crate) name: &'static str,
    /// JavaScript within an async function of `event` and `ctx`.
    body: &'static str,
    /// Verdict and code, any of these.
    pub(crate) verdicts: &'static [&'static str],
}

impl Case {
    /// Whether it may cost its worker.
    pub(crate) fn kills(&self) -> bool {
        self.verdicts == KILLS || self.verdicts == BYTES || self.name == SEARCH
    }

    /// Whether it goes on until its time is used up.
    pub(crate) fn is_slow(&self) -> bool {
        self.verdicts == TIME
    }
}

/// In the engine's own code a limit of memory or time may be met first, or the engine ends its process.
const KILLS: &[&str] = &[
    "dead_letter cpu_limit",
    "dead_letter heap_limit",
    "dead_letter rss_limit",
    "dead_letter wall_limit",
    "dead_letter worker_crashed",
];

const TIME: &[&str] = &["dead_letter cpu_limit", "dead_letter wall_limit"];
/// As [`KILLS`], and the engine may refuse the next array.
const BYTES: &[&str] = &[
    "dead_letter cpu_limit",
    "dead_letter heap_limit",
    "dead_letter rss_limit",
    "dead_letter thrown",
    "dead_letter wall_limit",
];

/// What the engine does not interrupt.
const SEARCH: &str = "text searched";

const THROWN: &[&str] = &["dead_letter thrown"];

/// QuickJS does not count promises.
const PROMISES: &[&str] = if cfg!(feature = "engine-quickjs") {
    &[
        "dead_letter cpu_limit",
        "dead_letter heap_limit",
        "dead_letter unsettled",
        "dead_letter wall_limit",
    ]
} else {
    &["dead_letter promise_limit"]
};

/// Everything that is tried.
pub(crate) const CORPUS: &[Case] = &[
    case("endless loop", "for (;;);", TIME),
    case("endless catch", "for (;;) { try { for (;;); } catch {} finally { continue; } }", TIME),
    case("endless microtasks", "for (;;) await null;", TIME),
    case("endless timers", "await new Promise(() => { const f = () => setTimeout(f, 0); f(); });", TIME),
    case("never settled", "await new Promise(() => {});", &["dead_letter unsettled"]),
    case("heap bomb", "const kept = []; for (;;) kept.push({ n: kept.length });", KILLS),
    // The four that end a process: what the engine cannot throw, and what it does not interrupt.
    case("array filled", "new Array(2 ** 27).fill(1.1);", KILLS),
    case("string split", "'x'.repeat(2 ** 28).split('');", KILLS),
    case("text parsed", "JSON.parse('[' + '[1,2,3,4],'.repeat(2 ** 24) + '0]');", KILLS),
    case(SEARCH, "'x'.repeat(2 ** 23).indexOf('x'.repeat(2 ** 21) + 'y' + 'x'.repeat(2 ** 21));", TIME),
    case(
        "typed arrays",
        "const kept = []; for (;;) kept.push(new Uint8Array(2 ** 24).fill(1));",
        BYTES,
    ),
    case(
        "pending promises",
        "const kept = []; for (let i = 0; i < 1e6; i++) kept.push(new Promise(() => {})); await Promise.all(kept);",
        PROMISES,
    ),
    case("regex bomb", "/^(a|a)+$/.test('a'.repeat(40) + '!');", TIME),
    case("huge output", "event.text = 'x'.repeat(2 ** 21);", &["dead_letter output_limit"]),
    case("many outputs", "return Array.from({ length: 101 }, () => ({}));", &["dead_letter output_limit"]),
    case("deep recursion", "const f = () => f() + 1; f();", THROWN),
    case("proxy thrown", "throw new Proxy({}, { get() { for (;;); }, getPrototypeOf() { for (;;); } });", THROWN),
    case("getter returned", "return { get trap() { for (;;); } };", TIME),
    case("toJSON throws", "event.x = { toJSON() { throw new Error('no'); } };", THROWN),
    case("cycle", "event.self = event;", THROWN),
    case("returned nonsense", "return 42;", &["dead_letter invalid_return"]),
    // What these spoil is theirs alone: the event goes on, and so does everything after it.
    case(
        "prototypes spoiled",
        "Object.prototype.evil = 1; Object.defineProperty(Object.prototype, 'good', { set() {}, configurable: true });
         delete Object.prototype.evil; delete Object.prototype.good;",
        &["forward"],
    ),
    case(
        "intrinsics replaced",
        "const kept = [JSON.parse, JSON.stringify, Array.isArray];
         JSON.parse = JSON.stringify = Array.isArray = () => { throw new Error('evil'); };
         await null;
         [JSON.parse, JSON.stringify, Array.isArray] = kept;",
        &["forward"],
    ),
    case("goes on afterwards", "(async () => { for (;;) await new Promise((f) => setTimeout(f, 1)); })();", &["forward"]),
    case("rejected and lost", "(async () => { throw new Error('lost'); })();", &["forward"]),
    case("asks for patience", "throw new RetryError('busy', { after: '10s' });", &["retry thrown"]),
];

const fn case(name: &'static str, body: &'static str, verdicts: &'static [&'static str]) -> Case {
    Case { name, body, verdicts }
}

/// One function that does what its event says, and marks the others as fine.
pub(crate) fn function() -> String {
    let cases: Vec<_> = CORPUS
        .iter()
        .map(|case| format!("    case '{}': {{ {} break; }}", case.name, case.body))
        .collect();
    format!(
        "export default async (event, ctx) => {{\n  switch (event.do) {{\n{}\n    default: event.fine = true;\n  }}\n}}",
        cases.join("\n")
    )
}
