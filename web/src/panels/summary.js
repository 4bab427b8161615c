// What ran, and the figures that everybody asks for first, of the span in view.

import { fill, h } from "../dom.js";
import { count, percent, short, span } from "../format.js";
import { spreadOf } from "../model.js";

const tile = (name, value, more, tone) =>
  h(`div.tile${tone ? `.${tone}` : ""}`, null, h("span.tile-name", null, name), h("b.tile-value", null, value), h("span.tile-more", null, more));

/** Where the time of [from, to] went by kind of step, in microseconds: { prefill, decode, mixed, idle }. */
export function timeByKind(series, from, to) {
  const found = { prefill: 0, decode: 0, mixed: 0, idle: 0 };
  const [i, j] = series.range(from, to);
  if (series.exact) {
    const names = [null, "prefill", "decode", "mixed"];
    for (let k = Math.max(0, i - 1); k < j; k++) {
      const name = names[series.cols.kind[k]];
      if (!name) continue;
      found[name] += Math.max(0, Math.min(to, series.t[k] + series.cols.total[k]) - Math.max(from, series.t[k]));
    }
  } else {
    for (let k = i; k < j; k++) {
      found.prefill += series.sums.busy_p[k];
      found.decode += series.sums.busy_d[k];
      found.mixed += series.sums.busy_m[k];
    }
  }
  found.idle = Math.max(0, to - from - found.prefill - found.decode - found.mixed);
  return found;
}

export const overlaps = (row, from, to) => row.until >= from && row.at <= to;

export function summary(host, store, current) {
  const tiles = h("div.tiles");
  host.append(tiles);
  const draw = () => {
    const engine = current();
    const { json } = engine;
    const [from, to] = store.view;
    const whole = !store.zoomed;
    const seconds = (to - from) / 1e6;
    const rows = engine.requests.filter((row) => overlaps(row, from, to));
    const spread = (key) =>
      whole && json.latency[key] ? json.latency[key] : spreadOf(rows.filter((row) => row[key] !== null).map((row) => [row[key], 1]));
    const ttft = spread("ttft");
    const tpot = spread("tpot");
    const made = engine.updates.total("otok", from, to).sum;
    const prompt = engine.steps.total("ptok", from, to).sum;
    const time = timeByKind(engine.steps, from, to);
    const steps = engine.steps.total("total", from, to);
    const batch = engine.steps.total("req", from, to);
    const waiting = engine.steps.total("waiting", from, to);
    const preemptions = engine.preemptions.exact ? engine.preemptions.range(from, to) : null;
    const gone = preemptions ? preemptions[1] - preemptions[0] : engine.preemptions.rows;
    const used = engine.kv?.series.total("used", from, to);
    fill(
      tiles,
      tile(
        "Requests",
        short(whole ? json.requests.total : rows.length),
        whole
          ? [json.requests.not_over ? `${count(json.requests.not_over)} not over` : "all over", `, ${short(json.requests.total / seconds)}/s`]
          : engine.json.requests.exact ? "in this span" : "shown in this span",
      ),
      tile("Output", `${short(made / seconds)} tok/s`, `${short(made)} tokens; prompts ${short(prompt / seconds)} tok/s`),
      ttft ? tile("TTFT p50", span(ttft.p50), `p99 ${span(ttft.p99)}`) : null,
      tpot ? tile("TPOT p50", span(tpot.p50), `p99 ${span(tpot.p99)}`) : null,
      tile("Steps", short(steps.n), steps.n ? `mean ${span(steps.sum / steps.n)}, longest ${span(steps.max)}` : "none here"),
      tile("Batch", batch.n ? `${short(batch.sum / batch.n)} req` : "–", batch.n ? [`at most ${count(batch.max)}`, json.max_requests ? ` of ${count(json.max_requests)}` : ""] : ""),
      tile("Busy", percent((100 * (to - from - time.idle)) / (to - from)), `idle ${span(time.idle)}`),
      tile("Waiting", waiting.n ? short(waiting.sum / waiting.n) : "–", waiting.n ? `at most ${count(waiting.max)}` : ""),
      used && used.n
        ? tile("KV cache", percent((100 * used.max) / engine.kv.total), `peak; mean ${percent((100 * used.sum) / used.n / engine.kv.total)}`, used.max / engine.kv.total > 0.9 ? "warn" : "")
        : null,
      tile("Preemptions", short(gone), `${short(json.requests.recomputed_tokens)} tokens computed again`, gone > 0 ? "bad" : ""),
    );
  };
  for (const topic of ["view", "engine"]) store.on(topic, draw);
  draw();
}
