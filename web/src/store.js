// What all panels share: the span of time in view, the moment under the pointer, the filters, the chosen engine, rank
// and request. Panels change it here and are told here; none knows another.

export class Store {
  constructor(data, full) {
    this.data = data;
    this.full = full; // [from, to] in microseconds
    this.view = full.slice();
    this.hover = null; // a moment, or null
    this.latency = null; // { metric, from, to }: only requests with such a latency
    this.search = "";
    this.engine = 0; // places in data.engines and its ranks
    this.rank = 0;
    this.request = null; // place in the engine's requests
    this.least = 20; // microseconds of the narrowest view
    this.listeners = new Map();
    this.past = [];
  }

  /** topics: view, hover, filter, engine, request, theme */
  on(topic, listener) {
    if (!this.listeners.has(topic)) this.listeners.set(topic, new Set());
    this.listeners.get(topic).add(listener);
  }

  tell(topic, ...what) {
    for (const listener of this.listeners.get(topic) ?? []) listener(...what);
  }

  get zoomed() {
    return this.view[0] > this.full[0] || this.view[1] < this.full[1];
  }

  setView(from, to, remember = true) {
    const least = Math.min(this.least, this.full[1] - this.full[0]);
    const span = Math.max(least, Math.min(to - from, this.full[1] - this.full[0]));
    let start = (from + to) / 2 - span / 2;
    start = Math.max(this.full[0], Math.min(start, this.full[1] - span));
    const whole = span >= (this.full[1] - this.full[0]) * 0.9999;
    const next = whole ? this.full.slice() : [start, start + span];
    if (next[0] === this.view[0] && next[1] === this.view[1]) return;
    if (remember) {
      this.past.push(this.view.slice());
      if (this.past.length > 50) this.past.shift();
    }
    this.view = next;
    this.tell("view");
  }

  back() {
    const before = this.past.pop();
    if (before) this.setView(before[0], before[1], false);
  }

  reset() {
    this.setView(this.full[0], this.full[1]);
  }

  /** factor < 1 zooms in; around a moment, else the middle. */
  zoom(factor, around = this.hover ?? (this.view[0] + this.view[1]) / 2) {
    const [from, to] = this.view;
    this.setView(around - (around - from) * factor, around + (to - around) * factor, false);
  }

  pan(share) {
    const by = (this.view[1] - this.view[0]) * share;
    this.setView(this.view[0] + by, this.view[1] + by, false);
  }

  setHover(at, source) {
    if (this.hover === at) return;
    this.hover = at;
    this.tell("hover", source);
  }

  setSearch(text) {
    this.search = text;
    this.tell("filter");
  }

  setLatency(latency) {
    this.latency = latency;
    this.tell("filter");
  }

  setRequest(place) {
    this.request = place;
    this.tell("request");
  }

  setEngine(engine, rank) {
    const other = engine !== this.engine;
    this.engine = engine;
    this.rank = rank;
    if (other) {
      this.request = null;
      this.latency = null;
    }
    this.tell("engine");
  }
}
