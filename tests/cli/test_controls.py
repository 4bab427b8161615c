"""set, start and stop: words and their complaints, and a made-up vLLM process that is really switched (how it looks
from inside, on each CPython: tests/ext/test_controls_inside.py; real vLLM: tests/e2e/test_controls_server.py)."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

import pytest
from patience import until
from program import PROGRAM, ROOT, SITE, one_sentence

DEADLINE_S = 120
SETTINGS = re.findall(r"^X\((\w+),\s*(\w+)", (ROOT / "src" / "base" / "settings.def").read_text(), re.M)
RULES = re.findall(r"^([LF])\((\w+)", (ROOT / "src" / "base" / "control.def").read_text(), re.M)


def test_each_setting_has_its_rule():
    assert sorted(field for _, field in RULES) == sorted(field for field, _ in SETTINGS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["set", "kv_cache=maybe"], "kv_cache=maybe is not valid, give 0 or 1"),
        (["set", "kv_cahe=on"], "there is no setting kv_cahe, is kv_cache meant"),
        (["set", "preemption=off"], "preemption cannot be changed while a session is recorded, requests are followed"),
        (["set", "dir=/x"], "dir cannot be changed while a session is recorded"),
        (["set", "log-interval=0"], "log_interval=0 is not valid, give a whole number from 1"),
        (["set"], "nothing is to be set"),
        (["set", "x", "y"], "y is not understood, write a setting and its value as in kv_cache=on"),
        (["set", "detail=0"], "detail=0 is not valid, give a number of steps"),
        (["set", "detail=5", "verbose=on"], "detail=STEPS stands alone"),
        (["set", "--wait=never", "verbose=on"], "--wait=never is not valid"),
        (["set", "--list", "verbose=on"], "--list sets nothing"),
        (["start", "nobody"], "nobody is no process id, give one, or all"),
        (["start", "1", "mode=9"], "mode=9 is not valid, give an octal file mode"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_bad_word_is_one_sentence(cli, words, said):
    done = cli(*words)
    assert done.returncode == 2 and done.stdout == ""
    assert said in one_sentence(done.stderr)


def test_a_process_that_is_not_ours_to_switch(cli):
    done = cli("start", str(os.getpid()))
    assert done.returncode == 1 and "is no vLLM process that ProfileMate is in" in one_sentence(done.stderr)
    done = cli("stop", "4194304")
    assert done.returncode == 1 and "there is no process 4194304" in one_sentence(done.stderr)


def test_a_session_that_has_ended(cli):
    session = cli.make_session()
    done = cli("set", session.name, "verbose=on")
    assert done.returncode == 1 and f"records {session.name}: it has ended" in one_sentence(done.stderr)


@pytest.fixture
def server(cli):
    """A process that vLLM's plug-ins were loaded in: asleep (a line on its stdin wakes it), and told where it is."""
    script = (
        "import sys, time\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import vllm_stand_in, sitecustomize\n"
        "sitecustomize.register()\n"
        "print('up', flush=True)\n"
        "sys.stdin.readline()\n"
        "while True: time.sleep(0.01)\n"
    )
    (cli.tmp / "vllm_stand_in.py").write_text("")
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", script, str(SITE)],
        env=cli.environment(PYTHONPATH=f"{SITE}:{cli.tmp}", VLLM_ENABLE_PROFILING="0"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "up\n"
    yield process
    process.kill()
    process.wait()


def test_start_set_and_stop(cli, server):
    server.stdin.write("\n")
    server.stdin.flush()
    assert cli("set", str(server.pid), "verbose=on").returncode == 1, "it records nothing yet"
    started = cli("start", str(server.pid), "kv_cache=off", "--wait=120")
    assert started.returncode == 0, started.stderr
    (session,) = cli.sessions.glob("session_*")
    assert f"Session: {session}" in started.stdout and "records" in started.stdout

    done = cli("set", "log-interval=7,", "verbose=on", "--wait=120", "--json")
    assert done.returncode == 0, done.stderr
    (process,) = json.loads(done.stdout)["processes"]
    assert process["state"] == "done" and sorted(process["done"]) == ["log_interval 7", "verbose on"]
    listed = json.loads(cli("set", session.name, "--list", "--json").stdout)
    (process,) = listed["processes"]
    assert process["settings"]["log_interval"] == "7" and process["settings"]["kv_cache"] == "off"
    assert "kv_cache" in cli("set", "--list").stdout

    refused = cli("set", "moe=1", "--wait=120")
    assert refused.returncode == 1 and "that is at the server's start" in refused.stdout

    again = cli("start", str(server.pid), "--wait=120")
    assert again.returncode == 0 and "records already" in again.stdout
    assert len(list(cli.sessions.glob("session_*"))) == 1

    stopped = cli("stop", str(server.pid), "--wait=120")
    assert stopped.returncode == 0 and f"Session: {session}" in stopped.stdout, stopped.stdout + stopped.stderr
    assert (session / "batch_utilization.csv").exists()
    assert "records nothing" in one_sentence(cli("stop", str(server.pid)).stderr)


def test_a_process_that_sleeps_does_it_when_it_wakes(cli, server):
    started = cli("start", str(server.pid), "--json", "--wait=120")
    assert started.returncode == 0, started.stderr
    (process,) = json.loads(started.stdout)["processes"]
    assert process["state"] == "queued" and not cli.sessions.exists()
    server.stdin.write("\n")
    server.stdin.flush()
    until(lambda: list(cli.sessions.glob("session_*/records/*.pmrec")))


@pytest.mark.skipif(os.geteuid() != 0, reason="another user can be tried as root only")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is not installed")
def test_only_its_own_user_may(cli, server):
    """From a folder that others may enter: the build's may be closed to them."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        program = shutil.copy(PROGRAM, folder)
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program, "start", str(server.pid)],
            env=cli.environment(), capture_output=True, text=True, timeout=DEADLINE_S, cwd="/",
        )  # fmt: skip
    assert done.returncode == 1
    assert "belongs to user 0: only that user, and root, may control it" in one_sentence(done.stderr)
