// The live page: follows the server's states, shows all sessions, one of them, or the report of its last minutes.
// Where it is stands behind the # of the address, so that a reload and the browser's back button do what they should.

import { add, fill, h } from "../dom.js";
import { logo } from "../logo.js";
import { showReport } from "../report.js";
import { readColours, startTheme } from "../theme.js";
import { hideTip } from "../tip.js";
import { History } from "./history.js";
import { listView } from "./list.js";
import { sessionView } from "./session.js";
import { Source } from "./source.js";

const KEYS = [
  ["/", "filter"],
  ["j k", "next, previous server"],
  ["Enter", "open it"],
  ["Backspace", "all servers"],
  ["r", "report of the last minute"],
  ["space", "pause, go on"],
  ["t", "light or dark"],
  ["?", "this help"],
];

const root = document.getElementById("app");
const history = new History();
let state = null; // the newest
let shown = null; // what the views show: behind while paused
let paused = false;
let status = ["connecting"];
let view = null;
let leave = new AbortController(); // of the report that is shown
let asked = false; // for a token

const sessionsOf = (one) => (one?.sessions ?? []).map((session, i) => ({ ...session, id: one.ids?.[i] ?? session.name }));

const source = new Source({
  state: (json) => {
    state = json;
    history.add(sessionsOf(json));
    if (!paused) {
      shown = state;
      first();
      view?.draw();
    }
    document.documentElement.dataset.states = String(Number(document.documentElement.dataset.states ?? 0) + 1);
  },
  status: (word, detail) => {
    status = [word, detail];
    drawStatus();
    if (word === "token") askToken(detail);
    else if (word === "live") tokenBox.close();
  },
});

const app = {
  history,
  sessions: () => sessionsOf(shown),
  waits: () => shown === null,
  open: (id) => (location.hash = `#/session/${encodeURIComponent(id)}`),
  list: () => (location.hash = "#/"),
  report: (id, last) => (location.hash = `#/report/${encodeURIComponent(id)}/${last}`),
  fill: async (id) => {
    const { from_sec: from, engines } = await source.get(`api/sessions/${encodeURIComponent(id)}/seconds`);
    for (const engine of engines) history.of(id, engine.engine).fill(from, engine);
  },
};

/** One server alone is shown at once. */
function first() {
  const all = app.sessions();
  if (all.length === 1 && location.hash === "") window.history.replaceState(null, "", `#/session/${encodeURIComponent(all[0].id)}`), route();
}

// ---- head ----
const pill = h("button.pill.status", { onclick: () => status[0] === "lost" && source.connect() });
const pause = h("button.icon", { "aria-label": "pause", title: "pause (space)", onclick: () => setPaused(!paused) }, "‖");
const help = h("dialog.help", null, h("h2", null, "Keyboard"), h("dl.keys", null, KEYS.map(([keys, what]) => h("div", null, h("dt", null, keys.split(" ").map((key) => h("kbd", null, key))), h("dd", null, what)))), h("p", null, "Figures are of the last ten seconds unless they say otherwise; plots show what happened between two states."), h("form", { method: "dialog" }, h("button.small", { onclick: (event) => (event.preventDefault(), help.close()) }, "Close"))); // prettier-ignore
const theme = h("button.icon", { title: "light or dark (t)", "aria-label": "light or dark" }, "◐");
const header = h(
  "header.top",
  null,
  h("div.top-line", null, h("a.brand", { href: "#/" }, logo(), h("b", null, "ProfileMate")), pill, h("div.spacer"), pause, theme, h("button.icon", { title: "help (?)", "aria-label": "help", onclick: () => help.showModal() }, "?")),
);
const main = h("main.live");

function drawStatus() {
  const [word, detail] = status;
  pill.className = `pill status ${paused ? "paused" : word}`;
  pill.textContent = paused ? "paused" : { connecting: "connecting …", live: "live", token: "a token is needed" }[word] ?? `no connection, trying again in ${Math.max(1, Math.round(detail.wait / 1000))} s`;
  pill.title = word === "lost" ? `${detail.why}; a click tries now` : "";
  root.classList.toggle("stale", word === "lost");
}

function setPaused(to) {
  paused = to;
  pause.textContent = paused ? "▶" : "‖";
  pause.setAttribute("aria-label", paused ? "go on" : "pause");
  if (!paused && state) {
    shown = state;
    view?.draw();
  }
  drawStatus();
}

// ---- the token ----
const tokenField = h("input", { type: "password", autocomplete: "off", "aria-label": "token", spellcheck: "false" });
const tokenSays = h("p");
const tokenGo = () => {
  const token = tokenField.value.trim();
  if (!/^[\x21-\x7e]+$/.test(token)) {
    tokenSays.textContent = "That is no token: it has letters, digits and -._~+/= only.";
    return;
  }
  tokenField.value = "";
  source.setToken(token);
};
const tokenBox = h("dialog.help.token", null, h("h2", null, "This server asks for its token"), tokenSays, h("form.token-line", { onsubmit: (event) => (event.preventDefault(), tokenGo()) }, tokenField, h("button.small", null, "Open"))); // prettier-ignore
tokenBox.addEventListener("cancel", (event) => event.preventDefault());

function askToken(wrong) {
  tokenSays.textContent = wrong && asked ? "That was not it. Try again." : "It stands in the file that `profilemate serve --token-file` was given. This tab keeps it until it is closed.";
  asked = true;
  if (!tokenBox.open) tokenBox.showModal();
  tokenField.focus();
}

// ---- which view ----
async function showReportOf(id, last, signal) {
  fill(main, h("p.quiet", null, `Making the report of the last ${last} s …`));
  let data;
  try {
    data = await source.get(`api/sessions/${encodeURIComponent(id)}/report?last=${last}s`, signal);
  } catch (error) {
    if (!signal.aborted) fill(main, h("section.panel", null, h("p", null, `There is no report: ${error.message}.`), h("button.small", { onclick: () => app.open(id) }, "Back")));
    return;
  }
  if (signal.aborted) return;
  fill(root);
  const tools = [h("button.small", { onclick: () => app.open(id) }, "‹ live"), h("button.small", { onclick: () => route() }, "Make it again")];
  showReport(root, data, { signal, tools });
}

function route() {
  const [, what, id, last] = location.hash.split("/").map(decodeURIComponent);
  leave.abort();
  leave = new AbortController();
  hideTip();
  document.documentElement.removeAttribute("data-ready");
  document.title = "ProfileMate live";
  fill(root, header, main);
  view = null;
  scrollTo(0, 0);
  if (what === "report" && id) showReportOf(id, /^\d+$/.test(last) ? last : "60", leave.signal);
  else view = what === "session" && id ? sessionView(main, app, id) : listView(main, app);
  drawStatus();
}

// ---- keyboard ----
const actions = {
  "/": () => view?.search.focus(),
  j: () => view?.move(1),
  k: () => view?.move(-1),
  Backspace: () => app.list(),
  r: () => {
    const [, what, id] = location.hash.split("/").map(decodeURIComponent);
    if (what === "session" && id) app.report(id, 60);
  },
  " ": () => setPaused(!paused),
  t: () => toggleTheme(),
  "?": () => help.showModal(),
};
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || help.open || tokenBox.open || (!view && event.key !== "Backspace")) return;
  if (event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (event.key === " " && event.target instanceof HTMLButtonElement) return;
  const action = actions[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

readColours();
const toggleTheme = startTheme({ tell: () => view?.draw() });
theme.addEventListener("click", toggleTheme);
addEventListener("hashchange", route);
add(document.body, [help, tokenBox]); // behind the root, so that no other view takes them away
route();
source.connect();
window.profilemate = { source, history, state: () => state, shown: () => shown };
