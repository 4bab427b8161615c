"""Disks that go wrong under vLLM's real scheduler at full speed, whose records soon fill any small one.

One soaked.py runs throughout, dormant; each test has it record into a place of its own, breaks that, and compares the
session's totals with what the driven side counted in the meantime: exact, whatever became of the detail. The driven
side is held at the end of a step for each comparison.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import driving
import faulty
import pytest
import results
from patience import until
from soaked import NEVER, NEWEST, Totals

WORKLOAD = ["--num-blocks", "60", "--shared-prefix", "32", "--max-num-seqs", "16", "--steps", str(1 << 50)]
# Totals of `top` that hold for a session which began while requests were under way.
SAME = {"steps": "steps_with_tokens", "step_requests": "requests", "step_tokens": "tokens", "output_tokens": "output_tokens"}
MANY = 6_000  # steps: some MB of records


def profilemate(*words) -> dict:
    return json.loads(results.profilemate(*map(str, words)).stdout)


def dormant(folder: Path) -> dict[str, str]:
    environment = driving.environment(folder / "none", XDG_STATE_HOME=str(folder / "state"))
    environment["VLLM_ENABLE_PROFILING"] = "0"
    environment["PROFILEMATE_DORMANT"] = f"{os.getpid()}:{os.urandom(16).hex()}"  # as an engine core gets from its server
    return environment


class Driven:
    """A process that steps for ever, recording when told to."""

    def __init__(self, folder: Path, environment: dict[str, str] | None = None):
        """environment: another than that of a process which waits for `start`."""
        path, self.log = folder / "totals", folder / "driven.log"
        self.totals = Totals(path, make=True)
        words = (sys.executable, str(Path(__file__).with_name("soaked.py")), *WORKLOAD, "--totals", str(path))
        environment = dormant(folder) if environment is None else environment
        with self.log.open("wb") as log:
            self.popen = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.hold(1)
        self.said = 0

    def hold(self, more: int = 0) -> None:
        """Returns when it stands at the end of a step, so many further on."""
        self.totals["pause_at"] = self.totals["updated"] + more
        until(self.held, lambda: f"it does not stand still: {self.tail()}", every=0.002)

    def held(self) -> int:
        assert self.popen.poll() is None, f"it ended with {self.popen.returncode}: {self.tail()}"
        return self.totals["paused"]

    def release(self) -> None:
        self.totals["pause_at"] = NEVER
        until(lambda: not self.totals["paused"], "it does not go on", every=0.002)

    def go(self, steps: int) -> None:
        """So many steps, and it is held again."""
        self.totals["pause_at"] = self.totals["updated"] + steps
        until(lambda: self.totals["updated"] >= self.totals["pause_at"] and self.held(), self.tail, every=0.002)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]

    def news(self) -> list[str]:
        """What it printed since the last call."""
        text = self.log.read_text(errors="replace")
        new, self.said = text[self.said :], len(text)
        return new.splitlines()

    # ---- recording ----

    def start(self, base: Path, *settings: str) -> Path | None:
        self.news()
        shown = profilemate("start", self.popen.pid, f"dir={base}", *settings, "--json", "--wait", "170")
        self.base = {own: self.totals[own] for own in SAME.values()}
        return Path(shown["session"]) if shown["session"] else None

    def stop(self) -> None:
        results.profilemate("stop", "--no-export", self.popen.pid, "--wait", "170", check=False)
        until(lambda: ".pmrec" not in Path(f"/proc/{self.popen.pid}/maps").read_text(), "it records on")

    def compare(self, session: Path) -> dict:
        """The session's totals are the driven side's of the same time; what `top` shows."""
        (shown,) = profilemate("top", "--once", "--json", session)["sessions"]
        got = {name: shown["engines"][0]["total"][name] for name in SAME}
        assert got == {name: self.totals[own] - self.base[own] for name, own in SAME.items()}
        return shown

    def compare_records(self, session: Path) -> list[dict]:
        """The newest records are the driven side's newest rows, one by one; all that are kept."""
        rows = results.native(session, "sched_step")
        for row, step in zip(reversed(rows), range(self.totals["scheduled"] - 1, -1, -1), strict=False):
            if self.totals["scheduled"] - step > NEWEST:
                break
            own = self.totals.row(step)
            assert (row["requests"], row["tokens"]) == (own["requests"], own["tokens"]), step
        assert [row["step"] for row in rows] == list(range(rows[0]["step"], rows[0]["step"] + len(rows)))
        return rows

    def said_little(self) -> None:
        lines = self.news()
        assert not [line for line in lines if "Traceback" in line or "Error" in line], lines
        assert len([line for line in lines if "[ProfileMate]" in line]) <= 1, lines

    def close(self) -> None:
        self.popen.kill()
        self.popen.wait()


@pytest.fixture(scope="module")
def driven(folder):
    process = Driven(folder)
    yield process
    process.close()


@pytest.fixture
def recording(driven, request):
    """Whatever a test does: afterwards nothing is recorded, and no limit holds. (-s shows the longest step.)"""
    driven.totals["longest_ns"] = 0
    yield driven
    print(f"{request.node.name}: longest step {driven.totals['longest_ns'] / 1e6:.2f} ms")
    resource.prlimit(driven.popen.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    driven.hold()
    driven.stop()


def doctor(session: Path) -> str:
    return results.profilemate("doctor", session, check=False).stdout


def test_a_sound_disk(recording, tmp_path):
    """What the others are held against."""
    session = recording.start(tmp_path / "sound")
    recording.go(3000)
    recording.compare(session)
    recording.stop()
    assert len(recording.compare_records(session)) == 3000
    assert "found the disk full" not in doctor(session)
    recording.said_little()


def test_full_while_recording_then_room_again(recording, tmp_path):
    with faulty.tmpfs(tmp_path / "small", "size=8m") as place:
        session = recording.start(place, "max_mb=1024")
        recording.go(MANY // 4)
        hog = faulty.fill(place)
        recording.go(MANY)
        recording.compare(session)
        assert "found the disk full" in doctor(session)
        kept = recording.compare_records(session)
        assert 1000 < len(kept) < MANY, "nothing had to go"
        hog.unlink()
        recording.go(MANY)
        recording.compare(session)
        recording.stop()
        assert len(recording.compare_records(session)) > len(kept)
        recording.said_little()


def test_a_quota(recording, tmp_path):
    faulty.tool("btrfs")
    with faulty.disk(tmp_path / "quota", "btrfs", 256) as place:
        base = place / "limited"
        faulty.system("btrfs", "subvolume", "create", base)
        faulty.system("btrfs", "quota", "enable", place)
        faulty.system("btrfs", "qgroup", "limit", "7M", base)
        session = recording.start(base, "max_mb=1024")
        recording.go(MANY)
        recording.compare(session)
        assert "found the disk full" in doctor(session)
        recording.stop()
        assert 1000 < len(recording.compare_records(session)) < MANY
        recording.said_little()


def test_no_inode_left_while_recording(recording, tmp_path):
    """What records goes on; only what would be a new file cannot be: told by who wants to write it."""
    with faulty.tmpfs(tmp_path / "few", "size=200m,nr_inodes=40") as place:
        session = recording.start(place)
        assert faulty.take_inodes(place) > 0
        recording.go(3000)
        recording.compare(session)
        recording.stop()
        assert len(recording.compare_records(session)) == 3000
        written = results.profilemate("export", session, check=False)
        assert written.returncode == 1 and "No space left" in written.stderr and "Traceback" not in written.stderr
        recording.said_little()


def test_no_inode_left_before(recording, tmp_path):
    with faulty.tmpfs(tmp_path / "none", "size=20m,nr_inodes=10") as place:
        faulty.take_inodes(place)
        session = recording.start(place)
        recording.go(1000)
        assert session is None or place not in session.parents
        recording.said_little()


def test_a_limit_on_file_sizes(recording, tmp_path):
    """Set on the running process, below what its file will want."""
    session = recording.start(tmp_path / "limited", "max_mb=1024")
    resource.prlimit(recording.popen.pid, resource.RLIMIT_FSIZE, (4 << 20, resource.RLIM_INFINITY))
    recording.go(MANY)
    recording.compare(session)
    recording.stop()
    assert 1000 < len(recording.compare_records(session)) < MANY
    recording.said_little()


def test_a_file_system_that_turns_read_only(recording, tmp_path):
    """As ext4 does after an error of its disk: no page can be written back any more, none may be asked for."""
    with faulty.disk(tmp_path / "broken", "ext4", 96) as place:
        session = recording.start(place, "max_mb=1024")
        first = recording.totals["scheduled"]
        recording.go(2000)
        faulty.system("sync", "-f", place)
        faulty.system("mount", "-o", "remount,abort", place)
        recording.go(2 * MANY)
        rows = results.native(session, "sched_step")
        assert 2000 <= len(rows) < 2000 + 2 * MANY, "it went on into what was allocated, and no further"
        for number, row in enumerate(rows):
            own = recording.totals.row(first + number)
            assert (row["step"], row["requests"], row["tokens"]) == (number, own["requests"], own["tokens"])
        assert "lost" in doctor(session)
        recording.stop()
        recording.said_little()


def test_a_folder_that_is_read_only(recording, tmp_path):
    with faulty.tmpfs(tmp_path / "fixed", "size=20m,ro") as place:
        session = recording.start(place)
        recording.go(2000)
        recording.compare(session)
        assert place not in session.parents, "it lies in one's own state folder"
        recording.said_little()


def test_a_disk_that_stands_still(recording, tmp_path):
    """Frozen, as for a snapshot: the server may wait for it as for any file that it writes, and goes on with it."""
    with faulty.disk(tmp_path / "frozen", "ext4", 96) as place:
        session = recording.start(place, "max_mb=1024")
        recording.go(2000)
        freeze = faulty.tool("fsfreeze")
        faulty.system("fsfreeze", "-f", place)
        try:
            recording.release()
            time.sleep(float(os.environ.get("PM_FREEZE", "0.2")))  # whatever it does meanwhile is right
        finally:
            subprocess.run([freeze, "-u", str(place)], check=True)
        recording.hold()
        recording.go(3000)
        recording.compare(session)
        recording.stop()
        recording.compare_records(session)
        recording.said_little()


def test_stopped_and_continued(recording, tmp_path):
    session = recording.start(tmp_path / "stopped")
    recording.go(500)
    recording.release()
    for _ in range(20):
        recording.popen.send_signal(signal.SIGSTOP)
        until(lambda: Path(f"/proc/{recording.popen.pid}/stat").read_text().rsplit(") ", 1)[1][0] == "T")
        recording.popen.send_signal(signal.SIGCONT)
    recording.hold()
    recording.go(500)
    recording.compare(session)
    recording.stop()
    assert len(recording.compare_records(session)) >= 1000
    recording.said_little()


def test_the_folder_is_renamed_and_then_deleted(recording, tmp_path):
    base = tmp_path / "moving"
    session = recording.start(base)
    recording.go(1000)
    moved = session.with_name("session_20200101_000000")
    session.rename(moved)
    recording.go(1000)
    recording.compare(moved)
    assert len(recording.compare_records(moved)) == 2000
    subprocess.run(["rm", "-rf", str(base)], check=True)
    recording.go(MANY)
    recording.stop()
    assert not base.exists()
    recording.said_little()


def test_a_network_file_system_that_goes_away(recording, tmp_path):
    """A file system in user space counts as one: records lie on a local disk, and come home at the end."""
    bindfs = faulty.tool("bindfs")
    kept, where = tmp_path / "kept", tmp_path / "remote"
    kept.mkdir(), where.mkdir()
    with faulty.mounted_by([bindfs, "-f", str(kept), str(where)], where) as server:
        session = recording.start(where)
        recording.go(1000)
        recording.compare(session)
        assert not list((session / "records").glob("*.pmrec")), "records lie in a network's folder"
        recording.stop()
        recording.compare_records(session)
        assert list((session / "records").glob("*.pmrec")), "they did not come home"
        session = recording.start(where)
        recording.go(1000)
        server.kill()
        server.wait()
        recording.go(1000)
        recording.stop()
        recording.said_little()


