// The flame graph: call paths as wide as their time, the outermost on top. A click (or Enter) makes a path as wide as the
// panel, the arrows walk, what is searched stands out.

import { canvasIn, clip, fill, h } from "../dom.js";
import { count, percent, span } from "../format.js";
import { colour, fade } from "../theme.js";
import { hideTip, showTip } from "../tip.js";
import { KIND_WORDS } from "./data.js";

const ROW = 19;
const LEAST = 0.4; // pixels: narrower paths are not drawn

export function flamePanel(host, store, trace, current) {
  const state = { kind: "nesting", metric: "cpu", focus: null, chosen: null };
  const boxes = []; // as drawn: { node, x, width, depth }
  const bar = h("div.bar");
  const path = h("p.quiet.path");
  const place = h("div.canvas-host.flame", { tabindex: "0", role: "application", "aria-label": "flame graph: arrows walk, Enter zooms, Escape shows everything" });
  host.append(bar, path, place);

  const graph = () => current().flames[state.kind] ?? null;
  const whole = () => graph().whole;
  const value = (node) => node.total[state.metric];
  const title = (node) => (node.outer === null ? "all" : node.name < 0 ? `${count(node.paths)} smaller` : trace.name(node.name));
  const inner = (node) => node.inner.filter((one) => value(one) > 0).sort((a, b) => value(b) - value(a));
  const matches = (node) => store.search && node.name !== null && node.name >= 0 && title(node).toLowerCase().includes(store.search.toLowerCase());
  const line = (node) => (node.outer === null ? [node] : [...line(node.outer), node]);

  const tone = (node) => {
    if (node.outer === null) return colour.queue;
    if (node.name < 0) return colour.idle;
    const kind = trace.data.kinds[node.kind];
    if (kind === "kernel") return colour[trace.classTone(trace.classOf.get(title(node)) ?? "other")];
    return colour[trace.tone(trace.data.kinds_from + node.kind)];
  };

  const view = canvasIn(
    place,
    (width) => {
      boxes.length = 0;
      if (!graph() || !value(whole())) return 30;
      const focus = state.focus ?? whole();
      const above = line(focus);
      above.forEach((node, depth) => boxes.push({ node, x: 0, width, depth }));
      const put = (node, x, wide, depth) => {
        let at = x;
        for (const one of inner(node)) {
          const part = (value(one) / value(node)) * wide;
          if (part >= LEAST) {
            boxes.push({ node: one, x: at, width: part, depth });
            put(one, at, part, depth + 1);
          }
          at += part;
        }
      };
      put(focus, 0, width, above.length);
      return (Math.max(...boxes.map((box) => box.depth)) + 1) * ROW;
    },
    (ctx, width) => {
      ctx.font = "11.5px system-ui, sans-serif";
      ctx.textBaseline = "middle";
      if (!boxes.length) {
        ctx.fillStyle = colour.dim;
        ctx.fillText(state.metric === "device" ? "Nothing ran on a device." : "No time was spent.", 4, 15, width);
        return;
      }
      const focusDepth = state.focus ? line(state.focus).length - 1 : 0;
      for (const { node, x, width: wide, depth } of boxes) {
        const found = matches(node);
        const rank = store.search ? (found ? 0.95 : 0.14) : depth < focusDepth ? 0.25 : 0.42 + 0.2 * (((node.name ?? 0) * 7) % 5) * 0.25;
        ctx.fillStyle = fade(found ? colour.accent : tone(node), rank);
        ctx.fillRect(x, depth * ROW, Math.max(LEAST, wide - (wide > 3 ? 1 : 0)), ROW - 1);
        if (node === state.chosen) {
          ctx.strokeStyle = colour.ink;
          ctx.lineWidth = 1.5;
          ctx.strokeRect(x + 0.75, depth * ROW + 0.75, Math.max(1, wide - 2), ROW - 2.5);
        }
        if (wide < 26) continue;
        ctx.fillStyle = found ? colour.panel : colour.ink;
        ctx.fillText(clip(ctx, title(node), wide - 8), x + 4, depth * ROW + ROW / 2);
      }
    },
  );

  const share = (node) => percent((100 * value(node)) / value(whole()));
  const describe = () => {
    if (!graph()) {
      fill(path, "This file has no flame graph on the page: it is one of many.");
      return;
    }
    const found = [];
    const seek = (node) => {
      if (matches(node)) found.push(node); // what is inside it counts with it
      else node.inner.forEach(seek);
    };
    if (store.search) seek(whole());
    const left = graph().left_out;
    fill(
      path,
      store.search ? h("b.match", null, `“${store.search}”: ${span(found.reduce((sum, node) => sum + value(node), 0))}, ${percent((100 * found.reduce((sum, node) => sum + value(node), 0)) / (value(whole()) || 1))} `) : null,
      state.focus ? [h("button.plain.more", { onclick: () => zoom(null) }, "all"), ...line(state.focus).slice(1).map((node) => [" › ", h("button.plain.more", { onclick: () => zoom(node) }, title(node).slice(0, 60))])] : null, // prettier-ignore
      state.focus ? ` · ${span(value(state.focus))}, ${share(state.focus)} of all, ${count(state.focus.calls)} calls` : null,
      !state.focus && !store.search ? `${span(value(whole()))} ${state.metric === "cpu" ? "of CPU threads" : "of kernels and copies"}${left ? `; the ${count(left)} smallest paths are put together` : ""}` : null,
    );
  };
  const draw = () => {
    describe();
    view.later();
  };
  const zoom = (node) => {
    state.focus = node === whole() ? null : node;
    state.chosen = state.focus;
    hideTip();
    draw();
  };
  const under = (event) => {
    const box = place.getBoundingClientRect();
    const x = event.clientX - box.left;
    const depth = Math.floor((event.clientY - box.top) / ROW);
    return boxes.find((one) => one.depth === depth && x >= one.x && x < one.x + one.width)?.node ?? null;
  };
  place.addEventListener("pointermove", (event) => {
    const node = under(event);
    place.style.cursor = node ? "pointer" : "";
    if (!node) return hideTip();
    const kind = trace.data.kinds[node.kind];
    showTip(event, title(node).slice(0, 400), [
      ["total", span(value(node))],
      ["of its own", span(node.own[state.metric])],
      ["of all", share(node)],
      state.focus && value(state.focus) ? ["of what is shown", percent((100 * value(node)) / value(state.focus))] : null,
      node.calls ? ["calls", count(node.calls)] : null,
      node.outer === null ? null : node.name < 0 ? "paths too small to be shown" : (KIND_WORDS[kind] ?? kind),
    ]);
  });
  place.addEventListener("pointerleave", hideTip);
  place.addEventListener("click", (event) => {
    const node = under(event);
    if (node && node.name !== -1) zoom(node);
  });
  place.addEventListener("dblclick", () => zoom(null));
  place.addEventListener("keydown", (event) => {
    if (!graph() || event.ctrlKey || event.metaKey || event.altKey) return;
    const at = state.chosen ?? state.focus ?? whole();
    const beside = at.outer ? inner(at.outer) : [at];
    const to = {
      ArrowDown: () => inner(at)[0],
      ArrowUp: () => at.outer,
      ArrowLeft: () => beside[beside.indexOf(at) - 1],
      ArrowRight: () => beside[beside.indexOf(at) + 1],
    }[event.key];
    if (to) state.chosen = to() ?? at;
    else if (event.key === "Enter" && at.name !== -1) zoom(at);
    else if (event.key === "Escape" && (state.focus || state.chosen)) zoom(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
    place.setAttribute("aria-valuetext", `${title(state.chosen ?? whole())}, ${share(state.chosen ?? whole())}`);
    draw();
  });

  const choice = (key, options) =>
    h(
      "div.modes",
      { role: "group" },
      options.map(([word, text, possible]) =>
        h("button.small", { "aria-pressed": String(state[key] === word), disabled: !possible, "data-choice": word, onclick: () => ((state[key] = word), (state.focus = state.chosen = null), start()) }, text),
      ),
    );
  const start = () => {
    const flames = current().flames;
    if (state.kind === "python" && !flames.python) state.kind = "nesting";
    const { whole: all } = flames[state.kind] ?? { whole: { total: {} } };
    fill(bar, choice("kind", [["nesting", "as calls nest", true], ["python", "by Python stack", !!flames.python]]), choice("metric", [["cpu", "CPU time", true], ["device", "GPU time", all.total.device > 0]])); // prettier-ignore
    draw();
  };
  store.on("engine", () => ((state.focus = state.chosen = null), start()));
  store.on("filter", draw);
  store.on("theme", view.later);
  start();
  return { state, zoom, graph };
}
