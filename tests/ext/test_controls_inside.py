"""Controls, from inside of the process that is switched: what is put in place and taken out, forks, and the moment.

A made-up server runs what it is told on its standard input, and Python in between, so that pending calls are made."""

import json
import os
import subprocess
import time
from pathlib import Path

import fake
import pytest
from patience import until

PROGRAM = fake.BUILD / "bin" / "profilemate"
DEADLINE_S = 600

SERVER = """
import json, os, select, sys, threading, time
import vllm.v1.engine.core
from types import SimpleNamespace as N
from vllm.v1.core.sched.scheduler import Scheduler

scheduler = Scheduler()
original = vars(Scheduler)["schedule"]
over = None
def wrap():
    global over
    below = vars(Scheduler)["schedule"]
    def over(self, *args):
        return below(self, *args)
    Scheduler.schedule = over
def steps(n):
    for _ in range(n):
        scheduler.schedule()
def children():
    here, there = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(there, b"!")
        while not os.path.exists("over"):  # no signal: the thread sanitizer keeps one from a child of fork() for ever
            time.sleep(0.01)
        sys.exit(0)
    os.read(here, 1)
    return pid
def place():
    there = vars(Scheduler)["schedule"]
    return "original" if there is original else "over" if there is over else type(there).__module__

buffer = b""
while True:
    ready, _, _ = select.select([0], [], [], 0.01)
    if ready:
        got = os.read(0, 65536)
        if not got:
            break
        buffer += got
        while b"\\n" in buffer:
            line, buffer = buffer.split(b"\\n", 1)
            print(json.dumps(eval(line)), flush=True)
"""
FILES = {
    **fake.FILES,
    "vllm/v1/core/__init__.py": "",
    "vllm/v1/core/sched/__init__.py": "",
    "vllm/v1/core/sched/scheduler.py": """
        import os, time
        from types import SimpleNamespace as N

        class Scheduler:
            requests, running, waiting = {}, [], []
            gate = None

            def get_request_counts(self):
                if self.gate:
                    open(self.gate + ".reached", "w").close()
                while self.gate and not os.path.exists(self.gate):
                    time.sleep(0.001)
                return (1, 0)

            def schedule(self, throttle=False):
                return N(num_scheduled_tokens={"a": 1}, scheduled_spec_decode_tokens={}, finished_req_ids=set(),
                         scheduled_new_reqs=[])
        """,
    "vllm/entrypoints/server.py": SERVER,
}


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return fake.write(tmp_path_factory.mktemp("package"), FILES)


@pytest.fixture(params=fake.PYTHONS)
def python(request):
    return fake.PYTHONS[request.param]


class Server:
    def __init__(self, python, package, base, **extra):
        env = fake.environment(base, fake.SITE, package, VLLM_ENABLE_PROFILING="0", **extra)
        self.base = base
        self.process = subprocess.Popen(
            [python, "-m", "vllm.entrypoints.server"], env=env, cwd=base, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=(base / "stderr").open("w"),
        )  # fmt: skip
        self.pid = self.process.pid

    def tell(self, expression):
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()

    def heard(self):
        line = self.process.stdout.readline()
        assert line, (self.base / "stderr").read_text()
        return json.loads(line)

    def ask(self, expression):
        self.tell(expression)
        return self.heard()

    def program(self, *words, check=True):
        env = {**os.environ, "VLLM_PROFILING_DIR": str(self.base / "sessions")}
        done = subprocess.run([PROGRAM, *map(str, words)], env=env, capture_output=True, text=True, timeout=DEADLINE_S)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def control(self, *words):
        return json.loads(self.program(*words, "--json", f"--wait={DEADLINE_S}"))

    def close(self):
        """It ends at the end of its input: a killed one would not say which lines it reached (scripts/coverage)."""
        try:
            self.process.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise


@pytest.fixture
def server(python, package, tmp_path):
    made = Server(python, package, tmp_path)
    assert made.ask("1") == 1
    yield made
    made.close()


def steps_of(server, session):
    rows = server.program("export", "--quiet", "--format", "json", session).splitlines()
    return [row["step"] for row in map(json.loads, rows) if row["table"] == "sched_step"]


def test_hooks_are_put_in_and_taken_out(server):
    assert server.ask("place()") == "original"
    session = server.control("start", server.pid)["session"]
    assert server.ask("place()") == "profilemate" and server.ask("steps(3)") is None
    server.control("set", server.pid, "verbose=on", "encoder_decoder=off", "log_interval=7")
    server.ask("steps(2)")
    server.control("stop", server.pid)
    assert server.ask("place()") == "original"
    server.ask("steps(4)")
    assert steps_of(server, session) == [0, 1, 2, 3, 4], "what came before and after is not in it"
    second = server.control("start", server.pid)["session"]
    server.ask("steps(2)")
    server.control("stop", server.pid)
    assert second != session and steps_of(server, second) == [0, 1]
    (process,) = fake.records(Path(session))
    assert process.attributes["setting.log_interval"] == "7", "what was set is told of the session"
    assert (server.base / "stderr").read_text() == ""


def test_a_wrapper_that_somebody_wrapped_stays_and_is_not_doubled(server):
    server.control("start", server.pid)
    server.ask("wrap()")
    (process,) = server.control("stop", server.pid)["processes"]
    assert "pass calls through" in " ".join(process["note"])
    assert server.ask("place()") == "over"
    server.ask("steps(3)")
    second = server.control("start", server.pid)["session"]
    assert server.ask("place()") == "over"
    server.ask("steps(4)")
    server.control("stop", server.pid)
    assert steps_of(server, second) == [0, 1, 2, 3], "each call once"


def test_a_child_of_fork_has_a_page_of_its_own(server):
    child = server.ask("children()")
    try:
        started = server.control("start", child)
        assert {row["pid"] for row in started["processes"]} == {server.pid, child}
        assert {row["state"] for row in started["processes"]} == {"done"}
        files = {path.name.split("-")[0] for path in Path(started["session"]).glob("records/*.pmrec")}
        assert files == {f"p{server.pid}", f"p{child}"}
        server.control("stop", server.pid)
    finally:
        (server.base / "over").touch()


def test_not_while_a_hook_is_at_work(server):
    """A half of ours that calls Python may be interrupted by the pending call: which waits until it is through."""
    session = server.control("start", server.pid)["session"]
    gate = server.base / "gate"
    server.ask("steps(1)")
    server.tell(f"setattr(scheduler, 'gate', {str(gate)!r}) or steps(1)")
    until(Path(f"{gate}.reached").exists)
    asked = subprocess.Popen(
        [PROGRAM, "stop", str(server.pid), "--json", f"--wait={DEADLINE_S}"], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "VLLM_PROFILING_DIR": str(server.base / "sessions")},
    )  # fmt: skip
    time.sleep(0.5)  # not waited for: however long, it must not be done by then
    assert asked.poll() is None, "recording ended in the middle of a hook"
    gate.touch()
    out, _ = asked.communicate(timeout=DEADLINE_S)
    assert json.loads(out)["processes"][0]["state"] == "done"
    server.heard()
    assert steps_of(server, session) == [0, 1]


def test_it_can_be_left_out(python, package, tmp_path):
    server = Server(python, package, tmp_path, VLLM_PROFILING_CONTROL="0")
    try:
        assert server.ask("len(os.listdir('/proc/self/task'))") == 1
        assert not any("profilemate" in os.readlink(path) for path in Path(f"/proc/{server.pid}/fd").iterdir())
        assert "no vLLM process" in subprocess.run(
            [PROGRAM, "start", str(server.pid)], capture_output=True, text=True, timeout=DEADLINE_S
        ).stderr  # fmt: skip
    finally:
        server.close()


def test_detail_ends_after_its_steps(server):
    session = server.control("start", server.pid, "cpu_timing=off", "kv_cache=off")["session"]
    server.ask("steps(1)")
    server.control("set", server.pid, "detail=3")
    server.ask("steps(5)")
    listed = lambda: json.loads(server.program("set", server.pid, "--list", "--json"))["processes"][0]["settings"]  # noqa: E731
    assert until(lambda: (now := listed())["kv_cache"] == "off" and now)["cpu_timing"] == "off"
    rows = server.program("export", "--quiet", "--format", "json", session).splitlines()
    switches = [row for row in map(json.loads, rows) if row["table"] == "switch"]
    assert [row["kind"] for row in switches if row["kind"] != 3] == [1, 4, 5]
    server.control("stop", server.pid)
