"""A standalone cluster of Apache Spark on this machine: a master and workers on the loopback, from pyspark's own jars.

Used by bench_fleet.py and by the package's tests. Everything that it starts ends with the block.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

PATIENCE_S = 300


@dataclass
class Cluster:
    """A cluster that is up. Spark's words about it are in <folder>/master.log and worker0.log, …"""

    url: str
    folder: Path
    master: subprocess.Popen
    workers: list[subprocess.Popen] = field(default_factory=list)

    def kill_worker(self, number: int) -> None:
        """It and its executors are gone at once, as with their machine."""
        _end(self.workers[number])

    @property
    def pids(self) -> list[int]:
        return [self.master.pid, *(worker.pid for worker in self.workers)]


def _free_port() -> int:
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


def _end(child: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait(PATIENCE_S)


def _wait(what: Callable[[], bool], failed: Callable[[], str]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not what():
        if time.monotonic() > until:
            raise RuntimeError(failed())
        time.sleep(0.2)


@contextlib.contextmanager
def cluster(
    folder: Path, home: Path, environment: Mapping[str, str], workers: int = 2, memory: str = "600m"
) -> Iterator[Cluster]:
    """A master and so many workers of one core and so much memory each, that the master knows. home: pyspark's folder.
    environment: what Spark finds beside this process's own."""
    scala = next((home / "jars").glob("spark-core_*.jar")).name.split("_")[1].split("-")[0]
    env = {**os.environ, **environment, "SPARK_HOME": str(home), "SPARK_SCALA_VERSION": scala}

    def java(name: str, what: str, *words: str) -> subprocess.Popen:
        command = ["java", "-Xmx256m", "-cp", f"{home}/jars/*", f"org.apache.spark.deploy.{what}", *words]
        with (folder / f"{name}.log").open("wb") as out:
            child = subprocess.Popen(command, env=env, stdout=out, stderr=out, cwd=folder, start_new_session=True)
        stack.callback(_end, child)
        return child

    local = "--host", "127.0.0.1", "--webui-port", "0"
    with contextlib.ExitStack() as stack:
        folder.mkdir(parents=True, exist_ok=True)
        port, log = _free_port(), folder / "master.log"
        made = Cluster(
            f"spark://127.0.0.1:{port}", folder, java("master", "master.Master", *local, "--port", str(port))
        )
        for n in range(workers):
            place = "--cores", "1", "--memory", memory, "--work-dir", str(folder / f"work{n}")
            made.workers.append(java(f"worker{n}", "worker.Worker", *local, *place, made.url))
        _wait(
            lambda: log.read_text(errors="replace").count("Registering worker") >= workers,
            lambda: f"Spark's workers do not come: {log.read_text(errors='replace')[-2000:]}",
        )
        yield made
