"""Where a query runs: DuckDB in this process, or Spark. Both get the same views of the lake's tables.

A view has exactly the columns that the queries read, with one type each; what no file has is null, and a table that no
session has is empty. So a lake of several versions of ProfileMate, or of servers without experts, answers too.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from profilemate._shipstore import SECRETS

__all__ = ["DuckDB", "Engine", "EngineMissing", "Lake", "Spark", "open_engine"]

_WHOLE, _REAL, _TEXT, _SWITCH = "BIGINT", "DOUBLE", "STRING", "BOOLEAN"


def _columns(**types: str) -> dict[str, str]:
    return {name: type for type, names in types.items() for name in names.split()}


_PLACE = {"date": "DATE", "host": _TEXT, "session": _TEXT}
# What the queries read of each table; docs/LAKE.md has the rest.
TABLES: dict[str, dict[str, str]] = {
    "sessions": _columns(
        BIGINT="engine start_real_ns tensor_parallel pipeline_parallel max_num_seqs max_num_batched_tokens block_size"
        " num_gpu_blocks",
        STRING="model vllm_version device config_id quantization",
        BOOLEAN="enable_prefix_caching",
    ),
    "requests": _columns(
        BIGINT="engine prompt_tokens output_tokens preemptions lost_tokens recomputed_tokens preempted_ns queue_ns"
        " ttft_ns tpot_ns max_itl_ns e2e_ns",
        DOUBLE="arrived_sec queued_sec started_sec first_token_sec last_token_sec finished_sec",
        STRING="request_id state reason",
    ),
    "steps": _columns(
        BIGINT="engine rank step requests tokens prefill_requests prefill_tokens recompute_requests recompute_tokens"
        " decode_requests running waiting forward_ns schedule_ns pre_ns sample_ns total_ns update_ns drafted accepted"
        " kv_used",
        DOUBLE="timestamp_sec",
        STRING="phase forward_clock",
        BOOLEAN="matched has_scheduler",
    ),
    "kv_step": _columns(BIGINT="engine total used evicted queried_tokens hit_tokens"),
    "expert_load": _columns(BIGINT="engine rank layer experts top_k expert selections"),
}


class EngineMissing(Exception):
    """What has to be installed first, in a sentence."""


class Lake:
    """Where the tables are: a path, file:// or s3://; and which of its files are none."""

    def __init__(self, url: str | os.PathLike[str]):
        text = os.fspath(url)
        self.left_out: dict[str, str] = {}
        """Files that cannot be read, and why: the others are read without them."""
        parts = urlsplit(text)
        self.folder: Path | None = None
        if parts.scheme in ("", "file") or "://" not in text:
            path = Path(unquote(parts.path) if parts.scheme == "file" and "://" in text else text)
            self.folder = path.absolute()
            self.url = str(self.folder)
        elif parts.scheme in ("s3", "s3a") and parts.netloc:
            self.url = text.rstrip("/")
        else:
            raise ValueError(f"{text}: a lake is a path, file://… or s3://…")

    def days(self, table: str, since: str, until: str) -> list[Path]:
        """Of a lake on disk: a table's folders of these days."""
        assert self.folder is not None
        root = self.folder / f"table={table}"
        if not root.is_dir():
            return []
        days = (path for path in root.iterdir() if path.name.startswith("date=") and path.is_dir())
        return sorted(path for path in days if since <= unquote(path.name[5:]) <= until)

    def files(self, table: str, since: str, until: str) -> list[str]:
        """Its files, without those that are being written."""
        found: list[str] = []
        for day in self.days(table, since, until):
            for folder, folders, names in os.walk(day):
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                found += [os.path.join(folder, name) for name in sorted(names) if _is_file(name)]
        for path in found:
            if path not in self.left_out and (why := _damage(path)) is not None:
                self.left_out[path] = why
        return [path for path in found if path not in self.left_out]

    def leave_out(self, error: Exception, engine: Engine, tables: Iterable[str], since: str, until: str) -> bool:
        """Whether an engine's error is about damaged files, which are left out from now on."""
        if self.folder is None:
            return False
        text = str(error)
        for said in (text, unquote(text)):
            for path in re.findall(re.escape(f"{self.folder}/table=") + r"[^\n'\"]*?\.parquet", said):
                if path not in self.left_out and os.path.exists(path):
                    self.left_out[path] = " ".join(text.split("JVM stacktrace")[0].split())[:300]
                    return True
        files = [path for table in tables for path in self.files(table, since, until)]
        bad = {path: why for path in files if (why := engine.damage(path)) is not None}
        self.left_out |= bad
        return bool(bad)

    def check(self) -> None:
        """FileNotFoundError or ValueError, in a sentence, when it is none."""
        if self.folder is None:
            return
        if not self.folder.is_dir():
            raise FileNotFoundError(f"there is no folder {self.folder}")
        if not (self.folder / "table=sessions").is_dir():
            raise ValueError(
                f"{self.folder} is no lake of sessions: it has no table=sessions, make one with "
                f"`profilemate export --format parquet --partition -o {self.folder} SESSION…`"
            )


def _damage(path: str) -> str | None:
    """What is wrong with a Parquet file, as far as its last bytes tell."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 8, 0))
            tail = file.read()
    except OSError as error:
        return error.strerror or str(error)
    if size < 12 or tail[4:] != b"PAR1":
        return "it does not end as a Parquet file does: cut off, or no Parquet file"
    return None if int.from_bytes(tail[:4], "little") <= size - 12 else "the length of its footer is damaged"


def _is_file(name: str) -> bool:
    return name.endswith(".parquet") and not name.startswith((".", "_"))


class Engine(Protocol):
    """Views of the tables, and a query over them."""

    name: str

    def view(self, lake: Lake, table: str, since: str, until: str) -> None: ...
    def query(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]: ...
    def damage(self, path: str) -> str | None: ...
    def close(self) -> None: ...
    def __enter__(self) -> Engine: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


class _Closing:
    def close(self) -> None: ...

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class DuckDB(_Closing):
    """In this process; what does not fit into memory goes to a temporary folder."""

    name = "duckdb"

    def __init__(self, memory: str | None = None):
        import duckdb

        self._spill = tempfile.TemporaryDirectory(prefix="profilemate-fleet-")
        self._connection = duckdb.connect(":memory:")
        self._connection.execute(f"SET temp_directory = {_quoted(self._spill.name)}")
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.execute("SET autoinstall_known_extensions = false")
        if memory is not None:
            self._connection.execute(f"SET memory_limit = {_quoted(memory)}")

    def view(self, lake: Lake, table: str, since: str, until: str) -> None:
        if lake.folder is None:
            self._connection.register(f"_{table}", _remote(lake, table, since, until))
            every = ", ".join(f"CAST({name} AS {type}) AS {name}" for name, type in {**_PLACE, **TABLES[table]}.items())
            self._connection.execute(f"CREATE OR REPLACE VIEW {table} AS SELECT {every} FROM _{table}")
            return
        files = lake.files(table, since, until)
        have: set[str] = set()
        source = ""
        if files:
            listed = ", ".join(map(_quoted, files))
            source = (
                f"read_parquet([{listed}], union_by_name = true, hive_partitioning = true,"
                " hive_types_autocast = false, "
                "hive_types = {'date': DATE, 'host': VARCHAR, 'session': VARCHAR, 'table': VARCHAR})"
            )
            have = {str(row[0]) for row in self._connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}
        wanted = {**_PLACE, **TABLES[table]}
        picked = ", ".join(
            f"CAST({name if name in have else 'NULL'} AS {type}) AS {name}" for name, type in wanted.items()
        )
        self._connection.execute(
            f"CREATE OR REPLACE VIEW {table} AS SELECT {picked}" + (f" FROM {source}" if files else " WHERE false")
        )

    def query(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        done = self._connection.execute(sql)
        return [str(each[0]) for each in done.description or []], done.fetchall()

    def damage(self, path: str) -> str | None:
        """What is wrong with a file's footer: DuckDB's own errors do not always say which file they are about."""
        import duckdb

        try:
            self._connection.execute(f"SELECT count(*) FROM parquet_schema([{_quoted(path)}])").fetchall()
        except duckdb.Error as error:
            return f"its footer is damaged: {str(error).splitlines()[0]}"
        return None

    def close(self) -> None:
        self._connection.close()
        self._spill.cleanup()


def _remote(lake: Lake, table: str, since: str, until: str) -> Any:
    """A table in a bucket, read by pyarrow, which has what that takes: a data set of the columns that the queries read,
    null where a file lacks one. DuckDB asks it for the columns, days and hosts that a query is about."""
    try:
        import pyarrow as pa
        from pyarrow import dataset, fs
    except ModuleNotFoundError:
        raise EngineMissing(f"{lake.url} needs pyarrow in {sys.executable}, run: {sys.executable} -m pip install pyarrow")
    kinds = {_WHOLE: pa.int64(), _REAL: pa.float64(), _TEXT: pa.string(), _SWITCH: pa.bool_(), "DATE": pa.date32()}
    place = pa.schema([(name, kinds[kind]) for name, kind in {**_PLACE, "table": _TEXT}.items()])
    wanted = [(name, kinds[kind]) for name, kind in TABLES[table].items()]
    root = lake.url.split("://", 1)[1]
    # pyarrow knows AWS_ENDPOINT_URL only; other tools of S3 have this one before it.
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    try:
        store = fs.S3FileSystem(endpoint_override=endpoint) if endpoint else fs.FileSystem.from_uri(f"s3://{root}")[0]
        below = store.get_file_info(fs.FileSelector(f"{root}/table={table}", recursive=True, allow_not_found=True))
    except (OSError, pa.ArrowException) as error:
        first = str(error).strip().splitlines()[0]
        for name in SECRETS:  # a store's own words may have them
            secret = os.environ.get(name, "")
            first = first.replace(secret, "…") if len(secret) >= 4 else first
        raise OSError(f"{lake.url} cannot be read, see to the credentials, the region and the network ({first})") from None
    paths = sorted(each.path for each in below if each.is_file)
    if table == "sessions" and not paths:
        raise ValueError(f"{lake.url} is no lake of sessions: it has no table=sessions")
    return dataset.dataset(
        [path for path in paths if _is_file(path.rsplit("/", 1)[-1]) and since <= _day_of(path) <= until],
        schema=pa.schema([*wanted, *place]),
        filesystem=store,
        format="parquet",
        partitioning=dataset.HivePartitioning(place, segment_encoding="uri"),
        partition_base_dir=root,
    )


def _day_of(path: str) -> str:
    match = re.search(r"/date=([^/]+)/", path)
    return unquote(match[1]) if match else ""


_HOSTS = ("spark.driver.host", "spark.driver.bindAddress")


class Spark(_Closing):
    """Through pyspark: a cluster, or all cores of this machine. A session that is there already is taken and left."""

    name = "spark"

    def __init__(self, master: str | None = None, memory: str | None = None, config: Mapping[str, str] | None = None):
        from pyspark.errors import PySparkRuntimeError
        from pyspark.sql import SparkSession

        self._own = SparkSession.getActiveSession() is None
        builder = SparkSession.builder.appName("profilemate fleet").config("spark.sql.session.timeZone", "UTC")
        if self._own:
            builder = builder.config("spark.ui.enabled", "false").config("spark.log.level", "ERROR")
            builder = builder.config("spark.ui.showConsoleProgress", "false")
            if master is None and "SPARK_REMOTE" not in os.environ:
                master = "local[*]"
            if master is not None:
                builder = builder.master(master)
            if master is not None and master.startswith("local"):
                # Few shuffle partitions: for the machine's cores, not a cluster's. Nobody else talks to it.
                few = {"spark.sql.shuffle.partitions": str(2 * (os.cpu_count() or 1))}
                builder = builder.config(map=few | dict.fromkeys(_HOSTS, "127.0.0.1"))
            builder = builder.config(map=dict(config or {}))
            if memory is not None:
                builder = builder.config("spark.driver.memory", memory)
        try:
            self._session = builder.getOrCreate()
        except PySparkRuntimeError as error:
            raise EngineMissing(
                f"Spark does not start ({str(error).splitlines()[0]}):"
                " it needs Java 17 or newer, in JAVA_HOME or on the PATH"
            ) from None

    def view(self, lake: Lake, table: str, since: str, until: str) -> None:
        wanted = {**TABLES[table], **_PLACE}
        schema = ", ".join(f"{name} {type}" for name, type in wanted.items())
        reader = self._session.read.schema(schema)
        if lake.folder is None:
            root = lake.url.replace("s3://", "s3a://", 1) + f"/table={table}"
            frame = reader.option("basePath", root).parquet(root)
        else:
            files = lake.files(table, since, until)
            # Folders, which Spark lists by itself, but where a file of them is left out.
            whole = not any(path.startswith(f"{lake.folder}/table={table}/") for path in lake.left_out)
            paths = [str(day) for day in lake.days(table, since, until)] if whole else files
            root = f"file://{lake.folder}/table={table}"
            frame = (
                reader.option("basePath", root).parquet(*map(_unglobbed, paths))
                if files
                else self._session.createDataFrame([], schema)
            )
        frame.createOrReplaceTempView(table)

    def query(self, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        frame = self._session.sql(sql)
        return list(frame.columns), [tuple(row) for row in frame.collect()]

    def damage(self, path: str) -> str | None:
        """Spark's errors name the file."""
        return None

    def close(self) -> None:
        if self._own:
            self._session.stop()


def _unglobbed(path: str) -> str:
    """Spark takes a path for a pattern, of a URL."""
    return "file://" + re.sub(r"([\\*?{}\[\]])", r"\\\1", path)


_PACKAGES = {"duckdb": ("duckdb", "duckdb"), "spark": ("pyspark", "'pyspark>=4'")}


def open_engine(on: str, master: str | None = None, memory: str | None = None) -> Engine:
    """duckdb or spark; EngineMissing says what to install."""
    if on not in _PACKAGES:
        raise ValueError(f"--on={on}: an engine is duckdb or spark")
    module, package = _PACKAGES[on]
    if importlib.util.find_spec(module) is None:
        raise EngineMissing(
            f"--on={on} needs {module} in {sys.executable}, run: {sys.executable} -m pip install {package}"
            " (pip install 'profilemate[fleet]' brings both engines)"
        )
    return Spark(master, memory) if on == "spark" else DuckDB(memory)


def views(engine: Engine, lake: Lake, tables: Iterable[str], since: str, until: str) -> None:
    """Makes the views that a query reads; sessions of all days, since a session is told on the day of its start."""
    lake.check()
    names: Sequence[str] = list(tables)
    for table in names:
        whole = table == "sessions"
        engine.view(lake, table, "" if whole else since, "9999-12-31" if whole else until)
