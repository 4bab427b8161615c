"""What the static checks share: how each file of src/ is compiled, running a tool over all of them, and known.txt.

The commands are those of the build under test (compile_commands.json), without what only gcc or only a linker takes.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("PM_BUILD", ROOT / "build" / "release")).resolve()
JOBS = os.cpu_count() or 1
ONLY_GCC = {"-Wlogical-op", "-Wduplicated-cond", "-Wjump-misses-init", "-Wno-tsan"}


@dataclass(frozen=True)
class Unit:
    """A file of src/ and the words that it is compiled with: no compiler, no output, no input."""

    file: str  # below the repository
    words: tuple[str, ...]


def units() -> list[Unit]:
    """Each file once: one that two targets compile is read with the flags of the first."""
    found: dict[str, Unit] = {}
    for entry in json.loads((BUILD / "compile_commands.json").read_text()):
        file = Path(entry["directory"], entry["file"]).resolve()
        if not file.is_relative_to(ROOT / "src") or not file.exists():
            continue
        words = shlex.split(entry["command"])
        while words and not words[0].startswith("-"):
            words.pop(0)  # the compiler, behind ccache or not
        kept, skip = [], False
        for word in words:
            if not skip and word not in ("-c", "-MD") and not word.endswith(file.name):
                skip = word in ("-o", "-MT", "-MF")
                if not skip:
                    kept.append(word)
            else:
                skip = False
        name = str(file.relative_to(ROOT))
        found.setdefault(name, Unit(name, tuple(kept)))
    return sorted(found.values(), key=lambda unit: unit.file)


def database(found: list[Unit], folder: Path) -> None:
    """Writes a compile_commands.json of the units for clang's tools."""
    entries = [
        {"directory": str(ROOT), "file": unit.file, "arguments": [
            "clang", *(word for word in unit.words if word not in ONLY_GCC), "-Wno-unknown-warning-option", "-c", unit.file,
        ]}
        for unit in found
    ]  # fmt: skip
    (folder / "compile_commands.json").write_text(json.dumps(entries))


def run(*words: str, **more) -> subprocess.CompletedProcess:
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=900, **more)


def over(items, function) -> str:
    """What the function prints for each item, as many at a time as there are processors."""
    with ThreadPoolExecutor(JOBS) as pool:
        return "".join(pool.map(function, items))


def version(tool: str) -> str:
    """The first number with a point that the tool says of itself, "" where there is no such tool."""
    if shutil.which(tool) is None:
        return ""
    said = re.search(r"(?:version|Cppcheck|\)) (\d+\.\d+)", run(tool, "--version").stdout)
    return said.group(1) if said else "?"


def known(tool: str) -> dict[tuple[str, str, str], str]:
    """known.txt's rows of a tool: (file, function, check) to the reason."""
    rows = {}
    for line in (ROOT / "tests/static/known.txt").read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 5 and cells[0] == tool:
            rows[cells[1], cells[2], cells[3]] = cells[4]
    return rows


def function_at(file: str, line: int) -> str:
    """The function whose body holds a line: the last one that began in the first column before it."""
    name = ""
    for text in (ROOT / file).read_text().splitlines()[:line]:
        if re.match(r"[a-zA-Z_]", text) and not text.rstrip().endswith(";"):
            if names := re.findall(r"(\w+)\(", text):
                name = next((each for each in names if each not in ("PM_PRINTF", "__attribute__")), name)
    return name


def judge(tool: str, found: dict[tuple[str, str, str], str]) -> str:
    """What is wrong, as a text: findings that known.txt does not have, and rows of it that nothing is found for."""
    rows = known(tool)
    wrong = [text for key, text in found.items() if key not in rows]
    wrong += [f"known.txt: {' | '.join(key)}: is not found any more, take the row out" for key in rows if key not in found]
    return "\n".join(wrong)
