#!/usr/bin/env python3
"""Sessions of a made-up fleet, each through the real recorder (bench/make_day), with faults that are known.

    python bench/make_fleet.py OUT --servers 12 --hours 0.02        # OUT/<host>/session_…, and OUT/truth.json

Two thirds of the hosts serve a dense model, one half of them with each of two vLLM versions; one third a model with
experts, one half of those with a KV cache that is too small. Planted, unless --plain:

    straggler     on one host of the dense model (older version) the model takes 8 % longer
    regression    with the newer version, sampling takes 12 % longer
    waste, kv     the hosts with the small cache preempt
    experts       one expert of each layer is hot; which one is the model's doing

A fleet is the same each time, for a number of servers and hours.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DENSE, EXPERTS = "made-up/dense-8b", "made-up/experts-30b"
OLD, NEW = "0.31.0", "0.32.0"
START = 1795417200  # 2026-11-23 07:00:00 UTC
DAY = 86400
SLOW_HOST, SLOW_BY = 2, 1.08
SLOW_SAMPLING = 1.12
LAYERS, OF_LAYER, HOT = 4, 32, 3


@dataclass(frozen=True)
class Server:
    """One server: where it runs, and how make_day makes it."""

    number: int
    host: str
    model: str
    vllm: str
    tight: bool
    words: tuple[str, ...] = field(repr=False)


def plan(servers: int, hours: float, plain: bool = False, rate: float = 23, pace: float = 1) -> list[Server]:
    """The fleet. Up to 24 servers have a host each, more are four to a host. pace: how many times as long as that of a
    small model a forward pass takes."""
    per_host = 1 if servers <= 24 else 4
    hosts = -(-servers // per_host)
    dense, tight_from = hosts * 2 // 3, hosts - hosts // 6
    made = []
    for number in range(servers):
        h = number // per_host
        is_dense, tight = h < dense, h >= tight_from and not plain
        new = is_dense and h % 2 == 1
        words = [
            f"hours={hours}", f"requests_per_s={rate}", f"seed={number + 1}", f"host=gpu-{h:04d}",
            f"model={DENSE if is_dense else EXPERTS}", f"vllm={NEW if new else OLD}",
            f"start={START + (DAY if new else 0) + number}",
            f"kv_blocks={500 if tight else 4000}", f"max_tokens={1024 if tight else 2048}",
        ]  # fmt: skip
        if not is_dense:
            words += [f"moe_layers={LAYERS}", f"moe_experts={OF_LAYER}", f"moe_hot={1 if plain else HOT}"]
        words.append(f"slow_model={pace * (SLOW_BY if h == SLOW_HOST and not plain else 1)}")
        if new and not plain:
            words.append(f"slow_sample={SLOW_SAMPLING}")
        made.append(
            Server(number, f"gpu-{h:04d}", DENSE if is_dense else EXPERTS, NEW if new else OLD, tight, tuple(words))
        )
    return made


def truth(servers: list[Server], plain: bool = False) -> dict:
    """What the queries ought to find."""
    return {
        "servers": len(servers),
        "hosts": len({server.host for server in servers}),
        "plain": plain,
        "straggler": None if plain else {"host": f"gpu-{SLOW_HOST:04d}", "slower_pct": round(100 * (SLOW_BY - 1), 3)},
        "regression": None if plain else {
            "model": DENSE, "base": OLD, "new": NEW, "part": "sample",
            "change_pct": round(100 * (SLOW_SAMPLING - 1), 3),
        },
        "tight": sorted({server.host for server in servers if server.tight}),
        "hot_experts": {str(layer): (5 + layer * 7 + 3) % OF_LAYER for layer in range(LAYERS)},
        "hot_load": 1 if plain else HOT,
    }  # fmt: skip


def make(server: Server, out: Path, build: Path) -> Path:
    """Its session's folder."""
    folder = out / f"{server.host}-{server.number}"
    folder.mkdir(parents=True, exist_ok=True)
    command = [build / "bench" / "make_day", folder, *server.words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return Path(done.stdout.strip())


def make_all(servers: list[Server], out: Path, build: Path, jobs: int = 2) -> list[Path]:
    """All of them, at most so many at once."""
    out.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(lambda server: make(server, out, build), servers))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--servers", type=int, default=12)
    parser.add_argument("--hours", type=float, default=0.02)
    parser.add_argument("--rate", type=float, default=23, help="requests per second of each server")
    parser.add_argument("--pace", type=float, default=1, help="times as long as a small model's forward passes")
    parser.add_argument("--plain", action="store_true", help="without faults")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--build", type=Path, default=Path(os.environ.get("PM_BUILD", ROOT / "build" / "release")))
    options = parser.parse_args()
    servers = plan(options.servers, options.hours, options.plain, options.rate, options.pace)
    for path in make_all(servers, options.out, options.build, options.jobs):
        print(path)
    (options.out / "truth.json").write_text(json.dumps(truth(servers, options.plain), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
