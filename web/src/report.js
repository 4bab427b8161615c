// The report: lays out the panels and listens to the keyboard. Used by its own page (main.js) and by the live one.

import { add, fill, h } from "./dom.js";
import { moment, span } from "./format.js";
import { logo } from "./logo.js";
import { Engine, LATENCIES } from "./model.js";
import { legend, panel } from "./panel.js";
import { about, operations, profile, waste } from "./panels/account.js";
import { findings } from "./panels/findings.js";
import { batches, kv, kvFigures, queues, throughput, tokens } from "./panels/load.js";
import { minimap } from "./panels/minimap.js";
import { collectives, device, layers, memory } from "./panels/machine.js";
import { encoder, graphs, moe } from "./panels/models.js";
import { sampling } from "./panels/sampling.js";
import { forward, latency, sizes, split } from "./panels/spreads.js";
import { summary } from "./panels/summary.js";
import { timeline } from "./panels/timeline.js";
import { transfers } from "./panels/transfers.js";
import { waterfall } from "./panels/waterfall.js";
import { Store } from "./store.js";
import { readColours, startTheme } from "./theme.js";

const KEYS = [
  ["w s", "zoom in, out"],
  ["a d", "move left, right"],
  ["0", "show everything"],
  ["b", "back to the span before"],
  ["n p", "next, previous finding"],
  ["/", "search requests"],
  ["j k", "next, previous request (in the list)"],
  ["[ ]", "engine or rank before, after"],
  ["t", "light or dark"],
  ["?", "this help"],
  ["Esc", "clear filters, then show everything"],
];

/** signal: when the report is taken away again; tools: more elements for its head. */
export function showReport(app, data, { signal, tools } = {}) {
  const engines = data.engines.map((engine) => new Engine(engine));
  const extents = engines.map((engine) => engine.extent()).filter(Boolean);
  const full = extents.length ? [Math.min(...extents.map((one) => one[0])), Math.max(...extents.map((one) => one[1]))] : [0, Math.max(1, data.session.duration)];
  const margin = Math.max(10, (full[1] - full[0]) * 0.004);
  const store = new Store(data, [full[0] - margin, full[1] + margin]);
  const current = () => engines[store.engine];
  document.title = `${data.session.name} – ProfileMate`;
  readColours();
  const toggleTheme = startTheme(store, signal);
  if (!extents.length) {
    empty(app, store, toggleTheme, tools);
    return;
  }

  // ---- header ----
  const search = h("input.search", { type: "search", placeholder: "Search requests  /", "aria-label": "search requests by id", oninput: (event) => store.setSearch(event.target.value) });
  const chips = h("div.chips");
  const help = h("dialog.help", null, h("h2", null, "Keyboard and mouse"), h("dl.keys", null, KEYS.map(([keys, what]) => h("div", null, h("dt", null, keys.split(" ").map((key) => h("kbd", null, key))), h("dd", null, what)))), h("p", null, "Drag over any plot to look at a span: all other panels follow. Shift and a drag move it, Ctrl and the wheel zoom, a double click shows everything."), h("form", { method: "dialog" }, h("button.small", null, "Close")));
  const picker = h("select", { "aria-label": "engine", onchange: (event) => store.setEngine(Number(event.target.value), 0) }, engines.map((engine, i) => h("option", { value: String(i) }, `engine ${engine.json.engine}`)));
  const strip = h("div.strip");
  const header = h(
    "header.top",
    null,
    h(
      "div.top-line",
      null,
      h("div.brand", null, logo(), h("b", null, "ProfileMate")),
      h("div.what", null, h("span.name", null, data.session.name), h(`span.pill.${data.session.state}`, null, data.session.state), h("span.dim.model", { title: data.session.model }, data.session.model?.split("/").pop() ?? "unknown model"), data.window ? h("span.pill.window", null, data.window) : null),
      h("div.spacer"),
      tools,
      engines.length > 1 ? picker : null,
      search,
      h("button.icon", { title: "light or dark (t)", "aria-label": "light or dark", onclick: toggleTheme }, "◐"),
      h("button.icon", { title: "help (?)", "aria-label": "help", onclick: () => help.showModal() }, "?"),
    ),
    strip,
    chips,
  );

  // ---- panels ----
  const main = h("main");
  const nav = h("nav.side", { "aria-label": "panels" });
  const made = [];
  let group = null;
  const place = (id, title, text, build, { wide = true, extra } = {}) => {
    const made_ = panel(id, title, text, extra);
    if (wide) {
      group = null;
      main.append(made_.element);
    } else {
      if (!group) main.append((group = h("div.two")));
      group.append(made_.element);
    }
    made.push([id, title, made_.element]);
    const key = build(made_.body);
    if (key instanceof Node) made_.head.append(key);
    return made_;
  };
  let requestList = null;
  const findRequest = (id) => {
    for (let e = 0; e < engines.length; e++)
      if (engines[e].requests.some((row) => row.id === id)) {
        if (e !== store.engine) pick(e, 0);
        search.value = "";
        store.setSearch("");
        store.setLatency(null);
        requestList.find(id);
        document.getElementById("requests").scrollIntoView({ behavior: "smooth" });
        return;
      }
  };
  const pick = (engine, rank) => {
    const i = engines.findIndex((one) => one.json.engine === engine);
    if (i < 0) return;
    picker.value = String(i);
    store.setEngine(i, rank ?? 0);
  };
  let cards = [];
  const redraw = (build) => (body) => {
    const draw = () => build(fill(body), store, current);
    store.on("engine", draw);
    draw();
  };
  place("summary", "Overview", null, (body) => summary(body, store, current));
  place("findings", "Findings", data.findings?.length ? "worst first; each names its evidence and the option to turn" : null, (body) => {
    cards = findings(body, store, { pick, findRequest });
  });
  place("timeline", "Steps", null, (body) => timeline(body, store, current), {
    extra: legend(["prefill", "prefill"], ["mixed", "mixed"], ["decode", "decode"], ["idle", "idle"], ["pre", "pre"], ["model", "model"], ["post", "post"], ["sample", "sample"], ["between calls", "other"], ["preemption", "preempted", "triangle"]),
  });
  place("time", "Where the time went", null, (body) => split(body, store, current), { wide: false });
  place("forward", "Forward passes", null, (body) => forward(body, store, current), { wide: false });
  place("throughput", "Throughput", "tokens per second", (body) => throughput(body, store, current));
  place("batches", "Batch size", "requests a step", (body) => batches(body, store, current), { wide: false });
  place("tokens", "Batch tokens", "tokens a step", (body) => tokens(body, store, current), { wide: false });
  place("queues", "Queues", "requests running and waiting", (body) => queues(body, store, current), { wide: false });
  place("sizes", "How batches were spread", "steps in view", (body) => sizes(body, store, current), { wide: false });
  if (engines.some((engine) => engine.kv))
    place("kv", "KV cache", "blocks in use; over 90 % too little, under 40 % more than needed", (body) => {
      const figures = h("div");
      body.append(figures);
      const key = kv(body, store, current);
      kvFigures(figures, store, current);
      return key;
    });
  place("latency", "Latency", "of the requests in view, as the engine core saw them", (body) => latency(body, store, current));
  place("requests", "Requests", null, (body) => {
    requestList = waterfall(body, store, current);
    const key = legend(["waiting", "queue"], ["prefill", "prefill"], ["decode", "decode"], ["stall", "stall"], ["preempted", "preempted"]);
    key.append(requestList.modes);
    return key;
  });
  if (engines.some((engine) => engine.json.sampling)) place("sampling", "Sampling", "what requests ask for, and what that costs; figures of the whole session", redraw(sampling));
  if (engines.some((engine) => engine.json.graphs)) place("graphs", "CUDA graphs", "replays, padding, and the steps that ran without", redraw(graphs));
  if (engines.some((engine) => engine.json.moe)) place("moe", "Experts", "how often each layer's router chose each expert", redraw(moe));
  if (engines.some((engine) => engine.json.encoder)) place("encoder", "Encoder and decoder", null, redraw(encoder));
  if (engines.some((engine) => engine.json.layers)) place("layers", "Layers", "where the model's time goes, by kind of module", redraw(layers));
  if (engines.some((engine) => engine.json.device)) place("device", "The device", "its own times, by its events: is it waiting for the host?", redraw(device));
  if (engines.some((engine) => engine.json.collectives)) place("collectives", "Exchange between ranks", "of one rank, the whole session", redraw(collectives));
  if (engines.some((engine) => engine.json.kv_transfers)) place("transfers", "KV connectors", "what is loaded from elsewhere, and what that holds up; figures of the whole session", redraw(transfers));
  if (engines.some((engine) => engine.json.memory)) place("memory", "Memory", "of the worker, from its start", redraw(memory));
  place("waste", "Wasted work", "of the whole session", redraw(waste));
  place("host", "Operations of the host", "of the whole session", redraw(operations));
  place("about", "What ran", null, (body) => about(body, store));
  place("profile", "The profile itself", "what was seen, what was not, and what it cost", (body) => profile(body, store));

  const links = made.map(([id, title]) => h("a", { href: `#${id}` }, title, id === "findings" && data.findings?.length ? h("span.count", null, String(data.findings.length)) : null));
  add(nav, links);
  add(app, [header, h("div.page", null, nav, main), help, h("footer", null, `Made ${data.made} by ProfileMate ${data.made_by}. Times count from the session's start, ${data.session.start}.`)]);
  minimap(strip, store, current);

  // ---- chips: what is filtered ----
  const drawChips = () => {
    const chip = (text, off) => h("button.chip", { onclick: off, title: "remove" }, text, h("span", { "aria-hidden": "true" }, "×"));
    const wide = store.view[1] - store.view[0];
    fill(
      chips,
      store.zoomed ? chip(`${moment(store.view[0], wide / 10)} – ${moment(store.view[1], wide / 10)} (${span(wide)})`, () => store.reset()) : null,
      store.latency ? chip(`${LATENCIES.find((one) => one.key === store.latency.metric).name} ${span(store.latency.from)} – ${span(store.latency.to)}`, () => store.setLatency(null)) : null,
      store.search ? chip(`“${store.search}”`, () => { search.value = ""; store.setSearch(""); }) : null, // prettier-ignore
    );
    chips.hidden = !chips.childElementCount;
  };
  for (const topic of ["view", "filter", "engine"]) store.on(topic, drawChips);
  drawChips();

  // ---- the panel in sight ----
  const watch = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) if (entry.isIntersecting) links.forEach((link) => link.classList.toggle("here", link.getAttribute("href") === `#${entry.target.id}`));
    },
    { rootMargin: "-25% 0px -65% 0px" },
  );
  for (const [, , element] of made) watch.observe(element);

  // ---- keyboard ----
  let finding = -1;
  const toFinding = (by) => {
    if (!cards.length) return;
    finding = (finding + by + cards.length) % cards.length;
    cards[finding].querySelector("details").open = true;
    cards[finding].focus();
    cards[finding].scrollIntoView({ block: "center", behavior: "smooth" });
  };
  const actions = {
    w: () => store.zoom(1 / 1.6),
    s: () => store.zoom(1.6),
    "+": () => store.zoom(1 / 1.6),
    "-": () => store.zoom(1.6),
    a: () => store.pan(-0.25),
    d: () => store.pan(0.25),
    0: () => store.reset(),
    b: () => store.back(),
    n: () => toFinding(1),
    p: () => toFinding(-1),
    t: toggleTheme,
    "?": () => help.showModal(),
    "/": () => search.focus(),
    j: () => requestList.focus(),
    k: () => requestList.focus(),
    "[": () => pick(engines[(store.engine + engines.length - 1) % engines.length].json.engine),
    "]": () => pick(engines[(store.engine + 1) % engines.length].json.engine),
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    const typing = event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement;
    if (event.key === "Escape") {
      if (store.search || store.latency || store.request !== null) {
        search.value = "";
        store.setSearch("");
        store.setLatency(null);
        store.setRequest(null);
      } else store.reset();
      search.blur();
      return;
    }
    if (typing) {
      if (event.key === "Enter") requestList.focus();
      return;
    }
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }, { signal }); // prettier-ignore
  store.tell("theme");
  requestAnimationFrame(() => requestAnimationFrame(() => (document.documentElement.dataset.ready = String(Math.round(performance.now())))));
  window.profilemate = { store, engines };
}

/** A session without a step: what ran and what is missing is all there is. */
function empty(app, store, toggleTheme, tools) {
  const { session } = store.data;
  const ran = panel("about", "What ran");
  const seen = panel("profile", "The profile itself");
  about(ran.body, store);
  profile(seen.body, store);
  add(app, [
    h("header.top", null, h("div.top-line", null, h("div.brand", null, logo(), h("b", null, "ProfileMate")), h("div.what", null, h("span.name", null, session.name), h(`span.pill.${session.state}`, null, session.state)), h("div.spacer"), tools, h("button.icon", { onclick: toggleTheme, "aria-label": "light or dark" }, "◐"))),
    h("div.page.bare", null, h("main", null, h("section.panel", { id: "nothing" }, h("h2", null, "No engine step was recorded"), h("p", null, "Send the server a request and make the report again. If it has served some, ", h("code", null, "profilemate doctor"), " says what is missing.")), ran.element, seen.element)),
  ]);
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}
