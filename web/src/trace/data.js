// The data of a trace's page (DATA.md) as the panels want it: flame graphs as trees, tracks as rows of slices. Times are
// microseconds from the earliest event of all files on.

const CLASS_TONES = { attention: "prefill", gemm: "decode", moe: "mixed", norm: "model", sampling: "sample", collective: "preempted", copy: "stall", other: "queue" };
const SPARE_TONES = ["pre", "evicted", "accent", "other"];
const KIND_TONES = {
  cpu_op: "cached",
  other: "cached",
  user_annotation: "evicted",
  python_function: "pre",
  runtime: "sched",
  overhead: "limit",
  cuda_sync: "limit",
  gpu_user_annotation: "evicted",
  kernel: "prefill",
  gpu_memcpy: "stall",
  gpu_memset: "stall",
};
export const KIND_WORDS = {
  cpu_op: "operator",
  user_annotation: "annotation",
  python_function: "Python function",
  runtime: "runtime call",
  gpu_memcpy: "copy",
  gpu_memset: "fill",
  cuda_sync: "wait on the device",
  gpu_user_annotation: "annotation on the device",
  device_other: "on the device",
};

export class Trace {
  constructor(data) {
    this.data = data;
    this.figures = data.figures;
    this.classOf = new Map(data.figures.files.flatMap((file) => file.kernels.map((kernel) => [kernel.name, kernel.class])));
    this.files = data.figures.files.map((figures, i) => new File(this, figures, data.drawings[i], i));
    // Files of one job share a clock; others are laid over each other from their begins on.
    const offsets = this.files.map((file) => file.offset);
    const longest = Math.max(...this.files.map((file) => file.figures.span_us));
    this.aligned = Math.max(...offsets) > 10 * longest;
    if (this.aligned) for (const file of this.files) file.offset = 0;
    this.full = [0, Math.max(1, ...this.files.map((file) => file.offset + file.figures.span_us))];
    for (const file of this.files) file.decode();
  }

  name(i) {
    return this.data.names[i];
  }

  /** The name of the theme's colour for a tone, and what a tone is. */
  tone(tone) {
    if (tone >= this.data.kinds_from) return KIND_TONES[this.data.kinds[tone - this.data.kinds_from]] ?? "other";
    return this.classTone(this.data.classes[tone]);
  }

  classTone(name) {
    return CLASS_TONES[name] ?? SPARE_TONES[this.data.classes.indexOf(name) % SPARE_TONES.length];
  }

  what(tone) {
    if (tone < this.data.kinds_from) return this.data.classes[tone];
    const kind = this.data.kinds[tone - this.data.kinds_from];
    return KIND_WORDS[kind] ?? kind;
  }
}

class File {
  constructor(trace, figures, drawing, place) {
    this.trace = trace;
    this.figures = figures;
    this.drawing = drawing;
    this.place = place;
    this.offset = (drawing?.offset ?? 0) / 1000;
    this.label = figures.rank === null ? figures.path.split("/").pop() : `rank ${figures.rank}`;
    // Where every event is to be seen, or null where that is so everywhere.
    this.whole = drawing?.grain && drawing.whole[1] > drawing.whole[0] ? drawing.whole : null;
    this.tracks = [];
    this.flames = {};
  }

  decode() {
    const several = this.trace.files.length > 1;
    const steps = stepsTrack(this);
    if (steps) this.tracks.push({ ...steps, title: several ? `${this.label} · steps` : "steps" });
    for (const json of this.drawing?.tracks ?? []) this.tracks.push(track(this, json, several));
    for (const kind of ["nesting", "python"]) if (this.drawing?.[kind]) this.flames[kind] = flame(this.drawing[kind]);
  }
}

/** A row: slices by time, with from and to in microseconds. */
function newRow() {
  return { from: [], to: [], name: [], tone: [], n: [], busy: [] };
}

function track(file, json, several) {
  const rows = Array.from({ length: json.depth }, newRow);
  let at = 0;
  json.t.forEach((step, i) => {
    at += step;
    const row = rows[json.row[i]];
    row.from.push(file.offset + at / 1000);
    row.to.push(file.offset + (at + json.d[i]) / 1000);
    row.name.push(file.trace.name(json.name[i]));
    row.tone.push(json.tone[i]);
    row.n.push(json.n?.[i] ?? 1);
    row.busy.push((json.busy?.[i] ?? json.d[i]) / 1000);
  });
  const process = json.device === null ? json.process || `process ${json.pid}` : `GPU ${json.device}`;
  const thread = json.device === null ? json.thread || `thread ${json.tid}` : json.stream === null ? json.thread || `track ${json.tid}` : `stream ${json.stream}`;
  return { file, rows, device: json.device, events: json.events, deep: json.too_deep, title: [several ? file.label : null, thread].filter(Boolean).join(" · "), more: `${process}, pid ${json.pid}, tid ${json.tid}` };
}

function stepsTrack(file) {
  const { steps } = file.figures;
  if (!steps.length) return null;
  const row = newRow();
  for (const step of steps) {
    row.from.push(file.offset + step.start_us);
    row.to.push(file.offset + step.start_us + step.period_us);
    row.name.push(step.name);
    row.tone.push(file.trace.data.kinds_from + file.trace.data.kinds.indexOf("user_annotation"));
    row.n.push(1);
    row.busy.push(step.period_us);
  }
  return { file, rows: [row], device: null, events: steps.length, deep: 0, more: "from the begin of a step to that of the next" };
}

/** { nodes, left_out }: nodes with outer, inner[], and totals of both metrics; nodes[0] is the whole. */
function flame(json) {
  const whole = { outer: null, inner: [], name: null, kind: -1, calls: 0, own: { cpu: 0, device: 0 }, total: { cpu: 0, device: 0 }, paths: 0 };
  const nodes = json.name.map((name, i) => ({
    outer: null,
    inner: [],
    name,
    kind: json.kind[i],
    calls: json.calls[i],
    own: { cpu: json.cpu[i] / 1000, device: json.device[i] / 1000 },
    total: { cpu: json.cpu[i] / 1000, device: json.device[i] / 1000 },
    paths: json.paths[i],
  }));
  nodes.forEach((node, i) => {
    node.outer = json.outer[i] < 0 ? whole : nodes[json.outer[i]];
    node.outer.inner.push(node);
  });
  // From the inside out. (What was left out of a path stands behind all paths, the rest behind what is around it.)
  const visit = (node) => {
    for (const inner of node.inner) {
      visit(inner);
      node.total.cpu += inner.total.cpu;
      node.total.device += inner.total.device;
    }
  };
  visit(whole);
  return { whole, nodes, left_out: json.left_out };
}
