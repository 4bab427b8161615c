"""The driven side of soak.py: the harness without an end, keeping sums instead of rows.

It takes harness.py's options, and --totals FILE: a shared mapping with the sums of every step since the start, the
newest rows, and the word by which the conductor holds it at a step's end (class Totals). Memory of its own does not
grow: what is known of a request goes when the request ends. SIGTERM ends it after the step that it is in.
"""

from __future__ import annotations

import json
import mmap
import os
import resource
import signal
import struct
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from harness import ROW, Harness, options

NEWEST = 20_000  # rows kept
NEVER = 1 << 62
# The longest time from the end of one step to that of the next, which whoever wants it may set to 0. Sums of steps are those of ROW; of requests that ended, these; and the output tokens that were handed out.
ENDED = ("finished", "ended_prompt_tokens")
# `timed`: whoever set it to 1 gets each of the newest steps' TIMES (bench/bench_faults.py).
WORDS = ("timed", "pause_at", "paused", "longest_ns", "scheduled", "executed", "updated", "steps_with_tokens", "output_tokens", *ENDED, *ROW)
PLACE = {name: number for number, name in enumerate(WORDS)}
ROW_FORMAT = f"<{len(ROW)}I"
ROW_BYTES = struct.calcsize(ROW_FORMAT)
TIMED = 1 << 16  # steps whose times are kept
TIMES = ("wall_ns", "cpu_ns", "slept")  # slept: how often the thread waited for something in it, other than for a processor
TIMES_AT = (8 * len(WORDS) + NEWEST * ROW_BYTES + 7) // 8 * 8
BYTES = TIMES_AT + 8 * TIMED * len(TIMES)


class Totals:
    """Takes the place of harness.Truth. Words of 8 bytes, each stored at once; then a ring of the newest rows."""

    def __init__(self, path: str | Path, make: bool = False):
        with open(path, "w+b" if make else "r+b") as file:
            if make:
                file.truncate(BYTES)
            self.memory = mmap.mmap(file.fileno(), BYTES)
        self.words = memoryview(self.memory)[: 8 * len(WORDS)].cast("Q")
        self.time_words = memoryview(self.memory)[TIMES_AT:].cast("Q")
        if make:
            self["pause_at"] = NEVER

    def __getitem__(self, name: str) -> int:
        return self.words[PLACE[name]]

    def __setitem__(self, name: str, value: int) -> None:
        self.words[PLACE[name]] = value

    def scheduled(self, row: dict[str, int]) -> None:
        at = 8 * len(WORDS) + self["scheduled"] % NEWEST * ROW_BYTES
        struct.pack_into(ROW_FORMAT, self.memory, at, *(row[name] & 0xFFFFFFFF for name in ROW))
        for name in ROW[1:]:
            self[name] += row[name]
        self["steps_with_tokens"] += row["tokens"] > 0
        self["scheduled"] += 1

    def executed(self) -> None:
        self["executed"] += 1

    def finished(self) -> None:
        self["updated"] += 1

    def row(self, step: int) -> dict[str, int]:
        """Of a step that is among the newest ones."""
        at = 8 * len(WORDS) + step % NEWEST * ROW_BYTES
        return dict(zip(ROW, struct.unpack_from(ROW_FORMAT, self.memory, at), strict=True))

    def keep_times(self, step: int, times: tuple[int, ...]) -> None:
        at = step % TIMED * len(TIMES)
        for number, value in enumerate(times):
            self.time_words[at + number] = value

    def times(self, step: int) -> tuple[int, ...]:
        at = step % TIMED * len(TIMES)
        return tuple(self.time_words[at : at + len(TIMES)])


def spent() -> tuple[int, int]:
    """What this thread has used: nanoseconds on a processor, and how often it waited."""
    return time.thread_time_ns(), resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


class Soaked(Harness):
    def __init__(self, opts, totals: Totals):
        opts.requests, opts.truth, opts.max_rows = 0, None, 1
        super().__init__(opts)
        self.truth = totals
        self.stepped_ns = 0
        self.spent = (0, 0)

    def update(self, output, result) -> None:
        handed_out = self.generated
        super().update(output, result)
        totals = self.truth
        totals["output_tokens"] += self.generated - handed_out
        for rid in output.num_scheduled_tokens:
            if rid not in self.live and (known := self.known.pop(rid, None)) is not None:
                totals["ended_prompt_tokens"] += known.prompt_tokens
                totals["finished"] += 1
        # As every real model does, it lets go of the GIL: CPython before 3.13 looks for calls that other threads have
        # asked of the main thread only then (or when a thread wants the GIL), `profilemate set` among them.
        time.sleep(0)
        now_ns = time.perf_counter_ns()
        if self.stepped_ns and now_ns - self.stepped_ns > totals["longest_ns"]:
            totals["longest_ns"] = now_ns - self.stepped_ns
        if totals["timed"]:
            before, self.spent = self.spent, spent()
            wall_ns = now_ns - self.stepped_ns if self.stepped_ns and before[0] else 0
            used = (self.spent[0] - before[0], self.spent[1] - before[1]) if wall_ns else (0, 0)
            totals.keep_times(totals["updated"], (wall_ns, *used))
        self.stepped_ns = now_ns
        if totals["updated"] >= totals["pause_at"] or self.step >= self.opts.steps:
            totals["paused"] = 1
            while totals["updated"] >= totals["pause_at"] and self.step < self.opts.steps:
                time.sleep(0.001)
            totals["paused"] = 0
            self.stepped_ns = 0


def main() -> None:
    place = sys.argv.index("--totals")
    path = sys.argv[place + 1]
    opts = options(sys.argv[1:place] + sys.argv[place + 2 :])
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    soaked = Soaked(opts, Totals(path))

    def end(_number, _frame) -> None:
        opts.steps = 0

    signal.signal(signal.SIGTERM, end)
    soaked.run()
    print(json.dumps({"steps": soaked.step}), flush=True)


if __name__ == "__main__":
    main()
