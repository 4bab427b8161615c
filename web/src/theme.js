// Light or dark, and the colours of both for canvases. The choice is kept where the browser lets it.

const NAMES = [
  "bg", "panel", "ink", "dim", "faint", "line", "grid", "accent", "select",
  "prefill", "decode", "mixed", "idle", "queue", "preempted", "stall", "limit",
  "sched", "pre", "model", "post", "other", "sample", "good", "warn", "bad", "evicted", "cached",
]; // prettier-ignore

export const colour = {};

export function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of NAMES) colour[name] = style.getPropertyValue(`--${name}`).trim();
}

/** store.tell is told "theme" at each change; signal: when to stop. Returns what the button does. */
export function startTheme(store, signal) {
  let kept = null;
  try {
    kept = localStorage.getItem("profilemate-theme");
  } catch {
    // A page from a file may have no storage.
  }
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    document.documentElement.dataset.theme = kept ?? (system.matches ? "dark" : "light");
    readColours();
    store.tell("theme");
  };
  system.addEventListener("change", apply, { signal });
  addEventListener("beforeprint", () => {
    document.documentElement.dataset.theme = "light";
    document.documentElement.classList.add("printing");
    readColours();
    store.tell("theme");
    store.tell("print");
  }, { signal }); // prettier-ignore
  addEventListener("afterprint", () => {
    document.documentElement.classList.remove("printing");
    apply();
    store.tell("print");
  }, { signal }); // prettier-ignore
  apply();
  return () => {
    kept = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try {
      localStorage.setItem("profilemate-theme", kept);
    } catch {
      // as above
    }
    apply();
  };
}

/** A colour with another opacity. */
export function fade(hex, alpha) {
  const value = Number.parseInt(hex.slice(1), 16);
  return `rgba(${value >> 16}, ${(value >> 8) & 255}, ${value & 255}, ${alpha})`;
}
