// Plots of load over time: tokens per second, batches, queues, and the KV cache.

import { h } from "../dom.js";
import { count, percent, short } from "../format.js";
import { legend } from "../panel.js";
import { timePlot } from "../plot.js";
import { colour } from "../theme.js";

const band = (points) => [points.x, points.max, points.mean];

export function throughput(host, store, current) {
  timePlot(host, store, {
    series: [
      { name: "prompt tok/s", colour: "prefill", kind: "area", format: (v) => short(v) },
      { name: "output tok/s", colour: "decode", kind: "area", format: (v) => short(v) },
    ],
    fetch: (from, to, most) => {
      const { updates, steps } = current();
      // At least some steps in each part: a rate of less than a step says nothing.
      const inView = steps.total("total", from, to).n;
      const bins = Math.max(6, Math.min(160, Math.floor(most / 4), Math.floor(inView / 6)));
      const made = updates.rate("otok", from, to, bins);
      const parts = made.y.length;
      const prompt = steps.rate("ptok", from, to, parts);
      return [made.x, prompt.y.length === parts ? prompt.y : made.x.map(() => null), made.y];
    },
  });
  return legend(["output", "decode"], ["prompt", "prefill"]);
}

const limitMark = (limit, label) => (ctx, u, ratio) => {
  const value = limit();
  if (!value || value > u.scales.y.max) return;
  const y = u.valToPos(value, "y", true);
  ctx.strokeStyle = colour.limit;
  ctx.setLineDash([6 * ratio, 4 * ratio]);
  ctx.lineWidth = ratio;
  ctx.beginPath();
  ctx.moveTo(u.bbox.left, y);
  ctx.lineTo(u.bbox.left + u.bbox.width, y);
  ctx.stroke();
  ctx.setLineDash([]);
  ctx.fillStyle = colour.limit;
  ctx.font = `${11 * ratio}px system-ui, sans-serif`;
  ctx.textAlign = "right";
  ctx.fillText(`${label} ${count(value)}`, u.bbox.left + u.bbox.width - 6 * ratio, y + 13 * ratio);
  ctx.textAlign = "left";
};

function utilization(host, store, current, { column, tone, limit, flag }) {
  timePlot(host, store, {
    series: [
      { name: "most", colour: tone, kind: "band" },
      { name: "mean", colour: tone, kind: "line" },
    ],
    top: () => {
      const most = limit();
      const { max } = current().steps.total(column, ...store.view);
      return most && max > most * 0.4 ? most * 1.02 : 0;
    },
    fetch: (from, to, most) => band(current().steps.points(column, from, to, most)),
    marks: limitMark(limit, flag),
    tip: (at) => {
      const most = limit();
      if (!most) return [];
      const { steps } = current();
      const [i] = steps.range(at, at + 1);
      const k = Math.min(Math.max(0, i), steps.length - 1);
      const value = steps.exact ? steps.cols[column][k] : steps.sums[column][k] / (steps.n[k] || 1);
      return [["of the limit", percent((100 * value) / most)]];
    },
  });
}

export function batches(host, store, current) {
  utilization(host, store, current, { column: "req", tone: "decode", limit: () => current().json.max_requests, flag: "max_num_seqs" });
  return legend(["mean", "decode", "line"], ["most", "decode", "fade"], ["limit", "limit", "dash"]);
}

export function tokens(host, store, current) {
  utilization(host, store, current, { column: "tok", tone: "mixed", limit: () => current().json.max_tokens, flag: "max_num_batched_tokens" });
  return legend(["mean", "mixed", "line"], ["most", "mixed", "fade"], ["limit", "limit", "dash"]);
}

export function queues(host, store, current) {
  timePlot(host, store, {
    series: [
      { name: "waiting, most", colour: "queue", kind: "band" },
      { name: "waiting", colour: "queue", kind: "line" },
      { name: "running", colour: "decode", kind: "area" },
    ],
    fetch: (from, to, most) => {
      const waiting = current().steps.points("waiting", from, to, most);
      const running = current().steps.points("running", from, to, most);
      return [waiting.x, waiting.max, waiting.mean, running.mean];
    },
  });
  return legend(["running", "decode"], ["waiting", "queue", "line"], ["most waiting", "queue", "fade"]);
}

export function kv(host, store, current) {
  const total = () => current().kv?.total || 1;
  const share = (values) => values.map((value) => (value === null ? null : (100 * value) / total()));
  timePlot(host, store, {
    height: 190,
    format: (value) => `${short(value)} %`,
    top: () => Math.min(100, (115 * (current().kv?.series.total("used", ...store.view).max ?? 0)) / total()),
    series: [
      { name: "used, most", colour: "model", kind: "band", format: (v) => percent(v) },
      { name: "used", colour: "model", kind: "line", format: (v) => percent(v) },
    ],
    fetch: (from, to, most) => {
      const kv_ = current().kv;
      if (!kv_) return [[], [], []];
      const used = kv_.series.points("used", from, to, most);
      return [used.x, share(used.max), share(used.mean)];
    },
    marks: (ctx, u, ratio) => {
      const { kv: cache, preemptions } = current();
      if (!cache) return;
      for (const [level, tone] of [[90, "bad"], [40, "good"]]) {
        if (level > u.scales.y.max) continue;
        const y = u.valToPos(level, "y", true);
        ctx.strokeStyle = colour[tone];
        ctx.globalAlpha = 0.7;
        ctx.setLineDash([3 * ratio, 5 * ratio]);
        ctx.lineWidth = ratio;
        ctx.beginPath();
        ctx.moveTo(u.bbox.left, y);
        ctx.lineTo(u.bbox.left + u.bbox.width, y);
        ctx.stroke();
        ctx.setLineDash([]);
        ctx.globalAlpha = 1;
      }
      const bottom = u.bbox.top + u.bbox.height;
      const evicted = cache.series.points("evicted", store.view[0], store.view[1], 400);
      const most = Math.max(1, ...evicted.sum);
      ctx.fillStyle = colour.evicted;
      ctx.globalAlpha = 0.8;
      const wide = Math.max(2 * ratio, u.bbox.width / 420);
      evicted.x.forEach((at, i) => {
        if (!evicted.sum[i]) return;
        const tall = Math.max(3 * ratio, (evicted.sum[i] / most) * u.bbox.height * 0.3);
        ctx.fillRect(u.valToPos(at, "x", true) - wide / 2, bottom - tall, wide, tall);
      });
      ctx.globalAlpha = 1;
      ctx.fillStyle = colour.preempted;
      const [i, j] = preemptions.range(...store.view);
      for (let k = i; k < j; k++) {
        if (!preemptions.exact && preemptions.n[k] === 0) continue;
        const x = u.valToPos((preemptions.t[k] + preemptions.width / 2) / 1e6, "x", true);
        ctx.globalAlpha = 0.25;
        ctx.fillRect(x - ratio / 2, u.bbox.top, ratio, u.bbox.height);
        ctx.globalAlpha = 1;
        ctx.beginPath();
        ctx.moveTo(x - 5 * ratio, u.bbox.top);
        ctx.lineTo(x + 5 * ratio, u.bbox.top);
        ctx.lineTo(x, u.bbox.top + 8 * ratio);
        ctx.fill();
      }
    },
    tip: (at) => {
      const { series } = current().kv;
      const [i] = series.range(at, at + 1);
      const k = Math.min(Math.max(0, i), series.length - 1);
      const sum = (name) => (series.exact ? series.cols[name][k] : series.sums[name][k]);
      return [
        ["given out", count(sum("alloc"))],
        ["freed", count(sum("freed"))],
        ["evicted", count(sum("evicted")), colour.evicted],
        sum("queried") ? ["prefix hits", `${count(sum("hit"))} of ${count(sum("queried"))} tokens`] : null,
      ].filter(Boolean);
    },
  });
  return legend(["used", "model", "line"], ["most", "model", "fade"], ["evictions", "evicted"], ["preemption", "preempted", "triangle"]);
}

/** The cache in figures, beside its plot. */
export function kvFigures(host, store, current) {
  const draw = () => {
    host.replaceChildren();
    const { kv: cache, json } = current();
    if (!cache) return;
    const hits = cache.series.total("hit", ...store.view).sum;
    const asked = cache.series.total("queried", ...store.view).sum;
    const entries = [
      ["blocks", count(cache.total)],
      ["peak", `${count(cache.peak)} (${percent((100 * cache.peak) / cache.total)})`],
      ["prefix cache", cache.caching ? "on" : "off"],
      cache.caching ? ["prefix hits", asked ? `${percent((100 * hits) / asked)} of ${short(asked)} tokens` : "nothing asked"] : null,
      ["evictions", count(cache.evictions)],
      cache.lifetime ? ["block lifetime p50", `${(cache.lifetime.p50 / 1e6).toFixed(2)} s`] : null,
      cache.idle ? ["idle before eviction p50", `${(cache.idle.p50 / 1e6).toFixed(2)} s`] : null,
      ["preemptions", count(current().preemptions.rows)],
      ["tokens lost", count(json.requests.lost_tokens)],
    ];
    host.append(h("dl.figures", null, entries.filter(Boolean).map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value)))));
  };
  for (const topic of ["view", "engine"]) store.on(topic, draw);
  draw();
}
