"""An answer as a table for a terminal, as CSV, as JSON, or as a page that needs nothing beside it."""

from __future__ import annotations

import csv
import html
import io
import json
import textwrap

from profilemate.fleet.library import Query, queries
from profilemate.fleet.running import Answer, Value

__all__ = ["listing", "safe", "shown"]

_WIDE = 40  # of a text in a table for a terminal


def shown(answer: Answer, format: str) -> str:
    return {"table": _table, "csv": _csv, "json": _json, "html": _html}[format](answer)


def listing(query: Query | None) -> str:
    """What can be asked; of one query everything."""
    if query is None:
        width = max(map(len, queries()))
        return "".join(f"{each.name:<{width}}  {each.sentence}\n" for each in queries().values())
    lines = [f"{query.name}: {query.sentence}", "", *textwrap.wrap(query.prose, 100), "", "Parameters:"]
    width = max(len(each.name) for each in query.parameters)
    for each in query.parameters:
        lines.append(f"  {each.name:<{width}}  {each.description} ({each.default or 'all'})")
    return "\n".join([*lines, "", f"Reads: {', '.join(query.reads)}"]) + "\n"


def _cell(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        size = abs(value)
        return f"{value:,.0f}" if size >= 1e5 else f"{value:,.1f}" if size >= 1e3 else f"{value:.3f}"
    return value


def _is_number(value: Value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def safe(text: str) -> str:
    """Names come from elsewhere: they must not drive the terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _safe(text: str) -> str:
    text = safe(text)
    return text if len(text) <= _WIDE else text[: _WIDE - 1] + "…"


def _numeric(answer: Answer) -> list[bool]:
    """Which columns are of numbers. Steps, layers and the like are counted too."""
    return [
        any(_is_number(row[i]) for row in answer.rows)
        and all(row[i] is None or _is_number(row[i]) for row in answer.rows)
        for i in range(len(answer.columns))
    ]


def _table(answer: Answer) -> str:
    """As wide as it is; many columns for few rows stand upright."""
    if not answer.rows:
        return f"{answer.query.sentence}\nNothing: no rows in {safe(answer.url)} that answer it.\n"
    cells = [[_safe(_cell(value)) for value in row] for row in answer.rows]
    widths = [max(len(name), *(len(row[i]) for row in cells)) for i, name in enumerate(answer.columns)]
    if sum(widths) + 2 * len(widths) > 200 and len(cells) <= 12:
        return _upright(answer, cells)
    numeric = _numeric(answer)
    lines = []
    for row in [answer.columns, *cells]:
        padded = (
            f"{text:>{w}}" if right else f"{text:<{w}}" for text, w, right in zip(row, widths, numeric, strict=True)
        )
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines) + "\n"


def _upright(answer: Answer, cells: list[list[str]]) -> str:
    """A column for each row of the answer."""
    name_width = max(map(len, answer.columns))
    widths = [max(map(len, row)) for row in cells]
    lines = []
    for i, name in enumerate(answer.columns):
        padded = "  ".join(f"{row[i]:>{w}}" for row, w in zip(cells, widths, strict=True))
        lines.append(f"{name:<{name_width}}  {padded}".rstrip())
    return "\n".join(lines) + "\n"


def _csv(answer: Answer) -> str:
    """All digits; nothing where nothing is known; true and false."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(answer.columns)
    for row in answer.rows:
        writer.writerow("" if v is None else str(v).lower() if isinstance(v, bool) else v for v in row)
    return out.getvalue()


def _json(answer: Answer) -> str:
    whole = {
        "query": answer.query.name,
        "answers": answer.query.sentence,
        "parameters": {name: literal.strip("'") for name, literal in answer.parameters.items()},
        "engine": answer.engine,
        "lake": answer.url,
        "seconds": round(answer.seconds, 3),
        "left_out": answer.left_out,
        "rows": answer.dicts(),
    }
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: #1b1f24; background: #fff; }
h1 { font-size: 1.3rem; margin: 0 0 .3rem; } p { max-width: 60rem; margin: .3rem 0 1rem; }
.of { color: #57606a; font-size: .85rem; } .wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .85rem; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #d8dee4; text-align: left; white-space: nowrap; }
th { position: sticky; top: 0; background: #f6f8fa; } .n { text-align: right; } .yes { background: #ffebe9; }
@media (prefers-color-scheme: dark) {
  body { background: #0d1117; color: #e6edf3; } th { background: #161b22; } th, td { border-color: #30363d; }
  .of { color: #9198a1; } .yes { background: #4c1d1d; } }
"""


def _html(answer: Answer) -> str:
    """Escaped, without a script; a row that is flagged (straggler, regression) stands out."""
    numeric = _numeric(answer)
    escape = html.escape
    head = "".join(
        f'<th scope="col"{" class=n" if right else ""}>{escape(name.replace("_", " "))}</th>'
        for name, right in zip(answer.columns, numeric, strict=True)
    )
    body = []
    for row in answer.rows:
        cells = "".join(
            f"<td{' class=n' if right else ''}>{escape(_cell(value))}</td>"
            for value, right in zip(row, numeric, strict=True)
        )
        body.append(f"<tr{' class=yes' if any(value is True for value in row[-1:]) else ''}>{cells}</tr>")
    given = ", ".join(
        f"{name} = {literal.strip(chr(39))}" for name, literal in answer.parameters.items() if literal != "''"
    )
    gone = "".join(f"<li>{escape(path)}: {escape(why)}</li>" for path, why in answer.left_out.items())
    table = f"<table><thead><tr>{head}</tr></thead><tbody>\n{chr(10).join(body)}\n</tbody></table>"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(answer.query.name)}: {escape(answer.query.sentence)}</title><style>{_STYLE}</style>"
        "</head><body>\n"
        f"<h1>{escape(answer.query.sentence)}</h1><p>{escape(answer.query.prose)}</p>\n"
        f'<p class="of">{escape(answer.url)} by {escape(answer.engine)}; {escape(given)}; {len(answer.rows)} rows</p>\n'
        f"{f'<p>Left out, because they cannot be read:</p><ul>{gone}</ul>' if gone else ''}"
        f'<div class="wide">{table if answer.rows else "<p>No rows.</p>"}</div>\n</body></html>\n'
    )
