// The timeline: a track per thread and stream, rows by nesting, drawn as far as they are in sight. Pointer and keys as in
// all plots over time (timearea.js); a click chooses a slice.

import { canvasIn, clip, fill, h } from "../dom.js";
import { count, percent, span, ticks } from "../format.js";
import { colour, fade } from "../theme.js";
import { timeArea } from "../timearea.js";
import { hideTip, showTip } from "../tip.js";

const ROW = 16;
const HEAD = 18; // a track's title
const AXIS = 22;
const FEW = 8; // rows of a track at first
const MOST = 620; // pixels in sight

/** A moment, as fine as marks in a view of that width need it. */
export function stamp(us, view) {
  const [unit, word] = view >= 2e6 ? [1e6, "s"] : view >= 2e3 ? [1e3, "ms"] : [1, "µs"];
  const decimals = Math.max(0, Math.min(3, Math.ceil(-Math.log10(view / unit / 10) - 0.001)));
  return `${(us / unit).toFixed(decimals)} ${word}`;
}

/** The first slice that ends behind a moment. */
function first(row, at) {
  let low = 0;
  let high = row.from.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (row.from[middle] < at) low = middle + 1;
    else high = middle;
  }
  return Math.max(0, low - 1);
}

export function timelinePanel(host, store, trace) {
  const tracks = trace.files.flatMap((file) => file.tracks).map((track) => ({ ...track, open: false }));
  const state = { chosen: null, top: 0 };
  const scroller = h("div.tl-scroll", { tabindex: "0", "aria-label": "timeline" });
  const stick = h("div.tl-stick.canvas-host");
  const filler = h("div");
  const detail = h("div.tl-detail");
  scroller.append(stick, filler);
  const thinned = trace.files.filter((file) => file.whole);
  const showWhole = (file) => store.setView(file.offset + file.whole[0] / 1000, file.offset + file.whole[1] / 1000);
  if (thinned.length)
    host.append(
      h("p.quiet.whole", null, `Events shorter than ${span(Math.max(...thinned.map((file) => file.drawing.grain)) / 1000)} are drawn together, except in one stretch: `, thinned.slice(0, 8).map((file) => h("button.small", { onclick: () => showWhole(file) }, trace.files.length > 1 ? `${file.label} in full` : "show it in full"))),
    ); // prettier-ignore
  host.append(scroller, detail);

  const shown = (track) => (track.open || track.rows.length <= FEW ? track.rows.length : FEW);
  const layout = () => {
    let y = AXIS;
    for (const track of tracks) {
      track.y = y;
      y += HEAD + shown(track) * ROW + 4;
    }
    return y;
  };
  let tall = layout();
  const sight = () => Math.min(MOST, tall);
  const setTall = () => {
    tall = layout();
    scroller.style.setProperty("height", `${sight()}px`);
    filler.style.setProperty("height", `${Math.max(0, tall - sight())}px`);
  };
  setTall();

  const found = (name) => name.toLowerCase().includes(store.search.toLowerCase());
  const drawRow = (ctx, row, y, width) => {
    const [from, to] = store.view;
    const scale = width / (to - from);
    let painted = -1;
    for (let i = first(row, from); i < row.from.length && row.from[i] < to; i++) {
      if (row.to[i] < from) continue;
      const x = Math.max(-2, (row.from[i] - from) * scale);
      const end = Math.min(width + 2, (row.to[i] - from) * scale);
      if (end < painted + 0.5) continue; // that pixel has its colour
      const hit = store.search ? found(row.name[i]) : true;
      const wide = Math.max(0.8, end - x - (end - x > 3 ? 0.7 : 0));
      painted = x + wide;
      const share = row.n[i] > 1 ? Math.max(0.25, Math.min(1, row.busy[i] / (row.to[i] - row.from[i] || 1))) : 1;
      ctx.fillStyle = fade(colour[trace.tone(row.tone[i])], (store.search && !hit ? 0.12 : 0.62) * share);
      ctx.fillRect(x, y, wide, ROW - 1);
      if (row === state.chosen?.row && i === state.chosen.i) {
        ctx.strokeStyle = colour.ink;
        ctx.lineWidth = 1.5;
        ctx.strokeRect(x + 0.5, y + 0.5, Math.max(1, wide - 1), ROW - 2);
      }
      if (wide < 34) continue;
      ctx.fillStyle = colour.ink;
      ctx.globalAlpha = hit ? 1 : 0.4;
      ctx.fillText(clip(ctx, row.n[i] > 1 ? `${row.n[i]} × ${row.name[i]}` : row.name[i], Math.min(wide, width - Math.max(0, x)) - 6), Math.max(0, x) + 3, y + ROW / 2);
      ctx.globalAlpha = 1;
    }
  };

  const draw = (ctx, width, height) => {
    const [from, to] = store.view;
    const wide = to - from;
    ctx.font = "11px system-ui, sans-serif";
    ctx.textBaseline = "middle";
    for (const track of tracks) {
      const y = track.y - state.top;
      if (y > height || y + HEAD + shown(track) * ROW < AXIS) continue;
      ctx.fillStyle = colour.faint;
      ctx.fillRect(0, y, width, HEAD - 3);
      for (let r = 0; r < shown(track); r++) drawRow(ctx, track.rows[r], y + HEAD + r * ROW, width);
      const folded = track.rows.length - shown(track);
      ctx.fillStyle = colour.ink;
      const title = `${track.rows.length > FEW ? (track.open ? "▾ " : "▸ ") : ""}${track.title}`;
      ctx.fillText(clip(ctx, title, width - 10), 4, y + HEAD / 2 - 1);
      const x = 14 + ctx.measureText(title).width;
      ctx.fillStyle = colour.dim;
      ctx.fillText(clip(ctx, `${track.more} · ${count(track.events)} events${folded ? ` · ${folded} deeper ${folded === 1 ? "row" : "rows"}, click to show` : ""}${track.deep ? ` · ${count(track.deep)} deeper still` : ""}`, width - x - 6), x, y + HEAD / 2 - 1);
    }
    ctx.fillStyle = colour.panel;
    ctx.fillRect(0, 0, width, AXIS - 2);
    ctx.fillStyle = colour.dim;
    for (const tick of ticks(from, to, width / 120)) {
      const x = ((tick - from) / wide) * width;
      ctx.fillText(clip(ctx, stamp(tick, wide), width - x - 6), x + 4, AXIS / 2 - 1);
      ctx.fillRect(Math.round(x), 0, 1, AXIS - 2);
    }
    if (store.hover !== null) ctx.fillRect(((store.hover - from) / wide) * width, AXIS - 2, 1, height);
  };
  const view = canvasIn(stick, sight, draw);

  const under = (event) => {
    const box = stick.getBoundingClientRect();
    const y = event.clientY - box.top + state.top;
    if (event.clientY - box.top < AXIS) return null;
    const track = tracks.find((one) => y >= one.y && y < one.y + HEAD + shown(one) * ROW);
    if (!track) return null;
    if (y < track.y + HEAD) return { track, row: null };
    const row = track.rows[Math.floor((y - track.y - HEAD) / ROW)];
    const pixel = (store.view[1] - store.view[0]) / box.width;
    const at = store.view[0] + (event.clientX - box.left) * pixel;
    for (let i = first(row, at - 3 * pixel); i < row.from.length && row.from[i] <= at + pixel; i++) if (row.to[i] + pixel >= at && row.from[i] - pixel <= at) return { track, row, i };
    return { track, row: null };
  };
  const words = ({ track, row, i }) => {
    const long = row.to[i] - row.from[i];
    const rest = [
      ["from", stamp(row.from[i], long * 20 || 1)],
      ["on", track.title],
      ["is", trace.what(row.tone[i])],
    ];
    if (row.n[i] === 1) return [["took", span(long)], ...rest];
    return [[`${count(row.n[i])} short events`, `within ${span(long)}`], ["they took", `${span(row.busy[i])}, ${percent((100 * row.busy[i]) / (long || 1))}`], ...rest, "Its name is that of the longest. `profilemate trace cut` shows them one by one."];
  };
  const choose = (hit) => {
    state.chosen = hit;
    if (!hit) fill(detail);
    else
      fill(
        detail,
        h("b.tl-name", null, hit.row.name[hit.i]),
        h("span.dim", null, words(hit).filter(Array.isArray).map(([name, value]) => `${name} ${value}`).join(" · ")),
        h("button.small", { onclick: zoomTo, title: "f" }, "Zoom to it"),
      ); // prettier-ignore
    view.later();
  };
  const zoomTo = () => {
    if (!state.chosen) return;
    const { row, i } = state.chosen;
    const margin = Math.max((row.to[i] - row.from[i]) * 0.15, store.least / 2);
    store.setView(row.from[i] - margin, row.to[i] + margin);
  };
  /** The next slice whose name has what is searched for, in time; round at the end. */
  const next = (by) => {
    if (!store.search) return;
    const all = tracks.flatMap((track) => track.rows.flatMap((row) => row.name.flatMap((name, i) => (found(name) ? [{ track, row, i }] : []))));
    if (!all.length) return;
    all.sort((a, b) => a.row.from[a.i] - b.row.from[b.i]);
    const now = all.findIndex((one) => one.row === state.chosen?.row && one.i === state.chosen.i);
    const hit = all[(now + by + all.length) % all.length];
    if (hit.track.rows.indexOf(hit.row) >= shown(hit.track)) toggle(hit.track);
    choose(hit);
    scroller.scrollTop = hit.track.y - AXIS;
    const wide = store.view[1] - store.view[0];
    if (hit.row.from[hit.i] < store.view[0] || hit.row.to[hit.i] > store.view[1]) store.setView(hit.row.from[hit.i] - wide / 3, hit.row.from[hit.i] + (wide * 2) / 3);
  };
  const toggle = (track) => {
    track.open = !track.open;
    setTall();
    view.later();
  };

  timeArea(stick, store, () => ({ left: 0, width: stick.clientWidth }), {
    hover: (event) => {
      const hit = under(event);
      stick.style.cursor = hit && !hit.row ? "pointer" : "crosshair";
      if (hit?.row) showTip(event, hit.row.name[hit.i].slice(0, 400), words(hit));
      else hideTip();
    },
    click: (event) => {
      const hit = under(event);
      if (hit && !hit.row && event.clientY - stick.getBoundingClientRect().top + state.top < hit.track.y + HEAD && hit.track.rows.length > FEW) toggle(hit.track);
      else choose(hit?.row ? hit : null);
    },
    drag: (from, to) => fill(strip, from === null ? null : h("i", { style: { left: `${(100 * (from - store.view[0])) / (store.view[1] - store.view[0])}%`, width: `${(100 * (to - from)) / (store.view[1] - store.view[0])}%` } })),
  });
  const strip = h("div.tl-select");
  stick.append(strip);
  scroller.addEventListener("scroll", () => {
    state.top = scroller.scrollTop;
    view.later();
  });
  for (const topic of ["view", "hover", "theme", "filter"]) store.on(topic, view.later);
  store.on("print", view.paint);
  return { tracks, choose, zoomTo, next, under, state };
}
