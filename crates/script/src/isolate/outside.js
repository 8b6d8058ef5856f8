// `ctx.store` and `ctx.fetch`, over calls that the owner of this process carries out. Runs once in a fresh isolate, before
// any function is loaded; returns what takes `RetryError` and gives both.
(native) => {
  "use strict";
  const { parse, stringify } = JSON;
  const { apply, defineProperty, ownKeys } = Reflect;
  const { freeze } = Object;
  const { isArray } = Array;
  const { isView } = ArrayBuffer;
  const { toWellFormed, toUpperCase, toLowerCase, trim } = String.prototype;
  const Text = String;
  const text = (value) => apply(toWellFormed, Text(value), []);

  const millisOf = (value, name) => {
    const millis = native.millis(Text(value));
    if (!(millis >= 1)) throw new TypeError(`${name} must be a duration such as "90s" or "24h", or a number of milliseconds`);
    return millis;
  };

  // The few things of the Fetch standard that a function needs to send headers and to read an answer.
  class Headers {
    #pairs = [];
    constructor(init) {
      if (init === undefined || init === null) return;
      const given = init instanceof Headers ? init.#pairs
        : isArray(init) ? init
        : ownKeys(init).filter((key) => typeof key === "string").map((key) => [key, init[key]]);
      for (let i = 0; i < given.length; i++) this.append(given[i][0], given[i][1]);
    }
    append(name, value) { this.#pairs.push([apply(toLowerCase, text(name), []), apply(trim, text(value), [])]); }
    delete(name) {
      const key = apply(toLowerCase, text(name), []);
      this.#pairs = this.#pairs.filter((pair) => pair[0] !== key);
    }
    set(name, value) { this.delete(name); this.append(name, value); }
    get(name) {
      const key = apply(toLowerCase, text(name), []);
      const found = this.#pairs.filter((pair) => pair[0] === key).map((pair) => pair[1]);
      return found.length > 0 ? found.join(", ") : null;
    }
    has(name) { return this.get(name) !== null; }
    getSetCookie() { return this.#pairs.filter((pair) => pair[0] === "set-cookie").map((pair) => pair[1]); }
    *entries() {
      const names = [...new Set(this.#pairs.map((pair) => pair[0]))].sort();
      for (let i = 0; i < names.length; i++) yield [names[i], this.get(names[i])];
    }
    *keys() { for (const [name] of this.entries()) yield name; }
    *values() { for (const [, value] of this.entries()) yield value; }
    forEach(callback, self) { for (const [name, value] of this.entries()) apply(callback, self, [value, name, this]); }
    [Symbol.iterator]() { return this.entries(); }
    // What goes out, as a plain list.
    static list(headers) { return headers.#pairs; }
  }

  class Response {
    #answer; #headers; #bytes; #used = false;
    constructor(answer, bytes) {
      this.#answer = answer;
      this.#headers = new Headers(answer.headers);
      this.#bytes = bytes;
    }
    get status() { return this.#answer.status; }
    get statusText() { return this.#answer.statusText; }
    get ok() { return this.#answer.status >= 200 && this.#answer.status < 300; }
    get url() { return this.#answer.url; }
    get redirected() { return this.#answer.redirected; }
    get type() { return "basic"; }
    get headers() { return this.#headers; }
    get bodyUsed() { return this.#used; }
    #take() {
      if (this.#used) throw new TypeError("the body was read before");
      this.#used = true;
      return this.#bytes;
    }
    async text() { return native.decode(this.#take(), false, false); }
    async json() { return parse(native.decode(this.#take(), false, false)); }
    async bytes() { return this.#take(); }
    async arrayBuffer() { return this.#take().buffer; }
    clone() {
      if (this.#used) throw new TypeError("the body was read before");
      return new Response(this.#answer, this.#bytes.slice());
    }
  }
  const tag = (type, name) => defineProperty(type.prototype, Symbol.toStringTag, { value: name, configurable: true });
  tag(Headers, "Headers");
  tag(Response, "Response");

  const bodyOf = (body, headers) => {
    if (body === undefined || body === null) return undefined;
    if (isView(body)) return { base64: native.toBase64(body) };
    if (body instanceof ArrayBuffer) return { base64: native.toBase64(new Uint8Array(body)) };
    if (!headers.has("content-type")) {
      const form = body?.[Symbol.toStringTag] === "URLSearchParams";
      headers.set("content-type", form ? "application/x-www-form-urlencoded;charset=UTF-8" : "text/plain;charset=UTF-8");
    }
    return { text: text(body) };
  };
  const OPTIONS = ["method", "headers", "body", "redirect", "timeout"];
  const request = (input, init) => {
    const options = init ?? {};
    const given = ownKeys(options);
    for (let i = 0; i < given.length; i++) {
      if (!OPTIONS.includes(given[i])) throw new TypeError(`fetch does not know the option ${Text(given[i])}; it knows ${OPTIONS.join(", ")}`);
    }
    const headers = new Headers(options.headers);
    const body = bodyOf(options.body, headers);
    return {
      url: text(input),
      method: apply(toUpperCase, text(options.method ?? "GET"), []),
      headers: Headers.list(headers),
      body,
      redirect: text(options.redirect ?? "follow"),
      timeout: options.timeout === undefined ? undefined : millisOf(options.timeout, "timeout"),
    };
  };

  return (RetryError) => {
    // An answer is [0, result], [1, what failed] or [2, what is away now].
    const call = async (operation, argument, Failure) => {
      const answer = await native.call(operation, stringify(argument));
      if (answer[0] === 0) return parse(answer[1]);
      throw answer[0] === 2 ? new RetryError(answer[1]) : new Failure(answer[1]);
    };

    const keyOf = (key) => {
      if (typeof key !== "string" || key === "") throw new TypeError("a key is a string that is not empty");
      return text(key);
    };
    const lifeOf = (options) => (options?.ttl === undefined || options.ttl === null ? undefined : millisOf(options.ttl, "ttl"));
    const store = freeze({
      async get(key) {
        const kept = await call("store.get", { key: keyOf(key) }, Error);
        return kept === null ? undefined : parse(kept);
      },
      async set(key, value, options) {
        const written = stringify(value);
        if (written === undefined) throw new TypeError("a value that JSON can hold is needed");
        await call("store.set", { key: keyOf(key), value: written, ttl: lifeOf(options) }, Error);
      },
      async del(key) { return call("store.del", { key: keyOf(key) }, Error); },
      async incr(key, by = 1, options) {
        if (!Number.isSafeInteger(by)) throw new TypeError("by is a whole number");
        return call("store.incr", { key: keyOf(key), by, ttl: lifeOf(options) }, Error);
      },
    });

    const fetch = async (input, init) => {
      const answer = await call("fetch", request(input, init), TypeError);
      return new Response(answer, native.fromBase64(answer.body));
    };
    return freeze({ store, fetch });
  };
}
