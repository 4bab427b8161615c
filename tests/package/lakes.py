"""Lakes for the tests: what is in one, by what reads it, and sessions as they were at an earlier moment."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

HEAD_BYTES = 128  # of a segment: src/session/layout.h
SEALED_AT = 64
STATE_AT, CLOSED_AT = 116, 128


def files(lake: Path) -> dict[str, tuple[int, int]]:
    """Every file that a reader would see, with its size and when it was written."""
    return {
        str(path.relative_to(lake)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(lake.rglob("*.parquet"))
    }


def left_over(lake: Path) -> list[Path]:
    return [path for path in lake.rglob("*") if path.is_file() and not path.name.endswith(".parquet")]


def tables(lake: Path) -> list[str]:
    return sorted(path.name.removeprefix("table=") for path in lake.glob("table=*") if any(path.rglob("*.parquet")))


def rows(lake: Path, table: str) -> pa.Table:
    """A table of a lake of one session, its files one after another by source and position."""
    found = sorted((lake / f"table={table}").rglob("*.parquet"), key=lambda path: (path.name, str(path)))
    return pa.concat_tables([pq.read_table(path, partitioning=None) for path in found])


def columns(table: pa.Table) -> dict[str, list]:
    """Without what a lake adds to the session's own columns."""
    return {name: table.column(name).to_pylist() for name in table.column_names if name != "time"}


def slots(record_file: Path) -> tuple[int, int, int]:
    """Where the first segment of a record file begins, how long each is, and how many there are."""
    header_bytes, segment_bytes = struct.unpack_from("<II", record_file.read_bytes()[:64], 12)
    return header_bytes, segment_bytes, (record_file.stat().st_size - header_bytes) // segment_bytes


def cut_records(segment: bytearray, share: float) -> None:
    """The segment as it was when about that share of its records was written."""
    at, used = HEAD_BYTES, struct.unpack_from("<Q", segment, SEALED_AT)[0] or len(segment)
    while at < HEAD_BYTES + (used - HEAD_BYTES) * share:
        words = struct.unpack_from("<Q", segment, at)[0] >> 16 & 0xFFFF
        if words == 0:
            break
        at += words * 8
    segment[at:] = bytes(len(segment) - at)
    segment[SEALED_AT : SEALED_AT + 8] = bytes(8)


@contextlib.contextmanager
def earlier(session: Path, place: Path, segments: int, share: float = 0.5) -> Iterator[Path]:
    """The session as it was while its server ran and wrote into the n-th segment; held as running until the end."""
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(session, place)
    held = []
    for path in (place / "records").glob("*.pmrec"):
        data = bytearray(path.read_bytes())
        header_bytes, segment_bytes, count = slots(path)
        last = min(segments, count) - 1
        del data[header_bytes + (last + 1) * segment_bytes :]
        begin = header_bytes + last * segment_bytes
        segment = data[begin:]
        if segments <= count:
            cut_records(segment, share)
            data[begin:] = segment
        data[STATE_AT : STATE_AT + 4] = bytes(4)
        data[CLOSED_AT : CLOSED_AT + 8] = bytes(8)
        path.write_bytes(data)
        handle = path.open("r+b")
        fcntl.lockf(handle, fcntl.LOCK_EX, 1, 0)  # as its owner would
        held.append(handle)
    try:
        yield place
    finally:
        for handle in held:
            handle.close()
