"""Starts real vLLM processes for the tests and the demo: servers, and LLM() scripts; talks to them; ends them.

Every server runs in a session of its own, and everything that is still in that session is killed, by pid, when the
server is closed, whatever happened in between.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = Path(os.environ.get("PM_BUILD", ROOT / "build" / "release"))
PROGRAM = BUILD / "bin" / "profilemate"
READY_DEADLINE_S = float(os.environ.get("PM_READY_DEADLINE", "480"))  # below the tests' own, so that what the server said is shown
MODEL_NAME = "tiny"


def clean_environment(**extra: str) -> dict[str, str]:
    """The environment of a vLLM process on the CPU, with nothing of the profiler unless it is asked for."""
    ours = ("VLLM_", "PROFILEMATE_", "PYTHON", "PYTEST_", "PM_", "COV_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment.update(
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', os.defpath)}",
        VLLM_CPU_KVCACHE_SPACE="1",
        VLLM_NO_USAGE_STATS="1",
        VLLM_CACHE_ROOT=str(ROOT / "build" / "cache" / "vllm"),
        TORCHINDUCTOR_CACHE_DIR=str(ROOT / "build" / "cache" / "inductor"),
        HF_HUB_OFFLINE="1",
        TOKENIZERS_PARALLELISM="false",
    )
    environment.update(extra)
    return environment


def profiled(sessions: Path, preset: str = "simple", **extra: str) -> dict[str, str]:
    """What a user sets to profile by PYTHONPATH alone."""
    site = BUILD / "site"
    return {
        "PYTHONPATH": str(site / "simple" if preset == "simple" else site),
        "VLLM_ENABLE_PROFILING": "1",
        "VLLM_PROFILING_DIR": str(sessions),
        **extra,
    }


def newer_runner(environment: dict[str, str]) -> dict[str, str]:
    """The same, for vLLM's newer model runner, which needs Triton's interpreter on the CPU (see mrv2/)."""
    path = [environment.get("PYTHONPATH", ""), str(HERE / "mrv2")]
    return {
        **environment,
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "VLLM_USE_V2_MODEL_RUNNER": "1",
        "TRITON_INTERPRET": "1",
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Process:
    pid: int
    parent: int
    name: str
    command: str


def processes_of(session: int) -> list[Process]:
    """The living processes of a Unix session (zombies left out), oldest first."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue  # it ended while we looked
        name, fields = stat[stat.index("(") + 1 : stat.rindex(")")], stat[stat.rindex(")") + 2 :].split()
        if int(fields[3]) == session and fields[0] not in "ZX":
            found.append((int(fields[19]), Process(int(entry.name), int(fields[1]), name, command)))
    return [process for _, process in sorted(found, key=lambda pair: (pair[0], pair[1].pid))]


def kill_session(session: int) -> None:
    """Ends what is left of a session that we started; returns when it is gone."""
    deadline = time.monotonic() + 180
    while left := processes_of(session):
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes {[process.pid for process in left]} do not end")
        for process in left:
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.05)


class Metrics:
    """vLLM's own counters, from one scrape of /metrics."""

    LINE = re.compile(r"^(?P<name>[a-zA-Z_:][\w:]*)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+)")

    def __init__(self, text: str):
        self.samples: list[tuple[str, dict[str, str], float]] = []
        for line in text.splitlines():
            if match := self.LINE.match(line):
                labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match["labels"] or ""))
                self.samples.append((match["name"], labels, float(match["value"])))

    def sum(self, name: str, **labels: str) -> int:
        """The sum over all engines of a counter; KeyError when vLLM has no such one."""
        values = [
            value
            for sample, has, value in self.samples
            if sample == name and all(has.get(key) == wanted for key, wanted in labels.items())
        ]
        if not values:
            raise KeyError(f"/metrics has no {name} with {labels}")
        return int(sum(values))


class Server:
    """One OpenAI-compatible server on a free loopback port.

    launcher: "module" (python -m vllm.entrypoints.openai.api_server) or "serve" (vllm serve); before: a command to
    put before it, as `profilemate run --`. Standard output and error go to files named after `log`.
    """

    def __init__(
        self,
        model: Path,
        log: Path,
        environment: dict[str, str],
        arguments: tuple[str, ...] = (),
        launcher: str = "module",
        before: tuple[str, ...] = (),
        eager: bool = True,
        cwd: Path | None = None,
    ):
        self.port = free_port()
        self.headers: dict[str, str] = {}
        options = (
            "--host", "127.0.0.1", "--port", str(self.port), "--served-model-name", MODEL_NAME, "--dtype", "float32",
            "--max-model-len", "1024", "--gpu-memory-utilization", "0.2", *(("--enforce-eager",) if eager else ()),
            *arguments,
        )  # fmt: skip
        if launcher == "serve":
            command = (str(Path(sys.executable).parent / "vllm"), "serve", str(model), *options)
        else:
            command = (sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), *options)
        self.stdout, self.stderr = log.with_suffix(".stdout"), log.with_suffix(".stderr")
        with self.stdout.open("wb") as out, self.stderr.open("wb") as err:
            self.popen = subprocess.Popen(
                (*before, *command), env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                start_new_session=True, cwd=cwd,
            )  # fmt: skip
        self.session = self.popen.pid

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_failure) -> None:
        self.close()

    def close(self) -> None:
        """Kills whatever is left; fine when it has ended."""
        kill_session(self.session)
        self.popen.wait()

    # Life

    def wait_ready(self) -> Server:
        """Waits until /health answers; RuntimeError with the end of stderr when it does not in time."""
        deadline = time.monotonic() + READY_DEADLINE_S
        while True:
            try:
                self.get("/health")
                return self
            except (urllib.error.URLError, OSError):
                if self.popen.poll() is not None:
                    raise RuntimeError(f"the server ended with {self.popen.returncode}:\n{self.tail()}") from None
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the server was not ready in time:\n{self.tail()}") from None
                time.sleep(0.2)

    def tail(self, lines: int = 40) -> str:
        return "\n".join((self.stdout.read_text() + self.stderr.read_text()).splitlines()[-lines:])

    def errors(self) -> str:
        return self.stderr.read_text(errors="replace")

    def output(self) -> str:
        return self.stdout.read_text(errors="replace")

    def processes(self) -> list[Process]:
        return processes_of(self.session)

    def pids(self, kind: str) -> list[int]:
        """Processes by what vLLM calls them: "api", "engine" or "worker"."""
        marks = {"api": "api_server|/vllm serve|APIServer", "engine": "EngineCore", "worker": "Worker"}
        return [
            process.pid
            for process in self.processes()
            if re.search(marks[kind], process.command) and process.name != "profilemate"
        ]

    def stop(self, how: signal.Signals = signal.SIGINT, timeout: float = 180) -> int:
        """Signals the first process only, as a terminal's user or a service manager would; returns its exit code."""
        self.popen.send_signal(how)
        code = self.popen.wait(timeout)
        self.wait_gone(timeout)
        return code

    def wait_gone(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while left := self.processes():
            if time.monotonic() > deadline:
                raise RuntimeError(f"still running: {[(p.pid, p.command[:80]) for p in left]}")
            time.sleep(0.1)

    # Requests

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=600) as reply:
            return reply.read().decode()

    def post(self, path: str, body: dict, timeout: float = 600) -> bytes:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **self.headers},
        )
        with urllib.request.urlopen(request, timeout=timeout) as reply:
            return reply.read()

    def metrics(self) -> Metrics:
        return Metrics(self.get("/metrics"))

    def complete(self, prompt: list[int] | str, max_tokens: int, stream: bool = False, **more) -> list[int]:
        """One greedy completion of exactly max_tokens; returns its token ids (none when streamed)."""
        body = {
            "model": MODEL_NAME,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "return_token_ids": True,
            "stream": stream,
            **more,
        }
        reply = self.post("/v1/completions", body)
        return [] if stream else json.loads(reply)["choices"][0]["token_ids"]

    def complete_all(self, requests: list[dict], concurrency: int = 16) -> list[list[int]]:
        """Many completions at once; each dict holds the arguments of complete()."""
        with ThreadPoolExecutor(concurrency) as pool:
            return list(pool.map(lambda request: self.complete(**request), requests))

    def complete_in_background(self, requests: list[dict]) -> None:
        """Sends completions whose answers nobody waits for; their failures are of no interest."""

        def send(request: dict) -> None:
            try:
                self.complete(**request)
            except OSError:
                pass

        for request in requests:
            threading.Thread(target=send, args=(request,), daemon=True).start()


def run_llm(
    spec: dict, environment: dict[str, str], timeout: float = 300, python: str | Path = sys.executable
) -> tuple[dict, str]:
    """Runs offline.py (an LLM() script in a process of its own) with a specification; returns its result and stderr.

    The result gets its standard output, where vLLM logs, as "log". Everything it leaves running is killed; a failure
    raises with the end of its output.
    """
    command = (str(python), str(HERE / "offline.py"), "-")
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True, text=True, errors="replace",
    )  # fmt: skip
    try:
        out, err = process.communicate(json.dumps(spec), timeout=timeout)
    finally:
        kill_session(process.pid)
        process.wait()
    if process.returncode != 0:
        raise RuntimeError(f"offline.py ended with {process.returncode}:\n{(out + err)[-4000:]}")
    result = [line for line in out.splitlines() if line.startswith("RESULT ")]
    return {**json.loads(result[-1].removeprefix("RESULT ")), "log": out}, err
