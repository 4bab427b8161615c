"""kill -9 at random moments: everything that was committed is read back, and nothing that did not happen.

The harness drives vLLM's real scheduler, thousands of steps a second, in children of a fork server; each is killed
after a random number of steps. Then a real server loses its API process, its engine core and its worker.
"""

from __future__ import annotations

import os
import random
import signal
import time

import driving
import pytest
import results
import serving
from conftest import kills, workload
from harness import Truth
from patience import until

ARGUMENTS = ["--requests", "0", "--num-blocks", "60", "--shared-prefix", "32", "--max-rows", "200000"]


@pytest.fixture(scope="module")
def fork_server(folder):
    server = driving.ForkServer(driving.environment(folder / "sessions"))
    yield server
    server.close()


def kill_some(fork_server, folder, count: int, seed: int) -> dict[int, tuple]:
    """Kills so many children, each some moment after it reached a random step; what each had counted, by pid."""
    rng = random.Random(seed)
    killed = {}
    for i in range(count):
        truth = folder / f"truth-{seed}-{i}"
        mode = ["--async-scheduling"] if i % 3 == 0 else []
        pid = fork_server.spawn([*ARGUMENTS, *mode, "--seed", str(rng.randrange(1 << 30)), "--truth", str(truth)])
        at = rng.choice((1, 2, 5, 30, 200, 1000))
        deadline = time.monotonic() + 180
        while driving.finished_steps(truth) < at:
            assert time.monotonic() < deadline, f"the child did not reach step {at}"
            time.sleep(0.0005)
        time.sleep(rng.random() * 0.003)
        fork_server.kill(pid)
        killed[pid] = Truth.read(truth)
        truth.unlink()
    return killed


def test_every_committed_step_is_read_back(fork_server, folder):
    """A step is committed when the hook has returned: the harness counts after that, so at most one more is there."""
    killed = kill_some(fork_server, folder, kills("PM_HARNESS_KILLS", 200), seed=int(os.environ.get("PM_SEED", "1")))
    session = results.only_session(folder / "sessions")
    scheduled: dict[int, list] = {}
    executed: dict[int, list] = {}
    for row in results.native(session, "sched_step"):
        scheduled.setdefault(row["pid"], []).append(row)
    for row in results.native(session, "worker_step"):
        executed.setdefault(row["pid"], []).append(row)
    for pid, (counts, rows) in killed.items():
        got = scheduled.get(pid, [])
        assert counts["scheduled"] <= len(got) <= counts["scheduled"] + 1, (pid, counts)
        assert [row["step"] for row in got] == list(range(len(got)))
        for row, counted in zip(got, rows, strict=False):
            assert (row["requests"], row["tokens"]) == (counted["requests"], counted["tokens"]), (pid, counted)
        ran = executed.get(pid, [])
        assert counts["executed"] <= len(ran) <= counts["executed"] + 1, (pid, counts)
        assert [row["step"] for row in ran] == list(range(len(ran)))
    assert not set(scheduled) - set(killed), "steps of processes that never ran"


def test_the_files_come_out_and_hold_what_was_recorded(fork_server, folder):
    session = results.only_session(folder / "sessions")
    results.profilemate("export", session)
    for engine in sorted(session.glob("engine_*/rank_0")):
        assert results.read_csv(engine / "forward_pass_timing.csv")
    assert results.read_csv(session / "forward_pass_timing.csv")
    assert results.profilemate("doctor", session, check=False).returncode in (0, 1)
    assert "killed" in results.profilemate("report", "--text", session).stdout


VICTIMS = ("api", "engine", "worker")


@pytest.mark.parametrize("round_", range(max(1, kills("PM_SERVER_KILLS", 3) // len(VICTIMS))))
@pytest.mark.parametrize("victim", VICTIMS)
def test_a_real_server_is_killed(victim, round_, llama, folder):
    """One process of a real server gets SIGKILL in the middle of its work; the session is complete up to then."""
    base = folder / f"real-{victim}-{round_}"
    under_run = victim == "worker"
    environment = serving.clean_environment()
    before: tuple[str, ...] = ()
    if under_run:
        before = (str(serving.PROGRAM), "run", "--dir", str(base), "--")
    else:
        environment.update(serving.profiled(base, preset="full"))
    arguments = ("--enable-logging-iteration-details", "--max-num-batched-tokens", "128", "--max-num-seqs", "8")
    with serving.Server(llama, folder / f"{victim}-{round_}", environment, arguments, before=before) as server:
        server.wait_ready()
        server.complete_all(workload(seed=round_, requests=20), concurrency=8)
        settled = len(results.iterations(server.output()))
        pid = server.pids(victim)[0]
        # Requests that will never be answered are in flight when the process dies.
        server.complete_in_background(workload(seed=100 + round_, requests=12))
        until(lambda: len(results.iterations(server.output())) > settled, every=0.02)
        os.kill(pid, signal.SIGKILL)
        server.popen.wait(180)
        if victim == "api":
            # vLLM's engine lives on then, without us as well; its session can be had nevertheless.
            assert server.pids("engine")
            results.profilemate("export", results.only_session(base))
        else:
            server.wait_gone(180)
        log = server.output()
    session = results.only_session(base)
    if not under_run:
        results.profilemate("export", session)
    rows = results.read_csv(session / "forward_pass_timing.csv")
    logged = results.iterations(log)
    assert len(logged) > settled
    # vLLM logs a step in its API process, after the engine has told it: the log is the shorter one.
    got = [(row["phase"], int(row["batch_size"]), int(row["num_tokens"])) for row in rows]
    wanted = [(step["phase"], step["requests"], step["tokens"]) for step in logged]
    assert got[: len(wanted)] == wanted
    assert "killed" in results.profilemate("report", "--text", session).stdout
