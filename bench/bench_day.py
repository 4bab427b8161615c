"""What reading a long session takes: report, explain, export and diff of a made-up server's session, time and memory, and beside
them, in the same run, pandas computing the report's tables from the exported CSV files.

    python3 bench/bench_day.py [--build build/release] [--hours 1] [--folder DIR]

24 hours are 17 million steps and 2 million requests, 6.4 GB; two sessions are made for diff. Each program runs once after its files
were read once, so that the figures are of the processor and not of the disk.
"""

import argparse
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]

# The report's figures from the CSV files, as one would write them in a notebook.
RIVAL = """
import json, sys
import pandas as pd
folder = sys.argv[1]
steps = pd.read_csv(folder + "/forward_pass_timing.csv")
batches = pd.read_csv(folder + "/batch_utilization.csv")
host = pd.read_csv(folder + "/cpu_operations_timing.csv")
kv = pd.read_csv(folder + "/kv_cache_usage.csv")
lives = pd.read_csv(folder + "/request_lifecycle.csv")
shares = [0.5, 0.9, 0.95, 0.99]
out = {
    "forward": steps.groupby("phase")["forward_time_ms"].describe(percentiles=shares).to_dict(),
    "batches": batches[["num_seqs", "num_tokens", "running_queue_len", "waiting_queue_len"]].agg(["mean", "max"]).to_dict(),
    "host": host.groupby("operation")["duration_ms"].describe(percentiles=shares).to_dict(),
    "kv": [kv["usage_pct"].mean(), kv["usage_pct"].max()],
    "requests": lives["total_time_sec"].describe(percentiles=shares).to_dict(),
}
print(json.dumps({"steps": len(steps), "requests": len(lives)}))
"""


def run(*command, out=subprocess.DEVNULL):
    """(wall seconds, processor seconds, MiB at most)."""
    began = time.monotonic()
    child = subprocess.Popen([str(word) for word in command], stdout=out, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{command} ended with {child.returncode}")
    return time.monotonic() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def warm(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                while file.read(1 << 20):
                    pass


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--build", default=ROOT / "build" / "release", type=pathlib.Path)
    options.add_argument("--hours", default=1.0, type=float)
    options.add_argument("--folder", help="where the sessions go for the time of the run (default: a temporary folder)")
    options = options.parse_args()
    program, maker = options.build / "bin" / "profilemate", options.build / "bench" / "make_day"
    base = pathlib.Path(tempfile.mkdtemp(dir=options.folder))
    try:
        sessions = []
        for seed in (1, 2):
            made = subprocess.run([maker, base / str(seed), f"hours={options.hours}", f"seed={seed}"], capture_output=True, text=True, check=True)
            sessions.append(pathlib.Path(made.stdout.strip()))
            print(f"session {seed}: {made.stderr.strip()}")
        size = sum(path.stat().st_size for path in sessions[0].rglob("*") if path.is_file())
        print(f"{size / 1e9:.2f} GB each; {resource.getpagesize()} bytes a page\n")
        warm(sessions[0])
        rows = [
            ("report --text", (program, "report", "--text", sessions[0])),
            ("report (HTML)", (program, "report", "-o", base / "page.html", sessions[0])),
            ("explain", (program, "explain", sessions[0])),
            ("export (CSV)", (program, "export", "--quiet", "--out", base / "files", sessions[0])),
            ("diff", (program, "diff", sessions[0], sessions[1])),
            ("pandas, from the CSV files", (sys.executable, "-c", RIVAL, base / "files")),
        ]
        print(f"{'':28}{'wall s':>9}{'cpu s':>9}{'MiB':>9}{'of pandas':>11}")
        figures = {name: run(*command) for name, command in rows}
        rival = figures["pandas, from the CSV files"]
        for name, (wall, cpu, memory) in figures.items():
            print(f"{name:28}{wall:9.1f}{cpu:9.1f}{memory:9.0f}{cpu / rival[1]:11.2f}")
        print("\n" + json.dumps({name: [round(value, 2) for value in row] for name, row in figures.items()}))
    finally:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
