"""A real browser for the tests of the pages; what its console says and asks for is a failure."""

from __future__ import annotations

import shutil

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync"
).split()
WAIT_MS = 120_000  # for a machine that has much else to do


@pytest.fixture(scope="module")
def chromium():
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium on the PATH (Debian: chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS, timeout=WAIT_MS)
        yield browser
        browser.close()


def new_page(browser, told: list, theme="light", width=1440, allowed=("file:", "data:")):
    """A page in a context of its own; `told` gets the console's lines, errors, and requests to anybody not allowed."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    context.set_default_timeout(WAIT_MS)
    page = context.new_page()
    # (The one thing that is let pass is about the tests' own look at the pixels.)
    page.on(
        "console",
        lambda message: (
            None if "willReadFrequently" in message.text else told.append(f"{message.type}: {message.text}")
        ),
    )
    page.on("pageerror", lambda error: told.append(f"error: {error}"))
    page.on("request", lambda one: told.append(one.url) if not one.url.startswith(allowed) else None)
    return page


def settle(page):
    """Two frames: whatever was put off to the next one is drawn."""
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def show(page, selector):
    page.evaluate(f"document.querySelector('{selector}').scrollIntoView({{block: 'center', behavior: 'instant'}})")
    settle(page)
    return page.locator(selector).first.bounding_box()


def painted(page, panel):
    """How many colours the canvases of a panel show."""
    return page.evaluate(
        """panel => [...document.querySelectorAll(`#${panel} canvas`)].map(canvas => {
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            const seen = new Set();
            for (let i = 0; i < data.length; i += 4)
                if (data[i + 3]) seen.add(data[i] << 16 | data[i + 1] << 8 | data[i + 2]);
            return seen.size;
        })""",
        panel,
    )
