// KV connectors: what was found elsewhere and loaded, what was given away, and how long that held up the engine.

import { fill, h } from "../dom.js";
import { bytes, count, ms, percent, short } from "../format.js";
import { figures, legend, table } from "../panel.js";
import { timePlot } from "../plot.js";

const ABOUT = {
  lookup: "scheduler: what has the connector of this prompt?",
  load: "scheduler: requests whose tokens are to be loaded",
  start_load: "worker: loading begins",
  wait_load: "worker: a layer waits for its part",
  save: "worker: a layer is given away",
  wait_save: "worker: the step waits until all have been",
  finished: "worker: which transfers have ended?",
};
const HELD = [
  ["sched", "scheduler", "queue"],
  ["load", "worker, loading", "prefill"],
  ["save", "worker, saving", "decode"],
  ["ask", "worker, asking", "other"],
];

/** Sums a second in parts of the view that hold some steps each, so that they are no comb. */
function rates(series, names, from, to, most) {
  const inView = series.total(names[0], from, to).n;
  const parts = Math.max(6, Math.min(160, Math.floor(most / 4), Math.floor(inView / 4)));
  const made = names.map((name) => series.rate(name, from, to, parts));
  return { x: made[0].x, y: made.map((one) => one.y) };
}

export function transfers(host, store, current) {
  const { kv_transfers: all, requests } = current().json;
  if (!all) return fill(host, h("p.quiet", null, "No KV connector was seen."));
  const rows = Object.entries(all.connectors).flatMap(([connector, operations]) => Object.entries(operations).map(([operation, row]) => ({ connector, operation, ...row })));
  const most = (operation, key) => Math.max(0, ...rows.filter((row) => row.operation === operation).map((row) => row[key] ?? 0));
  const { transfers: series } = current();
  const whole = (name) => (series ? series.total(name, -Infinity, Infinity).sum : 0);
  const loaded = most("load", "tokens");
  const loads = most("load", "requests");
  const worker = whole("load") + whole("save") + whole("ask");
  const failed = rows.reduce((sum, row) => sum + row.failed_steps, 0);
  const moved = h("div");
  const held = h("div");
  fill(
    host,
    figures(
      ["loaded", `${count(loaded)} tokens${all.token_bytes ? `, ${bytes(loaded * all.token_bytes)}` : ""}`],
      requests.prompt_tokens ? ["of all prompts' tokens", h("span", { title: "tokens loaded, of the prompts of this session's requests; a preempted request may load again" }, percent((100 * loaded) / requests.prompt_tokens))] : null,
      ["requests that loaded", count(loads)],
      loads ? ["a loading request", `${short(loaded / loads)} tokens${all.token_bytes ? `, ${bytes((loaded / loads) * all.token_bytes)}` : ""}`] : null,
      ["held up: scheduler", ms(whole("sched") / 1000)],
      ["held up: worker", ms(worker / 1000)],
      failed ? ["steps with a failed call", h("b.bad", null, count(failed))] : null,
    ),
    h("h3", null, "Tokens a second", h("span.aside", null, legend(["found elsewhere", "cached", "line"], ["loaded", "prefill"]))),
    moved,
    h("h3", null, "Time held up, of each second", h("span.aside", null, legend(...HELD.map(([, name, tone]) => [name, tone, "line"])))),
    held,
    table(
      [
        { name: "connector", value: (row) => row.connector },
        { name: "operation", value: (row) => row.operation, show: (row) => h("span", { title: ABOUT[row.operation] }, row.operation.replaceAll("_", "\u00a0")) },
        { name: "calls", number: true, title: "of load: requests", value: (row) => row.calls ?? row.requests, show: (row) => count(row.calls ?? row.requests) },
        { name: "tokens", number: true, value: (row) => row.tokens ?? -1, show: (row) => (row.tokens === undefined ? "–" : count(row.tokens)) },
        { name: "bytes", number: true, title: "tokens times what a token takes in this rank's cache", value: (row) => row.bytes ?? -1, show: (row) => bytes(row.bytes) },
        { name: "steps", number: true, value: (row) => row.steps, show: (row) => count(row.steps) },
        { name: "total", number: true, value: (row) => row.total_ms, show: (row) => ms(row.total_ms) },
        { name: "mean a step", number: true, value: (row) => row.mean_ms ?? -1, show: (row) => ms(row.mean_ms) },
        { name: "p95", number: true, value: (row) => row.p95_ms ?? -1, show: (row) => ms(row.p95_ms) },
        { name: "max", number: true, value: (row) => row.max_ms ?? -1, show: (row) => ms(row.max_ms) },
        { name: "what that is", value: (row) => ABOUT[row.operation] ?? "", show: (row) => h("span.whole", null, ABOUT[row.operation] ?? "") },
      ],
      rows,
      { empty: "nothing was asked of it" },
    ),
    h(
      "p.quiet",
      null,
      "Host clock: how long the scheduler and one worker were held up; what a connector does in threads of its own, or on a device's stream, shows in the waiting for it. How much is saved only the connector knows",
      most("save", "calls") ? `: ${count(most("save", "calls"))} times a layer was given to it. ` : ". ",
      all.token_bytes ? `A token is ${bytes(all.token_bytes)} in this rank's cache.` : "What a token takes in the cache is not known.",
    ),
  );
  if (!series) return;
  timePlot(moved, store, {
    height: 120,
    series: [
      { name: "found", colour: "cached", kind: "line", format: (v) => `${short(v)} tok/s` },
      { name: "loaded", colour: "prefill", kind: "area", format: (v) => `${short(v)} tok/s` },
    ],
    fetch: (from, to, points) => {
      const { x, y } = rates(current().transfers, ["found", "loaded"], from, to, points);
      return [x, ...y];
    },
    tip: () => (all.token_bytes ? [["a token", bytes(all.token_bytes)]] : []),
  });
  timePlot(held, store, {
    height: 120,
    format: (value) => `${short(value)} %`,
    series: HELD.map(([, name, colour]) => ({ name, colour, kind: "line", format: (v) => percent(v, 2) })),
    fetch: (from, to, points) => {
      const { x, y } = rates(current().transfers, HELD.map(([key]) => key), from, to, points); // prettier-ignore
      return [x, ...y.map((values) => values.map((value) => value / 1e4))]; // microseconds a second to per cent
    },
  });
}
