"""A session's life: nothing until the first engine, one directory for all processes, the console, the end."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import time

import pytest

import fake

ON = {"VLLM_ENABLE_PROFILING": "1"}
FRONT_END = """
from vllm.engine.arg_utils import EngineArgs
config = EngineArgs().create_engine_config()
"""
ENGINE = """
from vllm.v1.engine.core import EngineCore
EngineCore(config)
"""
WORKER = """
from vllm.v1.worker.gpu_worker import Worker
Worker(config, 0, 1, "tcp://", is_driver_worker=True)
"""
BANNER = """\
[sitecustomize] vLLM Comprehensive Instrumentation Loaded
  Session ID: {name}
  Output directory: {directory}
  CUDA graph tracking: True
  KV cache tracking: True
  MoE expert tracking: auto
  Forward pass timing: True
  CUDA Events mode: False (CPU: wall clock)
  CPU timing: True
  Batch utilization tracking: True
  Preemption tracking: True
  Encoder-decoder timing: True
"""


@pytest.fixture(params=fake.PYTHONS)
def python(request):
    return fake.PYTHONS[request.param]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return fake.write(tmp_path_factory.mktemp("package"), fake.FILES)


@pytest.fixture
def serve(package, tmp_path):
    """Runs a script with the profiler on; the end of a session is somebody else's (PROFILEMATE_RUN)."""

    def run(script, python=fake.PYTHON, site=fake.SITE, check=True, finish=False, arguments=(), **extra):
        env = fake.environment(tmp_path, site, package, **{**ON, **extra})
        done = fake.run(python, ["-c", script, *arguments], env, tmp_path, check=check)
        if not finish:
            done.stderr = "".join(line for line in done.stderr.splitlines(True) if "files are written by" not in line)
        return done

    return run


def the_session(base):
    found = fake.sessions(base)
    assert len(found) == 1, found
    return found[0]


# ---- birth ----


@pytest.mark.parametrize(
    "script",
    ["pass", "import vllm", "import vllm.engine.arg_utils, vllm.v1.engine.core, vllm.v1.worker.gpu_worker",
     "import sitecustomize; sitecustomize.register(); sitecustomize.ProfilingConfig"],
)  # fmt: skip
def test_nothing_is_made_before_the_first_engine(serve, tmp_path, script):
    done = serve(script)
    assert done.stdout == done.stderr == "" and not (tmp_path / "sessions").exists()


def test_the_first_engine_configuration_gives_birth(serve, tmp_path, python):
    done = serve(FRONT_END, python)
    session = the_session(tmp_path)
    assert re.fullmatch(r"session_\d{8}_\d{6}", session.name)
    assert done.stdout == ""
    assert done.stderr == BANNER.format(name=session.name.removeprefix("session_"), directory=session)
    assert stat.S_IMODE(session.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in session.rglob("*") if path.is_file())
    [record] = fake.records(session)
    assert record.roles == 1 and (record.engine, record.rank) == (-1, -1)


def test_attributes_of_a_front_end(serve, tmp_path, python):
    serve(FRONT_END.replace("EngineArgs()", "type('A', (EngineArgs,), {'model': 'https://u:p@h.example/m?key=1'})()"),
          python, arguments=["--model", "m", "--api-key", "secret"])  # fmt: skip
    [record] = fake.records(the_session(tmp_path))
    found = record.attributes
    expected = {
        "entry": "pythonpath", "extension": str(fake.EXTENSION), "version.vllm": "0.32.0",
        "model": "https://h.example/m", "device": "cpu", "instance_id": "abc123",
        "config.max_num_seqs": "4", "config.max_num_batched_tokens": "64", "config.max_model_len": "128",
        "config.gpu_memory_utilization": "0.5", "config.enforce_eager": "1", "config.async_scheduling": "0",
        "config.dtype": "float32", "parallel.tensor": "1", "parallel.data_rank": "0",
        "setting.preset": "full", "setting.log_interval": "100", "setting.moe": "auto", "setting.mode": "0600",
        "hook.vllm.engine.arg_utils:EngineArgs.create_engine_config": "patched",
        "hook.vllm.platforms.interface:Platform.validate_environ": "patched",
        "probe.session": "on", "probe.environ": "on",
    }  # fmt: skip
    assert {key: found.get(key) for key in expected} == expected
    assert int(found["fired.vllm.engine.arg_utils:EngineArgs.create_engine_config"]) > 0
    assert "config.num_gpu_blocks" not in found and "version.torch" not in found
    assert "secret" not in found["command"] and "--api-key ***" in found["command"]
    assert found["version.python"] == python_version(python)


def python_version(python):
    return subprocess.run([python, "-c", "import platform; print(platform.python_version())"],
                          capture_output=True, text=True).stdout.strip()  # fmt: skip


def test_metadata_is_there_from_the_beginning(serve, tmp_path):
    serve(FRONT_END + "\nimport os; os._exit(0)", VLLM_PROFILING_LOG_INTERVAL="7")
    session = the_session(tmp_path)
    metadata = json.loads((session / "metadata.json").read_text())
    assert metadata["session_id"] == session.name and metadata["preset"] == "full" and metadata["end"] is None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", metadata["start"])
    assert metadata["versions"]["vllm"] == "0.32.0" and metadata["host"] == os.uname().nodename
    assert metadata["settings"]["log_interval"] == 7 and metadata["settings"]["kv_cache"] is True


def test_one_process_that_is_everything_has_one_file(serve, tmp_path, python):
    serve(FRONT_END + ENGINE + WORKER, python)
    [record] = fake.records(the_session(tmp_path))
    assert (record.roles, record.engine, record.rank) == (7, 0, 1)
    assert record.attributes["config.num_gpu_blocks"] == "77"


def test_children_join_and_print_no_second_banner(serve, tmp_path, python):
    script = FRONT_END + f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {FRONT_END + ENGINE!r}], check=True)
subprocess.run([sys.executable, "-c", {FRONT_END + WORKER!r}], check=True)
"""
    done = serve(script, python)
    assert done.stderr.count("Instrumentation Loaded") == 1
    records = fake.records(the_session(tmp_path))
    assert sorted(record.roles for record in records) == [1, 3, 5]
    assert len({record.pid for record in records}) == 3


def test_forked_children_record_for_themselves(serve, tmp_path, python):
    script = FRONT_END + f"""
import os
for code in ({ENGINE!r}, {WORKER!r}, "pass"):
    child = os.fork()
    if child == 0:
        exec(code)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""
    done = serve(script, python)
    assert done.stderr.count("Instrumentation Loaded") == 1
    records = fake.records(the_session(tmp_path))
    assert sorted(record.roles for record in records) == [1, 2, 4], "the third child had nothing to say"
    assert all(record.attributes["model"] == "tiny" for record in records)


def test_a_fork_before_the_birth(serve, tmp_path, python):
    """The child gives birth, the parent joins: one directory, one banner."""
    done = serve(f"""
import os
child = os.fork()
if child == 0:
    exec({FRONT_END + ENGINE!r})
    os._exit(0)
os.waitpid(child, 0)
{FRONT_END}
""", python)  # fmt: skip
    assert done.stderr.count("Instrumentation Loaded") == 1
    assert sorted(record.roles for record in fake.records(the_session(tmp_path))) == [1, 3]


def test_servers_started_at_once_have_a_session_each(package, tmp_path):
    env = fake.environment(tmp_path, fake.SITE, package, **ON)
    servers = [
        subprocess.Popen([fake.PYTHON, "-c", FRONT_END], env=env, cwd=tmp_path, stderr=subprocess.DEVNULL)
        for _ in range(6)
    ]
    assert [server.wait(180) for server in servers] == [0] * 6
    found = fake.sessions(tmp_path)
    assert len(found) == 6 and len({fake.session_token(session) for session in found}) == 6


def test_the_file_mode_is_the_settings(serve, tmp_path):
    serve(FRONT_END, VLLM_PROFILING_MODE="0640")
    session = the_session(tmp_path)
    assert stat.S_IMODE((session / "metadata.json").stat().st_mode) == 0o640
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o640 for path in session.glob("records/*.pmrec"))


# ---- the console ----


def test_simple_preset(serve, tmp_path, python):
    for extra in ({"site": fake.SITE / "simple"}, {"VLLM_PROFILING_PRESET": "simple"}, {"PROFILEMATE_PRESET": "simple"}):
        done = serve(FRONT_END + WORKER, python, **extra)
        session = the_session(tmp_path)
        assert done.stderr == (
            "[Simple Profiler] Forward pass timing enabled\n"
            f"  Session ID: {session.name.removeprefix('session_')}\n"
            f"  Output directory: {session}\n"
            "[Simple Profiler] ✅ Successfully patched GPUModelRunner.execute_model\n"
        )
        [record] = fake.records(session)
        assert record.attributes["setting.preset"] == "simple"
        shutil.rmtree(session)


def test_a_named_preset_beats_the_folder(serve, tmp_path):
    assert "Comprehensive" in serve(FRONT_END, site=fake.SITE / "simple", VLLM_PROFILING_PRESET="full").stderr


PATCHED = "[Instrumentation] ✅ Successfully patched GPUModelRunner.execute_model"


@pytest.mark.parametrize(("verbose", "times"), [("0", 1), ("1", 4)])
def test_a_hook_is_announced_once_in_a_session(serve, tmp_path, verbose, times):
    script = FRONT_END + f"""
import subprocess, sys
children = [subprocess.Popen([sys.executable, "-c", {FRONT_END + WORKER!r}]) for _ in range(3)]
assert [child.wait() for child in children] == [0, 0, 0]
{WORKER}
"""
    done = serve(script, VLLM_PROFILING_VERBOSE=verbose)
    assert done.stderr.count(PATCHED) == times
    assert done.stderr.splitlines()[0].startswith("[sitecustomize]")


def test_a_probe_that_is_off_leaves_the_original(serve, tmp_path):
    script = FRONT_END + WORKER + "print(type(vars(Worker)['execute_model']).__name__)"
    assert serve(script).stdout.strip() != "function"
    off = {f"VLLM_PROFILING_ENABLE_{name}": "0" for name in
           ("FORWARD_PASS_TIMING", "CPU_TIMING", "BATCH_UTILIZATION_TRACKING", "PREEMPTION_TRACKING",
            "CUDA_GRAPH_TRACKING")}  # fmt: skip
    shutil.rmtree(tmp_path / "sessions")
    done = serve(script, **off)
    [record] = fake.records(the_session(tmp_path))
    if record.attributes["probe.worker_step"] == "off":
        assert done.stdout.strip() == "function" and PATCHED not in done.stderr
        assert record.attributes["hook.vllm.v1.worker.gpu_worker:Worker.execute_model"] == "off"
    assert "Forward pass timing: False" in done.stderr


def test_bad_values_warn_once_and_fall_back(serve, tmp_path, python):
    script = FRONT_END + f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {FRONT_END + ENGINE!r}], check=True)
"""
    done = serve(script, python, VLLM_PROFILING_LOG_INTERVAL="often", VLLM_PROFILING_PRESET="fast",
                 PROFILEMATE_ENABLE="perhaps")  # fmt: skip
    warnings = [line for line in done.stderr.splitlines() if line.startswith("[ProfileMate]")]
    assert [re.search(r"(VLLM|PROFILEMATE)_\w+", line).group() for line in warnings] == [
        "VLLM_PROFILING_LOG_INTERVAL", "VLLM_PROFILING_PRESET", "PROFILEMATE_ENABLE",
    ] or len(warnings) == 3  # fmt: skip
    assert "often" in done.stderr and "fast" in done.stderr and "perhaps" in done.stderr


def test_bad_values_say_nothing_where_there_is_no_engine(serve):
    assert serve("pass", VLLM_PROFILING_LOG_INTERVAL="often").stderr == ""


# ---- when the disk will not have it ----


def test_an_unwritable_folder_falls_back_in_one_line(serve, tmp_path):
    (tmp_path / "sessions").write_text("a file")
    done = serve(FRONT_END, XDG_STATE_HOME=str(tmp_path / "state"))
    lines = [line for line in done.stderr.splitlines() if line.startswith("[ProfileMate]")]
    [session] = (tmp_path / "state" / "profilemate").glob("session_*")
    assert len(lines) == 1 and str(session) in lines[0] and str(tmp_path / "sessions") in lines[0]
    assert f"  Output directory: {session}" in done.stderr


def test_no_place_at_all_is_one_line_and_vllm_goes_on(serve, tmp_path):
    (tmp_path / "sessions").write_text("a file")
    (tmp_path / "sessions-0").write_text("a file")
    (tmp_path / f"sessions-{os.getuid()}").write_text("a file")
    blocked = {"XDG_STATE_HOME": str(tmp_path / "sessions" / "x"), "HOME": str(tmp_path / "sessions" / "y")}
    script = FRONT_END + ENGINE + WORKER + "EngineArgs().create_engine_config(); print('served')"
    done = serve(script, **blocked)
    assert done.stdout == "served\n" and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("[ProfileMate] no place for a session: ")


def test_a_directory_that_goes_away(serve, tmp_path, python):
    done = serve(FRONT_END + f"""
import os, shutil
shutil.rmtree({str(tmp_path / "sessions")!r})
child = os.fork()
if child == 0:
    {ENGINE.replace(chr(10), chr(10) + "    ")}
    os._exit(0)
print(os.waitpid(child, 0)[1])
""", python)  # fmt: skip
    assert done.stdout == "0\n" and "Traceback" not in done.stderr


# ---- the end ----

PROGRAM = """\
#!/bin/sh
read -r pid name state parent group sid rest < /proc/$$/stat
echo "$pid $parent $sid $*" >> {log}
{more}
"""


@pytest.fixture
def installed(tmp_path):
    """A copy of the extension with a program of ours in the place of the real one."""

    def make(more="", site="site"):
        folder = tmp_path / "build" / site
        folder.mkdir(parents=True)
        shutil.copy(fake.EXTENSION, folder)
        program = tmp_path / "build" / "bin" / "profilemate"
        program.parent.mkdir(parents=True)
        program.write_text(PROGRAM.format(log=tmp_path / "log", more=more))
        program.chmod(0o755)
        return folder

    return make


def log(base):
    path = base / "log"
    return [line.split(maxsplit=3) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize("site", ["site", "site/simple", "lib/python3.12/site-packages/profilemate/site/simple"])
def test_the_root_writes_the_files_at_its_end(serve, tmp_path, python, installed, site):
    script = FRONT_END + f"""
import os, subprocess, sys
subprocess.run([sys.executable, "-c", {FRONT_END + ENGINE!r}], check=True)
if os.fork() == 0:
    exec({WORKER!r})
    sys.exit(0)
os.wait()
print(os.getpid())
"""
    done = serve(script, python, site=installed(site=site), finish=True)
    [(pid, parent, sid, arguments)] = log(tmp_path)
    assert parent == done.stdout.strip(), "the root, and nobody else"
    assert sid == pid, "in a session of its own: Ctrl+C must not reach it"
    assert arguments == f"export {the_session(tmp_path)}"
    assert "[ProfileMate]" not in done.stderr


@pytest.mark.parametrize("end", ["import sys; sys.exit(3)", "raise RuntimeError", "import os, signal; "
                                 "signal.signal(signal.SIGTERM, lambda *_: exit(3)); os.kill(os.getpid(), 15)"])  # fmt: skip
def test_however_the_root_ends(serve, tmp_path, installed, end):
    done = serve(FRONT_END + end, site=installed(), check=False)
    assert done.returncode in (1, 3) and len(log(tmp_path)) == 1


def test_ctrl_c(serve, package, tmp_path, installed):
    env = fake.environment(tmp_path, installed(), package, **ON)
    server = subprocess.Popen([fake.PYTHON, "-c", FRONT_END + "print(1, flush=True)\nimport time; time.sleep(3600)"],
                              env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)  # fmt: skip
    assert server.stdout.readline() == b"1\n"
    os.killpg(server.pid, signal.SIGINT)
    server.communicate(timeout=180)
    assert len(log(tmp_path)) == 1


def test_no_engine_no_export(serve, tmp_path, installed):
    serve("import vllm.engine.arg_utils", site=installed())
    assert log(tmp_path) == []


def test_a_root_that_only_started_others(serve, tmp_path, installed):
    """torchrun: the parent never has an engine, its children have."""
    serve(f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {FRONT_END!r}], check=True)
""", site=installed())  # fmt: skip
    assert [arguments for *_, arguments in log(tmp_path)] == [f"export {the_session(tmp_path)}"]


def test_a_slow_export_is_left_running(serve, tmp_path, installed):
    """The program waits for a file that is made only after the server has ended."""
    release = tmp_path / "release"
    site = installed(more=f"while [ ! -e {release} ]; do sleep 0.1; done; echo done >> {tmp_path / 'finished'}")
    done = serve(FRONT_END, site=site, finish=True)
    session = the_session(tmp_path)
    last = done.stderr.splitlines()[-1]
    assert last == (f"[ProfileMate] still writing the files of this session; to repeat it: "
                    f"{tmp_path / 'build/bin/profilemate'} export {session}")  # fmt: skip
    assert not (tmp_path / "finished").exists()
    release.touch()
    deadline = time.monotonic() + 180
    while not (tmp_path / "finished").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (tmp_path / "finished").exists(), "it must outlive the server"


def test_an_export_that_fails_says_how_to_repeat_it(serve, tmp_path, installed):
    done = serve(FRONT_END, site=installed(more="exit 1"), finish=True)
    assert done.stderr.splitlines()[-1].startswith("[ProfileMate] the files of this session could not be written")


def run_token(pid="os.getpid()"):
    return f"""f"session_20260101_000000:{'ab' * 16}:1:1:{{{pid}}}" """


def test_under_run_the_program_is_not_started_again(serve, tmp_path, installed):
    """`profilemate run` makes the session up with its child as root, and completes it itself."""
    site = installed()
    serve(f"""
import os, sys
os.environ.update(VLLM_PROFILING_SESSION={run_token()}, PROFILEMATE_RUN="1")
os.execv(sys.executable, [sys.executable, "-c", {FRONT_END!r}])
""", site=site)  # fmt: skip
    assert fake.session_token(the_session(tmp_path)) == "ab" * 16 and log(tmp_path) == []


def test_under_run_the_first_server_is_the_one_that_was_meant(package, tmp_path, installed):
    """`profilemate run -- uv run vllm serve`: the server is a grandchild. A second one has a session of its own, which
    it completes itself."""
    fake.write(tmp_path, {"bin/vllm": FRONT_END})
    token = f"session_20260101_000000:{'ab' * 16}:1:1:{os.getpid()}"
    env = fake.environment(tmp_path, installed(), package, VLLM_PROFILING_SESSION=token, PROFILEMATE_RUN="1", **ON)
    for servers in (1, 2):
        subprocess.run([fake.PYTHON, tmp_path / "bin/vllm", "serve", "m"], env=env, check=True, capture_output=True)
        found = fake.sessions(tmp_path)
        assert len(found) == servers and found[0].name == "session_20260101_000000"
        assert len(log(tmp_path)) == servers - 1
    assert fake.session_token(found[0]) == "ab" * 16 != fake.session_token(found[1])


def test_a_program_of_another_user_is_not_started(serve, tmp_path, installed):
    """A folder above the extension may be one where everybody can write."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    site = installed()
    os.chown(tmp_path / "build" / "bin" / "profilemate", 12345, 12345)
    assert "files are written by" in serve(FRONT_END, site=site, finish=True).stderr and log(tmp_path) == []


def test_without_the_program_the_line_says_what_to_do(serve, tmp_path, installed):
    site = installed()
    shutil.rmtree(tmp_path / "build" / "bin")
    done = serve(FRONT_END, site=site, finish=True)
    assert done.stderr.splitlines()[-1] == (
        f"[ProfileMate] this session's files are written by: profilemate export {the_session(tmp_path)}"
    )


def test_the_recorder_is_closed_at_a_normal_end(serve, tmp_path, python):
    serve(FRONT_END + ENGINE, python)
    [record] = fake.records(the_session(tmp_path))
    assert record.state & 1, "PM_STATE_CLOSED"



def test_hooks_during_the_interpreters_end(serve, tmp_path, python):
    """A hooked method called by atexit, by a daemon thread and by the last destructors: nothing but its result."""
    done = serve(FRONT_END + """
import atexit, sys, threading, time
class Last:
    def __init__(self, method):
        self.method = method
    def __del__(self):
        self.method()
atexit.register(EngineArgs().create_engine_config)
keep = Last(EngineArgs().create_engine_config)
sys.keep = Last(EngineArgs().create_engine_config)
def forever():
    while True:
        EngineArgs().create_engine_config()
threading.Thread(target=forever, daemon=True).start()
time.sleep(0.01)
""", python)  # fmt: skip
    assert "Traceback" not in done.stderr and "Fatal" not in done.stderr
    assert len(fake.records(the_session(tmp_path))) == 1
