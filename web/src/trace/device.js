// What the devices did: busy, idle and why, kernels by class; and what to look into.

import { fill, h } from "../dom.js";
import { count, percent, span } from "../format.js";
import { shareBar } from "../panel.js";

/** As docs/TRACE_ANALYSIS.md names them. */
const REASONS = [
  ["host", "nothing launched yet", "warn"],
  ["sync", "CPU in a synchronising call", "bad"],
  ["launch", "just launched, on its way", "pre"],
  ["kernel", "between kernels", "post"],
  ["wait", "waited for others", "sched"],
  ["unknown", "launch not in the trace", "other"],
];

const key = (parts, whole) =>
  h(
    "ul.split-list.wide",
    null,
    parts.map((part) => h("li", null, h("i.dot", { style: { background: `var(--${part.tone})` } }), h("span", null, part.name), h("b", null, percent((100 * part.value) / (whole || 1))), h("span.dim", null, part.text))),
  );

export function busy(host, store, current) {
  const draw = () => {
    const { devices } = current().figures;
    if (!devices.length) return fill(host, h("p.quiet", null, "Nothing ran on a device while this was traced."));
    fill(
      host,
      devices.map((device, place) => {
        const timed = (name, value, tone) => ({ name, value, tone, text: span(value) });
        const parts = [
          timed("kernels", device.compute_us, "good"),
          timed("collectives alone", device.exposed_collective_us, "preempted"),
          timed("copies alone", device.busy_us - device.kernel_us, "stall"),
          ...REASONS.map(([id, words, tone]) => timed(`idle: ${words}`, device.idle[id].us, tone)),
        ].filter((part) => part.value > 0.0005);
        const gap = current().drawing?.gaps[place] ?? -1;
        const show = () => {
          const at = current().offset + gap / 1000;
          store.setView(at - device.longest_gap_us * 0.2, at + device.longest_gap_us * 1.2);
          document.getElementById("timeline").scrollIntoView({ block: "start" });
        };
        return h(
          "div.split",
          null,
          h("h3", null, `GPU ${device.id}: busy ${percent((100 * device.busy_us) / (device.span_us || 1))} of ${span(device.span_us)}`),
          shareBar(parts, device.span_us),
          key(parts, device.span_us),
          device.longest_gap_us > 0 ? h("p.quiet", null, `Longest gap: ${span(device.longest_gap_us)}. `, gap >= 0 ? h("button.small", { onclick: show }, "Show it") : null) : null,
        );
      }),
    );
  };
  store.on("engine", draw);
  draw();
}

export function classes(host, store, trace, current) {
  const draw = () => {
    const { classes: all, launches, synchronising_calls: waits, graph_replays: replays } = current().figures;
    const parts = Object.entries(all)
      .map(([name, { calls, us }]) => ({ name, value: us, calls, tone: trace.classTone(name), text: `${span(us)}, ${count(calls)} calls` }))
      .sort((a, b) => b.value - a.value);
    if (!parts.length) return fill(host, h("p.quiet", null, "No kernel is in this trace."));
    const whole = parts.reduce((sum, part) => sum + part.value, 0);
    const figure = (name, value, title) => h("div", { title }, h("dt", null, name), h("dd", null, value));
    fill(
      host,
      h("h3", null, `kernels and copies by class, ${span(whole)} in all`),
      shareBar(parts, whole),
      key(parts, whole),
      h(
        "dl.figures.launches",
        null,
        figure("launch calls", `${count(launches.calls)}, ${span(launches.call_us)}`),
        figure("launched by them", count(launches.works)),
        figure("shorter than their launch", count(launches.shorter_than_call), "kernels that ran shorter than the call that launched them"),
        figure("from call to start p50", launches.calls ? span(launches.delay_p50_us) : "–"),
        figure("synchronising calls", `${count(waits.calls)}, ${span(waits.us)}`),
        replays.length ? figure("graph replays", count(replays.reduce((sum, one) => sum + one.replays, 0))) : null,
      ),
    );
  };
  store.on("engine", draw);
  draw();
}

export function found(host, trace) {
  const { findings } = trace.figures;
  if (!findings.length) return fill(host, h("p.quiet", null, "Nothing stands out."));
  fill(
    host,
    h(
      "div.findings",
      null,
      findings.map((one) =>
        h(
          "article.finding",
          { id: `finding-${one.id}`, style: { "--tone": `var(--${one.share_pct >= 20 ? "bad" : one.share_pct >= 5 ? "warn" : "queue"})` } },
          h("div.finding-head", null, h("h3", null, one.title), h("span.cost", null, percent(one.share_pct))),
          h("p", null, one.evidence),
          h("p.advice.dim", null, one.remedy),
        ),
      ),
    ),
  );
}
