"""profilemate export and report: which session is meant, what is written, also of a killed and of a running one."""

import csv
import json
import os
import signal

import pytest
from program import one_sentence

OLD = ("start=1700000000", "name=session_20231114_221320")
OLDER = ("start=1600000000", "name=session_20200913_122640")


def rows_of(session):
    with open(session / "forward_pass_timing.csv", newline="") as lines:
        return list(csv.DictReader(lines))


def test_a_killed_writers_session_is_exported_whole(cli):
    session = cli.make_session("end=kill", "steps=400")
    shown = cli("export")
    assert (shown.returncode, shown.stdout) == (0, "")
    assert shown.stderr.startswith("Wrote ") and str(session) in shown.stderr
    rows = rows_of(session)
    assert len(rows) == 400
    assert [row["phase"] for row in rows[:5]] == ["prefill", "decode", "decode", "decode", "prefill"]
    assert {row["num_tokens"] for row in rows if row["phase"] == "prefill"} == {"100"}
    assert json.loads((session / "metadata.json").read_text())


def test_a_running_session_is_exported_as_far_as_it_has_come(cli):
    session, process = cli.hold_session("steps=7")
    shown = cli("export", session)
    assert shown.returncode == 0 and "of a server that still runs" in shown.stderr
    assert len(rows_of(session)) == 7
    process.communicate()
    assert "still runs" not in cli("export", session).stderr


def test_which_session_is_meant(cli, tmp_path):
    older, old, new = cli.make_session(*OLDER), cli.make_session(*OLD), cli.make_session()
    meant = {
        None: new,
        old.name: old,
        "session_2023": old,
        "2023": old,
        "session_2020": older,
        str(older): older,
        f"{older}/": older,
        f"{older}/metadata.json": older,
        os.path.relpath(older, tmp_path): older,
    }
    for words, session in meant.items():
        shown = cli("export", *([words] if words else []))
        assert f"to {session}" in shown.stderr, f"{words}: {shown.stderr}"
    link = tmp_path / "link"
    link.symlink_to(old)
    assert f"to {old}" in cli("export", link).stderr, "a path that was typed may go over a link"


def test_a_session_that_cannot_be_told(cli, tmp_path):
    def said(*words, env=None):
        shown = cli("export", *words, env=env)
        assert shown.returncode == 1
        return one_sentence(shown.stderr)

    assert "there is no session in" in said() and "profilemate run" in said()
    cli.make_session(*OLD), cli.make_session(*OLDER)
    assert "is the start of 2 sessions" in said("session_20") and "give more of the name" in said("20")
    assert "there is no session nothing in" in said("nothing")
    assert "there is no session at /no/where" in said("/no/where")
    assert "is no session, it has no file `session`" in said(tmp_path)
    assert "is no session" in said("./home")
    assert "there is no session in" in said("--dir", tmp_path / "empty")


def test_out_writes_elsewhere_and_leaves_the_session_alone(cli, tmp_path):
    session = cli.make_session()
    before = {path.name for path in session.iterdir()}
    shown = cli("export", "--out", tmp_path / "made", session)
    assert shown.returncode == 0, shown.stderr
    assert len(rows_of(tmp_path / "made")) == 10
    assert {path.name for path in session.iterdir()} == before


def test_the_preset_chooses_the_files(cli, tmp_path):
    cli.make_session()
    for preset, file in (("simple", "summary.json"), ("full", "forward_pass_summary.json")):
        out = tmp_path / preset
        assert cli("export", "--preset", preset, "--out", out).returncode == 0
        assert (out / file).exists()
    assert not (tmp_path / "simple" / "forward_pass_summary.json").exists()


def test_json_is_one_object_a_line_on_stdout(cli):
    cli.make_session("steps=12")
    shown = cli("export", "--format=json")
    assert shown.returncode == 0 and shown.stderr == ""
    rows = [json.loads(line) for line in shown.stdout.splitlines()]
    tables = {row["table"] for row in rows}
    assert {"steps", "sched_step", "worker_step"} <= tables
    assert sum(row["table"] == "steps" for row in rows) == 12


def test_native_csv_is_a_file_per_table(cli, tmp_path):
    cli.make_session("steps=12")
    assert "say where with --out" in one_sentence(cli("export", "--format=csv-native").stderr)
    assert cli("export", "--format=csv-native", "--out", tmp_path / "native").returncode == 0
    with open(tmp_path / "native" / "steps.csv", newline="") as lines:
        assert len(list(csv.DictReader(lines))) == 12


def test_a_place_that_cannot_be_written_is_one_sentence(cli, tmp_path):
    cli.make_session()
    (tmp_path / "file").write_text("")
    shown = cli("export", "--out", tmp_path / "file")
    assert shown.returncode == 1
    assert str(tmp_path / "file") in one_sentence(shown.stderr)
    shown = cli("export", "--format=json", stdout=open("/dev/full", "w"))
    assert shown.returncode == 1
    one_sentence(shown.stderr)


def test_quiet(cli):
    cli.make_session()
    assert cli("export", "--quiet").stderr == ""


def test_a_damaged_record_file_does_not_hide_the_rest(cli):
    session = cli.make_session("end=kill", "steps=400")
    (record,) = session.glob("records/*.pmrec")
    whole = record.read_bytes()
    record.write_bytes(whole[: len(whole) // 2])
    assert cli("export").returncode == 0
    record.write_bytes(b"nothing of ours" * 1000)
    assert cli("export").returncode == 0
    assert rows_of(session) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_another_users_session_is_not_written_into(cli, tmp_path):
    theirs = cli.make_session(*OLD)
    for path in [theirs, *theirs.rglob("*")]:
        os.chown(path, 12345, 12345)
    sentence = one_sentence(cli("export").stderr)
    assert "there is no session of yours" in sentence, "the newest is looked for among one's own"
    shown = cli("export", theirs.name)
    assert shown.returncode == 1 and "belongs to user 12345" in one_sentence(shown.stderr)
    assert not (theirs / "forward_pass_timing.csv").exists()
    assert cli("export", theirs.name, "--out", tmp_path / "out").returncode == 0
    assert len(rows_of(tmp_path / "out")) == 10


# ---- report ----


def test_the_report_of_a_session_and_of_a_running_one(cli):
    cli.make_session("steps=8")
    for words in ((), ("--text",)):
        shown = cli("report", *words)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert "made-up/model" in shown.stdout and "prefill" in shown.stdout
    _, process = cli.hold_session("steps=8")
    shown = cli("report")
    assert shown.returncode == 0 and "running" in shown.stdout
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert "killed" in cli("report").stdout


def test_the_report_as_json_and_in_brief(cli):
    cli.make_session("steps=8")
    shown = cli("report", "--json")
    assert shown.returncode == 0
    assert isinstance(json.loads(shown.stdout), dict)
    brief, full = cli("report", "--brief").stdout, cli("report").stdout
    assert 0 < len(brief) < len(full)


def test_the_report_of_no_session(cli):
    shown = cli("report")
    assert shown.returncode == 1 and "there is no session" in one_sentence(shown.stderr)
