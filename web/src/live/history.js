// What the page keeps of the past: a bounded series of points per engine, made of the differences of its totals from one
// state to the next, so that each is exactly what happened in between.

export const POINTS = 600; // ten minutes at a state a second
export const SERIES = ["out", "in", "steps", "running", "waiting", "kv", "ttft", "tpot"];

const rates = { out: "output_tokens", in: "prefill_tokens", steps: "steps" };

class Past {
  constructor() {
    this.t = [];
    for (const name of SERIES) this[name] = [];
    this.last = null; // { sec, total }
  }

  add(sec, engine) {
    const before = this.last;
    if (before && sec <= before.sec) return; // the same state again
    this.last = { sec, total: engine.total };
    if (!before) return;
    // Totals that shrink are another process's: a restart.
    const rate = (key) => Math.max(0, engine.total[key] - before.total[key]) / (sec - before.sec);
    this.push(sec, {
      ...Object.fromEntries(Object.entries(rates).map(([name, key]) => [name, rate(key)])),
      running: engine.running,
      waiting: engine.waiting,
      kv: engine.kv ? (100 * engine.kv.used_blocks) / engine.kv.total_blocks : null,
      ttft: engine.window.ttft.p50_ms,
      tpot: engine.window.tpot.p50_ms,
    });
  }

  push(sec, values) {
    this.t.push(sec);
    for (const name of SERIES) this[name].push(values[name] ?? null);
    if (this.t.length > POINTS) for (const name of ["t", ...SERIES]) this[name].splice(0, this.t.length - POINTS);
  }

  /** The seconds that the server knows from before this page was opened. */
  fill(from, seconds) {
    const first = this.t[0] ?? this.last?.sec ?? Infinity;
    const older = new Past();
    seconds.out_tokens.forEach((out, i) => {
      const sec = from + i + 1;
      if (sec <= 0 || sec >= first - 0.5) return;
      const level = (name, by = 1) => (seconds[name][i] === null ? null : seconds[name][i] * by);
      older.push(sec, { out, in: seconds.in_tokens[i], steps: seconds.steps[i], running: level("running"), waiting: level("waiting"), kv: level("kv", 100) });
    });
    for (const name of ["t", ...SERIES]) this[name] = [...older[name], ...this[name]].slice(-POINTS);
  }
}

export class History {
  constructor() {
    this.engines = new Map(); // "id engine": Past
  }

  add(sessions) {
    const seen = new Set();
    for (const session of sessions)
      for (const engine of session.engines) {
        const key = `${session.id} ${engine.engine}`;
        seen.add(key);
        if (!this.engines.has(key)) this.engines.set(key, new Past());
        this.engines.get(key).add(session.now_sec, engine);
      }
    for (const key of this.engines.keys()) if (!seen.has(key)) this.engines.delete(key);
  }

  of(id, engine) {
    const key = `${id} ${engine}`;
    if (!this.engines.has(key)) this.engines.set(key, new Past());
    return this.engines.get(key);
  }
}
