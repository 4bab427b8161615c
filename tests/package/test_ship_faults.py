"""profilemate ship, ended and failing at every call that reaches a disk: nothing half, nothing lost, and the next run goes on."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from conftest import PROGRAM
from profilemate._shipsource import SourceError
from profilemate._shipstore import FileStore, StoreError
from profilemate.ship import _Shipper, _Words
from shipping import TEMPORARY, at_call, content, environment, fail, killed_at, make_session, quick_folder, shipment


@pytest.fixture(scope="module")
def memory(tmp_path_factory):
    folder = quick_folder(tmp_path_factory.mktemp("memory"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def room(memory) -> Path:
    return Path(tempfile.mkdtemp(dir=memory))


@pytest.fixture(scope="module")
def session(memory) -> Path:
    made = make_session(memory / "sessions", "steps=300")
    (made / "more").mkdir()
    (made / "more" / "file.csv").write_text("a\n")
    return made


@pytest.fixture(scope="module")
def reference(session, memory) -> dict[str, bytes]:
    """What a run without failures leaves at the target."""
    target = memory / "reference"
    assert shipment(session, target).round().complete
    return content(target)


def check(target: Path, reference: dict[str, bytes]) -> None:
    """Each object there is whole. (A manifest may tell of less: it is written last.)"""
    for name, data in content(target).items():
        assert data == reference[name], f"{name} is not what was meant"


def test_killed_at_every_call(session, reference, room):
    number = 0
    while killed_at(number, lambda n=number: shipment(session, room / str(n)).round()):
        target = room / str(number)
        check(target, reference)
        left = len(content(target))
        result = shipment(session, target).round()
        assert result.complete and content(target) == reference, number
        assert result.shipped <= len(reference) - left, "what had arrived was shipped again"
        shutil.rmtree(target)
        number += 1
    assert number > 100, "hardly a call was seen: the test looks at the wrong ones"


def test_each_call_fails(session, reference, room):
    number = failed = 0
    while True:
        target = room / str(number)
        part = shipment(session, target)
        try:
            with at_call(number, fail) as count:
                part.round()
        except (StoreError, SourceError, OSError) as error:
            failed += 1
            assert "\n" not in str(error)
        if count[0] <= number:
            break
        check(target, reference)
        assert not list(target.rglob(f"{TEMPORARY}*")), number
        assert shipment(session, target).round().complete and content(target) == reference, number
        shutil.rmtree(target)
        number += 1
    assert failed > 100 and number - failed < 30  # a temporary file that is gone already, a folder that is there


def test_a_removal_that_is_ended_anywhere(session, reference, room):
    """At each moment all of the session is here, or all of it is at the target."""
    source = content(session)

    def run(folder: Path, target: Path) -> int:
        words = _Words.of([f"session={folder}", "delete", "quiet"])
        return _Shipper(FileStore(target), words).run()

    number = removed = 0
    while True:
        folder, target = room / f"session_{number}", room / f"target_{number}"
        shutil.copytree(session, folder)
        went_on = killed_at(number, lambda f=folder, t=target: run(f, t))
        here = content(folder) if folder.exists() else {}
        if here != source:
            removed += 1
            assert not folder.exists(), "it goes by another name"
            assert content(target) == reference, number
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(folder.with_name(f".removing_{folder.name}"), ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        if not went_on:
            break
        number += 1
    assert removed > 3


def test_a_read_that_fails_while_removing_keeps_the_session(session, room, capsys):
    number = kept = 0
    source = content(session)
    while True:
        folder, target = room / f"session_{number}", room / f"target_{number}"
        shutil.copytree(session, folder)
        shipper = _Shipper(FileStore(target), _Words.of([f"session={folder}", "delete", "quiet"]))
        with at_call(number, fail) as count:
            code = shipper.run()
        if folder.exists():
            kept += 1
            assert code == 1 and content(folder) == source
        done = count[0] <= number
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(folder.with_name(f".removing_{folder.name}"), ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        if done:
            break
        number += 1
    assert kept > 100
    assert "Traceback" not in capsys.readouterr().err


def test_a_leftover_of_a_killed_shipper_goes_in_time(session, tmp_path):
    import os

    part = shipment(session, tmp_path)
    part.round()
    for name, age in (("old", 7200), ("new", 10)):
        leftover = tmp_path / part.folder / f"{TEMPORARY}{name}"
        leftover.write_text("half")
        now = leftover.stat().st_mtime
        os.utime(leftover, (now - age, now - age))
    assert shipment(session, tmp_path).round().shipped == 0
    assert [path.name for path in tmp_path.rglob(f"{TEMPORARY}*")] == [f"{TEMPORARY}new"]


def test_the_disk_at_the_target_is_full(session, tmp_path):
    """A file system of its own, too small; then with room."""
    mount = tmp_path / "mount"
    mount.mkdir()
    ship = f"'{PROGRAM}' ship --python '{sys.executable}' '{session}' 'file://{mount}'"
    script = (
        f"mount -t tmpfs -o size=16k none '{mount}' || exit 77; {ship}; echo code $?; ls -A '{mount}'/*/* | grep -c {TEMPORARY}; "
        f"mount -o remount,size=64m '{mount}'; {ship}; echo code $?"
    )
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, env=environment(), timeout=180
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no file system can be mounted here")
    lines = done.stdout.splitlines()
    assert lines[:2] == ["code 1", "0"] and lines[-1] == "code 0", (done.stdout, done.stderr)
    sentences = [line for line in done.stderr.splitlines() if line.startswith("profilemate: ")]
    assert len(sentences) == 1 and "No space left on device" in sentences[0] and "make room" in sentences[0]
