// Elements by calls. Text becomes text nodes, never markup: names in a session are chosen by clients.

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "path", "circle", "rect", "line", "g"]);

/** h("button.small", { onclick, title }, "text", child, [more]) */
export function h(spec, attributes, ...children) {
  const [tag, ...classes] = spec.split(".");
  const svg = SVG_TAGS.has(tag);
  const element = svg ? document.createElementNS(SVG, tag) : document.createElement(tag || "div");
  if (classes.length) element.setAttribute("class", classes.join(" "));
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else if (name === "value") element.value = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  add(element, children);
  return element;
}

export function add(element, children) {
  for (const child of children) {
    if (child === undefined || child === null || child === false) continue;
    if (Array.isArray(child)) add(element, child);
    else element.append(child instanceof Node ? child : String(child));
  }
}

export function fill(element, ...children) {
  element.replaceChildren();
  add(element, children);
  return element;
}

/** A canvas that fits its place and the screen's pixels; draw(ctx, width, height) in CSS pixels. */
export function canvasIn(host, height, draw) {
  const canvas = h("canvas");
  host.append(canvas);
  const ctx = canvas.getContext("2d");
  let wanted = height;
  let pending = 0;
  const paint = () => {
    pending = 0;
    const width = Math.floor(host.clientWidth);
    if (width <= 0) return;
    const ratio = window.devicePixelRatio || 1;
    const tall = typeof wanted === "function" ? wanted(width) : wanted;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(tall * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(tall * ratio);
      canvas.style.width = `${width}px`;
      canvas.style.height = `${tall}px`;
    }
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, width, tall);
    draw(ctx, width, tall);
  };
  const later = () => {
    if (!pending) pending = requestAnimationFrame(paint);
  };
  new ResizeObserver(later).observe(host);
  return { canvas, paint, later, setHeight: (value) => ((wanted = value), later()) };
}

/** Text cut to a width with an ellipsis. */
export function clip(ctx, text, width) {
  if (width < 8) return "";
  if (ctx.measureText(text).width <= width) return text;
  let low = 0;
  let high = text.length;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (ctx.measureText(`${text.slice(0, middle)}…`).width <= width) low = middle;
    else high = middle - 1;
  }
  return low > 0 ? `${text.slice(0, low)}…` : "";
}
