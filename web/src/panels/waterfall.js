// Every request as a bar: waiting, prefill, decode, preempted, with the stalls of its decode marked. Only the rows in
// sight are drawn, so that thousands cost nothing.

import { canvasIn, clip, fill, h } from "../dom.js";
import { count, moment, percent, short, span, timeTicks, when } from "../format.js";
import { colour, fade } from "../theme.js";
import { timeArea } from "../timearea.js";
import { hideTip, showTip } from "../tip.js";
import { overlaps } from "./summary.js";

const ROW = 20;
const AXIS = 20;
const COLUMNS = [
  { key: "id", name: "request", width: 150, text: (row) => row.id, sort: (row) => row.key },
  { key: "at", name: "arrived", width: 66, number: true, text: (row) => when(row.at) },
  { key: "ttft", name: "TTFT", width: 66, number: true, text: (row) => span(row.ttft) },
  { key: "tpot", name: "TPOT", width: 66, number: true, text: (row) => span(row.tpot) },
  { key: "gap", name: "longest gap", width: 96, number: true, text: (row) => span(row.gap) },
  { key: "e2e", name: "E2E", width: 66, number: true, text: (row) => span(row.e2e) },
  { key: "out", name: "in → out", width: 88, number: true, text: (row) => `${short(row.prompt)} → ${short(row.out)}` },
  { key: "preemptions", name: "pre.", width: 46, number: true, text: (row) => (row.preemptions ? String(row.preemptions) : ""), title: "preemptions" },
];

export function waterfall(host, store, current, { onShown } = {}) {
  let order = { key: "at", down: false };
  let rows = [];
  let chosen = null;
  let wanted = null; // "time" or "arrival"; null: whichever shows more
  let longest = 1;
  let mean = 1;
  const shownColumns = (width) => (width > 1050 ? COLUMNS : width > 760 ? COLUMNS.filter((c) => !["at", "out"].includes(c.key)) : COLUMNS.filter((c) => ["id", "ttft", "gap"].includes(c.key)));
  const aligned = () => {
    if (wanted) return wanted === "arrival";
    // Bars that are hardly to be seen in time are laid side by side from their arrivals.
    return rows.length > 0 && mean * 30 < store.view[1] - store.view[0];
  };
  const gutter = () => shownColumns(scroller.clientWidth).reduce((sum, column) => sum + column.width, 0) + 8;

  const heads = h("div.wf-heads");
  const spacer = h("div.wf-spacer");
  const stick = h("div.wf-stick");
  const scroller = h("div.wf-scroll", { tabindex: "0", role: "listbox", "aria-label": "requests, arrow keys choose one, Enter shows its span" }, stick, spacer);
  const detail = h("div.wf-detail");
  const modes = h(
    "div.toggle",
    { role: "group", "aria-label": "how the bars lie" },
    [["time", "in time"], ["arrival", "from arrival"]].map(([value, text]) =>
      h("button", { value, "aria-pressed": "false", onclick: () => ((wanted = value), view.later()) }, text),
    ),
  );
  const note = h("p.quiet");
  host.append(heads, scroller, detail, note);

  const apply = () => {
    const engine = current();
    const [from, to] = store.view;
    const words = store.search.trim().toLowerCase();
    const { latency } = store;
    rows = engine.requests.filter(
      (row) =>
        overlaps(row, from, to) &&
        (!words || row.key.includes(words) || row.state === words) &&
        (!latency || (row[latency.metric] !== null && row[latency.metric] >= latency.from && row[latency.metric] <= latency.to)),
    );
    const key = COLUMNS.find((column) => column.key === order.key).sort ?? ((row) => row[order.key]);
    rows.sort((a, b) => {
      const x = key(a);
      const y = key(b);
      if (x === null || y === null) return (x === null) - (y === null);
      const less = typeof x === "string" ? x.localeCompare(y) : x - y;
      return (order.down ? -less : less) || a.place - b.place;
    });
    const height = Math.max(3, Math.min(rows.length, 24)) * ROW + AXIS;
    scroller.style.height = `${height + 2}px`;
    view.setHeight(height);
    spacer.style.height = `${Math.max(0, rows.length * ROW + AXIS - height)}px`;
    mean = rows.reduce((sum, row) => sum + row.until - row.at, 0) / Math.max(1, rows.length);
    longest = rows.reduce((most, row) => Math.max(most, row.until - row.at), 1);
    const { requests } = engine.json;
    note.textContent = `${count(rows.length)} of ${count(requests.total)} requests${
      requests.exact ? "" : `. Shown are the ${count(requests.worst)} slowest by each measure and every ${count(requests.every)}th of the rest`
    }.`;
    onShown?.(rows.length);
    heading();
    view.later();
  };
  const heading = () =>
    fill(
      heads,
      shownColumns(scroller.clientWidth).map((column) =>
        h(
          `button.plain${column.number ? ".number" : ""}`,
          {
            style: { width: `${column.width}px` },
            title: `sort by ${column.title ?? column.name}`,
            "aria-sort": order.key === column.key ? (order.down ? "descending" : "ascending") : "none",
            onclick: () => {
              order = { key: column.key, down: order.key === column.key ? !order.down : column.number && column.key !== "at" };
              scroller.scrollTop = 0;
              apply();
            },
          },
          column.name,
          h("i.arrow"),
        ),
      ),
    );

  const view = canvasIn(stick, 400, (ctx, width, height) => {
    const left = gutter();
    const beside = aligned();
    const [from, to] = beside ? [0, longest] : store.view;
    const area = width - left - 10;
    const x = (time) => left + ((time - from) / (to - from)) * area;
    const first = Math.floor(scroller.scrollTop / ROW);
    for (const button of modes.children) button.setAttribute("aria-pressed", String((button.value === "arrival") === beside));
    const columns = shownColumns(scroller.clientWidth);
    ctx.font = "11px system-ui, sans-serif";
    ctx.textBaseline = "middle";
    for (const tick of timeTicks(from, to, area / 110)) {
      ctx.fillStyle = colour.grid;
      ctx.fillRect(Math.round(x(tick)), 0, 1, height);
      ctx.fillStyle = colour.dim;
      if (x(tick) < width - 52) ctx.fillText(beside ? (tick ? `+${span(tick)}` : "arrival") : moment(tick, to - from), Math.round(x(tick)) + 4, AXIS / 2);
    }
    if (!rows.length) {
      ctx.fillStyle = colour.dim;
      ctx.fillText("no request matches", 12, AXIS + ROW);
    }
    const { stalls } = current();
    for (let i = first; i < Math.min(rows.length, first + Math.ceil(height / ROW)); i++) {
      const row = rows[i];
      const y = AXIS + (i - first) * ROW;
      if (row.place === store.request) {
        ctx.fillStyle = fade(colour.accent, 0.16);
        ctx.fillRect(0, y, width, ROW);
      } else if (i % 2) {
        ctx.fillStyle = fade(colour.dim, 0.05);
        ctx.fillRect(0, y, width, ROW);
      }
      let at = 6;
      for (const column of columns) {
        ctx.fillStyle = column.key === "id" ? colour.ink : column.key === "preemptions" ? colour.preempted : column.key === order.key ? colour.ink : colour.dim;
        const text = clip(ctx, column.text(row), column.width - 10);
        if (column.number) {
          ctx.textAlign = "right";
          ctx.fillText(text, at + column.width - 10, y + ROW / 2 + 0.5);
          ctx.textAlign = "left";
        } else ctx.fillText(text, at, y + ROW / 2 + 0.5);
        at += column.width;
      }
      ctx.save();
      ctx.beginPath();
      ctx.rect(left, y, area + 6, ROW);
      ctx.clip();
      drawBar(ctx, row, y, beside ? (time) => x(time - row.at) : x, stalls);
      ctx.restore();
    }
    if (chosen) {
      ctx.fillStyle = fade(colour.select, 0.22);
      ctx.fillRect(x(chosen[0]), 0, x(chosen[1]) - x(chosen[0]), height);
    } else if (!beside && store.hover !== null && store.hover >= from && store.hover <= to) {
      ctx.fillStyle = fade(colour.ink, 0.5);
      ctx.fillRect(x(store.hover), 0, 1, height);
    }
  });

  const rowAt = (event) => {
    const y = event.clientY - stick.getBoundingClientRect().top - AXIS;
    return y < 0 ? undefined : rows[Math.floor(scroller.scrollTop / ROW) + Math.floor(y / ROW)];
  };
  timeArea(stick, store, () => (aligned() ? { left: 0, width: -1 } : { left: gutter(), width: stick.clientWidth - gutter() - 10 }), {
    drag: (a, b) => {
      chosen = a === null ? null : [a, b];
      view.later();
    },
    hover: (event, at) => {
      const row = rowAt(event);
      if (!row) hideTip();
      else showTip(event, row.id, [...figures(row), `${partAt(row, at, current().stalls)} at ${moment(at, (store.view[1] - store.view[0]) / 100)}`]);
    },
    click: (event) => choose(rowAt(event)),
  });
  stick.addEventListener("click", (event) => {
    if (aligned() || event.clientX - stick.getBoundingClientRect().left < gutter()) choose(rowAt(event));
  });
  stick.addEventListener("pointermove", (event) => {
    const left = event.clientX - stick.getBoundingClientRect().left - gutter();
    const row = aligned() && left >= 0 ? rowAt(event) : null;
    if (!row) return;
    const at = row.at + (left / (stick.clientWidth - gutter() - 10)) * longest;
    showTip(event, row.id, [...figures(row), `${partAt(row, at, current().stalls)} at +${span(at - row.at)}`]);
  });
  const choose = (row) => store.setRequest(!row || row.place === store.request ? null : row.place);
  scroller.addEventListener("scroll", () => {
    hideTip();
    view.later();
  });
  scroller.addEventListener("keydown", (event) => {
    const now = rows.findIndex((row) => row.place === store.request);
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 15, PageUp: -15, j: 1, k: -1 }[event.key];
    if (step) {
      const next = Math.max(0, Math.min(rows.length - 1, now < 0 ? 0 : now + step));
      if (rows[next]) store.setRequest(rows[next].place);
    } else if (event.key === "Enter" && now >= 0) show(rows[now]);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  const reveal = () => {
    const i = rows.findIndex((row) => row.place === store.request);
    if (i < 0) return;
    const top = i * ROW;
    const seen = scroller.clientHeight - AXIS - ROW;
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    else if (top > scroller.scrollTop + seen) scroller.scrollTop = top - seen;
  };
  const show = (row) => {
    const margin = Math.max(1000, (row.until - row.at) * 0.05);
    store.setView(row.at - margin, row.until + margin);
  };
  const drawDetail = () => {
    const row = store.request === null ? null : current().requests[store.request];
    if (!row) return fill(detail);
    const [i, j] = stallsOf(row, current().stalls);
    const worst = current()
      .stalls.slice(i, j)
      .sort((a, b) => b[1] - b[0] - (a[1] - a[0]))
      .slice(0, 6);
    fill(
      detail,
      h(
        "div.detail",
        null,
        h("div.detail-head", null, h("code", null, row.id), h("span.pill", null, row.state), h("div.spacer"), h("button.small", { onclick: () => show(row) }, "Show its span"), h("button.small", { onclick: () => store.setRequest(null) }, "Close")),
        h("dl.figures", null, figures(row).map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value)))),
        worst.length
          ? h("div.stalls", null, h("span.dim", null, "longest stalls of its decode: "), worst.map(([from, to]) => h("button.small", { onclick: () => store.setView(from - (to - from), to + (to - from)) }, `${span(to - from)} at ${when(from)}`)))
          : null,
      ),
    );
  };
  for (const topic of ["view", "filter", "engine"]) store.on(topic, apply);
  for (const topic of ["hover", "theme", "request"]) store.on(topic, view.later);
  store.on("request", () => {
    reveal();
    drawDetail();
  });
  store.on("engine", drawDetail);
  store.on("print", () => {
    apply();
    view.paint();
  });
  new ResizeObserver(heading).observe(scroller);
  apply();
  return {
    modes,
    focus: () => scroller.focus(),
    sortBy: (key) => {
      order = { key, down: true };
      apply();
    },
    find: (id) => {
      const row = current().requests.find((one) => one.id === id) ?? current().requests.find((one) => one.id.startsWith(id));
      if (row) store.setRequest(row.place);
      return !!row;
    },
  };
}

function figures(row) {
  return [
    ["state", row.state],
    ["TTFT", span(row.ttft)],
    ["TPOT", span(row.tpot)],
    ["longest gap", span(row.gap), row.gap ? colour.stall : undefined],
    ["queue", span(row.queue), colour.queue],
    ["E2E", span(row.e2e)],
    ["prompt", `${count(row.prompt)} tokens${row.cached ? `, ${percent((100 * row.cached) / row.prompt, 0)} from the prefix cache` : ""}`],
    ["output", `${count(row.out)} tokens`],
    row.preemptions ? ["preempted", `${count(row.preemptions)} times, away ${span(row.gone)}, ${count(row.recomputed)} tokens again`, colour.preempted] : null,
  ].filter(Boolean);
}

function partAt(row, at, stalls) {
  if (at < row.at || at > row.until) return "not here";
  if (row.away.some(([from, to]) => at >= from && at < (to ?? row.until))) return "preempted";
  if (row.started === null || at < row.started) return "waiting";
  if (row.first === null || at < row.first) return "prefill";
  const [i, j] = stallsOf(row, stalls);
  for (let k = i; k < j; k++) if (at >= stalls[k][0] && at <= stalls[k][1]) return `stalled for ${span(stalls[k][1] - stalls[k][0])}`;
  return at <= (row.last ?? row.until) ? "decode" : "ended";
}

/** Places of the stalls inside a request's decode. */
function stallsOf(row, stalls) {
  if (row.first === null || row.last === null) return [0, 0];
  let i = 0;
  let j = stalls.length;
  // In order of their beginning: found by halving.
  for (let low = 0, high = stalls.length; low <= high; ) {
    if (low === high) {
      i = low;
      break;
    }
    const middle = (low + high) >> 1;
    if (stalls[middle][0] < row.first - 1) low = middle + 1;
    else high = middle;
  }
  for (let low = i, high = stalls.length; low <= high; ) {
    if (low === high) {
      j = low;
      break;
    }
    const middle = (low + high) >> 1;
    if (stalls[middle][1] <= row.last + 1) low = middle + 1;
    else high = middle;
  }
  return [i, j];
}

function drawBar(ctx, row, y, x, stalls) {
  const part = (from, to, tone, inset, alpha = 1) => {
    if (from === null || to === null || to < from) return;
    const left = x(from);
    const width = Math.max(1, x(to) - left);
    ctx.globalAlpha = alpha;
    ctx.fillStyle = colour[tone];
    ctx.fillRect(left, y + inset, width, ROW - 2 * inset);
    ctx.globalAlpha = 1;
  };
  const started = row.started ?? row.until;
  part(row.at, started, "queue", 8);
  part(row.started, row.first ?? row.until, "prefill", 4);
  part(row.first, row.last ?? row.until, "decode", 4, 0.85);
  const [i, j] = stallsOf(row, stalls);
  const least = 1 / Math.max(1e-9, x(1) - x(0)); // what a pixel covers
  for (let k = i; k < j; k++) if (stalls[k][1] - stalls[k][0] > least * 0.5) part(stalls[k][0], stalls[k][1], "stall", 4, 0.9);
  for (const [from, to] of row.away) part(from, to ?? row.until, "preempted", 4);
  if (row.end !== null && row.state === "abort") {
    ctx.fillStyle = colour.bad;
    ctx.fillText("×", x(row.end) + 2, y + ROW / 2);
  } else if (row.end === null) {
    ctx.fillStyle = colour.dim;
    ctx.fillText("…", x(row.until) + 3, y + ROW / 2 - 2);
  }
}

