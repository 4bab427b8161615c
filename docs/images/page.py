#!/usr/bin/env python3
"""Takes the pictures of the HTML report that README.md shows, in a real Chromium: docs/images/page.py SESSION

Best a session with preemptions, of half a minute or more. Needs Playwright (scripts/requirements-test.txt) and Chromium; PM_BUILD
names the build (default: build/release).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

HERE = Path(__file__).resolve().parent
PROGRAM = Path(os.environ.get("PM_BUILD", HERE.parents[1] / "build" / "release")) / "bin" / "profilemate"
FULL = "const [a, b] = profilemate.store.full; const part = (from, to) => [a + from * (b - a), a + to * (b - a)];"
SHOTS = (
    # name, theme, height, what to do first
    ("page-overview", "light", 1180, "scrollTo(0, 0)"),
    (
        "page-requests",
        "dark",
        740,
        FULL + "profilemate.store.setView(...part(0.022, 0.085));"
        "document.getElementById('requests').scrollIntoView({behavior: 'instant'})",
    ),
    (
        "page-steps",
        "dark",
        420,
        FULL + "const at = part(0.6, 0.6)[0]; profilemate.store.setView(at, at + 60e3);"
        "document.getElementById('timeline').scrollIntoView({behavior: 'instant'})",
    ),
)


def main() -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page = Path(folder) / "report.html"
        subprocess.run([PROGRAM, "report", "-o", page, sys.argv[1]], check=True, stdout=subprocess.DEVNULL)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for name, theme, height, script in SHOTS:
            tab = browser.new_page(viewport={"width": 1280, "height": height}, color_scheme=theme)
            tab.goto(page.as_uri())
            tab.wait_for_selector("html[data-ready]", state="attached")
            tab.evaluate(f"(() => {{ {script} }})()")
            tab.wait_for_timeout(500)
            tab.screenshot(path=HERE / f"{name}.png")
            print(HERE / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
