"""profilemate export and report: which session is meant, what is written, also of a killed and of a running one."""

import csv
import json
import os
import pty
import signal
import subprocess
import time

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
    shown = cli("report", "--text")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "made-up/model" in shown.stdout and "prefill" in shown.stdout
    _, process = cli.hold_session("steps=8")
    shown = cli("report", "--text")
    assert shown.returncode == 0 and "running" in shown.stdout
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert "killed" in cli("report", "--text").stdout


def test_the_report_as_json_and_in_brief(cli):
    cli.make_session("steps=8")
    shown = cli("report", "--json")
    assert shown.returncode == 0
    assert isinstance(json.loads(shown.stdout), dict)
    brief, full = cli("report", "--brief").stdout, cli("report", "--text").stdout
    assert 0 < len(brief) < len(full)


def test_the_report_of_no_session(cli):
    shown = cli("report")
    assert shown.returncode == 1 and "there is no session" in one_sentence(shown.stderr)


# ---- other formats, and parts ----


def test_a_timeline_goes_to_a_file_a_folder_or_stdout(cli, tmp_path):
    session = cli.make_session("steps=12")
    shown = cli("export", "--format=chrome", "--out", tmp_path / "trace.json")
    assert shown.returncode == 0 and f"{tmp_path}/trace.json" in shown.stderr
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert sum(event["ph"] == "X" and event["name"] == "schedule" for event in events) == 12
    assert cli("export", "--format=perfetto", "--quiet", "--out", tmp_path).stderr == ""
    assert (tmp_path / f"{session.name}.pftrace").stat().st_size > 1000
    with open(tmp_path / "redirected", "wb") as out:
        assert cli("export", "--format=perfetto", stdout=out).returncode == 0
    assert (tmp_path / "redirected").read_bytes() == (tmp_path / f"{session.name}.pftrace").read_bytes()
    assert oct((tmp_path / "trace.json").stat().st_mode & 0o777) == "0o600"


def test_metrics_end_with_the_formats_mark(cli):
    cli.make_session("steps=12")
    shown = cli("export", "--format=openmetrics")
    assert shown.returncode == 0 and shown.stdout.endswith("\n# EOF\n")
    assert 'profilemate_steps_total{model_name="made-up/model",engine="0",phase="prefill"} 3' in shown.stdout
    shown = cli("export", "--format=openmetrics", "--series=1h")
    assert shown.stdout.endswith("\n# EOF\n") and "# TYPE profilemate_schedule_seconds summary" in shown.stdout


@pytest.mark.parametrize("format", ["json", "csv-native", "chrome", "seed"])
def test_a_part_of_a_session(cli, tmp_path, format):
    cli.make_session("steps=12")
    out = tmp_path / "part"
    shown = cli("export", f"--format={format}", "--steps=2:5", "--out", out)
    assert shown.returncode == 0, shown.stderr
    if format == "json":
        rows = [json.loads(line) for line in (out / "steps.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [2, 3, 4, 5]
    elif format == "csv-native":
        with open(out / "steps.csv", newline="") as lines:
            assert [row["step"] for row in csv.DictReader(lines)] == ["2", "3", "4", "5"]
    elif format == "chrome":
        events = json.loads(out.read_text())["traceEvents"]
        assert [e["args"]["step"] for e in events if e["name"] == "schedule"] == [2, 3, 4, 5]
    else:
        assert len(rows_of(out)) == 4


def test_what_does_not_go_together(cli, tmp_path):
    cli.make_session()
    for words, said in (
        (("--format=svg",), "--format=svg is not known"),
        (("--format=chrome", "--preset=full"), "leave it out with --format=chrome"),
        (("--format=json", "--series=1s"), "--series belongs to --format=openmetrics"),
        (("--format=json", "--python=x"), "--python belongs to"),
        (("--format=openmetrics", "--series=soon"), "--series=soon is no interval"),
        (("--format=arrow",), "say where with --out DIR"),
        (("--last=5s",), "say where they go with --out DIR"),
    ):
        shown = cli("export", *words)
        assert shown.returncode == 2 and said in shown.stderr, words
    shown = cli("export", "--format=json", "--last=soon")
    assert shown.returncode == 1 and "--last soon" in one_sentence(shown.stderr)
    shown = cli("export", "--format=openmetrics", "--series=1ms", "--out", tmp_path / "metrics")
    assert shown.returncode in (0, 1) and "Traceback" not in shown.stderr


def test_a_full_disk_is_told(cli):
    cli.make_session("steps=400")
    for format in ("chrome", "perfetto", "openmetrics"):
        shown = cli("export", f"--format={format}", stdout=open("/dev/full", "w"))
        assert shown.returncode == 1, format
        one_sentence(shown.stderr)


def at_a_terminal(cli, *words, stdout=None, **env):
    """Starts the program with standard error on a terminal; the process, and the terminal's other end."""
    master, slave = pty.openpty()
    process = cli.start(*words, stdout=slave if stdout is None else stdout, stderr=slave, env={"TERM": "xterm", **env})
    os.close(slave)
    return process, master


def said_on(master, until=None):
    """What the terminal shows: to its end, or as soon as these words are there."""
    said = b""
    while until is None or until not in said:
        try:
            said += os.read(master, 4096)
        except OSError:  # the other end is closed
            break
    return said.decode()


def test_a_timeline_is_not_for_a_terminal(cli):
    cli.make_session()
    process, master = at_a_terminal(cli, "export", "--format=perfetto")
    assert "give --out FILE or redirect it" in said_on(master)
    assert process.wait(180) == 2
    os.close(master)


def test_long_work_shows_how_far_it_is(cli):
    """Standard output is not read before the bar is there: so the work takes as long as it has to."""
    cli.make_session("steps=20000")
    process, master = at_a_terminal(cli, "export", "--format=json", stdout=subprocess.PIPE)
    said = said_on(master, until=b" %")
    assert "export [" in said
    assert len(process.stdout.read().splitlines()) == 60000
    assert said_on(master).endswith("\r\x1b[K")
    assert process.wait(180) == 0
    os.close(master)


def test_no_bar_where_it_would_do_harm(cli):
    cli.make_session("steps=20000")
    process, master = at_a_terminal(cli, "export", "--format=json", stdout=subprocess.PIPE, TERM="dumb")
    time.sleep(1.3)  # the bar would be there by now: nothing has been read
    process.stdout.read()
    assert said_on(master) == ""
    assert process.wait(180) == 0
    os.close(master)
