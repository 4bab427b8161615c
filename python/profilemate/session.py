"""Sessions of ProfileMate as tables.

    import profilemate

    session = profilemate.open()                      # the newest; or a path, a name, the start of a name
    steps = session.tables["steps"].to_pandas()
    polars.from_arrow(session.tables["requests"])     # polars, pyarrow and DuckDB take a table as it is
    session.window(last="30s").tables["steps"]        # a part of it

Each table is an Arrow stream by the PyCapsule protocol, made by the C reader in batches and handed over without a copy.
A session of a running server shows what was recorded when a table is read.
"""

from __future__ import annotations

import html
import json
import os
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

if sysconfig.get_config_var("Py_GIL_DISABLED"):
    raise ImportError("profilemate reads sessions on CPythons that have a GIL: take the usual build")

from profilemate import _reader  # noqa: E402

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

__all__ = ["Column", "Process", "Session", "Table", "Tables", "open"]


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    name: str
    unit: str
    """s, ns, tokens, requests, blocks, bytes, or nothing."""
    kind: str
    """id, time, duration, count, gauge, flags."""
    description: str


@dataclass(frozen=True)
class Process:
    """A process of the server."""

    pid: int
    role: str
    engine: int
    rank: int
    state: str
    records: int
    lost: int
    recycled: int
    attributes: dict[str, str]


def _bytes(text: str | os.PathLike[str] | None) -> bytes | None:
    return None if text is None else os.fsencode(text)


@dataclass(frozen=True)
class _Window:
    last: str | None = None
    steps: str | None = None
    request: str | None = None

    def given(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        return _bytes(self.last), _bytes(self.steps), _bytes(self.request)


class Table:
    """One table of a session. Whatever speaks the Arrow PyCapsule protocol takes it as it is, any number of times."""

    def __init__(self, path: Path, name: str, description: str, window: _Window):
        self._path = path
        self._window = window
        self.name = name
        self.description = description

    @property
    def columns(self) -> list[Column]:
        return [Column(*each) for each in _reader.columns(_bytes(self._path), self.name.encode())]

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The rows so far, in batches of at most 65536. A requested schema is not followed, as the protocol allows."""
        return self._stream(0)

    def __arrow_c_schema__(self) -> object:
        return _reader.schema(_bytes(self._path), self.name.encode(), *self._window.given())

    def _stream(self, batch_rows: int) -> object:
        return _reader.stream(_bytes(self._path), self.name.encode(), *self._window.given(), batch_rows)

    def to_arrow(self) -> pyarrow.Table:
        import pyarrow

        return pyarrow.table(self)

    def batches(self, rows: int = 65536) -> pyarrow.RecordBatchReader:
        """The rows in batches of at most so many, none of which is read before it is asked for."""
        import pyarrow

        if rows < 1:
            raise ValueError(f"batches of {rows} rows: at least 1")
        return pyarrow.RecordBatchReader._import_from_c_capsule(self._stream(rows))

    def to_pandas(self) -> pandas.DataFrame:
        """A DataFrame; whole numbers with missing values stay whole (Int64 and so on). Needs pandas and pyarrow."""
        import pandas

        table = self.to_arrow()
        whole = {f.name for f in table.schema if f.type in _whole_types() and table.column(f.name).null_count}
        frame = table.drop_columns(sorted(whole)).to_pandas() if whole else table.to_pandas()
        if not whole:
            return frame
        for name in whole:
            column = table.column(name)
            mask = column.is_null().to_numpy()
            values = column.fill_null(0).to_numpy()
            frame[name] = pandas.arrays.IntegerArray(values.copy(), mask.copy())
        return frame[table.column_names]

    def to_polars(self) -> polars.DataFrame:
        import polars

        frame = polars.from_arrow(self.to_arrow())
        assert isinstance(frame, polars.DataFrame)
        return frame

    def __repr__(self) -> str:
        return f"<profilemate.Table {self.name}: {self.description}>"


class Tables(Mapping[str, Table]):
    """The tables of a session by name."""

    def __init__(self, path: Path, window: _Window):
        self._path = path
        self._window = window
        self._descriptions: dict[str, str] = dict(_reader.describe(_bytes(path))["tables"])

    def __getitem__(self, name: str) -> Table:
        if name not in self._descriptions:
            raise KeyError(f"{name}: the session has no such table, it has {', '.join(self._descriptions)}")
        return Table(self._path, name, self._descriptions[name], self._window)

    def __iter__(self) -> Iterator[str]:
        return iter(self._descriptions)

    def __len__(self) -> int:
        return len(self._descriptions)

    def __repr__(self) -> str:
        return f"<profilemate.Tables: {', '.join(self._descriptions)}>"


class Session:
    """A session, of a server that has ended, was killed, or still runs. Made by open()."""

    def __init__(self, path: Path, window: _Window | None = None):
        self.path = path
        self._window = window or _Window()
        self.name: str = self._described()["name"]

    def _described(self) -> dict[str, Any]:
        return _reader.describe(_bytes(self.path))

    @property
    def tables(self) -> Tables:
        """steps, requests, and a table for each kind of record."""
        return Tables(self.path, self._window)

    @property
    def state(self) -> str:
        """running, ended, killed, or empty."""
        return str(self._described()["state"])

    @property
    def start(self) -> datetime:
        """When the server started; the `_sec` columns count from here."""
        return datetime.fromtimestamp(self._described()["start_real_ns"] / 1e9, tz=timezone.utc)

    @property
    def start_monotonic_ns(self) -> int:
        """The same by CLOCK_MONOTONIC, which the `_ns` moments are of."""
        return int(self._described()["start_mono_ns"])

    @property
    def processes(self) -> list[Process]:
        return [Process(**each) for each in self._described()["processes"]]

    @property
    def notes(self) -> list[str]:
        """What could not be read, a sentence each."""
        return list(self._described()["notes"])

    @property
    def report(self) -> dict[str, Any]:
        """The figures of `profilemate report --json`."""
        return dict(json.loads(_reader.report(_bytes(self.path))))

    def window(self, *, last: str | None = None, steps: str | None = None, request: str | None = None) -> Session:
        """A part of the session: its last="30s", steps="100:200", or the life of a request. At most one of them."""
        window = _Window(last, steps, request)
        if window != _Window():
            name = next(iter(self.tables), None)
            if name is not None:  # a bad one is told now
                _reader.schema(_bytes(self.path), name.encode(), *window.given())
        return Session(self.path, window)

    def __repr__(self) -> str:
        return f"<profilemate.Session {self.name}: {self.state}>"

    def _repr_html_(self) -> str:
        described = self._described()
        attributes: dict[str, str] = {}
        for process in described["processes"]:
            for key, value in process["attributes"].items():
                attributes.setdefault(key, value)
        started = self.start.astimezone().isoformat(sep=" ", timespec="seconds")
        facts = [("state", described["state"]), ("started", started), ("path", str(self.path))]
        facts += [
            (label, attributes[key])
            for label, key in (("model", "model"), ("vLLM", "version.vllm"), ("device", "device"))
            if key in attributes
        ]
        for process in described["processes"]:
            lost = f", {process['lost']:,} lost" if process["lost"] else ""
            where = f"pid {process['pid']}"
            facts.append((process["role"], f"{where}, {process['state']}, {process['records']:,} records{lost}"))
        head = "".join(_row(("th", label), ("td", value)) for label, value in facts)
        rows = "".join(_row(("td", name), ("td", text)) for name, text in described["tables"])
        return (
            f"<div><strong>{html.escape(self.name)}</strong><table>{head}</table>"
            f"<table><thead>{_row(('th', 'table'), ('th', 'what a row is'))}</thead><tbody>{rows}</tbody></table></div>"
        )


def _row(*cells: tuple[str, str]) -> str:
    return "<tr>" + "".join(f"<{t} style='text-align:left'>{html.escape(v)}</{t}>" for t, v in cells) + "</tr>"


def _whole_types() -> set[Any]:
    import pyarrow as pa

    return {pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(), pa.int32(), pa.int64()}


def open(session: str | os.PathLike[str] | None = None, *, dir: str | os.PathLike[str] | None = None) -> Session:
    """A session: the path of its folder, a name, the start of just one name, or None for the newest of one's own.

    Names are looked for in dir, else where VLLM_PROFILING_DIR says. FileNotFoundError and ValueError say, in one
    sentence, what is wrong.
    """
    return Session(Path(os.fsdecode(_reader.resolve(_bytes(session), _bytes(dir)))))
