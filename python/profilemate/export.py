"""What `profilemate export --format arrow` and `--format parquet` run: each table of a session as a file, by pyarrow.

Files are written beside their place and renamed when they are complete, one batch of rows at a time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from profilemate.session import Session, Table

__all__ = ["main", "write"]


def _write_table(table: Table, format: str, path: Path) -> int:
    temporary = path.with_name(f".profilemate-{os.getpid()}-{path.name}")
    rows = 0
    try:
        with table.batches() as batches:
            writer: pyarrow.ipc.RecordBatchFileWriter | pyarrow.parquet.ParquetWriter
            if format == "arrow":
                writer = pyarrow.ipc.new_file(temporary, batches.schema)
            else:
                writer = pyarrow.parquet.ParquetWriter(temporary, batches.schema, compression="zstd")
            with writer:
                for batch in batches:
                    writer.write_batch(batch)
                    rows += batch.num_rows
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return rows


def write(session: Session, format: str, out: str | os.PathLike[str]) -> dict[str, int]:
    """Writes every table as <table>.arrow (the IPC file format) or <table>.parquet; the rows of each."""
    if format not in ("arrow", "parquet"):
        raise ValueError(f"{format}: not a format, give arrow or parquet")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    return {
        name: _write_table(table, format, folder / f"{name}.{format}") for name, table in session.tables.items()
    }


def main(words: Sequence[str]) -> int:
    """FORMAT SESSION OUT "quiet"|"" [last=…|steps=…|request=…]"""
    format, path, out, quiet, *window = words
    try:
        session = Session(Path(path)).window(**dict(word.split("=", 1) for word in window))
        rows = write(session, format, out)
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        print(f"profilemate: {error}", file=sys.stderr)
        return 1
    if not quiet:
        print(f"Wrote {len(rows)} files ({sum(rows.values())} rows) to {out}", file=sys.stderr)
    return 0
