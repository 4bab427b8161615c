// The whole session as a strip, with the span in view as a window that can be drawn, moved and resized.

import { canvasIn, h } from "../dom.js";
import { moment, span, timeTicks, when } from "../format.js";
import { colour, fade } from "../theme.js";
import { timeByKind } from "./summary.js";

export function minimap(host, store, current) {
  const place = h("div.minimap", { role: "slider", tabindex: "0", "aria-label": "span of time in view" });
  host.append(place);
  let grip = null;
  const view = canvasIn(place, 44, (ctx, width, height) => {
    const [from, to] = store.full;
    const tall = height - 14;
    const at = (time) => ((time - from) / (to - from)) * width;
    const bars = Math.max(1, Math.floor(width / 3));
    const step = (to - from) / bars;
    for (let k = 0; k < bars; k++) {
      const parts = timeByKind(current().steps, from + k * step, from + (k + 1) * step);
      let y = tall;
      for (const kind of ["decode", "mixed", "prefill"]) {
        const share = Math.min(1, parts[kind] / step) * tall;
        if (share <= 0.2) continue;
        ctx.fillStyle = colour[kind];
        ctx.fillRect((k * width) / bars, Math.max(0, y - share), width / bars - 0.5, share);
        y -= share;
      }
    }
    const [left, right] = [at(store.view[0]), at(store.view[1])];
    if (store.zoomed) {
      ctx.fillStyle = fade(colour.bg, 0.72);
      ctx.fillRect(0, 0, left, tall);
      ctx.fillRect(right, 0, width - right, tall);
      ctx.strokeStyle = colour.accent;
      ctx.lineWidth = 1.5;
      ctx.strokeRect(left + 0.5, 0.75, Math.max(2, right - left - 1), tall - 1.5);
      ctx.fillStyle = colour.accent;
      for (const x of [left, right]) ctx.fillRect(x - 2, tall / 2 - 7, 4, 14);
    }
    ctx.font = "10px system-ui, sans-serif";
    ctx.fillStyle = colour.dim;
    for (const tick of timeTicks(from, to, width / 120)) ctx.fillText(moment(tick, to - from), Math.min(at(tick) + 3, width - 34), height - 3);
    ctx.fillStyle = colour.line;
    for (const tick of timeTicks(from, to, width / 120)) ctx.fillRect(Math.round(at(tick)), tall, 1, 14);
    if (store.hover !== null) {
      ctx.fillStyle = colour.ink;
      ctx.fillRect(at(store.hover), 0, 1, tall);
    }
  });
  const time = (event) => {
    const box = place.getBoundingClientRect();
    return store.full[0] + ((event.clientX - box.left) / box.width) * (store.full[1] - store.full[0]);
  };
  const near = (event) => {
    const slack = (7 / place.clientWidth) * (store.full[1] - store.full[0]);
    const at = time(event);
    if (!store.zoomed) return "new";
    if (Math.abs(at - store.view[0]) < slack) return "from";
    if (Math.abs(at - store.view[1]) < slack) return "to";
    return at > store.view[0] && at < store.view[1] ? "move" : "new";
  };
  place.addEventListener("pointerdown", (event) => {
    grip = { how: near(event), at: time(event), view: store.view.slice(), x: event.clientX };
    place.setPointerCapture(event.pointerId);
  });
  place.addEventListener("pointermove", (event) => {
    const at = time(event);
    if (!grip) {
      place.style.cursor = { from: "ew-resize", to: "ew-resize", move: "grab", new: "crosshair" }[near(event)];
      return;
    }
    if (Math.abs(event.clientX - grip.x) < 3) return;
    const [from, to] = grip.view;
    if (grip.how === "new") store.setView(Math.min(at, grip.at), Math.max(at, grip.at), false);
    else if (grip.how === "move") store.setView(from + at - grip.at, to + at - grip.at, false);
    else if (grip.how === "from") store.setView(Math.min(at, to), Math.max(at, to), false);
    else store.setView(Math.min(from, at), Math.max(from, at), false);
  });
  place.addEventListener("pointerup", () => (grip = null));
  place.addEventListener("dblclick", () => store.reset());
  for (const topic of ["view", "hover", "theme", "engine"]) store.on(topic, view.later);
  store.on("print", view.paint);
  store.on("view", () => {
    place.setAttribute("aria-valuetext", `${when(store.view[0])} to ${when(store.view[1])}, ${span(store.view[1] - store.view[0])}`);
  });
}
