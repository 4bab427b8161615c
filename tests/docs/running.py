"""Runs the blocks of the documents as a reader would: at a terminal, with `profilemate`, `vllm`, `python` on PATH."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import termios
from dataclasses import dataclass
from pathlib import Path

from blocks import ROOT, Block, Unit

sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(ROOT / "scripts"), str(ROOT / "tests" / "cli")]

import demo  # noqa: E402
import serving  # noqa: E402
import tiny  # noqa: E402
from test_trace import server as trace_of_a_server  # noqa: E402

DEFAULT_DIR = "/tmp/vllm_profiling"
# What a CPU and a tiny model need beside the words of a document.
OPTIONS = (
    "--served-model-name MODEL tiny --dtype float32 --max-model-len 1024 --gpu-memory-utilization 0.2 --enforce-eager"
)
# A reader's shell has no pipefail, a test's should; but `sort … | head` would then fail by SIGPIPE now and then, unless
# head reads to the end.
SHELL = ("bash", "-euo", "pipefail", "-c")
HEAD = 'head() { command head "$@"; cat >/dev/null; }\n'


@dataclass
class Served:
    """What a server of a document left behind."""

    session: Path
    errors: str


class Terminal(serving.Server):
    """A server started by a block in a shell with a terminal of its own, so that Ctrl+C can be pressed."""

    def __init__(self, script: str, port: int, log: Path, environment: dict[str, str], cwd: Path):
        self.port, self.headers = port, {}
        self.stdout, self.stderr = log.with_suffix(".stdout"), log.with_suffix(".stderr")
        self.keyboard, terminal = pty.openpty()
        with self.stdout.open("wb") as out, self.stderr.open("wb") as err:
            self.popen = subprocess.Popen(
                (*SHELL, script), env=environment, stdin=terminal, stdout=out, stderr=err,
                cwd=cwd, start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            )  # fmt: skip
        os.close(terminal)
        self.session = self.popen.pid

    def press_ctrl_c(self) -> int:
        os.write(self.keyboard, b"\x03")
        code = self.popen.wait(180)
        self.wait_gone(90)
        return code

    def close(self) -> None:
        super().close()
        os.close(self.keyboard)


class World:
    """A folder for everything, and the sessions that were made so far."""

    def __init__(self, folder: Path):
        self.folder, self.count = folder, 0
        self.kept: dict[str, Served] = {}

    def fresh(self, name: str) -> Path:
        self.count += 1
        path = self.folder / f"{self.count:02}-{name}"
        path.mkdir()
        return path

    def environment(self, sessions: Path, **extra: str) -> dict[str, str]:
        environment = serving.clean_environment(VLLM_PROFILING_DIR=str(sessions), TERM="dumb", **extra)
        environment["PATH"] = f"{serving.PROGRAM.parent}{os.pathsep}{environment['PATH']}"
        return environment

    def adapted(self, text: str, sessions: Path, port: int | None = None) -> str:
        """The block with its folders and its port replaced by ours, and nothing else."""
        text = text.replace(DEFAULT_DIR, str(sessions)).replace("build/release", os.path.relpath(serving.BUILD, ROOT))
        return text if port is None else text.replace("8000", str(port))

    def traces(self) -> Path:
        """A folder with the traces that the guides name: of two ranks, before and after a change, and one to read."""
        folder = self.fresh("traces")
        (folder / "profiler_output").mkdir()
        slow = {"rank1": 1.5, "after": 2.0}
        for name in (
            "rank0.pt.trace.json.gz", "rank1.pt.trace.json.gz", "before.json.gz", "after.json.gz", "trace.json",
            "profiler_output/trace.json",
        ):  # fmt: skip
            made = trace_of_a_server(rank=int("rank1" in name), steps=6, slow=slow.get(name.split(".")[0], 1.0))
            text = json.dumps(made).encode()
            (folder / name).write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
        return folder

    def run(self, block: Block, sessions: Path, cwd: Path, port: int | None = None, **extra: str) -> None:
        """Runs a block that ends; AssertionError with what it said when it ends otherwise than it should."""
        text = self.adapted(block.text, sessions, port)
        command = ("python", "-c", text) if block.language == "python" else (*SHELL, HEAD + text)
        done = subprocess.run(
            command, cwd=cwd, env=self.environment(sessions, **extra), stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=600,
        )  # fmt: skip
        said = f"{text}\n--- standard output\n{done.stdout[-3000:]}\n--- standard error\n{done.stderr[-3000:]}"
        assert done.returncode == block.exit_code, f"{block.name} ended with {done.returncode}:\n{said}"
        assert "Traceback" not in done.stderr, f"{block.name}:\n{said}"

    def serve(self, unit: Unit) -> Served:
        """Starts what the block starts, sends requests, runs the blocks beside it, presses Ctrl+C; once per unit."""
        block = unit.block
        if block.name in self.kept:
            return self.kept[block.name]
        folder = self.fresh(re.sub(r"\W+", "-", block.name))
        sessions, port = folder / "sessions", serving.free_port()
        text = self.adapted(block.text, sessions, port)
        assert "MODEL" in text, f"{block.name}: a `serve` block names its model MODEL"
        with_port = OPTIONS if str(port) in text else f"{OPTIONS} --port {port}"
        once = block.asks("serve once")
        text = re.sub(r"\bMODEL\b", f"{tiny.make('llama')} {'' if once else with_port}", text)
        # PYTHONPATH and relative names of the documents count from the checkout.
        server = Terminal(text, port, folder / "server", self.environment(sessions), ROOT)
        with server:
            if once:
                code = server.popen.wait(300)
                server.wait_gone(90)
            else:
                server.wait_ready()
                server.complete_all(demo.requests()[:24], concurrency=8)
                for beside in unit.beside:
                    self.run(beside, sessions, folder, port)
                code = server.press_ctrl_c()
        assert code in (0, 130, -2), f"{block.name} ended with {code}:\n{server.tail()}"
        made = sorted(sessions.glob("session_*")) if sessions.exists() else []
        assert len(made) == 1, f"{block.name} left {[path.name for path in made]} in its folder:\n{server.tail()}"
        self.kept[block.name] = Served(made[0], server.errors())
        return self.kept[block.name]

    def harness(self, preset: str) -> Served:
        """A session without a server: vLLM's own scheduler with a model that stands in (tests/e2e/harness.py)."""
        if preset not in self.kept:
            folder = self.fresh(preset)
            sessions = folder / "sessions"
            done = subprocess.run(
                (sys.executable, ROOT / "tests" / "e2e" / "harness.py", "--requests", "40", "--num-blocks", "60"),
                env=serving.clean_environment(**serving.profiled(sessions, preset), VLLM_LOGGING_LEVEL="ERROR"),
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr[-3000:]
            (session,) = sessions.iterdir()
            self.kept[preset] = Served(session, done.stderr)
        return self.kept[preset]

    def copy_of(self, served: Served) -> Path:
        """The session, with its files, in a sessions' folder that a block may do with as it likes."""
        sessions = self.fresh("copy")
        session = shutil.copytree(served.session, sessions / served.session.name)
        done = subprocess.run(
            [serving.PROGRAM, "export", "--quiet", session], capture_output=True, text=True, timeout=180
        )
        assert done.returncode == 0, done.stderr
        return session
