"""The bench programs: each still starts, and what makes figures of their measurements is right.

Nothing is measured here: times belong to bench/, and to the documents that its programs write.
"""

import math
import random
import re
import struct
import sys
from importlib.util import find_spec

import pytest
import tools

BENCH = tools.ROOT / "bench"
PROGRAMS = sorted(path.name for path in BENCH.glob("*.py") if path.name not in ("paired.py", "spark_cluster.py"))
sys.path.insert(0, str(BENCH))

import bench_torch_profile  # noqa: E402
import overhead  # noqa: E402
import paired  # noqa: E402


# ---- medians of pairs ----


def test_ranks_are_those_of_the_tables_of_the_sign_test():
    """k of the interval from the k-th smallest to the k-th largest, for a median at 95 %, as printed tables have it."""
    known = {1: 0, 5: 0, 6: 1, 8: 1, 9: 2, 10: 2, 12: 3, 15: 4, 20: 6, 25: 8, 30: 10, 50: 18, 100: 40}
    assert {count: paired.rank(count) for count in known} == known


def test_an_interval_is_made_of_two_of_the_values():
    values = [5.0, 1.0, 9.0, 3.0, 7.0, 2.0, 8.0, 4.0, 6.0, 10.0]
    assert paired.estimate(values) == (5.5, 2.0, 9.0, 10)
    few = paired.estimate(values[:5])
    assert few.median == 5.0 and math.isnan(few.low), "five values cannot tell a 95 % interval"
    assert paired.share(few) == "+500.0 % (too few pairs for an interval)" and overhead.span(few) == "+5.0 (too few rounds)"


def test_intervals_hold_the_true_median_of_times_that_stall():
    """Times as they are: skewed, one of twenty a hundred times as long; an interval from mean and deviation would be useless."""
    low, high = 0.0, 10.0
    while high - low > 1e-9:  # the true median
        middle = (low + high) / 2
        below = 0.95 * (1 - math.exp(-middle)) + 0.05 * (1 - math.exp(-middle / 100))
        low, high = (middle, high) if below < 0.5 else (low, middle)
    rng, held, runs = random.Random(7), 0, 2000
    for _ in range(runs):
        found = paired.estimate([rng.expovariate(1) * (100 if rng.random() < 0.05 else 1) for _ in range(25)])
        held += found.low <= low <= found.high
    assert held / runs > 0.95


# ---- tables ----


def test_what_stands_between_the_marks_is_replaced_and_nothing_else():
    page = "a\n<!-- one -->\nold\n<!-- end -->\nb\n<!-- two -->\n<!-- end -->\n"
    assert paired.between(page, "one", "new\n") == "a\n<!-- one -->\nnew\n<!-- end -->\nb\n<!-- two -->\n<!-- end -->\n"
    assert paired.between(page, "two", "x") == "a\n<!-- one -->\nold\n<!-- end -->\nb\n<!-- two -->\nx\n<!-- end -->\n"
    with pytest.raises(ValueError, match="three"):
        paired.between(page, "three", "new")


def rounds(off: float, count: int, **more: float) -> list[dict]:
    """Rounds whose blocks differ by known amounts, on top of a drift that all have."""
    return [
        {"off": [off + i, off + i], **{way: [off + i + added, off + i + added / 2] for way, added in more.items()}} for i in range(count)
    ]


def test_overhead_reports_the_differences_that_were_put_in():
    one = {"hook_us": 12.25, "hook_calls": 8.5, "grown": {"off": 100.0, "ours": 110.0}, "record_bytes": 392.7}
    found = {
        "machine": "a machine",
        "setups": {
            "all": {"hooks": 74, "32": {**one, "rounds": rounds(4000, 20, ours=40.0, plain=20.0)}},
            "lightweight": {"hooks": 74, "32": {**one, "rounds": rounds(4000, 20, ours=36.0)}},
            "KV_CACHE_TRACKING": {"hooks": 20, "32": {**one, "rounds": rounds(4000, 20, ours=-5.0)}},
        },
        "start": {"bare": [10.0] * 8, "empty sitecustomize": [10.5] * 8, "extension": [11.25] * 8},
    }
    text = overhead.rendered(found)
    rows = {}
    for line in text.splitlines():
        name, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows.setdefault(name, cells)  # the first table with this name
    assert "| +40.0 (+40.0 to +40.0) | +20.0 (+20.0 to +20.0) | 12.2 | 8.5 | +1.00 % | +0.40 % | 20 |" in text
    assert rows[overhead.NAMES["plain"]] == ["+20.0 (+20.0 to +20.0)", "+10.0 (+10.0 to +10.0)", "", "", "+0.50 %", "+0.20 %", "20"]
    assert rows["only `ENABLE_KV_CACHE_TRACKING`"][0] == "-5.0 (-5.0 to -5.0)", "what makes vLLM faster is shown as such"
    assert rows["all profilers, lightweight"][:2] == ["0.8 %", "0.89 % (0.89 to 0.89)"], "tokens lost: 36 of 4009.5 + 36"
    assert rows["extension"][0] == "+1.25 (+1.25 to +1.25)"


def test_records_are_counted_as_the_layout_has_them(tmp_path):
    """Two segments of 4096 bytes after the header, one slot between them that is not in use."""
    layout = (tools.ROOT / "src/session/layout.h").read_text()
    magic = {name: int(value, 16).to_bytes(8, "little") for name, value in re.findall(r"(PM_\w+_MAGIC) 0x(\w+)ull", layout)}
    head = bytearray(4096)
    struct.pack_into("<8sIII", head, 0, magic["PM_FILE_MAGIC"], 1, len(head), 4096)
    struct.pack_into("<QQ", head, 216, 1234, 56789)

    def segment(*words: int) -> bytes:
        records = b"".join(struct.pack("<Q", 70 | n << 16) + bytes(8 * (n - 1)) for n in words)
        return (magic["PM_SEGMENT_MAGIC"] + bytes(120) + records).ljust(4096, b"\0")

    (tmp_path / "records").write_bytes(bytes(head) + segment(3, 6, 1) + bytes(4096) + segment(496))
    assert overhead.record_bytes(tmp_path / "records") == 8 * (3 + 6 + 1 + 496)
    assert overhead.hook_counts(tmp_path / "records") == (1234, 56789)


def test_files_of_measurements_are_joined_round_by_round():
    one = {"hook_us": 1.0, "rounds": rounds(100, 3, ours=5.0)}
    parts = [{"machine": "a", "setups": {"all": {"hooks": 7, "32": one}}},
             {"machine": "b", "setups": {"all": {"hooks": 8, "32": {**one, "hook_us": 2.0}, "256": one}, "simple": {"32": one}}}]  # fmt: skip
    found = overhead.joined(parts)
    assert found["machine"] == "b" and list(found["setups"]) == ["all", "simple"]
    both = found["setups"]["all"]["32"]
    assert len(both["rounds"]) == 6 and both["hook_us"] == 2.0 and found["setups"]["all"]["hooks"] == 8
    assert len(parts[0]["setups"]["all"]["32"]["rounds"]) == 3, "the parts stay as they are"


def test_the_modes_of_the_torch_profiler_are_compared_within_their_rounds():
    bare = [[0.1 * (1 + i), 0.2 * (1 + i)] for i in range(8)]
    times = {"bare": bare, "outside": [[1.1 * a, 1.05 * b] for a, b in bare], "inside": [[3 * a, 2 * b] for a, b in bare]}
    window = bench_torch_profile.WARMING + 10
    found = {"requests": 8, "machine": "m", "modes": {"deep": {"tokens": 10, "times": times, "flush": [window / 2] * 8, "size": [window * 3000] * 8}}}
    found = bench_torch_profile.joined([found, found])
    assert len(found["modes"]["deep"]["times"]["bare"]) == 16, "pairs of two files together"
    text = bench_torch_profile.rendered(found)
    assert "| `deep`, outside of a window | +10.0 % (+10.0 to +10.0) | +5.0 % (+5.0 to +5.0) |" in text
    assert re.search(r"in a window \| \+200\.0 % .* \| \+100\.0 % .* \| 500\.0 ms \| 3 kB \|", text)


# ---- the programs ----


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_program_starts(name):
    """--help runs everything but the measuring: imports, options, the text itself."""
    shown = tools.run(sys.executable, f"bench/{name}", "--help")
    lacks = re.search(r"^ModuleNotFoundError: No module named '(\w+)", shown.stderr, re.M)
    own = {path.stem for folder in ("bench", "tests", "python") for path in (tools.ROOT / folder).rglob("*.py")}
    if lacks and lacks[1] not in own and find_spec(lacks[1]) is None:
        pytest.skip(f"{name} needs {lacks[1]}, which is not installed here")
    assert shown.returncode == 0, shown.stderr[-2000:]
    assert "usage:" in shown.stdout
