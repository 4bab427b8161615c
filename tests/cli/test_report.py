"""profilemate report: the page it writes, where, of what, and what it says when it can't. (The page itself: test_page.py.)"""

from __future__ import annotations

import json
import os
import re
import signal
import stat

import pytest
from program import one_sentence

HOSTILE = "</script><script>alert(1)</script><!-- \u2028 ]]> &lt;"


def data_of(path) -> dict:
    text = path.read_text()
    (data,) = re.findall(r'<script type="application/json" id="pm-data">(.*?)</script>', text, re.S)
    return json.loads(data)


def test_it_writes_a_page_into_the_session_and_prints_its_path(cli):
    session = cli.make_session("steps=12")
    shown = cli("report")
    assert (shown.returncode, shown.stderr) == (0, "")
    page = session / "report.html"
    assert shown.stdout == f"{page}\n"
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert page.stat().st_size < 1_000_000
    data = data_of(page)
    assert data["session"]["name"] == session.name and data["window"] is None
    assert data["engines"][0]["ranks"][0]["steps"]["rows"] == 12
    assert data["engines"][0]["kinds"]["prefill"]["steps"] == 3
    assert isinstance(data["findings"], list)
    assert [path.name for path in session.iterdir() if path.name.startswith(".")] == [], "nothing half-written is left"


def test_it_says_what_the_text_says(cli):
    cli.make_session("steps=40")
    data = data_of(cli.sessions / cli("report").stdout.strip())
    told = json.loads(cli("report", "--json").stdout)
    engine, wanted = data["engines"][0], told["engines"][0]
    assert engine["kinds"]["prefill"]["steps"] == wanted["prefill_steps"]
    assert engine["kinds"]["decode"]["steps"] == wanted["decode_steps"]
    assert sum(engine["ranks"][0]["steps"]["cols"]["ptok"]) == wanted["prefill_tokens"]
    assert data["sums"]["records"] == told["records"]["readable"]
    assert len(data["hooks"]) == sum(told["hooks"][key] for key in ("patched", "missing", "off"))


def test_the_page_needs_nothing_else_and_allows_nothing_else(cli):
    cli.make_session()
    text = open(cli("report").stdout.strip()).read()
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', text).group(1)
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy and "http" not in policy
    assert not re.search(r"<(?:link|img|iframe|object|embed)\b|\bsrc=", re.sub(r"<script>.*</script>", "", text, flags=re.S))
    addresses = set(re.findall(r"https?://[^\s\"'`<>)]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg"}, addresses


def test_text_of_a_session_cannot_end_the_data(cli):
    session = cli.make_session(f"attr.model={HOSTILE}", f"attr.command={HOSTILE}")
    cli("report")
    text = (session / "report.html").read_text()
    assert "alert(1)</script>" not in text
    assert text.count("</script>") == 2
    assert data_of(session / "report.html")["session"]["model"] == HOSTILE


def test_out_names_the_file(cli, tmp_path):
    session = cli.make_session()
    shown = cli("report", "-o", tmp_path / "here.html")
    assert shown.stdout == f"{tmp_path / 'here.html'}\n" and (tmp_path / "here.html").exists()
    assert not (session / "report.html").exists()
    assert cli("report", "--out=there.html").stdout == "there.html\n"
    assert (tmp_path / "there.html").exists()
    shown = cli("report", "-o", tmp_path / "no" / "such.html")
    assert shown.returncode == 1 and "no such folder" in one_sentence(shown.stderr)
    shown = cli("report", "-o", tmp_path)
    assert shown.returncode == 1
    one_sentence(shown.stderr)


def test_a_part_of_a_session(cli):
    session = cli.make_session("steps=100")
    shown = cli("report", "--steps", "20:29")
    assert shown.returncode == 0, shown.stderr
    data = data_of(session / "report.html")
    assert data["window"]
    assert data["engines"][0]["ranks"][0]["steps"]["cols"]["step"] == list(range(20, 30))
    shown = cli("report", "--last", "soon")
    assert shown.returncode == 1
    one_sentence(shown.stderr)


def test_a_running_a_killed_and_an_empty_session(cli):
    running, process = cli.hold_session("steps=8")
    assert cli("report").returncode == 0
    assert data_of(running / "report.html")["session"]["state"] == "running"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert cli("report").returncode == 0
    assert data_of(running / "report.html")["session"]["state"] == "killed"
    empty = cli.make_session("end=none", "name=session_20260101_000000")
    shown = cli("report", empty)
    assert shown.returncode == 0, shown.stderr
    assert data_of(empty / "report.html")["engines"] == []


def test_a_long_session_becomes_buckets(cli):
    session = cli.make_session("steps=45000")
    assert cli("report").returncode == 0
    steps = data_of(session / "report.html")["engines"][0]["ranks"][0]["steps"]
    assert not steps["exact"] and steps["rows"] == 45000 == sum(steps["n"])
    assert sum(steps["sum"]["n_p"]) == 45000 // 4 and max(steps["max"]["step"]) == 44999
    assert len(steps["top"]["t"]) == 400
    assert (session / "report.html").stat().st_size < 2_000_000
    assert cli("report", "--steps", "44000:").returncode == 0
    assert data_of(session / "report.html")["engines"][0]["ranks"][0]["steps"]["exact"]


def test_a_damaged_session_still_has_a_page(cli):
    session = cli.make_session("end=kill", "steps=400")
    (record,) = session.glob("records/*.pmrec")
    whole = record.read_bytes()
    record.write_bytes(whole[: len(whole) // 2])
    assert cli("report").returncode == 0
    record.write_bytes(b"nothing of ours" * 1000)
    assert cli("report").returncode == 0
    assert data_of(session / "report.html")["notes"]


def test_misuse(cli):
    cli.make_session()
    for words in (("-o", "x.html", "--text"), ("-o", "x.html", "--json"), ("-o", ""), ("--json", "--brief")):
        assert cli("report", *words).returncode == 2, words
    assert not (cli.tmp / "x.html").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_another_users_session_is_not_written_into(cli, tmp_path):
    theirs = cli.make_session()
    for path in [theirs, *theirs.rglob("*")]:
        os.chown(path, 12345, 12345)
    shown = cli("report", theirs.name)
    assert shown.returncode == 1 and "belongs to user 12345" in one_sentence(shown.stderr)
    assert cli("report", theirs.name, "-o", tmp_path / "mine.html").returncode == 0
    assert cli("report", "--text", theirs.name).returncode == 0
