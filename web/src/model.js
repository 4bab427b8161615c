// The data of the page (DATA.md) in arrays that can be drawn.

/** A series of rows in time, or of buckets of time where the session is too long for rows. */
export class Series {
  constructor(json) {
    this.exact = json.exact;
    this.rows = json.rows;
    if (json.exact) {
      this.t = absolute(json.t);
      this.cols = typed(json.cols);
      this.width = 0;
    } else {
      this.width = json.width;
      this.t = Float64Array.from(json.n, (_, i) => json.from + i * json.width);
      this.n = Float64Array.from(json.n);
      this.sums = typed(json.sum);
      this.mins = typed(json.min);
      this.maxs = typed(json.max);
      this.top = json.top ? { t: absolute(json.top.t), cols: typed(json.top.cols) } : null;
    }
  }

  get length() {
    return this.t.length;
  }

  has(name) {
    return name in (this.exact ? this.cols : { ...this.sums, ...this.maxs });
  }

  /** Places i..j of what lies in [from, to); buckets that reach into it count. */
  range(from, to) {
    return [lower(this.t, from - this.width + (this.width ? 1e-9 : 0)), lower(this.t, to)];
  }

  /** Of a column in [from, to): how many rows, their sum, the least and the greatest. */
  total(name, from, to) {
    const [i, j] = this.range(from, to);
    const found = { n: 0, sum: 0, min: Infinity, max: -Infinity };
    for (let k = i; k < j; k++) this.take(found, name, k);
    return found;
  }

  take(into, name, k) {
    if (this.exact) {
      const value = this.cols[name][k];
      into.n++;
      into.sum += value;
      if (value < into.min) into.min = value;
      if (value > into.max) into.max = value;
    } else if (this.n[k] > 0) {
      into.n += this.n[k];
      into.sum += this.sums[name] ? this.sums[name][k] : 0;
      const low = this.mins[name] ? this.mins[name][k] : 0;
      const high = this.maxs[name] ? this.maxs[name][k] : this.sums[name][k] / this.n[k];
      if (low < into.min) into.min = low;
      if (high > into.max) into.max = high;
    }
  }

  /**
   * A column for a plot of at most `most` points: { x, n, sum, mean, min, max } arrays, x in seconds. Where there are
   * fewer rows than points, the rows themselves.
   */
  points(name, from, to, most) {
    const [first, last] = this.range(from, to);
    const i = Math.max(0, first - 1); // one more at either side, so that lines reach the edges
    const j = Math.min(this.length, last + 1);
    if (j - i <= most) {
      const x = [];
      const n = [];
      const sum = [];
      const mean = [];
      const min = [];
      const max = [];
      for (let k = i; k < j; k++) {
        const at = { n: 0, sum: 0, min: Infinity, max: -Infinity };
        this.take(at, name, k);
        x.push((this.t[k] + this.width / 2) / 1e6);
        n.push(at.n);
        sum.push(at.sum);
        mean.push(at.n ? at.sum / at.n : null);
        min.push(at.n ? at.min : null);
        max.push(at.n ? at.max : null);
      }
      return { x, n, sum, mean, min, max, width: this.width };
    }
    const width = (to - from) / most;
    const bins = Array.from({ length: most }, () => ({ n: 0, sum: 0, min: Infinity, max: -Infinity }));
    for (let k = first; k < last; k++) {
      const at = Math.floor((this.t[k] + this.width / 2 - from) / width);
      if (at >= 0 && at < most) this.take(bins[at], name, k);
    }
    return {
      x: bins.map((_, k) => (from + (k + 0.5) * width) / 1e6),
      n: bins.map((bin) => bin.n),
      sum: bins.map((bin) => bin.sum),
      mean: bins.map((bin) => (bin.n ? bin.sum / bin.n : null)),
      min: bins.map((bin) => (bin.n ? bin.min : null)),
      max: bins.map((bin) => (bin.n ? bin.max : null)),
      width,
    };
  }

  /** Sums per second in `bins` equal parts of [from, to): rates of what is counted. */
  rate(name, from, to, bins) {
    const parts = this.width ? Math.max(1, Math.min(bins, Math.floor((to - from) / this.width))) : bins;
    const width = (to - from) / parts;
    const sums = new Float64Array(parts);
    const values = this.exact ? this.cols[name] : this.sums[name];
    const [i, j] = this.range(from, to);
    for (let k = i; k < j; k++) {
      const at = Math.floor((this.t[k] + this.width / 2 - from) / width);
      if (at >= 0 && at < parts) sums[at] += values[k];
    }
    return {
      x: Array.from(sums, (_, k) => (from + (k + 0.5) * width) / 1e6),
      y: Array.from(sums, (sum) => (sum * 1e6) / width),
    };
  }
}

function absolute(differences) {
  const t = new Float64Array(differences.length);
  let at = 0;
  for (let i = 0; i < t.length; i++) t[i] = at += differences[i];
  return t;
}

function typed(columns) {
  const made = {};
  for (const [name, values] of Object.entries(columns ?? {})) made[name] = Float64Array.from(values);
  return made;
}

/** The first place whose value is not below. */
export function lower(values, wanted) {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

export const KINDS = ["empty", "prefill", "decode", "mixed"];
export const PHASES = ["pre", "model", "post", "other", "sample"];
export const LATENCIES = [
  { key: "ttft", name: "TTFT", about: "arrival to first output, as the engine core sees it" },
  { key: "tpot", name: "TPOT", about: "first to last output by the output tokens but one" },
  { key: "itl", name: "ITL", about: "between two outputs of a request" },
  { key: "queue", name: "Queue", about: "queued to first scheduled" },
  { key: "e2e", name: "E2E", about: "arrival to end; aborted requests left out" },
];

/** One engine, ready to draw. */
export class Engine {
  constructor(json) {
    this.json = json;
    this.ranks = json.ranks.map((rank) => ({ ...rank, series: new Series(rank.steps) }));
    this.updates = new Series(json.updates);
    this.preemptions = new Series(json.preemptions);
    this.memory = json.memory_series ? new Series(json.memory_series) : null;
    this.sampling = json.sampling_series ? new Series(json.sampling_series) : null;
    this.transfers = json.kv_transfer_series ? new Series(json.kv_transfer_series) : null;
    this.kv = json.kv ? { ...json.kv, series: new Series(json.kv.steps) } : null;
    this.requests = requestRows(json.requests);
    for (const rank of this.ranks) addOther(rank.series);
    this.stalls = findStalls(this.updates);
  }

  get steps() {
    return this.ranks[Math.min(this.json.sampler, this.ranks.length - 1)].series;
  }

  /** From the first thing that happened to the last; null where nothing did. */
  extent() {
    let from = Infinity;
    let to = -Infinity;
    for (const { series } of this.ranks) {
      if (!series.length) continue;
      from = Math.min(from, series.t[0]);
      const last = series.length - 1;
      to = Math.max(to, series.t[last] + (series.exact ? series.cols.total[last] : series.width));
    }
    for (const row of this.requests) {
      from = Math.min(from, row.at);
      to = Math.max(to, row.until);
    }
    return from <= to ? [from, to] : null;
  }
}

/** What of a step lies between the worker's two calls. */
function addOther(series) {
  if (series.exact) {
    const { pre, model, post, sample, total } = series.cols;
    series.cols.other = total.map((value, i) => Math.max(0, value - pre[i] - model[i] - post[i] - sample[i]));
  } else {
    const { pre, model, post, sample, total } = series.sums;
    series.sums.other = total.map((value, i) => Math.max(0, value - pre[i] - model[i] - post[i] - sample[i]));
  }
}

function requestRows(json) {
  const { cols } = json;
  const rows = [];
  for (let i = 0; i < cols.id.length; i++) {
    const row = { place: i };
    for (const name of Object.keys(cols)) row[name] = cols[name][i];
    row.key = row.id.toLowerCase();
    for (const name of ["queued", "started", "first", "last", "end"]) if (row[name] !== null) row[name] += row.at;
    row.away = (json.away[i] ?? []).map(([from, to]) => [row.at + from, to === null ? null : row.at + to]);
    row.until = row.end ?? Math.max(row.at, row.last ?? 0, row.first ?? 0, row.started ?? 0, ...row.away.flat());
    rows.push(row);
  }
  return rows;
}

/**
 * Long times between outputs that requests waited through: [from, to, requests], in order. Long is over four times the
 * median, and among the longest twentieth.
 */
function findStalls(updates) {
  const from = updates.exact ? updates : updates.top;
  if (!from || !from.t.length) return [];
  const { gap, cont } = from.cols;
  let threshold = 0;
  if (updates.exact) {
    const sorted = Array.from(gap)
      .filter((value, i) => cont[i] > 0 && value > 0)
      .sort((a, b) => a - b);
    if (!sorted.length) return [];
    threshold = Math.max(4 * sorted[sorted.length >> 1], sorted[Math.floor(sorted.length * 0.95)], 1000);
  }
  const found = [];
  for (let i = 0; i < gap.length; i++)
    if (cont[i] > 0 && gap[i] > threshold) found.push([from.t[i] - gap[i], from.t[i], cont[i]]);
  return found.sort((a, b) => a[0] - b[0]);
}

/** The bounds of bin k of a distribution (see DATA.md), in microseconds. */
export const binBounds = (k) => (k === 0 ? [0, 0.001] : [2 ** ((k - 2) / 8) / 1000, 2 ** ((k - 1) / 8) / 1000]);

/** Which bin a value in microseconds falls into. */
export const binOf = (us) => (us <= 0 ? 0 : Math.max(1, Math.ceil(Math.log2(us * 1000) * 8 - 1e-9) + 1));

/** Percentiles with weights, by linear interpolation between ranks; pairs [value, weight] in any order. */
export function spreadOf(pairs) {
  if (!pairs.length) return null;
  pairs.sort((a, b) => a[0] - b[0]);
  let n = 0;
  let sum = 0;
  const bins = new Map();
  const ends = pairs.map(([value, weight]) => {
    sum += value * weight;
    const bin = binOf(value);
    bins.set(bin, (bins.get(bin) ?? 0) + weight);
    return (n += weight);
  });
  const rank = (place) => pairs[Math.min(pairs.length - 1, lower(ends, place + 1))][0];
  const quantile = (q) => {
    const place = q * (n - 1);
    const low = Math.floor(place);
    const value = rank(low);
    return place > low ? value + (place - low) * (rank(low + 1) - value) : value;
  };
  return {
    count: n,
    exact: true,
    mean: sum / n,
    min: pairs[0][0],
    p50: quantile(0.5),
    p90: quantile(0.9),
    p99: quantile(0.99),
    p999: quantile(0.999),
    max: pairs[pairs.length - 1][0],
    bins: [...bins].sort((a, b) => a[0] - b[0]),
  };
}
