"""profilemate explain: what it prints, its exit codes, and its windows."""

import json

import pytest


@pytest.fixture
def session(cli):
    return cli.make_session("steps=2000", "attr.device=cpu", "attr.config.max_num_seqs=2")


def test_text_json_and_brief_say_the_same(cli, session):
    text = cli("explain", "--rules", session).stdout
    said = json.loads(cli("explain", "--json", session).stdout)
    assert said["steps"] == 2000 and said["window"] is None
    assert len(said["rules"]) >= 29
    for finding in said["findings"]:
        assert f"rule {finding['rule']}" in " ".join(text.split())
    for rule in said["rules"]:
        assert rule["rule"] in text
        assert rule["why"]
    # 2 of every 3 ms the model runs: not host-bound enough to speak of, but the batch is full with nobody waiting.
    assert {rule["rule"]: rule["result"] for rule in said["rules"]}["batch_limit"] == "fine"
    assert all(len(line) <= 80 for line in text.splitlines())


def test_one_rule_alone(cli, session):
    said = json.loads(cli("explain", "--json", "--rule", "host_bound", session).stdout)
    assert [rule["rule"] for rule in said["rules"]] == ["host_bound"]


def test_windows(cli, session):
    assert json.loads(cli("explain", "--json", "--steps", "10:19", session).stdout)["steps"] == 10
    assert json.loads(cli("explain", "--json", "--steps", "1990:", session).stdout)["steps"] == 10
    report = json.loads(cli("report", "--json", "--steps", "0:9", session).stdout)
    assert report["engines"][0]["steps"] == 10 and report["window"] == "steps 0 to 9"
    assert "findings" in report


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--rule", "host_bond"), "did you mean host_bound"),
        (("--last", "soon"), "not a length of time"),
        (("--steps", "9:3"), "not a range of steps"),
        (("--last", "3s", "--steps", "1:2"), "choose one"),
        (("--fail-on", "info"), "not a severity"),
        (("--json", "--rules"), "--json has all of it"),
    ],
)
def test_misuse_is_told(cli, session, arguments, words):
    done = cli("explain", *arguments, session)
    assert done.returncode == 2
    assert words in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == ""


def test_what_is_not_there(cli, session):
    for arguments in (("--steps", "5000:"), ("--request", "nobody")):
        done = cli("explain", *arguments, session)
        assert done.returncode == 1 and done.stdout == ""
        assert len(done.stderr.splitlines()) == 1


def test_fail_on(cli):
    lossy = cli.make_session("steps=300", "lost=500")
    assert cli("explain", lossy).returncode == 0
    assert cli("explain", "--fail-on", "high", lossy).returncode == 1
    assert cli("explain", "--fail-on", "low", "--rule", "kv_too_small", lossy).returncode == 0


def test_an_empty_session_has_nothing_to_say(cli):
    empty = cli.make_session("end=none")
    assert "Nothing to say" in cli("explain", empty).stdout
