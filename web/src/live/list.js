// All sessions of the host, a row each: sorted and filtered here, updated in place, so that a hundred are no burden.

import { fill, h } from "../dom.js";
import { percent, short, span } from "../format.js";
import { sparkline } from "./charts.js";
import { OF_ALL, STATES, hangs, ms, over, seconds } from "./figures.js";

const name = (session) => session.model?.split("/").pop() ?? session.name;
const byName = new Intl.Collator("en", { numeric: true }).compare; // 9B before 10B
const COLUMNS = [
  { key: "state", name: "state", value: (one) => (STATES[one.health]?.order ?? 9), down: false },
  { key: "name", name: "server", value: name, down: false },
  { key: "out", name: "out tok/s", value: OF_ALL.out, show: short, spark: "decode" },
  { key: "in", name: "in tok/s", value: OF_ALL.in, show: short, spark: "prefill" },
  { key: "steps", name: "steps/s", value: OF_ALL.steps, show: short },
  { key: "running", name: "running", value: OF_ALL.running, show: short },
  { key: "waiting", name: "waiting", value: OF_ALL.waiting, show: short },
  { key: "kv", name: "KV", value: OF_ALL.kv, show: (value) => (value === null ? "–" : percent(value, 0)), bar: true },
  { key: "ttft", name: "TTFT p50", value: OF_ALL.ttft, show: (value) => span(ms(value)), title: "of the last 10 s; of several engines the slowest" },
  { key: "tpot", name: "TPOT p50", value: OF_ALL.tpot, show: (value) => span(ms(value)), title: "likewise" },
  { key: "up", name: "up", value: (one) => one.now_sec ?? 0, show: seconds },
]; // prettier-ignore

function makeRow(session, history, open) {
  const cells = {};
  const sparks = [];
  const first = session.engines[0]?.engine ?? 0;
  const element = h(
    "tr.choice",
    { tabindex: "0", "data-id": session.id, onclick: () => open(session.id), onkeydown: (event) => event.key === "Enter" && open(session.id) },
    COLUMNS.map((column) => {
      const cell = (cells[column.key] = h("span"));
      if (column.spark) {
        const spark = sparkline(() => history.of(session.id, first)[column.key], column.spark, 60);
        sparks.push(spark);
        return h("td.number.with-spark", null, spark.element, cell);
      }
      if (column.bar) return h("td.number", null, h("div.meter", null, (cells.meter = h("i"))), cell);
      return h(`td${column.show ? ".number" : ""}`, null, cell);
    }),
  );
  const update = (now) => {
    element.className = `choice${hangs(now) ? " hangs" : over(now) ? " over" : ""}`;
    fill(cells.state, h("span.pill", { class: `pill ${now.health}` }, now.health));
    fill(cells.name, h("b", null, name(now)), h("span.dim.row-name", null, now.name), now.sentence ? h("span.sentence", null, now.sentence) : null);
    for (const column of COLUMNS) {
      if (!column.show) continue;
      const text = column.show(column.value(now));
      if (cells[column.key].textContent !== text) cells[column.key].textContent = text;
    }
    const kv = OF_ALL.kv(now);
    cells.meter.style.setProperty("width", `${kv ?? 0}%`);
    cells.meter.className = kv > 90 ? "full" : "";
    for (const spark of sparks) spark.draw();
  };
  return { element, update };
}

export function listView(host, app) {
  const rows = new Map();
  let order = { by: 0, down: false };
  let wanted = "";
  const body = h("tbody");
  const quiet = h("p.quiet");
  const heads = COLUMNS.map((column, i) =>
    h(
      `th${column.show ? ".number" : ""}`,
      { title: column.title, "aria-sort": "none" },
      h("button.plain", { onclick: () => ((order = { by: i, down: order.by === i ? !order.down : column.down !== false }), draw()) }, column.name, h("i.arrow")),
    ),
  );
  const search = h("input.search", { type: "search", placeholder: "Filter servers  /", "aria-label": "filter servers", oninput: (event) => ((wanted = event.target.value.trim().toLowerCase()), draw()) });
  fill(
    host,
    h("section.panel", { id: "servers", "aria-label": "servers" }, h("header.panel-head", null, h("h2", null, "Servers"), quiet, h("div.spacer"), search), h("div.table-wrap", null, h("table.servers", null, h("thead", null, h("tr", null, heads)), body))),
  ); // prettier-ignore

  function draw() {
    const all = app.sessions();
    const shown = all.filter((one) => !wanted || `${one.model ?? ""} ${one.name} ${one.host ?? ""} ${one.health}`.toLowerCase().includes(wanted));
    const { value } = COLUMNS[order.by];
    shown.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      const less = typeof x === "string" ? byName(x, y) : (x ?? -1) - (y ?? -1);
      return (order.down ? -less : less) || byName(name(a), name(b)) || a.id.localeCompare(b.id);
    });
    for (const id of rows.keys()) if (!all.some((one) => one.id === id)) rows.delete(id);
    const elements = shown.map((one) => {
      if (!rows.has(one.id)) rows.set(one.id, makeRow(one, app.history, app.open));
      rows.get(one.id).update(one);
      return rows.get(one.id).element;
    });
    // Rows are moved only when their order has changed: focus and selections stay.
    if (elements.length !== body.children.length || elements.some((element, i) => body.children[i] !== element)) body.replaceChildren(...elements);
    heads.forEach((head, i) => head.setAttribute("aria-sort", order.by !== i ? "none" : order.down ? "descending" : "ascending"));
    const hung = all.filter(hangs).length;
    const ended = all.filter(over).length;
    quiet.textContent = all.length
      ? [`${all.length} on this host`, hung ? `${hung} hung` : null, ended ? `${ended} ended` : null, `${short(all.reduce((total, one) => total + OF_ALL.out(one), 0))} tok/s out`, shown.length < all.length ? `${shown.length} shown` : null].filter(Boolean).join(" · ")
      : app.waits()
        ? "waiting for the first state"
        : "no server with profiling is running here; one that starts appears by itself";
  }
  const move = (by) => {
    const at = [...body.children].indexOf(document.activeElement);
    body.children[Math.max(0, Math.min(body.children.length - 1, at + by))]?.focus();
  };
  draw();
  return { draw, search, move };
}
