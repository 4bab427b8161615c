// How things are spread: where the time went, sizes of batches, and latencies with their percentiles. All of the span in
// view; a drag over a latency filters the requests.

import { canvasIn, fill, h } from "../dom.js";
import { count, percent, short, span } from "../format.js";
import { KINDS, LATENCIES, PHASES, binBounds, spreadOf } from "../model.js";
import { shareBar } from "../panel.js";
import { colour, fade } from "../theme.js";
import { hideTip, showTip } from "../tip.js";
import { overlaps, timeByKind } from "./summary.js";

export function split(host, store, current) {
  const draw = () => {
    const [from, to] = store.view;
    const { steps } = current();
    const time = timeByKind(steps, from, to);
    const whole = to - from;
    const row = (parts, sum, heading) =>
      h(
        "div.split",
        null,
        h("h3", null, heading),
        shareBar(parts, sum),
        h(
          "ul.split-list",
          null,
          parts.map((part) => h("li", null, h("i.dot", { style: { background: `var(--${part.tone})` } }), h("span", null, part.name), h("b", null, part.text), h("span.dim", null, part.more))),
        ),
      );
    const kinds = ["prefill", "mixed", "decode", "idle"].map((name) => ({
      name, tone: name, value: time[name], text: percent((100 * time[name]) / whole), more: span(time[name]),
    })); // prettier-ignore
    const phases = PHASES.map((name) => ({ name, tone: name, value: steps.total(name, from, to).sum }));
    const sum = phases.reduce((all, part) => all + part.value, 0) || 1;
    const n = steps.total("total", from, to).n || 1;
    for (const part of phases) Object.assign(part, { text: percent((100 * part.value) / sum), more: `${span(part.value / n)} a step` });
    fill(host, row(kinds, whole, "Time in view, by kind of step"), row(phases, sum, "Inside the steps, by the host's clock"));
  };
  for (const topic of ["view", "engine"]) store.on(topic, draw);
  draw();
}

/** Bars: bins() -> [{ from, to, n, more }] */
function bars(host, height, store, bins, { tone, label, tip }) {
  const place = h("div.canvas-host");
  host.append(place);
  let shown = [];
  let hovered = -1;
  const view = canvasIn(place, height, (ctx, width, tall) => {
    shown = bins();
    const bottom = tall - 18;
    ctx.font = "11px system-ui, sans-serif";
    ctx.fillStyle = colour.dim;
    if (!shown.length) {
      ctx.fillText("nothing in view", 8, tall / 2);
      return;
    }
    const most = Math.max(...shown.map((bin) => bin.n));
    const wide = width / shown.length;
    ctx.fillStyle = colour.line;
    ctx.fillRect(0, bottom, width, 1);
    shown.forEach((bin, i) => {
      const high = Math.max(bin.n > 0 ? 1.5 : 0, (bin.n / most) * (bottom - 8));
      ctx.fillStyle = i === hovered ? colour[tone] : fade(colour[tone], 0.72);
      ctx.beginPath();
      ctx.roundRect(i * wide + 0.5, bottom - high, Math.max(1, wide - 1), high, [Math.min(2, wide / 4), Math.min(2, wide / 4), 0, 0]);
      ctx.fill();
    });
    ctx.fillStyle = colour.dim;
    const every = Math.max(1, Math.ceil(shown.length / (width / 52)));
    for (let i = 0; i < shown.length; i += every) {
      const text = label(shown[i]);
      if (i * wide + 1 + ctx.measureText(text).width <= width) ctx.fillText(text, i * wide + 1, tall - 5);
    }
  });
  place.addEventListener("pointermove", (event) => {
    const box = place.getBoundingClientRect();
    hovered = Math.floor(((event.clientX - box.left) / box.width) * shown.length);
    const bin = shown[hovered];
    if (bin) showTip(event, null, tip(bin, shown));
    view.later();
  });
  place.addEventListener("pointerleave", () => {
    hovered = -1;
    hideTip();
    view.later();
  });
  for (const topic of ["view", "theme", "engine"]) store.on(topic, view.later);
  store.on("print", view.paint);
}

/** Values into at most about 40 bins of equal ratio (or of one each, where they are few). */
function sizeBins(steps, column, hist, from, to, whole) {
  let pairs = [];
  if (steps.exact) {
    const [i, j] = steps.range(from, to);
    const found = new Map();
    for (let k = i; k < j; k++) if (steps.cols.kind[k] > 0) found.set(steps.cols[column][k], (found.get(steps.cols[column][k]) ?? 0) + 1);
    pairs = [...found].map(([value, n]) => [value, value, n]);
  } else {
    pairs = hist;
  }
  if (!pairs.length) return [];
  const low = Math.min(...pairs.map((pair) => pair[0]));
  const high = Math.max(...pairs.map((pair) => pair[1]));
  const bins = [];
  if (high - low < 48) {
    for (let value = low; value <= high; value++) bins.push({ from: value, to: value, n: 0 });
  } else {
    const ratio = (high / Math.max(1, low)) ** (1 / 36);
    let at = Math.max(1, low);
    while (at <= high) {
      const next = Math.max(at + 1, Math.ceil(at * ratio));
      bins.push({ from: at, to: next - 1, n: 0 });
      at = next;
    }
  }
  for (const [least, most, n] of pairs) {
    const middle = Math.max(low, Math.min(high, Math.round((least + most) / 2)));
    const bin = bins.find((one) => middle >= one.from && middle <= one.to) ?? bins[bins.length - 1];
    bin.n += n;
  }
  bins.whole = whole;
  return bins;
}

export function sizes(host, store, current) {
  const both = h("div.pair");
  host.append(both);
  for (const [column, key, title, tone] of [["req", "req_hist", "requests a step", "decode"], ["tok", "tok_hist", "tokens a step", "mixed"]]) {
    const place = h("div", null, h("h3", null, title));
    both.append(place);
    bars(place, 130, store, () => sizeBins(current().steps, column, current().json[key], ...store.view, !store.zoomed), {
      tone,
      label: (bin) => short(bin.from),
      tip: (bin, all) => {
        const sum = all.reduce((n, one) => n + one.n, 0);
        return [[bin.from === bin.to ? `${count(bin.from)} ${column === "req" ? "requests" : "tokens"}` : `${count(bin.from)} to ${count(bin.to)}`, `${count(bin.n)} steps`], ["share", percent((100 * bin.n) / sum)]];
      },
    });
  }
}

/** Latencies of what is in view: exact where the rows are there, else of the whole session. */
export function latencySpreads(engine, view, zoomed) {
  const [from, to] = view;
  const made = {};
  for (const { key } of LATENCIES) {
    if (!zoomed) {
      made[key] = engine.json.latency[key];
    } else if (key === "itl") {
      const { updates } = engine;
      if (!updates.exact) {
        made[key] = null;
        continue;
      }
      const [i, j] = updates.range(from, to);
      const pairs = [];
      for (let k = i; k < j; k++) if (updates.cols.cont[k] > 0) pairs.push([updates.cols.gap[k], updates.cols.cont[k]]);
      made[key] = spreadOf(pairs);
    } else {
      const pairs = engine.requests.filter((row) => row[key] !== null && overlaps(row, from, to)).map((row) => [row[key], 1]);
      made[key] = spreadOf(pairs);
    }
    if (made[key]) made[key].of = zoomed && key !== "itl" && !engine.json.requests.exact ? "sample" : "all";
  }
  return made;
}

export function latency(host, store, current) {
  let chosen = "ttft";
  let spreads = {};
  const rows = h("tbody");
  const place = h("div.canvas-host.latency-plot", { "aria-label": "distribution of the chosen latency" });
  const note = h("p.quiet");
  host.append(
    h(
      "div.table-wrap",
      null,
      h("table.latency", null, h("thead", null, h("tr", null, ["", "count", "mean", "p50", "p90", "p99", "p99.9", "max"].map((name, i) => h(`th${i ? ".number" : ""}`, null, name)))), rows),
    ),
    place,
    note,
  );
  let drag = null;
  const geometry = (width) => {
    const spread = spreads[chosen];
    if (!spread?.bins.length) return null;
    const first = spread.bins[0][0];
    const last = spread.bins[spread.bins.length - 1][0];
    const low = Math.max(1, first - 1);
    const n = last - low + 2;
    return { spread, low, n, x: (bin) => ((bin - low) / n) * width, bin: (x) => low + (x / width) * n, at: (us) => (((Math.log2(Math.max(us, 1e-3) * 1000) * 8 + 1 - low) + 1) / n) * width };
  };
  const view = canvasIn(place, 170, (ctx, width, height) => {
    const g = geometry(width);
    ctx.font = "11px system-ui, sans-serif";
    if (!g) {
      ctx.fillStyle = colour.dim;
      ctx.fillText("no such latency in view", 8, height / 2);
      return;
    }
    const bottom = height - 20;
    const most = Math.max(...g.spread.bins.map((bin) => bin[1]));
    const wide = width / g.n;
    for (const [bin, n] of g.spread.bins) {
      const tall = Math.max(1.5, (n / most) * (bottom - 26));
      const inside = !store.latency || store.latency.metric !== chosen || (binBounds(bin)[1] >= store.latency.from && binBounds(bin)[0] <= store.latency.to);
      ctx.fillStyle = inside ? fade(colour.accent, 0.8) : fade(colour.dim, 0.3);
      ctx.beginPath();
      ctx.roundRect(g.x(bin) + 0.5, bottom - tall, Math.max(1, wide - 1), tall, [2, 2, 0, 0]);
      ctx.fill();
    }
    // How many are below, as a line.
    let below = 0;
    ctx.strokeStyle = fade(colour.ink, 0.35);
    ctx.lineWidth = 1;
    ctx.beginPath();
    ctx.moveTo(0, bottom);
    for (const [bin, n] of g.spread.bins) {
      ctx.lineTo(g.x(bin), bottom - (below / g.spread.count) * (bottom - 26));
      below += n;
      ctx.lineTo(g.x(bin) + wide, bottom - (below / g.spread.count) * (bottom - 26));
    }
    ctx.stroke();
    let edge = -Infinity;
    for (const [name, key] of [["p50", "p50"], ["p90", "p90"], ["p99", "p99"], ["p99.9", "p999"]]) {
      const x = Math.min(width - 1, g.at(g.spread[key]));
      ctx.fillStyle = fade(colour.ink, 0.5);
      ctx.fillRect(x, 16, 1, bottom - 16);
      const text = `${name} ${span(g.spread[key])}`;
      const room = ctx.measureText(text).width;
      const left = Math.min(x + 3, width - room - 2);
      if (left > edge + 6) {
        ctx.fillStyle = colour.ink;
        ctx.fillText(text, left, 11);
        edge = left + room;
      }
    }
    ctx.fillStyle = colour.line;
    ctx.fillRect(0, bottom, width, 1);
    ctx.fillStyle = colour.dim;
    const decades = [];
    for (let power = -3; power < 10; power++) for (const k of g.n > 40 ? [1] : [1, 2, 5]) decades.push(k * 10 ** power);
    let end = -Infinity;
    for (const us of decades) {
      const x = g.at(us);
      if (x < 0 || x > width - 30 || x < end + 14) continue;
      ctx.fillRect(x, bottom, 1, 4);
      ctx.fillText(span(us), x + 3, height - 6);
      end = x + ctx.measureText(span(us)).width;
    }
    if (drag) {
      ctx.fillStyle = fade(colour.select, 0.25);
      ctx.fillRect(Math.min(drag.from, drag.to), 0, Math.abs(drag.to - drag.from), bottom);
    }
  });
  const offset = (event) => event.clientX - place.getBoundingClientRect().left;
  place.addEventListener("pointerdown", (event) => {
    drag = { from: offset(event), to: offset(event) };
    place.setPointerCapture(event.pointerId);
  });
  place.addEventListener("pointermove", (event) => {
    const g = geometry(place.clientWidth);
    if (!g) return;
    if (drag) {
      drag.to = offset(event);
      view.later();
      return;
    }
    const bin = Math.floor(g.bin(offset(event)));
    const n = g.spread.bins.find((one) => one[0] === bin)?.[1] ?? 0;
    const below = g.spread.bins.filter((one) => one[0] <= bin).reduce((sum, one) => sum + one[1], 0);
    const [low, high] = binBounds(bin);
    showTip(event, `${span(low)} to ${span(high)}`, [["here", `${count(n)} (${percent((100 * n) / g.spread.count)})`, colour.accent], ["up to here", percent((100 * below) / g.spread.count)]]);
  });
  place.addEventListener("pointerup", () => {
    const g = geometry(place.clientWidth);
    const was = drag;
    drag = null;
    if (!g || !was) return;
    if (Math.abs(was.to - was.from) < 4 || chosen === "itl") store.setLatency(null);
    else {
      const bins = [g.bin(Math.min(was.from, was.to)), g.bin(Math.max(was.from, was.to))];
      store.setLatency({ metric: chosen, from: 2 ** ((bins[0] - 2) / 8) / 1000, to: 2 ** ((bins[1] - 2) / 8) / 1000 });
    }
    view.later();
  });
  place.addEventListener("pointerleave", hideTip);
  const draw = () => {
    spreads = latencySpreads(current(), store.view, store.zoomed);
    fill(
      rows,
      LATENCIES.map(({ key, name, about }) => {
        const spread = spreads[key];
        const choose = () => {
          chosen = key;
          draw();
        };
        return h(
          `tr.choice${key === chosen ? ".chosen" : ""}`,
          { onclick: choose, title: about },
          h("td", null, h("button.plain", { "aria-pressed": String(key === chosen) }, name)),
          h("td.number", null, spread ? short(spread.count) : "–"),
          ["mean", "p50", "p90", "p99", "p999", "max"].map((part) => h("td.number", null, spread ? span(spread[part]) : "–")),
        );
      }),
    );
    const about = LATENCIES.find((one) => one.key === chosen).about;
    const spread = spreads[chosen];
    note.textContent = `${LATENCIES.find((one) => one.key === chosen).name}: ${about}.${
      !spread ? (store.zoomed && chosen === "itl" ? " Not known for a part of a session this long." : "") : spread.of === "sample" ? " Of the requests shown: a sample and the slowest." : spread.exact ? "" : " Percentiles within 0.4 %."
    }${chosen === "itl" ? "" : " Drag over the bars to filter the requests."}`;
    view.later();
  };
  for (const topic of ["view", "engine", "filter"]) store.on(topic, draw);
  store.on("theme", view.later);
  store.on("print", view.paint);
  draw();
}

/** Forward times of each kind of step, in figures. */
export function kindRows(engine, view, zoomed) {
  return KINDS.slice(1)
    .map((kind, i) => {
      const whole = engine.json.kinds[kind];
      if (!zoomed || !engine.steps.exact) return { kind, steps: whole.steps, spread: whole.forward, of: zoomed ? "whole" : "view" };
      const { steps } = engine;
      const [from, to] = steps.range(view[0], view[1]);
      const pairs = [];
      for (let k = from; k < to; k++) if (steps.cols.kind[k] === i + 1) pairs.push([steps.cols.fwd[k] || steps.cols.model[k], 1]);
      return { kind, steps: pairs.length, spread: spreadOf(pairs), of: "view" };
    })
    .filter((row) => row.steps > 0);
}

export function forward(host, store, current) {
  const draw = () => {
    const clock = { wall: "wall time of the model call", sync: "to vLLM's own synchronisation", events: "device events" }[current().ranks[0].clock] ?? "";
    fill(
      host,
      h(
        "div.table-wrap",
        null,
        h(
          "table",
          null,
          h("thead", null, h("tr", null, ["kind", "steps", "mean", "p50", "p90", "p99", "max"].map((name, i) => h(`th${i ? ".number" : ""}`, null, name)))),
          h(
            "tbody",
            null,
            kindRows(current(), store.view, store.zoomed).map((row) =>
              h(
                "tr",
                null,
                h("td", null, h("i.dot", { style: { background: `var(--${row.kind})` } }), row.kind, row.of === "whole" ? h("span.dim", null, " (whole session)") : null),
                h("td.number", null, count(row.steps)),
                ["mean", "p50", "p90", "p99", "max"].map((part) => h("td.number", null, row.spread ? span(row.spread[part]) : "–")),
              ),
            ),
          ),
        ),
      ),
      h("p.quiet", null, clock ? `Forward passes by ${clock}.` : ""),
    );
  };
  for (const topic of ["view", "engine"]) store.on(topic, draw);
  draw();
}
