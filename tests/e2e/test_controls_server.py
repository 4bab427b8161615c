"""Controls on real vLLM: a server that was started without profiling is made to record, switched, and left again; its
figures are vLLM's own of that time, and its answers the same throughout."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import results
import serving
from conftest import workload
from patience import until
from test_requests import total

PROMPTS = workload(seed=31, requests=4)


def profilemate(*words: str | int | Path) -> dict:
    return json.loads(results.profilemate(*map(str, words)).stdout)


def tokens(server: serving.Server) -> list[list[int]]:
    """Greedy answers, one request at a time: the same whenever nothing but the profiler changes."""
    return [server.complete(**request) for request in PROMPTS]


def recording(pid: int) -> bool:
    return ".pmrec" in Path(f"/proc/{pid}/maps").read_text()


@pytest.fixture(scope="module")
def switched(llama, folder):
    sessions = folder / "controls"
    environment = serving.clean_environment(
        **{**serving.profiled(sessions, preset="full"), "VLLM_ENABLE_PROFILING": "0"}
    )
    arguments = ("--num-gpu-blocks-override", "60", "--block-size", "32", "--no-enable-prefix-caching")
    with serving.Server(llama, folder / "controls-server", environment, arguments).wait_ready() as server:
        (engine,), api, workers = server.pids("engine"), server.popen.pid, server.pids("worker")
        everybody = [api, engine, *workers]
        answers = {"without": tokens(server)}
        dormant = SimpleNamespace(
            sessions=results.sessions_in(sessions), recording=[recording(pid) for pid in everybody]
        )  # fmt: skip
        before = server.metrics()
        started = profilemate("start", api, "--json", "--wait", "120")
        answers["recorded"] = tokens(server)
        server.complete_all(workload(seed=6, requests=16), concurrency=8)
        both = [recording(pid) for pid in everybody]
        after = server.metrics()

        session = Path(started["session"])
        shown = profilemate("top", "--once", "--json", session)
        off = profilemate("set", session, "kv_cache=off", "--json", "--wait", "120")
        answers["kv_cache off"] = tokens(server)
        on = profilemate("set", engine, "kv_cache=on,", "log_interval=50", "--json", "--wait", "120")
        answers["kv_cache on"] = tokens(server)
        listed = profilemate("set", session, "--list", "--json")
        fixed = results.profilemate("set", session, "preemption=off", check=False)
        late = results.profilemate("set", session, "moe=1", check=False)
        detailed = profilemate("set", session, "detail=10", "--json", "--wait", "120")
        answers["detail"] = tokens(server)
        requests = len(PROMPTS) * 4 + 16

        stopped = profilemate("stop", api, "--json", "--wait", "120")
        answers["stopped"] = tokens(server)
        until(lambda: not any(map(recording, everybody)))
        crowd = [{"prompt": [7 + i] * 20, "max_tokens": 120 + 40 * i} for i in range(12)]
        seen = threading.Event()
        with ThreadPoolExecutor(1) as pool:

            def load_on() -> int:
                """Crowds until one was seen, and one more."""
                done = 0
                while not seen.is_set():
                    server.complete_all(crowd, 6)
                    done += 1
                server.complete_all(crowd, 6)
                return done + 1

            load = pool.submit(load_on)
            try:
                until(lambda: total(server.metrics(), "vllm:num_requests_running") >= 4)
                again = profilemate("start", engine, "preset=simple", "--json", "--wait", "120")
            finally:
                seen.set()
            crowds = load.result()
        answers["again"] = tokens(server)
        ended = profilemate("stop", "--no-export", again["session"], "--json", "--wait", "120")
        answers["ended"] = tokens(server)
        until(lambda: not any(map(recording, everybody)))
        last = server.metrics()
        yield SimpleNamespace(**locals())


def test_a_dormant_server_makes_nothing(switched):
    assert switched.dormant.sessions == [] and not any(switched.dormant.recording)


def test_every_process_begins(switched):
    found = {row["pid"]: row["state"] for row in switched.started["processes"]}
    assert set(found) == set(switched.everybody)
    assert set(found.values()) <= {"done", "queued"}, "an idle engine core begins with its next request"
    assert all(switched.both)
    refused = {line.split()[0] for row in switched.started["processes"] for line in row["refused"]}
    assert {"cuda_graph", "moe"} <= refused, "what cannot be had without a restart is named"
    assert not refused & {"kv_cache", "encoder_decoder", "frontend", "sched_step", "worker_step", "request_life"}


def test_figures_are_those_of_metrics_between_the_two_points(switched):
    def grew(name: str, **labels: str) -> float:
        return total(switched.after, name, **labels) - total(switched.before, name, **labels)

    (shown,) = switched.shown["sessions"]
    ours = shown["engines"][0]["total"]
    assert ours["output_tokens"] == grew("vllm:generation_tokens_total") > 100
    assert ours["prompt_tokens"] == grew("vllm:prompt_tokens_total") > 100
    assert ours["finished"] == grew("vllm:request_success_total") == len(PROMPTS) + 16
    assert ours["preemptions"] == grew("vllm:num_preemptions_total")


def test_answers_are_the_same_throughout(switched):
    assert len(switched.answers) == 8
    for when, answer in switched.answers.items():
        assert answer == switched.answers["without"], when


def test_every_step_pairs(switched):
    """Switching never breaks a pair: each step has its scheduler's and its worker's half, and their counts agree."""
    steps = [step for step in results.native(switched.session, "steps") if step["tokens"]]
    assert len(steps) > 100
    assert all(step["matched"] for step in steps)
    assert [step["step"] for step in steps] == sorted({step["step"] for step in steps})
    rows = results.native(switched.session, "requests")
    assert len(rows) == switched.requests and all(row["reason"] == "length" for row in rows)


def test_kv_events_pause_and_go_on_with_the_same_numbers(switched):
    scheduled = {row["step"]: row for row in results.native(switched.session, "sched_step")}
    kv = {row["step"]: row for row in results.native(switched.session, "kv_step")}
    assert set(kv) < set(scheduled)
    pauses = [row for row in results.native(switched.session, "switch") if row["what"] == "kv_cache"]
    paused = [row for row in pauses if row["pid"] == switched.engine]
    assert [row["value"] for row in paused][:2] == ["off", "on"]
    low, high = paused[0]["at_ns"], paused[1]["at_ns"]
    for number, row in scheduled.items():
        assert (number in kv) == (not low < row["start_ns"] < high), number


def test_what_was_switched_is_told(switched):
    settings = {row["pid"]: row["settings"] for row in switched.listed["processes"]}
    assert settings[switched.api]["log_interval"] == "50"
    assert switched.listed["fixed"]["preemption"]
    assert switched.fixed.returncode == 2 and "from their arrival to their end" in switched.fixed.stderr
    assert switched.late.returncode == 1 and "server's start" in switched.late.stdout
    text = results.profilemate("report", "--text", switched.session).stdout
    assert "kv_cache off" in text and "began while the server ran" in text
    kinds = {row["kind"] for row in results.native(switched.session, "switch") if row["pid"] == switched.engine}
    assert kinds == {1, 2, 3, 4, 5}


def test_it_ends_and_begins_again(switched):
    assert {row["pid"] for row in switched.stopped["processes"]} == set(switched.everybody)
    assert switched.stopped["sessions"] == [str(switched.session)]
    assert (switched.session / "batch_utilization.csv").read_text().count("\n") > 100
    second = Path(switched.again["session"])
    assert second != switched.session
    assert {row["state"] for row in switched.again["processes"]} <= {"done", "queued"}
    queued = [row for row in results.native(second, "requests") if row["queued_sec"] is not None]
    assert len(PROMPTS) <= len(queued) <= len(PROMPTS) + switched.crowds * len(switched.crowd)
    assert not (second / "forward_pass_timing.csv").exists()
    assert "Traceback" not in switched.server.errors()


def test_a_session_that_begins_under_load_pairs_its_steps(switched):
    """Engine core and worker are two processes, which take it up at different steps: the first request that is new to
    both tells which is which."""
    steps = [step for step in results.native(Path(switched.again["session"]), "steps") if step["tokens"]]
    paired = [i for i, step in enumerate(steps) if step["matched"]]
    between = steps[paired[0] : paired[-1] + 1]
    assert len(between) > 50 and all(step["matched"] for step in between)
    assert len(steps) - len(between) < 50, "alone are only those that one side saw before the other"
