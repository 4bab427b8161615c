"""What `profilemate export --format parquet --partition` runs: sessions into a lake of Parquet files (docs/LAKE.md).

    LAKE/table=T/date=D/host=H/session=S/<source>-<from>-<to>.parquet

Every file holds the rows of one source of one table from one position to another, of one day. The names of the files
are all that is known of what was done before: a source goes on where its newest file ends. A file is written under a
name that no reader looks at and renamed when it is complete, in the order of the positions, so that a run may be
ended anywhere, by whatever, and the next one goes on. What a running server has not settled yet is left for a later
run.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from profilemate import lake_tables, parts
from profilemate.parts import Source, Survey

__all__ = ["GROUP_ROWS", "Lake", "Written", "main"]

GROUP_ROWS = 122_880
"""Rows of a row group, which is also all that is held in memory of a table."""

FILE_ROWS = 4_000_000
"""About so many rows make a file; then a new one is begun."""

_DAY_US = 86_400_000_000
_FILE = re.compile(r"(?P<source>.+)-(?P<start>\d{19})-(?P<end>\d{19})\.parquet")
_TEMPORARY = ".profilemate-"
_OPEN = "open.parquet"  # <source>-open.parquet: the requests that were not over when the server ended
_SESSIONS, _PROCESSES, _LOAD = "sessions", "processes", "expert_load"


class Written:
    """What a run added: files, rows, and the sessions that it came from."""

    def __init__(self) -> None:
        self.files = 0
        self.rows = 0
        self.sessions = 0
        self.running = 0


class _File:
    """One file of rows that is being written; nothing of it is seen before close()."""

    def __init__(self, folder: Path, schema: pa.Schema):
        folder.mkdir(parents=True, exist_ok=True)
        self.rows = 0
        self._folder = folder
        self._path = folder / f"{_TEMPORARY}{os.getpid()}.tmp"
        text = [field.name for field in schema if field.type == pa.string() or field.type == pa.bool_()]
        try:
            self._out = self._path.open("wb")
            self._writer = pq.ParquetWriter(
                self._out, schema, compression="zstd", use_dictionary=text, version="2.6",
                column_encoding={
                    field.name: "DELTA_BINARY_PACKED"
                    for field in schema
                    if pa.types.is_integer(field.type) or pa.types.is_timestamp(field.type)
                },
            )  # fmt: skip
        except BaseException:
            self.drop()
            raise

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer.write_batch(batch, row_group_size=GROUP_ROWS)
        self.rows += batch.num_rows

    def close(self, name: str) -> None:
        """The rows become visible, all at once, and stay after a failure of the power."""
        self._writer.close()
        self._out.flush()
        os.fsync(self._out.fileno())
        self._out.close()
        self._path.rename(self._folder / name)

    def drop(self) -> None:
        with contextlib.suppress(AttributeError, OSError, pa.ArrowException):
            self._out.close()
        self._path.unlink(missing_ok=True)


class Lake:
    """A folder of sessions' tables. One session is written by one process at a time; others wait for it."""

    def __init__(self, root: str | os.PathLike[str], tables: Sequence[str] | None = None):
        self.root = Path(root)
        self._wanted = None if tables is None else frozenset(tables)

    # ---- what is there ----

    def _folder(self, of: Survey, table: str, day: date) -> Path:
        where = f"date={day.isoformat()}", f"host={parts.quote(of.host)}", f"session={parts.quote(of.key)}"
        return self.root.joinpath(f"table={table}", *where)

    def _folders(self, of: Survey, table: str) -> Iterator[tuple[date, Path]]:
        """The days of which the session has a folder in a table, in order."""
        try:
            names = sorted(os.listdir(self.root / f"table={table}"))
        except FileNotFoundError:
            return
        for name in names:
            with contextlib.suppress(ValueError):
                day = date.fromisoformat(name.removeprefix("date="))
                folder = self._folder(of, table, day)
                if folder.is_dir():
                    yield day, folder

    def _reached(self, of: Survey, table: str) -> tuple[dict[str, tuple[int, date]], dict[str, Path]]:
        """Of each source where its newest file ends, and of which day that is; and files of open requests."""
        reached: dict[str, tuple[int, date]] = {}
        open_ones: dict[str, Path] = {}
        for day, folder in self._folders(of, table):
            for name in os.listdir(folder):
                if name.startswith(_TEMPORARY):
                    (folder / name).unlink(missing_ok=True)  # of a run that was ended: the session is locked
                elif match := _FILE.fullmatch(name):
                    end = int(match["end"])
                    if end > reached.get(match["source"], (0, day))[0]:
                        reached[match["source"]] = end, day
                elif name.endswith(f"-{_OPEN}"):
                    open_ones[name.removesuffix(f"-{_OPEN}")] = folder / name
        return reached, open_ones

    # ---- rows ----

    def _days(self, of: Survey, table: str, batch: pa.RecordBatch, positions: pa.Array) -> pa.Array:
        """The day on which each row was recorded, in days since 1970."""
        start_us = of.start_real_ns // 1000
        if table == "steps":
            moments = pc.add(pc.divide(positions.cast(pa.int64()), 1000), start_us)
        elif table == "requests":
            seconds = pc.fill_null(batch.column("finished_sec"), (of.last_mono_ns - of.start_mono_ns) / 1e9)
            moments = pc.add(pc.cast(pc.round(pc.multiply(seconds, 1e6)), pa.int64()), start_us)
        elif "time" in batch.schema.names:
            moments = batch.column("time").cast(pa.int64())
        else:
            moments = pa.repeat(pa.scalar(start_us, pa.int64()), batch.num_rows)
        return pc.divide(moments, _DAY_US)

    def _by_day(
        self, of: Survey, table: str, batch: pa.RecordBatch, positions: pa.Array, since: date
    ) -> Iterator[tuple[date, pa.RecordBatch, pa.Array]]:
        """A batch in pieces of one day each; days only grow, from one file to the next."""
        epoch, at = date(1970, 1, 1).toordinal(), 0
        days = pc.max_element_wise(self._days(of, table, batch, positions), since.toordinal() - epoch)
        if batch.num_rows and pc.min(days) != pc.max(days):
            days = pc.cumulative_max(days)
        while at < batch.num_rows:
            day = days[at]
            rows = pc.sum(pc.equal(days.slice(at), day)).as_py()
            yield date.fromordinal(day.as_py() + epoch), batch.slice(at, rows), positions.slice(at, rows)
            at += rows

    def _write_rows(
        self, of: Survey, table: str, source: str, rows: Iterator[tuple[pa.RecordBatch, pa.Array]],
        start: int, since: date, written: Written,
    ) -> None:  # fmt: skip
        file: _File | None = None
        day, end = since, start

        def finish() -> None:
            nonlocal start, file
            if file is not None:
                file.close(f"{source}-{start:019}-{end:019}.parquet")
                written.files += 1
                written.rows += file.rows
                start, file = end, None

        try:
            for batch, positions in rows:
                for when, piece, places in self._by_day(of, table, batch, positions, day):
                    if file is not None and (when != day or file.rows >= FILE_ROWS):
                        finish()
                    if file is None:
                        file = _File(self._folder(of, table, when), batch.schema)
                    day = when
                    file.write(piece)
                    end = max(end, pc.max(places).as_py() + 1)
            finish()
        finally:
            if file is not None:
                file.drop()

    def _write_source(self, of: Survey, source: Source, reached: tuple[int, date] | None, written: Written) -> None:
        start, since = reached or (0, _day_of(of.start_real_ns))
        end = parts.settled(of, source, start)
        if source.table == "requests":
            end = min(end, parts.NOT_OVER)
        if end > start:
            rows = parts.batches(of, source, start, end, rows=GROUP_ROWS)
            self._write_rows(of, source.table, source.name, rows, start, since, written)

    def _write_load(self, of: Survey, source: Source, reached: tuple[int, date] | None, written: Written) -> None:
        """The table expert_load, of the source's moe_counts."""
        start, since = reached or (0, _day_of(of.start_real_ns))
        end = parts.settled(of, source, start)
        if end > start:
            rows = lake_tables.expert_load(of, source, start, end)
            self._write_rows(of, _LOAD, source.name, rows, start, since, written)

    def _write_open(self, of: Survey, source: Source, last: date, there: Path | None, written: Written) -> None:
        """The requests that were not over at the end: a file of their own, which goes when more is known of them."""
        tables = [pa.Table.from_batches([batch]) for batch, _ in parts.batches(
            of, source, parts.NOT_OVER, parts.END, rows=GROUP_ROWS)] if source.over else []  # fmt: skip
        if tables:
            day = max(last, _day_of(of.start_real_ns + of.last_mono_ns - of.start_mono_ns))
            folder = self._folder(of, "requests", day)
            self._replace(folder, f"{source.name}-{_OPEN}", pa.concat_tables(tables), written)
            if there is not None and there.parent != folder:
                there.unlink()
        elif there is not None:
            there.unlink()

    def _replace(self, folder: Path, name: str, table: pa.Table, written: Written) -> None:
        """A small file, made anew where it says something else than before."""
        with contextlib.suppress(OSError, pa.ArrowException):
            if pq.read_table(folder / name, partitioning=None).equals(table, check_metadata=True):
                return
        file = _File(folder, table.schema)
        try:
            for batch in table.to_batches(max_chunksize=GROUP_ROWS):
                file.write(batch)
            file.close(name)
        except BaseException:
            file.drop()
            raise
        written.files += 1
        written.rows += table.num_rows

    # ---- a session ----

    def add(self, session: Path, written: Written) -> Survey | None:
        """Writes what is new of a session; None where nothing was. OSError, ValueError, ArrowException say why not."""
        of = parts.survey(session)
        day = _day_of(of.start_real_ns)
        home = self._folder(of, _SESSIONS, day)
        if self._is_done(home, of):
            return None
        before = written.rows, written.files
        with _locked(home):
            of = parts.survey(session)  # anew: what we may have waited for is over
            for table in (_SESSIONS, _PROCESSES):
                self._reached(of, table)  # clears what an ended run left
            self._add_rows(of, written)
            self._replace(self._folder(of, _PROCESSES, day), "processes.parquet", lake_tables.processes(of), written)
            sessions = lake_tables.sessions(of, complete=of.over and self._wanted is None)
            mark = {**(sessions.schema.metadata or {}), b"profilemate.seen": self._seen(of)}
            self._replace(home, "sessions.parquet", sessions.replace_schema_metadata(mark), written)
        written.sessions += before != (written.rows, written.files)
        written.running += not of.over
        return of if before != (written.rows, written.files) else None

    def _add_rows(self, of: Survey, written: Written) -> None:
        known: dict[str, tuple[dict[str, tuple[int, date]], dict[str, Path]]] = {}

        def reached(table: str, source: Source) -> tuple[int, date] | None:
            if table not in known:
                known[table] = self._reached(of, table)
            return known[table][0].get(source.name)

        for source in of.sources:
            if self._wants(source.table):
                before = reached(source.table, source)
                self._write_source(of, source, before, written)
                if source.table == "requests":
                    last = before[1] if before else _day_of(of.start_real_ns)
                    self._write_open(of, source, last, known["requests"][1].get(source.name), written)
            if source.table == "moe_counts" and self._wants(_LOAD):
                self._write_load(of, source, reached(_LOAD, source), written)

    def _wants(self, table: str) -> bool:
        return self._wanted is None or table in self._wanted

    def _seen(self, of: Survey) -> bytes:
        """What was there when all of it was written: where it is still the same, there is nothing to do."""
        told = [[each["file"], each["state"], each["records"], each["recycled"]] for each in of.processes]
        what = json.dumps([of.token, of.over, told, sorted(self._wanted or [])])
        return hashlib.sha256(what.encode()).hexdigest().encode()

    def _is_done(self, home: Path, of: Survey) -> bool:
        if not of.over:
            return False
        try:
            metadata = pq.read_schema(home / "sessions.parquet").metadata or {}
        except (OSError, pa.ArrowException):
            return False
        return metadata.get(b"profilemate.seen") == self._seen(of)


def _day_of(real_ns: int) -> date:
    return datetime.fromtimestamp(real_ns // 1_000_000_000, tz=timezone.utc).date()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Nobody else writes this session meanwhile; given up by whatever ends the process."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


# ---- the command ----


def _say(text: str) -> None:
    print(f"profilemate: {text}", file=sys.stderr)


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _tell_damage(of: Survey) -> None:
    notes = parts.notes(of.path)
    for note in notes[:3]:
        _say(f"{of.path.name}: {note}")
    if len(notes) > 3:
        _say(f"{of.path.name}: and {len(notes) - 3:,} more like this")


def _find_all(words: Sequence[str], dir: str | None) -> tuple[list[Path], int]:
    found: dict[Path, None] = {}
    missing = 0
    for word in words:
        try:
            found.update(dict.fromkeys(path.resolve() for path in parts.find(word, dir)))
        except (OSError, ValueError) as error:
            _say(f"left out: {_sentence(error)}")
            missing += 1
    return list(found), missing


def main(words: Sequence[str]) -> int:
    """LAKE "quiet"|"" TABLES|"" DIR|"" SESSION…"""
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is to be said or tidied when a run is ended
    try:
        return _run(words)
    finally:
        signal.signal(signal.SIGINT, before)


def _run(words: Sequence[str]) -> int:
    out, quiet, tables, dir, *meant = words
    sessions, left_out = _find_all(meant, dir or None)
    total = len(sessions) + left_out
    lake = Lake(out, tables.split(",") if tables else None)
    written = Written()
    for path in sessions:
        try:
            of = lake.add(path, written)
        except (OSError, ValueError, pa.ArrowException) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                _say(f"{out}: {_sentence(error)}; what was written before is complete, run it again when there is room")
                return 1
            _say(f"{path.name} is left out: {_sentence(error)}")
            left_out += 1
            continue
        if of is not None:
            _tell_damage(of)
    if not quiet:
        text = f"Wrote {_count(written.files, 'file')} ({_count(written.rows, 'row')}) of "
        text += f"{_count(written.sessions, 'session')} to {out}"
        if written.running:
            text += f"; {_count(written.running, 'server')} still running: what is complete is there"
        print(text, file=sys.stderr)
    if left_out:
        _say(f"{left_out:,} of {_count(total, 'session')} left out, the others are done")
    return 1 if left_out else 0
