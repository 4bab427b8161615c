"""The tests' side of harness.py: runs it in a process of its own, or keeps its fork server and asks it for children."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import serving
from harness import HEAD, Truth

HARNESS = str(Path(__file__).resolve().parent / "harness.py")


def environment(sessions: Path, **extra: str) -> dict[str, str]:
    return serving.clean_environment(**serving.profiled(sessions, preset="full"), VLLM_LOGGING_LEVEL="ERROR", **extra)


@dataclass
class Run:
    """What one run of the harness counted."""

    counts: dict[str, int]
    rows: list[dict[str, int]]
    summary: dict


class ForkServer:
    """harness.py --serve: a child per request, each ready to step a moment after it was asked for."""

    def __init__(self, env: dict[str, str]):
        self.errors = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115
        self.popen = subprocess.Popen(
            (sys.executable, HARNESS, "--serve"), env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.errors, text=True, start_new_session=True,
        )  # fmt: skip
        self.pid = self.answer()["ready"]

    def answer(self) -> dict:
        line = self.popen.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise RuntimeError(f"the harness ended:\n{self.errors.read()[-4000:]}")
        return json.loads(line)

    def ask(self, order: dict) -> dict:
        self.popen.stdin.write(json.dumps(order) + "\n")
        self.popen.stdin.flush()
        return self.answer()

    def spawn(self, arguments: list[str]) -> int:
        return self.ask({"spawn": arguments})["pid"]

    def run(self, folder: Path, arguments: list[str]) -> tuple[Run, int]:
        """Runs a child to its end; what it counted, and its pid."""
        folder.mkdir()
        truth, summary = folder / "truth", folder / "summary.json"
        pid = self.spawn([*arguments, "--truth", str(truth), "--summary", str(summary)])
        if self.wait(pid) != 0:
            self.errors.seek(0)
            raise RuntimeError(f"the harness's child failed:\n{self.errors.read()[-4000:]}")
        return Run(*Truth.read(truth), json.loads(summary.read_text())), pid

    def wait(self, pid: int) -> int:
        """How the child ended: its exit code, or minus the signal."""
        return self.ask({"wait": pid})["status"]

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        status = self.wait(pid)
        assert status == -signal.SIGKILL, f"the harness's child ended by itself with {status}"

    def close(self) -> None:
        self.popen.stdin.close()
        try:
            self.popen.wait(180)
        finally:
            serving.kill_session(self.popen.pid)
            self.errors.close()


def finished_steps(truth: Path) -> int:
    """How far a running child has come; 0 before it has made its file."""
    try:
        data = truth.read_bytes()[: HEAD.size]
    except FileNotFoundError:
        return 0
    return HEAD.unpack(data)[3] if len(data) == HEAD.size else 0
