"""What the bench programs say about pairs: medians with intervals that assume nothing about how times are distributed, and tables
between the marks of a document.

Used by bench_torch_profile.py and overhead.py; tests/static/test_bench.py checks it.
"""

import math
import re
import statistics
from pathlib import Path
from typing import NamedTuple


class Estimate(NamedTuple):
    """A median and the interval that has the true one in at least 95 of 100 runs; NaN where there are too few values to tell."""

    median: float
    low: float
    high: float
    count: int


def rank(count: int, confidence: float = 0.95) -> int:
    """The largest k for which the k-th smallest and the k-th largest of `count` values enclose the true median with at least
    this confidence; 0: there is none. Each value lies below the median with probability 1/2, whatever the distribution: the number
    that do is binomial, and the interval misses when fewer than k, or more than count - k do."""
    tail, k = 0, 0
    while k < count // 2 and tail + math.comb(count, k) <= (1 - confidence) / 2 * 2**count:
        tail += math.comb(count, k)
        k += 1
    return k


def estimate(values: list[float]) -> Estimate:
    ordered = sorted(values)
    k = rank(len(ordered))
    if not k:
        return Estimate(statistics.median(ordered) if ordered else math.nan, math.nan, math.nan, len(ordered))
    return Estimate(statistics.median(ordered), ordered[k - 1], ordered[-k], len(ordered))


def between(page: str, mark: str, text: str) -> str:
    """The page with what stands between <!-- mark --> and the next <!-- end --> replaced; ValueError without the marks."""
    pattern = re.compile(rf"(<!-- {re.escape(mark)} -->\n).*?(<!-- end -->)", re.S)
    if len(pattern.findall(page)) != 1:
        raise ValueError(f"no single <!-- {mark} --> … <!-- end --> in the page")
    return pattern.sub(lambda found: found[1] + text.rstrip("\n") + "\n" + found[2], page)


def write(path: Path, mark: str, text: str) -> None:
    path.write_text(between(path.read_text(), mark, text))


def table(head: list[str], rows: list[list[str]], numbers: int = 1) -> str:
    """A Markdown table; columns from the `numbers`-th on are set to the right."""
    marks = ["---" if i < numbers else "---:" for i in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, marks, *rows]) + "\n"


def share(found: Estimate) -> str:
    """A ratio less one, in percent."""
    if math.isnan(found.low):
        return f"{100 * found.median:+.1f} % (too few pairs for an interval)"
    return f"{100 * found.median:+.1f} % ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
