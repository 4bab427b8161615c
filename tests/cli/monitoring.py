"""Prometheus, its promtool and VictoriaMetrics, for the tests: as installed, or unpacked by scripts/setup-monitoring."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from patience import until
from program import ROOT

UNPACKED = ROOT / "build" / "monitoring" / "usr" / "bin"


def program(name: str) -> str:
    """Where it is; skips the test where it is nowhere."""
    found = shutil.which(name) or shutil.which(name, path=str(UNPACKED))
    if found is None:
        pytest.skip(f"{name} is not installed, and scripts/setup-monitoring could not fetch it")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Monitor:
    """A database of metrics that runs, and is asked by Prometheus's own HTTP interface."""

    def __init__(self, command: list, port: int, log: Path):
        self.port, self.log = port, log
        self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log.open("w"), stderr=subprocess.STDOUT)

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_) -> None:
        self.process.terminate()
        try:
            self.process.wait(180)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def fetch(self, path: str, **arguments: str):
        url = f"http://127.0.0.1:{self.port}{path}?{urllib.parse.urlencode(arguments)}"
        try:
            with urllib.request.urlopen(url, timeout=600) as answer:
                return json.load(answer)
        except OSError:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            return None  # it starts

    def query(self, expression: str) -> list[dict]:
        """The samples of an instant query; [] while there is no answer."""
        answer = self.fetch("/api/v1/query", query=expression)
        return answer["data"]["result"] if answer and answer["status"] == "success" else []

    def value(self, expression: str) -> float | None:
        """Of the one sample; None where there is none yet."""
        found = self.query(expression)
        assert len(found) <= 1, (expression, found)
        return float(found[0]["value"][1]) if found else None

    def until_value(self, expression: str, holds) -> float:
        return until(
            lambda: (value := self.value(expression)) is not None and holds(value) and [value],
            lambda: f"{expression}: {self.query(expression)}\n{self.log.read_text()[-2000:]}",
        )[0]


def prometheus(folder: Path, config: str) -> Monitor:
    (folder / "prometheus.yml").write_text(config)
    port = free_port()
    command = [
        program("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/prometheus",
        f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=native-histograms", "--log.level=warn",
    ]  # fmt: skip
    return Monitor(command, port, folder / "prometheus.log")


def victoria_metrics(folder: Path, config: str) -> Monitor:
    (folder / "victoria.yml").write_text(config)
    port = free_port()
    command = [
        program("victoria-metrics"), f"-promscrape.config={folder}/victoria.yml", f"-storageDataPath={folder}/victoria",
        f"-httpListenAddr=127.0.0.1:{port}", "-search.latencyOffset=0s", "-memory.allowedBytes=200MB",
    ]  # fmt: skip
    return Monitor(command, port, folder / "victoria.log")
