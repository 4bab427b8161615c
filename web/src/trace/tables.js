// The tables of a trace: torch's key_averages, kernels, steps. What is searched for on the page filters them all.

import { fill, h } from "../dom.js";
import { count, percent, short, span } from "../format.js";
import { table } from "../panel.js";
import { KIND_WORDS } from "./data.js";

/** A time with the exact figure behind it. */
const time = (us) => h("span", { title: `${us.toFixed(3)} µs` }, us === 0 ? "–" : span(us));
const name = (text) => h("span.name-cell", { title: text }, text.length > 120 ? `${text.slice(0, 118)}…` : text);
const bytes = (value) => {
  const size = Math.abs(value);
  for (const [unit, word] of [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]]) if (size >= unit) return `${short(value / unit)} ${word}`; // prettier-ignore
  return value === 0 ? "–" : `${value} B`;
};

/** rows() again at each filter; columns as in panel.js. */
function filtered(host, store, columns, rows, { sort, limit = 25, words, about }) {
  let order = sort;
  const place = h("div");
  const quiet = h("p.quiet");
  host.append(place, quiet);
  const draw = () => {
    const all = rows();
    const wanted = store.search.toLowerCase();
    const kept = wanted ? all.filter((row) => words(row).toLowerCase().includes(wanted)) : all;
    fill(place, table(columns, kept, { sort: order, limit, empty: wanted ? `nothing with “${store.search}”` : "nothing", onsort: (next) => (order = next) }));
    quiet.textContent = about(kept.length, all.length);
  };
  store.on("filter", draw);
  store.on("engine", draw);
  draw();
}

export function averages(host, store, trace) {
  const { figures, data } = trace;
  const rows = figures.key_averages;
  const has = (key) => rows.some((row) => row[key] !== 0);
  const total = (key, whole) => ({ title: "of all", value: (row) => (whole ? (100 * row[key]) / whole : 0), show: (row) => (row[key] === 0 ? "–" : percent((100 * row[key]) / whole)) });
  const timed = (key, head) => ({ name: head, number: true, value: (row) => row[key], show: (row) => time(row[key]) });
  const columns = [
    { name: "name", value: (row) => row.name, show: (row) => name(row.name) },
    { name: "what", value: (row) => KIND_WORDS[row.kind] ?? row.kind },
    { name: "calls", number: true, value: (row) => row.calls, show: (row) => count(row.calls) },
    timed("self_cpu_us", "self CPU"),
    { name: "self CPU %", number: true, ...total("self_cpu_us", figures.self_cpu_us) },
    timed("cpu_us", "CPU total"),
    ...(figures.has_device ? [timed("self_device_us", "self GPU"), { name: "self GPU %", number: true, ...total("self_device_us", figures.self_device_us) }, timed("device_us", "GPU total")] : []), // prettier-ignore
    ...(has("self_cpu_bytes") ? [{ name: "self CPU mem", number: true, value: (row) => row.self_cpu_bytes, show: (row) => bytes(row.self_cpu_bytes) }] : []),
    ...(has("self_device_bytes") ? [{ name: "self GPU mem", number: true, value: (row) => row.self_device_bytes, show: (row) => bytes(row.self_device_bytes) }] : []),
    ...(has("flops") ? [{ name: "FLOPs", number: true, value: (row) => row.flops, show: (row) => (row.flops ? short(row.flops) : "–") }] : []),
    ...(rows[0]?.input_shapes !== undefined ? [{ name: "input shapes", value: (row) => row.input_shapes, show: (row) => name(row.input_shapes) }] : []),
    ...(rows[0]?.stack !== undefined ? [{ name: "stack", value: (row) => row.stack.join(" ← "), show: (row) => name(row.stack.join(" ← ")) }] : []),
  ];
  filtered(host, store, columns, () => rows, {
    words: (row) => `${row.name} ${row.input_shapes ?? ""} ${(row.stack ?? []).join(" ")}`,
    sort: { by: columns.findIndex((column) => column.name === (figures.self_device_us > 0 ? "self GPU" : "self CPU")), down: true },
    about: (kept, all) => `${kept === all ? "" : `${count(kept)} of `}${count(all)} rows${data.rows > all ? `; the page has the first ${count(all)} of ${count(data.rows)}, --limit=0 has all` : ""}`,
  });
}

export function kernels(host, store, trace, current) {
  const rows = () => {
    const { kernels: all } = current().figures;
    return all;
  };
  const whole = () => rows().reduce((sum, row) => sum + row.us, 0);
  filtered(
    host,
    store,
    [
      { name: "kernel", value: (row) => row.name, show: (row) => [h("i.dot", { style: { background: `var(--${trace.classTone(row.class)})` } }), name(row.name)] },
      { name: "class", value: (row) => row.class },
      { name: "calls", number: true, value: (row) => row.calls, show: (row) => count(row.calls) },
      { name: "total", number: true, value: (row) => row.us, show: (row) => time(row.us) },
      { name: "of all", number: true, value: (row) => row.us, show: (row) => percent((100 * row.us) / (whole() || 1)) },
      { name: "mean", number: true, value: (row) => row.us / row.calls, show: (row) => time(row.us / row.calls) },
      { name: "least", number: true, value: (row) => row.min_us, show: (row) => time(row.min_us) },
      { name: "most", number: true, value: (row) => row.max_us, show: (row) => time(row.max_us) },
    ],
    rows,
    { sort: { by: 3, down: true }, limit: 12, words: (row) => `${row.name} ${row.class}`, about: (kept, all) => `${kept === all ? "" : `${count(kept)} of `}${count(all)} kernels and copies` },
  );
}

export function steps(host, store, current) {
  const onDevice = (column) => !["GPU busy", "GPU busy %", "kernels", "collectives", "copies"].includes(column.name) || current().figures.devices.length > 0;
  const go = (row) => {
    const { offset } = current();
    store.setView(offset + row.start_us - row.period_us * 0.05, offset + row.start_us + row.period_us * 1.05);
    document.getElementById("timeline").scrollIntoView({ block: "start" });
  };
  filtered(
    host,
    store,
    [
      { name: "step", value: (row) => row.start_us, show: (row) => h("button.plain.step-link", { onclick: () => go(row), title: "show it in the timeline" }, row.name) },
      { name: "period", number: true, title: "to the next step's begin", value: (row) => row.period_us, show: (row) => time(row.period_us) },
      { name: "on the CPU", number: true, value: (row) => row.cpu_us, show: (row) => time(row.cpu_us) },
      { name: "GPU busy", number: true, value: (row) => row.device_busy_us, show: (row) => time(row.device_busy_us) },
      { name: "GPU busy %", number: true, value: (row) => row.device_busy_us / (row.period_us || 1), show: (row) => percent((100 * row.device_busy_us) / (row.period_us || 1)) },
      { name: "kernels", number: true, value: (row) => row.works, show: (row) => count(row.works) },
      { name: "collectives", number: true, value: (row) => row.collective_us, show: (row) => time(row.collective_us) },
      { name: "copies", number: true, value: (row) => row.copy_us, show: (row) => time(row.copy_us) },
    ].filter(onDevice),
    () => current().figures.steps,
    { sort: { by: 1, down: true }, limit: 10, words: (row) => row.name, about: (kept, all) => `${kept === all ? "" : `${count(kept)} of `}${count(all)} steps, the longest first; a click shows one in the timeline` },
  );
}
