// What somebody could act on, worst first. Takes the array that `profilemate explain --json` prints.

import { fill, h } from "../dom.js";
import { percent, short, span } from "../format.js";

const TONES = { high: "bad", medium: "warn", low: "accent", info: "dim" };

function cost(finding) {
  const parts = [];
  if (finding.cost_sec !== null && finding.cost_sec !== undefined) parts.push(`${span(finding.cost_sec * 1e6)} of ${finding.cost_of || "time"}`);
  if (finding.cost_tokens !== null && finding.cost_tokens !== undefined) parts.push(`${short(finding.cost_tokens)} tokens`);
  if (finding.share_pct !== null && finding.share_pct !== undefined) parts.push(percent(finding.share_pct));
  return parts.join(" · ");
}

export function findings(host, store, { pick, findRequest }) {
  const list = store.data.findings;
  if (!list) {
    host.append(h("p.quiet", null, "Findings were not computed for this report."));
    return [];
  }
  if (!list.length) {
    host.append(h("p.quiet", null, h("i.dot", { style: { background: "var(--good)" } }), "Nothing to say: every rule that could look found nothing worth changing."));
    return [];
  }
  const cards = list.map((finding, i) => {
    const from = finding.from_sec;
    const to = finding.to_sec;
    const timed = from !== null && from !== undefined && to > from;
    const go = () => {
      if (Number.isInteger(finding.engine) && finding.engine >= 0) pick(finding.engine, finding.rank);
      if (timed) store.setView(from * 1e6, to * 1e6);
    };
    return h(
      "article.finding",
      { tabindex: "0", id: `finding-${i}`, style: { "--tone": `var(--${TONES[finding.severity] ?? "dim"})` }, onkeydown: (event) => event.key === "Enter" && event.target === event.currentTarget && go() },
      h("div.finding-head", null, h("span.badge", null, finding.severity), h("h3", null, finding.title), h("span.cost", null, cost(finding))),
      h(
        "details",
        { open: i < 2 },
        h("summary", null, store.data.engines.length > 1 && Number.isInteger(finding.engine) ? `engine ${finding.engine} · ` : "", finding.area ? `${finding.area} · ` : "", finding.sure ?? "", finding.confidence !== undefined ? ` (${percent(100 * finding.confidence, 0)})` : ""),
        h("ul", null, (finding.evidence ?? []).map((line) => h("li", null, line))),
        finding.advice ? h("p.advice", null, finding.advice) : null,
        h(
          "div.changes",
          null,
          (finding.changes ?? []).map((change) =>
            h("span.change", null, h("i.way", null, { raise: "↑", lower: "↓", set: "→", unset: "×" }[change.direction] ?? "→"), h("code", null, change.flag, change.value ? ` ${change.value}` : ""), change.now ? h("span.dim", null, `now ${change.now}`) : null),
          ),
        ),
        h(
          "div.finding-go",
          null,
          timed ? h("button.small", { onclick: go }, `Show ${span((to - from) * 1e6)}`) : null,
          (finding.request_ids ?? []).slice(0, 4).map((id) => h("button.small.mono", { onclick: () => findRequest(id), title: `find request ${id}` }, id.length > 24 ? `${id.slice(0, 22)}…` : id)),
        ),
      ),
    );
  });
  fill(host, h("div.findings", null, cards));
  return cards;
}
