// The frame of a panel: a heading with what it shows, its key, and its place to draw.

import { h } from "./dom.js";

export function panel(id, title, about, ...extra) {
  const body = h("div.panel-body");
  const head = h("header.panel-head", null, h("h2", null, title), about ? h("p.about", null, about) : null, h("div.spacer"), extra);
  return { element: h("section.panel", { id, "aria-label": title }, head, body), body, head };
}

/** A table from rows; columns: { name, value(row), number: true, title }. A click on a heading sorts, and is told to onsort. */
export function table(columns, rows, { sort = null, limit = 0, empty = "nothing", onsort } = {}) {
  let order = sort;
  let all = false;
  const body = h("tbody");
  const heads = columns.map((column, i) =>
    h(
      `th${column.number ? ".number" : ""}`,
      { title: column.title, "aria-sort": "none" },
      h("button.plain", { onclick: () => ((order = { by: i, down: order?.by === i ? !order.down : !!column.number }), onsort?.(order), draw()) }, column.name, h("i.arrow")),
    ),
  );
  const more = h("button.plain.more", { onclick: () => ((all = true), draw()) });
  const draw = () => {
    const sorted = rows.slice();
    if (order) {
      const key = columns[order.by].key ?? columns[order.by].value;
      sorted.sort((a, b) => {
        const x = key(a);
        const y = key(b);
        const less = typeof x === "number" && typeof y === "number" ? x - y : String(x ?? "").localeCompare(String(y ?? ""));
        return order.down ? -less : less;
      });
    }
    heads.forEach((head, i) => head.setAttribute("aria-sort", order?.by !== i ? "none" : order.down ? "descending" : "ascending"));
    const shown = limit && !all ? sorted.slice(0, limit) : sorted;
    body.replaceChildren(
      ...shown.map((row) => h("tr", null, columns.map((column) => h(`td${column.number ? ".number" : ""}`, null, (column.show ?? column.value)(row))))),
    );
    if (!rows.length) body.append(h("tr", null, h("td.dim", { colspan: columns.length }, empty)));
    more.textContent = `show all ${rows.length}`;
    more.hidden = shown.length === rows.length;
  };
  draw();
  return h("div.table-wrap", null, h("table", null, h("thead", null, h("tr", null, heads)), body), more);
}

/** A bar of shares: [{ name, value, tone, text }]. */
export function shareBar(parts, whole = parts.reduce((sum, part) => sum + part.value, 0)) {
  return h(
    "div.share-bar",
    null,
    parts
      .filter((part) => part.value > 0)
      .map((part) => h("i", { style: { width: `${(100 * part.value) / whole}%`, background: `var(--${part.tone})` }, title: `${part.name}: ${part.text}` })),
  );
}

/** A small key to the colours of a plot. */
export const legend = (...entries) =>
  h("div.legend", null, entries.map(([name, tone, shape]) => h("span", null, h(`i.swatch.${shape ?? "box"}`, { style: { "--tone": `var(--${tone})` } }), name)));

/** Figures with their names: [name, value]; what is null is left out. */
export const figures = (...rows) => h("dl.figures", null, rows.filter(Boolean).map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))));
