"""The gate in real processes: which commands are profiled, what children do, and that the rest is left in peace."""

import os
import subprocess

import pytest

import fake

# Says whether the import hook is there, and which session this process belongs to.
REPORT = """
import os, sys
finder = type(sys.meta_path[0])
token = os.environ.get("VLLM_PROFILING_SESSION", "-")
print("ACTIVE" if finder.__module__ == "profilemate" else "off", token, os.getpid(), flush=True)
"""

MODULES = {
    name: REPORT
    for name in (
        "vllm/entrypoints/openai/api_server.py",
        "vllm/entrypoints/openai/run_batch.py",
        "vllm/entrypoints/cli/main.py",
        "vllm/benchmarks/latency.py",
        "vllm/benchmarks/serve.py",
        "vllm/collect_env.py",
        "bin/vllm",
        "train.py",
        "pip/__main__.py",
    )
}
MODULES |= {name: "" for name in ("vllm/entrypoints/cli/__init__.py", "vllm/benchmarks/__init__.py", "pip/__init__.py")}

API = ["-m", "vllm.entrypoints.openai.api_server"]
ON = [
    [*API],
    [*API, "--model", "m"],
    ["-u", "-X", "dev", *API, "--model=m"],
    ["-um", "vllm.entrypoints.openai.api_server"],
    ["-Wignore", "-mvllm.entrypoints.openai.api_server"],
    ["-m", "vllm.entrypoints.openai.run_batch", "-i", "x"],
    ["-m", "vllm.entrypoints.cli.main", "serve", "m"],
    ["-m", "vllm.benchmarks.latency", "--model", "m"],
    ["vllm/entrypoints/openai/api_server.py", "--model", "m"],
    ["bin/vllm", "serve", "m"],
    ["-u", "--", "bin/vllm", "serve", "m", "--port", "1"],
    ["bin/vllm", "run-batch", "-i", "x"],
    ["bin/vllm", "bench", "latency", "--model", "m"],
    ["bin/vllm", "bench", "throughput", "--model", "m"],
    ["-m", "cProfile", "-o", os.devnull, *API],
    ["-m", "pdb", "-c", "continue", "-c", "quit", *API],
]
OFF = [
    ["-c", REPORT],
    ["-c", REPORT, "serve", "--model", "m"],
    ["train.py"],
    ["train.py", "--model", "m"],
    ["-m", "pip", "install", "vllm"],
    ["-m", "vllm.collect_env"],
    ["-m", "vllm.benchmarks.latency"],
    ["-m", "vllm.benchmarks.serve", "--model", "m"],
    ["-m", "vllm.entrypoints.cli.main", "chat"],
    [*API, "--help"],
    [*API, "-h"],
    ["bin/vllm"],
    ["bin/vllm", "--help"],
    ["bin/vllm", "--version"],
    ["bin/vllm", "-v"],
    ["bin/vllm", "serve", "--help"],
    ["bin/vllm", "serve", "--help=ModelConfig"],
    ["bin/vllm", "bench", "serve", "--model", "m"],
    ["bin/vllm", "chat"],
    ["bin/vllm", "complete"],
    ["bin/vllm", "collect-env"],
]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return fake.write(tmp_path_factory.mktemp("package"), {**fake.FILES, **MODULES})


def report(package, base, arguments, python=fake.PYTHON, **extra):
    env = fake.environment(base, fake.SITE, package, **extra)
    done = fake.run(python, arguments, env, package)
    lines = [line.split() for line in done.stdout.splitlines() if line.startswith(("ACTIVE", "off"))]
    assert lines, f"the command did not report: {done.stdout}{done.stderr}"
    assert done.stderr == "", "a process without an engine prints nothing"
    assert fake.sessions(base) == [], "a process without an engine makes no directory"
    return [(state == "ACTIVE", token, int(pid)) for state, token, pid in lines]


@pytest.mark.parametrize("arguments", ON, ids=" ".join)
def test_command_that_serves(package, tmp_path, arguments):
    [(active, token, _)] = report(package, tmp_path, arguments)
    assert active and token.startswith("session_")


@pytest.mark.parametrize("arguments", OFF, ids=lambda arguments: " ".join(arguments)[:60].replace("\n", " "))
def test_command_that_does_not(package, tmp_path, arguments):
    [(active, token, _)] = report(package, tmp_path, arguments)
    assert not active and token == "-"


def test_there_are_enough_commands():
    assert len(ON) + len(OFF) >= 30


@pytest.mark.parametrize("version", fake.PYTHONS)
def test_every_interpreter(package, tmp_path, version):
    for arguments, expected in ((["bin/vllm", "serve", "m"], True), (["train.py", "--model", "m"], False)):
        assert report(package, tmp_path, arguments, fake.PYTHONS[version])[0][0] is expected


@pytest.mark.parametrize(
    ("variables", "serving", "other"),
    [
        ({"VLLM_ENABLE_PROFILING": "1"}, True, True),
        ({"PROFILEMATE_ENABLE": "1"}, True, True),
        ({"VLLM_ENABLE_PROFILING": "0"}, False, False),
        ({"PROFILEMATE_ENABLE": "0"}, False, False),
        ({"VLLM_ENABLE_PROFILING": "0", "PROFILEMATE_ENABLE": "1"}, False, False),
        ({"VLLM_ENABLE_PROFILING": "1", "PROFILEMATE_ENABLE": "0"}, False, False),
        ({"VLLM_ENABLE_PROFILING": ""}, True, False),
        ({"VLLM_ENABLE_PROFILING": "perhaps"}, True, False),
        ({"VLLM_PROFILING_SESSION": "nonsense"}, True, False),
    ],
    ids=str,
)
def test_switch(package, tmp_path, variables, serving, other):
    # Switched off, a server still has the import hook, for vLLM's check of names alone (test_environ.py): what tells
    # is whether it has a session.
    [(_, token, _)] = report(package, tmp_path, ["bin/vllm", "serve", "m"], **variables)
    assert token.startswith("session_") is serving
    [(active, token, _)] = report(package, tmp_path, ["train.py"], **variables)
    assert active is other and token.startswith("session_") is other


CHILD = """
import os, subprocess, sys
exec({report!r})
subprocess.run([sys.executable, *{arguments!r}], check=True)
"""


def parent_and_child(package, tmp_path, arguments, **extra):
    script = CHILD.format(report=REPORT, arguments=arguments)
    return report(package, tmp_path, ["-c", script], **extra)


def test_a_child_follows_its_server(package, tmp_path):
    (_, token, _), (active, inherited, _) = parent_and_child(
        package, tmp_path, ["train.py"], VLLM_ENABLE_PROFILING="1"
    )
    assert active and inherited == token


def test_a_child_of_the_switch_needs_no_switch(package, tmp_path):
    """The token alone is enough: a child whose environment was cleaned of the rest."""
    script = f"""
import os
exec({REPORT!r})
del os.environ["VLLM_ENABLE_PROFILING"]
import subprocess, sys
subprocess.run([sys.executable, "train.py"], check=True)
"""
    (_, token, _), (active, inherited, _) = report(
        package, tmp_path, ["-c", script], VLLM_ENABLE_PROFILING="1"
    )
    assert active and inherited == token


def test_a_child_that_starts_a_server_begins_its_own_session(package, tmp_path):
    (_, token, _), (active, own, _) = parent_and_child(
        package, tmp_path, ["bin/vllm", "serve", "m"], VLLM_ENABLE_PROFILING="1"
    )
    assert active and own.startswith("session_") and own.split(":")[1] != token.split(":")[1]


def test_a_process_that_executes_itself_again_goes_on(package, tmp_path):
    script = f"""
import os, sys
exec({REPORT!r})
os.execv(sys.executable, [sys.executable, "bin/vllm", "serve", "m"])
"""
    (_, token, pid), (active, same, same_pid) = report(
        package, tmp_path, ["-c", script], VLLM_ENABLE_PROFILING="1"
    )
    assert pid == same_pid and active and same == token


def test_two_children_of_a_closed_gate_are_two_servers(package, tmp_path):
    script = f"""
import subprocess, sys
exec({REPORT!r})
for _ in range(2):
    subprocess.run([sys.executable, "bin/vllm", "serve", "m"], check=True)
"""
    (active, none, _), *servers = report(package, tmp_path, ["-c", script])
    assert not active and none == "-"
    assert len({token.split(":")[1] for _, token, _ in servers}) == 2


def test_arguments_that_are_no_text(package, tmp_path):
    env = fake.environment(tmp_path, fake.SITE, package)
    done = subprocess.run(
        [fake.PYTHON.encode(), b"bin/vllm", b"serve", b"\xff\xfe"], env=env, cwd=package, capture_output=True
    )
    assert done.returncode == 0 and done.stdout.startswith(b"ACTIVE") and done.stderr == b""
