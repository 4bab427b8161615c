// What every canvas and plot over time has in common: a drag chooses a span, Shift and a drag move it, Ctrl and the
// wheel zoom, a double click shows everything, and the pointer's moment is told to all others.

import { hideTip } from "./tip.js";

/**
 * area() gives { left, width } of the part that is time, in CSS pixels of the element.
 * on.hover(event, at) shows the tip; on.click(event, at); on.drag(from, to | null) draws the span being chosen.
 */
export function timeArea(element, store, area, on = {}) {
  let start = null;
  const place = (event) => event.clientX - element.getBoundingClientRect().left;
  const toTime = (x) => {
    const { left, width } = area();
    const [from, to] = store.view;
    return from + ((x - left) / width) * (to - from);
  };
  const inside = (x) => {
    const { left, width } = area();
    return x >= left && x <= left + width;
  };
  element.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !inside(place(event))) return;
    start = { x: place(event), at: toTime(place(event)), pan: event.shiftKey, view: store.view.slice(), moved: false };
    element.setPointerCapture(event.pointerId);
  });
  element.addEventListener("pointermove", (event) => {
    const x = place(event);
    if (start) {
      const { left, width } = area();
      const held = Math.max(left, Math.min(left + width, x));
      if (Math.abs(x - start.x) > 3) start.moved = true;
      if (start.pan) {
        const by = ((start.x - x) / width) * (start.view[1] - start.view[0]);
        store.setView(start.view[0] + by, start.view[1] + by, false);
        return;
      }
      if (start.moved) {
        hideTip();
        on.drag?.(Math.min(start.at, toTime(held)), Math.max(start.at, toTime(held)));
        return;
      }
    }
    if (!inside(x)) {
      leave();
      return;
    }
    store.setHover(toTime(x), element);
    on.hover?.(event, toTime(x));
  });
  const stop = (event) => {
    if (!start) return;
    const { left, width } = area();
    const to = toTime(Math.max(left, Math.min(left + width, place(event))));
    const was = start;
    start = null;
    on.drag?.(null);
    if (was.pan) return;
    if (was.moved) store.setView(Math.min(was.at, to), Math.max(was.at, to));
    else on.click?.(event, was.at);
  };
  const leave = () => {
    hideTip();
    store.setHover(null, element);
    on.leave?.();
  };
  element.addEventListener("pointerup", stop);
  element.addEventListener("pointercancel", () => {
    start = null;
    on.drag?.(null);
  });
  element.addEventListener("pointerleave", leave);
  element.addEventListener("dblclick", () => store.reset());
  element.addEventListener(
    "wheel",
    (event) => {
      if (event.ctrlKey || event.metaKey) {
        event.preventDefault();
        store.zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) / 150), toTime(place(event)));
      } else if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
        event.preventDefault();
        store.pan(event.deltaX / area().width);
      }
    },
    { passive: false },
  );
}
