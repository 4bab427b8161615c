"""Places that go wrong, made for one test each: small, full, limited, frozen, read-only. Skips where they cannot be had."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from patience import until

PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def tool(name: str) -> str:
    found = shutil.which(name, path=PATH)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def system(*words: str | Path, check: bool = True) -> str:
    """What a tool of the system prints; the test is skipped when it may not, or cannot, be done here."""
    done = subprocess.run([tool(str(words[0])), *map(str, words[1:])], capture_output=True, text=True, timeout=600)
    if check and done.returncode != 0:
        pytest.skip(f"{' '.join(map(str, words))}: {(done.stderr or done.stdout).strip()[:200]}")
    return done.stdout


@contextmanager
def mounted(where: Path, *words: str | Path):
    """`mount WORDS WHERE`, until the end of the block."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    where.mkdir()
    system("mount", *words, where)
    try:
        yield where
    finally:
        subprocess.run([tool("umount"), "-l", str(where)], check=False, timeout=600)


def tmpfs(where: Path, options: str):
    return mounted(where, "-t", "tmpfs", "-o", options, "none")


@contextmanager
def disk(where: Path, kind: str, megabytes: int, *options: str):
    """A file system of its own, on a loop device."""
    image = where.with_suffix(".image")
    maker = tool(f"mkfs.{kind}")
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    done = subprocess.run([maker, "-q", *options, str(image)], capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        pytest.skip(f"mkfs.{kind}: {done.stderr.strip()[:200]}")
    with mounted(where, "-o", "loop", "-t", kind, image) as place:
        yield place
    image.unlink()


def fill(folder: Path) -> Path:
    """Takes all the room that is left; the file that holds it."""
    hog = folder / "hog"
    with hog.open("wb", buffering=0) as file:
        for chunk in (1 << 20, 4096):
            try:
                while file.write(b"\0" * chunk) == chunk:
                    pass
            except OSError:
                continue
    return hog


def take_inodes(folder: Path) -> int:
    """Makes files until there can be no more; how many."""
    for count in range(1 << 20):
        try:
            (folder / f"hog-{count}").touch()
        except OSError:
            return count
    raise AssertionError(f"{folder} has no end of files")


@contextmanager
def mounted_by(words: list[str], where: Path):
    """A file system that a process serves until the end of the block, or until it is killed."""
    if os.geteuid() != 0 or not os.path.exists("/dev/fuse"):
        pytest.skip("a file system in user space needs root and /dev/fuse")
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as server:
        try:
            until(lambda: os.path.ismount(where) or server.poll() is not None)
            if server.poll() is not None:
                pytest.skip(f"{words[0]}: {server.stderr.read().decode()[:200]}")
            yield server
        finally:
            subprocess.run([tool("umount"), "-l", str(where)], check=False, timeout=600)
            server.kill()


class Group:
    """A control group: processes that share a limit of memory, or are frozen together. Of version 1 or 2."""

    KINDS = {"memory": ("memory.limit_in_bytes", "memory.max"), "freezer": ("freezer.state", "cgroup.freeze")}

    def __init__(self, kind: str):
        older, newer = self.KINDS[kind]
        why = "no control groups are mounted here"
        for root, knob in ((f"/sys/fs/cgroup/{kind}", older), ("/sys/fs/cgroup", newer)):
            if not (Path(root) / "cgroup.procs").exists():
                continue
            self.path = Path(root) / f"profilemate-e2e-{os.getpid()}-{kind}"
            try:
                self.path.mkdir()
            except OSError as error:
                why = str(error)
                continue
            if (self.path / knob).exists():
                self.knob, self.version = self.path / knob, 1 if knob == older else 2
                return
            self.path.rmdir()
            why = f"{root} has no {knob}"
        raise OSError(why)

    def usage(self) -> int:
        name = "memory.usage_in_bytes" if self.version == 1 else "memory.current"
        return int((self.path / name).read_text())

    def set(self, value: str) -> None:
        with self.knob.open("r+") as file:
            file.write(value)

    def add(self, pid: int) -> None:
        (self.path / "cgroup.procs").write_text(str(pid))

    def frozen(self) -> bool:
        if self.version == 1:
            return self.knob.read_text().strip() == "FROZEN"
        return "frozen 1" in (self.path / "cgroup.events").read_text()

    def close(self) -> None:
        def gone() -> bool:
            try:
                self.path.rmdir()
            except OSError:
                return False
            return True

        until(gone, f"{self.path} cannot be removed")
