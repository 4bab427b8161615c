"""Questions to a lake of sessions (docs/LAKE.md), answered by DuckDB or Spark: what `profilemate fleet` runs.

    from profilemate import fleet

    fleet.queries()                                            # by name
    fleet.run("slo", "s3://bucket/lake", ttft_ms=300)          # by DuckDB
    fleet.run("slo", "s3://bucket/lake", on="spark")           # the same of Spark

Each question is one .sql file of this folder, in what DuckDB and Spark have in common. Importing this loads neither.
"""

from __future__ import annotations

from profilemate.fleet.engines import EngineMissing
from profilemate.fleet.library import Parameter, Query, queries, query
from profilemate.fleet.running import Answer, run

__all__ = ["Answer", "EngineMissing", "Parameter", "Query", "queries", "query", "run"]
