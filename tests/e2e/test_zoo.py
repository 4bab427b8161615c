"""The reports of what the modules before left behind, in a real browser: experts, an encoder, several ranks, a killed
server, preemptions. One session of each kind that is there; alone, this module has none, and says so."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import results

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cli"))
from browser import chromium, new_page, painted, settle, show  # noqa: E402, F401

# What makes a session one of a kind, by the page's data (web/DATA.md); and the panel that shows it.
KINDS = {
    "experts": ("moe", lambda data: any((e["moe"] or {}).get("selections") for e in data["engines"])),
    "encoder": ("encoder", lambda data: any((e["encoder"] or {}).get("components") for e in data["engines"])),
    "ranks": ("timeline", lambda data: any(len(e["ranks"]) > 1 for e in data["engines"])),
    "killed": ("profile", lambda data: data["session"]["state"] in ("killed", "crashed")),
    "preempted": ("requests", lambda data: any(e["preemptions"]["rows"] for e in data["engines"])),
}
MOST_BYTES = 200e6  # of a session: the test is of kinds, not of sizes


def data_of(page: str) -> dict:
    return json.loads(re.search(r'id="pm-data">(.*?)</script>', Path(page).read_text(), re.S).group(1))


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> dict[str, tuple[Path, str, dict]]:
    """By kind: a session, its page, the page's data."""
    found = {}
    made = tmp_path_factory.mktemp("zoo")
    for i, mark in enumerate(sorted(tmp_path_factory.getbasetemp().rglob("session_*/session"))):
        session = mark.parent
        size = sum(file.stat().st_size for file in session.rglob("*") if file.is_file())
        if len(found) == len(KINDS) or size > MOST_BYTES:
            continue
        done = results.profilemate("report", "--out", made / f"{i}.html", session, check=False)
        if done.returncode != 0:
            continue  # a module's own business: some are damaged on purpose
        page = done.stdout.strip()
        data = data_of(page)
        for kind, (_, is_one) in KINDS.items():
            if kind not in found and is_one(data):
                found[kind] = session, page, data
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_its_report(kind, zoo, chromium):  # noqa: F811
    if kind not in zoo:
        pytest.skip(f"no module before this one left a session of this kind ({kind})")
    session, path, data = zoo[kind]
    told: list[str] = []
    page = new_page(chromium, told)
    page.goto(Path(path).as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    show(page, f"#{KINDS[kind][0]}")
    assert page.locator(f"#{KINDS[kind][0]}").is_visible()
    if any(rank["steps"]["rows"] for engine in data["engines"] for rank in engine["ranks"]):
        show(page, "#timeline")
        assert max(painted(page, "timeline")) > 2
        box = show(page, "#throughput .u-over")
        middle = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + box["width"] * 0.3, middle)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.7, middle, steps=4)
        page.mouse.up()
        settle(page)
        assert page.evaluate("profilemate.store.zoomed")
    page.context.close()
    assert told == []


@pytest.mark.parametrize("kind", KINDS)
def test_its_figures_are_those_of_the_text(kind, zoo):
    if kind not in zoo:
        pytest.skip(f"no module before this one left a session of this kind ({kind})")
    session, _, data = zoo[kind]
    said = json.loads(results.profilemate("report", "--json", session).stdout)
    assert data["session"]["state"] == said["state"]
    assert data["sums"]["records"] == said["records"]["readable"]
    assert [engine["engine"] for engine in data["engines"]] == [engine["engine"] for engine in said["engines"]]
    for shown, told in zip(data["engines"], said["engines"]):
        assert shown["requests"]["total"] == told["requests"]["total"]
        assert shown["preemptions"]["rows"] == told["requests"]["preemptions"]
