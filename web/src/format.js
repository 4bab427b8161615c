// Numbers for people. Times come in microseconds.

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const count = (value) => grouped.format(value).replace(/,/g, "\u202f");

/** At most three digits that matter: 1.23, 12.3, 123, 1.2k, 3.4M. */
export function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e9) return `${digits(value / 1e9)}G`;
  if (size >= 1e6) return `${digits(value / 1e6)}M`;
  if (size >= 1e4) return `${digits(value / 1e3)}k`;
  if (size >= 1000) return count(value);
  return digits(value);
}

export function digits(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 100) return value.toFixed(0);
  if (size >= 10) return value.toFixed(1).replace(/\.0$/, "");
  if (size >= 1) return value.toFixed(2).replace(/\.?0+$/, "");
  return value.toPrecision(2).replace(/\.?0+$/, (tail) => (tail.startsWith(".") ? "" : tail));
}

export const percent = (value, decimals = 1) =>
  value === null || value === undefined || Number.isNaN(value) ? "–" : `${value.toFixed(value >= 99.95 ? 0 : decimals)} %`;

/** A duration with its unit: 850 µs, 12.3 ms, 4.56 s, 3 min 20 s. */
export function span(us) {
  if (us === null || us === undefined || Number.isNaN(us)) return "–";
  const size = Math.abs(us);
  if (size < 1) return us === 0 ? "0" : `${digits(us * 1000)} ns`;
  if (size < 1000) return `${digits(us)} µs`;
  if (size < 1e6) return `${digits(us / 1e3)} ms`;
  if (size < 120e6) return `${digits(us / 1e6)} s`;
  const seconds = Math.round(us / 1e6);
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

/** A moment since the session's start, as fine as marks a tenth of the view apart. */
export function moment(us, view = 1e7) {
  const seconds = us / 1e6;
  if (view >= 900e6) return clock(seconds);
  const step = view / 1e7;
  const decimals = Math.max(0, Math.min(6, Math.ceil(-Math.log10(Math.max(step, 1e-9)) - 0.0001)));
  return `${seconds.toFixed(decimals)} s`;
}

/** A moment by itself, with no view round it. */
export const when = (us) => (us < 3600e6 ? `${(us / 1e6).toFixed(2)} s` : clock(us / 1e6));

function clock(seconds) {
  const whole = Math.round(seconds);
  const two = (value) => String(value).padStart(2, "0");
  return `${Math.floor(whole / 3600)}:${two(Math.floor((whole % 3600) / 60))}:${two(whole % 60)}`;
}

/** Round places for the marks of an axis. */
export function ticks(from, to, most) {
  const raw = (to - from) / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((k) => k * power).find((k) => k >= raw) ?? power * 10;
  const marks = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) marks.push(at);
  return marks;
}

const CLOCK_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

/** The same for times in microseconds: whole minutes and hours where the span is long. */
export function timeTicks(from, to, most) {
  const raw = (to - from) / 1e6 / Math.max(1, most);
  if (raw < 1) return ticks(from, to, most);
  const step = (CLOCK_STEPS.find((k) => k >= raw) ?? 86400) * 1e6;
  const marks = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) marks.push(at);
  return marks;
}

/** The same of milliseconds, as the reports have them. */
export const ms = (value) => (value === null || value === undefined ? "–" : span(value * 1000));

/** Bytes as people say them. */
export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  let left = Math.abs(value);
  for (; left >= 1024 && unit + 1 < units.length; unit++) left /= 1024;
  return `${value < 0 ? "−" : ""}${digits(left)} ${units[unit]}`;
}
