"""What the samples of soak.py say: growth with its interval, verdicts, and the paragraph of docs/FAULTS.md."""

from __future__ import annotations

import math
import re
import statistics
from pathlib import Path

MIB = 1 << 20
BLOCKS = 20  # means of so many stretches: samples next to each other are not independent
STUDENT_95 = 2.101  # of BLOCKS - 2 degrees of freedom
PLACE = re.compile(r"(<!-- soak -->\n).*?(<!-- end -->)", re.S)
# A process that is profiled may differ in size from one moment to the next by a segment that is mapped or not yet.
SEGMENT_ROOM_MB = 2
# How many more of each are no leak: mappings that lie next to each other are sometimes counted as one.
SPARE = {"fds": 0, "threads": 0, "maps": 8}


def growth_per_hour(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Slope of (seconds, bytes) by least squares over the means of stretches, bytes per hour, and half the width of
    its 95 % interval; (0, inf) of too few points."""
    size = len(points) // BLOCKS
    if size == 0:
        return 0.0, math.inf
    parts = [points[i * size : (i + 1) * size] for i in range(BLOCKS)]
    x = [statistics.fmean(at for at, _ in part) / 3600 for part in parts]
    y = [statistics.fmean(value for _, value in part) for part in parts]
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    spread = sum((value - mean_x) ** 2 for value in x)
    if spread == 0:
        return 0.0, math.inf
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread
    residual = sum((b - mean_y - slope * (a - mean_x)) ** 2 for a, b in zip(x, y, strict=True))
    return slope, STUDENT_95 * math.sqrt(residual / (BLOCKS - 2) / spread)


def settled(samples: list[dict]) -> list[dict]:
    """Without the first tenth, in which caches fill and the ceiling is reached."""
    return samples[len(samples) // 10 :]


def of_process(samples: list[dict], who: str) -> dict | None:
    """Growth of one process, and its descriptors, threads and mappings: least in the first and in the last third."""
    seen = [sample for sample in settled(samples) if sample.get(who)]
    if len(seen) < 3:
        return None
    third = len(seen) // 3
    found: dict = {"samples": len(seen), "seconds": seen[-1]["at"] - seen[0]["at"]}
    for what in ("rss", "anon"):
        slope, half = growth_per_hour([(sample["at"], sample[who][what]) for sample in seen])
        found[what] = {
            "first": seen[0][who][what], "middle": seen[len(seen) // 2][who][what], "last": seen[-1][who][what],
            "per_hour": slope, "half_interval": half if math.isfinite(half) else None,
        }  # fmt: skip
    for what in ("fds", "threads", "maps"):
        first, last = (min(sample[who][what] for sample in part) for part in (seen[:third], seen[-third:]))
        found[what] = {"first": first, "last": last}
    return found


def conclude(figures: dict) -> dict:
    """Adds processes and verdicts to what was measured. Each verdict: whether it holds, and in words."""
    samples = figures["samples"]
    processes = {who: of_process(samples, who) for who in ("server", "alone", "watcher")}
    verdicts: dict[str, list] = {}
    differing = [sample["differs"] for sample in samples if sample["differs"]]
    verdicts["counters"] = [not differing and len(samples) > 2, f"{len(samples)} comparisons, {len(differing)} differed"]
    last = figures.get("last") or {}
    verdicts["records"] = [not last.get("wrong", ["never compared"]), "; ".join(last.get("wrong", ["never compared"])[:3])]
    largest, ceiling = max((sample["folder"] for sample in samples), default=0), figures["max_mb"] * MIB
    verdicts["ceiling"] = [0 < largest <= ceiling + SEGMENT_ROOM_MB * MIB, f"{largest} of {ceiling} bytes"]
    for who in ("server", "watcher"):
        found = processes[who]
        if found is None:
            verdicts[f"{who} leaks"] = [False, "not sampled"]
            continue
        grew = [what for what, more in SPARE.items() if found[what]["last"] > found[what]["first"] + more]
        verdicts[f"{who} leaks"] = [not grew, ", ".join(f"{what} {found[what]}" for what in grew)]
        anon = found["anon"]
        total = anon["last"] - anon["first"]
        low = anon["per_hour"] - (anon["half_interval"] or math.inf)
        verdicts[f"{who} memory"] = [total <= 4 * MIB or low <= 0, f"{total} bytes more"]
    verdicts["faults"] = [not figures.get("faults") and not figures.get("lost"), f"{figures.get('faults')} faults, "
                          f"{figures.get('lost')} lost"]  # fmt: skip
    verdicts["ended well"] = [not figures.get("errors"), "; ".join(figures.get("errors", []))[:500]]
    return {**figures, "processes": processes, "verdicts": verdicts, "good": all(ok for ok, _ in verdicts.values())}


def size(value: float) -> str:
    return f"{value / MIB:.1f} MiB" if abs(value) >= MIB / 2 else f"{value / 1024:.0f} KiB"


def paragraph(figures: dict) -> str:
    """Markdown, without tables: test_faults_listed.py takes those for faults."""
    count, processes = figures["counts"], figures["processes"]
    hours = figures["seconds"] / 3600
    long = f"{hours:.1f} hours" if hours >= 0.95 else f"{figures['seconds'] / 60:.0f} minutes"
    lines = [
        f"* **{long} without a pause**, vLLM {figures['vllm']}, preset `full`, a ceiling of {figures['max_mb']} MB: "
        f"{count['steps']:,} steps, {count['tokens']:,} tokens, {count['requests']:,} requests, {count['preemptions']:,} preemptions, "
        f"{count['hook_calls']:,} hooked calls. Of them {figures.get('faults', 0)} failed inside of us, and "
        f"{figures.get('lost', 0)} records were lost."
    ]

    def grew(found: dict, what: str) -> str:
        half = found[what]["half_interval"]
        interval = f" ± {size(half)}" if half is not None else ""
        return f"{size(found[what]['per_hour'])}{interval} an hour"

    server, alone, watcher = (processes[who] for who in ("server", "alone", "watcher"))
    if server:
        beside = f" The same without the profiler, beside it: {grew(alone, 'anon')}." if alone else ""
        lines.append(
            f"* **Memory** of the profiled process (anonymous pages, slope over {server['samples']} samples with its 95 % interval): "
            f"{size(server['anon']['first'])} at first, {size(server['anon']['last'])} at last, {grew(server, 'anon')}.{beside} "
            f"All resident pages, those of the session's files among them: {grew(server, 'rss')}. Descriptors "
            f"{server['fds']['first']} → {server['fds']['last']}, threads {server['threads']['first']} → {server['threads']['last']}, "
            f"mappings {server['maps']['first']} → {server['maps']['last']} (least in the first and in the last third)."
        )
    if watcher:
        lines.append(
            f"* **`profilemate serve`**, scraped {figures['scrapes']:,} times meanwhile: {size(watcher['anon']['first'])} at first, "
            f"{size(watcher['anon']['middle'])} half-way, {size(watcher['anon']['last'])} at last (in steps, with what its window holds), descriptors "
            f"{watcher['fds']['first']} → {watcher['fds']['last']}, threads {watcher['threads']['first']} → {watcher['threads']['last']}."
        )
    largest = max(sample["folder"] for sample in figures["samples"])
    lines.append(
        f"* **The session's folder** was never above {size(largest)}; {count['recycled']:,} older steps made room for newer ones."
    )
    last = figures.get("last") or {}
    lines.append(
        f"* **No drift**: the harness, which counts by itself, was stopped at the end of a step {len(figures['samples']):,} times, and each time "
        f"{figures['compared']} totals of `profilemate top` (steps, tokens by kind, outputs, requests) were equal to its own; at the end "
        f"the newest {last.get('rows', 0):,} records were, one by one, without a gap."
    )
    bad = [f"{name} ({why})" for name, (ok, why) in figures["verdicts"].items() if not ok]
    if bad:
        lines.append(f"* **Not as it should be**: {'; '.join(bad)}.")
    return "\n".join(lines) + "\n"


def write(document: Path, figures: dict) -> None:
    text = document.read_text()
    if not PLACE.search(text):
        raise ValueError(f"{document} has no <!-- soak --> … <!-- end -->")
    document.write_text(PLACE.sub(lambda match: match[1] + paragraph(figures) + match[2], text))
