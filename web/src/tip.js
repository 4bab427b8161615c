// The one box that shows numbers beside the pointer.

import { fill, h } from "./dom.js";

let box = null;

/** rows: [name, value, colour?] each, or a string for a line of its own. */
export function showTip(event, title, rows) {
  if (!box) document.body.append((box = h("div.tip", { role: "status" })));
  fill(
    box,
    title ? h("div.tip-title", null, title) : null,
    rows
      .filter(Boolean)
      .map((row) =>
        typeof row === "string"
          ? h("div.tip-line", null, row)
          : h("div.tip-row", null, h("span.tip-name", null, row[2] ? h("i.dot", { style: { background: row[2] } }) : null, row[0]), h("b", null, row[1])),
      ),
  );
  box.hidden = false;
  const { width, height } = box.getBoundingClientRect();
  const x = event.clientX + 16 + width > innerWidth ? event.clientX - width - 14 : event.clientX + 16;
  const y = Math.min(event.clientY + 14, innerHeight - height - 8);
  box.style.transform = `translate(${Math.max(4, Math.round(x))}px, ${Math.max(4, Math.round(y))}px)`;
}

export function hideTip() {
  if (box) box.hidden = true;
}
