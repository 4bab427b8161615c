"""The stand-in driver (stand_in_cuda.c): building it, and reading what it was asked."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).with_name("stand_in_cuda.c")
# The one way of asking a device that may be used while a graph is captured, and those that read.
ASKS = {"cuStreamIsCapturing"}


def build(folder: Path) -> Path:
    """libcuda.so.1 in the folder; the compiler is that of the build, or cc."""
    library = Path(folder) / "libcuda.so.1"
    if not library.exists():
        made = library.with_suffix(f".{os.getpid()}")
        subprocess.run(
            [os.environ.get("CC", "cc"), "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared",
             "-fvisibility=hidden", "-Wl,-soname,libcuda.so.1", "-o", made, SOURCE, "-lpthread"],
            check=True,
        )  # fmt: skip
        made.rename(library)
    return library


class Call(NamedTuple):
    pid: int
    thread: int
    name: str
    first: int
    second: int
    result: int


def calls(log: Path) -> list[Call]:
    if not log.exists():
        return []
    rows = (line.split() for line in log.read_text().splitlines())
    return [Call(int(a), int(b), c, int(d, 16), int(e, 16), int(f)) for a, b, c, d, e, f in rows]


def counts(log: Path) -> Counter[str]:
    return Counter(call.name for call in calls(log))


def live(log: Path) -> set[tuple[int, int]]:
    """Events that were made and not destroyed, each with its process; fails where one is destroyed twice or used after."""
    found: set[tuple[int, int]] = set()
    for call in calls(log):
        if call.result not in (0, 600):
            continue
        event = (call.pid, call.first)  # processes number theirs alike
        if call.name == "cuEventCreate":
            found.add(event)
        elif call.name == "cuEventDestroy_v2":
            assert event in found, f"{call.first:x} is destroyed and was not there"
            found.remove(event)
        elif call.name in ("cuEventRecord", "cuEventQuery"):
            assert event in found, f"{call.name} of {call.first:x}, which is not there"
    return found
