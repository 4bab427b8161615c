// The mark of the pages.

import { h } from "./dom.js";

export function logo() {
  return h(
    "svg.logo",
    { viewBox: "0 0 32 32", "aria-hidden": "true" },
    h("rect", { x: "3", y: "5", width: "16", height: "5", rx: "2", class: "l1" }),
    h("rect", { x: "9", y: "13.5", width: "20", height: "5", rx: "2", class: "l2" }),
    h("rect", { x: "5", y: "22", width: "12", height: "5", rx: "2", class: "l3" }),
  );
}
