"""run --request-log: a line per finished request, a file per task, rotation, the server's end however it comes."""

import json
import os
import re
import signal
import stat

import pytest
from program import one_sentence
from serving_run import Run

KEYS = [
    "request_id", "session", "engine", "model", "task", "arrival", "arrival_sec", "queue_ms", "ttft_ms", "tpot_ms",
    "e2e_ms", "prompt_tokens", "cached_tokens", "output_tokens", "max_tokens", "finish_reason", "preemptions",
]  # fmt: skip


@pytest.fixture
def run(cli):
    started = []

    def start(*options, **kwargs) -> Run:
        started.append(Run(cli, "-q", "--request-log", "logs", *options, **kwargs))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


def lines(cli, name: str) -> list[dict]:
    text = (cli.tmp / "logs" / name).read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def names(cli) -> list[str]:
    return sorted(path.name for path in (cli.tmp / "logs").iterdir())


def test_a_line_says_it_all(run, cli):
    it = run()
    it.obey("request chatcmpl-summarise-17-8d4b5909 11 2", "request chatcmpl-830c9f689213399c-8d4b5909 0")
    assert it.end() == 0
    assert names(cli) == ["chat.jsonl", "summarise.jsonl"]
    (line,) = lines(cli, "summarise.jsonl")
    assert list(line) == KEYS
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line.pop("arrival"))
    assert line.pop("arrival_sec") is not None and line.pop("session").startswith("session_")
    assert line == {
        "request_id": "chatcmpl-summarise-17-8d4b5909", "engine": 0, "model": "made-up/model", "task": "summarise",
        "queue_ms": 5.0, "ttft_ms": 20.0, "tpot_ms": 8.0, "e2e_ms": 100.0, "prompt_tokens": 33, "cached_tokens": 16,
        "output_tokens": 11, "max_tokens": 64, "finish_reason": "length", "preemptions": 2,
    }  # fmt: skip
    (aborted,) = lines(cli, "chat.jsonl")
    assert aborted["ttft_ms"] is None and aborted["tpot_ms"] is None and aborted["finish_reason"] == "abort"


def test_lines_come_while_it_serves(run, cli):
    it = run()
    it.requests(3)
    while not (cli.tmp / "logs").exists() or names(cli) != ["chat.jsonl"] or len(lines(cli, "chat.jsonl")) < 3:
        assert it.process.poll() is None
    it.requests(2)
    assert it.end() == 0 and len(lines(cli, "chat.jsonl")) == 5


def test_a_killed_server_leaves_every_line(run, cli):
    it = run()
    it.requests(5000)
    children = [int(pid) for pid in open(f"/proc/{it.process.pid}/task/{it.process.pid}/children").read().split()]
    engines = [int(pid) for pid in open(f"/proc/{children[0]}/task/{children[0]}/children").read().split()]
    for pid in [*engines, *children]:
        os.kill(pid, signal.SIGKILL)
    assert it.finish() == 128 + signal.SIGKILL
    ids = [line["request_id"] for line in lines(cli, "chat.jsonl")]
    assert ids == [f"chatcmpl-0123456789abcdef-{n}" for n in range(5000)]


@pytest.mark.parametrize(
    ("identity", "task"),
    [
        ("chatcmpl-summarise-1", "summarise"),
        ("cmpl-rank_3-0-8d4b5909", "rank"),
        ("embd-8f3ab00c12d4e5f6", "embed"),
        ("cmpl-550e8400-e29b-41d4-a716-446655440000-0", "completion"),
        ("1_chatcmpl-translate:fr", "translate"),
        ("bench-00ff-12", "bench"),
        ("resp_68af1", "responses"),
        ("42", "default"),
        ("chatcmpl-../../etc/passwd", "chat"),
        ("chatcmpl-.hidden-1", "chat"),
        ("chatcmpl-Bad.1", "Bad"),
        ("chatcmpl-word", "chat"),
        ("chatcmpl-" + "a" * 80 + "-1", "chat"),
        ("chatcmpl-decade-1", "decade"),
        ("chatcmpl-deadbeefdeadbeef-1", "chat"),
    ],
)
def test_the_id_names_the_task(run, cli, identity, task):
    it = run()
    it.obey(f"request {identity} 4")
    assert it.end() == 0
    assert names(cli) == [f"{task}.jsonl"]
    assert [line["task"] for line in lines(cli, f"{task}.jsonl")] == [task]


def test_a_task_for_all(run, cli):
    it = run("--task", "nightly-2")
    it.obey("request chatcmpl-summarise-1 4", "request cmpl-other-1 4")
    assert it.end() == 0
    assert names(cli) == ["nightly-2.jsonl"] and len(lines(cli, "nightly-2.jsonl")) == 2


def test_tasks_without_end_share_a_file(run, cli):
    it = run()
    it.obey(*(f"request chatcmpl-task{'x' * n}-1 4" for n in range(1, 59)), *(f"request cmpl-{c}y-1 4" for c in "ghijklmnop"))
    assert it.end() == 0
    assert len(names(cli)) == 65 and "other.jsonl" in names(cli)
    assert sum(len(lines(cli, name)) for name in names(cli)) == 68


def test_files_are_rotated_by_size(run, cli):
    it = run("--request-log-size", "2k", "--request-log-keep", "2")
    for n in range(30):
        it.obey(f"request chatcmpl-chat-{n} 4")
    assert it.end() == 0
    assert set(names(cli)) <= {"chat.jsonl", "chat.1.jsonl", "chat.2.jsonl"} and len(names(cli)) == 3
    kept = [line["request_id"] for name in ("chat.2.jsonl", "chat.1.jsonl", "chat.jsonl") for line in lines(cli, name)]
    assert kept == [f"chatcmpl-chat-{n}" for n in range(30)][-len(kept) :], "in order, none twice, the oldest gone"
    assert all((cli.tmp / "logs" / name).stat().st_size <= 3000 for name in names(cli))


def test_runs_append(run, cli):
    for _ in range(2):
        it = run()
        it.requests(2)
        assert it.end() == 0
    assert len(lines(cli, "chat.jsonl")) == 4
    assert len({line["session"] for line in lines(cli, "chat.jsonl")}) == 2


def test_the_mode_is_that_of_the_session(run, cli):
    it = run("--mode", "0640")
    it.requests(1)
    assert it.end() == 0
    assert stat.S_IMODE((cli.tmp / "logs" / "chat.jsonl").stat().st_mode) == 0o640


def test_a_planted_link_is_not_followed(run, cli):
    (cli.tmp / "logs").mkdir()
    (cli.tmp / "logs" / "chat.jsonl").symlink_to(cli.tmp / "victim")
    it = run()
    it.requests(3)
    assert it.end() == 0
    assert not (cli.tmp / "victim").exists()
    assert "cannot write the request log" in it.text() and "3 lines of the request log are lost" in it.text()


def test_how_many_is_told(cli):
    it = Run(cli, "--request-log", "logs", "--no-export")
    it.requests(3)
    assert it.end() == 0
    assert "profilemate: 3 requests in the log logs" in it.said


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--task", "x"], 2, "--task is about request logs, give --request-log=DIR as well"),
        (["--request-log", "l", "--task", "a/b"], 2, "--task=a/b cannot name a file"),
        (["--request-log", "l", "--task", ".."], 2, "--task=.. cannot name a file"),
        (["--request-log", "l", "--request-log-size", "x"], 2, "--request-log-size=x is not valid"),
        (["--request-log", "/proc/none"], 1, "the folder /proc/none cannot be written"),
        (["--request-log", "l", "--no-preemption-tracking"], 1, "--request-log needs the life of requests"),
    ],
)
def test_misuse(cli, options, code, sentence):
    shown = cli("run", *options, "--", "touch", "ran")
    assert shown.returncode == code and not (cli.tmp / "ran").exists()
    assert sentence in one_sentence(shown.stderr)
