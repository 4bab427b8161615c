"""profilemate export --format parquet --partition: a lake of sessions, as those who read lakes read it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from datetime import date
from pathlib import Path

import duckdb
import lakes
import polars
import profilemate
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from conftest import PACKAGE, PROGRAM, make_day
from equal import assert_equal
from patience import until
from profilemate import lake as lake_module

OPTIONS = ("export", "--format=parquet", "--partition", f"--python={sys.executable}")


@pytest.fixture(scope="module")
def long_day(tmp_path_factory) -> Path:
    """Some megabytes: several segments, which end while requests are under way."""
    base = tmp_path_factory.mktemp("long")
    return make_day(base, "hours=0.02", "requests_per_s=40", "kv_blocks=700", "end=kill", "host=gpu-07", "served=chat")


@pytest.fixture(scope="module")
def long_csvs(long_day, program, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("long_csv")
    program("export", "--quiet", "--format=csv-native", "--out", out, long_day)
    return out


@pytest.fixture(scope="module")
def lake(long_day, program, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("lake") / "lake"
    program(*OPTIONS, "--quiet", "--out", out, long_day)
    return out


def ask_duckdb(query: str) -> list[tuple]:
    with duckdb.connect() as connection:
        connection.execute("set timezone='UTC'")
        return connection.execute(query).fetchall()


def equal_to_csvs(lake: Path, csvs: Path) -> int:
    """Every table has the rows of its CSV, value by value."""
    names = {path.stem for path in csvs.glob("*.csv") if len(path.read_text().splitlines()) > 1}
    names -= {"request_open", "moe_totals", "graph_usage"}
    assert set(lakes.tables(lake)) - {"sessions", "processes", "expert_load"} == names
    return sum(assert_equal(csvs / f"{name}.csv", lakes.columns(lakes.rows(lake, name))) for name in names)


# ---- what is in it ----


def test_every_row_of_the_session(lake, long_csvs):
    assert equal_to_csvs(lake, long_csvs) > 100_000


def test_layout(lake, long_day):
    token = re.search(r"^token (\w+)$", (long_day / "session").read_text(), re.M)[1]
    key = f"{long_day.name}-{token[:8]}"
    folders = {str(Path(name).parent) for name in lakes.files(lake)}
    assert folders == {f"table={t}/date=2026-11-23/host=gpu-07/session={key}" for t in lakes.tables(lake)}
    assert not lakes.left_over(lake)
    for name in lakes.files(lake):
        if "/sessions." not in name and "/processes." not in name:
            assert re.fullmatch(r"p\d+-[0-9a-f]{8}(-\d)?-(\d{19}-\d{19}|open)\.parquet", Path(name).name), name


def test_files_are_small_in_memory_and_say_their_units(lake):
    groups = 0
    for path in (lake / "table=step_request").rglob("*.parquet"):
        told = pq.ParquetFile(path)
        for i in range(told.metadata.num_row_groups):
            group = told.metadata.row_group(i)
            groups += 1
            assert group.num_rows <= lake_module.GROUP_ROWS
            assert {group.column(k).compression for k in range(group.num_columns)} == {"ZSTD"}
    assert groups > 0
    schema = pq.read_schema(next((lake / "table=requests").rglob("*.parquet")))
    assert schema.field("ttft_ns").metadata[b"unit"] == b"ns"
    assert schema.field("prompt_tokens").metadata == {
        b"unit": b"tokens", b"kind": b"count", b"description": b"Of the last turn's prompt.",
    } | {k: v for k, v in schema.field("prompt_tokens").metadata.items() if k == b"PARQUET:field_id"}  # fmt: skip
    unsigned = [each for each in schema if pa.types.is_unsigned_integer(each.type)]
    assert not unsigned and schema.field("time").type == pa.timestamp("us", tz="UTC")
    assert schema.metadata[b"profilemate.table"] == b"requests"


def test_all_who_read_lakes_read_the_same(lake, long_csvs):
    """Counts and sums by DuckDB, polars and pyarrow, of whole tables by their partitions, and those of the CSV."""
    steps, requests = f"{lake}/table=steps/**/*.parquet", f"{lake}/table=requests/**/*.parquet"
    hive = "hive_partitioning=true, hive_types={'host': varchar, 'date': date, 'session': varchar}"
    ask = "select count(*), sum({0}), min(time), max(time), min(host), min(date), count(distinct session) from "
    expected = None
    for place, column in ((steps, "forward_ns"), (requests, "ttft_ns")):
        theirs = ask_duckdb(f"{ask.format(column)} read_parquet('{place}', {hive})")[0]
        frame = polars.scan_parquet(place, hive_partitioning=True).select(
            polars.len(), polars.col(column).sum().alias("sum"), polars.col("time").min().alias("first"),
            polars.col("time").max().alias("last"), polars.col("host").min(), polars.col("date").min(),
            polars.col("session").n_unique(),
        )  # fmt: skip
        assert frame.collect().row(0) == theirs
        folder = Path(place.split("**")[0])
        arrow = pyarrow.dataset.dataset(folder, partitioning="hive").to_table()
        assert (arrow.num_rows, pc.sum(arrow.column(column)).as_py()) == theirs[:2]
        with (long_csvs / f"{'steps' if place == steps else 'requests'}.csv").open() as lines:
            names, *rows = [line.rstrip("\n").split(",") for line in lines]
        values = [int(row[names.index(column)]) for row in rows if row[names.index(column)]]
        assert theirs[:2] == (len(rows), sum(values)) and theirs[4:] == ("gpu-07", date(2026, 11, 23), 1)
        expected = theirs
    assert expected is not None


def test_the_lake_says_what_the_report_says(lake, long_day, program):
    report = json.loads(program("report", "--json", long_day).stdout)
    session = profilemate.open(long_day)
    (told,) = report["engines"]
    assert told["ranks"], "the report has no rank: nothing was compared"
    place = f"read_parquet('{lake}/table=steps/**/*.parquet')"
    names = ("steps", "prefill_steps", "decode_steps", "prefill_tokens", "recompute_tokens", "decode_tokens")
    steps = ask_duckdb(
        "select count(*), count(*) filter (where phase = 'prefill'), count(*) filter (where phase = 'decode'), "
        f"sum(prefill_tokens), sum(recompute_tokens), sum(decode_tokens) from {place} where rank = 0"
    )
    assert steps == [tuple(told[name] for name in names)] and told["prefill_steps"] > 0 < told["recompute_tokens"]
    place = f"read_parquet('{lake}/table=requests/**/*.parquet')"
    names = ("total", "not_over", "prompt_tokens", "output_tokens", "preemptions", "lost_tokens")
    requests = ask_duckdb(
        "select count(*), count(*) filter (where state <> 'finished'), sum(prompt_tokens), sum(output_tokens), "
        f"sum(preemptions), sum(lost_tokens) from {place}"
    )
    assert requests == [tuple(told["requests"][name] for name in names)] and told["requests"]["not_over"] > 0
    ttft = ask_duckdb(f"select count(ttft_ns), round(avg(ttft_ns) / 1e6, 3), round(max(ttft_ns) / 1e6, 3) from {place}")
    assert ttft == [tuple(told["requests"]["ttft"][name] for name in ("count", "mean_ms", "max_ms"))]
    # How full the cache was in a step is what the table of the cache says of it.
    levels = f"read_parquet('{lake}/table=kv_step/**/*.parquet')"
    place = f"read_parquet('{lake}/table=steps/**/*.parquet')"
    alike = ask_duckdb(
        "select count(*), count(*) filter (where kv_used = used and kv_total = total), max(kv_used) "
        f"from {place} s join {levels} k on s.step = k.step"
    )
    assert alike[0][0] == alike[0][1] == told["steps"] and 600 < alike[0][2] <= 700
    (engine,) = lakes.rows(lake, "sessions").to_pylist()
    assert engine["state"] == "killed" and engine["complete"] and engine["engine"] == 0 and engine["ranks"] == 1
    assert engine["model"] == "made-up/model" and engine["vllm_version"] == "0.32.0"
    assert engine["served_model_name"] == "chat"
    assert engine["max_num_seqs"] == 256 and engine["num_gpu_blocks"] == 700 and engine["block_size"] == 16
    assert engine["start"].timestamp() == pytest.approx(session.start.timestamp(), abs=1e-5)
    assert engine["end"] >= lakes.rows(lake, "steps").column("time").to_pylist()[-1]
    assert json.loads(engine["config"])["config.max_num_seqs"] == "256" and len(engine["config_id"]) == 16
    (process,) = lakes.rows(lake, "processes").to_pylist()
    assert process["role"] == "engine+worker" and process["closed"] is None and process["records"] > 1000


def test_rows_after_midnight_are_in_the_next_day(program, tmp_path):
    midnight = 1795478400  # 2026-11-24 00:00 UTC
    day = make_day(tmp_path / "made", f"start={midnight - 20}", "hours=0.012", "end=close", "requests_per_s=30")
    program(*OPTIONS, "--quiet", "--out", tmp_path / "lake", day)
    for table in ("steps", "requests", "kv_step", "step_request"):
        dates = {path.name for path in (tmp_path / "lake" / f"table={table}").iterdir()}
        assert dates == {"date=2026-11-23", "date=2026-11-24"}, table
        found = ask_duckdb(
            "select date, count(*), min(time), max(time) "
            f"from read_parquet('{tmp_path}/lake/table={table}/**/*.parquet', "
            "hive_partitioning=true, hive_types={'date': date}) group by date order by date"
        )
        if table != "requests":  # whose time is when they came, and whose day that when they ended
            for day_of, _, first, last in found:
                assert first.astimezone(tz=_utc()).date() == last.astimezone(tz=_utc()).date() == day_of, table
        assert sum(row[1] for row in found) == profilemate.open(day).tables[table].to_arrow().num_rows
    assert [path.name for path in (tmp_path / "lake/table=sessions").iterdir()] == ["date=2026-11-23"]


def _utc():
    from datetime import timezone

    return timezone.utc


def test_expert_load_is_what_was_counted(program, tmp_path):
    day = make_day(
        tmp_path / "made", "hours=0.003", "requests_per_s=20", "moe_layers=3", "moe_experts=40", "moe_top_k=2"
    )
    program(*OPTIONS, "--quiet", "--out", tmp_path / "lake", day)
    load = lakes.rows(tmp_path / "lake", "expert_load")
    counts = profilemate.open(day).tables["moe_counts"].to_arrow().filter(pc.field("what") == 0)
    cells = [name for name in counts.column_names if re.fullmatch(r"n\d+", name)]
    assert pc.sum(load.column("selections")).as_py() == sum(pc.sum(counts.column(name)).as_py() for name in cells) > 0
    assert set(load.column("layer").to_pylist()) == {0, 1, 2} and set(load.column("experts").to_pylist()) == {40}
    assert 32 < max(load.column("expert").to_pylist()) < 40
    program("export", "--quiet", "--out", tmp_path / "csv", day)
    with (tmp_path / "csv" / "moe_expert_selection.csv").open() as lines:
        expected = ask_duckdb(f"select sum(selection_count) from read_csv('{lines.name}')")[0][0]
    assert pc.sum(load.column("selections")).as_py() == expected


# ---- again, and while it runs ----


def test_a_second_run_adds_nothing(lake, long_day, program):
    before = lakes.files(lake)
    said = program(*OPTIONS, "--out", lake, long_day).stderr
    assert lakes.files(lake) == before and "Wrote 0 files (0 rows) of 0 sessions" in said


def test_a_copy_of_a_session_is_the_same_session(lake, long_day, program, tmp_path):
    before = lakes.files(lake)
    shutil.copytree(long_day, tmp_path / long_day.name)
    program(*OPTIONS, "--out", lake, tmp_path)
    assert lakes.files(lake) == before


def test_appending_while_the_server_runs(long_day, long_csvs, lake, program, tmp_path):
    """Looked at again and again, it is in the end the lake of one look; no row was ever there twice or taken back."""
    mine, place = tmp_path / "lake", tmp_path / "now" / long_day.name
    (path,) = (long_day / "records").glob("*.pmrec")
    count, grown, seen = lakes.slots(path)[2], [], {}
    assert count >= 5, "the session is too short: nothing would be appended"
    for segments, share in [(2, 0.5), (3, 0.1), (3, 0.9), (5, 0.5), (count, 0.7)]:
        with lakes.earlier(long_day, place, segments, share):
            said = program(*OPTIONS, "--out", mine, place).stderr
        assert "1 server still running" in said
        now = lakes.files(mine)
        lasting = {
            name: what for name, what in now.items() if "table=sessions" not in name and "table=proc" not in name
        }
        assert seen.items() <= lasting.items(), "a file was changed or taken away"
        grown.append(len(lasting) - len(seen))
        seen = lasting
        (engine,) = lakes.rows(mine, "sessions").to_pylist()
        assert engine["state"] == "running" and not engine["complete"]
    assert sum(size > 0 for size in grown) >= 3, f"hardly anything was appended: {grown}"
    program(*OPTIONS, "--out", mine, long_day)
    assert equal_to_csvs(mine, long_csvs) > 100_000
    for table in ("steps", "requests", "step_request"):
        assert lakes.rows(mine, table).equals(lakes.rows(lake, table)), table
    before = lakes.files(mine)
    program(*OPTIONS, "--out", mine, long_day)
    assert lakes.files(mine) == before


def test_what_a_running_server_has_not_settled_is_not_there(long_day, program, tmp_path):
    with lakes.earlier(long_day, tmp_path / "now" / long_day.name, 3, 0.8) as place:
        program(*OPTIONS, "--quiet", "--out", tmp_path / "lake", place)
        whole = profilemate.open(place).tables
        for table in ("steps", "requests", "kv_step", "worker_step"):
            have, held = lakes.rows(tmp_path / "lake", table), whole[table].to_arrow()
            assert 0 < have.num_rows < held.num_rows, table
            mine = lakes.columns(have)
            assert {k: v[: have.num_rows] for k, v in held.to_pydict().items()} == mine, table
        assert set(lakes.rows(tmp_path / "lake", "requests").column("state").to_pylist()) == {"finished"}


def test_two_at_once(long_day, lake, tmp_path):
    """Four programs write the same session at the same time: one does, the others find it done."""
    env = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    words = [PROGRAM, *OPTIONS, "--quiet", "--out", tmp_path / "lake", long_day]
    running = [subprocess.Popen(words, env=env, stderr=subprocess.PIPE) for _ in range(4)]
    assert [(each.communicate(timeout=300)[1], each.returncode) for each in running] == [(b"", 0)] * 4
    assert lakes.files(tmp_path / "lake").keys() == lakes.files(lake).keys()


# ---- what goes wrong ----

# Runs main() in children that kill themselves at the n-th call that touches the disk, n = 1, 2, …, up to one that ends.
KILLED = """
import os, pathlib, signal, sys
import pyarrow.parquet as pq
from profilemate import lake
lake.GROUP_ROWS, lake.FILE_ROWS, words = 5000, 20000, sys.argv[1:]
calls, limit = 0, 0
def wrapped(owner, name):
    inner = getattr(owner, name)
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return inner(*args, **kwargs)
    setattr(owner, name, call)
for owner, names in ((pathlib.Path, ("mkdir", "rename", "unlink", "open")), (os, ("fsync", "close", "listdir")),
                     (pq.ParquetWriter, ("write_batch", "close"))):
    for name in names:
        wrapped(owner, name)
step = 1
while True:
    calls, limit = 0, limit + step
    pid = os.fork()
    if pid == 0:
        os._exit(lake.main(words))
    status = os.waitpid(pid, 0)[1]
    if not os.WIFSIGNALED(status):
        print(limit, os.waitstatus_to_exitcode(status))
        break
    print("killed", limit, flush=True)
    sys.stdin.readline()
    step = 1 if limit < 40 else 7
"""


def test_killed_anywhere(day, csvs, tmp_path):
    """However a run ends, what is seen is whole, in order and once; the next run goes on."""
    lake, kills, most = tmp_path / "lake", 0, 0
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, lake, "quiet", "", "", day], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONPATH": str(PACKAGE)},
    )  # fmt: skip
    with child:
        for line in child.stdout:
            if not line.startswith("killed"):
                assert line.split()[1] == "0"
                break
            kills += 1
            for table in lakes.tables(lake) if kills % 5 == 1 else ():
                if table not in ("sessions", "processes"):
                    have = lakes.columns(lakes.rows(lake, table))
                    want = profilemate.open(day).tables[table].to_arrow().to_pydict()
                    most = max(most, len(next(iter(have.values()))))
                    assert have == {name: values[: len(have[name])] for name, values in want.items()}, (table, line)
            child.stdin.write("\n")
            child.stdin.flush()
    assert kills > 20 and most > 1000, (kills, most)
    equal_to_csvs(lake, csvs)
    assert not lakes.left_over(lake), "what an ended run had begun is still there"


def test_no_room(long_day, long_csvs, program, tmp_path):
    """A write that fails, as on a full disk: one sentence, exit 1, nothing that is not whole; afterwards it goes on."""
    lake = tmp_path / "lake"
    limited = ["prlimit", "--fsize=150000", PROGRAM, *OPTIONS, "--out", lake, long_day]
    if shutil.which("prlimit") is None:
        pytest.skip("prlimit (util-linux) is not installed")
    done = subprocess.run(
        limited, env={**os.environ, "PYTHONPATH": str(PACKAGE)}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "File too large" in done.stderr and long_day.name in done.stderr
    for name in lakes.files(lake):
        pq.ParquetFile(lake / name).metadata.num_rows  # noqa: B018
    assert not lakes.left_over(lake)
    program(*OPTIONS, "--quiet", "--out", lake, long_day)
    equal_to_csvs(lake, long_csvs)


def test_a_disk_without_room_ends_the_run(day, tmp_path, monkeypatch, capsys):
    def full(_handle):
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr(os, "fsync", full)
    assert lake_module.main([str(tmp_path / "lake"), "", "", "", str(day), str(day)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "No space left on device" in said and "run it again when there is room" in said
    assert not lakes.files(tmp_path / "lake") and not lakes.left_over(tmp_path / "lake")


def test_a_corrupt_session_among_many(program, tmp_path):
    made = [make_day(tmp_path / "in", f"start={1795422301 + 60 * n}", "hours=0.001") for n in range(4)]
    made = sorted((tmp_path / "in").iterdir())
    (records,) = (made[1] / "records").glob("*.pmrec")
    records.write_bytes(b"\0" * 4096 + records.read_bytes()[4096:])  # no header any more
    (made[2] / "session").write_text("nothing\n")
    done = program(*OPTIONS, "--out", tmp_path / "lake", *made, "session_nowhere", check=False)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert any(made[1].name in line and "left out" in line for line in lines), lines
    assert any(made[2].name in line and "left out" in line for line in lines), lines
    assert any("session_nowhere" in line for line in lines), lines
    assert lines[-1] == "profilemate: 3 of 5 sessions left out, the others are done"
    there = set(lakes.rows(tmp_path / "lake", "sessions").column("name").to_pylist())
    assert there == {made[0].name, made[3].name}
    program(*OPTIONS, "--out", tmp_path / "lake", made[0], made[3])


def test_damage_inside_a_session_is_named_and_the_rest_is_there(long_day, program, tmp_path):
    copy = shutil.copytree(long_day, tmp_path / long_day.name)
    (records,) = (copy / "records").glob("*.pmrec")
    header, segment, count = lakes.slots(records)
    data = bytearray(records.read_bytes())
    middle = header + count // 2 * segment
    data[middle + segment // 2 : middle + segment // 2 + 4096] = b"\xff" * 4096
    records.write_bytes(data)
    done = program(*OPTIONS, "--out", tmp_path / "lake", copy)
    assert records.name in done.stderr and "at byte" in done.stderr
    for table in ("worker_step", "steps", "requests"):
        have = lakes.rows(tmp_path / "lake", table)
        assert lakes.columns(have) == profilemate.open(copy).tables[table].to_arrow().to_pydict()


# ---- the command ----


def test_only_some_tables_and_a_folder_of_sessions(program, tmp_path):
    for n in range(3):
        make_day(tmp_path / "in", f"start={1795422301 + 60 * n}", "hours=0.001")
    said = program(*OPTIONS, "--tables=steps,requests", "--out", tmp_path / "lake", tmp_path / "in").stderr
    assert lakes.tables(tmp_path / "lake") == ["processes", "requests", "sessions", "steps"]
    assert "of 3 sessions" in said
    assert lakes.rows(tmp_path / "lake", "sessions").column("complete").to_pylist() == [False] * 3
    program(*OPTIONS, "--quiet", "--out", tmp_path / "lake", tmp_path / "in")
    assert "kv_step" in lakes.tables(tmp_path / "lake")
    assert lakes.rows(tmp_path / "lake", "sessions").column("complete").to_pylist() == [True] * 3


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--format=arrow", "--partition", "-o", "x"), "--partition belongs to --format=parquet"),
        (("--format=parquet", "--tables=steps", "-o", "x"), "--tables belongs to --partition"),
        (("--format=parquet", "--partition", "-o", "x", "--last=3s"), "--partition adds whole sessions"),
        (("--format=parquet", "--partition"), "say where with --out DIR"),
        (("--format=parquet", "-o", "x", "one", "two"), "one SESSION at a time"),
    ],
)
def test_misuse(program, words, sentence):
    done = program("export", *words, check=False)
    assert done.returncode == 2 and sentence in done.stderr


def test_ctrl_c(long_day, tmp_path):
    """Says nothing, and what can be seen is whole."""
    lake, env = tmp_path / "lake", {**os.environ, "PYTHONPATH": str(PACKAGE)}
    words = [PROGRAM, *OPTIONS, "--quiet", "--out", lake, long_day]
    child = subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True)
    until(lambda: child.poll() is not None or any(lake.rglob("*.parquet")), "it wrote nothing")
    child.send_signal(signal.SIGINT)
    said = child.communicate(timeout=300)[1]
    assert said == "" and child.returncode in (0, -signal.SIGINT)
    assert [pq.ParquetFile(lake / name).metadata.num_rows > 0 for name in lakes.files(lake)]
