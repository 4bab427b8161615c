"""Faults around one real server: whatever happens to the profiler and its session, the answers stay the same, nothing of
ours is printed but a line at most, and what was recorded before is read back.

The server starts dormant, from a copy of the extension; each test has it record into a place of its own. The last one ends it.
(Disks that fill up need more records than a tiny model makes: test_faults_disk.py.)
"""

from __future__ import annotations

import json
import mmap
import os
import pstats
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faulty
import pytest
import results
import serving
from conftest import workload
from patience import until

PROMPTS = workload(seed=31, requests=4)
HOUR_NS = 3600 * 10**9
ENTER = 'echo $$ >"$0/cgroup.procs" && exec "$@"'


def profilemate(*words) -> dict:
    return json.loads(results.profilemate(*map(str, words)).stdout)


def recording(pid: int) -> bool:
    return ".pmrec" in Path(f"/proc/{pid}/maps").read_text()


class World:
    def __init__(self, server: serving.Server, clock: mmap.mmap, site: Path, memory: faulty.Group | None):
        self.server, self.clock, self.site, self.memory = server, clock, site, memory
        (self.engine,) = server.pids("engine")
        self.everybody = [server.popen.pid, self.engine, *server.pids("worker")]
        self.before = self.answers()
        self.said = len(self.printed())

    def printed(self) -> str:
        return self.server.output() + self.server.errors()

    def answers(self) -> list[list[int]]:
        return [self.server.complete(**request) for request in PROMPTS]

    def start(self, base: Path, *settings: str) -> Path:
        shown = profilemate("start", self.server.popen.pid, f"dir={base}", *settings, "--json", "--wait", "170")
        self.as_before()
        until(lambda: all(map(recording, self.everybody)), "not all of them record")
        return Path(shown["session"])

    def stop(self) -> None:
        results.profilemate("stop", "--no-export", self.server.popen.pid, "--wait", "170", check=False)
        self.as_before()
        until(lambda: not any(map(recording, self.everybody)), "they record on")

    def as_before(self) -> None:
        assert self.answers() == self.before

    def said_little(self) -> None:
        new, self.said = self.printed()[self.said :], len(self.printed())
        lines = new.splitlines()
        assert not [line for line in lines if "Traceback" in line], new
        assert len([line for line in lines if "[ProfileMate]" in line]) <= 1, new

    def move_clock(self, wall_ns: int = 0, ours_ns: int = 0) -> None:
        self.clock[:] = struct.pack("<qq", wall_ns, ours_ns)


@pytest.fixture(scope="module")
def world(llama, folder):
    site, seam, clock = folder / "installed", folder / "clock_seam.so", folder / "clock"
    shutil.copytree(serving.BUILD / "site", site)
    source = Path(__file__).with_name("clock_seam.c")
    subprocess.run(("gcc", "-O1", "-shared", "-fPIC", "-o", seam, source, "-ldl"), check=True)
    clock.write_bytes(bytes(16))
    environment = serving.clean_environment(**serving.profiled(folder / "none", preset="full"))
    environment.update(
        PYTHONPATH=str(site), VLLM_ENABLE_PROFILING="0", LD_PRELOAD=str(seam), CLOCK_SEAM=str(clock),
        XDG_STATE_HOME=str(folder / "state"),
    )  # fmt: skip
    try:
        memory = faulty.Group("memory")
    except OSError:
        memory = None
    before = ("sh", "-c", ENTER, str(memory.path)) if memory else ()
    arguments = ("--num-gpu-blocks-override", "60", "--block-size", "32", "--no-enable-prefix-caching")
    try:
        with (
            serving.Server(llama, folder / "server", environment, arguments, before=before) as server,
            clock.open("r+b") as file,
            mmap.mmap(file.fileno(), 16) as moved,
        ):
            yield World(server.wait_ready(), moved, site, memory)
    finally:
        if memory:
            memory.close()


@pytest.fixture
def serving_on(world):
    yield world
    for pid in world.everybody:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (4096, 4096))
    world.move_clock()
    world.stop()
    world.said_little()


def steps_of(session: Path, at_least: int) -> list[dict]:
    """Each with both halves, numbered without a gap."""
    steps = [step for step in results.native(session, "steps") if step["tokens"]]
    assert len(steps) >= at_least and all(step["matched"] for step in steps)
    numbers = [step["step"] for step in results.native(session, "steps")]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return steps


def test_a_disk_without_room(serving_on, tmp_path):
    with faulty.tmpfs(tmp_path / "small", "size=6m") as place:
        session = serving_on.start(place, "max_mb=512")
        until(lambda: len(results.native(session, "steps")) > 10)
        faulty.fill(place)
        serving_on.server.complete_all(workload(seed=3, requests=20), concurrency=8)
        serving_on.as_before()
        serving_on.stop()
        assert len(results.native(session, "steps")) > 10
        assert "found the disk full" in results.profilemate("doctor", session, check=False).stdout


def test_its_folder_is_deleted(serving_on, tmp_path):
    session = serving_on.start(tmp_path / "deleted")
    shutil.rmtree(session.parent)
    serving_on.server.complete_all(workload(seed=4, requests=20), concurrency=8)
    serving_on.as_before()
    assert not session.exists()


def test_its_folder_is_renamed(serving_on, tmp_path):
    session = serving_on.start(tmp_path / "renamed")
    before = len(results.native(session, "steps"))
    moved = session.parent / "session_20200101_000000"
    session.rename(moved)
    serving_on.as_before()
    serving_on.stop()
    steps_of(moved, before + 20)


def test_no_descriptor_is_left(serving_on, tmp_path):
    """The engine core and its workers may open nothing more, from the middle of a session on."""
    session = serving_on.start(tmp_path / "descriptors")
    for pid in serving_on.everybody[1:]:
        used = max(map(int, os.listdir(f"/proc/{pid}/fd"))) + 1
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, 4096))
    serving_on.as_before()
    serving_on.stop()
    steps_of(session, 20)


def test_everything_is_frozen_and_goes_on(serving_on, tmp_path):
    """As a container that is paused, or a virtual machine that is suspended for a while."""
    try:
        group = faulty.Group("freezer")
    except OSError as error:
        pytest.skip(f"no group of processes can be frozen here: {error}")
    session = serving_on.start(tmp_path / "frozen")
    try:
        for process in serving_on.server.processes():
            group.add(process.pid)
        with ThreadPoolExecutor(1) as pool:
            load = pool.submit(serving_on.server.complete, [7] * 20, 300)
            for _ in range(3):
                group.set("FROZEN" if group.version == 1 else "1")
                until(group.frozen)
                group.set("THAWED" if group.version == 1 else "0")
                until(lambda: not group.frozen())
            load.result()
        serving_on.as_before()
        serving_on.stop()
        steps_of(session, 20)
    finally:
        outside = group.path.parent / "cgroup.procs"
        for pid in (group.path / "cgroup.procs").read_text().split():
            outside.write_text(pid)
        group.close()


@pytest.mark.parametrize("hours", [-26, 3])
def test_the_wall_clock_is_stepped(serving_on, tmp_path, hours):
    session = serving_on.start(tmp_path / "stepped")
    first = len(results.native(session, "steps"))
    serving_on.move_clock(wall_ns=hours * HOUR_NS)
    serving_on.as_before()
    serving_on.stop()
    steps_of(session, first + 20)
    starts = [step["start_ns"] for step in results.native(session, "sched_step")]
    assert starts == sorted(starts) and starts[-1] - starts[0] < HOUR_NS, "times are not of the wall clock"


def test_the_machine_slept_for_hours(serving_on, tmp_path):
    """The clock that the profiler reads has gone on by hours, the processor's counter has not."""
    session = serving_on.start(tmp_path / "slept")
    first = results.native(session, "sched_step")
    serving_on.move_clock(ours_ns=5 * HOUR_NS)

    def noticed() -> bool:
        serving_on.as_before()
        steps = results.native(session, "sched_step")
        return steps[-1]["start_ns"] - first[0]["start_ns"] > 4 * HOUR_NS

    until(noticed, "five hours are not among its times")
    serving_on.stop()
    starts = [step["start_ns"] for step in results.native(session, "sched_step")]
    assert len(starts) > len(first) + 20 and starts == sorted(starts)


def test_sessions_of_older_releases_lie_around(serving_on, tmp_path):
    base = tmp_path / "sessions"  # which is what they are packed as
    for archive in sorted((serving.ROOT / "tests" / "cli" / "fixtures").glob("sessions-v*.tar.xz")):
        with tarfile.open(archive) as packed:
            packed.extractall(tmp_path, filter="data")
    for path in base.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    old = {path.name for path in base.iterdir()}
    assert old, "there are no sessions of older releases"
    session = serving_on.start(base)
    serving_on.stop()
    steps_of(session, 20)
    listed = results.profilemate("sessions", "--dir", base).stdout
    assert all(name in listed for name in (session.name, *old))


def test_uninstalled_while_it_runs(serving_on, tmp_path):
    """What is mapped stays, and can begin and end sessions as before."""
    first = serving_on.start(tmp_path / "before")
    shutil.rmtree(serving_on.site)
    serving_on.as_before()
    serving_on.stop()
    second = serving_on.start(tmp_path / "after")
    serving_on.stop()
    steps_of(first, 20), steps_of(second, 20)


# The way of Python profilers that were handed about before: a sitecustomize that wraps what it finds at import.
PYTHON_PROFILER = """
import atexit, importlib.abc, importlib.util, os, sys, time
calls = []
class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "vllm.v1.worker.gpu_model_runner":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            kind = module.GPUModelRunner
            real = kind.execute_model
            def execute_model(self, scheduler_output, *words, **named):
                began = time.perf_counter()
                try:
                    return real(self, scheduler_output, *words, **named)
                finally:
                    calls.append((scheduler_output.total_num_scheduled_tokens, time.perf_counter() - began))
            kind.execute_model = execute_model
        spec.loader.exec_module = exec_module
        return spec
sys.meta_path.insert(0, Finder())
@atexit.register
def told():
    if calls:
        with open(os.environ["TOLD"], "w") as file:
            print(*(tokens for tokens, _ in calls), file=file)
"""


def test_three_profilers_at_once(world, llama, tmp_path):
    """A Python profiler of that kind and cProfile in the process of an LLM() script: each sees every step, the answers
    are the server's, and ours has what the others have."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "sitecustomize.py").write_text(PYTHON_PROFILER)
    environment = serving.clean_environment(**serving.profiled(tmp_path / "sessions", preset="full"))
    environment["PYTHONPATH"] += os.pathsep + str(tmp_path / "other")
    environment.update(VLLM_ENABLE_V1_MULTIPROCESSING="0", TOLD=str(tmp_path / "told"))
    options = {"enforce_eager": True, "num_gpu_blocks_override": 60, "block_size": 32, "enable_prefix_caching": False}
    spec = {"model": str(llama), "options": options, "batches": [[request] for request in PROMPTS]}
    words = (sys.executable, "-m", "cProfile", "-o", tmp_path / "profile", serving.HERE / "offline.py", json.dumps(spec))
    done = subprocess.run(list(map(str, words)), env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    assert [tokens for batch in json.loads(line.removeprefix("RESULT "))["tokens"] for tokens in batch] == world.before
    steps = results.native(results.only_session(tmp_path / "sessions"), "steps")
    executed = [step["tokens"] for step in steps if step["has_worker"]]
    told = list(map(int, (tmp_path / "told").read_text().split()))
    assert [tokens for tokens in told if tokens][-len(executed) :] == [tokens for tokens in executed if tokens]
    profile = pstats.Stats(str(tmp_path / "profile")).stats
    (schedules,) = [row[0] for (file, _, name), row in profile.items() if name == "schedule" and "sched/scheduler" in file]
    assert schedules == len(steps)


def test_the_kernel_kills_the_engine_for_memory(world, tmp_path):
    """The last one: the group of the server has no memory left, and the engine core is whom the kernel takes."""
    if world.memory is None:
        pytest.skip("no control group can limit memory here")
    session = world.start(tmp_path / "killed")
    before = len(results.native(session, "steps"))
    world.as_before()
    Path(f"/proc/{world.engine}/oom_score_adj").write_text("1000")
    world.memory.set(str(world.memory.usage() + (64 << 20)))
    hog = "import time\nheld = []\nwhile True: held.append(b'x' * (4 << 20)); time.sleep(0.002)"
    words = ("sh", "-c", ENTER, str(world.memory.path), sys.executable, "-c", hog)
    with subprocess.Popen(words, start_new_session=True) as eater:
        try:
            until(lambda: not Path(f"/proc/{world.engine}").exists() or b"Z" in
                  Path(f"/proc/{world.engine}/stat").read_bytes().rsplit(b") ", 1)[1][:1], "the kernel lets it live")  # fmt: skip
        finally:
            eater.send_signal(signal.SIGKILL)
    world.server.popen.wait(180)
    world.server.wait_gone(180)
    steps_of(session, before + 20)
    assert "killed" in results.profilemate("report", "--text", session).stdout
    story = results.profilemate("postmortem", session, check=False).stdout
    assert "memory" in story, story
