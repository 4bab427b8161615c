"""`top`, `postmortem` and `serve` beside real servers: figures against vLLM's own /metrics and the tables, hangs, and four ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import results
import serving
from conftest import workload
from patience import until
from test_requests import hang_up, total

sys.path.insert(0, str(serving.ROOT / "tests" / "cli"))
from served import Served, one, values

SECRET = "client-chosen-name"


def top(session, *words) -> dict:
    (shown,) = json.loads(results.profilemate("top", "--once", "--json", *words, session).stdout)["sessions"]
    return shown


def postmortem(session) -> dict:
    return json.loads(results.profilemate("postmortem", "--json", session).stdout)


def start(llama, folder, name: str, before: tuple[str, ...] = (), **extra: str) -> serving.Server:
    environment = serving.clean_environment(**serving.profiled(folder / name, preset="full", **extra))
    arguments = ("--num-gpu-blocks-override", "60", "--block-size", "32", "--max-num-batched-tokens", "256")
    return serving.Server(llama, folder / f"{name}-server", environment, arguments, before=before).wait_ready()


def busy(server: serving.Server, seconds: float = 1800) -> threading.Event:
    """Requests of three clients, which the cache holds at once, until the event is set or the server no longer answers."""
    ending, deadline = threading.Event(), time.monotonic() + seconds

    def serve() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=seconds)
        body = {"model": serving.MODEL_NAME, "prompt": [7] * 20, "max_tokens": 600, "ignore_eos": True}
        while not ending.is_set() and time.monotonic() < deadline:
            try:
                connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
                connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                return

    for _ in range(3):
        threading.Thread(target=serve, daemon=True).start()
    return ending


def all_decode(shown: dict) -> bool:
    """All three requests of busy() decode: now and then one of them has just ended."""
    (engine,) = shown["engines"]
    words = {thread["doing"] for process in shown["processes"] for thread in process["threads"]}
    return (
        {row["phase"] for row in engine["requests"]} == {"decode"}
        and engine["running"] == engine["open_requests"] == 3
        and engine["window"]["out_tokens_per_sec"] > 10
        and bool(words & {"hand_over", "model", "prepare", "sample", "schedule", "update", "after_step", "after_model"})
    )


@pytest.fixture(scope="module")
def served(llama, folder):
    """One server: load with aborts, a look while it serves, a stop and a go, a kill of its engine core."""
    with contextlib.ExitStack() as stack, start(llama, folder, "live") as server:
        session = results.only_session(folder / "live")
        web = stack.enter_context(Served(serving.PROGRAM, session, env=serving.clean_environment()))
        events = web.listen()
        server.complete_all(workload(seed=5, requests=30), concurrency=10)
        until(lambda: top(session)["engines"][0]["total"]["finished"] == 30)
        quiet = SimpleNamespace(metrics=server.metrics(), shown=top(session))
        quiet.scraped = until(lambda: values(m := web.metrics(), "profilemate_requests_finished_total") == [30] and m)
        quiet.told = web.json(f"/api/sessions/{session.name}")
        quiet.event = events.until(lambda state: state["sessions"][0]["engines"][0]["total"]["finished"] == 30)
        for i in range(3):
            hang_up(server, [5 + i] * 20)
        until(lambda: top(session)["engines"][0]["total"]["finished"] == 33)
        hung_up = SimpleNamespace(metrics=server.metrics(), shown=top(session))
        ending = busy(server)
        seen: list[dict] = []
        serving_now = until(
            lambda: seen.append(top(session)) or (all_decode(seen[-1]) and seen[-1]), lambda: json.dumps(seen[-3:])
        )

        (engine,) = server.pids("engine")
        for _ in range(5):  # the machine may be away for seconds: what counts is what `top` can do
            os.kill(engine, signal.SIGSTOP)
            stopped_at = time.monotonic()
            hung = until(lambda: (shown := top(session))["health"] == "stopped" and shown)
            seen_after = time.monotonic() - stopped_at
            page = results.profilemate("postmortem", session).stdout
            asked_after = time.monotonic() - stopped_at
            if asked_after < 3:
                break
            os.kill(engine, signal.SIGCONT)
            until(lambda: top(session)["health"] == "serving")
        hung_scraped = until(lambda: values(m := web.metrics(), "profilemate_session_health", health="stopped") == [1] and m)
        answers = True
        try:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=2)
            body = {"model": serving.MODEL_NAME, "prompt": [7], "max_tokens": 2, "user": SECRET}
            headers = {"Content-Type": "application/json", "X-Request-Id": SECRET}
            connection.request("POST", "/v1/completions", json.dumps(body), headers)
            connection.getresponse().read()
        except (TimeoutError, OSError, http.client.HTTPException):
            answers = False
        os.kill(engine, signal.SIGCONT)
        goes_on = until(lambda: (shown := top(session))["health"] == "serving" and shown)
        # In the middle of a request: where none is under way, the end of the engine core looks like vLLM's own of it.
        until(lambda: any(20 < row["output_tokens"] < 400 for row in top(session)["engines"][0]["requests"]))
        os.kill(engine, signal.SIGKILL)
        server.popen.wait(180)
        server.wait_gone(180)  # the worker notices some seconds later
        ending.set()
        gone_scraped = until(lambda: (m := web.metrics()) and not any(v for k, v in m.items() if "process_up" in k[0]) and m)
        events.close()
        yield SimpleNamespace(**locals())


def test_totals_are_those_of_metrics(served):
    total_, metrics = served.quiet.shown["engines"][0]["total"], served.quiet.metrics
    assert total_["output_tokens"] == total(metrics, "vllm:generation_tokens_total") > 100
    assert total_["prompt_tokens"] == total(metrics, "vllm:prompt_tokens_total") > 100
    assert total_["preemptions"] == total(metrics, "vllm:num_preemptions_total")
    assert served.quiet.shown["engines"][0]["running"] == served.quiet.shown["engines"][0]["waiting"] == 0
    assert served.quiet.shown["health"] in ("idle", "serving")


def test_clients_that_hang_up_are_aborts(served):
    """vLLM does not count the outputs that nobody took any more; the engine gave them all the same."""
    window = served.hung_up.shown["engines"][0]["window"]
    total_, metrics = served.hung_up.shown["engines"][0]["total"], served.hung_up.metrics
    assert 1 <= window["aborted"] <= 3  # it may be through before it notices
    assert total(metrics, "vllm:generation_tokens_total") <= total_["output_tokens"]
    assert served.hung_up.shown["engines"][0]["open_requests"] == 0


def test_it_is_seen_while_it_serves(served):
    shown = served.serving_now  # all three decode, at a rate: until that was so
    assert shown["health"] == "serving" and shown["sentence"] is None
    roles = {role for process in shown["processes"] for role in process["roles"]}
    assert {"engine", "worker", "frontend"} <= roles


def test_a_stopped_engine_core_is_told_of_within_three_seconds(served):
    assert served.seen_after < 3 and served.asked_after < 3, "top and postmortem were too late"
    assert not served.answers, "vLLM's own endpoint answered"
    assert f"Engine core pid {served.engine} is in state T" in served.hung["sentence"]
    assert "does not get on" in served.page and f"pid {served.engine}" in served.page
    assert served.goes_on["sentence"] is None


def test_a_killed_engine_core(served):
    told = postmortem(served.session)
    assert told["cause"] in ("killed", "memory")
    assert f"The engine core, pid {served.engine}, was killed" in told["sentence"]
    (end,) = (row for row in told["processes"] if row["pid"] == served.engine)
    assert end["life"] == "killed" and end["threads"][0]["doing"] != "unknown"
    (engine,) = told["engines"]
    assert engine["requests_under_way"] and engine["last_steps"]


def test_nothing_that_clients_sent_is_on_the_page(served):
    for words in ((), ("--json",)):
        page = results.profilemate("postmortem", *words, served.session).stdout
        assert SECRET not in page
        assert not re.search(r"cmpl-[0-9a-f]{8}", page)
        assert served.server.port and str(served.server.port) in page  # a port is harmless
    assert "cmpl-" in results.profilemate("postmortem", "--ids", served.session).stdout


def test_figures_are_those_of_the_tables(served):
    shown = top(served.session)
    (engine,) = shown["engines"]
    steps = results.native(served.session, "steps")
    requests = results.native(served.session, "requests")
    assert engine["total"]["steps"] == sum(bool(row["tokens"]) and row["has_scheduler"] for row in steps)
    assert engine["total"]["output_tokens"] == sum(row["output_tokens"] or 0 for row in steps)
    assert engine["total"]["finished"] == sum(row["state"] == "finished" for row in requests)
    theirs = {row["request_id"]: row for row in requests if row["state"] != "finished"}
    assert {row["request_id"] for row in engine["requests"]} == set(theirs)
    for row in engine["requests"]:
        assert row["output_tokens"] == theirs[row["request_id"]]["output_tokens"]


def test_serve_says_what_vllms_own_metrics_say(served):
    ours, theirs = served.quiet.scraped, served.quiet.metrics
    for name, vllms in {
        "output_tokens_total": "generation_tokens_total", "prompt_tokens_total": "prompt_tokens_total",
        "preemptions_total": "num_preemptions_total", "requests_finished_total": "request_success_total",
        "time_to_first_token_seconds_count": "time_to_first_token_seconds_count",
        "request_duration_seconds_count": "e2e_request_latency_seconds_count",
        "running_requests": "num_requests_running", "waiting_requests": "num_requests_waiting",
        "kv_cache_usage_ratio": "kv_cache_usage_perc", "prefix_cache_hit_tokens_total": "prefix_cache_hits_total",
        "prefix_cache_queried_tokens_total": "prefix_cache_queries_total",
    }.items():  # fmt: skip
        assert one(ours, f"profilemate_{name}") == total(theirs, f"vllm:{vllms}"), name
    # The engine core knows of a request later than the front end, and is done with it earlier.
    for name, vllms in {"request_duration": "e2e_request_latency", "time_to_first_token": "time_to_first_token"}.items():
        assert 0 < one(ours, f"profilemate_{name}_seconds_sum") < total(theirs, f"vllm:{vllms}_seconds_sum"), name
    labels = next(has for sample, has, _ in theirs.samples if sample == "vllm:generation_tokens_total")
    joined = {"model_name": labels["model_name"], "engine": labels["engine"]}
    assert one(ours, "profilemate_output_tokens_total", **joined) > 100


def test_serve_says_what_top_says(served):
    (engine,) = served.quiet.shown["engines"]
    for told in (served.quiet.told, served.quiet.event["sessions"][0]):
        assert told["name"] == served.quiet.shown["name"]
        assert told["engines"][0]["total"] == engine["total"]
        assert told["engines"][0]["kv"] == engine["kv"]
    ours = served.quiet.scraped
    steps = [one(ours, "profilemate_steps_total", phase=phase) for phase in ("prefill", "decode")]
    assert sum(steps) == engine["total"]["steps"] > 0
    assert one(ours, "profilemate_kv_cache_blocks") == engine["kv"]["total_blocks"]
    assert one(ours, "profilemate_kv_cache_evictions_total") == engine["total"]["evicted_blocks"]


def test_serve_tells_of_a_server_that_hangs_and_of_its_end(served):
    pid = str(served.engine)
    assert one(served.hung_scraped, "profilemate_process_stopped", pid=pid) == 1
    assert one(served.hung_scraped, "profilemate_process_up", pid=pid) == 1
    assert one(served.gone_scraped, "profilemate_process_up", pid=pid) == 0
    (steps, requests) = (results.native(served.session, name) for name in ("steps", "requests"))
    ours = served.gone_scraped
    assert one(ours, "profilemate_output_tokens_total") == sum(row["output_tokens"] or 0 for row in steps)
    assert one(ours, "profilemate_requests_finished_total") == sum(row["state"] == "finished" for row in requests)
    counts = [v for k, v in ours.items() if k[0] == "profilemate_step_seconds_count"]
    assert sum(counts) == sum(bool(row["has_worker"] and row["total_ns"]) for row in steps) > 0


PLANTED = """
import os, sys, threading, time

def plant():
    for _ in range(3000):
        kind = getattr(sys.modules.get("vllm.model_executor.models.llama"), "LlamaForCausalLM", None)
        if kind is not None:
            break
        time.sleep(0.05)
    else:
        return
    original = kind.forward

    def forward(self, *args, **kwargs):
        if os.path.exists({mark!r}):
            {act}
        return original(self, *args, **kwargs)

    kind.forward = forward

threading.Thread(target=plant, daemon=True).start()
"""


def planted(folder, name: str, act: str) -> dict[str, str]:
    """A sitecustomize behind the profiler's, which does something in the model once a file is there."""
    place = folder / f"planted-{name}"
    place.mkdir()
    (place / "sitecustomize.py").write_text(PLANTED.format(mark=str(folder / f"mark-{name}"), act=act))
    return {"PYTHONPATH": f"{serving.BUILD / 'site'}{os.pathsep}{place}"}


@pytest.fixture(scope="module")
def fallen(llama, folder):
    """Servers under `profilemate run` that fall in the model: of an exception, of a segmentation fault."""
    ends = {}
    acts = {"raised": 'raise ValueError("what was asked: " + "secret")', "fault": "import ctypes; ctypes.string_at(8)"}
    for name, act in acts.items():
        before = (str(serving.PROGRAM), "run", "--no-pythonpath", "--")
        with start(llama, folder, name, before, **planted(folder, name, act)) as server:
            ending = busy(server)
            session = results.only_session(folder / name)
            until(lambda session=session: top(session)["engines"][0]["open_requests"])
            (folder / f"mark-{name}").touch()
            server.popen.wait(180)
            server.wait_gone(180)
            ending.set()
            ends[name] = SimpleNamespace(session=session, told=postmortem(session), errors=server.errors())
    return ends


def test_an_exception_in_the_engine(fallen):
    end = fallen["raised"]
    assert end.told["cause"] == "raised"
    assert "execute_model had raised ValueError at step" in end.told["sentence"]
    assert "secret" not in json.dumps(end.told)
    threads = [thread for process in end.told["processes"] for thread in process["threads"]]
    assert any(thread["doing"] == "model" and thread["raised"] for thread in threads)
    assert "`profilemate postmortem" in end.errors


def test_a_segmentation_fault_in_the_model(fallen):
    told = fallen["fault"].told
    assert told["cause"] in ("killed", "crashed")
    assert "in the model" in told["sentence"]
    assert "`profilemate postmortem" in fallen["fault"].errors


def test_a_clean_stop(llama, folder):
    before = (str(serving.PROGRAM), "run", "--")
    with start(llama, folder, "clean", before) as server:
        server.complete_all(workload(seed=6, requests=4), concurrency=2)
        server.stop(signal.SIGINT)
        errors = server.errors()
    told = postmortem(results.only_session(folder / "clean"))
    assert told["cause"] == "stopped"
    assert "SIGINT" in told["sentence"] and told["run"]["asked_by_signal"] == signal.SIGINT
    assert "profilemate postmortem" not in errors
