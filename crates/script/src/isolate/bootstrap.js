// Runs once in a fresh isolate, before any function is loaded. It captures the intrinsics it uses, leaves on
// the global object only what the language defines, and returns what the host calls later:
// [context(recordText, event), retryAfter(exception), take(text), go(entry, takesContext, done, settled), marks(),
// promised(), made(), before(promise), after(), settled(promise)].
(writeLine, constantsText, web, outside, pending, over) => {
  "use strict";
  const { parse, stringify } = JSON;
  const { apply, defineProperty, deleteProperty, getPrototypeOf, ownKeys } = Reflect;
  const { create, freeze } = Object;
  const { isArray } = Array;
  const plain = Object.prototype;
  const Text = String;
  const slice = String.prototype.slice;

  const LINE_CHARS = 4096;
  const describe = (value) => {
    if (typeof value === "string") return value;
    try {
      // An error has no own enumerable fields; its stack says more than "{}".
      if (typeof value === "object" && value !== null && typeof value.stack === "string") return value.stack;
      const text = stringify(value);
      return text === undefined ? Text(value) : text;
    } catch {
      return "[cannot be shown]";
    }
  };
  const logger = (level) => (...values) => {
    let line = "";
    for (let i = 0; i < values.length && line.length < LINE_CHARS; i++) {
      if (i > 0) line += " ";
      line += describe(values[i]);
    }
    writeLine(level, apply(slice, line, [0, LINE_CHARS]));
  };
  const log = freeze({ debug: logger(0), info: logger(1), warn: logger(2), error: logger(3) });

  const constants = parse(constantsText);
  const env = freeze(constants.env);

  // What a browser says it is, read only when it is asked for. Small and permissive: names and major versions.
  const families = [
    ["Edge", /Edg(?:e|A|iOS)?\/([\d.]+)/], ["Opera", /(?:OPR|Opera)\/([\d.]+)/], ["Samsung Internet", /SamsungBrowser\/([\d.]+)/],
    ["Firefox", /(?:Firefox|FxiOS)\/([\d.]+)/], ["Chrome", /(?:Chrome|CriOS)\/([\d.]+)/],
    ["Safari", /Version\/([\d.]+).*Safari\//], ["curl", /^curl\/([\d.]+)/],
  ];
  const systems = [
    ["iOS", /(?:iPhone|iPad|iPod).*? OS ([\d_]+)/], ["Android", /Android ([\d.]+)?/], ["Windows", /Windows NT ([\d.]+)/],
    ["macOS", /Mac OS X ([\d_.]+)/], ["Chrome OS", /CrOS \S+ ([\d.]+)/], ["Linux", /Linux()/],
  ];
  const exec = RegExp.prototype.exec;
  const replaceAll = String.prototype.replaceAll;
  const firstOf = (patterns, text) => {
    for (let i = 0; i < patterns.length; i++) {
      const found = apply(exec, patterns[i][1], [text]);
      if (found) {
        const version = found[1] ? apply(replaceAll, found[1], ["_", "."]) : null;
        return { name: patterns[i][0], version };
      }
    }
    return null;
  };
  const test = (pattern, text) => apply(exec, pattern, [text]) !== null;
  const deviceOf = (text) => {
    if (test(/iPad|Tablet|Android(?!.*Mobile)/, text)) return "tablet";
    return test(/Mobi|iPhone|iPod/, text) ? "mobile" : "desktop";
  };
  const userAgent = (text) => {
    if (typeof text !== "string" || text === "") return null;
    const line = apply(slice, text, [0, 1024]);
    const bot = test(/bot|crawler|spider|slurp|headless|lighthouse/i, line);
    return { browser: firstOf(families, line), os: firstOf(systems, line), device: deviceOf(line), bot };
  };

  let reach;
  const unopened = () => { throw new RetryError(constants.envFault); };
  const contextOf = (record, event) => {
    let ua;
    const ctx = {
      log,
      env,
      workspace: constants.workspace,
      source: constants.source,
      destination: constants.destination,
      attempt: record.attempt,
      receivedAt: record.receivedAt,
      headers: record.headers,
      idempotencyKey: record.idempotencyKey,
      geo: record.geo ?? null,
      store: reach.store,
      fetch: reach.fetch,
      // The browser's own line is in the event where a server sent it on.
      get ua() {
        if (ua === undefined) ua = userAgent(event?.context?.userAgent ?? record.headers?.["user-agent"]);
        return ua;
      },
    };
    if (constants.envFault) defineProperty(ctx, "env", { get: unopened, enumerable: true });
    return ctx;
  };
  const context = (recordText, event) => contextOf(parse(recordText), event);

  // Several events in one entry into the engine, see sweep.rs: `take` reads them, each with its record behind it where the
  // function takes its context, and `go` goes on behind the one it stopped at. It gives nothing when it is through or `done`
  // wants it to stop, and else what the host has to judge. `settled` is there for an async function: it gives what the promise
  // came to, and `waits` where that is not known yet, or where the event is not over with it.
  let events = [];
  let at = 0;
  let writing = false;
  let promises = false;
  const take = (text) => {
    events = parse(text);
    at = 0;
    return events.length;
  };
  const waits = freeze({});
  const go = (entry, takesContext, done, settled) => {
    writing = false;
    promises = false;
    const { length } = events;
    while (at < length) {
      const event = events[at];
      events[at++] = undefined;
      let result = takesContext ? entry(event, contextOf(events[at++], event)) : entry(event);
      if (promises) return [event, result];
      if (settled !== undefined) {
        const promise = result;
        result = settled(promise, waits);
        if (result === waits) return [event, promise];
      }
      let text = null;
      if (result === undefined || result === event) {
        writing = true;
        text = stringify(event);
      } else if (result !== null && result !== false && result !== "drop") {
        if (typeof result !== "object" || isArray(result) || getPrototypeOf(result) !== plain) return [event, result];
        writing = true;
        text = stringify(result);
      }
      if (done(text)) return undefined;
      writing = false;
    }
    return undefined;
  };
  const marks = () => (writing ? 1 : 0) + (promises ? 2 : 0);

  // How many promises are pending, see promises.rs: what is left to the event, and what it has.
  const left = new Int32Array(pending);
  let reaction;
  let settles = false;
  const made = () => { if (--left[0] < 0) over(); };
  const promised = () => {
    promises = true;
    made();
  };
  const giveBack = () => { if (left[0] < left[1]) left[0]++; };
  const before = (promise) => {
    reaction = promise;
    settles = false;
  };
  const after = () => {
    if (!settles) giveBack();
    reaction = undefined;
  };
  const settled = (promise) => {
    giveBack();
    if (promise === reaction) settles = true;
  };

  // A private field is the mark: no object made by a function can carry it without being a RetryError.
  let readAfter;
  class RetryError extends Error {
    #after;
    constructor(message, options) {
      super(message);
      const after = options?.after;
      this.#after = after === undefined || after === null ? "" : Text(after);
    }
    static {
      readAfter = (value) => (#after in value ? value.#after : undefined);
      defineProperty(this.prototype, "name", { value: "RetryError", configurable: true, writable: true });
    }
  }
  reach = outside(RetryError);
  const retryAfter = (value) => (typeof value === "object" && value !== null ? readAfter(value) : undefined);

  // Code from strings: the engine refuses it where it can (V8), and no constructor is left that would do it.
  const Closed = function Function() {
    throw new EvalError("code cannot be made from strings");
  };
  const kinds = [function () {}, async function () {}, function* () {}, async function* () {}];
  for (let i = 0; i < kinds.length; i++) {
    defineProperty(getPrototypeOf(kinds[i]), "constructor", { value: Closed });
  }
  defineProperty(Closed, "prototype", { value: getPrototypeOf(kinds[0]) });

  const kept = create(null);
  const names = [
    "AggregateError", "Array", "ArrayBuffer", "BigInt", "BigInt64Array", "BigUint64Array", "Boolean", "DataView",
    "Date", "Error", "EvalError", "FinalizationRegistry", "Float16Array", "Float32Array", "Float64Array",
    "Infinity", "Int16Array", "Int32Array", "Int8Array", "Intl", "Iterator", "JSON", "Map", "Math", "NaN",
    "Number", "Object", "Promise", "Proxy", "RangeError", "ReferenceError", "Reflect", "RegExp", "Set", "String",
    "Symbol", "SyntaxError", "TypeError", "URIError", "Uint16Array", "Uint32Array", "Uint8Array",
    "Uint8ClampedArray", "WeakMap", "WeakRef", "WeakSet", "decodeURI", "decodeURIComponent", "encodeURI",
    "encodeURIComponent", "escape", "globalThis", "isFinite", "isNaN", "parseFloat", "parseInt", "undefined",
    "unescape",
  ];
  for (let i = 0; i < names.length; i++) kept[names[i]] = true;
  // More than once: in an isolate made of a snapshot the engine's own name lies behind the one that hid it.
  for (let rounds = 0, found = true; found; rounds++) {
    found = false;
    const present = ownKeys(globalThis);
    for (let i = 0; i < present.length; i++) {
      const name = present[i];
      if (kept[name] === true) continue;
      found = true;
      if (rounds > 3 || !deleteProperty(globalThis, name)) {
        throw new TypeError(`the global ${Text(name)} cannot be taken away`);
      }
    }
  }
  const publish = (name, value) =>
    defineProperty(globalThis, name, { value, writable: true, enumerable: false, configurable: true });
  publish("Function", Closed);
  publish("RetryError", RetryError);
  publish("console", freeze({ debug: log.debug, log: log.info, info: log.info, warn: log.warn, error: log.error }));

  const interfaces = ownKeys(web);
  for (let i = 0; i < interfaces.length; i++) publish(interfaces[i], web[interfaces[i]]);

  return [context, retryAfter, take, go, marks, promised, made, before, after, settled];
}
