// A uPlot over the time in view: lines or areas with a band up to the greatest values, linked with everything else.

import uPlot from "uplot";
import { h } from "./dom.js";
import { moment, short, timeTicks } from "./format.js";
import { colour, fade } from "./theme.js";
import { timeArea } from "./timearea.js";
import { hideTip, showTip } from "./tip.js";

const FONT = "11px system-ui, sans-serif";
export const GUTTER = 58; // left of the plots, so that all panels' times lie below each other

/**
 * series: [{ name, colour (a name of theme.js), kind: "line" | "area" | "band" | "dash" | "bars" | "told" (by the tip
 *           alone), band: true to fill up to the series before, format }]
 * fetch(from, to, points) -> [x in seconds, values of each series…]; marks(ctx, u) draws on top; top: least upper end.
 */
export function timePlot(host, store, { height = 150, series, fetch, format = short, marks, top, tip }) {
  const place = h("div.plot");
  host.append(place);
  let u = null;
  let pending = 0;

  const options = () => ({
    width: Math.max(80, place.clientWidth),
    height,
    padding: [8, 8, 0, 0],
    legend: { show: false },
    cursor: {
      drag: { x: false, y: false, setScale: false },
      points: { size: 6, width: 1.5, fill: () => colour.panel },
      x: true,
      y: false,
      focus: { prox: -1 },
      bind: { dblclick: () => null, mousedown: () => null, mouseup: () => null, mousemove: () => null, mouseleave: () => null, mouseenter: () => null },
    },
    select: { show: true },
    scales: {
      x: { time: false, range: () => [store.view[0] / 1e6, store.view[1] / 1e6] },
      y: { range: (_, low, high) => [Math.min(0, low ?? 0), Math.max((high ?? 0) * 1.08, top?.() ?? 0, 1e-9)] },
    },
    axes: [
      {
        stroke: () => colour.dim,
        font: FONT,
        size: 26,
        gap: 5,
        grid: { stroke: () => colour.grid, width: 1 },
        ticks: { show: false },
        splits: (self) => timeTicks(store.view[0], store.view[1], Math.max(2, self.width / 110)).map((at) => at / 1e6),
        values: (self, splits) => splits.map((at) => (self.valToPos(at, "x") > self.width - GUTTER - 18 ? "" : moment(at * 1e6, store.view[1] - store.view[0]))),
      },
      {
        stroke: () => colour.dim,
        font: FONT,
        size: GUTTER,
        gap: 4,
        grid: { stroke: () => colour.grid, width: 1 },
        ticks: { show: false },
        space: 32,
        values: (_, splits) => splits.map((value) => format(value)),
      },
    ],
    series: [
      {},
      ...series.map((one) => ({
        label: one.name,
        stroke: () => (one.kind === "band" ? fade(colour[one.colour], 0.35) : colour[one.colour]),
        width: one.kind === "band" ? 0.75 : one.kind === "bars" || one.kind === "told" ? 0 : 1.5,
        dash: one.kind === "dash" ? [5, 4] : undefined,
        fill: one.kind === "area" ? () => fade(colour[one.colour], 0.22) : one.kind === "bars" ? () => fade(colour[one.colour], 0.75) : undefined,
        paths: one.kind === "bars" ? uPlot.paths.bars({ size: [0.9, 20, 1] }) : one.step ? uPlot.paths.stepped({ align: 1 }) : undefined,
        points: { show: one.kind === "dots", size: 4, fill: () => colour[one.colour] },
        spanGaps: true,
      })),
    ],
    bands: series.flatMap((one, i) => (one.kind === "band" ? [{ series: [i + 1, i + 2], fill: () => fade(colour[one.colour], 0.16) }] : [])),
    hooks: { draw: [(self) => draw(self)] },
  });

  const draw = (self) => {
    const { ctx, bbox } = self;
    const ratio = devicePixelRatio || 1;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    marks?.(ctx, self, ratio);
    ctx.restore();
  };

  const data = () => fetch(store.view[0], store.view[1], Math.max(60, Math.min(1600, Math.floor((place.clientWidth - GUTTER) / 1.5))));
  const refresh = () => {
    pending = 0;
    if (place.clientWidth < 100) return;
    if (!u) {
      u = new uPlot(options(), data(), place);
      timeArea(
        u.over,
        store,
        () => ({ left: 0, width: u.over.clientWidth }),
        {
          hover: (event, at) => show(event, at),
          drag: (from, to) => {
            if (from === null) u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
            else {
              const left = u.valToPos(from / 1e6, "x");
              u.setSelect({ left, width: u.valToPos(to / 1e6, "x") - left, top: 0, height: u.over.clientHeight }, false);
            }
          },
        },
      );
    } else {
      if (u.width !== place.clientWidth) u.setSize({ width: place.clientWidth, height });
      u.setData(data());
    }
  };
  const later = () => {
    if (!pending) pending = requestAnimationFrame(refresh);
  };
  const show = (event, at) => {
    const i = u.cursor.idx ?? u.posToIdx(u.valToPos(at / 1e6, "x"));
    if (i === null || i === undefined || !u.data[0].length) return hideTip();
    const rows = series
      .map((one, k) => [one.name, u.data[k + 1][i] === null || u.data[k + 1][i] === undefined ? null : (one.format ?? format)(u.data[k + 1][i]), colour[one.colour]])
      .filter((row) => row[1] !== null)
      .reverse();
    showTip(event, moment(u.data[0][i] * 1e6, (store.view[1] - store.view[0]) / 100), [...rows, ...(tip?.(u.data[0][i] * 1e6) ?? [])]);
  };

  store.on("view", later);
  store.on("theme", later);
  store.on("engine", later);
  store.on("print", () => {
    if (pending) cancelAnimationFrame(pending);
    refresh();
  });
  store.on("hover", () => {
    if (!u) return;
    if (store.hover === null) u.setCursor({ left: -10, top: -10 }, false);
    else u.setCursor({ left: u.valToPos(store.hover / 1e6, "x"), top: 10 }, false);
  });
  new ResizeObserver(later).observe(place);
  return { refresh: later };
}
