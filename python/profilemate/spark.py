"""Sessions as a data source of Apache Spark 4, without a lake in between:

    from profilemate.spark import ProfilemateDataSource

    spark.dataSource.register(ProfilemateDataSource)
    steps = spark.read.format("profilemate").option("table", "steps").load("/data/sessions/session_*")

Sessions are listed where the query is planned and read by the executors, in parts of one or more segments of a record
file, through the C reader as Arrow batches. Tables and columns are those of a lake (docs/LAKE.md), with `host` and
`session` behind them. With the option `pushdown`, and Spark's own configuration
spark.sql.python.filterPushdown.enabled (4.1 and later), filters on time, host, session and engine leave out whole
sessions and parts; Spark applies each of them again. The package has to be there on every executor, and the sessions
at the same path.
"""

from __future__ import annotations

import glob
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql.datasource import DataSource, DataSourceReader, InputPartition
from pyspark.sql.types import (
    BooleanType,
    DataType,
    DoubleType,
    IntegerType,
    LongType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from profilemate import lake_tables, parts
from profilemate.parts import Source, Survey

__all__ = ["ProfilemateDataSource"]

_log = logging.getLogger("profilemate")

_BATCH_ROWS = 16_384
_SPARK: dict[pa.DataType, DataType] = {
    pa.int32(): IntegerType(),
    pa.int64(): LongType(),
    pa.float64(): DoubleType(),
    pa.string(): StringType(),
    pa.bool_(): BooleanType(),
    pa.timestamp("us", tz="UTC"): TimestampType(),
}
_ARROW = {kind.typeName(): arrow for arrow, kind in _SPARK.items()}
_NOTES = pa.schema([("path", pa.string()), ("note", pa.string())])
# A row's moment is at most so much before it was recorded, or after its step was scheduled …
_LATE_NS = 3_600 * 1_000_000_000
# … but for calls, which are recorded when they end.
_CALLS = frozenset({"custom_call", "function_call", "frontend_op", "scope_span", "requests", "request"})


@dataclass(frozen=True)
class _Part(InputPartition):
    """What one task reads: a source from one position to another; of a table without sources all of a session."""

    path: str
    source: str = ""
    start: int = 0
    end: int = parts.END
    name: str = ""
    token: str = ""
    host: str = ""
    start_real_ns: int = 0
    note: str = ""


@dataclass
class _Wanted:
    """What filters leave: each None where it leaves all."""

    hosts: set[Any] | None = None
    sessions: set[Any] | None = None
    engines: set[Any] | None = None
    from_ns: int | None = None  # real time, both included
    to_ns: int | None = None

    def narrow(self, column: str, values: Iterable[Any]) -> None:
        name = {"host": "hosts", "session": "sessions", "engine": "engines"}.get(column)
        if name is not None:
            had = getattr(self, name)
            setattr(self, name, set(values) if had is None else had & set(values))

    def after(self, moment: datetime) -> None:
        at = int(moment.timestamp() * 1_000_000) * 1000
        self.from_ns = at if self.from_ns is None else max(self.from_ns, at)

    def before(self, moment: datetime) -> None:
        at = int(moment.timestamp() * 1_000_000) * 1000 + 999
        self.to_ns = at if self.to_ns is None else min(self.to_ns, at)

    def has(self, of: Survey) -> bool:
        """Whether a session may have rows of it."""
        first, last = of.start_real_ns, of.start_real_ns + of.last_mono_ns - of.start_mono_ns
        return (
            (self.hosts is None or of.host in self.hosts)
            and (self.sessions is None or of.key in self.sessions)
            and (self.from_ns is None or last + _LATE_NS >= self.from_ns)
            and (self.to_ns is None or first - _LATE_NS <= self.to_ns)
        )


class _Options:
    """The options, as they were given to spark.read."""

    def __init__(self, options: dict[str, Any]):
        given = {key.lower(): value for key, value in options.items()}
        self.table = str(given.get("table", "steps"))
        self.segments = int(given.get("segments", 64))
        self.pushdown = str(given.get("pushdown", "false")).lower() == "true"
        self.fail = str(given.get("bad", "skip")).lower() == "fail"
        self.paths = [str(each) for each in json.loads(given["paths"])] if "paths" in given else []
        self.paths += [str(given["path"])] if "path" in given else []
        if not self.paths:
            raise ValueError("profilemate: say where the sessions lie, with .load(PATH), which may have * in it")
        if self.segments < 1:
            raise ValueError(f"profilemate: parts of {self.segments} segments: at least 1")

    def surveys(self) -> Iterator[tuple[Path, Survey | None, str]]:
        """The sessions; of one that cannot be read the sentence."""
        for path in self._sessions():
            try:
                yield path, parts.survey(path), ""
            except (OSError, ValueError) as error:
                if self.fail:
                    raise
                yield path, None, str(error)

    def _sessions(self) -> list[Path]:
        found: dict[Path, None] = {}
        for pattern in self.paths:
            pattern = pattern.removeprefix("file://").removeprefix("file:")
            matches = sorted(glob.glob(pattern))
            if not matches:
                raise FileNotFoundError(f"profilemate: {pattern}: there is no session")
            for match in matches:
                folder = Path(match)
                if not folder.is_dir():
                    continue
                inside = [each for each in folder.iterdir() if (each / "session").is_file()]
                found.update(dict.fromkeys(sorted(inside) if inside else [folder]))
        return list(found)


class ProfilemateDataSource(DataSource):
    """The data source `profilemate`; see the module."""

    @classmethod
    def name(cls) -> str:
        return "profilemate"

    def schema(self) -> StructType:
        options = _Options(self.options)
        fields: dict[str, pa.Field] = {}
        tables: set[str] = set()
        for path, of, why in options.surveys():
            if of is None:
                _log.warning("profilemate: %s is left out: %s", path, why)
                continue
            tables.update(of.tables)
            for each in _table_schema(of, options.table):
                fields.setdefault(each.name, each)
        if not fields:
            fields = {each.name: each for each in _made_schema(options.table) or ()}
        if not fields:
            has = ", ".join(sorted(tables)) or "no table that can be read"
            raise ValueError(f"profilemate: no session here has the table {options.table}; they have {has}")
        own = [pa.field("host", pa.string()), pa.field("session", pa.string())]
        return StructType([_spark_field(each) for each in (*fields.values(), *own)])

    def reader(self, schema: StructType) -> DataSourceReader:
        options = _Options(self.options)
        # Spark refuses a reader that takes filters where its configuration does not hand them down: the default.
        return _FilteredReader(options, schema) if options.pushdown else _Reader(options, schema)


def _made_schema(table: str) -> pa.Schema | None:
    """Of the tables that are made from what a session says of itself."""
    if table == "notes":
        return _NOTES
    if table == "expert_load":
        return lake_tables.LOAD_SCHEMA
    return lake_tables.SCHEMAS.get(table)


def _table_schema(of: Survey, table: str) -> list[pa.Field]:
    if (made := _made_schema(table)) is not None:
        return list(made)
    return list(parts.table_schema(of, table)) if table in of.tables else []


def _spark_field(each: pa.Field) -> StructField:
    told = {key.decode(): value.decode() for key, value in (each.metadata or {}).items()}
    metadata = {"comment": told["description"], "unit": told.get("unit", "")} if "description" in told else None
    return StructField(each.name, _SPARK[each.type], True, metadata)


@dataclass
class _Reader(DataSourceReader):
    options: _Options
    wanted_schema: StructType
    wanted: _Wanted = field(default_factory=_Wanted)

    # ---- planning ----

    def partitions(self) -> Sequence[InputPartition]:
        table, planned = self.options.table, []
        for path, of, why in self.options.surveys():
            if of is None:
                _log.warning("profilemate: %s is left out: %s", path, why)
                if table == "notes":
                    planned.append(_Part(str(path), note=why))
            elif self.wanted.has(of):
                planned.extend(self._parts_of(of))
        return planned

    def _parts_of(self, of: Survey) -> Iterator[_Part]:
        same: dict[str, Any] = {"name": of.name, "token": of.token, "host": of.host, "start_real_ns": of.start_real_ns}
        follows = "moe_counts" if self.options.table == "expert_load" else self.options.table
        if follows in lake_tables.SCHEMAS or follows == "notes":
            yield _Part(str(of.path), **same)
        for source in of.sources:
            if source.table == follows and self._may_have(source):
                for start, end in self._spans(of, source):
                    yield _Part(str(of.path), source.name, start, end, **same)

    def _may_have(self, source: Source) -> bool:
        return self.wanted.engines is None or source.engine < 0 or source.engine in self.wanted.engines

    def _spans(self, of: Survey, source: Source) -> Iterator[tuple[int, int]]:
        """The parts of a source, without those that are before or after what is asked for."""
        cuts = source.cuts[self.options.segments :: self.options.segments]
        bounds = [0, *(position for position, _ in cuts), parts.END]
        since = [of.start_mono_ns, *(at for _, at in cuts), of.last_mono_ns]
        real_ns = of.start_real_ns - of.start_mono_ns
        late_ns = _LATE_NS if source.table == "steps" else 0
        from_ns, to_ns = self.wanted.from_ns, self.wanted.to_ns
        for i in range(len(bounds) - 1):
            if from_ns is not None and i + 2 < len(bounds) and since[i + 1] + real_ns + late_ns < from_ns:
                continue
            if to_ns is not None and source.table not in _CALLS and since[i] + real_ns - _LATE_NS > to_ns:
                continue
            yield bounds[i], bounds[i + 1]

    # ---- reading: in the executors ----

    def read(self, partition: InputPartition | None) -> Iterator[pa.RecordBatch]:
        if not isinstance(partition, _Part):  # none was planned, for which Spark makes one
            return
        try:
            for batch in self._batches(partition):
                yield self._shaped(batch, partition)
        except (OSError, ValueError, pa.ArrowException) as error:
            if self.options.fail:
                raise
            _log.warning("profilemate: %s is left out, or the rest of it: %s", partition.path, error)

    def _batches(self, part: _Part) -> Iterator[pa.RecordBatch]:
        table = self.options.table
        if table == "notes":
            notes = [part.note] if part.note else parts.notes(part.path)
            yield from pa.Table.from_pylist([{"path": part.path, "note": note} for note in notes], _NOTES).to_batches()
        elif table in lake_tables.SCHEMAS:
            of = parts.survey(part.path)
            made = lake_tables.sessions(of, complete=of.over) if table == "sessions" else lake_tables.processes(of)
            yield from made.to_batches()
        elif table == "expert_load":
            of = parts.survey(part.path)
            source = next(each for each in of.sources if (each.table, each.name) == ("moe_counts", part.source))
            yield from (batch for batch, _ in lake_tables.expert_load(of, source, part.start, part.end))
        else:
            of = Survey(Path(part.path), part.name, part.token, "", part.start_real_ns, 0, (), (), (), ())
            source = Source(table, part.source, -1, -1, True, ())
            names = [each for each in self.wanted_schema.names if each not in ("host", "session")]
            found = parts.batches(of, source, part.start, part.end, rows=_BATCH_ROWS, columns=names)
            yield from (batch for batch, _ in found)

    def _shaped(self, batch: pa.RecordBatch, part: _Part) -> pa.RecordBatch:
        """As the schema says: what this session's table does not have is null."""
        own = {"host": part.host or None, "session": f"{part.name}-{part.token[:8]}" if part.token else None}
        columns, names = [], []
        for each in self.wanted_schema:
            kind = _ARROW[each.dataType.typeName()]
            if each.name in own:
                column = pa.repeat(pa.scalar(own[each.name], kind), batch.num_rows)
            elif each.name in batch.schema.names:
                column = batch.column(each.name)
                column = column if column.type == kind else column.cast(kind)
            else:
                column = pa.nulls(batch.num_rows, kind)
            columns.append(column)
            names.append(each.name)
        return pa.RecordBatch.from_arrays(columns, names)


@dataclass
class _FilteredReader(_Reader):
    """Leaves out what filters do not mean."""

    def pushFilters(self, filters: list[Any]) -> Iterable[Any]:
        """Keeps what it can use; Spark applies all again: a part is left out only where no row of it is meant."""
        for each in filters:
            kind, column = type(each).__name__, list(getattr(each, "attribute", ()))
            if len(column) == 1:
                self._take(kind, column[0], getattr(each, "value", None))
            yield each

    def _take(self, kind: str, column: str, value: Any) -> None:
        if kind == "EqualTo":
            self.wanted.narrow(column, [value])
        elif kind == "In":
            self.wanted.narrow(column, value)
        if column == "time" and isinstance(value, datetime):
            if kind in ("EqualTo", "GreaterThan", "GreaterThanOrEqual"):
                self.wanted.after(value)
            if kind in ("EqualTo", "LessThan", "LessThanOrEqual"):
                self.wanted.before(value)
