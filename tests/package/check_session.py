"""check_session.py SESSION CSVS: every table of a session equals its CSV in pyarrow, pandas, polars and DuckDB.

Prints how many values were compared. For the end-to-end tests, whose interpreter has none of these libraries.
"""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb
import polars
import profilemate
import pyarrow
from equal import assert_equal


def main(path: str, csvs: str) -> None:
    session, values = profilemate.open(path), 0
    for name, table in session.tables.items():
        file = Path(csvs) / f"{name}.csv"
        frame, arrow = table.to_pandas(), table.to_arrow()
        arrow.validate(full=True)
        found = duckdb.from_arrow(pyarrow.RecordBatchReader.from_stream(table))
        rows = found.fetchall()
        columns = zip(*rows, strict=True) if rows else [()] * len(found.columns)
        values += assert_equal(file, arrow.to_pydict())
        values += assert_equal(file, {column: frame[column].tolist() for column in frame.columns})
        values += assert_equal(file, polars.DataFrame(table).to_dict(as_series=False))
        values += assert_equal(file, dict(zip(found.columns, columns, strict=True)))
    print(values)


if __name__ == "__main__":
    main(*sys.argv[1:])
