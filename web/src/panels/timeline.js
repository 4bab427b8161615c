// The steps in time: each rank's kinds and phases, schedule(), how long steps took, preemptions. From far away each
// column of pixels shows the share of its time; near by, every step stands alone.

import { canvasIn, clip, h } from "../dom.js";
import { count, moment, short, span, timeTicks } from "../format.js";
import { KINDS, PHASES, lower } from "../model.js";
import { GUTTER } from "../plot.js";
import { colour, fade } from "../theme.js";
import { timeArea } from "../timearea.js";
import { hideTip, showTip } from "../tip.js";

const AXIS = 22;
const KIND = 30;
const PHASE = 18;
const SCHED = 9;
const DOTS = 96;
const RIGHT = 8;

export function timeline(host, store, current) {
  const place = h("div.canvas-host", { tabindex: "0", role: "img", "aria-label": "timeline of the engine's steps" });
  host.append(place);
  let chosen = null;
  const lanes = () => {
    const found = [];
    let y = AXIS;
    const add = (kind, height, more) => {
      found.push({ kind, y, height, ...more });
      y += height + (kind === "phases" ? 10 : 3);
    };
    add("sched", SCHED, { name: "schedule" });
    current().ranks.forEach((rank, i) => {
      const name = current().ranks.length > 1 ? `rank ${rank.rank ?? i}` : "steps";
      add("kinds", KIND, { rank: i, name });
      add("phases", PHASE, { rank: i, name: "phases" });
    });
    add("dots", DOTS, { name: "took" });
    return { found, height: y + 4 };
  };

  const view = canvasIn(place, () => lanes().height, (ctx, width, height) => {
    const engine = current();
    const [from, to] = store.view;
    const area = width - GUTTER - RIGHT;
    const x = (time) => GUTTER + ((time - from) / (to - from)) * area;
    ctx.font = "11px system-ui, sans-serif";
    ctx.textBaseline = "middle";
    for (const tick of timeTicks(from, to, area / 110)) {
      ctx.fillStyle = colour.grid;
      ctx.fillRect(Math.round(x(tick)), AXIS - 4, 1, height);
      ctx.fillStyle = colour.dim;
      if (x(tick) < width - 52) ctx.fillText(moment(tick, to - from), Math.round(x(tick)) + 4, 9);
    }
    for (const lane of lanes().found) {
      ctx.fillStyle = colour.dim;
      ctx.textAlign = "right";
      if (lane.kind === "dots") ctx.fillText(lane.name, GUTTER - 8, lane.y + 6);
      else if (lane.kind !== "sched") ctx.fillText(lane.name, GUTTER - 8, lane.y + lane.height / 2);
      ctx.textAlign = "left";
      ctx.save();
      ctx.beginPath();
      ctx.rect(GUTTER, lane.y - 1, area, lane.height + 2);
      ctx.clip();
      if (lane.kind === "dots") drawDots(ctx, engine.steps, store.view, lane, area, x);
      else if (lane.kind === "sched") drawSched(ctx, engine.steps, store.view, lane, area, x);
      else {
        ctx.fillStyle = fade(colour.idle, 0.5);
        ctx.fillRect(GUTTER, lane.y, area, lane.height);
        drawRank(ctx, engine.ranks[lane.rank].series, store.view, lane, area, x);
      }
      ctx.restore();
      if (lane.kind === "dots") dotAxis(ctx, engine.steps, store.view, lane);
    }
    drawPreemptions(ctx, engine, store.view, x, lanes().found);
    if (store.request !== null) {
      const row = engine.requests[store.request];
      ctx.fillStyle = fade(colour.accent, 0.14);
      ctx.fillRect(x(row.at), AXIS, Math.max(1, x(row.until) - x(row.at)), height - AXIS);
    }
    if (chosen) {
      ctx.fillStyle = fade(colour.select, 0.22);
      ctx.fillRect(x(chosen[0]), AXIS, x(chosen[1]) - x(chosen[0]), height - AXIS);
      ctx.fillStyle = colour.ink;
      ctx.textAlign = "center";
      ctx.fillText(span(chosen[1] - chosen[0]), (x(chosen[0]) + x(chosen[1])) / 2, AXIS + 6);
      ctx.textAlign = "left";
    } else if (store.hover !== null && store.hover >= from && store.hover <= to) {
      ctx.fillStyle = fade(colour.ink, 0.6);
      ctx.fillRect(x(store.hover), AXIS - 4, 1, height);
    }
  });

  const stepAt = (series, at) => {
    const k = Math.min(series.length - 1, Math.max(0, lower(series.t, at + 1e-6) - 1));
    return series.length ? k : -1;
  };
  timeArea(place, store, () => ({ left: GUTTER, width: place.clientWidth - GUTTER - RIGHT }), {
    drag: (a, b) => {
      chosen = a === null ? null : [a, b];
      view.later();
    },
    hover: (event, at) => {
      const y = event.clientY - place.getBoundingClientRect().top;
      const lane = lanes().found.find((one) => y >= one.y && y <= one.y + one.height + 3);
      const series = current().ranks[lane?.rank ?? Math.min(current().json.sampler, current().ranks.length - 1)].series;
      const k = stepAt(series, at);
      if (k < 0) hideTip();
      else if (series.exact) tipOfStep(event, series, k, at);
      else tipOfBucket(event, series, k);
    },
    click: (event, at) => {
      const series = current().steps;
      const k = stepAt(series, at);
      if (k < 0 || !series.exact) return;
      const took = series.cols.total[k];
      if (at <= series.t[k] + took) store.setView(series.t[k] - took * 6, series.t[k] + took * 7);
    },
  });
  for (const topic of ["view", "hover", "theme", "engine", "request"]) store.on(topic, view.later);
  store.on("print", view.paint);
}

function tipOfStep(event, series, k, at) {
  const { cols } = series;
  const end = series.t[k] + cols.total[k];
  if (at > end) {
    const next = series.t[k + 1];
    showTip(event, `idle after step ${count(cols.step[k])}`, [["idle", next === undefined ? "to the end" : span(next - end), colour.idle]]);
    return;
  }
  const kind = KINDS[cols.kind[k]];
  showTip(event, `step ${count(cols.step[k])} · ${kind}`, [
    ["took", span(cols.total[k]), colour[kind] ?? colour.idle],
    ["forward", cols.fwd[k] ? span(cols.fwd[k]) : "–"],
    ["requests", `${count(cols.req[k])} (running ${count(cols.running[k])}, waiting ${count(cols.waiting[k])})`],
    ["tokens", `${count(cols.tok[k])}${cols.ptok[k] ? `, ${count(cols.ptok[k])} of prompts` : ""}${cols.rtok[k] ? `, ${count(cols.rtok[k])} again` : ""}`],
    ["schedule", span(cols.sched[k]), colour.sched],
    ...PHASES.filter((name) => cols[name][k] > 0).map((name) => [name, span(cols[name][k]), colour[name]]),
    `at ${moment(series.t[k], 1e4)}`,
  ]);
}

function tipOfBucket(event, series, k) {
  const n = series.n[k];
  const { sums, maxs } = series;
  const rows = [["steps", count(n)]];
  for (const [short_, name] of [["p", "prefill"], ["d", "decode"], ["m", "mixed"]])
    if (sums[`n_${short_}`][k]) rows.push([name, `${count(sums[`n_${short_}`][k])}, at most ${span(maxs[`max_${short_}`][k])}`, colour[name]]);
  if (n) {
    rows.push(["mean step", span(sums.total[k] / n)], ["requests", `${short(sums.req[k] / n)}, at most ${count(maxs.req[k])}`]);
    for (const name of PHASES) if (sums[name][k]) rows.push([name, span(sums[name][k] / n), colour[name]]);
  }
  showTip(event, `${moment(series.t[k], series.width * 50)}, ${span(series.width)} long`, rows);
}

/** Sums per column of pixels: columns[name][pixel], in microseconds of each. */
function shares(series, view, area, names, pick) {
  const [from, to] = view;
  const bins = Math.max(1, Math.floor(area));
  const width = (to - from) / bins;
  const made = Object.fromEntries(names.map((name) => [name, new Float64Array(bins)]));
  const [i, j] = series.range(from, to);
  const put = (name, start, took) => {
    // Spread over the columns that it covers.
    const left = Math.max(from, start);
    const right = Math.min(to, start + took);
    const last = Math.min(bins - 1, Math.floor((right - from) / width));
    for (let at = Math.max(0, Math.floor((left - from) / width)); at <= last; at++)
      made[name][at] += Math.max(0, Math.min(right, from + (at + 1) * width) - Math.max(left, from + at * width));
  };
  for (let k = Math.max(0, i - 1); k < j; k++) pick(k, put);
  return { made, bins };
}

function drawRank(ctx, series, view, lane, area, x) {
  const [from, to] = view;
  const [i, j] = series.range(from, to);
  const kinds = lane.kind === "kinds";
  if (series.exact && (j - i + 1) * 5 < area) {
    for (let k = Math.max(0, i - 1); k < j; k++) kinds ? drawStep(ctx, series, k, lane, x) : drawPhases(ctx, series, k, lane, x);
    return;
  }
  const names = kinds ? ["decode", "mixed", "prefill"] : PHASES;
  const width = (to - from) / Math.max(1, Math.floor(area));
  const { made, bins } = shares(series, view, area, names, (k, put) => {
    if (series.exact) {
      const { cols } = series;
      if (kinds) {
        if (cols.kind[k] > 0) put(KINDS[cols.kind[k]], series.t[k], cols.total[k]);
      } else {
        let at = series.t[k];
        for (const name of PHASES) {
          put(name, at, cols[name][k]);
          at += cols[name][k];
        }
      }
    } else {
      const { sums } = series;
      const parts = kinds
        ? [["decode", sums.busy_d[k]], ["mixed", sums.busy_m[k]], ["prefill", sums.busy_p[k]]]
        : PHASES.map((name) => [name, sums[name][k]]);
      const whole = Math.max(series.width, parts.reduce((sum, part) => sum + part[1], 0));
      for (const [name, sum] of parts) spread(put, name, series.t[k], series.width, sum / whole, width);
    }
  });
  for (let p = 0; p < bins; p++) {
    let y = lane.y + lane.height;
    for (const name of names) {
      const tall = (Math.min(width, made[name][p]) / width) * lane.height;
      if (tall < 0.15) continue;
      ctx.fillStyle = colour[name];
      ctx.fillRect(GUTTER + p, y - tall, 1, tall);
      y -= tall;
    }
  }
}

/** A bucket's share, evenly over its width. */
function spread(put, name, start, width, share, column) {
  if (share <= 0) return;
  for (let at = start; at < start + width; at += column) put(name, at, Math.min(column, start + width - at) * share);
}

function drawStep(ctx, series, k, lane, x) {
  const { cols } = series;
  const left = x(series.t[k]);
  const width = Math.max(1, x(series.t[k] + cols.total[k]) - left - 0.5);
  const kind = KINDS[cols.kind[k]];
  ctx.fillStyle = kind === "empty" ? colour.idle : colour[kind];
  ctx.beginPath();
  ctx.roundRect(left, lane.y, width, lane.height, Math.min(3, width / 3));
  ctx.fill();
  if (width > 44) {
    ctx.fillStyle = "#fff";
    const start = Math.max(left, GUTTER);
    const text = `${cols.req[k]} req · ${cols.tok[k]} tok · ${span(cols.total[k])}`;
    ctx.fillText(clip(ctx, text, left + width - start - 8), start + 5, lane.y + lane.height / 2 + 0.5);
  }
}

function drawPhases(ctx, series, k, lane, x) {
  let at = series.t[k];
  for (const name of PHASES) {
    const took = series.cols[name][k];
    if (took <= 0) continue;
    const left = x(at);
    const width = x(at + took) - left;
    ctx.fillStyle = colour[name];
    ctx.fillRect(left, lane.y, Math.max(0.4, width - 0.3), lane.height);
    if (width > 48) {
      ctx.fillStyle = "#fff";
      const start = Math.max(left, GUTTER);
      ctx.fillText(clip(ctx, `${name} ${span(took)}`, left + width - start - 6), start + 4, lane.y + lane.height / 2 + 0.5);
    }
    at += took;
  }
}

function drawSched(ctx, series, view, lane, area, x) {
  if (!series.exact) return;
  const [i, j] = series.range(view[0], view[1]);
  ctx.fillStyle = colour.sched;
  for (let k = i; k < Math.min(series.length, j + 1); k++) {
    const left = x(series.t[k] - series.cols.lead[k]);
    ctx.fillRect(left, lane.y, Math.max(0.6, x(series.t[k] - series.cols.lead[k] + series.cols.sched[k]) - left), lane.height);
  }
}

function dotScale(series, view) {
  let min = Infinity;
  let max = 0;
  const [i, j] = series.range(view[0], view[1]);
  for (let k = i; k < j; k++) {
    if (series.exact ? series.cols.kind[k] === 0 : series.n[k] === 0) continue;
    const low = series.exact ? series.cols.total[k] : ["p", "d", "m"].reduce((least, key) => (series.sums[`n_${key}`][k] ? Math.min(least, series.sums[`busy_${key}`][k] / series.sums[`n_${key}`][k]) : least), Infinity);
    min = Math.min(min, low);
    max = Math.max(max, series.exact ? low : series.maxs.total[k]);
  }
  if (!(max > 0)) return null;
  min = Math.max(min, max / 1e5, 1);
  return { low: Math.log10(min) - 0.1, high: Math.log10(max) + 0.1 };
}

/** Every step's time on a logarithmic scale; from far away the least and the greatest of each column. */
function drawDots(ctx, series, view, lane, area, x) {
  const scale = dotScale(series, view);
  if (!scale) return;
  const y = (us) => lane.y + lane.height - ((Math.log10(Math.max(us, 1)) - scale.low) / (scale.high - scale.low)) * lane.height;
  const [i, j] = series.range(view[0], view[1]);
  if (series.exact) {
    const size = j - i > 4000 ? 1.6 : j - i > 800 ? 2.4 : 3.4;
    ctx.globalAlpha = j - i > 4000 ? 0.6 : 0.85;
    for (const kind of [2, 1, 3]) {
      ctx.fillStyle = colour[KINDS[kind]];
      for (let k = i; k < j; k++)
        if (series.cols.kind[k] === kind) ctx.fillRect(x(series.t[k]) - size / 2, y(series.cols.total[k]) - size / 2, size, size);
    }
    ctx.globalAlpha = 1;
    return;
  }
  const wide = Math.max(1.5, x(series.t[0] + series.width) - x(series.t[0]));
  for (const [name, key] of [["decode", "d"], ["prefill", "p"], ["mixed", "m"]]) {
    ctx.fillStyle = colour[name];
    for (let k = i; k < j; k++) {
      const n = series.sums[`n_${key}`][k];
      if (!n) continue;
      const high = y(series.maxs[`max_${key}`][k]);
      const mean = y(series.sums[`busy_${key}`][k] / n);
      ctx.globalAlpha = 0.22;
      ctx.fillRect(x(series.t[k]), high, wide, Math.max(1, mean - high));
      ctx.globalAlpha = 0.95;
      ctx.fillRect(x(series.t[k]), mean - 1, wide, 2);
      ctx.fillRect(x(series.t[k]), high - 0.75, wide, 1.5);
    }
  }
  ctx.globalAlpha = 1;
}

function dotAxis(ctx, series, view, lane) {
  const scale = dotScale(series, view);
  if (!scale) return;
  ctx.textAlign = "right";
  for (let power = Math.ceil(scale.low); power <= scale.high; power++) {
    const y = lane.y + lane.height - ((power - scale.low) / (scale.high - scale.low)) * lane.height;
    ctx.fillStyle = colour.grid;
    ctx.fillRect(GUTTER, Math.round(y), ctx.canvas.width, 1);
    ctx.fillStyle = colour.dim;
    if (y - lane.y > 18) ctx.fillText(span(10 ** power), GUTTER - 8, y);
  }
  ctx.textAlign = "left";
}

function drawPreemptions(ctx, engine, view, x, lanes) {
  const { preemptions } = engine;
  const lane = lanes.find((one) => one.kind === "kinds");
  const [i, j] = preemptions.range(view[0], view[1]);
  ctx.fillStyle = colour.preempted;
  for (let k = i; k < j; k++) {
    if (!preemptions.exact && preemptions.n[k] === 0) continue;
    const at = x(preemptions.t[k] + preemptions.width / 2);
    ctx.beginPath();
    ctx.moveTo(at - 4, lane.y - 9);
    ctx.lineTo(at + 4, lane.y - 9);
    ctx.lineTo(at, lane.y - 2);
    ctx.fill();
  }
}
