"""profilemate postmortem: what it makes of each kind of end, and that nothing of what clients sent is on its page."""

import json
import re
import signal

import pytest
from program import MAKE_SESSION, one_sentence
from test_top import UTF8, crowd, golden  # noqa: F401 (the fixture)


def told(cli, *words) -> dict:
    done = cli("postmortem", "--json", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def run(cli, *words):
    """make_session under `profilemate run`, joining its session."""
    return cli("run", "--no-pythonpath", "--", MAKE_SESSION, f"dir={cli.sessions}", "session.env=1", *words)


def test_the_page_is_as_it_was_looked_at(cli, crowd):  # noqa: F811
    done = cli("postmortem", crowd, env=UTF8)
    assert (done.returncode, done.stderr) == (0, "")
    page = re.sub(r"(pid|thread) \d+", r"\1 N", done.stdout)
    page = page[: page.index("Memory of this machine")]
    page = re.sub(r"started     \S+", "started     WHEN", page)
    golden("postmortem.txt", page)


def test_a_kill_that_run_saw(cli):
    done = run(cli, "end=kill")
    assert done.returncode == 128 + signal.SIGKILL
    offer = next(line for line in done.stderr.splitlines() if "postmortem" in line)
    assert "was killed by signal 9 (SIGKILL)" in offer and "in the model" in offer
    said = told(cli)
    assert said["cause"] == "killed"
    (process,) = said["processes"]
    assert (process["signal"], process["exit_code"], process["status_seen_by"]) == (9, None, "run")
    assert [thread["doing"] for thread in process["threads"]] == ["model"]


def test_a_fault(cli):
    assert run(cli, "end=fault").returncode == 128 + signal.SIGSEGV
    said = told(cli)
    assert said["cause"] == "crashed"
    assert "in the model" in said["sentence"]
    assert said["processes"][0]["signal"] == signal.SIGSEGV or said["kernel_log"]


def test_a_clean_end_is_none(cli):
    done = run(cli, "end=close")
    assert done.returncode == 0 and "postmortem" not in done.stderr
    said = told(cli)
    assert said["cause"] == "stopped"
    assert said["run"]["status"] == 0


def test_a_stop_that_was_asked_for(cli):
    shown = cli.start("run", "--no-pythonpath", "--", MAKE_SESSION, f"dir={cli.sessions}", "session.env=1", "end=hold",
                      stdin=-1)  # fmt: skip
    while not (shown.stdout.readline().strip()):
        assert shown.poll() is None
    shown.send_signal(signal.SIGTERM)
    shown.wait(timeout=180)  # before communicate() closes its stdin, which would be an end of another kind
    _, errors = shown.communicate(timeout=180)
    assert shown.returncode == 128 + signal.SIGTERM and "postmortem" not in errors
    said = told(cli)
    assert said["cause"] == "stopped" and "SIGTERM" in said["sentence"]


def test_an_exception_that_a_step_raised(cli):
    session = cli.make_session("attr.raised.execute_model=RuntimeError at step 9", "end=close")
    said = told(cli, session)
    assert said["cause"] == "raised"
    assert "execute_model had raised RuntimeError at step 9" in said["sentence"]


def test_a_server_that_runs(cli):
    session, process = cli.hold_session("steps=10")
    try:
        assert told(cli, session)["cause"] in ("alive", "hangs")
    finally:
        process.communicate("")


def test_requests_are_named_by_a_digest(cli, crowd):  # noqa: F811
    for words in ((), ("--json",)):
        assert "chatcmpl" not in cli("postmortem", *words, crowd).stdout
        assert "chatcmpl" in cli("postmortem", "--ids", *words, crowd).stdout


def test_hostile_attributes_cannot_drive_the_terminal(cli):
    session = cli.make_session("attr.model=\x1b[31mred\x07", "attr.raised.update=\x1b]0;title\x07 at step 1", "end=close")
    assert "\x1b" not in cli("postmortem", session).stdout
    assert "\x1b" not in cli("top", "--once", session, env=UTF8).stdout


@pytest.mark.parametrize("name", ["session_nowhere", "/tmp"])
def test_no_such_session(cli, name):
    done = cli("postmortem", name)
    assert done.returncode == 1
    assert one_sentence(done.stderr)
