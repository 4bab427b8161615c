#!/usr/bin/env python3
"""What faults cost a step: the longest one while each is there, and the 99.9th percentile, on vLLM's real scheduler at full speed.

    python bench/bench_faults.py [--rounds 3] [--steps 3000] [--write]

Each round runs the same stretch of steps without the profiler, with it and no fault, and with it under each fault in turn;
--write puts the table into docs/FAULTS.md. By hand, as root (faults that cannot be made here are left out, and said so).
The driven process is tests/e2e/soaked.py, as in tests/e2e/test_faults_disk.py, which checks what becomes of the records.
A shared machine makes any step long: so each row also has the longest time that one step used a processor, and the longest of
those that waited for something (a disk, a lock) more often than a step does, which being put off by others is not.
PM_BUILD chooses the build, as in all tests.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import resource
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(ROOT / "tests"), str(ROOT / "bench")]

import faulty
import paired
import serving
from pytest import skip
from test_faults_disk import Driven, dormant

DOCUMENT = ROOT / "docs" / "FAULTS.md"
HOUR_NS = 3600 * 10**9
FROZEN_S = 1.0


class Stretch:
    """One run of steps under a fault: where it may lie, and how it steps."""

    def __init__(self, driven: Driven, place: Path, steps: int, clock: Path):
        self.driven, self.place, self.steps, self.clock = driven, place, steps, clock
        self.pid = driven.popen.pid

    def start(self, base: Path | None = None) -> Path:
        session = self.driven.start(base or self.place / "sessions", "max_mb=1024")
        self.driven.go(200)
        self.first = self.driven.totals["updated"]
        return session

    def go(self, part: float = 1.0) -> None:
        self.driven.go(int(self.steps * part))

    def move_clock(self, wall_ns: int) -> None:
        with self.clock.open("r+b") as file:  # mapped: it may not be cut for a moment
            file.write(struct.pack("<qq", wall_ns, 0))


# ---- the faults: each is made within the stretch, after `start` ----


def no_fault(run: Stretch) -> None:
    run.start()
    run.go()


def full(run: Stretch) -> None:
    with faulty.tmpfs(run.place / "small", "size=8m") as place:
        run.start(place)
        run.go(0.2)
        faulty.fill(place)
        run.go(0.8)


def quota(run: Stretch) -> None:
    faulty.tool("btrfs")
    with faulty.disk(run.place / "quota", "btrfs", 256) as place:
        faulty.system("btrfs", "subvolume", "create", place / "limited")
        faulty.system("btrfs", "quota", "enable", place)
        faulty.system("btrfs", "qgroup", "limit", "5M", place / "limited")
        run.start(place / "limited")
        run.go()


def no_inode(run: Stretch) -> None:
    with faulty.tmpfs(run.place / "few", "size=200m,nr_inodes=40") as place:
        run.start(place)
        faulty.take_inodes(place)
        run.go()


def file_limit(run: Stretch) -> None:
    run.start()
    resource.prlimit(run.pid, resource.RLIMIT_FSIZE, (4 << 20, resource.prlimit(run.pid, resource.RLIMIT_FSIZE)[1]))
    run.go()


def turned_read_only(run: Stretch) -> None:
    with faulty.disk(run.place / "broken", "ext4", 96) as place:
        run.start(place)
        run.go(0.2)
        faulty.system("sync", "-f", place)
        faulty.system("mount", "-o", "remount,abort", place)
        run.go(0.8)


def frozen(run: Stretch) -> None:
    freeze = faulty.tool("fsfreeze")
    with faulty.disk(run.place / "frozen", "ext4", 96) as place:
        run.start(place)
        run.go(0.2)
        run.driven.release()  # a step behind a hold has no times
        time.sleep(0.2)
        faulty.system("fsfreeze", "-f", place)
        try:
            time.sleep(FROZEN_S)
        finally:
            subprocess.run([freeze, "-u", str(place)], check=True)
        time.sleep(0.2)
        run.driven.hold()
        run.go(0.3)


def deleted(run: Stretch) -> None:
    run.start()
    run.go(0.2)
    subprocess.run(["rm", "-rf", str(run.place / "sessions")], check=True)
    run.go(0.8)


def renamed(run: Stretch) -> None:
    session = run.start()
    run.go(0.2)
    session.rename(session.with_name("session_20200101_000000"))
    run.go(0.8)


def fuse_hangs(run: Stretch) -> None:
    bindfs = faulty.tool("bindfs")
    kept, where = run.place / "kept", run.place / "remote"
    kept.mkdir(), where.mkdir()
    with faulty.mounted_by([bindfs, "-f", str(kept), str(where)], where) as server:
        run.start(where)
        run.go(0.2)
        server.send_signal(signal.SIGSTOP)
        try:
            run.go(0.8)
        finally:
            server.send_signal(signal.SIGCONT)
        run.driven.stop()


def no_descriptor(run: Stretch) -> None:
    run.start()
    used = max(map(int, os.listdir(f"/proc/{run.pid}/fd"))) + 1
    resource.prlimit(run.pid, resource.RLIMIT_NOFILE, (used, resource.prlimit(run.pid, resource.RLIMIT_NOFILE)[1]))
    run.go()


def clock_step(run: Stretch) -> None:
    run.start()
    for hours in (-26, 3):
        run.move_clock(hours * HOUR_NS)
        run.go(0.5)


FAULTS = {
    "no fault": no_fault, "disk full": full, "quota (btrfs)": quota, "no inode left": no_inode, "`ulimit -f`": file_limit,
    "turned read-only (ext4)": turned_read_only, f"file system frozen for {FROZEN_S:.0f} s (ext4)": frozen, "its folder deleted": deleted,
    "its folder renamed": renamed, "file system in user space hangs (FUSE)": fuse_hangs, "no descriptor left": no_descriptor,
    "wall clock stepped by −26 and 29 hours": clock_step,
}  # fmt: skip


# ---- what they cost ----


def times(driven: Driven, first: int) -> list[tuple[int, int, int]]:
    """Of the steps since the first: wall time, processor time, waits. Those behind a hold have none."""
    return [found for step in range(first, driven.totals["updated"]) if (found := driven.totals.times(step))[0]]


def one(driven: Driven, name: str, steps: int, clock: Path) -> list[tuple[int, int, int]]:
    limits = {kind: resource.prlimit(driven.popen.pid, kind) for kind in (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)}
    with tempfile.TemporaryDirectory(prefix="profilemate-faults-", ignore_cleanup_errors=True) as folder:
        run = Stretch(driven, Path(folder), steps, clock)
        try:
            with contextlib.ExitStack() as after:
                after.callback(driven.hold)
                for kind, limit in limits.items():
                    after.callback(resource.prlimit, driven.popen.pid, kind, limit)
                FAULTS[name](run)
            found = times(driven, run.first)
        finally:
            run.move_clock(0)
            driven.stop()
    return found


def milliseconds(ns: float) -> str:
    return f"{ns / 1e6:.2f}"


def row(name: str, rounds: list[list[tuple[int, int, int]]]) -> list[str]:
    every = sorted(step[0] for steps in rounds for step in steps)
    usual = statistics.median(step[2] for steps in rounds for step in steps)
    waited = [step[0] for steps in rounds for step in steps if step[2] > usual]
    longest = [max(step[0] for step in steps) for steps in rounds]
    return [
        name, f"{len(every):,}", milliseconds(statistics.median(every)), milliseconds(every[int(len(every) * 0.999)]),
        milliseconds(statistics.median(longest)), milliseconds(max(longest)),
        milliseconds(max(step[1] for steps in rounds for step in steps)), milliseconds(max(waited)) if waited else "none waited",
    ]  # fmt: skip


HEAD = ["fault", "steps", "median", "99.9 %", "longest, a round's", "longest of all", "longest on a processor", "longest that waited"]


def document(found: dict[str, list], missing: dict[str, str], rounds: int) -> str:
    lines = [
        f"`python bench/bench_faults.py --write`: vLLM's real scheduler at full speed, {rounds} rounds in turn, preset `full`, times of a step in "
        f"milliseconds, {os.cpu_count()} processors ({platform.machine()}), shared with others: what a step takes at most depends on them first, "
        "and the first two rows say by how much. *Longest, a round's*: the median of the rounds. *Longest on a processor*: the most that one step "
        "computed. *Longest that waited*: of the steps whose thread waited for something (a disk, a lock) more often than the usual step.\n",
        paired.table(HEAD, [row(name, each) for name, each in found.items() if each]).rstrip("\n"),
    ]
    lines += [f"\nNot made here: {name} ({why})." for name, why in missing.items()]
    return "\n".join(lines) + "\n"


def measure(opts: argparse.Namespace, folder: Path) -> str:
    clock, seam = folder / "clock", folder / "clock_seam.so"
    clock.write_bytes(bytes(16))
    subprocess.run(("gcc", "-O1", "-shared", "-fPIC", "-o", seam, ROOT / "tests/e2e/clock_seam.c", "-ldl"), check=True)
    moved = {"LD_PRELOAD": str(seam), "CLOCK_SEAM": str(clock)}  # in both, for its cost
    for name in ("plain", "ours"):
        (folder / name).mkdir()
    found: dict[str, list] = {"without the profiler": [], **{name: [] for name in FAULTS}}
    missing: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        plain = Driven(folder / "plain", {**serving.clean_environment(VLLM_LOGGING_LEVEL="ERROR"), **moved})
        stack.callback(plain.close)
        ours = Driven(folder / "ours", {**dormant(folder / "ours"), **moved})
        stack.callback(ours.close)
        for driven in (plain, ours):
            driven.totals["timed"] = 1
            driven.go(1000)
        for number in range(opts.rounds):
            plain.go(200)
            first = plain.totals["updated"]
            plain.go(opts.steps)
            found["without the profiler"].append(times(plain, first))
            for name in FAULTS:
                if name in missing:
                    continue
                try:
                    found[name].append(one(ours, name, opts.steps, clock))
                except skip.Exception as why:
                    missing[name] = str(why)
                print(number, name, *row("", [found[name][-1]])[1:] if found[name] else missing[name], file=sys.stderr, flush=True)
    return document(found, missing, opts.rounds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--write", action="store_true", help="put the table into docs/FAULTS.md")
    opts = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="profilemate-faults-", ignore_cleanup_errors=True) as folder:
        text = measure(opts, Path(folder))
    print(text, end="")
    if opts.write:
        paired.write(DOCUMENT, "faults", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
