"""profilemate sessions: the list, and a removal that takes finished sessions of ours and nothing else."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from program import MAKE_SESSION, PROGRAM, one_sentence

OLD = ("start=1700000000", "name=session_20231114_221320")
OLDER = ("start=1600000000", "name=session_20200913_122640")


def listed(cli, *words) -> list[dict]:
    shown = cli("sessions", "--json", *words)
    assert (shown.returncode, shown.stderr) == (0, "")
    return json.loads(shown.stdout)["sessions"]


def age(session: Path, days: float):
    """Makes a session look as if nothing had been written to it for so long."""
    then = time.time() - days * 86400
    for path in [*session.rglob("*"), session]:
        os.utime(path, (then, then))


# ---- the list ----


def test_no_sessions(cli):
    shown = cli("sessions")
    assert (shown.returncode, shown.stdout) == (0, "")
    assert shown.stderr == f"No sessions in {cli.sessions}.\n"
    assert listed(cli) == []


def test_the_list_has_what_is_known_newest_first(cli):
    older = cli.make_session(*OLDER, "steps=40", "end=kill")
    newest = cli.make_session("steps=8")
    old = cli.make_session(*OLD, "end=none")
    rows = listed(cli)
    assert [row["path"] for row in rows] == [str(newest), str(old), str(older)]
    assert [row["state"] for row in rows] == ["ended", "empty", "killed"]
    assert [row["steps"] for row in rows] == [8, 0, 40]
    assert [row["processes"] for row in rows] == [1, 0, 1]
    assert [row["model"] for row in rows] == ["made-up/model", None, "made-up/model"]
    assert rows[2]["started"].startswith("2020-09-13T")
    assert all(row["name"] == Path(row["path"]).name and row["owner_uid"] == os.geteuid() for row in rows)
    assert rows[0]["bytes"] > 65536
    assert 0 <= rows[0]["duration_sec"] < 60
    text = cli("sessions").stdout.splitlines()
    assert text[0].split()[:3] == ["SESSION", "STARTED", "DURATION"]
    assert [line.split()[0] for line in text[1:]] == [row["name"] for row in rows]
    assert "killed" in text[3] and text[3].endswith("made-up/model")


def test_a_running_session_says_so_until_it_ends(cli):
    session, process = cli.hold_session("steps=3")
    assert [row["state"] for row in listed(cli)] == ["running"]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [(row["state"], row["steps"]) for row in listed(cli)] == [("killed", 3)]


def test_an_engine_that_vllm_killed_does_not_make_the_session_killed(cli):
    """vLLM stops its engines by SIGKILL: the session is as its front end, and the report explains the engine."""

    def state(front: str) -> tuple[str, str]:
        server = f"{MAKE_SESSION} session.env=1 end=kill & wait; {MAKE_SESSION} session.env=1 role=frontend end={front}"
        cli("run", "--quiet", "--", "sh", "-c", server)
        session = listed(cli)[0]
        assert session["processes"] == 2
        assert json.loads((Path(session["path"]) / "metadata.json").read_text())["state"] == session["state"]
        return session["state"], cli("report", "--text", session["path"]).stdout

    word, report = state("close")
    assert word == "ended" and "1 closed 1 killed" in report and "vLLM stops its engines by a kill" in report
    word, report = state("kill")
    assert word == "killed" and "vLLM stops its engines" not in report


def test_dir_looks_elsewhere(cli, tmp_path):
    cli.make_session()
    elsewhere = cli.make_session(directory=tmp_path / "else")
    assert [row["path"] for row in listed(cli, "--dir", tmp_path / "else")] == [str(elsewhere)]


def test_sessions_that_fell_back_are_listed_too(cli):
    state = cli.tmp / "home" / ".local" / "state"
    state.mkdir(parents=True)
    fallen = cli.make_session(directory=state / "profilemate")
    assert [row["path"] for row in listed(cli)] == [str(fallen)]


def make_hostile(base: Path, real: Path):
    """What another user could put into a folder that is open to all."""
    (base / "link").symlink_to(real)
    os.mkfifo(base / "fifo")
    (base / "file").write_text("token 00\n")
    (base / "empty").mkdir()
    for name, make in {
        "with_link": lambda path: path.symlink_to(real / "session"),
        "with_fifo": os.mkfifo,
        "with_folder": lambda path: path.mkdir(),
        "with_device": lambda path: path.symlink_to("/dev/zero"),
        "with_zeros": lambda path: path.write_bytes(bytes(100_000)),
        "with_noise": lambda path: path.write_bytes(os.urandom(5000)),
        "with_long_line": lambda path: path.write_text("token " + "a" * 100_000),
        "without_start": lambda path: path.write_text("version 1\ntoken " + "0" * 32 + "\n"),
        "with_short_token": lambda path: path.write_text("version 1\ntoken 00\nstart_real_ns 5\n"),
    }.items():
        (base / name).mkdir()
        make(base / name / "session")


def test_hostile_entries_are_left_out_and_left_alone(cli, tmp_path):
    real = cli.make_session(directory=tmp_path / "elsewhere")
    mine = cli.make_session()
    make_hostile(cli.sessions, real)
    before = sorted(path.name for path in cli.sessions.iterdir())
    assert [row["path"] for row in listed(cli)] == [str(mine)]
    shown = cli("sessions", "--prune", "--keep-mb", "0")
    assert shown.returncode == 0, shown.stderr
    assert sorted(path.name for path in cli.sessions.iterdir()) == [n for n in before if n != mine.name]
    assert (real / "session").exists()


def test_a_hostile_name_does_not_drive_the_terminal(cli):
    session = cli.make_session()
    hostile = session.with_name("session_\x1b]0;owned\x07\u202e\n2")
    session.rename(hostile)
    shown = cli("sessions")
    assert "\x1b" not in shown.stdout and "\x07" not in shown.stdout and "\u202e" not in shown.stdout
    assert len(shown.stdout.splitlines()) == 2
    assert listed(cli)[0]["path"] == str(hostile)


def test_records_of_any_bytes_do_not_hide_the_other_sessions(cli):
    bad, good = cli.make_session(*OLD), cli.make_session()
    for path in (bad / "records").iterdir():
        path.write_bytes(os.urandom(10_000))
    rows = listed(cli)
    assert [row["path"] for row in rows] == [str(good), str(bad)]
    assert rows[0]["state"] == "ended" and rows[1]["steps"] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may read what others own, and give files away")
def test_another_users_session_is_listed_with_its_owner_and_never_removed(cli):
    theirs = cli.make_session(*OLD)
    for path in [theirs, *theirs.rglob("*")]:
        os.chown(path, 12345, 12345)
    assert listed(cli)[0]["owner_uid"] == 12345
    assert "(of user 12345)" in cli("sessions").stdout
    cli("sessions", "--prune", "--keep-mb", "0")
    assert (theirs / "session").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_a_session_file_that_another_user_put_there_is_not_believed(cli):
    session = cli.make_session()
    os.chown(session / "session", 12345, 12345)
    assert listed(cli) == []


# ---- --prune ----


def pruned(cli, *words) -> dict:
    shown = cli("sessions", "--prune", "--json", *words)
    assert (shown.returncode, shown.stderr) == (0, "")
    return json.loads(shown.stdout)


def test_below_the_limit_nothing_goes(cli):
    cli.make_session(*OLD)
    assert pruned(cli)["removed"] == []
    assert len(listed(cli)) == 1


def test_the_oldest_go_until_the_rest_fits(cli):
    older, old, new = cli.make_session(*OLDER), cli.make_session(*OLD), cli.make_session()
    (older / "big").write_bytes(bytes(3 << 20))
    (old / "big").write_bytes(bytes(1 << 20))
    (new / "big").write_bytes(bytes(1 << 20))
    result = pruned(cli, "--keep-mb", "3")
    assert [each["path"] for each in result["removed"]] == [str(older)]
    assert result["kept"] == 2 and result["removed_bytes"] > 3 << 20
    assert not older.exists() and old.exists() and new.exists()
    assert list(cli.sessions.glob(".*")) == []


def test_a_dry_run_tells_the_same_and_removes_nothing(cli):
    old, new = cli.make_session(*OLD), cli.make_session()
    result = pruned(cli, "--keep-mb", "0", "--dry-run")
    assert [each["path"] for each in result["removed"]] == [str(old), str(new)]
    assert result["dry_run"] and old.exists() and new.exists()
    text = cli("sessions", "--prune", "--keep-mb", "0", "-n").stdout
    assert f"would remove {old} (" in text and "Would remove 2, kept 0 (0 B)" in text


def test_older_than_alone_takes_all_that_are_so_old(cli):
    older, old, new = cli.make_session(*OLDER), cli.make_session(*OLD), cli.make_session()
    age(older, days=9), age(old, days=8)
    assert {each["path"] for each in pruned(cli, "--older-than", "9d")["removed"]} == {str(older)}
    assert {each["path"] for each in pruned(cli, "--older-than", "1w")["removed"]} == {str(old)}
    assert new.exists()


def test_older_than_with_a_limit_takes_no_more_than_needed(cli):
    older, old = cli.make_session(*OLDER), cli.make_session(*OLD)
    (old / "big").write_bytes(bytes(1 << 20))
    age(older, days=9), age(old, days=9)
    assert pruned(cli, "--older-than", "1h", "--keep-mb", "100")["removed"] == []
    assert {each["path"] for each in pruned(cli, "--older-than", "1h", "--keep-mb", "2")["removed"]} == set()
    assert {each["path"] for each in pruned(cli, "--older-than", "1h", "--keep-mb", "1")["removed"]} == {
        str(older),
        str(old),
    }


def test_a_running_session_never_goes(cli):
    session, process = cli.hold_session()
    age(session, days=30)
    assert pruned(cli, "--keep-mb", "0")["removed"] == []
    assert (session / "session").exists()
    process.communicate()
    assert len(pruned(cli, "--keep-mb", "0")["removed"]) == 1


def test_a_session_about_to_begin_does_not_go(cli):
    """Its folder is there, its first process has not written yet."""
    session = cli.make_session("end=none")
    assert pruned(cli, "--keep-mb", "0")["removed"] == []
    age(session, days=1)
    assert len(pruned(cli, "--keep-mb", "0")["removed"]) == 1


def test_a_session_that_may_run_on_another_machine_does_not_go(cli):
    """On a network file system: its records lie on that machine's disk, nothing here tells that it has ended."""
    session = cli.make_session("end=none")
    lines = (session / "session").read_text().splitlines()
    kept = [line for line in lines if line.split()[0] not in ("boot_id", "host", "spool")]
    elsewhere = ["boot_id 00000000-0000-0000-0000-000000000000", "host another-machine", "spool /var/tmp/no-such-spool"]
    (session / "session").write_text("\n".join(kept + elsewhere) + "\n")
    age(session, days=30)
    assert pruned(cli, "--keep-mb", "0")["removed"] == []
    (session / "session").write_text("\n".join(kept + elsewhere[:2]) + "\n")
    age(session, days=30)
    assert len(pruned(cli, "--keep-mb", "0")["removed"]) == 1


def test_links_in_a_session_are_removed_and_what_they_point_to_stays(cli, tmp_path):
    session = cli.make_session(*OLD)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("keep me")
    (session / "folder").symlink_to(tmp_path / "precious")
    (session / "file").symlink_to(tmp_path / "precious" / "file")
    (session / "engine_1" / "rank_0").mkdir(parents=True)
    (session / "engine_1" / "rank_0" / "x.csv").write_text("a\n")
    assert len(pruned(cli, "--keep-mb", "0")["removed"]) == 1
    assert not session.exists()
    assert (tmp_path / "precious" / "file").read_text() == "keep me"


def test_a_removal_that_was_interrupted_is_finished_next_time(cli):
    session = cli.make_session(*OLD)
    half = session.with_name(".removing_" + session.name)
    session.rename(half)
    (half / "session").unlink()
    pruned(cli)
    assert not half.exists()


@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed")
def test_something_mounted_in_a_session_stays(cli, tmp_path):
    session = cli.make_session(*OLD)
    (session / "mount").mkdir()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("keep me")
    command = (
        f'mount -t tmpfs none "{session}/mount" && echo keep > "{session}/mount/file" && '
        f'"{PROGRAM}" sessions --prune --keep-mb 0; echo code $?; cat "{cli.sessions}"/.rem*/mount/file'
    )
    shown = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command], env=cli.environment(), capture_output=True, text=True, timeout=180
    )
    if "code" not in shown.stdout:
        pytest.skip(f"mounts may not be made here: {shown.stderr}")
    assert shown.stdout.endswith("code 1\nkeep\n"), shown.stdout
    assert "could not be removed completely" in one_sentence(shown.stderr)
