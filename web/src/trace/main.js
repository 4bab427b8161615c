// The page of `profilemate trace --format html`: reads the data that lies in it, lays out the panels, listens to keys.

import { add, fill, h } from "../dom.js";
import { count, percent, span } from "../format.js";
import { logo } from "../logo.js";
import { legend, panel } from "../panel.js";
import { Store } from "../store.js";
import { readColours, startTheme } from "../theme.js";
import { Trace } from "./data.js";
import { busy, classes, found } from "./device.js";
import { flamePanel } from "./flame.js";
import { averages, kernels, steps } from "./tables.js";
import { stamp, timelinePanel } from "./timeline.js";

const KEYS = [
  ["w s", "zoom in, out"],
  ["a d", "move left, right"],
  ["0", "show everything"],
  ["b", "back to the span before"],
  ["/", "search names everywhere"],
  ["n p", "next, previous match in the timeline"],
  ["f", "zoom to the chosen slice"],
  ["[ ]", "file or rank before, after"],
  ["t", "light or dark"],
  ["?", "this help"],
  ["Esc", "clear the search, then show everything"],
];

function start() {
  const data = JSON.parse(document.getElementById("pm-data").textContent);
  const trace = new Trace(data);
  const { files } = trace;
  const store = new Store(data, trace.full);
  store.least = Math.min(0.05, trace.full[1]);
  const current = () => files[store.engine];
  const app = document.getElementById("app");
  const title = files.length > 1 ? `${files.length} files` : files[0].figures.path.split("/").pop();
  document.title = `${title} – ProfileMate`;
  readColours();
  const toggleTheme = startTheme(store);

  // ---- head ----
  const search = h("input.search", { type: "search", placeholder: "Search names  /", "aria-label": "search names", oninput: (event) => store.setSearch(event.target.value.trim()) });
  const pick = (place) => {
    picker.value = String(place);
    store.setEngine(place, 0);
  };
  const picker = h("select", { "aria-label": "file", onchange: (event) => pick(Number(event.target.value)) }, files.map((file, i) => h("option", { value: String(i) }, file.label)));
  const help = h("dialog.help", null, h("h2", null, "Keyboard and mouse"), h("dl.keys", null, KEYS.map(([keys, what]) => h("div", null, h("dt", null, keys.split(" ").map((key) => h("kbd", null, key))), h("dd", null, what)))), h("p", null, "Drag over the timeline to look at a span. Shift and a drag move it, Ctrl and the wheel zoom, a double click shows everything. In the flame graph a click zooms, the arrows walk."), h("form", { method: "dialog" }, h("button.small", null, "Close"))); // prettier-ignore
  const chips = h("div.chips");
  const header = h(
    "header.top",
    null,
    h(
      "div.top-line",
      null,
      h("div.brand", null, logo(), h("b", null, "ProfileMate")),
      h("div.what", null, h("span.name", { title: files.map((file) => file.figures.path).join("\n") }, title), h("span.dim.model", null, "torch trace")),
      h("div.spacer"),
      files.length > 1 ? picker : null,
      search,
      h("button.icon", { title: "light or dark (t)", "aria-label": "light or dark", onclick: toggleTheme }, "◐"),
      h("button.icon", { title: "help (?)", "aria-label": "help", onclick: () => help.showModal() }, "?"),
    ),
    chips,
  );

  // ---- panels ----
  const main = h("main");
  const nav = h("nav.side", { "aria-label": "panels" });
  const made = [];
  const place = (id, name, about, build, extra) => {
    const one = panel(id, name, about, extra);
    main.append(one.element);
    made.push([id, name]);
    return build(one.body);
  };
  place("summary", "Overview", null, (body) => summary(body, store, trace, current));
  place("findings", "Findings", data.figures.findings.length ? "with the share of the time that each concerns" : null, (body) => found(body, trace));
  const anyDevice = files.some((file) => file.figures.devices.length);
  const classNames = [...new Set(files.flatMap((file) => Object.keys(file.figures.classes)))];
  const timeline = place(
    "timeline",
    "Timeline",
    null,
    (body) => timelinePanel(body, store, trace),
    legend(...classNames.map((name) => [name, trace.classTone(name)]), ["operator", "cached"], ["annotation", "evicted"], ["Python", "pre"], ["runtime call", "sched"]),
  );
  const flame = place("flame", "Flame graph", "call paths, as wide as their time", (body) => flamePanel(body, store, trace, current));
  if (anyDevice) {
    place("device", "The GPU: busy, idle and why", null, (body) => busy(body, store, current));
    place("classes", "Kernel classes", null, (body) => classes(body, store, trace, current));
  }
  place("averages", "Operators and kernels", `torch's key_averages${files.length > 1 ? " over all files" : ""}`, (body) => averages(body, store, trace));
  if (anyDevice) place("kernels", "Kernels", null, (body) => kernels(body, store, trace, current));
  if (files.some((file) => file.figures.steps.length)) place("steps", "Steps", null, (body) => steps(body, store, current));
  place("about", "The trace itself", null, (body) => about(body, trace));
  add(nav, made.map(([id, name]) => h("a", { href: `#${id}` }, name)));
  add(app, [header, h("div.page", null, nav, main), help, h("footer", null, `Made ${data.made} by ProfileMate ${data.made_by}. Times count from the first event on.`)]);

  const drawChips = () => {
    const chip = (text, off) => h("button.chip", { onclick: off, title: "remove" }, text, h("span", { "aria-hidden": "true" }, "×"));
    const [from, to] = store.view;
    fill(
      chips,
      store.zoomed ? chip(`${stamp(from, to - from)} – ${stamp(to, to - from)} (${span(to - from)})`, () => store.reset()) : null,
      store.search ? chip(`“${store.search}”`, () => ((search.value = ""), store.setSearch(""))) : null,
    );
    chips.hidden = !chips.childElementCount;
  };
  store.on("view", drawChips);
  store.on("filter", drawChips);
  drawChips();

  // ---- keyboard ----
  const actions = {
    w: () => store.zoom(1 / 1.6),
    s: () => store.zoom(1.6),
    "+": () => store.zoom(1 / 1.6),
    "-": () => store.zoom(1.6),
    a: () => store.pan(-0.25),
    d: () => store.pan(0.25),
    0: () => store.reset(),
    b: () => store.back(),
    n: () => timeline.next(1),
    p: () => timeline.next(-1),
    f: () => timeline.zoomTo(),
    t: toggleTheme,
    "?": () => help.showModal(),
    "/": () => search.focus(),
    "[": () => pick((store.engine + files.length - 1) % files.length),
    "]": () => pick((store.engine + 1) % files.length),
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    if (event.key === "Escape") {
      if (store.search) {
        search.value = "";
        store.setSearch("");
      } else if (timeline.state.chosen) timeline.choose(null);
      else store.reset();
      search.blur();
      return;
    }
    if (event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement) {
      if (event.key === "Enter" && event.target === search) timeline.next(1);
      return;
    }
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
  store.tell("theme");
  requestAnimationFrame(() => requestAnimationFrame(() => (document.documentElement.dataset.ready = String(Math.round(performance.now())))));
  window.profilemate = { store, trace, timeline, flame };
}

function summary(host, store, trace, current) {
  const tile = (name, value, more) => h("div.tile", null, h("span.tile-name", null, name), h("span.tile-value", null, value), h("span.tile-more", null, more ?? ""));
  const draw = () => {
    const { figures } = current();
    const device = figures.devices[0];
    const idle = device ? Object.entries(device.idle).sort((a, b) => b[1].us - a[1].us)[0] : null;
    const classes = Object.entries(figures.classes).sort((a, b) => b[1].us - a[1].us);
    const top = trace.figures.key_averages.reduce((best, row) => (!best || row.self_cpu_us > best.self_cpu_us ? row : best), null);
    fill(
      host,
      h(
        "div.tiles",
        null,
        tile("traced", span(figures.span_us), `${count(figures.events)} events`),
        device
          ? tile(`GPU ${device.id} busy`, percent((100 * device.busy_us) / (device.span_us || 1)), idle && idle[1].us > 0 ? `idle ${span(device.idle_us)}, mostly ${idle[0]}` : "never idle")
          : tile("GPU", "none", "CPU only"),
        classes.length ? tile("most kernel time", classes[0][0], span(classes[0][1].us)) : tile("steps", count(figures.steps.length), ""),
        tile("self CPU time", span(trace.figures.self_cpu_us), trace.files.length > 1 ? "of all files" : "of all threads"),
        top ? tile("most self CPU time", span(top.self_cpu_us), top.name) : tile("operators", "none", ""),
      ),
    );
  };
  store.on("engine", draw);
  draw();
}

function about(host, trace) {
  const fact = (name, value) => (value === null ? null : h("div", null, h("dt", null, name), h("dd", null, value)));
  fill(
    host,
    trace.aligned ? h("p.quiet", null, "The files are from different times: they are laid over each other from their first events on.") : null,
    trace.files.map(({ figures, label, drawing }) =>
      h(
        "div.split",
        null,
        trace.files.length > 1 ? h("h3", null, label) : null,
        h(
          "dl.facts",
          null,
          fact("file", figures.path),
          fact("size", `${count(figures.json_bytes)} bytes of JSON`),
          fact("events", `${count(figures.events)}, ${count(figures.flow_events)} of them arrows`),
          fact("not read", figures.loss?.text ?? null),
          figures.incomplete_events ? fact("incomplete", `${count(figures.incomplete_events)} events without a name or a time`) : null,
          fact("on this page", drawing ? (drawing.grain ? `everything of ${span(drawing.grain / 1000)} and longer; shorter events are drawn together, and counted` : "every event") : "figures only: it is one of many files"), // prettier-ignore
          drawing?.tracks_left_out ? fact("tracks left out", count(drawing.tracks_left_out)) : null,
        ),
      ),
    ),
  );
}

start();
