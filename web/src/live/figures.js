// Figures of a session's state (the JSON of `profilemate top --json`) that the views show, summed over engines where there
// are several; the same formulas as the screen of `top` (src/cmd/top_draw.c).

export const STATES = {
  serving: { tone: "good", order: 3 },
  idle: { tone: "queue", order: 4 },
  starting: { tone: "accent", order: 2 },
  stalled: { tone: "bad", order: 0 },
  stopped: { tone: "bad", order: 0 },
  broken: { tone: "bad", order: 0 },
  killed: { tone: "preempted", order: 5 },
  ended: { tone: "dim", order: 6 },
};
export const hangs = (session) => STATES[session.health]?.order === 0;
export const over = (session) => session.health === "killed" || session.health === "ended";

const sum = (session, get) => session.engines.reduce((total, engine) => total + (get(engine) ?? 0), 0);
/** The worst of all engines; null where none has one. */
const worst = (session, get) => session.engines.reduce((most, engine) => (get(engine) === null ? most : Math.max(most ?? 0, get(engine))), null);

export const OF_ALL = {
  out: (session) => sum(session, (engine) => engine.window.out_tokens_per_sec),
  in: (session) => sum(session, (engine) => engine.window.in_tokens_per_sec),
  steps: (session) => sum(session, (engine) => engine.window.steps_per_sec),
  running: (session) => sum(session, (engine) => engine.running),
  waiting: (session) => sum(session, (engine) => engine.waiting),
  kv: (session) => worst(session, kvShare),
  ttft: (session) => worst(session, (engine) => engine.window.ttft.p50_ms),
  tpot: (session) => worst(session, (engine) => engine.window.tpot.p50_ms),
};

export function kvShare(engine) {
  return engine.kv && engine.kv.total_blocks ? (100 * engine.kv.used_blocks) / engine.kv.total_blocks : null;
}

const windowMs = (engine) => 1000 * (engine.window.to_sec - engine.window.from_sec);

/** Of the last seconds in per cent: the model ran, only the host worked, nobody asked for anything. */
export function use(engine) {
  const whole = windowMs(engine);
  if (!(whole > 0)) return { model: 0, host: 0, none: 0 };
  const model = Math.min(1, (engine.ranks[0]?.window.forward_ms ?? 0) / whole);
  const none = Math.min(1 - model, engine.window.no_work_ms / whole);
  return { model: 100 * model, host: 100 * (1 - model - none), none: 100 * none };
}

/** null, or { ms, parts }: how long a step takes, and the shares of what it goes into on the first rank. */
export function stepSplit(engine) {
  const worked = windowMs(engine) - engine.window.no_work_ms;
  if (engine.window.steps === 0 || worked <= 0) return null;
  const rank = engine.ranks[0]?.window ?? { pre_ms: 0, model_ms: 0, post_ms: 0, sample_ms: 0 };
  const parts = [
    ["schedule", engine.window.sched_ms, "sched"],
    ["prepare", rank.pre_ms, "pre"],
    ["model", rank.model_ms, "model"],
    ["post", rank.post_ms, "post"],
    ["sample", rank.sample_ms, "sample"],
    ["output", engine.window.update_ms, "accent"],
  ];
  const known = parts.reduce((total, part) => total + part[1], 0);
  const whole = Math.max(known, worked);
  parts.push(["rest", whole - known, "other"]);
  return { ms: worked / engine.window.steps, parts: parts.map(([name, ms, tone]) => ({ name, value: ms / whole, tone })) };
}

/** In per cent, or null where there was nothing. */
export const share = (part, whole) => (whole > 0 ? (100 * part) / whole : null);

export const ms = (value) => (value === null ? null : value * 1000);

export function seconds(value) {
  if (value < 120) return `${value < 10 ? value.toFixed(1) : Math.round(value)} s`;
  if (value < 7200) return `${Math.floor(value / 60)} min ${Math.floor(value % 60)} s`;
  if (value < 172800) return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
  return `${Math.floor(value / 86400)} d ${Math.floor((value % 86400) / 3600)} h`;
}
