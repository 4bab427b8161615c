#!/usr/bin/env python3
"""Lakes of made-up fleets of three sizes (bench/make_fleet.py): how fast sessions become Parquet, how large that is,
and how long each query of `profilemate fleet` takes in DuckDB and in Spark, with what memory. Then, reckoned from the
largest, what 10,000 servers and 90 days need.

    python bench/bench_fleet.py FOLDER [--sizes 12x1,40x3,200x10] [--write]

The interpreter needs pyarrow and duckdb, and pyspark with --spark: a standalone cluster of two workers on this machine,
for lakes of at most --spark-rows rows. FOLDER needs as much room as the largest lake (23 bytes a row), which is free
again afterwards, and a gigabyte. A server's records go when they are in the lake. --write puts the tables into
docs/FLEETS.md, anew after each of the sizes and engines: what is measured is kept when a run is ended.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import math
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import make_fleet
import spark_cluster
import pyarrow.parquet

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "docs" / "FLEETS.md"
QUERIES = ("slo", "waste", "stragglers", "kv", "experts", "regressions", "worst")
# One query before the first that counts: Spark's start and its first plan are not the lake's doing.
SPARK = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
import bench_fleet
from profilemate import fleet
from profilemate.fleet import engines
master, pids, memory, lake, *names = sys.argv[2:]
with engines.Spark(master, "1g", {"spark.executor.memory": memory, "spark.driver.host": "127.0.0.1"}) as engine:
    java = engine._session.sparkContext._gateway.proc.pid
    everyone = [java, *map(int, pids.split(","))]
    fleet.run("slo", lake, engine=engine)
    for name in names:
        before, began = bench_fleet.used(everyone), time.monotonic()
        fleet.run(name, lake, engine=engine)
        print(name, bench_fleet.used(everyone) - before, time.monotonic() - began, flush=True)
"""
# What a process takes that asks nothing: imports, and the engine's start.
NOTHING = "import duckdb, profilemate.fleet.command; duckdb.connect()"
HEAP = "900m"  # of each of Spark's two executors
BATCH = 4  # servers made, exported and removed at a time


def descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        children.setdefault(int(words[1]), []).append(int(stat.parent.name))
    found, todo = [], [pid]
    while todo:
        each = todo.pop()
        found.append(each)
        todo += children.get(each, [])
    return found


def used(pids: list[int]) -> float:
    """Processor seconds of these and all that they started and that is there still."""
    words = []
    for each in {child for pid in pids for child in descendants(pid)}:
        with contextlib.suppress(OSError, IndexError):
            words.append(Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1].split())
    return sum(int(word[11]) + int(word[12]) for word in words) / os.sysconf("SC_CLK_TCK")


def resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def timed(
    command: list[str | Path], environment: dict[str, str] | None = None, also: list[int] | None = None
) -> tuple[float, int, str]:
    """Processor seconds, most memory of it and of what it started, and of the processes in also (looked at five times a
    second), and its output. What else the machine does changes the time by the clock, and hardly these."""
    most, over = 0, threading.Event()
    process = subprocess.Popen(
        [*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip

    def watch() -> None:
        nonlocal most
        while not over.wait(0.2):
            everyone = {each for pid in (process.pid, *(also or ())) for each in descendants(pid)}
            most = max(most, sum(map(resident, everyone)))

    thread = threading.Thread(target=watch)
    thread.start()
    said: list[str] = []
    errors = threading.Thread(target=lambda: said.append(process.stderr.read()))
    errors.start()
    out = process.stdout.read()
    errors.join()
    _, status, used = os.wait4(process.pid, 0)
    over.set()
    thread.join()
    if status != 0:
        raise SystemExit(f"{command[:4]} failed: {said[0].strip()[-2000:]}")
    return used.ru_utime + used.ru_stime, max(most, used.ru_maxrss << 10), out


class Bench:
    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.build = options.build.resolve()
        self.environment = {"PYTHONPATH": str(self.build / "python")}

    def ingest(self, servers: list[make_fleet.Server], folder: Path) -> dict:
        """Makes the fleet, some servers at a time, and puts it into the lake."""
        lake, seconds, memory, made_seconds, recorded = folder / "lake", 0.0, 0, 0.0, 0
        for at in range(0, len(servers), BATCH):
            scratch = folder / "sessions"
            began = time.monotonic()
            sessions = make_fleet.make_all(servers[at : at + BATCH], scratch, self.build, 1)
            made_seconds += time.monotonic() - began
            recorded += sum(path.stat().st_size for path in scratch.rglob("*.pmrec"))
            command = [self.build / "bin" / "profilemate", "export", "--quiet", "--format=parquet", "--partition"]
            took, most, _ = timed([*command, "--python", sys.executable, "--out", lake, *sessions], self.environment)
            seconds, memory = seconds + took, max(memory, most)
            shutil.rmtree(scratch)
            if at % 40 == 36:
                free = shutil.disk_usage(folder).free
                print(f"  {at + BATCH} servers, {seconds:.0f} s, {free / 1e9:.1f} GB free", flush=True)
                if free < self.options.leave * 1e9:
                    raise SystemExit(f"{folder}: less than {self.options.leave} GB are free")
        tables: dict[str, list[int]] = {}
        files = 0
        for path in lake.rglob("*.parquet"):
            table = next(part[6:] for part in path.parts if part.startswith("table="))
            sums = tables.setdefault(table, [0, 0])
            sums[0] += pyarrow.parquet.read_metadata(path).num_rows
            sums[1] += path.stat().st_size
            files += 1
        rows, size = (sum(each[i] for each in tables.values()) for i in (0, 1))
        return {
            "rows": rows, "bytes": size, "files": files, "tables": tables, "recorded": recorded,
            "ingest_sec": seconds, "ingest_memory": memory, "make_sec": made_seconds,
        }  # fmt: skip

    def duckdb(self, lake: Path) -> dict[str, tuple[float, int]]:
        """Each query: its own processor seconds, and memory; in a process for each."""
        found = {}
        nothing, _, _ = timed([sys.executable, "-c", NOTHING], self.environment)
        for name in QUERIES:
            words = ["--format", "json", "--memory", self.options.memory, name, lake]
            seconds, memory, _ = timed([sys.executable, "-m", "profilemate.fleet", *words], self.environment)
            found[name] = max(seconds - nothing, 0.01), memory
            print(f"  {name}: duckdb {seconds:.2f} s {memory / 2**20:.0f} MiB", flush=True)
        return found

    def spark(self, folder: Path, lake: Path) -> dict[str, tuple[float, int, float]]:
        """Each query on a cluster: processor seconds of the driver, the master, the workers and their executors; memory
        of all of them, at most in any query; seconds by the clock. Its start is not the lake's doing."""
        home = Path(importlib.util.find_spec("pyspark").origin).parent
        found = {}
        around = {**self.environment, "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
        with spark_cluster.cluster(folder / "cluster", home, around, memory=HEAP) as cluster:
            pids = ",".join(map(str, cluster.pids))
            words = [Path(__file__).parent, cluster.url, pids, HEAP, lake, *QUERIES]
            _, memory, out = timed([sys.executable, "-c", SPARK, *words], {**os.environ, **around}, cluster.pids)
            for name, seconds, clock in (line.split() for line in out.splitlines()):
                found[name] = float(seconds), memory, float(clock)
                print(f"  {name}: spark {seconds} s, {clock} by the clock; {memory / 2**20:.0f} MiB", flush=True)
        shutil.rmtree(folder / "cluster")
        return found

    def sizes(self, wanted: list[tuple[int, float]], told: Callable[[list[dict]], None]) -> None:
        """All sizes in DuckDB first, which is quick, then in Spark."""
        found: list[dict] = []
        folders = [self.options.folder / f"{servers}x{hours:g}" for servers, hours in wanted]
        try:
            for folder, (servers, hours) in zip(folders, wanted, strict=True):
                shutil.rmtree(folder, ignore_errors=True)
                plan = make_fleet.plan(servers, hours, rate=self.options.rate, pace=self.options.pace)
                made = self.ingest(plan, folder)
                about = {"servers": servers, "hours": hours, "rate": self.options.rate, "pace": self.options.pace}
                print(f"{servers} servers, {hours:g} h: {made['rows']:,} rows, {amount(made['bytes'])}", flush=True)
                by = self.duckdb(folder / "lake")
                found.append({**about, **made, "queries": {name: {"duckdb": by[name]} for name in QUERIES}})
                told(found)
            for folder, each in zip(folders, found, strict=True):
                if self.options.spark and each["rows"] <= self.options.spark_rows:
                    for name, took in self.spark(folder, folder / "lake").items():
                        each["queries"][name]["spark"] = took
                    told(found)
        finally:
            if not self.options.keep:
                for folder in folders:
                    shutil.rmtree(folder, ignore_errors=True)


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def amount(size: float) -> str:
    for unit, one in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= one:
            return f"{size / one:.1f} {unit}"
    return f"{size / 1e3:.1f} kB"


def described(sizes: list[dict], memory: str) -> str:
    """The tables of the guide."""
    head = ["fleet", "rows", "of them steps", "lake", "bytes a row", "recorded, bytes a row", "files"]
    rows = []
    for s in sizes:
        rows.append([f"{s['servers']} servers, {s['hours']:g} h", f"{s['rows']:,}", f"{s['tables']['steps'][0]:,}"])
        rows[-1] += [amount(s["bytes"]), f"{s['bytes'] / s['rows']:.1f}", f"{s['recorded'] / s['rows']:.1f}"]
        rows[-1] += [f"{s['files']:,}", f"{s['rows'] / s['ingest_sec']:,.0f}", f"{s['ingest_memory'] / 2**20:.0f} MiB"]
    ingest = table([*head, "rows into the lake, a processor second", "memory"], rows)
    text = f"{ingest}\n\n"
    for on, what in (
        ("duckdb", f"DuckDB, given {memory}"),
        ("spark", f"Spark, a driver (1 GB of heap), a master and two workers of one core and {HEAP} of heap"),
    ):
        have = [s for s in sizes if all(on in s["queries"][name] for name in QUERIES)]
        if not have:
            continue
        head = [f"query, {on}", *(f"{s['servers']} servers, {s['rows'] / 1e6:,.0f} M rows" for s in have)]
        rows = [[f"`{name}`", *(f"{s['queries'][name][on][0]:,.2f} s" for s in have)] for name in QUERIES]
        took = [sum(s["queries"][name][on][0] for name in QUERIES) for s in have]
        rows.append(["all of them", *(f"{seconds:,.1f} s" for seconds in took)])
        rows.append(["rows, against the first", *(f"{s['rows'] / have[0]['rows']:.1f} ×" for s in have)])
        rows.append(["time, against the first", *(f"{seconds / took[0]:.1f} ×" for seconds in took)])
        if on == "spark":
            clock = (sum(s["queries"][name][on][2] for name in QUERIES) for s in have)
            rows.append(["all of them, by the clock", *(f"{seconds:,.0f} s" for seconds in clock)])
        most = (max(s["queries"][name][on][1] for name in QUERIES) for s in have)
        rows.append(["memory at most", *(f"{each / 2**20:,.0f} MiB" for each in most)])
        text += f"{what}:\n\n{table(head, rows)}\n\n"
    return text


def reckoned(largest: dict) -> str:
    """On paper: 10,000 servers, 90 days."""
    served = largest["servers"] * largest["hours"]
    servers, days = 10_000, 90
    hours = servers * days * 24
    a_day = largest["rows"] / served * servers * 24
    ingest = largest["rows"] / largest["ingest_sec"]
    lines = [
        ["rows a server and hour", f"{largest['rows'] / served:,.0f}"],
        ["rows a day", f"{a_day:.2e}"],
        ["rows in 90 days", f"{a_day * days:.2e}"],
        ["lake, 90 days", amount(largest["bytes"] / served * hours)],
        ["of it `steps`", amount(largest["tables"]["steps"][1] / served * hours)],
        ["a server's lake, a day", amount(largest["bytes"] / served * 24)],
        ["network to the store, all servers", f"{largest['bytes'] / served * servers / 3600 * 8 / 1e9:.2f} Gbit/s"],
        ["processor for the export, a server", f"{a_day / servers / ingest / 86400 * 100:.2f} % of a core like these"],
    ]
    for name in QUERIES:
        by = largest["queries"][name]["duckdb"][0]
        day = by * (24 / largest["hours"]) * (servers / largest["servers"])
        lines.append(
            [f"`{name}` over one day of all", f"{day / 3600:,.1f} core hours: {math.ceil(day / 600):,} × 10 minutes"]
        )
    return table(["10,000 servers, 90 days", "needs"], lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", default="12x1,40x3,200x10", help="servers x hours, the largest last")
    parser.add_argument("--rate", type=float, default=1.5, help="requests a second of each server")
    parser.add_argument("--pace", type=float, default=24, help="times as long as a small model's forward passes")
    parser.add_argument("--spark", action="store_true", help="Spark too")
    parser.add_argument("--spark-rows", type=float, default=1e12, help="of lakes of at most so many rows")
    parser.add_argument("--memory", default="2GB", help="what DuckDB may take")
    parser.add_argument("--leave", type=float, default=5, help="gigabytes of the disk that stay free")
    parser.add_argument("--keep", action="store_true", help="the lakes stay")
    parser.add_argument("--build", type=Path, default=Path(os.environ.get("PM_BUILD", ROOT / "build" / "release")))
    parser.add_argument("--write", action="store_true", help="into docs/FLEETS.md")
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    options.folder.mkdir(parents=True, exist_ok=True)

    def told(sizes: list[dict]) -> None:
        (options.folder / "figures.json").write_text(json.dumps(sizes, indent=1))
        text = f"{described(sizes, options.memory)}{reckoned(sizes[-1])}"
        print(text, flush=True)
        if options.write:
            write(text)

    wanted = [(int(servers), float(hours)) for servers, hours in (size.split("x") for size in options.sizes.split(","))]
    Bench(options).sizes(wanted, told)
    return 0


def write(text: str) -> None:
    guide = GUIDE.read_text()
    guide = re.sub(r"(<!-- fleet -->\n).*?(<!-- end -->)", lambda m: m[1] + text + m[2], guide, count=1, flags=re.S)
    GUIDE.write_text(guide)


if __name__ == "__main__":
    sys.exit(main())
