"""`run` with the fake server of fake_server.py as its command, for the tests of what it does beside it."""

from __future__ import annotations

import http.client
import json
import queue
import re
import socket
import sys
import threading
from pathlib import Path

from program import BUILD

SERVER = Path(__file__).resolve().parent / "fake_server.py"
PATIENCE_S = 180  # a machine may be busy; nothing is measured


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Run:
    def __init__(self, cli, *options: str, fake: dict | None = None, env: dict | None = None, command=None):
        self.port = free_port()
        self.fake = cli.tmp / "fake.json"
        self.log = Path(f"{self.fake}.log")
        self.behave(**(fake or {}))
        self.cli = cli
        command = command or [sys.executable, SERVER, "serve", "--port", self.port]
        words = [str(word).replace("PORT", str(self.port)) for word in command]
        self.process = cli.start(
            "run", "--no-pythonpath", *options, "--", *words,
            env={"FAKE": str(self.fake), "LIVE_SESSION": str(BUILD / "tests" / "live_session"), **(env or {})},
        )  # fmt: skip
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.said: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()
        assert self.process.stdout.readline() == "ready\n", self.process.stderr.read()

    def _read(self):
        for line in self.process.stderr:
            self.lines.put(line.rstrip("\n"))
        self.lines.put(None)

    def behave(self, **fake):
        self.fake.write_text(json.dumps(fake))

    def hear(self, pattern: str) -> re.Match:
        """Waits for a line of run's."""
        while True:
            line = self.lines.get(timeout=PATIENCE_S)
            assert line is not None, f"no {pattern!r} in {self.said}"
            self.said.append(line)
            if found := re.search(pattern, line):
                return found

    def obey(self, *lines: str):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        connection.request("POST", "/obey", "\n".join(lines))
        assert connection.getresponse().status == 200
        connection.close()

    def requests(self, count: int, prefix: str = "chatcmpl-0123456789abcdef"):
        self.obey(*(f"request {prefix}-{n} 10" for n in range(count)))

    def asked(self) -> list[dict]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def calls(self) -> list[str]:
        return [each["path"] for each in self.asked() if "path" in each]

    def environment(self) -> dict[str, str]:
        return self.asked()[0]["environment"]

    def end(self, number: int = 15) -> int:
        """Asks for the end; the exit code. Everything that run said is then in `said`."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.finish()

    def finish(self) -> int:
        code = self.process.wait(timeout=PATIENCE_S)
        while (line := self.lines.get(timeout=PATIENCE_S)) is not None:
            self.said.append(line)
        return code

    def text(self) -> str:
        return "\n".join(self.said)
