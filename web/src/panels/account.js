// Work done for nothing, the host's operations, and what the profile itself saw, lost and cost.

import { fill, h } from "../dom.js";
import { count, percent, short, span, when } from "../format.js";
import { table } from "../panel.js";

export function waste(host, store, current) {
  const { json, steps } = current();
  const recomputed = steps.total("rtok", ...store.full).sum;
  const computed = steps.total("tok", ...store.full).sum;
  const padding = json.graphs ? json.graphs.outcomes.reduce((sum, row) => sum + row.padding, 0) : null;
  const busy = steps.total("total", ...store.full).sum;
  const each = computed > 0 ? busy / computed : 0;
  const rows = [
    { cause: "preempted, computed again", tokens: recomputed, tone: "preempted", about: `${count(current().preemptions.rows)} preemptions took ${count(json.requests.lost_tokens)} tokens`, flag: "--gpu-memory-utilization, --max-num-seqs" },
    { cause: "padding of CUDA graphs", tokens: padding, tone: "mixed", about: padding === null ? "no CUDA graphs in this session" : `${count(json.graphs.replays)} replays`, flag: "--compilation-config cudagraph_capture_sizes" },
    { cause: "rejected drafts", tokens: json.drafted ? json.drafted - json.accepted : null, tone: "stall", about: json.drafted ? `${count(json.drafted)} drafted, ${percent((100 * json.accepted) / json.drafted)} accepted` : "no speculative decoding in this session", flag: "--speculative-config" },
    { cause: "output of aborted requests", tokens: json.requests.aborted_tokens, tone: "queue", about: `${count(json.requests.finished.abort ?? 0)} aborted`, flag: "" },
  ];
  fill(
    host,
    table(
      [
        { name: "cause", value: (row) => row.cause, show: (row) => [h("i.dot", { style: { background: `var(--${row.tone})` } }), row.cause] },
        { name: "tokens", number: true, value: (row) => row.tokens ?? -1, show: (row) => (row.tokens === null ? "–" : count(row.tokens)) },
        { name: "of all computed", number: true, value: (row) => row.tokens ?? -1, show: (row) => (row.tokens === null || !computed ? "–" : percent((100 * row.tokens) / (computed + (padding ?? 0)), 2)) },
        { name: "about", number: true, value: (row) => row.tokens ?? -1, show: (row) => (row.tokens ? span(row.tokens * each) : "–"), title: "tokens by the mean time of a token of all steps: a rough measure" },
        { name: "from", value: (row) => row.about },
        { name: "what turns it", value: (row) => row.flag, show: (row) => (row.flag ? h("code", null, row.flag) : "") },
      ],
      rows,
      { sort: { by: 1, down: true } },
    ),
    h("p.quiet", null, `Of ${short(computed)} tokens that the steps computed.`),
  );
}

export function operations(host, store, current) {
  const rows = current().json.host;
  if (!rows.length) return fill(host, h("p.quiet", null, "The host's operations were not recorded."));
  fill(
    host,
    table(
      [
        { name: "operation", value: (row) => row.operation.replaceAll("_", " ") },
        { name: "count", number: true, value: (row) => row.count, show: (row) => count(row.count) },
        { name: "total", number: true, value: (row) => row.total_ms, show: (row) => [span(row.total_ms * 1000), h("i.cell-bar", { style: { width: `${(60 * row.total_ms) / Math.max(...rows.map((one) => one.total_ms))}px` } })] },
        ...["mean", "p50", "p99", "max"].map((name) => ({ name, number: true, value: (row) => row[`${name}_ms`], show: (row) => span(row[`${name}_ms`] * 1000) })),
      ],
      rows,
      { sort: { by: 2, down: true } },
    ),
  );
}

const pairs = (entries) => h("dl.facts", null, entries.filter((entry) => entry && entry[1] !== null && entry[1] !== undefined && entry[1] !== "").map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))));
const yes = (value) => (value === true ? "yes" : value === false ? "no" : value === null ? "" : String(value));

/** What ran: from metadata.json. */
export function about(host, store) {
  const { session, metadata } = store.data;
  fill(
    host,
    h(
      "div.columns",
      null,
      h(
        "div",
        null,
        h("h3", null, "Server"),
        pairs([
          ["model", session.model], ["started", session.start], ["duration", span(session.duration)], ["state", session.state], ["host", session.host],
          ["vLLM", session.vllm], ["torch", session.torch], ["Python", session.python], ["device", session.device], ["runner", metadata.runner],
          ["ProfileMate", session.profilemate], ["clock", session.clock],
        ]), // prettier-ignore
        h("h3", null, "Parallel"),
        pairs(Object.entries(metadata.parallel ?? {}).map(([name, value]) => [name.replaceAll("_", " "), yes(value)])),
      ),
      h("div", null, h("h3", null, "Engine configuration"), pairs(Object.entries(metadata.engine_config ?? {}).map(([name, value]) => [name, yes(value)]))),
    ),
    metadata.command ? [h("h3", null, "Command line"), h("pre", null, metadata.command)] : null,
    h("p.quiet", null, session.path),
  );
}

/** Hooks, losses, own cost: what to believe. */
export function profile(host, store) {
  const { sums, hooks, processes, notes } = store.data;
  const fired = hooks.filter((hook) => hook.fired > 0).length;
  const state = (hook) => (hook.fired ? "fired" : hook.patched ? "in place" : hook.missing ? "not in this vLLM" : "off");
  const tones = { fired: "good", "in place": "accent", "not in this vLLM": "dim", off: "dim" };
  fill(
    host,
    h(
      "dl.figures",
      null,
      [
        ["hooks that fired", `${count(fired)} of ${count(hooks.filter((hook) => hook.patched).length)} in place`],
        ["records", count(sums.records)],
        ["lost", count(sums.lost)],
        ["made room", count(sums.recycled)],
        ["damaged segments", count(sums.damaged)],
        ["faults", count(sums.faults)],
        ["own cost", `${span(sums.hook_ms * 1000)} in ${short(sums.hook_calls)} calls`],
        ["of the processes' time", sums.share_pct === null ? "–" : percent(sums.share_pct, 4)],
      ].map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))),
    ),
    h("h3", null, "Processes"),
    table(
      [
        { name: "process", value: (row) => row.role },
        { name: "engine", number: true, value: (row) => row.engine ?? -1, show: (row) => row.engine ?? "–" },
        { name: "rank", number: true, value: (row) => row.rank ?? -1, show: (row) => row.rank ?? "–" },
        { name: "pid", number: true, value: (row) => row.pid, show: (row) => String(row.pid) },
        { name: "ended", value: (row) => row.life },
        { name: "seen", number: true, value: (row) => row.from ?? 0, show: (row) => `${when(row.from ?? 0)} – ${row.to === null ? "?" : when(row.to)}` },
        { name: "records", number: true, value: (row) => row.records, show: (row) => count(row.records) },
        { name: "lost", number: true, value: (row) => row.lost, show: (row) => count(row.lost) },
        { name: "own cost", number: true, value: (row) => row.hook_ms, show: (row) => `${span(row.hook_ms * 1000)}${row.hook_pct === null ? "" : ` (${percent(row.hook_pct, 3)})`}` },
      ],
      processes,
    ),
    h("h3", null, "Hooks"),
    table(
      [
        { name: "hook", value: (row) => row.target, show: (row) => h("code", null, row.target) },
        { name: "state", value: (row) => state(row), show: (row) => [h("i.dot", { style: { background: `var(--${tones[state(row)]})` } }), state(row)] },
        { name: "first call", number: true, value: (row) => row.first ?? Infinity, show: (row) => (row.first === null ? "–" : when(row.first)) },
      ],
      hooks,
      { sort: { by: 2, down: false }, limit: 10 },
    ),
    notes.length ? [h("h3", null, "Notes"), h("ul.notes", null, notes.slice(0, 100).map((note) => h("li", null, note)))] : null,
  );
}
