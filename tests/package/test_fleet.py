"""profilemate fleet: the planted faults of a made-up fleet are found, none where there is none; DuckDB and Spark give
equal answers; the lake's figures are those of the sessions' own reports."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import duckdb
import profilemate
import pyarrow as pa
import pyarrow.parquet
import pytest
import shipping
from conftest import BUILD, PACKAGE, PROGRAM, ROOT
from profilemate import fleet
from profilemate.fleet import engines

sys.path.insert(0, str(ROOT / "bench"))
import make_fleet

SERVERS, HOURS = 12, 0.01
QUERIES = ("experts", "kv", "regressions", "slo", "stragglers", "waste", "worst")


def export(sessions: list[Path], lake: Path) -> Path:
    command = [
        PROGRAM,
        "export",
        "--quiet",
        "--format=parquet",
        "--partition",
        "--python",
        sys.executable,
        "--out",
        lake,
        *sessions,
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(PACKAGE)}, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return lake


class Made:
    """A fleet: its sessions, its lake, and what is true of it."""

    def __init__(self, folder: Path, plain: bool):
        self.servers = make_fleet.plan(SERVERS, HOURS, plain)
        self.sessions = make_fleet.make_all(self.servers, folder / "sessions", BUILD)
        self.lake = export(self.sessions, folder / "lake")
        self.truth = make_fleet.truth(self.servers, plain)

    def ask(self, name: str, **parameters: object) -> list[dict]:
        return fleet.run(name, self.lake, **parameters).dicts()


@pytest.fixture(scope="module")
def faulty(tmp_path_factory) -> Made:
    return Made(tmp_path_factory.mktemp("faulty"), plain=False)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Made:
    return Made(tmp_path_factory.mktemp("plain"), plain=True)


@pytest.fixture(scope="module")
def spark(for_spark):
    pytest.importorskip("pyspark", reason="pyspark is not installed here: the Spark suite runs this too")
    try:
        # Short queries: what the just-in-time compiler's second stage would gain, it costs many times.
        quick = {"spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1", "spark.sql.codegen.wholeStage": "false"}
        engine = engines.Spark(memory="1g", config=quick)
    except fleet.EngineMissing as error:
        pytest.skip(str(error))
    yield engine
    engine.close()


# ---- the planted truth ----


def test_the_slow_host_is_found_and_no_other(faulty):
    rows = faulty.ask("stragglers", stretch_sec=5)
    assert [row["host"] for row in rows if row["straggler"]] == [faulty.truth["straggler"]["host"]]
    worst = rows[0]
    assert worst["slower_pct"] == pytest.approx(faulty.truth["straggler"]["slower_pct"], abs=1.5)
    assert worst["z"] > 5 and worst["steps"] > 1000 and worst["peers"] == 4 and worst["error_pct"] < 1
    # Two hosts of a kind, as those with experts here, cannot be told apart from each other: at least three.
    assert {row["host"] for row in rows} == {s.host for s in faulty.servers if s.model == make_fleet.DENSE}


def test_the_slower_version_is_found_and_what_is_slower(faulty):
    truth = faulty.truth["regression"]
    rows = faulty.ask("regressions")
    flagged = [row for row in rows if row["regression"]]
    assert flagged and {(row["model"], row["base"], row["new"], row["part"]) for row in flagged} == {
        (truth["model"], truth["base"], truth["new"], truth["part"])
    }
    for row in flagged:
        assert row["low_pct"] < truth["change_pct"] + 1 and row["high_pct"] > truth["change_pct"] - 1
        assert row["change_pct"] == pytest.approx(truth["change_pct"], abs=1.5)
    assert {row["part"] for row in rows} == {"forward", "schedule", "pre", "sample", "output"}
    named = faulty.ask("regressions", base=make_fleet.OLD, new=make_fleet.NEW)
    assert [row["change_pct"] for row in named] == [row["change_pct"] for row in rows]
    # The other way round it is faster.
    back = faulty.ask("regressions", base=make_fleet.NEW, new=make_fleet.OLD)
    assert not any(row["regression"] for row in back)
    assert min(row["change_pct"] for row in back if row["part"] == "sample") < -5


@pytest.mark.parametrize("told", [True, False])
def test_longer_conversations_are_no_regression(told, tmp_path):
    """The newer version's servers have the long contexts, and are as quick as the others for each length: that is seen
    where a session tells how much context its batches have, and only there."""
    for number in range(8):
        new = number >= 4
        session = f"session_{number}"
        place = f"date=2026-11-23/host=gpu-{number}/session={session}"
        steps = []
        for step in range(400):
            long = (step % 10 == 0) != new
            noise = 1 + 0.01 * ((step * 7 + number * 3) % 5 - 2)
            steps.append({
                "timestamp_sec": 0.01 * step, "engine": 0, "rank": 0, "step": step, "phase": "decode", "matched": True,
                "has_scheduler": True, "requests": 8, "tokens": 8, "decode_requests": 8, "prefill_requests": 0,
                "recompute_requests": 0, "prefill_tokens": 0, "recompute_tokens": 0, "forward_clock": "wall",
                "forward_ns": int((9e6 if long else 5e6) * noise), "kv_used": (900 if long else 90) if told else None,
            })  # fmt: skip
        session = {"engine": 0, "model": "m", "vllm_version": "0.32.0" if new else "0.31.0", "device": "cuda",
                   "start_real_ns": number, "block_size": 16}  # fmt: skip
        for table, rows in (("steps", steps), ("sessions", [session])):
            folder = tmp_path / f"table={table}" / place
            folder.mkdir(parents=True)
            pa.parquet.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    (row,) = fleet.run("regressions", tmp_path).dicts()
    assert row["part"] == "forward" and row["regression"] is not told
    assert abs(row["change_pct"]) < 1 if told else row["change_pct"] > 30


def test_a_fleet_without_faults_is_not_blamed(plain):
    assert not [row for row in plain.ask("stragglers", stretch_sec=5) if row["straggler"]]
    assert not [row for row in plain.ask("regressions") if row["regression"]]
    assert all(row["hottest_load"] < 1.2 for row in plain.ask("experts"))


def test_the_small_cache_is_found(faulty):
    rows = faulty.ask("waste")
    tight = [row for row in rows if row["max_num_batched_tokens"] == 1024]
    assert len(tight) == 1 and rows[0] == tight[0] and tight[0]["engines"] == len(faulty.truth["tight"])
    assert tight[0]["preemptions"] > 0 and tight[0]["recomputed_tokens"] > 0 and tight[0]["recomputing_pct_of_time"] > 0
    assert all(row["preemptions"] == 0 and row["recomputed_tokens"] == 0 for row in rows if row not in tight)
    least, *others = faulty.ask("kv")
    assert (
        least["least_blocks"] == 500 and least["spare_pct"] < 5 and least["engines_full"] == len(faulty.truth["tight"])
    )
    assert all(row["spare_pct"] > 20 and row["engines_full"] == 0 for row in others)


def test_the_hot_experts_are_found(faulty):
    rows = faulty.ask("experts")
    assert {str(row["layer"]): row["hottest_expert"] for row in rows} == faulty.truth["hot_experts"]
    for row in rows:
        assert row["hottest_load"] == pytest.approx(faulty.truth["hot_load"], rel=0.02)
        assert row["engines"] == row["engines_agree"] == 4 and row["experts_used"] == row["experts"] == 32


# ---- the same as the sessions themselves say ----


def engine_report(path: Path) -> dict:
    (engine,) = profilemate.open(path).report["engines"]
    return engine


@pytest.fixture(scope="module")
def one_by_one(faulty, tmp_path_factory) -> list[tuple[dict, Path]]:
    """Some sessions, each in a lake by itself, with its report."""
    base = tmp_path_factory.mktemp("single")
    return [(engine_report(faulty.sessions[i]), export([faulty.sessions[i]], base / str(i))) for i in (0, SERVERS - 1)]


def test_requests_and_latencies_are_those_of_the_report(one_by_one):
    for report, lake in one_by_one:
        (row,) = fleet.run("slo", lake).dicts()
        told = report["requests"]
        assert row["requests"] == told["total"] and row["ended"] == sum(told["finished"].values())
        assert row["prompt_tokens"] == told["prompt_tokens"] and row["output_tokens"] == told["output_tokens"]
        for column, key, percentile in re.findall(r"((ttft|tpot|e2e|queue)_(p\d\d)_ms)", " ".join(row)):
            assert row[column] == pytest.approx(told[key][f"{percentile}_ms"], abs=0.00051), column


def test_steps_and_waste_are_those_of_the_report(one_by_one):
    preempted = 0
    for report, lake in one_by_one:
        (row,) = fleet.run("waste", lake).dicts()
        told = report["requests"]
        assert row["steps"] == report["steps"]
        assert row["tokens"] == report["prefill_tokens"] + report["recompute_tokens"] + report["decode_tokens"]
        assert row["recomputed_tokens"] == report["recompute_tokens"]
        assert row["preemptions"] == told["preemptions"] and row["preempted_requests"] == told["preempted_requests"]
        assert row["lost_tokens"] == told["lost_tokens"] and row["requests"] == told["total"]
        preempted += row["preemptions"]
    assert preempted > 0


def test_the_cache_is_that_of_the_report(one_by_one):
    for report, lake in one_by_one:
        (row,) = fleet.run("kv", lake).dicts()
        told = report["kv_cache"]
        assert (row["least_blocks"], row["peak_blocks"]) == (told["total_blocks"], told["peak_blocks"])
        assert row["evicted_blocks"] == told["evictions"]


def test_experts_are_those_of_the_report(one_by_one):
    report, lake = one_by_one[-1]
    told = {layer["layer"]: layer for layer in report["moe"]["layers"]}
    rows = fleet.run("experts", lake).dicts()
    assert len(rows) == len(told) == make_fleet.LAYERS
    for row in rows:
        assert row["selections"] == told[row["layer"]]["selections"]


# ---- held against other ways to reckon ----


def tables_of(made: Made, name: str) -> list[tuple[make_fleet.Server, list[dict]]]:
    return [
        (server, pa.table(profilemate.open(path).tables[name]).to_pylist())
        for server, path in zip(made.servers, made.sessions, strict=True)
    ]


def linear(values: list[float], q: float) -> float:
    """NumPy's default."""
    values = sorted(values)
    at = q * (len(values) - 1)
    low = math.floor(at)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (at - low)


def test_goodput_and_percentiles_by_hand(faulty):
    ttft_ms, tpot_ms = 12, 4.8
    rows = {(row["model"], row["vllm"]): row for row in faulty.ask("slo", ttft_ms=ttft_ms, tpot_ms=tpot_ms)}
    groups: dict[tuple[str, str], list[dict]] = {}
    for server, requests in tables_of(faulty, "requests"):
        groups.setdefault((server.model, server.vllm), []).extend(requests)
    assert rows.keys() == groups.keys()
    for key, requests in groups.items():
        over = [r for r in requests if r["state"] == "finished"]
        good = [r for r in over if r["ttft_ns"] <= ttft_ms * 1e6 and (r["tpot_ns"] or 0) <= tpot_ms * 1e6]
        assert 0 < len(good) < len(over)
        assert (rows[key]["requests"], rows[key]["ended"], rows[key]["good"]) == (len(requests), len(over), len(good))
        assert rows[key]["good_pct"] == pytest.approx(100 * len(good) / len(over))
        assert rows[key]["ttft_p99_ms"] == pytest.approx(
            linear([r["ttft_ns"] for r in requests if r["ttft_ns"]], 0.99) / 1e6
        )
        assert rows[key]["tpot_p50_ms"] == pytest.approx(
            linear([r["tpot_ns"] for r in requests if r["tpot_ns"]], 0.5) / 1e6
        )


def test_the_worst_requests_by_hand(faulty):
    everything = [
        (r["ttft_ns"], server, r) for server, rows in tables_of(faulty, "requests") for r in rows if r["ttft_ns"]
    ]
    everything.sort(key=lambda each: -each[0])
    rows = faulty.ask("worst", requests=5, steps=2)
    assert [row["place"] for row in rows] == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    steps = {server.number: table for server, table in tables_of(faulty, "steps")}
    for place, (ttft_ns, server, request) in enumerate(everything[:5], 1):
        mine = [row for row in rows if row["place"] == place]
        assert {row["request_id"] for row in mine} == {request["request_id"]}
        assert mine[0]["request_ms"] == pytest.approx(ttft_ns / 1e6) and mine[0]["host"] == server.host
        behind = [
            s for s in steps[server.number]
            if s["timestamp_sec"] <= request["first_token_sec"]
            and s["timestamp_sec"] + (s["total_ns"] or 0) / 1e9 >= request["arrived_sec"]
        ]  # fmt: skip
        longest = sorted(
            ((s["schedule_ns"] or 0) + (s["total_ns"] or 0) + (s["update_ns"] or 0) for s in behind), reverse=True
        )
        assert mine[0]["steps_in_all"] == len(behind)
        assert [row["step_ms"] for row in mine] == pytest.approx([each / 1e6 for each in longest[:2]])
    for by in ("tpot", "itl", "e2e"):
        assert len({row["request_id"] for row in faulty.ask("worst", by=by, requests=3)}) == 3


def test_days_and_models_are_narrowed(faulty):
    assert {row["vllm"] for row in faulty.ask("slo", until="2026-11-23")} == {make_fleet.OLD}
    assert {row["vllm"] for row in faulty.ask("slo", since="2026-11-24")} == {make_fleet.NEW}
    assert {row["model"] for row in faulty.ask("waste", model=make_fleet.EXPERTS)} == {make_fleet.EXPERTS}
    assert faulty.ask("slo", since="2027-01-01") == []


# ---- both engines ----


def alike(left: object, right: object) -> bool:
    if isinstance(left, float) and isinstance(right, (int, float)):
        return math.isclose(left, right, rel_tol=1e-6, abs_tol=1e-9)
    return type(left) is type(right) and left == right


def assert_alike(ours: list[dict], theirs: list[dict]) -> None:
    """Counts and names equal, floating-point numbers to six digits: their sums depend on the order."""
    assert len(ours) == len(theirs)
    for left, right in zip(ours, theirs, strict=True):
        assert left.keys() == right.keys()
        wrong = [column for column in left if not alike(left[column], right[column])]
        assert not wrong, (wrong, left, right)


@pytest.mark.parametrize("name", QUERIES)
def test_both_engines_give_equal_answers(faulty, spark, name):
    ours, theirs = fleet.run(name, faulty.lake), fleet.run(name, faulty.lake, engine=spark)
    assert ours.columns == theirs.columns and ours.rows
    assert_alike(ours.dicts(), theirs.dicts())


def test_spark_takes_days_odd_names_and_absent_tables_too(faulty, spark, odd):
    assert fleet.run("slo", faulty.lake, engine=spark, since="2027-01-01").rows == []
    for name in ("slo", "kv"):
        assert_alike(fleet.run(name, odd).dicts(), fleet.run(name, odd, engine=spark).dicts())


# ---- lakes that are not as the generator makes them ----


def put(lake: Path, table: str, host: str, session: str, columns: dict[str, list]) -> None:
    """A file by hand. Whole numbers are as the lake has them: `engine` and `rank` are INT32, others INT64."""
    folder = lake / f"table={table}" / "date=2026-11-23" / f"host={host}" / f"session={session}"
    folder.mkdir(parents=True, exist_ok=True)
    made = {name: pa.array(v, pa.int32()) if name in ("engine", "rank") else pa.array(v) for name, v in columns.items()}
    pa.parquet.write_table(pa.table(made), folder / "a.parquet")


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> Path:
    """By hand: four hosts of two ranks, the second rank of one of them slow; columns missing, names that are hostile,
    a folder whose name is a pattern, files that are being written."""
    lake = tmp_path_factory.mktemp("odd [lake]*")
    for h in range(4):
        session, n = f"session_2026-{h}", 400
        put(lake, "sessions", str(h), session, {
            "engine": [0], "model": ["<b>\x1b[31m&model"], "vllm_version": ["0.32.0"], "device": ["cuda"],
            "config_id": ["c0"], "start_real_ns": [h],
        })  # fmt: skip
        rows = [(step, rank) for step in range(n // 2) for rank in (0, 1)]
        slow = [1.2 if (h, rank) == (3, 1) else 1 for _, rank in rows]
        put(lake, "steps", str(h), session, {
            "timestamp_sec": [step * 1.0 for step, _ in rows], "engine": [0] * n,
            "rank": [rank for _, rank in rows], "step": [step for step, _ in rows],
            "forward_clock": ["events"] * n, "has_scheduler": [True] * n, "matched": [True] * n,
            "prefill_requests": [0] * n, "recompute_requests": [0] * n, "decode_requests": [8] * n,
            "prefill_tokens": [0] * n, "recompute_tokens": [0] * n, "requests": [8] * n, "tokens": [8] * n,
            "forward_ns": [int(1e7 * by + step % 7 * 1000 + h * 100) for by, (step, _) in zip(slow, rows, strict=True)],
        })  # fmt: skip
        # Both ranks see the same tokens; an expert has several rows.
        put(lake, "expert_load", str(h), session, {
            "engine": [0] * 6, "rank": [0, 0, 0, 1, 1, 1], "layer": [5] * 6, "experts": [4] * 6, "top_k": [1] * 6,
            "expert": [0, 1, 0, 0, 1, 0], "selections": [10, 5, 1, 10, 5, 1],
        })  # fmt: skip
    put(lake, "requests", "0", "session_2026-0", {
        "engine": [0] * 4, "request_id": list("abcd"), "state": ["finished"] * 3 + ["running"],
        "reason": ["stop", "abort", "error", None], "arrived_sec": [0.0, 1.0, 2.0, 3.0],
        "first_token_sec": [0.1, 1.1, None, 3.2], "last_token_sec": [3600.0, 2.0, None, None],
        "ttft_ns": [100_000_000, 100_000_000, None, 200_000_000], "tpot_ns": [0, 1, None, None],
        "e2e_ns": [10, 1_000, 30, None], "prompt_tokens": [1, 2, 3, 4], "output_tokens": [1, 2, 0, None],
    })  # fmt: skip
    broken = lake / "table=steps" / "date=2026-11-23" / "host=0" / "session=session_2026-0"
    (broken / ".b.parquet").write_bytes(b"being written")
    (broken / "_c.parquet").write_bytes(b"not ours")
    return lake


def test_a_slow_rank_is_named(odd):
    rows = fleet.run("stragglers", odd).dicts()
    assert [(row["host"], row["rank"]) for row in rows if row["straggler"]] == [("3", 1)]
    assert rows[0]["slower_pct"] == pytest.approx(20, abs=0.5) and len(rows) == 8 and rows[0]["steps"] == 200


def test_experts_that_several_ranks_see_are_counted_once(odd):
    (row,) = fleet.run("experts", odd).dicts()
    assert (row["selections"], row["hottest_expert"], row["experts_used"], row["engines"]) == (64, 0, 2, 4)
    assert row["hottest_load"] == pytest.approx(44 * 4 / 64) and row["coldest_load"] == 0
    assert row["variation"] == pytest.approx(statistics.pstdev([44, 20, 0, 0]) / 16)


def test_aborted_failed_and_open_requests(odd):
    (row,) = fleet.run("slo", odd).dicts()
    assert (row["requests"], row["ended"], row["aborted"], row["good"]) == (4, 3, 1, 1)
    assert row["good_pct"] == 50 and row["engine_hours"] == 1 and row["tpot_p50_ms"] == pytest.approx(1e-6)
    assert row["e2e_p50_ms"] == pytest.approx(20e-6) and row["ttft_p99_ms"] == pytest.approx(198)


def test_a_table_that_nobody_has_is_empty(odd):
    assert fleet.run("kv", odd).rows == [] and fleet.run("kv", odd).columns[0] == "model"


# ---- what is shown ----


@pytest.fixture(scope="module")
def command(program):
    def run(*words, **kwargs):
        return program("fleet", "--python", sys.executable, *words, **kwargs)

    return run


class Page(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


def test_the_four_formats(command, faulty, tmp_path):
    said = command("slo", faulty.lake, "--format=json").stdout
    answer = json.loads(said)
    assert answer["query"] == "slo" and answer["engine"] == "duckdb" and answer["parameters"]["ttft_ms"] == "500"
    assert_alike(answer["rows"], faulty.ask("slo"))
    rows = list(csv.DictReader(io.StringIO(command("slo", f"file://{faulty.lake}", "-f", "csv").stdout)))
    assert [float(row["ttft_p99_ms"]) for row in rows] == [row["ttft_p99_ms"] for row in answer["rows"]]  # all digits
    assert [int(row["good"]) for row in rows] == [row["good"] for row in answer["rows"]]
    table = command("stragglers", faulty.lake, "-p", "stretch_sec=5").stdout.splitlines()
    assert table[0].split()[:2] == ["host", "rank"] and table[1].split()[0] == faulty.truth["straggler"]["host"]
    assert table[1].endswith("yes") and table[2].endswith("no")
    out = tmp_path / "page.html"
    assert command("regressions", faulty.lake, "-f", "html", "-o", out, "-p", "z=3").stdout == ""
    page = Page(out.read_text())
    assert page.tags.count("tr") == 1 + len(faulty.ask("regressions"))
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_hostile_names_stay_text(command, odd):
    assert "<b>" not in command("slo", odd, "-f", "html").stdout
    assert "&lt;b&gt;" in command("slo", odd, "-f", "html").stdout
    table = command("slo", odd).stdout
    assert "\x1b" not in table and "<b>?[31m&model" in table
    assert json.loads(command("slo", odd, "-f", "json").stdout)["rows"][0]["model"] == "<b>\x1b[31m&model"


def test_the_list_and_the_sql(command, faulty):
    listed = command("--list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == sorted(QUERIES) == list(fleet.queries())
    one = command("--list", "stragglers").stdout
    assert (
        all(parameter.name in one for parameter in fleet.query("stragglers").parameters)
        and "Reads: steps, sessions" in one
    )
    # What is printed is all that an engine of one's own needs, over views named as the tables.
    sql = command("--sql", "slo", "-p", "ttft_ms=123.5").stdout
    assert "123.5" in sql and not re.search(r":[a-z]", sql)
    with duckdb.connect() as own:
        for table in fleet.query("slo").reads:
            files = f"{faulty.lake}/table={table}/*/*/*/*.parquet"
            options = "hive_partitioning = true, union_by_name = true"
            own.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet('{files}', {options})")
        answer = fleet.run("slo", faulty.lake, ttft_ms=123.5).rows
        for left, right in zip(own.execute(sql).fetchall(), answer, strict=True):
            assert all(map(alike, left, right))


@pytest.mark.parametrize("name", QUERIES)
def test_each_query_says_what_it_answers(name):
    query = fleet.query(name)
    assert query.sentence.endswith(".") and query.prose.endswith(".") and query.reads
    assert {"model", "since", "until"} <= {each.name for each in query.parameters}
    body = query.text[query.text.index("\nWITH ") :]
    assert set(re.findall(r":([a-z]\w*)", body)) == {each.name for each in query.parameters}
    for table in engines.TABLES:  # what it reads is what it says that it reads
        assert (table in query.reads) == bool(re.search(rf"(FROM|JOIN) {table}\b", body))


def test_the_wheel_would_have_the_files():
    assert {path.name for path in (PACKAGE / "profilemate" / "fleet").glob("*.sql")} == {
        f"{name}.sql" for name in QUERIES
    }


# ---- what is wrong is said in a sentence ----


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("nothing", "LAKE"), 1, "there is no query nothing, there are experts, kv"),
        (("slo", "LAKE", "-p", "speed=1"), 1, "slo has no parameter speed, it has ttft_ms"),
        (("slo", "LAKE", "-p", "ttft_ms=fast"), 1, "ttft_ms=fast: not a number"),
        (("slo", "LAKE", "-p", "ttft_ms=nan"), 1, "ttft_ms=nan: not a number"),
        (("slo", "LAKE", "-p", "since=yesterday"), 1, "since=yesterday: not a day"),
        (("slo", "LAKE", "-p", "model=a' OR 'b"), 1, "model: a text of at most 500 characters without quotes"),
        (("worst", "LAKE", "-p", "by=colour"), 1, "by=colour: give ttft, tpot, itl, e2e"),
        (("worst", "LAKE", "-p", "requests=-1"), 1, "requests=-1: not a whole number"),
        (("slo", "/nowhere/at/all"), 1, "there is no folder /nowhere/at/all"),
        (("slo", "EMPTY"), 1, "is no lake of sessions"),
        (("slo", "ftp://x/y"), 1, "ftp://x/y: a lake is a path"),
        (("slo",), 2, "no lake to ask"),
        ((), 2, "no query"),
        (("--list", "--sql"), 2, "two things"),
        (("slo", "LAKE", "--on", "oracle"), 2, "--on=oracle is not known"),
        (("slo", "LAKE", "--format", "xml"), 2, "--format=xml is not known"),
        (("slo", "LAKE", "-p", "ttft_ms"), 2, "is no NAME=VALUE"),
        (("slo", "LAKE", "--master", "local"), 2, "--master belongs to --on=spark"),
    ],
)
def test_misuse(command, odd, tmp_path, words, code, sentence):
    places = {"LAKE": odd, "EMPTY": tmp_path}
    done = command(*(places.get(word, word) for word in words), check=False)
    assert done.returncode == code and done.stdout == ""
    assert done.stderr.startswith("profilemate: ") and sentence in done.stderr and "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def damaged(faulty, tmp_path_factory) -> tuple[Path, Path, list[str]]:
    """A lake with three files of its steps damaged, each in its own way; the same without them."""
    lake, less = (tmp_path_factory.mktemp(name) / "lake" for name in ("damaged", "less"))
    shutil.copytree(faulty.lake, lake)
    shutil.copytree(faulty.lake, less)
    files = sorted(path.relative_to(lake) for path in lake.glob("table=steps/*/*/*/*.parquet"))[:3]
    whole = (lake / files[0]).read_bytes()
    (lake / files[0]).write_bytes(whole[: len(whole) // 2])  # a copy that was interrupted
    whole = (lake / files[1]).read_bytes()
    footer = int.from_bytes(whole[-8:-4], "little")
    (lake / files[1]).write_bytes(whole[: -8 - footer] + b"\xff" * footer + whole[-8:])  # a footer that says nothing
    (lake / files[2]).write_bytes(b"")
    for path in files:
        (less / path).unlink()
    return lake, less, [str(lake / path) for path in files]


def test_damaged_files_are_named_and_the_rest_answers(command, damaged):
    lake, less, files = damaged
    answer = fleet.run("waste", lake)
    assert sorted(answer.left_out) == files
    assert_alike(answer.dicts(), fleet.run("waste", less).dicts())
    done = command("waste", lake, "-f", "csv")
    assert sorted(line.split()[1] for line in done.stderr.splitlines()) == files
    assert len(done.stdout.splitlines()) == 1 + len(answer.rows)
    assert all(path in command("waste", lake, "-f", "html").stdout for path in files)


def test_spark_names_them_too(damaged, spark):
    lake, less, files = damaged
    answer = fleet.run("waste", lake, engine=spark)
    assert sorted(answer.left_out) == files
    assert_alike(answer.dicts(), fleet.run("waste", less).dicts())


def without(module: str, *words: object) -> subprocess.CompletedProcess:
    """The command where a module is not installed."""
    script = (
        f"import sys; sys.modules[{module!r}] = None\n"
        "from profilemate.fleet.command import main; sys.exit(main(sys.argv[1:]))"
    )
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    command = [sys.executable, "-c", script, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.mark.parametrize(("on", "module"), [("duckdb", "duckdb"), ("spark", "pyspark")])
def test_an_engine_that_is_not_installed(odd, on, module):
    done = without(module, "--on", on, "slo", odd)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"--on={on} needs {module} in {sys.executable}, run: " in done.stderr and "profilemate[fleet]" in done.stderr
    assert without(module, "--list").returncode == 0


@pytest.fixture(scope="module")
def bucket(faulty, odd):
    """Both lakes in a bucket, of a real server of S3 on loopback."""
    pytest.importorskip("boto3")
    server = shipping.S3()
    client = server.client()
    client.create_bucket(Bucket="fleet")
    for name, lake in (("faulty", faulty.lake), ("odd", odd)):
        for path in lake.rglob("*"):
            if path.is_file():
                client.put_object(Bucket="fleet", Key=f"lakes/{name}/{path.relative_to(lake)}", Body=path.read_bytes())
    yield server
    server.close()


@pytest.fixture
def in_bucket(bucket, monkeypatch):
    for name, value in bucket.environment().items():
        monkeypatch.setenv(name, value)
    return bucket


@pytest.mark.parametrize("name", QUERIES)
def test_a_lake_in_a_bucket_gives_the_same_answers(faulty, odd, in_bucket, name):
    assert_alike(fleet.run(name, "s3://fleet/lakes/faulty").dicts(), faulty.ask(name))
    assert_alike(fleet.run(name, "s3a://fleet/lakes/odd/").dicts(), fleet.run(name, odd).dicts())


def test_of_a_bucket_only_what_is_asked_for_is_read(command, faulty, in_bucket):
    days = {"since": "2026-11-24", "until": "2026-11-24"}
    before = len(in_bucket.requests)
    assert_alike(fleet.run("stragglers", "s3://fleet/lakes/faulty", **days).dicts(), faulty.ask("stragglers", **days))
    read = [each for each in in_bucket.requests[before:] if "table=steps/" in each]
    assert read and all("2026-11-24" in each for each in read)
    told = command("slo", "s3://fleet/lakes/faulty", "--format=json").stdout
    assert_alike(json.loads(told)["rows"], faulty.ask("slo"))


def test_a_bucket_that_cannot_be_read(command, in_bucket):
    def said(url: str) -> str:
        done = command("slo", url, check=False)
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and shipping.SECRET not in done.stderr, done.stderr
        return done.stderr

    assert "is no lake of sessions" in said("s3://nobody/lake") and "is no lake" in said("s3://fleet/elsewhere")
    in_bucket.fault = lambda environ: "403"
    assert "s3://fleet/lakes/odd cannot be read" in said("s3://fleet/lakes/odd")
    in_bucket.fault = lambda environ: None
    key = "lakes/odd/table=requests/broken.parquet"
    in_bucket.client().put_object(Bucket="fleet", Key=key.replace("broken", "date=2026-11-23/broken"), Body=b"no Parquet")
    try:
        done = command("slo", "s3://fleet/lakes/odd", check=False)
    finally:
        in_bucket.client().delete_object(Bucket="fleet", Key=key.replace("broken", "date=2026-11-23/broken"))
    assert done.returncode == 1 and "broken.parquet" in done.stderr and "Traceback" not in done.stderr
