// Sampling: what the requests of each batch ask for over time, what each setting costs, and what cannot be told.

import { fill, h } from "../dom.js";
import { count, digits, ms, percent, span } from "../format.js";
import { figures, legend, table } from "../panel.js";
import { timePlot } from "../plot.js";
import { colour, fade } from "../theme.js";

const TONES = {
  greedy: "queue", temperature: "decode", top_p: "sample", top_k: "pre", min_p: "stall", seed: "mixed", penalties: "prefill", logprobs: "model",
  prompt_logprobs: "cached", structured_output: "evicted", token_rules: "other", spec_verification: "sched", unknown: "post",
}; // prettier-ignore
const tone = (name) => TONES[name] ?? "other";
const LANE = 31; // pixels of a setting: its name, and its share below
const BAR = 14;

/** The settings that were used in this session, as the reports name them. */
const used = (engine) => [...Object.keys(engine.json.sampling.settings), "unknown"].filter((name) => engine.sampling?.has(name) && total(engine, name) > 0);
const total = (engine, name) => engine.sampling.total(name, -Infinity, Infinity).sum;

/** A lane for each setting: the share of the batch's requests that ask for it. */
function mix(host, store, current) {
  const names = used(current());
  const share = (from, to, most, name) => {
    const { sampling } = current();
    const all = sampling.points("req", from, to, most);
    const some = sampling.has(name) ? sampling.points(name, from, to, most).sum : all.sum.map(() => 0);
    return { x: all.x, y: all.sum.map((n, i) => (n > 0 ? (100 * some[i]) / n : null)), width: all.width / 1e6 };
  };
  const parts = (u) => Math.max(60, Math.min(1600, Math.floor(u.bbox.width / 1.5)));
  const lanes = (ctx, u, ratio) => {
    const { sampling } = current();
    const whole = sampling.total("req", ...store.view).sum;
    ctx.font = `${11.5 * ratio}px system-ui, sans-serif`;
    ctx.textBaseline = "alphabetic";
    ctx.textAlign = "left";
    names.forEach((name, k) => {
      const top = u.bbox.top + k * LANE * ratio;
      const bottom = top + (LANE - 3) * ratio;
      const { x, y, width } = share(...store.view, parts(u), name);
      const steps = x.slice(1).map((at, i) => at - x[i]).sort((a, b) => a - b); // prettier-ignore
      const most = width || 4 * (steps[steps.length >> 1] ?? 0); // a pause is left empty
      ctx.fillStyle = fade(colour.grid, 1);
      ctx.fillRect(u.bbox.left, bottom - BAR * ratio, u.bbox.width, BAR * ratio);
      ctx.fillStyle = fade(colour[tone(name)], 0.85);
      y.forEach((value, i) => {
        if (!value) return;
        const from = u.valToPos(x[i] - width / 2, "x", true);
        const to = u.valToPos(width ? x[i] + width / 2 : Math.min(x[i + 1] ?? x[i] + most, x[i] + most), "x", true);
        const tall = Math.max(ratio, (value / 100) * BAR * ratio);
        ctx.fillRect(from, bottom - tall, Math.max(ratio, to - from), tall);
      });
      const some = sampling.has(name) ? sampling.total(name, ...store.view).sum : 0;
      ctx.fillStyle = colour.ink;
      ctx.fillText(name, u.bbox.left + 2 * ratio, bottom - (BAR + 4) * ratio);
      const wide = ctx.measureText(`${name}  `).width;
      ctx.fillStyle = colour.dim;
      ctx.fillText(whole ? `${percent((100 * some) / whole)} of requests` : "", u.bbox.left + 2 * ratio + wide, bottom - (BAR + 4) * ratio);
    });
  };
  timePlot(host, store, {
    height: names.length * LANE + 34,
    format: () => "",
    top: () => 100,
    series: names.map((name) => ({ name, colour: tone(name), kind: "told", format: (value) => percent(value) })).reverse(),
    fetch: (from, to, most) => {
      const all = names.map((name) => share(from, to, most, name)).reverse();
      return [all[0]?.x ?? [], ...all.map((one) => one.y)];
    },
    marks: lanes,
  });
}

const WHY = {
  "in every step": "in every step: there is nothing to hold it against",
  "not matched": "never in batches alike in all the rest",
  "too few steps": "too few steps alike in all the rest",
};

const low = (row) => row.cost_ms_per_step - row.error_ms;
const high = (row) => row.cost_ms_per_step + row.error_ms;
const known = (row) => row.cost_ms_per_step !== null && row.cost_ms_per_step !== undefined;
const signed = (value) => `${value < 0 ? "−" : "+"}${ms(Math.abs(value))}`;
const range = (row) => `${signed(low(row))} to ${signed(high(row))}`;

/** A cost as a mark with its interval, all rows on one scale that has 0 in it. */
function interval(row, rows) {
  if (!known(row)) return h("span.dim", null, WHY[row.cost] ?? row.cost ?? "");
  const from = Math.min(0, ...rows.filter(known).map(low));
  const to = Math.max(1e-9, ...rows.filter(known).map(high));
  const at = (value) => `${(100 * (value - from)) / (to - from)}%`;
  const sure = row.cost === "told";
  return h(
    `div.interval${sure ? "" : ".unsure"}`,
    { title: `${range(row)} with 95 % certainty` },
    h("i.zero", { style: { left: at(0) } }),
    h("i.reach", { style: { left: at(low(row)), width: `${(100 * (high(row) - low(row))) / (to - from)}%`, background: `var(--${tone(row.name)})` } }),
    h("i.mark", { style: { left: at(row.cost_ms_per_step), background: `var(--${tone(row.name)})` } }),
  );
}

function costs(rows) {
  return table(
    [
      { name: "setting", value: (row) => row.name, show: (row) => [h("span.whole", null, h("i.dot", { style: { background: `var(--${tone(row.name)})` } }), row.name), row.together_with?.length ? h("div.dim.with", null, `as one with ${row.together_with.join(", ")}`) : null] },
      { name: "steps", number: true, title: "steps with such a request in their batch", value: (row) => row.steps, show: (row) => percent(row.steps_pct) },
      { name: "requests", number: true, title: "requests that ask for it, of those of all steps", value: (row) => row.request_steps, show: (row) => percent(row.request_steps_pct) },
      { name: "adds to a step", number: true, value: (row) => (known(row) ? row.cost_ms_per_step : -1e9), show: (row) => (known(row) ? [signed(row.cost_ms_per_step), row.cost === "told" ? null : h("span.dim", { title: "the interval has 0 in it" }, " ?")] : "–") },
      { name: "95 % interval", number: true, value: (row) => (known(row) ? low(row) : -1e9), show: (row) => (known(row) ? range(row) : "–") },
      { name: "", value: (row) => row.cost, show: (row) => interval(row, rows) },
      { name: "steps held against each other", number: true, title: "with it, and without it, alike in all the rest and of the same size", value: (row) => row.matched_with, show: (row) => (row.matched_with ? `${count(row.matched_with)} | ${count(row.matched_without)}` : "–") },
    ],
    rows,
    { sort: { by: 3, down: true }, empty: "no setting was used" },
  );
}

const CLOCKS = {
  wall: "Host clock, from the beginning of sample_tokens to the tokens.",
  events: "By the device's events.",
  launch: "Host clock, on a device without events: the times are those of the launches, not the device's.",
  mixed: "By the device's events where there were any, else by the host's clock.",
};

export function sampling(host, store, current) {
  const { sampling: all } = current().json;
  if (!all) return fill(host, h("p.quiet", null, "No step sampled, or sampling was not recorded: VLLM_PROFILING_ENABLE_SAMPLING_TIMING=1 does."));
  const settings = Object.entries(all.settings).map(([name, row]) => ({ name, ...row })).filter((row) => row.steps > 0); // prettier-ignore
  const first = (row) => !row.together_with?.some((name) => Object.keys(all.settings).indexOf(name) < Object.keys(all.settings).indexOf(row.name));
  const rows = settings.filter((row) => row.name !== "greedy" && first(row));
  const sure = rows.filter((row) => row.cost === "told").sort((a, b) => b.cost_ms_per_step - a.cost_ms_per_step);
  const same = rows.filter((row) => row.cost === "no difference seen");
  const untold = rows.filter((row) => WHY[row.cost]).map((row) => row.name);
  const strategies = Object.entries(all.strategies).map(([name, row]) => ({ name, ...row }));
  const lanes = h("div");
  const took = h("div");
  const masks = all.grammar_bitmasks;
  fill(
    host,
    figures(
      ["steps", count(all.steps)],
      ["sampling a step", ms(all.mean_ms)],
      ["in all", ms(all.total_ms)],
      all.share_of_step_pct === null ? null : ["of these steps' time", h(all.share_of_step_pct > 15 ? "b.bad" : "span", null, percent(all.share_of_step_pct))],
      sure.length && sure[0].cost_ms_per_step > 0 ? ["dearest setting", `${sure[0].name} (${signed(sure[0].cost_ms_per_step)})`] : null,
      masks?.count ? ["masks of grammars, by the engine", `${count(masks.count)} in ${ms(masks.engine_total_ms)}`] : null,
    ),
    h("h3", null, "What the requests of a batch ask for"),
    lanes,
    h("h3", null, "Sampling a step", h("span.aside", null, legend(["mean", "sample", "line"], ["most", "sample", "fade"]))),
    took,
    h("h3", null, "What a setting adds to a step"),
    costs(rows),
    h(
      "p.quiet",
      null,
      "Steps with it beside steps without it of the same size and alike in all the rest. ",
      same.length ? "“?”: no difference that these steps could show. " : "",
      untold.length ? `What cannot be told from these steps: ${untold.join(", ")}. Requests that differ in one setting alone would tell. ` : "",
      CLOCKS[all.clock] ?? "",
    ),
    h("h3", null, "By strategy of the batch"),
    table(
      [
        { name: "strategy", value: (row) => row.name, show: (row) => row.name.replaceAll("+", " + ") },
        { name: "steps", number: true, value: (row) => row.steps, show: (row) => count(row.steps) },
        { name: "requests a step", number: true, value: (row) => row.mean_batch_size ?? 0, show: (row) => digits(row.mean_batch_size ?? 0) },
        { name: "mean", number: true, value: (row) => row.mean_ms ?? -1, show: (row) => ms(row.mean_ms) },
        { name: "p95", number: true, value: (row) => row.p95_ms ?? -1, show: (row) => ms(row.p95_ms) },
        { name: "p99", number: true, value: (row) => row.p99_ms ?? -1, show: (row) => ms(row.p99_ms) },
        { name: "of all sampling", number: true, value: (row) => row.share_pct ?? 0, show: (row) => percent(row.share_pct) },
      ],
      strategies,
      { sort: { by: 6, down: true }, limit: 8 },
    ),
  );
  if (!current().sampling) return;
  mix(lanes, store, current);
  timePlot(took, store, {
    height: 120,
    format: (value) => span(value),
    series: [
      { name: "most", colour: "sample", kind: "band", format: (v) => span(v) },
      { name: "mean", colour: "sample", kind: "line", format: (v) => span(v) },
    ],
    fetch: (from, to, most) => {
      const points = current().sampling.points("took", from, to, most);
      return [points.x, points.max, points.mean];
    },
  });
}
