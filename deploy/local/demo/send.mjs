// Sends a handful of events with the official client: `node send.mjs HOST WRITE_KEY RUN`.
// Prints the message ids of what was accepted as one JSON array.
import { Analytics } from "@segment/analytics-node";

const [host, writeKey, run] = process.argv.slice(2);
const analytics = new Analytics({ host, writeKey, flushAt: 20, maxRetries: 3 });

const sent = [];
const failed = [];
analytics.on("error", (error) => failed.push(error.reason ?? error));

const noted = (error, context) => {
  if (error) failed.push(error);
  else sent.push(context.event.messageId);
};

const orders = [
  { product: "river stone", price: 2.5, quantity: 4 },
  { product: "mill wheel", price: 119.9, quantity: 1 },
  { product: "flour, 1 kg", price: 1.79, quantity: 12 },
];

analytics.identify({ userId: "ada", traits: { name: "Ada", plan: "pro", demo_run: run } }, noted);
analytics.page({ userId: "ada", name: "Shop", properties: { path: "/shop", demo_run: run } }, noted);
for (const order of orders) {
  analytics.track({ userId: "ada", event: "Order Completed", properties: { ...order, demo_run: run } }, noted);
}
analytics.group({ userId: "ada", groupId: "millers", traits: { size: 7, demo_run: run } }, noted);

await analytics.closeAndFlush({ timeout: 20_000 });
if (failed.length > 0) {
  console.error(failed);
  process.exit(1);
}
console.log(JSON.stringify(sent));
