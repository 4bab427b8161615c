"""Runs a query of the library on an engine."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from profilemate.fleet.engines import Engine, Lake, open_engine, views
from profilemate.fleet.library import Query, query

__all__ = ["Answer", "run"]

_LEFT_OUT_MAX = 100  # damaged files, beyond which something else is wrong

Value = str | int | float | bool | None


@dataclass(frozen=True)
class Answer:
    """What a query gave, and of what."""

    query: Query
    parameters: dict[str, str]
    """As SQL literals."""
    engine: str
    url: str
    columns: list[str]
    rows: list[tuple[Value, ...]]
    seconds: float
    left_out: dict[str, str]
    """Files that could not be read, and why: the answer is that of the others."""

    def dicts(self) -> list[dict[str, Value]]:
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def _plain(value: Any) -> Value:
    """The same of both engines: no decimals, no NaN."""
    if isinstance(value, Decimal):
        value = int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, (date, datetime)):
        return value.isoformat()
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return str(value)


def run(
    name: str,
    url: str | os.PathLike[str],
    on: str = "duckdb",
    *,
    engine: Engine | None = None,
    master: str | None = None,
    memory: str | None = None,
    **parameters: object,
) -> Answer:
    """Answers a query over a lake. With an engine that is open already, on, master and memory are not looked at.

    ValueError and FileNotFoundError say in a sentence what is wrong with what was given, EngineMissing what to install.
    """
    asked = query(name)
    asked.values(parameters)
    lake = Lake(url)
    lake.check()
    if engine is not None:
        return _run(asked, lake, engine, parameters)
    with open_engine(on, master, memory) as opened:
        return _run(asked, lake, opened, parameters)


def _run(asked: Query, lake: Lake, engine: Engine, parameters: Mapping[str, object]) -> Answer:
    values = asked.values(parameters)
    began = time.monotonic()
    days = values["since"].strip("'"), values["until"].strip("'")
    while True:
        try:
            views(engine, lake, asked.reads, *days)
            columns, rows = engine.query(asked.sql(parameters))
            break
        except Exception as error:
            if len(lake.left_out) >= _LEFT_OUT_MAX or not lake.leave_out(error, engine, asked.reads, *days):
                raise
    plain = [tuple(_plain(value) for value in row) for row in rows]
    return Answer(asked, values, engine.name, lake.url, columns, plain, time.monotonic() - began, lake.left_out)
