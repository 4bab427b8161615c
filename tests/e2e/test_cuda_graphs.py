"""CUDA graphs without a GPU: vLLM's real classes over a stand-in for torch's graph object (see graphs/), each case in a
process of its own, with the extension loaded. What is recorded is compared with the driver's own account and with
vLLM's own lists and counters."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import results
import serving

DRIVER = Path(__file__).resolve().parent / "graphs" / "driver.py"
CASES = ("older", "decode_only", "newer", "others")
DESCRIPTOR = ["runtime_mode", "num_tokens", "num_reqs", "uniform", "has_lora"]
OUTCOMES = (
    "piecewise", "full", "captured", "aside", "eager", "skip_compiled", "no_descriptor", "too_large", "not_uniform",
    "dispatched_none", "not_replayed",
)  # fmt: skip
STARTUP, RUNTIME, AGAIN = 0, 1, 2


def drive(case: str, folder: Path) -> SimpleNamespace:
    truth, sessions = folder / f"{case}.json", folder / case
    environment = serving.clean_environment(**serving.profiled(sessions, preset="full"), VLLM_LOGGING_LEVEL="ERROR")
    done = subprocess.run(
        (sys.executable, DRIVER, case, truth), env=environment, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    session = results.only_session(sessions)
    results.profilemate("export", "--quiet", session)
    lines = results.profilemate("export", "--quiet", "--format", "json", session).stdout.splitlines()
    tables: dict[str, list[dict]] = {}
    for row in map(json.loads, lines):
        tables.setdefault(row["table"], []).append(row)
    return SimpleNamespace(
        name=case, session=session, tables=tables, truth=SimpleNamespace(**json.loads(truth.read_text()))
    )


@pytest.fixture(scope="module")
def driven(folder, llama):
    return {case: drive(case, folder) for case in CASES}


@pytest.fixture(params=CASES)
def case(request, driven):
    return driven[request.param]


def text(row: dict[str, str]) -> str:
    return "|".join(row[name] for name in DESCRIPTOR)


def read(case, name: str) -> list[dict[str, str]]:
    return results.read_csv(case.session / f"cuda_graph_{name}.csv")


def replays(case) -> Counter:
    """By the driver: a step's replayed pieces are one replay of its descriptor."""
    return Counter(step["descriptor"] for step in case.truth.steps if step["pieces"]) + Counter(case.truth.aside)


def test_the_driver_did_what_it_was_asked_for(case):
    """Guards the others: the stand-in saw as many pieces as each outcome means."""
    pieces = {"full": {1}, "piecewise": {3, 5}}
    for step in case.truth.steps:
        assert step["pieces"] in pieces.get(step["expected"], {0}), step
        assert (step["captures"] > 0) == (step["expected"] == "captured"), step
    kept = sum(row["pieces"] for row in case.tables["graph_capture"])
    thrown_away = case.truth.made - kept
    assert (thrown_away > 0) == (case.name != "others")
    assert {step["expected"] for step in case.truth.steps} > {"full"}


def test_captures_are_vllms_list_each_once(case):
    header = (case.session / "cuda_graph_captures.csv").read_text().splitlines()[0]
    assert header == ",".join([*DESCRIPTOR, "capture_time_sec"])
    late = [desc for desc in case.truth.late if desc not in case.truth.captured]
    assert sorted(text(row) for row in read(case, "captures")) == sorted(case.truth.captured + late)
    assert all(re.fullmatch(r"\d+\.\d{6}", row["capture_time_sec"]) for row in read(case, "captures"))


def test_pieces_of_start_up_are_those_that_vllm_counted(case):
    pieces = sum(row["pieces"] for row in case.tables["graph_capture"] if row["when"] == STARTUP)
    if case.truth.vllm_counted is not None:
        assert pieces == case.truth.vllm_counted


def test_captures_at_run_time_are_flagged(case):
    found = [row for row in case.tables["graph_capture"] if row["when"] == RUNTIME]
    assert [f"PIECEWISE|{row['num_tokens']}|None|False|False" for row in found] == case.truth.late
    again = [row for row in case.tables["graph_capture"] if row["when"] == AGAIN]
    assert len(again) == (len(case.truth.captured) if case.name == "older" else 0)


def test_usage_counts_each_replay_once_most_replayed_first(case):
    rows = read(case, "usage")
    assert list(rows[0]) == [*DESCRIPTOR, "replay_count"]
    counts = [int(row["replay_count"]) for row in rows]
    assert counts == sorted(counts, reverse=True)
    found: Counter = Counter()
    for row, count in zip(rows, counts, strict=True):
        found[text(row)] += count
    assert +found == replays(case)
    assert set(found) == set(case.truth.captured + case.truth.late)
    assert 0 in counts


def test_the_timeline_has_every_replay_in_order(case):
    rows = read(case, "timeline")
    assert list(rows[0]) == ["timestamp_sec", "descriptor", "duration_ms"]
    times = [float(row["timestamp_sec"]) for row in rows]
    assert times == sorted(times)
    assert Counter(row["descriptor"] for row in rows) == replays(case)
    asides = set(case.truth.aside)
    steps = [step["descriptor"] for step in case.truth.steps if step["pieces"]]
    assert [row["descriptor"] for row in rows if row["descriptor"] not in asides] == [
        desc for desc in steps if desc not in asides
    ]


def test_every_step_says_how_it_was_run(case):
    passes = [row for row in case.tables["graph_pass"] if OUTCOMES[row["outcome"]] != "aside"]
    assert len(passes) == len(case.truth.steps)
    for found, step in zip(passes, case.truth.steps, strict=True):
        assert OUTCOMES[found["outcome"]] == step["expected"], step
        assert found["tokens"] == step["tokens"], step
        assert found["padding"] == step["padding"], step
        assert found["pieces"] == step["pieces"], step
        assert (found["dur_ns"] > 0) == (step["pieces"] > 0), step


def test_pieces_are_timed_one_by_one_now_and_then(case):
    """Of a graph in more than two pieces the first replay is, and every sixteenth: the others have no launch time."""
    passes = [row for row in case.tables["graph_pass"] if row["pieces"]]
    seen: Counter = Counter()
    for row in passes:
        key = tuple(
            row[name] for name in ("mode", *DESCRIPTOR[1:], "num_active_loras", "holder", "variant", "instance")
        )
        if row["pieces"] > 2:
            assert (row["launch_ns"] > 0) == (seen[key] % 16 == 0), row
        else:
            assert row["launch_ns"] > 0, row
        assert row["launch_ns"] <= row["dur_ns"], row
        seen[key] += 1
    if case.name == "older":
        assert any(not row["launch_ns"] for row in passes)


def test_steps_are_the_workers_by_number(case):
    with_tokens = [row["step"] for row in case.tables["worker_step"] if row["tokens"]]
    assert [row["step"] for row in case.tables["graph_pass"] if OUTCOMES[row["outcome"]] != "aside"] == with_tokens


def test_drafters_and_encoders_stand_beside_the_steps(case):
    aside = [row for row in case.tables["graph_pass"] if OUTCOMES[row["outcome"]] == "aside"]
    assert len(aside) == len(case.truth.aside)
    assert {row["holder"] for row in aside} <= {3, 6}


def test_pandas_takes_the_columns_for_what_they_are(case):
    results.assert_columns(case.session, "cuda_graph_captures.csv", "cuda_graph_usage.csv", "cuda_graph_timeline.csv")


def test_the_report_adds_them_up(case):
    report = json.loads(results.profilemate("report", "--json", case.session).stdout)
    graphs = report["engines"][0]["cuda_graphs"]
    steps = case.truth.steps
    hits = [step for step in steps if step["pieces"]]
    assert graphs["steps"] == len(steps)
    assert graphs["hit_rate_pct"] == pytest.approx(100 * len(hits) / len(steps), abs=0.006)
    assert graphs["padding_tokens"] == sum(step["padding"] for step in hits)
    assert {name: count for name, count in graphs["outcomes"].items() if count and name != "aside"} == Counter(
        step["expected"] for step in steps
    )
    page = results.profilemate("report", "--text", case.session).stdout
    section = page[page.index("CUDA graphs (") :].split("\n\n")[0]
    assert f"of {len(steps)} from a graph" in section
    assert all(len(line) <= 80 for line in section.splitlines())


def test_nothing_of_ours_failed(case):
    report = json.loads(results.profilemate("report", "--json", case.session).stdout)
    assert report["own_cost"]["faults"] == 0
    assert report["records"]["lost"] == 0


# ---- the seeds' own lines, and those of the guide, on files with data ----

SEEDS = """
wc -l cuda_graph_captures.csv
sort -t',' -k6 -rn cuda_graph_usage.csv | head -5
cat cuda_graph_usage.csv | cut -d',' -f2 | sort | uniq -c
total_replays=$(awk -F',' 'NR>1 {sum+=$6} END {print sum}' cuda_graph_usage.csv)
echo "Total CUDA graph replays: $total_replays"
"""


def test_the_seeds_command_lines(case):
    lines = results.shell(SEEDS, case.session).splitlines()
    assert lines[0] == f"{len(read(case, 'captures')) + 1} cuda_graph_captures.csv"
    assert lines[-1] == f"Total CUDA graph replays: {sum(replays(case).values())}"
    most = max(int(row["replay_count"]) for row in read(case, "usage"))
    assert lines[1].endswith(f",{most}")


def test_the_seeds_pandas_lines(case):
    import pandas as pd

    graphs = pd.read_csv(case.session / "cuda_graph_usage.csv")
    top_graphs = graphs.nlargest(10, "replay_count")
    assert top_graphs["replay_count"].sum() == sum(replays(case).values())
    assert str(graphs["uniform"].dtype) == str(graphs["has_lora"].dtype) == "bool"
    assert str(graphs["num_tokens"].dtype) == "int64"
    assert pd.read_csv(case.session / "cuda_graph_timeline.csv")["duration_ms"].dtype == "float64"


def test_the_guides_blocks(driven, tmp_path):
    """tests/docs runs them on a CPU's session, where the files have their headers only."""
    guide = (serving.ROOT / "docs" / "CUDA_GRAPHS.md").read_text()
    blocks = re.findall(r"^```(bash|python)\n(.*?)^```$", guide, re.M | re.S)
    assert len(blocks) >= 8
    session = Path(shutil.copytree(driven["older"].session, tmp_path / driven["older"].session.name))
    for language, text_of in blocks:
        results.shell(text_of if language == "bash" else f"python - <<'END'\n{text_of}END\n", session)
