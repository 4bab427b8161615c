"""vLLM's check of environment names (0.17.0+): ours are no longer unknown, nothing else changes."""

import os
import subprocess
import sys

import pytest

import fake

OURS = {
    "VLLM_ENABLE_PROFILING": "1",
    "VLLM_PROFILING_VERBOSE": "0",
    "VLLM_PROFILING_ENABLE_KV_CACHE_TRACKING": "1",
    "VLLM_PROFILING_CUSTOM": "",
}


@pytest.fixture(params=fake.PYTHONS)
def python(request):
    return fake.PYTHONS[request.param]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return fake.write(tmp_path_factory.mktemp("package"), fake.FILES)


def run(python, base, script, package, *path, **extra):
    env = fake.environment(base, *(path or [fake.SITE]), package, **{**OURS, **extra})
    return fake.run(python, ["-c", script], env, base)


def test_our_names_are_hidden_and_the_rest_warns(python, package, tmp_path):
    done = run(python, tmp_path, """
import os
from vllm import envs
from vllm.platforms.interface import Platform, CpuPlatform
own, before, environ = envs.environment_variables, dict(envs.environment_variables), dict(os.environ)
for cls in (Platform, CpuPlatform, CpuPlatform()):
    print(cls.validate_environ(False), cls.validate_environ(hard_fail=False))
print(envs.environment_variables is own, own == before, dict(os.environ) == environ)
print("VLLM_PROFILING_SESSION" in os.environ)
""", package, VLLM_MISTYPED="1", VLLM_PROFILING_NO_SUCH="1")  # fmt: skip
    *lists, same, token = done.stdout.splitlines()
    for line in lists:
        names = set(line.replace("[", " ").replace("]", " ").replace("'", " ").replace(",", " ").split())
        assert names == {"VLLM_MISTYPED", "VLLM_PROFILING_NO_SUCH"}
    assert len(lists) == 3 and same == "True True True" and token == "True"


OLD_ENVS = """
    import os

    environment_variables = {"VLLM_KNOWN": lambda: 1}

    def validate_environ(hard_fail):
        unknown = [env for env in os.environ if env.startswith("VLLM_") and env not in environment_variables]
        if unknown and hard_fail:
            raise ValueError(f"Unknown vLLM environment variable detected: {unknown[0]}")
        return unknown
    """


def test_the_check_as_releases_before_0_31_have_it(python, tmp_path):
    package = fake.write(tmp_path, {**fake.FILES, "vllm/envs.py": OLD_ENVS})
    script = """
from vllm import envs
own = envs.environment_variables
print(envs.validate_environ(False), envs.validate_environ(hard_fail=False), envs.environment_variables is own)
try:
    envs.validate_environ(True)
except ValueError as error:
    print(error)
"""
    done = run(python, tmp_path, script, package, VLLM_MISTYPED="1")
    assert done.stdout.splitlines() == [
        "['VLLM_MISTYPED'] ['VLLM_MISTYPED'] True",
        "Unknown vLLM environment variable detected: VLLM_MISTYPED",
    ]
    assert run(python, tmp_path, "from vllm import envs\nprint(envs.validate_environ(True))", package).stdout.strip() == "[]"


def test_without_us_they_are_unknown(python, package, tmp_path):
    """The test above can fail: vLLM's own check knows nothing of these names."""
    script = "from vllm.platforms.interface import Platform\nprint(*Platform.validate_environ(False))"
    done = run(python, tmp_path, script, package, tmp_path)
    assert "VLLM_ENABLE_PROFILING" in done.stdout.split()


def test_hard_fail(python, package, tmp_path):
    done = run(python, tmp_path, """
import os
from vllm import envs
from vllm.platforms.interface import Platform
own = envs.environment_variables
print(Platform.validate_environ(True))
os.environ["VLLM_MISTYPED"] = "1"
try:
    Platform.validate_environ(True)
except ValueError as error:
    print(error)
print(envs.environment_variables is own)
""", package)  # fmt: skip
    assert done.stdout.splitlines() == ["[]", "Unknown vLLM environment variable detected: VLLM_MISTYPED", "True"]


def test_switched_off_a_server_still_starts(python, package, tmp_path):
    """The switch that turns us off is no unknown variable either; nothing else is hooked, nothing recorded."""
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "vllm"
    script.write_text("""
import os, sys
from vllm.platforms.interface import Platform
from vllm.engine.arg_utils import EngineArgs
from vllm.v1.worker.gpu_worker import Worker
print(Platform.validate_environ(True), hasattr(Platform.validate_environ, "__wrapped__"))
EngineArgs().create_engine_config()
print(hasattr(Worker.execute_model, "__wrapped__"), hasattr(EngineArgs.create_engine_config, "__wrapped__"))
print("VLLM_PROFILING_SESSION" in os.environ)
""")
    sessions = tmp_path / "sessions"
    env = fake.environment(tmp_path, fake.SITE, package, VLLM_ENABLE_PROFILING="0", VLLM_PROFILING_DIR=str(sessions))
    done = fake.run(python, [str(script), "serve", "model"], env, tmp_path)
    assert done.stdout.splitlines() == ["[] True", "False False", "False"] and done.stderr == ""
    assert not sessions.exists()
    done = fake.run(python, [str(script), "collect-env"], env, tmp_path, check=False)
    assert "VLLM_ENABLE_PROFILING" in done.stderr or "VLLM_PROFILING_DIR" in done.stderr, "no server: left alone"


def test_several_threads_at_once(python, tmp_path):
    """They overlap inside the call; the dictionary is vLLM's own again when the last one has left."""
    text = fake.FILES["vllm/platforms/interface.py"].replace("unknown = []", "unknown = []; meeting.wait()")
    package = fake.write(tmp_path, {**fake.FILES, "vllm/platforms/interface.py": "\n        import threading\n"
                                    "        meeting = threading.Barrier(4)\n" + text})  # fmt: skip
    done = run(python, tmp_path, """
import threading
from vllm import envs
from vllm.platforms.interface import Platform
own, seen = envs.environment_variables, []
def check():
    seen.append(Platform.validate_environ(False))
threads = [threading.Thread(target=check) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(seen, envs.environment_variables is own)
""", package)  # fmt: skip
    assert done.stdout.strip() == "[[], [], [], []] True"


@pytest.mark.parametrize("variables", ["None", "[]", "dict"], ids=str)
def test_a_dictionary_that_is_none(python, tmp_path, variables):
    """A vLLM that keeps its names differently: its check fails or passes as it does without us."""
    package = fake.write(tmp_path, {**fake.FILES, "vllm/envs.py": f"environment_variables = {variables}"})
    script = """
from vllm.platforms.interface import Platform
try:
    print(len(Platform.validate_environ(False)) > 0)
except TypeError as error:
    print(error)
"""
    ours = run(python, tmp_path, script, package)
    alone = run(python, tmp_path, script, package, tmp_path)
    assert ours.stdout == alone.stdout and ours.stderr == alone.stderr == ""


def test_real_vllm(tmp_path):
    """The class of the installed vLLM, in a process of its own."""
    pytest.importorskip("vllm")
    script = """
import os
from vllm import envs
from vllm.platforms import interface
warned = []
interface.logger.warning = lambda text, *args: warned.append(text % args)
own = envs.environment_variables
interface.Platform.validate_environ(False)
print(warned, envs.environment_variables is own, type(vars(interface.Platform)["validate_environ"]).__name__)
"""
    expected = {
        "1": "['Unknown vLLM environment variable detected: VLLM_MISTYPED'] True classmethod",
        "0": "VLLM_ENABLE_PROFILING",
    }
    for switch, text in expected.items():
        env = fake.environment(tmp_path, fake.SITE, VLLM_MISTYPED="1", VLLM_ENABLE_PROFILING=switch)
        done = subprocess.run([sys.executable, "-c", script], env=env, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert text in done.stdout
        assert os.environ.get("VLLM_PROFILING_SESSION") is None
