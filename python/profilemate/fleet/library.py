"""The .sql files of this folder: what each one answers, its parameters, and its text with values in their places.

A file begins with a sentence; then prose; then `param NAME TYPE DEFAULT  SENTENCE` and `reads TABLE, …`. In the text
`:name` stands for a parameter. Values become literals here, so that the same text runs on every engine, and may be
printed for one's own; what could be more than a literal is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Parameter", "Query", "queries", "query"]

_FOLDER = Path(__file__).resolve().parent
_PARAMETER = re.compile(r"-- param (\w+) (text|number|whole|[\w|]+) (\S+)  (.+)")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_TEXT_MAX = 500


@dataclass(frozen=True)
class Parameter:
    """What may be given to a query."""

    name: str
    type: str
    """text, number, whole (a number from 0), or the words that it may be: a|b."""
    default: str
    description: str

    def literal(self, value: object) -> str:
        """The value as SQL; ValueError, in a sentence, when it is none."""
        text = str(value)
        if self.type == "whole":
            if not text.isascii() or not text.isdecimal() or len(text) > 9:
                raise ValueError(f"{self.name}={text}: not a whole number")
            return str(int(text))
        if self.type == "number":
            try:
                number = float(text)
            except ValueError:
                number = math.nan
            if not math.isfinite(number) or isinstance(value, bool):
                raise ValueError(f"{self.name}={text}: not a number")
            return str(int(number)) if number == int(number) and abs(number) < 2**53 else f"{number!r}"
        if "|" in self.type and text not in self.type.split("|"):
            raise ValueError(f"{self.name}={text}: give {', '.join(self.type.split('|'))}")
        if self.name in ("since", "until") and not _DAY.fullmatch(text):
            raise ValueError(f"{self.name}={text}: not a day, give it as 2026-11-23")
        if len(text) > _TEXT_MAX or not text.isprintable() or "'" in text or "\\" in text:
            raise ValueError(
                f"{self.name}: a text of at most {_TEXT_MAX} characters without quotes, backslashes and"
                " control characters"
            )
        return f"'{text}'"


@dataclass(frozen=True)
class Query:
    """A question."""

    name: str
    sentence: str
    """What it answers."""
    prose: str
    """How, in some sentences."""
    parameters: tuple[Parameter, ...]
    reads: tuple[str, ...]
    """Tables of the lake."""
    text: str
    """As it stands in the file."""

    def values(self, given: Mapping[str, object]) -> dict[str, str]:
        """All parameters as SQL literals; ValueError for one that is unknown or no value."""
        known = {each.name: each for each in self.parameters}
        for name in given:
            if name not in known:
                raise ValueError(f"{self.name} has no parameter {name}, it has {', '.join(known)}")
        return {name: each.literal(given.get(name, each.default)) for name, each in known.items()}

    def sql(self, given: Mapping[str, object] | None = None) -> str:
        """The statement, with values in their places."""
        values = self.values(given or {})
        body = self.text[self.text.index("\nWITH ") + 1 :]
        return re.sub(r":([a-z]\w*)", lambda match: values[match[1]], body)


def _parse(path: Path) -> Query:
    text = path.read_text(encoding="utf-8")
    sentence = ""
    prose: list[str] = []
    parameters: list[Parameter] = []
    reads: tuple[str, ...] = ()
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        if match := _PARAMETER.fullmatch(line):
            name, type, default, description = match.groups()
            parameters.append(Parameter(name, type, "" if default == "''" else default, description))
        elif line.startswith("-- reads "):
            reads = tuple(line[9:].split(", "))
        elif not sentence:
            sentence = line[3:]
        else:
            prose.append(line[3:])
    return Query(path.stem, sentence, " ".join(" ".join(prose).split()), tuple(parameters), reads, text)


@cache
def _all() -> dict[str, Query]:
    return {path.stem: _parse(path) for path in sorted(_FOLDER.glob("*.sql"))}


def queries() -> dict[str, Query]:
    """All of them by name."""
    return dict(_all())


def query(name: str) -> Query:
    """One of them; ValueError, in a sentence, when there is no such."""
    try:
        return _all()[name]
    except KeyError:
        raise ValueError(f"there is no query {name}, there are {', '.join(_all())}") from None
