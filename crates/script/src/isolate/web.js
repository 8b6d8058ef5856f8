// The Web interfaces that functions expect, over what `native.rs` gives. Runs once in a fresh isolate, before any
// function is loaded, and returns what is published on the global object. What a function overwrites here is its
// own chain's: an isolate is never shared between chains.
(native) => {
  "use strict";
  const { apply, ownKeys } = Reflect;
  const { toWellFormed } = String.prototype;
  const { defineProperty } = Object;
  const tag = (type, name) => defineProperty(type.prototype, Symbol.toStringTag, { value: name, configurable: true });
  const failures = {};
  for (const name of ["DataCloneError", "InvalidCharacterError", "NotSupportedError"]) {
    failures[name] = { [name]: class extends Error {} }[name];
    defineProperty(failures[name].prototype, "name", { value: name, configurable: true, writable: true });
  }
  const named = (name, message) => new failures[name](message);
  const invalid = (message) => named("InvalidCharacterError", message);

  const viewOf = (data) => {
    if (data === undefined) return new Uint8Array(0);
    if (ArrayBuffer.isView(data)) return data;
    if (data instanceof ArrayBuffer) return new Uint8Array(data);
    throw new TypeError("an ArrayBuffer or a view of one is needed");
  };

  class TextEncoder {
    get encoding() { return "utf-8"; }
    // Engines differ in what they make of a lone surrogate on its way out; well-formed text has none.
    encode(text = "") { return native.encode(apply(toWellFormed, `${text}`, [])); }
  }
  class TextDecoder {
    #fatal; #ignoreBOM;
    constructor(label = "utf-8", options = {}) {
      const name = `${label}`.trim().toLowerCase();
      if (name !== "utf-8" && name !== "utf8") throw new RangeError(`the encoding ${name} is not known`);
      this.#fatal = Boolean(options?.fatal);
      this.#ignoreBOM = Boolean(options?.ignoreBOM);
    }
    get encoding() { return "utf-8"; }
    get fatal() { return this.#fatal; }
    get ignoreBOM() { return this.#ignoreBOM; }
    decode(data) {
      const text = native.decode(viewOf(data), this.#fatal, this.#ignoreBOM);
      if (text === undefined) throw new TypeError("the bytes are not UTF-8");
      return text;
    }
  }

  const atob = (text) => {
    const plain = native.atob(`${text}`);
    if (plain === undefined) throw invalid("the text is not base64");
    return plain;
  };
  const btoa = (text) => {
    const encoded = native.btoa(`${text}`);
    if (encoded === undefined) throw invalid("the text has characters over 255");
    return encoded;
  };

  class URLSearchParams {
    #pairs = [];
    #changed;
    constructor(init = "") {
      if (init !== null && typeof init === "object") {
        const pairs = typeof init[Symbol.iterator] === "function" ? [...init] : ownKeys(init)
          .filter((key) => typeof key === "string").map((key) => [key, init[key]]);
        for (const pair of pairs) {
          const [name, value, ...rest] = pair;
          if (pair.length < 2 || rest.length > 0) throw new TypeError("each entry needs a name and a value");
          this.#pairs.push([`${name}`, `${value}`]);
        }
      } else {
        this.#read(`${init}`);
      }
    }
    // A parameter list that tells its address of changes.
    static of(query, changed) {
      const params = new URLSearchParams(query);
      params.#changed = changed;
      return params;
    }
    static reread(params, query) { params.#read(query); }
    #read(query) {
      const flat = native.parseForm(query.startsWith("?") ? query.slice(1) : query);
      this.#pairs = [];
      for (let i = 0; i < flat.length; i += 2) this.#pairs.push([flat[i], flat[i + 1]]);
    }
    #tell() { this.#changed?.(this.toString()); }
    get size() { return this.#pairs.length; }
    append(name, value) { this.#pairs.push([`${name}`, `${value}`]); this.#tell(); }
    delete(name, value) {
      this.#pairs = this.#pairs.filter(([n, v]) => n !== `${name}` || (value !== undefined && v !== `${value}`));
      this.#tell();
    }
    get(name) { return this.#pairs.find(([n]) => n === `${name}`)?.[1] ?? null; }
    getAll(name) { return this.#pairs.filter(([n]) => n === `${name}`).map(([, value]) => value); }
    has(name, value) {
      return this.#pairs.some(([n, v]) => n === `${name}` && (value === undefined || v === `${value}`));
    }
    set(name, value) {
      const at = this.#pairs.findIndex(([n]) => n === `${name}`);
      if (at < 0) this.#pairs.push([`${name}`, `${value}`]);
      else {
        this.#pairs[at][1] = `${value}`;
        this.#pairs = this.#pairs.filter(([n], i) => i <= at || n !== `${name}`);
      }
      this.#tell();
    }
    sort() { this.#pairs.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)); this.#tell(); }
    forEach(callback, self) { for (const [name, value] of this.#pairs) callback.call(self, value, name, this); }
    *keys() { for (const [name] of this.#pairs) yield name; }
    *values() { for (const [, value] of this.#pairs) yield value; }
    *entries() { for (const [name, value] of this.#pairs) yield [name, value]; }
    [Symbol.iterator]() { return this.entries(); }
    toString() { return native.writeForm(this.#pairs.flat()); }
  }
  const { of: linked, reread } = URLSearchParams;
  delete URLSearchParams.of;
  delete URLSearchParams.reread;

  const parts = [
    "href", "origin", "protocol", "username", "password", "host", "hostname", "port", "pathname", "search", "hash",
  ];
  class URL {
    #parts;
    #params;
    constructor(address, base) {
      this.#parts = native.parseUrl(`${address}`, base === undefined ? undefined : `${base}`);
      if (this.#parts === undefined) throw new TypeError("Invalid URL");
    }
    static canParse(address, base) {
      return native.parseUrl(`${address}`, base === undefined ? undefined : `${base}`) !== undefined;
    }
    static parse(address, base) { return URL.canParse(address, base) ? new URL(address, base) : null; }
    get searchParams() {
      this.#params ??= linked(this.#parts[9], (query) => { this.#parts = native.changeUrl(this.#parts[0], "search", query); });
      return this.#params;
    }
    toString() { return this.#parts[0]; }
    toJSON() { return this.#parts[0]; }
    static {
      for (let i = 0; i < parts.length; i++) {
        const part = parts[i];
        defineProperty(this.prototype, part, {
          get() { return this.#parts[i]; },
          set: part === "origin" ? undefined : function (value) {
            const changed = native.changeUrl(this.#parts[0], part, `${value}`);
            if (changed === undefined) throw new TypeError("Invalid URL");
            this.#parts = changed;
            if (this.#params !== undefined && (part === "href" || part === "search")) reread(this.#params, changed[9]);
          },
          enumerable: true,
          configurable: true,
        });
      }
    }
  }

  const errors = { Error, EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };
  const structuredClone = (value) => {
    const seen = new Map();
    const refuse = () => { throw named("DataCloneError", "the value cannot be cloned"); };
    const clone = (value) => {
      if (typeof value === "function" || typeof value === "symbol") refuse();
      if (typeof value !== "object" || value === null) return value;
      if (seen.has(value)) return seen.get(value);
      const keep = (copy) => { seen.set(value, copy); return copy; };
      if (Array.isArray(value)) {
        const copy = keep(new Array(value.length));
        for (const key of Object.keys(value)) copy[key] = clone(value[key]);
        return copy;
      }
      if (value instanceof Date) return keep(new Date(value.getTime()));
      if (value instanceof RegExp) return keep(new RegExp(value.source, value.flags));
      if (value instanceof ArrayBuffer) return keep(value.slice(0));
      if (value instanceof DataView) return keep(new DataView(clone(value.buffer), value.byteOffset, value.byteLength));
      if (ArrayBuffer.isView(value)) {
        return keep(new value.constructor(clone(value.buffer), value.byteOffset, value.length));
      }
      if (value instanceof Map) {
        const copy = keep(new Map());
        for (const [key, entry] of [...value]) copy.set(clone(key), clone(entry));
        return copy;
      }
      if (value instanceof Set) {
        const copy = keep(new Set());
        for (const entry of [...value]) copy.add(clone(entry));
        return copy;
      }
      if (value instanceof Error) {
        const copy = keep(new (errors[value.name] ?? Error)(value.message));
        if ("cause" in value) defineProperty(copy, "cause", { value: clone(value.cause), writable: true, configurable: true });
        return copy;
      }
      if (value instanceof Promise || value instanceof WeakMap || value instanceof WeakSet || value instanceof WeakRef) refuse();
      if (value instanceof Number || value instanceof String || value instanceof Boolean) return keep(Object(value.valueOf()));
      const copy = keep({});
      for (const key of Object.keys(value)) {
        defineProperty(copy, key, { value: clone(value[key]), writable: true, enumerable: true, configurable: true });
      }
      return copy;
    };
    return clone(value);
  };

  class Crypto { randomUUID() { return native.uuid(); } }
  class SubtleCrypto {
    async digest(algorithm, data) {
      const name = typeof algorithm === "object" && algorithm !== null ? algorithm.name : algorithm;
      const bytes = native.digest(`${name}`, viewOf(data));
      if (bytes === undefined) throw named("NotSupportedError", `the algorithm ${name} is not known`);
      return bytes.buffer;
    }
  }
  const crypto = new Crypto();
  defineProperty(crypto, "subtle", { value: Object.freeze(new SubtleCrypto()), enumerable: true });

  const setTimeout = (callback, delay = 0, ...values) => {
    if (typeof callback !== "function") throw new TypeError("setTimeout needs a function");
    return native.setTimer(() => { callback(...values); }, Number(delay));
  };
  const clearTimeout = (number) => { native.cancelTimer(Number(number)); };

  const types = { TextDecoder, TextEncoder, URL, URLSearchParams };
  for (const name of Object.keys(types)) tag(types[name], name);
  return { ...types, atob, btoa, clearTimeout, crypto: Object.freeze(crypto), setTimeout, structuredClone };
}
