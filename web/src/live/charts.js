// Small drawings of the past: sparklines in a row, and plots with an axis and a value under the pointer.

import { canvasIn, h } from "../dom.js";
import { ticks, timeTicks } from "../format.js";
import { colour, fade } from "../theme.js";
import { hideTip, showTip } from "../tip.js";

/** values() gives numbers and nulls, newest last; the element, with draw(). */
export function sparkline(values, tone, points = 60) {
  const host = h("div.spark");
  const view = canvasIn(host, 22, (ctx, width, height) => {
    const all = values().slice(-points);
    const most = Math.max(1e-9, ...all.map((value) => value ?? 0));
    ctx.beginPath();
    const x = (i) => width - ((all.length - 1 - i) * width) / (points - 1);
    all.forEach((value, i) => ctx.lineTo(x(i), height - 1.5 - ((value ?? 0) / most) * (height - 4)));
    ctx.strokeStyle = colour[tone];
    ctx.lineWidth = 1.3;
    ctx.stroke();
    if (!all.length) return;
    ctx.lineTo(width, height);
    ctx.lineTo(x(0), height);
    ctx.fillStyle = fade(colour[tone], 0.16);
    ctx.fill();
  });
  return { element: host, draw: view.later };
}

/**
 * series: [{ name, tone, values() , kind: "line" | "area" }]; times(): seconds; span: seconds that are shown; top(): least upper end;
 * format(value). The element, with draw().
 */
export function chart({ series, times, span, format, top }) {
  const host = h("div.chart.canvas-host");
  let pointer = null;
  const left = 52;
  const view = canvasIn(host, 140, (ctx, width, height) => {
    const t = times();
    const end = t[t.length - 1] ?? 0;
    const from = end - span();
    const begin = t.findIndex((sec) => sec >= from);
    const low = height - 20;
    const x = (sec) => left + ((sec - from) / span()) * (width - left - 4);
    const most = Math.max(top?.() ?? 1, ...series.flatMap((one) => one.values().slice(Math.max(0, begin)).map((value) => value ?? 0))) * 1.06;
    const y = (value) => low - (value / most) * (low - 6);
    ctx.font = "11px system-ui, sans-serif";
    ctx.textBaseline = "middle";
    ctx.fillStyle = colour.dim;
    ctx.textAlign = "right";
    for (const tick of ticks(0, most, 3)) {
      ctx.fillStyle = colour.dim;
      ctx.fillText(format(tick), left - 6, y(tick));
      ctx.fillStyle = colour.grid;
      ctx.fillRect(left, Math.round(y(tick)), width - left, 1);
    }
    ctx.fillStyle = colour.dim;
    ctx.textAlign = "center";
    for (const ago of timeTicks(0, span() * 1e6, Math.max(2, width / 140)).map((us) => us / 1e6)) {
      const words = ago === 0 ? "now" : ago % 60 === 0 ? `−${ago / 60} min` : `−${ago} s`;
      ctx.fillText(words, Math.max(left + 10, Math.min(width - 14, x(end - ago))), height - 8);
    }
    ctx.save();
    ctx.beginPath();
    ctx.rect(left, 0, width - left, low + 1);
    ctx.clip();
    for (const one of series) {
      const values = one.values();
      ctx.beginPath();
      let open = null;
      for (let i = Math.max(0, begin - 1); i < t.length; i++) {
        if (values[i] === null || values[i] === undefined) continue;
        if (open === null) ctx.moveTo((open = x(t[i])), y(values[i]));
        else ctx.lineTo(x(t[i]), y(values[i]));
      }
      ctx.strokeStyle = colour[one.tone];
      ctx.lineWidth = 1.5;
      ctx.stroke();
      if (one.kind === "area" && open !== null) {
        ctx.lineTo(x(end), low);
        ctx.lineTo(open, low);
        ctx.fillStyle = fade(colour[one.tone], 0.18);
        ctx.fill();
      }
    }
    ctx.restore();
    if (pointer === null || pointer < left || !t.length) return;
    const at = from + ((pointer - left) / (width - left - 4)) * span();
    const i = nearest(t, at);
    ctx.fillStyle = colour.dim;
    ctx.fillRect(x(t[i]), 0, 1, low);
  });
  const nearest = (t, at) => t.reduce((best, sec, i) => (Math.abs(sec - at) < Math.abs(t[best] - at) ? i : best), 0);
  host.addEventListener("pointermove", (event) => {
    const box = host.getBoundingClientRect();
    pointer = event.clientX - box.left;
    view.later();
    const t = times();
    if (!t.length || pointer < left) return hideTip();
    const end = t[t.length - 1];
    const i = nearest(t, end - span() + ((pointer - left) / (box.width - left - 4)) * span());
    showTip(event, `${Math.round(end - t[i])} s ago`, series.map((one) => [one.name, one.values()[i] === null ? "–" : format(one.values()[i]), colour[one.tone]]));
  });
  host.addEventListener("pointerleave", () => {
    pointer = null;
    hideTip();
    view.later();
  });
  return { element: host, draw: view.later };
}
