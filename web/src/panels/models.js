// What the model did: CUDA graphs, experts, encoder and decoder.

import { canvasIn, fill, h } from "../dom.js";
import { count, digits, percent, short, span } from "../format.js";
import { shareBar, table } from "../panel.js";
import { colour } from "../theme.js";
import { hideTip, showTip } from "../tip.js";

export function graphs(host, store, current) {
  const { graphs: all } = current().json;
  if (!all) {
    const mode = store.data.metadata?.engine_config?.cudagraph_mode;
    return fill(host, h("p.quiet", null, mode === "NONE" || store.data.session.device === "cpu" ? "This server ran without CUDA graphs." : "No CUDA graph was seen."));
  }
  const steps = all.outcomes.filter((row) => row.outcome !== "aside").reduce((sum, row) => sum + row.steps, 0);
  const replayed = all.outcomes.filter((row) => row.replayed).reduce((sum, row) => sum + row.steps, 0);
  const padding = all.outcomes.reduce((sum, row) => sum + row.padding, 0);
  const computed = all.outcomes.reduce((sum, row) => sum + row.tokens, 0);
  const tones = ["decode", "model", "mixed", "accent", "bad", "warn", "stall", "queue", "preempted", "evicted", "limit"];
  const parts = all.outcomes.map((row, i) => ({ name: row.outcome, value: row.outcome === "aside" ? 0 : row.steps, tone: row.replayed ? tones[i % 3] : tones[3 + (i % 8)], text: count(row.steps) }));
  fill(
    host,
    h(
      "dl.figures",
      null,
      [
        ["graphs", count(all.graphs)],
        ["captures", `${count(all.captures)} in ${span(all.capture_ms * 1000)}`],
        ["replays", count(all.replays)],
        ["steps from a graph", steps ? percent((100 * replayed) / steps) : "–"],
        ["padding", computed + padding ? `${count(padding)} tokens, ${percent((100 * padding) / (computed + padding))}` : "0"],
        ["captured while serving", count(all.captures_at_runtime)],
      ].map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))),
    ),
    steps ? shareBar(parts, steps) : null,
    h("h3", null, "How the steps ran"),
    table(
      [
        { name: "how", value: (row) => row.outcome, show: (row) => [h("i.dot", { style: { background: `var(--${parts[all.outcomes.indexOf(row)].tone})` } }), row.outcome.replaceAll("_", " ")] },
        { name: "what that means", value: (row) => row.sentence },
        { name: "steps", number: true, value: (row) => row.steps, show: (row) => count(row.steps) },
        { name: "share", number: true, value: (row) => row.steps, show: (row) => (row.outcome === "aside" ? "–" : percent((100 * row.steps) / steps)) },
        { name: "tokens", number: true, value: (row) => row.tokens, show: (row) => count(row.tokens) },
        { name: "padding", number: true, value: (row) => row.padding, show: (row) => count(row.padding) },
      ],
      all.outcomes,
      { sort: { by: 2, down: true } },
    ),
    h("h3", null, "Graphs, most replayed first"),
    table(
      [
        { name: "descriptor", value: (row) => row.num_tokens, show: (row) => h("code", null, row.descriptor), title: "mode | tokens | requests | uniform | LoRA" },
        { name: "replays", number: true, value: (row) => row.replays, show: (row) => count(row.replays) },
        { name: "share", number: true, value: (row) => row.replays, show: (row) => [percent((100 * row.replays) / (all.replays || 1)), h("i.cell-bar", { style: { width: `${(60 * row.replays) / (all.rows[0]?.replays || 1)}px` } })] },
        { name: "padding", number: true, value: (row) => row.padding ?? -1, show: (row) => (row.padding === undefined ? "–" : `${count(row.padding)} (${percent((100 * row.padding) / (row.padding + row.tokens || 1))})`) },
        { name: "mean", number: true, value: (row) => row.mean_ms ?? -1, show: (row) => (row.mean_ms ? span(row.mean_ms * 1000) : "–"), title: "host time from the first piece's replay to the last one's end" },
        { name: "captured in", number: true, value: (row) => row.capture_ms ?? -1, show: (row) => (row.capture_ms === null ? "–" : span(row.capture_ms * 1000)) },
        { name: "pieces", number: true, value: (row) => row.pieces, show: (row) => count(row.pieces) },
      ],
      all.rows,
      { sort: { by: 1, down: true }, limit: 12, empty: "no graph was captured" },
    ),
  );
}

/** From few (blue) over even (the panel) to many (red). */
function heat(ratio, dark) {
  if (ratio === 0) return null;
  const way = Math.max(-1, Math.min(1, Math.log2(ratio) / 2));
  const even = dark ? [48, 54, 61] : [236, 239, 243];
  const end = way > 0 ? (dark ? [255, 106, 84] : [207, 34, 46]) : dark ? [88, 166, 255] : [9, 105, 218];
  const size = Math.abs(way);
  return `rgb(${even.map((value, i) => Math.round(value + (end[i] - value) * size)).join(",")})`;
}

export function moe(host, store, current) {
  const { moe: all } = current().json;
  if (!all) return fill(host, h("p.quiet", null, "This model has no experts."));
  const layers = all.layers.filter((layer) => layer.n.length);
  const seen = layers.filter((layer) => layer.selections > 0);
  if (!seen.length) return fill(host, h("p.quiet", null, all.reason ?? "No selection was seen: no request has run, or they cannot be observed here."));
  const experts = Math.max(...layers.map((layer) => layer.n.length));
  const place = h("div.canvas-host");
  const rank = (layer) => layer.n.map((n, i) => [n, i]).sort((a, b) => b[0] - a[0]);
  const LEFT = 64;
  let hovered = null;
  const sizeOf = (width) => {
    const wide = Math.min(64, (width - LEFT - 170) / experts);
    return { wide, tall: Math.max(5, Math.min(22, 560 / layers.length)) };
  };
  const dead = seen.reduce((sum, layer) => sum + layer.n.filter((n) => n === 0).length, 0);
  const worst = seen.slice().sort((a, b) => a.load_balance_ratio - b.load_balance_ratio)[0];
  fill(
    host,
    h(
      "dl.figures",
      null,
      [
        ["layers", `${count(layers.length)} of ${count(experts)} experts`],
        ["selections", short(all.selections)],
        ["least even layer", `${worst.layer}: busiest expert ${digits(worst.max / worst.mean)} × the mean`],
        ["experts never chosen", count(dead)],
      ].map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))),
    ),
    h("div.heat-key", null, h("span", null, "¼ of an even share"), h("canvas", { width: "160", height: "10" }), h("span", null, "4 ×"), h("i.swatch.dead"), h("span", null, "never chosen")),
    place,
  );
  const key = host.querySelector(".heat-key canvas");
  const view = canvasIn(place, () => layers.length * sizeOf(place.clientWidth).tall + 26, (ctx, width) => {
    const { wide, tall } = sizeOf(width);
    const dark = document.documentElement.dataset.theme === "dark";
    ctx.font = "11px system-ui, sans-serif";
    ctx.textBaseline = "middle";
    layers.forEach((layer, i) => {
      const y = 18 + i * tall;
      const even = layer.selections / layer.n.length;
      if (tall >= 10 || i % Math.ceil(11 / tall) === 0) {
        ctx.fillStyle = colour.dim;
        ctx.textAlign = "right";
        ctx.fillText(`layer ${layer.layer}`, LEFT - 8, y + tall / 2);
        ctx.textAlign = "left";
      }
      layer.n.forEach((n, e) => {
        const fillWith = even > 0 ? heat(n / even, dark) : null;
        const gap = wide > 4 ? 1 : 0;
        ctx.fillStyle = fillWith ?? (dark ? "#0b0d11" : "#fff");
        ctx.fillRect(LEFT + e * wide, y, wide - gap, tall - (tall > 7 ? 1 : 0));
        if (!fillWith) {
          ctx.strokeStyle = colour.bad;
          ctx.lineWidth = 1;
          ctx.strokeRect(LEFT + e * wide + 0.5, y + 0.5, wide - gap - 1, tall - 2);
        }
      });
      if (hovered && hovered.layer === i) {
        ctx.strokeStyle = colour.ink;
        ctx.lineWidth = 1.5;
        ctx.strokeRect(LEFT + hovered.expert * wide - 0.5, y - 0.5, wide, tall);
      }
      // How even the layer is, as a bar: all of it is perfectly even.
      const start = LEFT + experts * wide + 14;
      ctx.fillStyle = colour.idle;
      ctx.fillRect(start, y + tall * 0.2, 90, Math.max(2, tall * 0.6));
      ctx.fillStyle = layer.load_balance_ratio < 0.5 ? colour.warn : colour.good;
      ctx.fillRect(start, y + tall * 0.2, 90 * (layer.load_balance_ratio ?? 0), Math.max(2, tall * 0.6));
      if (tall >= 10) {
        ctx.fillStyle = colour.dim;
        ctx.fillText(layer.load_balance_ratio === null ? "–" : layer.load_balance_ratio.toFixed(2), start + 96, y + tall / 2);
      }
    });
    ctx.fillStyle = colour.dim;
    const every = Math.max(1, Math.ceil(30 / wide));
    for (let e = 0; e < experts; e += every) ctx.fillText(String(e), LEFT + e * wide, 8);
    ctx.fillText("balance (mean / busiest)", LEFT + experts * wide + 14, 8);
    const bar = key.getContext("2d");
    for (let p = 0; p < 160; p++) {
      bar.fillStyle = heat(2 ** ((p / 160) * 4 - 2), dark);
      bar.fillRect(p, 0, 1, 10);
    }
  });
  place.addEventListener("pointermove", (event) => {
    const box = place.getBoundingClientRect();
    const { wide, tall } = sizeOf(box.width);
    const at = { layer: Math.floor((event.clientY - box.top - 18) / tall), expert: Math.floor((event.clientX - box.left - LEFT) / wide) };
    const layer = layers[at.layer];
    if (!layer || at.expert < 0 || at.expert >= layer.n.length) {
      hovered = null;
      hideTip();
    } else {
      hovered = at;
      const n = layer.n[at.expert];
      showTip(event, `layer ${layer.layer}, expert ${at.expert}`, [
        ["selections", count(n)],
        ["share", percent((100 * n) / (layer.selections || 1), 2)],
        ["against an even share", `${digits((n * layer.n.length) / (layer.selections || 1))} ×`],
        ["place", `${rank(layer).findIndex((one) => one[1] === at.expert) + 1} of ${layer.n.length}`],
        ["the layer", `top ${layer.top_k}, balance ${layer.load_balance_ratio?.toFixed(3) ?? "–"}, ${percent(layer.coverage_pct, 0)} of its experts chosen`],
      ]);
    }
    view.later();
  });
  place.addEventListener("pointerleave", () => {
    hovered = null;
    hideTip();
    view.later();
  });
  store.on("theme", view.later);
  store.on("print", view.paint);
  view.later();
}

export function encoder(host, store, current) {
  const { encoder: all } = current().json;
  if (!all) return fill(host, h("p.quiet", null, "This model has no encoder that was seen at work: it is a decoder alone."));
  const tones = { encoder: "prefill", decoder: "decode", cross_attention: "mixed" };
  const parts = all.components.map((row) => ({ name: row.name, value: row.total_ms ?? 0, tone: tones[row.name], text: span((row.total_ms ?? 0) * 1000) }));
  const whole = parts.filter((part) => part.name !== "cross_attention").reduce((sum, part) => sum + part.value, 0) || 1;
  fill(
    host,
    shareBar(parts.filter((part) => part.name !== "cross_attention")),
    table(
      [
        { name: "component", value: (row) => row.name, show: (row) => [h("i.dot", { style: { background: `var(--${tones[row.name]})` } }), row.name.replace("_", "-")] },
        { name: "steps", number: true, value: (row) => row.count, show: (row) => count(row.count) },
        { name: "total", number: true, value: (row) => row.total_ms ?? 0, show: (row) => span((row.total_ms ?? 0) * 1000) },
        { name: "share", number: true, value: (row) => row.total_ms ?? 0, show: (row) => percent((100 * (row.total_ms ?? 0)) / whole) },
        ...["mean", "p50", "p99", "max"].map((name) => ({ name, number: true, value: (row) => row[`${name}_ms`] ?? -1, show: (row) => (row[`${name}_ms`] === null ? "–" : span(row[`${name}_ms`] * 1000)) })),
      ],
      all.components,
    ),
    h("p.quiet", null, `${all.model_type.replaceAll("_", " ")}; ${count(all.items)} inputs encoded. Cross-attention is a part of the decoder's time.${all.device ? " Encoder and cross-attention times are those of launches." : ""}`),
  );
}
