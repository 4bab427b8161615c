"""The documents under test: their fenced blocks, and what the comments above them ask of the runner.

A block of ```bash or ```python is run. Where it is run says a comment on the line above:

    (none)                          in a copy of the folder of a session with the preset full, exported
    <!-- test: session simple -->   the same of the preset simple
    <!-- test: traces -->           in a folder with traces of torch's profiler, with the Python package to be imported
    <!-- test: package -->          in the folder of a session, with the Python package and all that reads its tables
    <!-- test: checkout -->         in the checkout
    <!-- test: serve -->            starts a server that stays: MODEL becomes a tiny model; requests are sent, and
                                    Ctrl+C is pressed when the `while serving` blocks that follow have been run
    <!-- test: serve once -->       the same with a command that ends by itself
    <!-- test: while serving -->    beside the server above it
    <!-- test: exit N -->           ends with N instead of 0 (may stand after a comma: `checkout, exit 1`)
    <!-- test: slow -->             not in `./test quick` (serve always is)
    <!-- test: skip: REASON -->     not run

Other blocks may be held against what really happens:

    <!-- test: console -->          each line of it, with … for anything, is on standard error of the server above it
    <!-- test: header FILE -->      its first line is that of the file in the session (`header simple FILE`)
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUN = ("bash", "sh", "python")
WORDS = re.compile(
    r"(session( simple| full)?|traces|package|checkout|serve( once)?|while serving|exit \d+|slow|console|"
    r"header( simple)? \S+|skip: .+)"
)


@dataclass
class Block:
    document: str
    line: int  # of the opening fence
    language: str
    text: str
    wants: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.document}:{self.line}"

    def asks(self, word: str) -> bool:
        return any(want == word or want.startswith(word + " ") for want in self.wants)

    @property
    def skipped(self) -> str | None:
        return next((want[6:] for want in self.wants if want.startswith("skip: ")), None)

    @property
    def exit_code(self) -> int:
        return next((int(want[5:]) for want in self.wants if want.startswith("exit ")), 0)

    @property
    def runs(self) -> bool:
        return self.language in RUN


def documents() -> list[Path]:
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def wishes(text: str, where: str) -> list[str]:
    """The words of a comment; a wrong one is a mistake of the document."""
    text = text.strip()
    wants = [text] if text.startswith("skip:") else [word.strip() for word in text.split(",")]
    for want in wants:
        if not WORDS.fullmatch(want):
            raise ValueError(f"{where}: the runner does not know `test: {want}`")
    return wants


def parse(path: Path) -> list[Block]:
    found: list[Block] = []
    document, wants, fence, indent, block = str(path.relative_to(ROOT)), [], "", "", None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        bare = line.strip()
        if block is not None:
            if bare == fence:
                found.append(block)
                block = None
            else:
                block.text += line.removeprefix(indent) + "\n"
        elif match := re.match(r"(\s*)(`{3,}|~{3,})\s*([\w+-]*)", line):
            indent, fence = match[1], match[2]
            block = Block(document, number, match[3], "", wants)
            wants = []
        elif match := re.fullmatch(r"<!-- test: (.*) -->", bare):
            wants = wishes(match[1], f"{document}:{number}")
        elif bare and wants:
            raise ValueError(f"{document}:{number}: a `test:` comment stands above something that is no block")
    if block is not None:
        raise ValueError(f"{document}:{block.line}: this block is never closed")
    return found


@dataclass
class Unit:
    """What is run together: one block, or a server with the blocks that are run beside it."""

    block: Block
    beside: list[Block] = field(default_factory=list)
    console: list[Block] = field(default_factory=list)

    @property
    def serves(self) -> bool:
        return self.block.asks("serve")

    @property
    def slow(self) -> bool:
        return self.serves or self.block.asks("slow")


def units(path: Path) -> list[Unit]:
    made: list[Unit] = []
    for block in parse(path):
        server = next((unit for unit in reversed(made) if unit.serves), None)
        if block.asks("while serving") or block.asks("console"):
            if server is None:
                raise ValueError(f"{block.name}: there is no server above it")
            (server.console if block.asks("console") else server.beside).append(block)
        elif block.runs:
            made.append(Unit(block))
    return made


def all_units() -> list[Unit]:
    return [unit for path in documents() for unit in units(path)]
