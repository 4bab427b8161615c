"""Hours of simulated serving through vLLM's real scheduler, KV cache manager and worker, at full speed, and what came of it.

    python tests/e2e/soak.py --seconds 7200 --figures soak.json       ends by itself; at SIGTERM earlier, in order
    python tests/e2e/soak.py --write soak.json                        puts the figures into docs/FAULTS.md

The server is soaked.py, profiled with the full preset and a ceiling that it reaches early. Beside it run the same
without the profiler (--alone), whose memory shows what is vLLM's own, and `profilemate serve`, scraped at each sample.
At each sample the server is held at the end of a step, so that its own account and ours can be compared exactly, and
a probe is switched off or on. The figures are written anew after each sample; the last lines of the output are the
paragraph for the document. With --steps the samples are taken at fixed steps instead: what test_soak.py does.
PM_BUILD chooses the build, as in all tests here.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import driving
import results
import serving
import soak_figures
from soaked import NEVER, NEWEST, Totals

HERE = Path(__file__).resolve().parent
DOCUMENT = HERE.parents[1] / "docs" / "FAULTS.md"
WORKLOAD = ["--num-blocks", "60", "--shared-prefix", "32", "--max-num-seqs", "16", "--seed", "1"]
# A total of `top --json` to the harness's own of the same.
SAME = {
    "steps": "steps_with_tokens", "step_requests": "requests", "step_tokens": "tokens", "prefill_tokens": "prefill_tokens",
    "recompute_tokens": "recompute_tokens", "decode_tokens": "decode_tokens", "output_tokens": "output_tokens",
    "finished": "finished", "prompt_tokens": "ended_prompt_tokens", "preemptions": "preempted",
}  # fmt: skip
# The most that one call may take: the machine may be away, or its processors taken.
PATIENCE_S = 900


class Failed(Exception):
    """The soak cannot go on; said with the reason, with the figures so far."""


def process_of(pid: int) -> dict | None:
    """What a process holds; None when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        return {
            "rss": int(re.search(r"^VmRSS:\s+(\d+)", status, re.M)[1]) << 10,
            "anon": int(re.search(r"^RssAnon:\s+(\d+)", status, re.M)[1]) << 10,
            "threads": int(re.search(r"^Threads:\s+(\d+)", status, re.M)[1]),
            "fds": len(os.listdir(f"/proc/{pid}/fd")),
            "maps": Path(f"/proc/{pid}/maps").read_text().count("\n"),
        }
    except (OSError, TypeError):
        return None


def bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_blocks * 512
        except OSError:
            continue
    return total


class Soak:
    def __init__(self, opts: argparse.Namespace, folder: Path):
        self.opts, self.folder = opts, folder
        self.began = time.monotonic()
        self.ending = False
        self.processes: list[subprocess.Popen] = []
        self.figures = {
            "seconds": 0.0, "max_mb": opts.max_mb, "samples": [], "scrapes": 0, "compared": len(SAME) + 1, "errors": [],
            "vllm": None, "counts": {}, "faults": 0, "lost": 0,
        }  # fmt: skip

    # ---- processes ----

    def child(self, name: str, environment: dict) -> tuple[subprocess.Popen, Totals]:
        path = self.folder / f"{name}.totals"
        totals = Totals(path, make=True)
        words = (sys.executable, str(HERE / "soaked.py"), *WORKLOAD, "--steps", str(1 << 50), "--totals", str(path))
        with (self.folder / f"{name}.log").open("wb") as log:
            popen = subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.processes.append(popen)
        return popen, totals

    def start(self) -> None:
        sessions = self.folder / "sessions"
        environment = driving.environment(sessions, VLLM_PROFILING_MAX_MB=str(self.opts.max_mb))
        self.server, self.totals = self.child("server", environment)
        self.alone = None
        if self.opts.alone:
            plain = serving.clean_environment(VLLM_LOGGING_LEVEL="ERROR")
            self.alone, self.alone_totals = self.child("alone", plain)
        self.wait(lambda: self.totals["updated"] > 0, "the server makes no step")
        self.session = results.only_session(sessions)
        words = (serving.PROGRAM, "serve", "--listen", "127.0.0.1:0", self.session)
        with (self.folder / "serve.log").open("wb") as log:
            self.watcher = subprocess.Popen(
                words, env=serving.clean_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
            )
        self.processes.append(self.watcher)
        self.url = self.watcher.stdout.readline().decode().strip()
        if not self.url.startswith("http://"):
            raise Failed("profilemate serve does not listen")

    def wait(self, what, otherwise: str) -> None:
        deadline, looks = time.monotonic() + PATIENCE_S, 0
        while not what():
            looks += 1
            if self.server.poll() is not None:
                raise Failed(f"the server ended with {self.server.returncode}: {self.tail('server')}")
            if time.monotonic() > deadline and looks > 1000:
                raise Failed(otherwise)
            time.sleep(0.002)

    def tail(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-1000:]

    def close(self) -> None:
        for popen in self.processes:
            if popen.poll() is None:
                popen.kill()
            popen.wait()

    # ---- a sample ----

    def hold(self, at_step: int = 0) -> None:
        """Returns when the server stands at the end of a step, the given one or a later one."""
        self.totals["pause_at"] = at_step
        self.wait(lambda: self.totals["paused"], f"the server does not come to step {at_step}")

    def release(self) -> None:
        self.totals["pause_at"] = NEVER
        self.wait(lambda: not self.totals["paused"], "the server does not go on")

    def scrape(self) -> dict[str, float]:
        with urllib.request.urlopen(f"{self.url}metrics", timeout=PATIENCE_S) as answer:
            text = answer.read().decode()
        self.figures["scrapes"] += 1
        sums: dict[str, float] = {}
        for name, value in re.findall(r"^profilemate_(\w+)(?:\{[^}]*\})? (\S+)", text, re.M):
            sums[name] = sums.get(name, 0) + float(value)
        return sums

    def sample(self) -> None:
        """While the server is held."""
        shown = json.loads(results.profilemate("top", "--once", "--json", self.session).stdout)["sessions"][0]
        ours = shown["engines"][0]
        differs = {
            name: [ours["total"][name], self.totals[own]]
            for name, own in SAME.items()
            if ours["total"][name] != self.totals[own]
        }
        if (steps := ours["ranks"][0]["total"]["steps"]) != self.totals["steps_with_tokens"]:
            differs["worker's steps"] = [steps, self.totals["steps_with_tokens"]]
        scraped = self.scrape()
        figures = self.figures
        at = time.monotonic() - self.began
        figures["samples"].append({
            "at": at, "steps": self.totals["updated"], "differs": differs, "folder": bytes_in(self.session),
            "server": process_of(self.server.pid), "watcher": process_of(self.watcher.pid),
            "alone": process_of(self.alone.pid) if self.alone else None,
            "alone_steps": self.alone_totals["updated"] if self.alone else None,
        })  # fmt: skip
        figures["seconds"] = at
        figures["vllm"] = shown["vllm"]
        figures["faults"], figures["lost"] = int(scraped["hook_faults_total"]), int(scraped["records_lost_total"])
        figures["counts"] = {
            "steps": self.totals["updated"], "tokens": self.totals["tokens"], "requests": self.totals["finished"],
            "preemptions": self.totals["preempted"], "hook_calls": int(scraped["hook_calls_total"]),
            "hook_seconds": scraped["hook_seconds_total"], "recycled": 0,
        }  # fmt: skip

    def switch(self) -> None:
        """A probe off or on, as a person would; the server goes on meanwhile."""
        value = "off" if len(self.figures["samples"]) % 2 else "on"
        done = results.profilemate("set", self.server.pid, f"kv_cache={value}", "--wait", "120", check=False)
        if done.returncode != 0 and self.server.poll() is None:
            raise Failed(f"profilemate set: {done.returncode}: {done.stdout}{done.stderr}")

    # ---- the end ----

    def compare_records(self) -> dict:
        """What is in the files against the newest rows of the harness."""
        words = (serving.PROGRAM, "export", "--quiet", "--format", "json", self.session)
        wrong, rows, first, expected = [], 0, None, None
        newest = self.totals["scheduled"]
        with subprocess.Popen(words, env=serving.clean_environment(), stdout=subprocess.PIPE, text=True) as export:
            for line in export.stdout:
                if '"sched_step"' not in line or (row := json.loads(line))["table"] != "sched_step":
                    continue
                first = row["step"] if first is None else first
                if expected is not None and row["step"] != expected:
                    wrong.append(f"step {row['step']} follows {expected - 1}")
                expected = row["step"] + 1
                if newest - row["step"] > NEWEST:
                    continue
                rows += 1
                own = self.totals.row(row["step"])
                for name in ("requests", "tokens", "prefill_tokens", "recompute_tokens", "decode_tokens", "running", "waiting"):
                    if row[name] != own[name]:
                        wrong.append(f"step {row['step']}: {name} {row[name]}, counted {own[name]}")
        if export.returncode != 0:
            wrong.append(f"profilemate export ended with {export.returncode}")
        if expected != newest:
            wrong.append(f"the newest record is of step {expected}, the last step was {newest - 1}")
        self.figures["counts"]["recycled"] = first or 0
        return {"rows": rows, "first": first, "wrong": wrong[:20]}

    def finish(self) -> None:
        """Ends the server in order, and reads what it left."""
        self.server.send_signal(signal.SIGTERM)
        code = self.server.wait(PATIENCE_S)
        if code != 0:
            raise Failed(f"the server ended with {code}: {self.tail('server')}")
        errors = [line for line in self.tail("server").splitlines() if "Traceback" in line or "Error" in line]
        self.figures["errors"] += errors
        self.figures["last"] = self.compare_records()

    def save(self) -> dict:
        done = soak_figures.conclude(self.figures)
        if self.opts.figures:
            new = self.opts.figures.with_suffix(".new")
            new.write_text(json.dumps(done) + "\n")
            new.replace(self.opts.figures)
        return done

    def run(self) -> dict:
        opts = self.opts
        try:
            self.start()
            self.began = time.monotonic()
            for number in range(1, 1 << 30):
                if opts.steps:
                    self.hold(opts.steps * number // opts.samples)
                else:
                    self.pause_until(time.monotonic() + opts.every)
                    self.hold()
                self.sample()
                last = self.ending or (number >= opts.samples if opts.steps else time.monotonic() >= self.began + opts.seconds)
                if last:
                    break
                self.release()
                self.switch()
                if number % 30 == 0:
                    self.save()
                    print(f"{self.figures['seconds']:.0f} s: {self.figures['counts']}", flush=True)
            self.finish()
        except (Failed, AssertionError, OSError, KeyError, ValueError, subprocess.SubprocessError) as error:
            self.figures["errors"].append(f"{type(error).__name__}: {error}"[:2000])
        finally:
            self.close()
        return self.save()

    def pause_until(self, when: float) -> None:
        while not self.ending and (left := when - time.monotonic()) > 0:
            if self.server.poll() is not None:
                raise Failed(f"the server ended with {self.server.returncode}: {self.tail('server')}")
            time.sleep(min(left, 0.5))


def seconds_until(clock: str) -> float:
    hour, minute = map(int, clock.split(":"))
    now = datetime.now()
    then = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return ((then if then > now else then + timedelta(days=1)) - now).total_seconds()


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak.py", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=7200, help="how long (default: 2 hours)")
    parser.add_argument("--until", metavar="HH:MM", help="ends at this time of day instead")
    parser.add_argument("--every", type=float, default=10, help="seconds between two samples")
    parser.add_argument("--steps", type=int, default=0, help="so many steps instead of a time")
    parser.add_argument("--samples", type=int, default=24, help="with --steps: so many")
    parser.add_argument("--max-mb", type=int, default=64, help="ceiling of the session")
    parser.add_argument("--alone", action="store_true", help="the same without the profiler beside it")
    parser.add_argument("--figures", type=Path, help="file for all figures as JSON")
    parser.add_argument("--write", type=Path, metavar="FIGURES", help=f"put them into docs/{DOCUMENT.name}, and nothing else")
    opts = parser.parse_args()
    if opts.write:
        done = soak_figures.conclude(json.loads(opts.write.read_text()))
        soak_figures.write(DOCUMENT, done)
        print(json.dumps(done["verdicts"], indent=1))
        return 0 if done["good"] else 1
    if opts.until:
        opts.seconds = seconds_until(opts.until)
    with tempfile.TemporaryDirectory(prefix="profilemate-soak-") as folder:
        soak = Soak(opts, Path(folder))

        def end(_number, _frame) -> None:
            soak.ending = True

        signal.signal(signal.SIGTERM, end)
        signal.signal(signal.SIGINT, end)
        done = soak.run()
    print(json.dumps({"good": done["good"], "verdicts": done["verdicts"], "counts": done["counts"]}, indent=1))
    if done["samples"]:
        print(soak_figures.paragraph(done), end="")
    return 0 if done["good"] else 1


if __name__ == "__main__":
    sys.exit(main())
