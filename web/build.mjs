// Bundles the pages: of each one script and one style sheet, no address of anything outside. Run by cmake/web.cmake:
//
//   node web/build.mjs MODULES OUT
//     MODULES  the folder in which `npm ci` has put node_modules
//     OUT      gets NAME.js and NAME.css (to look at) and the bytes of C arrays that src/html/frame.c is made of:
//              report_head.inc, report_tail.inc, trace_head.inc, trace_tail.inc, live.inc, live_policy.inc
//
// The content security policy allows exactly that script and that style sheet, by their hashes: should text of a session
// ever end up as markup, nothing in it runs and nothing is fetched. The live page may also ask its own server.

import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const [modules, out] = process.argv.slice(2).map((word) => resolve(word));
const here = dirname(fileURLToPath(import.meta.url));
const require = createRequire(join(modules, "package.json"));
const esbuild = require("esbuild");

const options = {
  bundle: true,
  minify: true,
  write: false,
  charset: "utf8",
  legalComments: "none",
  target: ["chrome100", "firefox100", "safari15"],
  nodePaths: [join(modules, "node_modules")],
  logLevel: "warning",
};
const bundle = (file) => esbuild.buildSync({ ...options, entryPoints: [join(here, "src", file)], format: "iife" }).outputFiles[0].text;
const hash = (text) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;
const licence = readFileSync(join(modules, "node_modules/uplot/LICENSE"), "utf8").replace(/--/g, "- -");

/** title; plots: uPlot is in it; without: what to do where scripts are off; connect: whom it may ask. */
function page({ script, style, title, plots, without, connect }) {
  // A script element ends at the first </script, whatever it stands in.
  const js = bundle(script).replace(/<\/script/gi, "<\\/script");
  const css = bundle(style).replace(/<\/style/gi, "<\\/style");
  const policy = `default-src 'none'; script-src ${hash(js)}; style-src ${hash(css)}; img-src data:;${connect ? ` connect-src ${connect};` : ""} base-uri 'none'; form-action 'none'`;
  const head = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>${title}</title>
${plots ? `<!-- Plots by uPlot:\n${licence.trim()}\n-->\n` : ""}<style>${css}</style>
</head>
<body>
<div id="app"></div>
<noscript><p>${without}</p></noscript>
`;
  const data = [`<script type="application/json" id="pm-data">`, "</script>\n"];
  const tail = `<script>${js}</script>
</body>
</html>
`;
  return { js, css, policy, head, data, tail };
}

mkdirSync(out, { recursive: true });
const bytes = (text) => Array.from(Buffer.from(text, "utf8")).join(",").replace(/(.{1,110}),/g, "$1,\n") + "\n";
const write = (name, text) => writeFileSync(join(out, name), text);
const here_ = "draws itself with a script that lies inside this file. Allow scripts for it, or see";

for (const [name, what] of Object.entries({
  report: { script: "main.js", style: "page.css", title: "ProfileMate report", plots: true, without: `This report ${here_} <code>profilemate report --text</code>.` },
  trace: { script: "trace/main.js", style: "trace/trace.css", title: "ProfileMate trace", without: `This page ${here_} <code>profilemate trace FILE</code>.` },
  live: { script: "live/main.js", style: "live/live.css", title: "ProfileMate live", plots: true, connect: "'self'", without: `This page ${here_} <code>profilemate top</code>.` },
})) {
  const made = page(what);
  write(`${name}.js`, made.js);
  write(`${name}.css`, made.css);
  if (name === "live") {
    write("live.inc", bytes(made.head + made.tail));
    write("live_policy.inc", bytes(made.policy));
  } else {
    write(`${name}_head.inc`, bytes(made.head + made.data[0]));
    write(`${name}_tail.inc`, bytes(made.data[1] + made.tail));
  }
}
