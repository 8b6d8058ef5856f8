// `node browser.mjs HOST WRITE_KEY RUN`: the client of web pages, on a page of another origin. The page's
// XMLHttpRequest asks for preflights and keeps to their answers, as a browser's does.
import { readFileSync } from "node:fs";
import { JSDOM } from "jsdom";

const [host, writeKey, run] = process.argv.slice(2);
const events = JSON.parse(readFileSync("events.json", "utf8"));

const { window } = new JSDOM("<!doctype html><title>Shop</title>", {
  url: "http://localhost:8000/shop?utm_source=mail",
  pretendToBeVisual: true,
});
delete globalThis.fetch;
for (const name of ["window", "document", "location", "localStorage", "sessionStorage", "XMLHttpRequest", "navigator", "Event", "CustomEvent"]) {
  Object.defineProperty(globalThis, name, { value: name === "window" ? window : window[name], configurable: true });
}

const requests = [];
const { open } = window.XMLHttpRequest.prototype;
window.XMLHttpRequest.prototype.open = function (method, url, ...rest) {
  requests.push(`${method} ${new URL(url).pathname}`);
  return open.call(this, method, url, ...rest);
};

const { AnalyticsBrowser } = await import("@segment/analytics-next");
const address = new URL(host);
const integration = { apiHost: `${address.host}/v1`, protocol: address.protocol.replace(":", "") };
for (const strategy of ["standard", "batching"]) {
  const [analytics] = await AnalyticsBrowser.load(
    { writeKey, cdnURL: host },
    {
      disableClientPersistence: true,
      integrations: {
        "Segment.io": { ...integration, deliveryStrategy: { strategy, config: { size: 2, timeout: 200 } } },
      },
    },
  );
  const client = `browser-${strategy}`;
  const failed = new Promise((_, reject) => analytics.on("delivery_failure", (context) => reject(context.failedDelivery())));
  failed.catch(() => {});
  const contexts = [await analytics.identify(`${client}-user`, { clients_run: run, client })];
  for (const { name, properties } of events) {
    contexts.push(await analytics.track(name, { ...properties, clients_run: run, client }));
  }
  const broken = contexts.filter((context) => context.failedDelivery());
  if (broken.length > 0) throw new Error(JSON.stringify(broken.map((context) => context.failedDelivery())));
}
// Batches leave on a timer of their own.
await new Promise((resolve) => setTimeout(resolve, 1000));
if (requests.length === 0) throw new Error("nothing went through the page");
window.close();
process.exit(0);
