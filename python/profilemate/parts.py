"""Sessions in parts: what the Parquet lake (lake.py) and the Spark data source (spark.py) have in common.

A session's tables come from sources (a process, an engine, a worker of one), and each row has a position in its source
that never changes (src/view/table_part.h): so a table may be split among machines, and what came since the last look be
told from what was there before. Rows come as they are in a lake (docs/LAKE.md): signed numbers, and `time`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from profilemate import _reader

__all__ = [
    "END",
    "REPEATED",
    "Source",
    "Survey",
    "batches",
    "find",
    "lake_schema",
    "notes",
    "quote",
    "settled",
    "survey",
    "table_schema",
]

END = 2**64 - 1
"""The position after all rows."""

NOT_OVER = 2**62
"""The position of requests that are not over."""

REPEATED = frozenset({"request_open", "moe_totals", "graph_usage"})
"""Tables that say again, at the head of each segment, what was said before."""

_INT32 = {pa.uint8(), pa.uint16(), pa.int8(), pa.int16()}
_INT64 = {pa.uint32(), pa.uint64()}
_NARROW = frozenset({"engine", "rank", "pid"})
_TIME = pa.timestamp("us", tz="UTC")
# The moment of a row, by the first of these that it has; and when a request came.
_MOMENT = "timestamp_sec"
_CAME = ("arrived_sec", "queued_sec", "started_sec", "finished_sec")


@dataclass(frozen=True)
class Source:
    """Where rows of a table come from."""

    table: str
    name: str
    engine: int
    """Number of the engine, -1 where each row tells its own."""
    rank: int
    over: bool
    """No more rows will come."""
    cuts: tuple[tuple[int, int], ...]
    """Positions at which it may well be cut, and since when (CLOCK_MONOTONIC) what follows was recorded."""


@dataclass(frozen=True)
class Survey:
    """What a session has, as one look found it."""

    path: Path
    name: str
    token: str
    state: str
    start_real_ns: int
    start_mono_ns: int
    engines: tuple[dict[str, Any], ...]
    processes: tuple[dict[str, Any], ...]
    sources: tuple[Source, ...]
    notes: tuple[str, ...]

    @property
    def key(self) -> str:
        """Different for every session there is: the column `session` of a lake."""
        return f"{self.name}-{self.token[:8]}"

    @property
    def host(self) -> str:
        return self.attribute("host") or "unknown"

    @property
    def over(self) -> bool:
        return self.state in ("ended", "killed")

    @property
    def last_mono_ns(self) -> int:
        return max((process["last_mono_ns"] for process in self.processes), default=self.start_mono_ns)

    @property
    def tables(self) -> list[str]:
        return list(dict.fromkeys(source.table for source in self.sources))

    def attribute(self, key: str) -> str | None:
        """What the first process that has the attribute says."""
        return next((each["attributes"][key] for each in self.processes if key in each["attributes"]), None)


def survey(path: str | os.PathLike[str]) -> Survey:
    """Looks at a session. OSError and ValueError say what is wrong with it, as does a session with nothing to read."""
    found = _reader.survey(os.fsencode(path))
    if not found["processes"] and found["notes"]:
        raise ValueError(f"{os.fspath(path)}: none of its record files can be read: {found['notes'][0]}")
    sources = tuple(
        Source(
            each["table"], each["source"], each["engine"], each["rank"], each["over"],
            tuple((position, at) for position, at in each["cuts"]),
        )
        for each in found["sources"]
        if each["table"] not in REPEATED
    )  # fmt: skip
    return Survey(
        Path(path), found["name"], found["token"], found["state"], found["start_real_ns"], found["start_mono_ns"],
        tuple(found["engines"]), tuple(found["processes"]), sources, tuple(found["notes"]),
    )  # fmt: skip


def find(meant: str, dir: str | None = None) -> list[Path]:
    """The sessions that a word means: a folder of sessions means all of them, in order of their names; "" the
    newest; else as open()."""
    folder = Path(meant)
    if meant and folder.is_dir() and not (folder / "session").exists():
        inside = sorted(each for each in folder.iterdir() if (each / "session").is_file() and not each.is_symlink())
        if inside:
            return inside
    return [Path(os.fsdecode(_reader.resolve(os.fsencode(meant) or None, os.fsencode(dir) if dir else None)))]


def notes(path: str | os.PathLike[str]) -> list[str]:
    """What of a session cannot be read, a sentence each: every record is looked at."""
    return list(_reader.notes(os.fsencode(path)))


def settled(of: Survey, source: Source, start: int) -> int:
    """Rows before this position are there and read the same for ever; END where the source is over."""
    if source.over:
        return END
    return int(_reader.settled(os.fsencode(of.path), source.table.encode(), source.name.encode(), start))


def _lake_field(field: pa.Field) -> pa.Field:
    kind = field.type
    if field.name in _NARROW or kind in _INT32:
        kind = pa.int32()
    elif kind in _INT64:
        kind = pa.int64()
    return pa.field(field.name, kind, nullable=True, metadata=field.metadata)


def _time_field(table: str) -> pa.Field:
    what = "When it arrived, else when it was queued" if table == "requests" else "The row's moment"
    what += ", by the host's wall clock at the session's start."
    return pa.field("time", _TIME, metadata={"unit": "us", "kind": "time", "description": what})


def lake_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of a session's table as it is in a lake; the position is left out."""
    fields = [_lake_field(field) for field in schema if field.name != "position"]
    table = (schema.metadata or {}).get(b"profilemate.table", b"").decode()
    timed = table == "requests" or _MOMENT in schema.names
    return pa.schema([_time_field(table), *fields] if timed else fields, metadata=schema.metadata)


def table_schema(of: Survey, table: str) -> pa.Schema:
    source = next(each for each in of.sources if each.table == table)
    stream = _reader.part(os.fsencode(of.path), table.encode(), source.name.encode(), 0, 0, None, 1)
    return lake_schema(pa.RecordBatchReader._import_from_c_capsule(stream).schema)


def _signed(column: pa.Array, field: pa.Field) -> pa.Array:
    if column.type == field.type:
        return column
    if column.type == pa.uint64():
        return column.view(pa.int64())  # the same bits, and no copy
    return column.cast(field.type)


def _moments(seconds: pa.Array, start_us: int) -> pa.Array:
    us = pc.cast(pc.round(pc.multiply(seconds, 1e6)), pa.int64())
    return pc.add(us, pa.scalar(start_us, pa.int64())).cast(_TIME)


def _convert(batch: pa.RecordBatch, schema: pa.Schema, start_us: int) -> pa.RecordBatch:
    columns = []
    for field in schema:
        if field.name != "time":
            columns.append(_signed(batch.column(field.name), field))
        elif _MOMENT in batch.schema.names:
            columns.append(_moments(batch.column(_MOMENT), start_us))
        else:
            columns.append(_moments(pc.coalesce(*(batch.column(name) for name in _CAME)), start_us))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def batches(
    of: Survey, source: Source, start: int, end: int, *, rows: int, columns: Sequence[str] | None = None
) -> Iterator[tuple[pa.RecordBatch, pa.Array]]:
    """Rows of a source from one position to another, as in a lake, with their positions. columns None: all, else
    those that the table has."""
    asked = None
    if columns is not None:
        asked = {name for name in columns if name != "time"}
        if "time" in columns:
            asked |= set(_CAME if source.table == "requests" else (_MOMENT,))
    stream = _reader.part(
        os.fsencode(of.path), source.table.encode(), source.name.encode(), start, end,
        None if asked is None else [name.encode() for name in asked], rows,
    )  # fmt: skip
    with pa.RecordBatchReader._import_from_c_capsule(stream) as reader:
        schema = lake_schema(reader.schema)
        if columns is not None:
            fields = [
                _time_field(source.table) if name == "time" else schema.field(name)
                for name in columns
                if name == "time" or name in schema.names
            ]
            schema = pa.schema(fields, metadata=schema.metadata)
        start_us = of.start_real_ns // 1000
        for batch in reader:
            yield _convert(batch, schema, start_us), batch.column("position")


def quote(text: str) -> str:
    """A partition's value as a folder's name has it: what Hive, Spark and DuckDB read back."""
    safe = re.sub(r"[^A-Za-z0-9._@+-]", lambda match: "".join(f"%{byte:02X}" for byte in match.group(0).encode()), text)
    return re.sub(r"^\.", "%2E", safe) or "unknown"
