"""Drives vLLM's real CUDA graph classes on a CPU, in a process of its own, and writes down what it did.

python tests/e2e/graphs/driver.py older|decode_only|newer|others TRUTH.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import newer
import older
import others
import stand_in

RUNS = {
    "older": lambda truth: older.run(truth, "FULL_AND_PIECEWISE"),
    "decode_only": lambda truth: older.run(truth, "FULL_DECODE_ONLY"),
    "newer": newer.run,
    "others": others.run,
}


def main(which: str, out: str) -> None:
    stand_in.install()
    truth = stand_in.Truth()
    RUNS[which](truth)
    Path(out).write_text(json.dumps(truth.data()))


if __name__ == "__main__":
    main(*sys.argv[1:])
