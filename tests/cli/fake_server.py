"""A server with vLLM's profiling endpoints and a session that grows, for the tests of `run --torch-profile` and
`--request-log`. Started by `run` as its command:

    python fake_server.py serve --port N [--api-key K]

What it does wrong stands in a JSON file, $FAKE, read at each request, so that a test can change it:
    "start", "stop": "ok", "hang", "drop" (the connection), "die", or a status
    "slow": seconds that writing the trace takes; "trace": its bytes
    "port": "silent": nobody listens
What it was asked is appended to $FAKE.log, a JSON line each. POST /obey passes lines on to live_session.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FAKE = Path(os.environ["FAKE"])
engine = subprocess.Popen(
    [os.environ["LIVE_SESSION"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
)
engine.stdout.readline()
lock = threading.Lock()
profiles = 0


def log(**what):
    with lock, open(f"{FAKE}.log", "a") as file:
        file.write(json.dumps(what) + "\n")


def obey(line: str):
    with lock:
        engine.stdin.write(line + "\n")
        engine.stdin.flush()
        assert engine.stdout.readline() == "done\n"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status: int = 200):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *words):
        pass

    def do_GET(self):
        self.answer(200 if self.path == "/health" else 404)

    def do_POST(self):
        global profiles
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        if self.path == "/obey":
            for line in body.splitlines():
                obey(line)
            return self.answer()
        log(path=self.path, body=body, authorization=self.headers.get("Authorization"))
        fake = json.loads(FAKE.read_text())
        how = fake.get(self.path[1:].partition("_")[0], "ok")
        if how == "hang":
            time.sleep(3600)
        if how == "drop":
            return self.connection.close()
        if how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if isinstance(how, int):
            return self.answer(how)
        if self.path == "/stop_profile":
            path = Path(os.environ["VLLM_TORCH_PROFILER_DIR"], f"rank0.{time.time_ns()}.pt.trace.json.gz")
            path.write_bytes(b"x" * (fake.get("trace", 1000) // 2))
            time.sleep(fake.get("slow", 0))
            path.write_bytes(b"x" * fake.get("trace", 1000))
            profiles += 1
        return self.answer()


words = sys.argv[1:]
option = lambda name: words[words.index(name) + 1]  # noqa: E731
log(environment={name: value for name, value in os.environ.items() if name.startswith(("VLLM_", "KINETO"))})
obey(f"attr torch_profiler {os.environ.get('FAKE_PROFILER', 'torch')}")
obey(f"attr torch_profiler.dir {os.environ.get('VLLM_TORCH_PROFILER_DIR', '/nowhere')}")
server = ThreadingHTTPServer(("127.0.0.1", int(option("--port"))), Handler)
server.daemon_threads = True


def end(number, frame):
    for each in (signal.SIGTERM, signal.SIGINT):  # a second one would find the lock of log() held by this very thread
        signal.signal(each, signal.SIG_IGN)
    log(signal=signal.Signals(number).name)
    engine.stdin.close()
    engine.wait()
    os._exit(0)


for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, end)
print("ready", flush=True)
server.serve_forever()
