// What the machine did: the device and its waiting, memory, the exchange between ranks, and the layers of the model.

import { fill, h } from "../dom.js";
import { bytes, count, ms, percent, span } from "../format.js";
import { figures, shareBar, table } from "../panel.js";
import { timePlot } from "../plot.js";

export function device(host, store, current) {
  const { device: all } = current().json;
  if (!all) return fill(host, h("p.quiet", null, "No times by a device's events: there is no device, or they were off."));
  const means = [
    ["waiting", "wait_ms", "idle", "from the end of a step to the next model's start while requests were there: for the host, and for copies of inputs"],
    ["model", "model_ms", "model", "the forward pass"],
    ["after", "after_ms", "post", "model end to the start of sampling: logits"],
    ["sampling", "sample_ms", "sample", "logits to tokens, and drafts"],
  ];
  const whole = means.reduce((sum, [, key]) => sum + (all[key] ?? 0), 0) || 1;
  const share = (100 * (all.wait_ms ?? 0)) / whole;
  fill(
    host,
    figures(
      ["steps with events", count(all.steps)],
      ["waiting for the host", h(share > 20 ? "b.bad" : "span", null, percent(share))],
      ["waiting, in all", ms(all.wait_total_ms)],
      ["without requests", ms(all.without_work_ms)],
      ["the host's launch", ms(all.launch_ms)],
    ),
    shareBar(means.map(([name, key, tone]) => ({ name, value: all[key] ?? 0, tone, text: ms(all[key]) }))),
    table(
      [
        { name: "the device", value: (row) => row[0], show: (row) => [h("i.dot", { style: { background: `var(--${row[2]})` } }), row[0]] },
        { name: "mean", number: true, value: (row) => all[row[1]] ?? 0, show: (row) => ms(all[row[1]]) },
        { name: "share", number: true, value: (row) => all[row[1]] ?? 0, show: (row) => percent((100 * (all[row[1]] ?? 0)) / whole) },
        { name: "what that is", value: (row) => row[3] },
      ],
      means,
    ),
  );
}

export function memory(host, store, current) {
  const { memory: all } = current().json;
  if (!all) return fill(host, h("p.quiet", null, "No memory was recorded."));
  const onDevice = all.source === "torch";
  const phases = Object.entries(all.phases).map(([name, phase]) => ({ name: name.replaceAll("_", " "), ...phase }));
  const place = h("div");
  fill(
    host,
    figures(
      ["allocated", bytes(all.allocated_bytes)],
      onDevice ? ["reserved", bytes(all.reserved_bytes)] : null,
      ["peak", bytes(all.peak_allocated_bytes)],
      all.serving_max_bytes === null ? null : ["while serving", `${bytes(all.serving_min_bytes)} to ${bytes(all.serving_max_bytes)}`],
      onDevice ? ["not used of reserved", percent(all.fragmentation_pct, 2)] : null,
    ),
    place,
    table(
      [
        { name: "phase of the start", value: (row) => row.name },
        { name: "before", number: true, value: (row) => row.before_bytes, show: (row) => bytes(row.before_bytes) },
        { name: "after", number: true, value: (row) => row.after_bytes, show: (row) => bytes(row.after_bytes) },
        { name: "more", number: true, value: (row) => row.after_bytes - row.before_bytes, show: (row) => bytes(row.after_bytes - row.before_bytes) },
        { name: "took", number: true, value: (row) => row.duration_sec, show: (row) => span(row.duration_sec * 1e6) },
      ],
      phases,
      { empty: "no phase of the start was seen" },
    ),
    h("p.quiet", null, onDevice ? "By torch's allocator: what NCCL, CUDA's context and graphs hold besides is not in it." : "Resident memory of the worker's process, by the kernel."),
  );
  if (current().memory)
    timePlot(place, store, {
      series: [
        ...(onDevice ? [{ name: "reserved", colour: "queue", kind: "line", format: bytes }] : []),
        { name: "allocated", colour: "decode", kind: "line", format: bytes },
      ],
      format: bytes,
      fetch: (from, to, most) => {
        const { memory: series } = current();
        const allocated = series.points("allocated", from, to, most);
        return onDevice ? [allocated.x, series.points("reserved", from, to, most).max, allocated.max] : [allocated.x, allocated.max];
      },
    });
}

export function collectives(host, store, current) {
  const { collectives: all } = current().json;
  if (!all) return fill(host, h("p.quiet", null, "The ranks exchanged nothing: there is one, or nothing was seen."));
  const rows = Object.entries(all.groups).flatMap(([group, operations]) => Object.entries(operations).map(([operation, row]) => ({ group, operation, ...row })));
  const rate = (row) => (row.total_ms > 0 ? row.bytes / (row.total_ms / 1000) : null);
  const tones = ["model", "decode", "sample", "pre", "post", "queue", "mixed", "other"];
  const clocks = { host: "Host clock: waiting for the other ranks is part of the time.", launch: "Host clock: the times are those of the launches, not the device's.", device: "By the device's events: waiting for the other ranks is part of the time." };
  fill(
    host,
    figures(
      ["calls", count(all.calls)],
      ["bytes of this rank", bytes(all.bytes)],
      ["time", ms(all.total_ms)],
      all.captured_calls ? ["in CUDA graphs", `${count(all.captured_calls)} calls, ${bytes(all.captured_bytes)}, not timed`] : null,
      ["between steps", `${count(all.outside_steps.calls)} calls, ${bytes(all.outside_steps.bytes)}`],
    ),
    shareBar(rows.map((row, i) => ({ name: `${row.group} ${row.operation}`, value: row.total_ms, tone: tones[i % tones.length], text: ms(row.total_ms) }))),
    table(
      [
        { name: "group", value: (row) => row.group, show: (row) => [h("i.dot", { style: { background: `var(--${tones[rows.indexOf(row) % tones.length]})` } }), row.group] },
        { name: "operation", value: (row) => row.operation.replaceAll("_", "-") },
        { name: "calls", number: true, value: (row) => row.calls, show: (row) => count(row.calls) },
        { name: "bytes", number: true, value: (row) => row.bytes, show: (row) => bytes(row.bytes) },
        { name: "total", number: true, value: (row) => row.total_ms, show: (row) => ms(row.total_ms) },
        { name: "mean a step", number: true, value: (row) => row.mean_ms ?? -1, show: (row) => ms(row.mean_ms) },
        { name: "p99", number: true, value: (row) => row.p99_ms ?? -1, show: (row) => ms(row.p99_ms) },
        { name: "max", number: true, value: (row) => row.max_ms ?? -1, show: (row) => ms(row.max_ms) },
        { name: "bytes a second", number: true, title: "bytes that this rank gave, over the time of the calls", value: (row) => rate(row) ?? -1, show: (row) => (all.clock === "launch" || rate(row) === null ? "–" : `${bytes(rate(row))}/s`) },
        { name: "in graphs", number: true, value: (row) => row.captured_calls, show: (row) => (row.captured_calls ? `${count(row.captured_calls)}, ${bytes(row.captured_bytes)}` : "–") },
      ],
      rows,
      { sort: { by: 4, down: true }, empty: "nothing in steps" },
    ),
    h("p.quiet", null, clocks[all.clock] ?? ""),
  );
}

const KINDS = { attention: "model", mlp: "decode", moe: "mixed", norm: "post", other: "idle" };

export function layers(host, store, current) {
  const { layers: all } = current().json;
  if (!all) return fill(host, h("p.quiet", null, "Layers were not timed: VLLM_PROFILING_ENABLE_LAYER_TIMING=1 does."));
  if (!all.passes) return fill(host, h("p.quiet", null, `No pass was timed${all.hooks ? ` (${all.hooks})` : ""}. A torch trace of some steps tells kernels by class: profilemate run --torch-profile, then profilemate trace.`));
  const kinds = Object.keys(KINDS).filter((kind) => all.kinds[kind]);
  const longest = Math.max(...all.layers.map((row) => row.total_ms), 1e-9);
  const phaseOf = (kind, phase) => all.phases[phase]?.kinds[kind]?.mean_per_pass_ms ?? null;
  const dot = (kind) => h("i.dot", { style: { background: `var(--${KINDS[kind]})` } });
  const clocks = { host: "host clock", launch: "host clock: the launches, not the device", device: "the device's events" };
  fill(
    host,
    figures(
      ["passes", count(all.passes)],
      ["model, in all", ms(all.forward_ms)],
      ["clock", clocks[all.clock] ?? all.clock],
      all.steps_not_seen ? ["replayed steps, not seen", count(all.steps_not_seen)] : null,
      all.passes_without_times ? ["passes without events", count(all.passes_without_times)] : null,
    ),
    shareBar(kinds.map((kind) => ({ name: kind, value: all.kinds[kind].total_ms, tone: KINDS[kind], text: ms(all.kinds[kind].total_ms) }))),
    table(
      [
        { name: "kind", value: (kind) => kind, show: (kind) => [dot(kind), kind] },
        { name: "calls", number: true, value: (kind) => all.kinds[kind].calls, show: (kind) => count(all.kinds[kind].calls) },
        { name: "total", number: true, value: (kind) => all.kinds[kind].total_ms, show: (kind) => ms(all.kinds[kind].total_ms) },
        { name: "share", number: true, value: (kind) => all.kinds[kind].share_pct, show: (kind) => percent(all.kinds[kind].share_pct) },
        { name: "a pass", number: true, value: (kind) => all.kinds[kind].mean_per_pass_ms, show: (kind) => ms(all.kinds[kind].mean_per_pass_ms) },
        ...["prefill", "decode"].map((phase) => ({ name: `a ${phase} pass`, number: true, value: (kind) => phaseOf(kind, phase) ?? -1, show: (kind) => ms(phaseOf(kind, phase)) })),
      ],
      kinds,
    ),
    h("h3", null, "By layer"),
    table(
      [
        { name: "layer", number: true, value: (row) => row.layer_idx ?? 1e9, show: (row) => row.layer_idx ?? "no layer" },
        { name: "total", number: true, value: (row) => row.total_ms, show: (row) => ms(row.total_ms) },
        { name: "share", number: true, value: (row) => row.share_pct, show: (row) => percent(row.share_pct) },
        {
          name: "of what",
          value: (row) => row.total_ms,
          show: (row) => h("div", { style: { width: `${(240 * row.total_ms) / longest}px`, "min-width": "2px" } }, shareBar(kinds.filter((kind) => row[`${kind}_ms`]).map((kind) => ({ name: kind, value: row[`${kind}_ms`], tone: KINDS[kind], text: ms(row[`${kind}_ms`]) })))),
        },
        ...kinds.map((kind) => ({ name: kind, number: true, value: (row) => row[`${kind}_ms`] ?? -1, show: (row) => ms(row[`${kind}_ms`]) })),
      ],
      all.layers,
      { limit: 16 },
    ),
    h("p.quiet", null, "By timers in the model's modules. “other” is what the rest leaves of a layer and of the model: embedding, residuals, the launches between."),
  );
}
