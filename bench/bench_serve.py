"""What `profilemate serve` costs: its share of one core, alone, scraped, and listened to.

    python3 bench/bench_serve.py [--seconds 20] [--made N] [SESSION|PID]

Without an operand N made-up servers of 300 steps and 20 requests a second are told of (1 by default); with one, that
server. Reported for each way of use: processor time by wall time, how long a scrape took, and the memory at the end. The
budget is 2 % at one server, scraped every 15 s and with a page open; the rows of one scrape a second are the worst case.
"""

import argparse
import http.client
import os
import re
import secrets
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

BUILD = Path(os.environ.get("PM_BUILD", Path(__file__).resolve().parents[1] / "build" / "release"))
PROTOBUF = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"


class Made(threading.Thread):
    """A session that grows (tests/cli/live_session.c)."""

    def __init__(self, folder: str, number: int):
        super().__init__(daemon=True)
        session = f"session_20260101_{number:06d}:{secrets.token_hex(16)}:{time.monotonic_ns()}:{time.time_ns()}:1"
        env = {**os.environ, "VLLM_PROFILING_DIR": folder, "VLLM_PROFILING_SESSION": session}
        self.process = subprocess.Popen(
            [BUILD / "tests" / "live_session"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.process.stdout.readline()
        self.requests = 0
        self.start()

    def run(self) -> None:
        due = time.monotonic()
        while True:
            self.requests += 1
            for line in ("steps 15", f"request chatcmpl-{self.requests:032x} 100"):
                try:
                    self.process.stdin.write(line + "\n")
                    self.process.stdout.readline()
                except OSError:
                    return
            due += 0.05
            time.sleep(max(0, due - time.monotonic()))


def cpu_seconds(pid: int) -> float:
    """To the nanosecond: ticks miss what wakes up for a moment."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def listen(port: int) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/events")
    answer = connection.getresponse()

    def read() -> None:
        try:
            while answer.read1(65536):
                pass
        except (OSError, ValueError, AttributeError, http.client.HTTPException):
            pass

    threading.Thread(target=read, daemon=True).start()
    return connection


def measure(server: subprocess.Popen, port: int, title: str, seconds: float, every: float, accept: str, listeners: int) -> None:
    open_ = [listen(port) for _ in range(listeners)]
    time.sleep(1)
    began, used, took, size = time.monotonic(), cpu_seconds(server.pid), [], 0
    while time.monotonic() - began < seconds:
        if every:
            at = time.monotonic()
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("GET", "/metrics", headers={"Accept": accept})
            size = len(connection.getresponse().read())
            connection.close()
            took.append(time.monotonic() - at)
        time.sleep(every or seconds)
    share = (cpu_seconds(server.pid) - used) / (time.monotonic() - began)
    rss = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{server.pid}/status").read_text())[1]
    scrape = f", a scrape {statistics.median(took) * 1e3:.1f} ms and {size // 1024} KiB" if took else ""
    print(f"{title:<34} {share:6.2%} of one core, {int(rss) // 1024} MiB{scrape}", flush=True)
    for connection in open_:
        if connection.sock:
            connection.sock.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("server", nargs="*", help="a session or a pid")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--made", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        made = [] if asked.server else [Made(folder, n) for n in range(asked.made)]
        words = asked.server or ["--dir", folder]
        server = subprocess.Popen(
            [BUILD / "bin" / "profilemate", "serve", "--listen", "127.0.0.1:0", *words], stdout=subprocess.PIPE, text=True
        )
        port = int(server.stdout.readline().rpartition(":")[2].strip(" /\n"))
        time.sleep(5)
        for title, every, accept, listeners in (
            ("nobody asks", 0, "", 0),
            ("scraped every 15 s, one page open", 15, "", 1),
            ("scraped every second, as text", 1, "", 0),
            ("scraped every second, as protobuf", 1, PROTOBUF, 0),
            ("100 listeners", 0, "", 100),
        ):
            measure(server, port, title, asked.seconds, every, accept, listeners)
        server.terminate()
        server.wait()
        for each in made:
            each.process.kill()


if __name__ == "__main__":
    main()
