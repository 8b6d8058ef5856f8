// `node node.mjs HOST WRITE_KEY RUN`: the client of Node.js servers.
import { readFileSync } from "node:fs";
import { Analytics } from "@segment/analytics-node";

const [host, writeKey, run] = process.argv.slice(2);
const events = JSON.parse(readFileSync("events.json", "utf8"));
const analytics = new Analytics({ host, writeKey, flushAt: 15, maxRetries: 2 });

const failed = [];
const noted = (error) => error && failed.push(error);
analytics.on("error", (error) => failed.push(error.reason ?? error));

analytics.identify({ userId: "node-user", traits: { clients_run: run, client: "node" } }, noted);
for (const { name, properties } of events) {
  analytics.track({ userId: "node-user", event: name, properties: { ...properties, clients_run: run, client: "node" } }, noted);
}
await analytics.closeAndFlush({ timeout: 20_000 });
if (failed.length > 0) {
  console.error(failed);
  process.exit(1);
}
