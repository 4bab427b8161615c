"""Findings on real vLLM: engines whose load is made to trigger rules, beside loads that must not.

Four engines run one after another in one process and one session; each is asked every rule.
"""

from __future__ import annotations

import importlib.util
import json
import random
import re
from pathlib import Path
from statistics import median

import pytest
import results
import serving

BLOCK = 32
COMMON = {"block_size": BLOCK, "enforce_eager": True, "max_model_len": 1024, "async_scheduling": False}


def test_every_option_to_turn_is_one_of_this_vllm():
    """Read from vLLM's own files, without importing it."""
    package = Path(importlib.util.find_spec("vllm").origin).parent
    known = (package / "engine" / "arg_utils.py").read_text() + (package / "envs.py").read_text()
    known += "".join(path.read_text() for path in (package / "entrypoints").rglob("*.py"))
    source = "".join(path.read_text() for path in (serving.ROOT / "src" / "explain").glob("rule_*.c"))
    turned = set(re.findall(r'pm_turn\(\s*finding,\s*"([^"]+)"', source))
    assert len(turned) > 15
    flags = {flag.replace("--no-", "--") for flag in turned if flag.startswith("--")}
    missing = [flag for flag in sorted(flags) if f'"{flag}"' not in known]
    variables = {name for name in turned if name.startswith("VLLM_") and "PROFILING" not in name}
    missing += [name for name in sorted(variables) if name not in known]
    assert not missing


def tokens(rng: random.Random, n: int) -> list[int]:
    return [rng.randrange(3, 10) for _ in range(n)]


# A rule wants a second of work before it speaks: each load is several, on a machine that is quick as well.


def small(rng: random.Random) -> dict:
    """Eight requests at a time want 3 600 tokens of a KV cache that has 1 024; all prompts begin alike."""
    shared = tokens(rng, 128)
    batch = [{"prompt": shared + tokens(rng, 20), "max_tokens": 300} for _ in range(60)]
    return {"options": {"num_gpu_blocks_override": 33, "max_num_seqs": 8}, "batches": [batch]}


def crowded(rng: random.Random) -> dict:
    """Three hundred requests at once for four places, in a KV cache that would hold a hundred."""
    batch = [{"prompt": tokens(rng, 180), "max_tokens": 40} for _ in range(300)]
    return {"options": {"num_gpu_blocks_override": 1000, "max_num_seqs": 4}, "batches": [batch]}


def stalled(rng: random.Random) -> dict:
    """Four requests decode all the time, while thirty long prompts are read beside them; five times over."""
    batches = []
    for _ in range(5):
        batch = [{"prompt": tokens(rng, 10), "max_tokens": 900} for _ in range(4)]
        batches.append(batch + [{"prompt": tokens(rng, 700), "max_tokens": 1} for _ in range(30)])
    options = {"num_gpu_blocks_override": 400, "max_num_seqs": 8, "max_num_batched_tokens": 768}
    return {"options": options, "batches": batches}


def calm(rng: random.Random) -> dict:
    """Four requests of eight that could run, in a KV cache of which they need two thirds; five times over."""
    batches = [[{"prompt": tokens(rng, 20), "max_tokens": 900} for _ in range(4)] for _ in range(5)]
    return {"options": {"num_gpu_blocks_override": 171, "max_num_seqs": 8}, "batches": batches}


LOADS = (small, crowded, stalled, calm)
# The rules about the load that must speak, of each engine; those in MAY are the machine's matter.
FOUND = {
    "small": {"kv_too_small", "preemption"},
    "crowded": {"kv_too_large", "batch_limit", "queueing", "prefix_cache_useless"},
    "stalled": {"prefill_stall"},
    "calm": set(),
}
MAY = {
    "host_bound", "sampling_cost", "slow_arrival", "kv_short_life", "kv_long_idle", "prefix_cache_thrashing",
}  # fmt: skip
ALSO = {
    "small": {"queueing", "batch_limit"},
    "crowded": {"prefill_stall"},
    "stalled": {"queueing", "token_limit", "batch_limit", "prefix_cache_useless", "kv_too_large"},
    "calm": set(),
}


@pytest.fixture(scope="module")
def session(llama, folder):
    sessions = folder / "sessions"
    environment = serving.clean_environment(
        **serving.profiled(sessions, preset="full"), VLLM_ENABLE_V1_MULTIPROCESSING="0"
    )
    rng = random.Random(7)
    specs = [{"model": str(llama), **load(rng)} for load in LOADS]
    for spec in specs:
        spec["options"] = {**COMMON, **spec["options"]}
    result, _ = serving.run_llm(specs, environment)
    assert not [run["error"] for run in result["runs"] if "error" in run]
    return results.only_session(sessions)


def explain(session, *arguments) -> dict:
    return json.loads(results.profilemate("explain", "--json", *arguments, session).stdout)


@pytest.fixture(scope="module")
def found(session) -> dict[str, dict[str, dict]]:
    """Per load: its findings by rule."""
    by_load: dict[str, dict[str, dict]] = {load.__name__: {} for load in LOADS}
    for finding in explain(session)["findings"]:
        if finding["engine"] is not None:
            by_load[LOADS[finding["engine"]].__name__][finding["rule"]] = finding
    return by_load


@pytest.mark.parametrize("load", FOUND)
def test_each_load_is_told_for_what_it_is(found, load):
    rules = set(found[load])
    assert FOUND[load] <= rules, f"not found: {sorted(FOUND[load] - rules)}"
    assert not rules - FOUND[load] - ALSO[load] - MAY, "found, and must not be"


def test_preemptions_are_vllms(session, found):
    """Counted from the request table, apart from the rule's own walk."""
    requests = [row for row in results.native(session, "requests") if row["engine"] == 0]
    finding = found["small"]["preemption"]
    hit = [row for row in requests if row["preemptions"] > 0]
    assert len(hit) > 3
    assert finding["requests"] == finding["numbers"]["preempted_requests"] == len(hit)
    assert finding["numbers"]["preemptions"] == sum(row["preemptions"] for row in requests)
    assert finding["cost_tokens"] == sum(row["recomputed_tokens"] for row in requests)
    assert set(finding["request_ids"]) <= {row["request_id"] for row in hit}
    assert finding["numbers"]["lost_tokens"] == sum(row["lost_tokens"] for row in requests)
    flags = {(change["flag"], change["direction"]) for change in finding["changes"]}
    assert ("VLLM_CPU_KVCACHE_SPACE", "raise") in flags


def test_the_kv_caches_share_is_that_of_the_table(session, found):
    for load, rule in (("small", "kv_too_small"), ("crowded", "kv_too_large")):
        engine = [each.__name__ for each in LOADS].index(load)
        rows = [row for row in results.native(session, "kv_step") if row["instance"] == engine]
        peak = max(row["used"] / row["total"] for row in rows)
        assert found[load][rule]["numbers"]["peak_pct"] == pytest.approx(100 * peak, abs=1e-4)


def test_stalls_are_those_of_the_steps(session, found):
    """The definition of docs/FINDINGS.md over again, from the native tables, with exact medians."""
    engine = [each.__name__ for each in LOADS].index("stalled")
    steps = {row["step"]: row for row in results.native(session, "sched_step") if row["instance"] == engine}
    updates = [row for row in results.native(session, "update_step") if row["instance"] == engine]
    plain: dict[int, list[int]] = {}
    mixed = []
    for row in updates:
        step = steps[row["step"]]
        if row["continued"] == 0 or row["gap_ns"] == 0:
            continue
        if step["prefill_tokens"] + step["recompute_tokens"] > 0:
            mixed.append((row, step))
        else:
            plain.setdefault((step["decode_requests"] - 1).bit_length(), []).append(row["gap_ns"])
    usual = {size: median(gaps) for size, gaps in plain.items()}
    delay = worst = 0.0
    for row, step in mixed:
        size = (step["decode_requests"] - 1).bit_length()
        nearest = min(usual, key=lambda each: (abs(each - size), each > size))
        late = max(0, row["gap_ns"] - usual[nearest]) / 1e9
        delay += late * row["continued"]
        worst = max(worst, late)
    finding = found["stalled"]["prefill_stall"]
    numbers = finding["numbers"]
    assert numbers["stalling_steps"] == len(mixed) >= 20
    assert numbers["delayed_tokens"] == sum(row["continued"] for row, _ in mixed)
    assert finding["cost_sec"] == pytest.approx(delay, rel=0.05)
    assert numbers["max_delay_s"] == pytest.approx(worst, rel=0.05)
    # Those that held up others are the long prompts, those that waited the four that decode.
    requests = {row["request_id"]: row for row in results.native(session, "requests") if row["engine"] == engine}
    assert all(requests[name]["prompt_tokens"] == 700 for name in finding["request_ids"])
    waited = [line.split(" waited ")[0] for line in finding["evidence"] if " waited " in line]
    assert waited and all(requests[name]["output_tokens"] == 900 for name in waited)


def test_one_request_and_its_window(session, found):
    name = found["small"]["preemption"]["request_ids"][0]
    rows = [each for each in results.native(session, "requests") if each["engine"] == 0]
    (row,) = [each for each in rows if each["request_id"] == name]
    said = explain(session, "--request", name)
    assert said["window"] == f"the life of request {name}"
    (one,) = [each for each in said["findings"] if each["rule"] == "request_time"]
    assert one["request_ids"] == [name]
    assert one["numbers"]["output_tokens"] == row["output_tokens"] == 300
    assert one["numbers"]["preempted_s"] == pytest.approx(row["preempted_ns"] / 1e9, abs=1e-5)
    assert one["numbers"]["queue_s"] == pytest.approx(row["queue_ns"] / 1e9, abs=1e-5)


def test_reports_of_a_window_are_of_its_steps_alone(session):
    whole = json.loads(results.profilemate("report", "--json", session).stdout)
    part = json.loads(results.profilemate("report", "--json", "--steps", "100:199", session).stdout)
    assert [finding["rule"] for finding in whole["findings"]]
    assert part["window"] == "steps 100 to 199"
    for engine in part["engines"]:
        assert engine["steps"] == 100
        (rank,) = engine["ranks"]
        assert rank["prefill"]["count"] + rank["decode"]["count"] == 100
        assert rank["scheduler_only"] == rank["worker_only"] == rank["mismatched"] == 0
    for engine in whole["engines"]:
        assert engine["steps"] > 400
    text = results.profilemate("report", "--text", "--last", "1h", session).stdout
    assert "the last 3600 s" in text and "Findings" in text


def test_ci_can_fail_on_it(session):
    assert results.profilemate("explain", "--fail-on", "high", session, check=False).returncode == 1
    calm_engine = results.profilemate("explain", "--rule", "launch_blocking", "--fail-on", "low", session, check=False)
    assert calm_engine.returncode == 0
