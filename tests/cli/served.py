"""`profilemate serve` as its clients see it: started, asked, listened to, ended. For the tests of it here and in tests/e2e."""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import time
from pathlib import Path

from patience import PATIENCE_S
from program import BUILD

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"


class Served:
    """One `profilemate serve`, on a port of its own."""

    def __init__(self, program: Path, *options: str | Path, env: dict, cwd: Path | None = None):
        self.token: str | None = None
        self.process = subprocess.Popen(
            [program, "serve", *(() if "--listen" in options else ("--listen", "127.0.0.1:0")), *map(str, options)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env, cwd=cwd,
        )  # fmt: skip
        self.url = self.process.stdout.readline().strip()
        found = re.fullmatch(r"http://[\d.]+:(\d+)/", self.url)
        assert found, f"it does not listen: {self.url!r} {self.process.stderr.read()}"
        self.port = int(found[1])

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_) -> None:
        """Asked to end, for a killed one would not say what it reached (scripts/coverage)."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise

    def ask(self, path: str, method: str = "GET", headers: dict | None = None) -> tuple[int, dict, bytes]:
        """Status, headers (lower case), body."""
        headers = {**({"Authorization": f"Bearer {self.token}"} if self.token else {}), **(headers or {})}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, body

    def get(self, path: str, accept: str | None = None) -> bytes:
        status, _, body = self.ask(path, headers={"Accept": accept} if accept else None)
        assert status == 200, (status, body)
        return body

    def json(self, path: str):
        return json.loads(self.get(path))

    def sessions(self) -> list[dict]:
        return self.json("/api/sessions")["sessions"]

    def metrics(self) -> dict[tuple, float]:
        return samples(self.get("/metrics").decode())

    def send(self, data: bytes) -> socket.socket:
        """A connection on which this was sent, in whatever state that leaves it."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
        connection.sendall(data)
        return connection

    def raw(self, data: bytes) -> bytes:
        """All that comes back until the other end closes."""
        with self.send(data) as connection:
            got = b""
            try:
                while block := connection.recv(65536):
                    got += block
            except ConnectionResetError:
                pass
            return got

    def listen(self) -> Events:
        return Events(self)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """The exit code, and what it said."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, errors

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def sockets(self) -> int:
        """That it listens on is one of them."""
        count = 0
        for link in Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                count += os.readlink(link).startswith("socket:")
            except OSError:
                pass  # closed meanwhile
        return count

    def resident_kb(self) -> int:
        return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())[1])


class Engine:
    """A session that grows as it is told (live_session.c)."""

    def __init__(self, cli, name: str, *words: str, session: str | None = None):
        real, mono = time.time_ns(), time.monotonic_ns()
        self.cli, self.name = cli, name
        self.session = session or f"{name}:{secrets.token_hex(16)}:{mono}:{real}:{os.getpid()}"
        self.process = subprocess.Popen(
            [BUILD / "tests" / "live_session", *words], env=cli.environment(VLLM_PROFILING_SESSION=self.session),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        self.path = self.process.stdout.readline().strip()

    def beside(self, *words: str) -> Engine:
        """Another process of the same session."""
        return Engine(self.cli, self.name, *words, session=self.session)

    def obey(self, line: str) -> None:
        self.process.stdin.write(line + "\n")
        assert self.process.stdout.readline() == "done\n"

    def end(self) -> None:
        self.process.communicate("")


class Events:
    """A reader of /events."""

    def __init__(self, served: Served):
        self.connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE_S)
        headers = {"Authorization": f"Bearer {served.token}"} if served.token else {}
        self.connection.request("GET", "/events", headers=headers)
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200
        assert self.answer.getheader("Content-Type") == "text/event-stream"

    def next(self) -> tuple[int, dict]:
        """The number of the next event, and what it says."""
        fields = {}
        while (line := self.answer.readline().decode()) != "\n":
            assert line, "the stream ended"
            name, _, value = line.rstrip("\n").partition(": ")
            fields[name] = value
        assert fields["event"] == "state"
        return int(fields["id"]), json.loads(fields["data"])

    def until(self, what) -> dict:
        """The first state of which this holds."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            _, state = self.next()
            if what(state):
                return state
            assert time.monotonic() < deadline, state

    def close(self) -> None:
        self.answer.close()
        self.connection.close()


SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.M)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


def samples(text: str) -> dict[tuple, float]:
    """(name, sorted labels) to value, of a text form."""
    found = {}
    for name, labels, value in SAMPLE.findall(text):
        key = (name, *sorted(LABEL.findall(labels)))
        assert key not in found, f"twice: {key}"
        found[key] = float(value)
    return found


def values(metrics: dict[tuple, float], name: str, **labels: str) -> list[float]:
    """Of the samples with these labels among their own: none, where a session was found before it has said anything."""
    return [value for key, value in metrics.items() if key[0] == name and set(labels.items()) <= set(key[1:])]


def one(metrics: dict[tuple, float], name: str, **labels: str) -> float:
    """The value of the one sample with these labels among its own."""
    found = values(metrics, name, **labels)
    assert len(found) == 1, f"{name} {labels}: {found}"
    return found[0]
