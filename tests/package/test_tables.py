"""profilemate.open(): tables through the Arrow PyCapsule protocol equal the CSVs in every library that reads them."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import duckdb
import pandas
import polars
import profilemate
import pyarrow as pa
import pytest
from conftest import BUILD, PACKAGE, make_day
from equal import assert_equal

NAMES = ("sched_step", "step_request", "update_step", "request", "kv_step", "worker_step", "steps", "requests")


@pytest.fixture(scope="module")
def session(day):
    return profilemate.open(day)


def test_the_tables_are_those_of_the_program(session, csvs):
    assert set(session.tables) == {path.stem for path in csvs.glob("*.csv")}
    assert set(NAMES) <= set(session.tables)


@pytest.mark.parametrize("name", NAMES)
def test_in_pyarrow(session, csvs, name):
    table = pa.table(session.tables[name])
    table.validate(full=True)
    assert assert_equal(csvs / f"{name}.csv", table.to_pydict()) > 1000


@pytest.mark.parametrize("name", NAMES)
def test_in_pandas(session, csvs, name):
    frame = session.tables[name].to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert_equal(csvs / f"{name}.csv", {column: frame[column].tolist() for column in frame.columns})


@pytest.mark.parametrize("name", NAMES)
def test_in_polars(session, csvs, name):
    assert_equal(csvs / f"{name}.csv", polars.DataFrame(session.tables[name]).to_dict(as_series=False))
    assert session.tables[name].to_polars().equals(polars.DataFrame(session.tables[name]))


@pytest.mark.parametrize("name", NAMES)
def test_in_duckdb(session, csvs, name):
    found = duckdb.from_arrow(pa.RecordBatchReader.from_stream(session.tables[name]))
    assert_equal(csvs / f"{name}.csv", dict(zip(found.columns, zip(*found.fetchall(), strict=True), strict=True)))


def test_duckdb_takes_the_table_itself(session):
    steps = session.tables["steps"]  # noqa: F841
    (count, tokens), = duckdb.sql("select count(*), sum(tokens) from steps").fetchall()
    frame = session.tables["steps"].to_pandas()
    assert (count, tokens) == (len(frame), frame.tokens.sum())


def test_whole_numbers_stay_whole_where_some_are_missing(session):
    frame = session.tables["requests"].to_pandas()
    assert str(frame.tpot_ns.dtype) == "UInt64" and frame.tpot_ns.isna().any()
    assert frame.e2e_ns.dropna().astype("float64").gt(0).all()


def test_units_kinds_and_sentences_are_in_the_metadata(session):
    schema = pa.schema(session.tables["requests"])
    assert schema.equals(pa.table(session.tables["requests"]).schema, check_metadata=True)
    field = schema.field("ttft_ns")
    assert field.metadata[b"unit"] == b"ns" and field.metadata[b"kind"] == b"duration"
    assert b"first output" in field.metadata[b"description"]
    assert schema.field("arrived_sec").metadata[b"unit"] == b"s"
    assert schema.metadata[b"profilemate.table"] == b"requests"
    assert schema.metadata[b"profilemate.session"] == session.name.encode()
    assert int(schema.metadata[b"profilemate.start_mono_ns"]) == session.start_monotonic_ns
    for name in session.tables:
        columns = session.tables[name].columns
        assert [c.name for c in columns] == pa.schema(session.tables[name]).names
        assert all(c.description for c in columns), name


def test_batches(session):
    whole = session.tables["steps"].to_arrow()
    with session.tables["steps"].batches(rows=100) as batches:
        parts = list(batches)
    assert {part.num_rows for part in parts[:-1]} == {100} and 0 < parts[-1].num_rows <= 100
    assert pa.Table.from_batches(parts).equals(whole)
    assert all(b is None or b.address % 64 == 0 for part in parts for c in part.columns for b in c.buffers()[:2])
    with pytest.raises(ValueError, match="at least 1"):
        session.tables["steps"].batches(rows=0)


def test_what_was_read_outlives_all_else(day, tmp_path):
    copy = shutil.copytree(day, tmp_path / day.name)
    session = profilemate.open(copy)
    column = session.tables["requests"].to_arrow().column("request_id")
    reader = session.tables["steps"].batches(rows=10)
    first = reader.read_next_batch()
    del session, reader
    shutil.rmtree(copy)
    gc.collect()
    assert column.to_pylist()[0].startswith("chatcmpl-") and first.column("step").to_pylist() == list(range(10))


def test_a_capsule_that_nobody_takes_is_freed(session):
    """No descriptor stays behind either."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        session.tables["steps"].__arrow_c_stream__()
        session.tables["steps"].__arrow_c_schema__()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_several_threads_read_at_once(session):
    sizes = []
    threads = [
        threading.Thread(target=lambda: sizes.append(session.tables["steps"].to_arrow().num_rows)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(sizes) == 4 and len(set(sizes)) == 1


# ---- which session, a part of it, and how it stands ----


def test_which_session_is_meant(day):
    assert profilemate.open().path == day
    assert profilemate.open(day.name).path == day
    assert profilemate.open(day.name[len("session_") : -2]).path == day
    assert profilemate.open(str(day)).path == day
    assert profilemate.open(dir=day.parent).path == day


def test_a_part_of_a_session(session):
    part = session.window(steps="100:200")
    assert part.tables["steps"].to_arrow().column("step").to_pylist() == list(range(100, 201))
    last = session.window(last="1s").tables["steps"].to_pandas()
    whole = session.tables["steps"].to_pandas()
    assert 0 < len(last) < len(whole) and last.step.max() == whole.step.max()


def test_how_it_stands(session, day):
    assert session.state == "killed"
    assert {process.state for process in session.processes} == {"killed"}
    assert all(process.records > 0 for process in session.processes if process.role != "frontend")
    assert session.processes[0].attributes["version.vllm"] == "0.32.0"
    assert session.notes == [] and session.start.tzinfo is not None
    assert repr(session) == f"<profilemate.Session {day.name}: killed>"
    assert session.report["state"] == "killed"


def test_in_a_notebook(session):
    shown = session._repr_html_()
    assert session.name in shown and "made-up/model" in shown
    assert all(f">{name}</td>" in shown for name in session.tables)


def test_what_a_name_holds_does_not_become_html(tmp_path):
    made = make_day(tmp_path, "hours=0.0005", "model=<script>alert(1)</script>")
    shown = profilemate.open(made)._repr_html_()
    assert "<script" not in shown and "&lt;script&gt;" in shown


def test_a_running_session_is_read_as_far_as_it_has_come(tmp_path):
    words = (BUILD / "tests" / "make_session", f"dir={tmp_path}", "steps=7", "end=hold")
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        session = profilemate.open(writer.stdout.readline().strip())
        assert session.state == "running"
        assert session.tables["steps"].to_arrow().num_rows == 7
        writer.communicate()
    assert session.state == "ended"


def test_a_damaged_file_is_told_and_the_rest_is_read(day, tmp_path):
    copy = shutil.copytree(day, tmp_path / day.name)
    for record in copy.glob("records/*.pmrec"):
        whole = record.read_bytes()
        record.write_bytes(whole[: len(whole) * 2 // 3])
    session = profilemate.open(copy)
    rows = session.tables["sched_step"].to_arrow().num_rows
    assert 0 < rows <= profilemate.open(day).tables["sched_step"].to_arrow().num_rows


# ---- what is wrong is one sentence ----


def test_failures_are_exceptions_with_the_programs_sentence(session, tmp_path, program):
    with pytest.raises(FileNotFoundError, match="there is no session at /no/where") as failure:
        profilemate.open("/no/where")
    said = program("export", "/no/where", check=False).stderr
    assert said == f"profilemate: {failure.value}\n"
    with pytest.raises(ValueError, match="is no session"):
        profilemate.open(tmp_path)
    with pytest.raises(KeyError, match="nothing: the session has no such table, it has sched_step"):
        session.tables["nothing"]
    with pytest.raises(ValueError, match="--last soon"):
        session.window(last="soon")
    with pytest.raises(ValueError):
        session.window(last="1s", steps="1:2")
    with pytest.raises(FileNotFoundError):
        session.window(request="nobody")
    with pytest.raises(TypeError):
        profilemate.open(7)


def test_a_folder_of_the_python_profiler_is_to_be_converted(tmp_path):
    (tmp_path / "forward_pass_timing.csv").write_text("timestamp_sec\n")
    with pytest.raises(ValueError, match="make a session of it with `profilemate convert`"):
        profilemate.open(tmp_path)


def test_a_table_that_goes_away_while_it_is_read(day, tmp_path):
    copy = shutil.copytree(day, tmp_path / day.name)
    session = profilemate.open(copy)
    shutil.rmtree(copy)
    with pytest.raises(FileNotFoundError):
        session.tables  # noqa: B018


# ---- every interpreter, and the types ----


@pytest.mark.parametrize("python", [p for p in os.environ.get("PM_PYTHONS", sys.executable).split(os.pathsep) if p])
def test_the_extension_works_without_any_library(day, python):
    code = (
        "import sys, profilemate\n"
        "assert not [m for m in sys.modules if m.startswith('profilemate.')]\n"
        "s = profilemate.open(sys.argv[1])\n"
        "stream = s.tables['steps'].__arrow_c_stream__()\n"
        "print(type(stream).__name__, s.state, len(s.tables), s.tables['steps'].columns[0])\n"
    )
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PACKAGE)}
    done = subprocess.run([python, "-c", code, day], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("PyCapsule killed ") and "timestamp_sec" in done.stdout


def test_the_types_are_checked(tmp_path):
    user = tmp_path / "user.py"
    user.write_text(
        "import profilemate\n"
        "session = profilemate.open('x', dir='y')\n"
        "rows: int = session.tables['steps'].to_arrow().num_rows\n"
        "name: str = session.window(last='30s').tables['steps'].columns[0].unit\n"
        "pid: int = session.processes[0].pid\n"
    )
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import profilemate\nprofilemate.open(7)\nprofilemate.open().tables['steps'].rows\n")
    mypy = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--cache-dir", os.devnull]
    env = {**os.environ, "MYPYPATH": str(PACKAGE)}
    mypy += ["--disable-error-code", "import-untyped"]  # pyarrow and pandas have no types of their own
    config = tmp_path / "mypy.ini"  # pyspark is not installed here
    config.write_text("[mypy]\n[mypy-pyspark.*]\nignore_missing_imports = True\n")
    mypy += ["--config-file", config, "--allow-subclassing-any"]
    done = subprocess.run([*mypy, user, PACKAGE / "profilemate"], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout
    done = subprocess.run([*mypy, wrong], capture_output=True, text=True, env=env)
    assert "[arg-type]" in done.stdout and "[attr-defined]" in done.stdout
    assert (Path(profilemate.__file__).parent / "py.typed").exists()
