"""The data source `profilemate` of Apache Spark: sessions as tables, in local mode and on a cluster of this machine."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import lakes
import profilemate.fleet
import pyarrow.compute as pc
import pytest
from conftest import ROOT, make_day, spark_environment
from equal import assert_equal
from patience import until

pyspark = pytest.importorskip("pyspark", reason="pyspark is not installed here: the Spark suite runs this")
if shutil.which("java") is None:
    pytest.skip("no Java (openjdk-17-jre-headless): Spark does not run", allow_module_level=True)

from profilemate import parts  # noqa: E402
from profilemate.spark import ProfilemateDataSource, _Options, _Reader  # noqa: E402
from pyspark.sql import SparkSession  # noqa: E402
from pyspark.sql import functions as f  # noqa: E402

sys.path.insert(0, str(ROOT / "bench"))
import spark_cluster  # noqa: E402

START = 1795422301


@pytest.fixture(scope="module")
def spark(for_spark, tmp_path_factory):
    made = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.memory", "1g")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.adaptive.enabled", "false")
        .config("spark.sql.codegen.wholeStage", "false")
        .config("spark.sql.debug.maxToStringFields", "200")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.python.filterPushdown.enabled", "true")
        .config("spark.sql.warehouse.dir", str(tmp_path_factory.mktemp("warehouse")))
        .getOrCreate()
    )
    made.dataSource.register(ProfilemateDataSource)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory) -> Path:
    """Three sessions of two hosts, a minute apart from each other; one of them with several segments."""
    base = tmp_path_factory.mktemp("fleet")
    for n, host in enumerate(("gpu-1", "gpu-2", "gpu-1")):
        hours = 0.02 if n == 1 else 0.002
        make_day(
            base, f"start={START + 600 * n}", f"hours={hours}", "requests_per_s=40", f"host={host}", "kv_blocks=700"
        )
    return base


def load(spark, fleet, table, **options):
    reader = spark.read.format("profilemate").option("table", table).option("pushdown", "true")
    for name, value in options.items():
        reader = reader.option(name, value)
    return reader.load(f"{fleet}/session_*")


def sessions(fleet) -> list[Path]:
    return sorted(fleet.glob("session_*"))


def csv_rows(program, session: Path, table: str, out: Path) -> list[dict[str, str]]:
    out.mkdir(parents=True, exist_ok=True)
    program("export", "--quiet", "--format=csv-native", "--out", out, session)
    with (out / f"{table}.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_counts_and_sums_are_those_of_the_sessions(spark, fleet, program, tmp_path):
    for table, column in (("steps", "forward_ns"), ("requests", "output_tokens"), ("step_request", "tokens")):
        frame = load(spark, fleet, table, segments=1)
        found = {row["session"]: (row["n"], row["s"]) for row in frame.groupBy("session").agg(
            f.count("*").alias("n"), f.sum(column).alias("s")).collect()}  # fmt: skip
        for session in sessions(fleet):
            rows = csv_rows(program, session, table, tmp_path / table / session.name)
            expected = len(rows), sum(int(row[column]) for row in rows if row[column])
            assert found.pop(next(key for key in found if key.startswith(session.name))) == expected, (table, session)
        assert not found


def test_every_value_is_that_of_the_csv(spark, fleet, program, tmp_path):
    """However a session is cut into parts."""
    session = sessions(fleet)[1]
    program("export", "--quiet", "--format=csv-native", "--out", tmp_path, session)
    for table, order in (("steps", "step"), ("kv_step", "step")):
        frame = load(spark, fleet, table, segments=1).where(f.col("session").startswith(session.name)).orderBy(order)
        assert frame.rdd.getNumPartitions() > 0
        arrow = frame.toArrow()
        own = [name for name in arrow.column_names if name not in ("time", "host", "session")]
        assert_equal(tmp_path / f"{table}.csv", {name: arrow.column(name).to_pylist() for name in own})


def test_schema_has_types_and_sentences(spark, fleet):
    frame = load(spark, fleet, "requests")
    kinds = dict(frame.dtypes)
    assert kinds["time"] == "timestamp" and kinds["ttft_ns"] == "bigint" and kinds["engine"] == "int"
    assert kinds["request_id"] == kinds["host"] == "string" and kinds["arrived_sec"] == "double"
    told = frame.schema["ttft_ns"].metadata
    assert told["unit"] == "ns" and "first token" in told["comment"]


def test_tables_about_the_sessions(spark, fleet):
    rows = load(spark, fleet, "sessions").orderBy("start").collect()
    assert [row.host for row in rows] == ["gpu-1", "gpu-2", "gpu-1"]
    assert {(row.model, row.engine, row.state) for row in rows} == {("made-up/model", 0, "ended")}
    assert load(spark, fleet, "processes").select("role").distinct().collect()[0].role == "engine+worker"
    joined = load(spark, fleet, "steps").join(load(spark, fleet, "sessions"), ["session", "engine"])
    assert joined.count() == load(spark, fleet, "steps").count()


def test_filters_leave_out_sessions_and_parts(spark, fleet):
    """What is read of a session is only what a filter leaves, and the rows are those that the filter means."""
    every = load(spark, fleet, "steps", segments=1)
    parts = every.rdd.getNumPartitions()
    assert parts >= 5, "the sessions are too short: nothing could be left out"
    of_host = every.where("host = 'gpu-1'")
    assert of_host.rdd.getNumPartitions() == 2 < parts
    assert of_host.count() == every.toArrow().filter(pc.field("host") == "gpu-1").num_rows
    key = every.select("session").distinct().orderBy("session").first().session
    assert every.where(f.col("session").isin(key)).rdd.getNumPartitions() == 1
    assert every.where("engine = 7").count() == 0
    without = spark.read.format("profilemate").option("segments", 1).load(f"{fleet}/session_*").where("host = 'gpu-1'")
    assert without.rdd.getNumPartitions() == parts
    middle = datetime.fromtimestamp(START + 600, tz=timezone.utc) + timedelta(seconds=30)
    late = every.where(f.col("time") >= middle)
    whole = every.toArrow().filter(pc.field("time") >= middle)
    assert late.count() == whole.num_rows > 0
    assert late.agg(f.sum("tokens")).first()[0] == pc.sum(whole.column("tokens")).as_py()


def test_parts_by_time():
    """Which parts are left out, without Spark: none that has a row that is meant."""
    hour = 3_600 * 10**9
    cuts = tuple((1000 * n, 10**9 + n * 2 * hour) for n in range(6))
    source = parts.Source("kv_step", "p1-0", -1, -1, True, cuts)
    of = parts.Survey(
        Path("x"), "x", "ab", "ended", 10**18, 10**9, (), ({"last_mono_ns": 10**9 + 12 * hour, "attributes": {}},),
        (), (),
    )  # fmt: skip
    reader = _Reader(_Options({"path": "x", "segments": "1"}), None)
    assert len(list(reader._spans(of, source))) == 6
    reader.wanted.from_ns = 10**18 + 5 * hour
    assert next(reader._spans(of, source)) == (2000, 3000)
    reader.wanted.to_ns = 10**18 + 6 * hour
    assert list(reader._spans(of, source)) == [(2000, 3000), (3000, 4000)]


def test_only_the_columns_that_the_schema_names(spark, fleet):
    schema = "session string, tokens long, nowhere int"
    frame = spark.read.format("profilemate").schema(schema).load(f"{fleet}/session_*")
    row = frame.agg(f.sum("tokens"), f.count("nowhere"), f.countDistinct("session")).first()
    assert row[0] == load(spark, fleet, "steps").agg(f.sum("tokens")).first()[0] and row[1:] == (0, 3)


def test_a_corrupt_session_is_left_out_and_named(spark, fleet, tmp_path):
    for session in sessions(fleet):
        shutil.copytree(session, tmp_path / session.name)
    broken = sessions(tmp_path)[0]
    (records,) = (broken / "records").glob("*.pmrec")
    records.write_bytes(b"\0" * 4096)
    damaged = sessions(tmp_path)[1]
    (records,) = (damaged / "records").glob("*.pmrec")
    header, segment, _ = lakes.slots(records)
    data = bytearray(records.read_bytes())
    data[header + 2 * segment + segment // 2 :][:4096] = b"\xff" * 4096
    at = header + 2 * segment + segment // 2
    data[at : at + 4096] = b"\xff" * 4096
    records.write_bytes(data)
    found = {row["session"].rsplit("-", 1)[0]: row["count"] for row in load(spark, tmp_path, "steps", segments=1)
             .groupBy("session").count().collect()}  # fmt: skip
    expected = {s.name: profilemate.open(s).tables["steps"].to_arrow().num_rows for s in sessions(tmp_path)[1:]}
    assert found == expected
    notes = {Path(row.path).name: row.note for row in load(spark, tmp_path, "notes").collect()}
    assert set(notes) == {broken.name, damaged.name} and "not a record file" in notes[broken.name]
    with pytest.raises(Exception, match=broken.name):
        load(spark, tmp_path, "steps", bad="fail").count()


def test_what_is_asked_wrongly(spark, fleet, tmp_path):
    with pytest.raises(Exception, match="no session here has the table nothing; they have"):
        load(spark, fleet, "nothing")
    with pytest.raises(Exception, match="there is no session"):
        spark.read.format("profilemate").load(f"{tmp_path}/nowhere/*")


def test_the_lake_is_read_by_spark_as_by_the_others(spark, fleet, program, tmp_path):
    words = "--format=parquet", "--partition", f"--python={sys.executable}"
    program("export", "--quiet", *words, "--out", tmp_path / "lake", fleet)
    for table, column in (("steps", "forward_ns"), ("requests", "ttft_ns")):
        frame = spark.read.option("mergeSchema", "true").parquet(f"{tmp_path}/lake/table={table}")
        direct = load(spark, fleet, table)
        assert dict(frame.dtypes)["date"] == "date" and set(direct.columns) == set(frame.columns) - {"date"}
        by = ["host", "session"]
        asked = [f.count("*"), f.sum(column), f.min("time"), f.max("time")]
        mine = sorted(tuple(row) for row in frame.groupBy(*by).agg(*asked).collect())
        assert mine == sorted(tuple(row) for row in direct.groupBy(*by).agg(*asked).collect()) and len(mine) == 3


# ---- a cluster ----

QUERY = """
import json, os, sys, time
from pyspark.sql import SparkSession
from pyspark.sql import functions as f
from profilemate.spark import ProfilemateDataSource
master, fleet, lake, place, go = sys.argv[1:]
spark = (SparkSession.builder.master(master)
         .config("spark.ui.enabled", "false").config("spark.driver.host", "127.0.0.1")
         .config("spark.executor.memory", "512m").config("spark.executor.cores", "1")
         .config("spark.driver.memory", "512m")
         .config("spark.sql.shuffle.partitions", "2").config("spark.task.maxFailures", "8")
         .config("spark.sql.files.maxPartitionBytes", "1m")
         .config("spark.executorEnv.PYTHONPATH", os.environ["PYTHONPATH"]).getOrCreate())
spark.dataSource.register(ProfilemateDataSource)
steps = spark.read.format("profilemate").option("segments", 1).load(fleet + "/session_*")

def waiting(place, go):
    def wait(batches):  # every task says where it is, and goes on when it may
        with open(os.path.join(place, os.environ["SPARK_EXECUTOR_DIRS"].replace("/", "_")), "w"):
            pass
        for batch in batches:
            while not os.path.exists(go):
                time.sleep(0.1)
            yield batch
    return wait

row = steps.mapInArrow(waiting(place, go), steps.schema).agg(f.count("*"), f.sum("tokens"), f.sum("forward_ns")).first()
print("answer", *row, flush=True)

from profilemate.fleet import engines, run
class Waiting(engines.Spark):
    def view(self, lake, table, since, until):
        super().view(lake, table, since, until)
        if table == "steps":
            frame = self._session.table(table)
            frame.mapInArrow(waiting(place + "-fleet", go + "-fleet"), frame.schema).createOrReplaceTempView(table)
print(json.dumps(run("waste", lake, engine=Waiting()).dicts()), flush=True)
spark.stop()
"""


def end(child: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait(180)


def test_a_worker_of_a_cluster_killed_in_mid_query(fleet, program, tmp_path):
    """First one while the data source reads sessions, then one while a question to a lake of them is answered."""
    place, go, lake = tmp_path / "tasks", tmp_path / "go", tmp_path / "lake"
    asked, answer_it = tmp_path / "tasks-fleet", tmp_path / "go-fleet"
    place.mkdir()
    asked.mkdir()
    program("export", "--quiet", "--format=parquet", "--partition", f"--python={sys.executable}", "--out", lake, fleet)
    with contextlib.ExitStack() as stack:
        home = Path(pyspark.__file__).parent
        cluster = stack.enter_context(spark_cluster.cluster(tmp_path / "cluster", home, spark_environment(), 3))
        said = tmp_path / "query.log"
        with said.open("wb") as out:
            query = subprocess.Popen(
                [sys.executable, "-c", QUERY, cluster.url, fleet, lake, place, go], env={**os.environ, **spark_environment()},
                stdout=subprocess.PIPE, stderr=out, text=True, start_new_session=True,
            )  # fmt: skip
        stack.callback(end, query)

        def kill_one(number: int, tasks: Path, go_on: Path) -> None:
            """With its executor, and the task in it, once so many workers have one as there are."""
            until(
                lambda: len(list(tasks.iterdir())) >= 3 - number or query.poll() is not None,
                lambda: f"no tasks on all workers: {said.read_text()[-3000:]}",
            )
            assert query.poll() is None, said.read_text()[-3000:]
            cluster.kill_worker(number)
            go_on.touch()

        kill_one(0, place, go)
        answer = query.stdout.readline()
        kill_one(1, asked, answer_it)
        rows = query.stdout.read()
        assert query.wait(300) == 0, said.read_text()[-3000:]
        assert said.read_text().count("Lost executor") >= 2, "Spark did not see that the workers were gone"
    whole = [profilemate.open(session).tables["steps"].to_arrow() for session in sessions(fleet)]
    expected = [sum(each.num_rows for each in whole)]
    expected += [sum(pc.sum(each.column(name)).as_py() for each in whole) for name in ("tokens", "forward_ns")]
    assert answer.split()[-4:] == ["answer", *map(str, expected)]
    ours = profilemate.fleet.run("waste", lake).dicts()
    theirs = json.loads(rows.splitlines()[-1])
    assert len(ours) == len(theirs) > 0
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.keys() == other.keys() and mine["steps"] > 1000 and mine["preemptions"] > 0
        assert other == {
            name: pytest.approx(value, rel=1e-9) if isinstance(value, float) else value for name, value in mine.items()
        }
