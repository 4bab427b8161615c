"""The tables of the documents that the source says already: which hooks, commands and settings there are.

    python3 tests/docs/tables.py --write     brings the documents up to date

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. test_tables.py fails where one is out of date.
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLACE = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->)", re.S)


def rows_of(path: Path, macro: str) -> list[list[str]]:
    """The arguments of each row of an X-macro file."""
    text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    inner = re.findall(rf"^{macro}\((.*)\)\s*$", text, re.M)
    return [[cell.strip() for cell in row] for row in csv.reader(inner, skipinitialspace=True, escapechar="\\")]


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def hooks() -> str:
    """One row per place in vLLM; probes that are in the registry only."""
    places: dict[tuple[str, str], list] = {}
    for (probe,) in rows_of(ROOT / "src/probe/probes.def", "X"):
        path = ROOT / "src/probe" / f"{probe}.def"
        for row in rows_of(path, "T") if path.exists() else []:
            _hook, module, name, _kind, _flags, since, quiet = row
            place = places.setdefault((module, name), [[], since, []])
            place[0].append(probe)
            if quiet != "NULL" and quiet not in place[2]:
                place[2].append(quiet)
    return table(
        ["module of vLLM", "hook", "since", "probe", "not called when"],
        [
            [f"`{module}`", f"`{name}`", since.removesuffix("+"), ", ".join(probes), "; or ".join(quiet)]
            for (module, name), (probes, since, quiet) in places.items()
        ],
    )


def commands() -> str:
    return table(
        ["command", "what it does"],
        [[f"`profilemate {row[0]}`", row[-1]] for row in rows_of(ROOT / "src/cmd/cmds.def", "X")],
    )


def settings() -> str:
    def shown(default: str) -> str:
        return f"`{default}`" if default else ""

    return table(
        ["`VLLM_PROFILING_…`", "option of `run`", "default", "what"],
        [
            [f"`{row[2]}`", f"`--{row[3]}`", shown(row[4]), row[-1]]
            for row in rows_of(ROOT / "src/base/settings.def", "X")
        ],
    )


def rules() -> str:
    return table(
        ["rule", "area", "what it says"],
        [[f"[`{name}`](#{name})", area, says] for name, area, _, says in rows_of(RULES, "PM_RULE")],
    )


def limits() -> str:
    return table(
        ["threshold", "value", "what it means"],
        [[f"`{name}`", f"{value} {unit}".strip(), says] for name, value, unit, says in rows_of(RULES, "PM_LIMIT")],
    )


def metrics() -> str:
    """What `export --format openmetrics` and `serve` have; a family of several rows is one."""
    families: dict[str, list[str]] = {}
    for path, macro, where in (
        (ROOT / "src/view/openmetrics.def", "M", "`export`, `serve`"),
        (ROOT / "src/serve/metrics.def", "S", "`serve`"),
    ):
        for row in rows_of(path, macro):
            kind = {"COUNTER": "counter", "TIME": "histogram", "INFO": "info"}.get(row[1], "gauge")
            name = row[0] + {"counter": "_total", "info": "_info"}.get(kind, "")
            families.setdefault(name, [f"`profilemate_{name}`", kind, where, row[-1]])
    return table(["metric", "type", "of", "what"], list(families.values()))


RULES = ROOT / "src/explain/rules.def"
TABLES = {"hooks": hooks, "commands": commands, "settings": settings, "rules": rules, "limits": limits, "metrics": metrics}


def updated(text: str) -> str:
    return PLACE.sub(lambda match: match[1] + TABLES[match[2]]() + match[4], text)


def documents() -> list[Path]:
    return [path for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")) if PLACE.search(path.read_text())]


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    for document in documents():
        before = document.read_text()
        if (after := updated(before)) != before:
            document.write_text(after)
            print(document.relative_to(ROOT))
