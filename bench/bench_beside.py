"""Whether a real vLLM server is slower while it is watched: `serve` scraped by Prometheus, a page's event stream, `top`.

    python bench/bench_beside.py [--pairs 40] [--requests 8] [--tokens 64]

One server with the tiny model, profiled (preset full). Every round sends the same batch to it twice, in an order that
changes: alone, and with `profilemate serve` (scraped each second, one listener of /events) and `profilemate top` beside it. What watches is
stopped (SIGSTOP) for the other batch. Reported: the mean difference of the batch's time over the rounds with a 95 % interval, what
`serve` and `top` used of a core, and what Prometheus has when the run is over, against the session's own figures.
"""

import argparse
import http.client
import json
import os
import pathlib
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / folder) for folder in ("e2e", "cli", "")]

import monitoring  # noqa: E402
import results  # noqa: E402
import serving  # noqa: E402
import tiny  # noqa: E402

SCRAPE = "global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: profilemate, static_configs: [{{targets: ['{}']}}]}}]\n"


def batch(server: serving.Server, requests: int, tokens: int) -> float:
    asked = [{"prompt": [5 + i] * 16, "max_tokens": tokens} for i in range(requests)]
    began = time.perf_counter()
    server.complete_all(asked, concurrency=requests)
    return time.perf_counter() - began


def used_s(process: subprocess.Popen) -> float:
    fields = pathlib.Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def listen(url: str) -> None:
    try:
        with urllib.request.urlopen(url) as events:
            while events.read(4096):
                pass
    except (OSError, http.client.HTTPException):
        pass  # the run is over


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--requests", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    asked = parser.parse_args()
    base = pathlib.Path(tempfile.mkdtemp(prefix="bench-beside-"))
    environment = serving.clean_environment(**serving.profiled(base / "sessions", preset="full"))
    server = serving.Server(tiny.make("llama"), base / "server", environment)
    started = []
    try:
        server.wait_ready()
        session = results.only_session(base / "sessions")
        address, port = f"127.0.0.1:{serving.free_port()}", serving.free_port()
        words = [serving.PROGRAM, "serve", "--listen", address, session]
        serve = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        words = [serving.PROGRAM, "top", "--batch", "--interval", "1", session]
        top = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        (base / "prometheus.yml").write_text(SCRAPE.format(address))
        words = [monitoring.program("prometheus"), f"--config.file={base / 'prometheus.yml'}", f"--storage.tsdb.path={base / 'tsdb'}",
                 f"--web.listen-address=127.0.0.1:{port}", "--enable-feature=native-histograms"]  # fmt: skip
        prometheus = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        started = [serve, top, prometheus]
        time.sleep(3)
        threading.Thread(target=listen, args=(f"http://{address}/events",), daemon=True).start()
        for _ in range(3):
            batch(server, asked.requests, asked.tokens)
        alone, watched, rng, watching_s, had = [], [], random.Random(1), 0.0, [used_s(serve), used_s(top)]
        began = time.monotonic()
        for _ in range(asked.pairs):
            for beside in rng.sample((False, True), 2):
                for process in started:
                    process.send_signal(signal.SIGCONT if beside else signal.SIGSTOP)
                at = time.perf_counter()
                took = batch(server, asked.requests, asked.tokens)
                watching_s += (time.perf_counter() - at) if beside else 0
                (watched if beside else alone).append(took)
        for process in started:
            process.send_signal(signal.SIGCONT)
        used = [used_s(process) - before for process, before in zip((serve, top), had, strict=True)]
        time.sleep(4)  # a last scrape
        ran_s = time.monotonic() - began
        query = f"http://127.0.0.1:{port}/api/v1/query?query="
        with urllib.request.urlopen(query + "profilemate_output_tokens_total") as answer:
            told = json.load(answer)["data"]["result"]
        with urllib.request.urlopen(query + "avg_over_time(up[1h])") as answer:
            up = json.load(answer)["data"]["result"]
        shown = json.loads(results.profilemate("top", "--once", "--json", session).stdout)["sessions"][0]["engines"][0]["total"]
        theirs = server.metrics().sum("vllm:generation_tokens_total")
    finally:
        for process in started:
            process.send_signal(signal.SIGCONT)
            process.kill()
        server.close()
    differences = [1e3 * (b - a) for a, b in zip(alone, watched, strict=True)]
    half = 1.96 * statistics.stdev(differences) / len(differences) ** 0.5
    print(f"{asked.pairs} pairs in {ran_s:.0f} s; a batch alone: {1e3 * statistics.mean(alone):.1f} ms, watched: "
          f"{statistics.mean(differences):+.1f} ms ± {half:.1f} ({100 * statistics.mean(differences) / (1e3 * statistics.mean(alone)):+.2f} %)")  # fmt: skip
    print(f"of one core, while watching: serve {100 * used[0] / watching_s:.2f} %, top {100 * used[1] / watching_s:.2f} %")
    print(f"output tokens: Prometheus {[row['value'][1] for row in told]}, top {shown['output_tokens']}, vLLM {theirs}; "
          f"up, averaged over its scrapes: {[row['value'][1] for row in up]}")  # fmt: skip


if __name__ == "__main__":
    main()
