// One session as it is now: figures, plots of the last minutes, times, where a step's time goes, requests, processes.

import { fill, h } from "../dom.js";
import { count, digits, percent, short, span } from "../format.js";
import { legend, panel, shareBar, table } from "../panel.js";
import { chart } from "./charts.js";
import { hangs, kvShare, ms, over, seconds, share, stepSplit, use } from "./figures.js";

const TIMES = [
  ["ttft", "TTFT", "time to the first token"],
  ["tpot", "TPOT", "time per output token"],
  ["itl", "ITL", "between two tokens"],
  ["queue", "queue", "from arrival to the first step"],
  ["e2e", "E2E", "from arrival to the end"],
];
const SPANS = [
  [60, "1 min"],
  [300, "5 min"],
  [600, "10 min"],
];

const time = (value) => h("span", { title: value === null ? null : `${value} ms` }, value === null ? "–" : span(ms(value)));

export function sessionView(host, app, id) {
  let number = null; // of the engine that is shown
  let wide = 300;
  let wanted = "";
  let sort = { by: 2, down: true };
  const session = () => app.sessions().find((one) => one.id === id);
  const engine = () => session()?.engines.find((one) => one.engine === number) ?? session()?.engines[0];
  const past = () => app.history.of(id, engine()?.engine ?? 0);

  const place = (name, title, about, ...extra) => panel(name, title, about, ...extra);
  const head = h("div.session-head");
  const tiles = h("div.tiles.live-tiles");
  const spans = h("div.modes", { role: "group", "aria-label": "span of the plots" });
  const drawSpans = () => fill(spans, SPANS.map(([value, text]) => h("button.small", { "aria-pressed": String(value === wide), onclick: () => ((wide = value), drawSpans(), draw()) }, text))); // prettier-ignore
  const plot = (name, title, about, key, series, format, top) => {
    const one = place(name, title, about);
    const drawn = chart({ series: series.map(([word, tone, label, kind]) => ({ name: label, tone, kind, values: () => past()[word] })), times: () => past().t, span: () => wide, format, top });
    one.body.append(drawn.element);
    if (key) one.head.append(key);
    return { ...one, draw: drawn.draw };
  };
  const plots = [
    plot("throughput", "Tokens per second", null, legend(["out", "decode"], ["in", "prefill"]), [["in", "prefill", "in tok/s", "area"], ["out", "decode", "out tok/s", "area"]], short),
    plot("queues", "Requests", null, legend(["running", "decode"], ["waiting", "queue", "line"]), [["running", "decode", "running", "area"], ["waiting", "queue", "waiting", "line"]], short, () => 4),
    plot("kv", "KV cache", "of its blocks", null, [["kv", "model", "used", "area"]], (value) => `${digits(value)} %`, () => 10),
    plot("steps", "Steps per second", null, null, [["steps", "mixed", "steps/s", "area"]], short),
  ]; // prettier-ignore
  const times = place("times", "Times", "percentiles of the last 10 s and in total");
  const split = place("split", "Where a step's time goes", "of the last 10 s, on the first rank");
  const search = h("input.search", { type: "search", placeholder: "Filter requests  /", "aria-label": "filter requests", oninput: (event) => ((wanted = event.target.value.trim().toLowerCase()), draw()) });
  const requests = place("requests", "Requests now", null, search);
  const processes = place("processes", "Processes", null);
  fill(
    host,
    h("section.panel", { id: "session", "aria-label": "session" }, head, tiles),
    h("div.span-choice", null, spans),
    h("div.two", null, plots.map((one) => one.element)),
    h("div.two", null, times.element, split.element),
    requests.element,
    processes.element,
  );
  drawSpans();

  const drawHead = (now) =>
    fill(
      head,
      h("button.small", { onclick: () => app.list(), title: "all servers (Backspace)" }, "‹ servers"),
      h("h2", null, now.model ?? now.name),
      h("span", { class: `pill ${now.health}` }, now.health),
      h("span.dim", null, [now.name, now.vllm ? `vLLM ${now.vllm}` : null, now.host, `up ${seconds(now.now_sec ?? 0)}`].filter(Boolean).join(" · ")),
      h("div.spacer"),
      now.engines.length > 1
        ? h("select", { "aria-label": "engine", onchange: (event) => ((number = Number(event.target.value)), draw()) }, now.engines.map((one) => h("option", { value: String(one.engine), selected: one.engine === engine().engine }, `engine ${one.engine}`)))
        : null, // prettier-ignore
      [60, 300, 600].map((last) => h("button.small", { onclick: () => app.report(id, last), title: "every step and request of that time" }, `Report: last ${last / 60} min`)),
      now.sentence ? h(`p.sentence${hangs(now) ? ".loud" : ""}`, { role: "status" }, now.sentence) : null,
    );

  const tile = (name, value, more, tone) => h(`div.tile${tone ? `.${tone}` : ""}`, null, h("span.tile-name", null, name), h("span.tile-value", null, value), h("span.tile-more", null, more ?? ""));
  const drawTiles = (one) => {
    const { window } = one;
    const kv = kvShare(one);
    const work = use(one);
    const rank = one.ranks[0]?.window;
    const graphs = rank ? share(rank.graph_replays, rank.graph_replays + rank.eager_passes) : null;
    const hits = share(window.hit_tokens, window.queried_tokens);
    fill(
      tiles,
      tile("out", `${short(window.out_tokens_per_sec)} tok/s`, `${count(one.total.output_tokens)} in total`),
      tile("in", `${short(window.in_tokens_per_sec)} tok/s`, hits === null ? `${count(one.total.prefill_tokens)} in total` : `prefix hits ${percent(hits)}`),
      tile("steps", `${short(window.steps_per_sec)} /s`, `${count(one.total.steps)} in total`),
      tile("running", `${count(one.running)}`, one.max_requests ? `of ${count(one.max_requests)}` : ""),
      tile("waiting", `${count(one.waiting)}`, `${count(window.finished)} ended in 10 s`, one.waiting > one.running && one.waiting > 4 ? "warn" : null),
      tile("KV cache", kv === null ? "–" : percent(kv), one.kv ? `${count(one.kv.used_blocks)} of ${count(one.kv.total_blocks)} blocks` : "", kv > 90 ? "warn" : null),
      tile("model runs", percent(work.model), `host alone ${percent(work.host)}, no work ${percent(work.none)}`),
      tile("preempted", count(window.preemptions), `in 10 s; ${count(one.total.preemptions)} in total`, window.preemptions ? "bad" : null),
      tile("evicted", count(window.evicted_blocks), `blocks in 10 s; ${count(one.total.evicted_blocks)} in total`),
      tile("CUDA graphs", graphs === null ? "–" : percent(graphs), graphs === null ? "no pass with or without in 10 s" : "of the passes in 10 s"),
    );
  };

  const drawTimes = (one) => {
    const quantiles = (from) => (row) => {
      const all = from[row[0]];
      return all ? [all.p50_ms, all.p95_ms, all.p99_ms, all.count] : [null, null, null, null];
    };
    const now = quantiles(one.window);
    const total = quantiles(one.total);
    const cells = (values) => [...values.slice(0, 3).map((value) => h("td.number", null, time(value))), h("td.number.dim", null, values[3] === null ? "–" : count(values[3]))];
    fill(
      times.body,
      h(
        "div.table-wrap",
        null,
        h(
          "table",
          null,
          h("thead", null, h("tr", null, h("th"), ["p50", "p95", "p99", "n"].map((word) => h("th.number", null, `10 s ${word}`)), ["p50", "p95", "p99", "n"].map((word) => h("th.number", null, `total ${word}`)))),
          h("tbody", null, TIMES.map((row) => h("tr", { "data-time": row[0] }, h("td", { title: row[2] }, row[1]), cells(now(row)), cells(total(row))))),
        ),
      ),
    ); // prettier-ignore
  };

  const drawSplit = (one) => {
    const all = stepSplit(one);
    if (!all) return fill(split.body, h("p.quiet", null, "No step in the last 10 s."));
    const parts = all.parts.map((part) => ({ ...part, text: percent(100 * part.value) }));
    fill(
      split.body,
      h("p", null, h("b", null, span(all.ms * 1000)), " a step"),
      shareBar(parts, 1),
      h("ul.split-list", null, parts.map((part) => h("li", null, h("i.dot", { style: { background: `var(--${part.tone})` } }), h("span", null, part.name), h("b", null, part.text)))),
    );
  };

  const number_ = (name, key, show = count) => ({ name, number: true, value: (row) => row[key] ?? -1, show: (row) => (row[key] === null ? "–" : show(row[key])) });
  const drawRequests = (one) => {
    const all = one.requests ?? [];
    const kept = wanted ? all.filter((row) => row.request_id.toLowerCase().includes(wanted)) : all;
    const columns = [
      { name: "request", value: (row) => row.request_id, show: (row) => h("span.mono.request-id", { title: row.request_id }, row.request_id.slice(0, 64)) },
      { name: "phase", value: (row) => row.phase, show: (row) => h("span", { class: `pill phase-${row.phase}` }, row.phase) },
      number_("age", "age_sec", seconds),
      number_("prompt", "prompt_tokens"),
      number_("cached", "cached_tokens"),
      number_("out", "output_tokens"),
      number_("of at most", "max_tokens"),
      number_("queue", "queue_ms", time),
      number_("TTFT", "ttft_ms", time),
      number_("since a token", "gap_ms", time),
      number_("preempted", "preemptions"),
    ];
    fill(requests.body, table(columns, kept, { sort, limit: 30, empty: wanted ? `none with “${wanted}”` : "none", onsort: (next) => (sort = next) }), h("p.quiet", null, `${count(one.open_requests)} under way${kept.length < all.length ? `, ${count(kept.length)} shown` : ""}`)); // prettier-ignore
  };

  const drawProcesses = (now) =>
    fill(
      processes.body,
      table(
        [
          { name: "process", value: (row) => `${row.roles.join(", ")}${row.rank >= 0 && row.roles.includes("worker") ? ` rank ${row.rank}` : ""}` },
          { name: "pid", number: true, value: (row) => row.host_pid ?? row.pid, show: (row) => String(row.host_pid ?? row.pid) },
          { name: "is", value: (row) => row.life },
          { name: "kernel", value: (row) => [row.kernel_state, row.kernel_wait].filter(Boolean).join(" ") || "–" },
          { name: "threads are in", value: (row) => row.threads.map((thread) => `${thread.doing ?? "–"}${thread.since_sec === null || now.now_sec === null ? "" : ` ${seconds(Math.max(0, now.now_sec - thread.since_sec))}`}`).join("; ") || "–" },
          { name: "CPU", number: true, value: (row) => row.cpu_pct ?? -1, show: (row) => (row.cpu_pct === null ? "–" : percent(row.cpu_pct, 0)) },
          { name: "memory", number: true, value: (row) => row.rss_bytes ?? -1, show: (row) => (row.rss_bytes === null ? "–" : `${short(row.rss_bytes / 2 ** 20)} MiB`) },
        ],
        now.processes,
      ),
    ); // prettier-ignore

  function draw() {
    const now = session();
    if (!now) {
      fill(head, h("button.small", { onclick: () => app.list() }, "‹ servers"), h("h2", null, id), h("span.dim", null, app.waits() ? "waiting for the first state" : "this session is no longer shown by the server"));
      return;
    }
    drawHead(now);
    host.classList.toggle("is-over", over(now));
    const one = engine();
    if (!one) {
      fill(tiles, h("p.quiet", null, "No engine of it has been seen yet."));
      drawProcesses(now);
      return;
    }
    drawTiles(one);
    for (const drawn of plots) drawn.draw();
    drawTimes(one);
    drawSplit(one);
    // A list that somebody marks text in, or has the focus in, is left alone for the moment.
    if (!requests.body.contains(document.activeElement)) drawRequests(one);
    drawProcesses(now);
  }
  draw();
  app.fill(id).then(draw, () => null); // without the seconds before this page, the plots begin now
  return { draw, search, move: () => null };
}
