"""The program under test: the real binary, in an environment with nothing of the profiler but what a test sets."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("PM_BUILD", ROOT / "build" / "release")).resolve()
PROGRAM = BUILD / "bin" / "profilemate"
MAKE_SESSION = BUILD / "tests" / "make_session"
SITE = BUILD / "site"


class Cli:
    """Runs the program with a home, a state folder and a sessions' folder of its own."""

    def __init__(self, tmp_path: Path):
        self.tmp = tmp_path
        self.sessions = tmp_path / "sessions"
        (tmp_path / "home").mkdir()
        keep = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "ASAN_OPTIONS", "UBSAN_OPTIONS")
        self.env = {name: os.environ[name] for name in keep if name in os.environ}
        self.env.update(HOME=str(tmp_path / "home"), TERM="dumb", VLLM_PROFILING_DIR=str(self.sessions))

    def environment(self, **extra: str | None) -> dict[str, str]:
        merged = {**self.env, **extra}
        return {name: value for name, value in merged.items() if value is not None}

    def __call__(self, *args: str | bytes | Path, env: dict | None = None, **kwargs) -> subprocess.CompletedProcess:
        kwargs.setdefault("timeout", 180)
        kwargs.setdefault("stdin", subprocess.DEVNULL)
        kwargs.setdefault("cwd", self.tmp)
        if "stdout" not in kwargs:
            kwargs["stdout"] = subprocess.PIPE
        kwargs.setdefault("stderr", subprocess.PIPE)
        return subprocess.run(
            [PROGRAM, *args], env=self.environment(**(env or {})), text=True, errors="replace", **kwargs
        )

    def start(self, *args: str | Path, env: dict | None = None, **kwargs) -> subprocess.Popen:
        kwargs.setdefault("stdin", subprocess.DEVNULL)
        kwargs.setdefault("stdout", subprocess.PIPE)
        kwargs.setdefault("stderr", subprocess.PIPE)
        return subprocess.Popen([PROGRAM, *args], env=self.environment(**(env or {})), text=True, cwd=self.tmp, **kwargs)

    def make_session(self, *words: str, directory: Path | None = None) -> Path:
        """A session made by the real recorder (tests/cli/make_session.c); its folder."""
        made = subprocess.run(
            [MAKE_SESSION, f"dir={directory or self.sessions}", *words],
            env=self.environment(),
            text=True,
            capture_output=True,
            timeout=180,
        )
        assert made.stdout, f"make_session failed: {made.stderr}"
        return Path(made.stdout.strip())

    def hold_session(self, *words: str) -> tuple[Path, subprocess.Popen]:
        """The same, of a process that lives until its stdin is closed."""
        process = subprocess.Popen(
            [MAKE_SESSION, f"dir={self.sessions}", "end=hold", *words],
            env=self.environment(),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return Path(process.stdout.readline().strip()), process


def one_sentence(text: str) -> str:
    """The complaint on stderr, which has to be a single line in the program's form."""
    lines = [line for line in text.splitlines() if not line.startswith("See `")]
    assert len(lines) == 1, f"not one sentence: {text!r}"
    assert lines[0].startswith("profilemate: "), text
    return lines[0]
