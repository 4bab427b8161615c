"""What may go wrong around a process that is profiled: it goes on as it would without us, and says nothing of ours.

docs/FAULTS.md has the whole list; those of the disk are in tests/unit/test_recorder_disk.c, those of a hook's inside in
test_guard.py and test_read.py, kills in tests/unit/test_kill.c and tests/e2e/test_kill.py.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import fake
from test_session import ENGINE, FRONT_END, WORKER, package, python, serve, the_session  # noqa: F401

# A sanitizer's runtime needs memory, files and threads of its own, and looks into others' code.
UNLIMITED = pytest.mark.skipif("PM_SANITIZED" in os.environ, reason="a sanitizer does not survive it")
INDENTED = "\n    ".join(ENGINE.splitlines())


def test_uninstalled_while_it_runs(serve, tmp_path, python):  # noqa: F811
    """The extension's files go away under a running server: it goes on, and so do children of it, with it or without."""
    site = tmp_path / "installed"
    site.mkdir()
    shutil.copy(fake.EXTENSION, site)
    script = FRONT_END + f"""
import os, shutil, subprocess, sys
shutil.rmtree({str(site)!r})
{ENGINE}
child = os.fork()
if child == 0:
    {INDENTED}
    os._exit(0)
print(os.waitpid(child, 0)[1])
started = subprocess.run([sys.executable, "-c", "print('fine')"], capture_output=True, text=True)
print(started.stdout.strip(), started.stderr.count("Traceback"))
"""
    done = serve(script, python, site=site)
    assert done.stdout.split() == ["0", "fine", "0"] and "Traceback" not in done.stderr
    assert len(fake.records(the_session(tmp_path))) == 2


def test_an_upgrade_beside_a_running_server(serve, tmp_path, python):  # noqa: F811
    """pip puts a new file in the place of the old one: what is mapped stays, and what starts then loads the new one."""
    site = tmp_path / "installed"
    site.mkdir()
    shutil.copy(fake.EXTENSION, site)
    script = FRONT_END + f"""
import os, shutil, subprocess, sys
shutil.copy({str(fake.EXTENSION)!r}, {str(site / "new")!r})
os.replace({str(site / "new")!r}, {str(site / fake.EXTENSION.name)!r})
worker = '''{FRONT_END}{WORKER}'''
print(subprocess.run([sys.executable, "-c", worker], capture_output=True, text=True).returncode)
{ENGINE}
"""
    done = serve(script, python, site=site)
    assert done.stdout.split() == ["0"] and "Traceback" not in done.stderr
    assert len(fake.records(the_session(tmp_path))) == 2


LIMITS = """
import os, resource
kind, spare = {kind}, {spare}
if kind == resource.RLIMIT_NOFILE:
    spare = max(int(name) for name in os.listdir("/proc/self/fd")) + 1
resource.setrlimit(kind, (spare, resource.getrlimit(kind)[1]))
"""


@UNLIMITED
@pytest.mark.parametrize("kind", ["FSIZE", "NOFILE", "NPROC"])
def test_limits_that_leave_no_room(serve, tmp_path, kind):  # noqa: F811
    """No byte may be written, no file opened, no thread started: vLLM goes on, and what cannot be recorded is said once."""
    limits = LIMITS.format(kind=f"resource.RLIMIT_{kind}", spare=0)
    imports = "import vllm.engine.arg_utils, vllm.v1.engine.core, vllm.v1.worker.gpu_worker, encodings.idna\n"
    done = serve(imports + limits + FRONT_END + ENGINE + WORKER + "print(config.model_config.model)")
    assert done.stdout == "tiny\n", done.stderr
    assert "Traceback" not in done.stderr
    ours = [line for line in done.stderr.splitlines() if "not be" in line or "cannot" in line or "no session" in line]
    assert len(ours) <= 1, done.stderr


HOSTILE = '''
class Hostile:
    """Whatever is asked of it: raises, lies about its type, or answers with more of itself."""
    def __init__(self, kind): object.__setattr__(self, "kind", kind)
    def __getattribute__(self, name):
        kind = object.__getattribute__(self, "kind")
        if name in ("kind", "__class__", "__dict__"): return object.__getattribute__(self, name)
        if kind == "raises": raise ValueError("hostile " + name)
        if kind == "recurses": return getattr(Hostile("recurses"), name)
        if kind == "itself": return self
        return {"none": None, "text": "nine", "huge": 10 ** 400, "negative": -(1 << 70), "bytes": b"\\xff" * 9,
                "surrogate": "\\udc80" * 300, "nan": float("nan"), "list": [[]] * 3, "class": int}[kind]
    def __len__(self): return 1 << 62
    def __iter__(self): raise RuntimeError("iterated")
    def __bool__(self): raise RuntimeError("asked for truth")
    def __index__(self): raise OverflowError("asked for a number")
    def __str__(self): raise UnicodeError("asked for a text")
    __repr__ = __str__
    def __eq__(self, other): raise RuntimeError("compared")
    __hash__ = None
KINDS = ("raises", "recurses", "itself", "none", "text", "huge", "negative", "bytes", "surrogate",
         "nan", "list", "class")
'''
HOSTILE_CONFIGS = """
from types import SimpleNamespace as N
import vllm.engine.arg_utils as arg_utils
import vllm.v1.engine.core as core
import vllm.v1.worker.gpu_worker as gpu_worker
real = arg_utils.EngineArgs.create_engine_config
parts = ("model_config", "scheduler_config", "cache_config", "parallel_config", "device_config", "instance_id")
made = 0
for kind in KINDS:
    for part in (*parts, None):
        config = arg_utils.EngineArgs().create_engine_config()
        if part is None:
            config = Hostile(kind)
        else:
            setattr(config, part, Hostile(kind))
        try:
            core.EngineCore(config)
        except BaseException as error:
            print(kind, part, type(error).__name__)
        try:
            gpu_worker.Worker(config, Hostile(kind), Hostile(kind), Hostile(kind)).execute_model(Hostile(kind))
        except BaseException as error:
            print(kind, part, "worker", type(error).__name__)
        made += 1
print(made)
"""


def test_hostile_objects_everywhere(serve, tmp_path, python):  # noqa: F811
    """Every part of a configuration, and the whole of it: what vLLM does with it is what it does without us.

    (What is no Exception, such as KeyboardInterrupt, is not among what they raise: signal handlers raise that wherever
    the interpreter stands, so it reaches the program, from our reading too: test_guard.py.)"""
    script = HOSTILE + HOSTILE_CONFIGS
    alone = serve(script, python, VLLM_ENABLE_PROFILING="0")
    assert alone.stdout.endswith(f"{12 * 7}\n")
    done = serve(script, python)
    assert done.stdout == alone.stdout
    assert "hostile " not in done.stderr and "Traceback" not in done.stderr


def test_threads_collections_and_tracers_at_once(serve, tmp_path, python):  # noqa: F811
    """Engines made from many threads, with the collector at every allocation and a tracer and a profiler on."""
    done = serve(FRONT_END + """
import cProfile, gc, sys, threading
from vllm.v1.engine.core import EngineCore
from vllm.v1.worker.gpu_worker import Worker
gc.set_threshold(1, 1, 1)
gc.callbacks.append(lambda phase, info: None)
seen = []
sys.settrace(lambda frame, event, arg: None)
threading.settrace(lambda frame, event, arg: None)
threading.setprofile(lambda frame, event, arg: seen.append(frame.f_code.co_name) if event == "call" else None)
profile = cProfile.Profile() if sys.version_info < (3, 12) else None
start, failed = threading.Barrier(8), []
def work():
    try:
        start.wait(timeout=600)
        for n in range(30):
            EngineCore(config)
            Worker(config, 0, n, "tcp://").execute_model(None)
    except BaseException as error:
        failed.append(error)
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
threading.setprofile(None); sys.settrace(None)
gc.set_threshold(700, 10, 10); gc.collect()
print(failed, seen.count("execute_model"), sys.gettrace(), threading.active_count())
""", python)  # fmt: skip
    assert done.stdout == "[] 240 None 1\n" and "Traceback" not in done.stderr
    (found,) = fake.records(the_session(tmp_path))
    assert not [key for key, value in found.attributes.items() if "disarmed" in value]


@UNLIMITED
@pytest.mark.parametrize("functions", ["", "all"])
def test_beside_viztracer(serve, package, tmp_path, functions):  # noqa: F811
    """It sees every call, hooked or not; so do our hooks; function tracing says that it cannot share the place."""
    pytest.importorskip("viztracer", reason="viztracer is not installed")
    script = tmp_path / "script.py"
    script.write_text(FRONT_END + ENGINE + WORKER + 'work = Worker(config, 0, 0, "t")\n' + "work.execute_model(None)\n" * 50)
    env = fake.environment(tmp_path, fake.SITE, package, VLLM_ENABLE_PROFILING="1", VLLM_TRACE_FUNCTION=functions)
    out = tmp_path / "out.json"
    done = fake.run(sys.executable, ["-m", "viztracer", "--quiet", "-o", str(out), str(script)], env, tmp_path)
    assert "Traceback" not in done.stderr
    assert sum(event["name"].startswith("Worker.execute_model") or "execute_model (" in event["name"]
               for event in json.loads(out.read_text())["traceEvents"]) == 50  # fmt: skip
    (found,) = fake.records(the_session(tmp_path))
    assert found.attributes["probe.worker_step"] == "on"
    note = found.attributes.get("note.functions", "")
    assert (functions == "") == (note == "") or sys.version_info >= (3, 12)


EVERY_EXCEPTION = """
import builtins
from vllm.v1.worker.gpu_worker import Worker
kinds = [kind for kind in vars(builtins).values() if isinstance(kind, type) and issubclass(kind, BaseException)]
worker = Worker(config, 0, 0, "tcp://")
class Own(BaseException): pass
for kind in (*kinds, Own):
    try:
        made = kind("utf-8", b"", 0, 1, "why") if kind is UnicodeDecodeError else (
            kind("utf-8", "", 0, 1, "why") if kind is UnicodeEncodeError else (
            kind("", 0, 1, "why") if kind is UnicodeTranslateError else (
            kind("many", [ValueError(1)]) if "Group" in kind.__name__ else kind("why"))))
    except TypeError:
        continue
    class Output:
        def __getattribute__(self, name): raise made
    def raising(self, scheduler_output): raise made
    try:
        worker.execute_model(made)
    except BaseException as error:
        print("raised", type(error))
    try:
        Failing(made)
    except BaseException as error:
        print(kind.__name__, error is made, len(error.args), error.__context__, error.__cause__)
"""


def test_exceptions_of_every_type_pass_through(package, tmp_path, python):  # noqa: F811
    """Out of a hooked constructor: the very object, with nothing hung on to it."""
    files = dict(fake.FILES)
    files["vllm/v1/engine/core.py"] = (
        "class EngineCore:\n    def __init__(self, vllm_config, executor_class=None, log_stats=False):\n"
        "        if isinstance(vllm_config, BaseException):\n            raise vllm_config\n"
    )
    folder = fake.write(tmp_path / "raising", files)
    script = FRONT_END + "from vllm.v1.engine.core import EngineCore as Failing\n" + EVERY_EXCEPTION
    shown = []
    for switch in ("1", "0"):
        env = fake.environment(tmp_path, fake.SITE, folder, VLLM_ENABLE_PROFILING=switch)
        shown.append(fake.run(python, ["-c", script], env, tmp_path))
    assert shown[0].stdout == shown[1].stdout
    lines = shown[0].stdout.splitlines()
    assert len(lines) > 60 and all(line.split()[1:2] == ["True"] and line.endswith("None None") for line in lines)
    assert "Traceback" not in shown[0].stderr


def memory_group() -> Path:
    """A new cgroup whose processes share 160 MB, of either version of cgroups."""
    for root, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(root) / f"profilemate-test-{os.getpid()}"
        if not (Path(root) / "cgroup.procs").exists():
            continue  # no hierarchy is mounted there
        try:
            group.mkdir()
        except OSError as error:
            pytest.skip(f"no cgroup can be made here: {error}")
        try:
            with open(group / limit, "r+") as file:  # which must be there: else memory is not limited in this hierarchy
                file.write(str(160 << 20))
            return group
        except OSError as error:
            group.rmdir()
            why = error
            continue
    pytest.skip(f"no cgroup can limit memory here: {why}" if "why" in locals() else "no cgroups here")


@UNLIMITED
def test_the_kernel_kills_it_for_memory(serve, package, tmp_path):  # noqa: F811
    """In a cgroup of its own with little memory: what was recorded is there, as after SIGKILL."""
    group = memory_group()
    try:
        script = FRONT_END + ENGINE + f"""
import os, resource
resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31))  # should the group not hold it
with open({str(group / "cgroup.procs")!r}, "w") as procs: procs.write(str(os.getpid()))
print("in", flush=True)
hog = [bytearray(b"x" * (4 << 20)) for _ in range(128)]
print("alive", flush=True)
"""
        env = fake.environment(tmp_path, fake.SITE, package, VLLM_ENABLE_PROFILING="1")
        done = subprocess.run([fake.PYTHON, "-c", script], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=180)
        if done.stdout == "in\nalive\n":
            pytest.skip("the group's limit does not hold here")
        assert (done.returncode, done.stdout) == (-signal.SIGKILL, "in\n"), done.stderr
        (found,) = fake.records(the_session(tmp_path))
        assert found.attributes["model"] == "tiny"
    finally:
        group.rmdir()
