// The usual way to run other people's functions in Node: an isolate per function, one call per event, the event
// copied in and the result copied out, several calls at once. Reads the work as JSON from standard input, prints
// what it cost as JSON.
import ivm from "isolated-vm";

let input = "";
for await (const piece of process.stdin) input += piece;
const { code, events, calls, atOnce, warm } = JSON.parse(input);

const isolate = new ivm.Isolate({ memoryLimit: 128 });
const context = await isolate.createContext();
const script = await isolate.compileScript(`(${code})`);
const run = await script.run(context, { reference: true });
const options = { arguments: { copy: true }, result: { copy: true, promise: true }, timeout: 1000 };

let bytes = 0;
let next = 0;
async function lane(until) {
  while (next < until) {
    const text = events[next++ % events.length];
    const result = await run.apply(undefined, [JSON.parse(text), {}], options);
    bytes += JSON.stringify(result).length;
  }
}
async function all(count) {
  next = 0;
  await Promise.all(Array.from({ length: atOnce }, () => lane(count)));
}

await all(warm);
bytes = 0;
const cpu = process.cpuUsage();
const began = process.hrtime.bigint();
await all(calls);
const wall = Number(process.hrtime.bigint() - began);
const { user, system } = process.cpuUsage(cpu);
console.log(JSON.stringify({ bytes, wall_ns: wall, cpu_ns: (user + system) * 1000 }));
