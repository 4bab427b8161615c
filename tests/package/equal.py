"""Tables held against the program's CSV, value by value, whatever library read them."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def read_csv(path: Path) -> dict[str, list[str]]:
    with path.open(newline="", encoding="utf-8") as lines:
        rows = csv.reader(lines)
        names = next(rows)
        columns: list[list[str]] = [[] for _ in names]
        for row in rows:
            for column, value in zip(columns, row, strict=True):
                column.append(value)
    return dict(zip(names, columns, strict=True))


def is_missing(value: Any) -> bool:
    return value is None or type(value).__name__ == "NAType" or (isinstance(value, float) and math.isnan(value))


def same(text: str, value: Any) -> bool:
    if is_missing(value):
        return text == ""
    if isinstance(value, str):
        return text == value
    if text == "":
        return False
    if isinstance(value, bool) or type(value).__name__ == "bool_":
        return text == str(int(value))
    if isinstance(value, float) or type(value).__name__ == "float64":
        return float(text) == float(value)
    return int(text) == int(value)


def assert_equal(path: Path, columns: dict[str, Sequence[Any]]) -> int:
    """Every column of the CSV is there in its order and has its values; how many values were looked at."""
    expected = read_csv(path)
    assert list(columns) == list(expected)
    count = 0
    for name, texts in expected.items():
        values = list(columns[name])
        assert len(values) == len(texts), name
        for row, (text, value) in enumerate(zip(texts, values, strict=True)):
            assert same(text, value), f"{path.name}: {name}, row {row}: {text!r} in the CSV, {value!r} in the table"
        count += len(texts)
    return count
