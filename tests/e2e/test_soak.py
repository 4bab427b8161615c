"""soak.py in short: some thousands of steps, a ceiling that is reached, every counter compared while the server is held.

The two hours are run by hand; docs/FAULTS.md has what came of them. Samples are taken at fixed steps, so that nothing
here depends on how fast the machine is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import serving
import soak_figures

SOAK = str(Path(__file__).resolve().parent / "soak.py")
STEPS = 12_000


@pytest.fixture(scope="module")
def soaked(folder):
    figures = folder / "figures.json"
    words = (sys.executable, SOAK, "--steps", str(STEPS), "--samples", "24", "--max-mb", "6", "--figures", str(figures))
    environment = {**os.environ, "PM_BUILD": str(serving.BUILD)}
    done = subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert figures.exists(), done.stdout + done.stderr
    return json.loads(figures.read_text())


def test_it_served_and_recorded(soaked):
    """Guards the others: the ceiling was reached, and much was called."""
    assert soaked["errors"] == []
    assert soaked["counts"]["steps"] >= STEPS and soaked["counts"]["hook_calls"] > 4 * STEPS
    assert soaked["counts"]["preemptions"] > 100 and soaked["counts"]["requests"] > 100
    assert soaked["counts"]["recycled"] > 0, "the ceiling was never reached"


def test_live_totals_are_the_harnesss_at_every_sample(soaked):
    assert len(soaked["samples"]) == 24
    assert [sample["differs"] for sample in soaked["samples"] if sample["differs"]] == []


def test_the_newest_records_are_the_harnesss_one_by_one(soaked):
    assert soaked["last"]["wrong"] == [] and soaked["last"]["rows"] > 1000
    assert (soaked["faults"], soaked["lost"]) == (0, 0)


@pytest.mark.parametrize("what", ["ceiling", "server leaks", "server memory", "watcher leaks"])
def test_nothing_grows(soaked, what):
    held, why = soaked["verdicts"][what]
    assert held, why


def test_growth_is_found_where_there_is_some():
    """The verdicts can fail: made-up samples with a leak of each kind."""

    def conclude(**leak) -> dict:
        samples = []
        for i in range(200):
            server = {name: 1000 + leak.get(name, 0) * i for name in ("rss", "fds", "threads", "maps")}
            server["anon"] = (500 << 20) + i % 7 * 4096 + leak.get("anon", 0) * i
            samples.append({"at": 36.0 * i, "differs": {}, "folder": 1000 + leak.get("folder", 0) * i, "server": server,
                            "watcher": server, "alone": None})  # fmt: skip
        figures = {"samples": samples, "max_mb": 1, "last": {"wrong": []}, "faults": 0, "lost": 0, "errors": []}
        return soak_figures.conclude(figures)

    assert conclude()["good"]
    for what, verdict in {"anon": "server memory", "fds": "server leaks", "threads": "server leaks", "maps": "server leaks"}.items():
        assert not conclude(**{what: 40_000})["verdicts"][verdict][0]
    assert not conclude(folder=1 << 20)["verdicts"]["ceiling"][0]
    slope, half = soak_figures.growth_per_hour([(36.0 * i, 1000.0 * i + i % 7) for i in range(200)])
    assert slope == pytest.approx(100_000, rel=0.01) and half < 1000


def test_the_paragraph_is_made_of_the_figures(soaked, tmp_path):
    document = tmp_path / "FAULTS.md"
    document.write_text("before\n<!-- soak -->\nold\n<!-- end -->\nafter\n")
    soak_figures.write(document, soaked)
    text = document.read_text()
    assert text.startswith("before\n<!-- soak -->\n* **") and text.endswith("<!-- end -->\nafter\n") and "\nold\n" not in text
    assert f"{soaked['counts']['steps']:,} steps" in text and "No drift" in text
