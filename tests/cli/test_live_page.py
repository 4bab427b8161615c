"""The live page of `profilemate serve` in a real browser: its figures against those of `top`, one server, ten and a
hundred, one that hangs, a lost connection, a token, a pause, the report of the last minutes."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time

import pytest
from patience import until
from program import BUILD, Cli

browser = pytest.importorskip("browser")
served = pytest.importorskip("served")
chromium = browser.chromium
settle = browser.settle
TOKEN = "0123456789abcdefTOKEN"


@pytest.fixture
def serve(tmp_path):
    cli = Cli(tmp_path)
    cli.sessions.mkdir()
    running = []

    def start(*options, token=None, port=0):
        if token is not None:
            file = cli.tmp / "token"
            file.write_text(token + "\n")
            file.chmod(0o600)
            options = (*options, "--token-file", file)
        one = served.Served(
            BUILD / "bin" / "profilemate",
            "--dir",
            cli.sessions,
            "--listen",
            f"127.0.0.1:{port}",
            *options,
            env=cli.environment(),
            cwd=cli.tmp,
        )
        one.token = token
        running.append(one)
        return one

    start.cli = cli
    yield start
    for one in running:
        with one:
            pass


class Engine:
    """A session that grows as it is told (tests/cli/live_session.c)."""

    def __init__(self, cli, i: int):
        real, mono = time.time_ns(), time.monotonic_ns()
        session = f"session_20261123_{100000 + i}:{secrets.token_hex(16)}:{mono}:{real}:{os.getpid()}"
        self.process = subprocess.Popen(
            [BUILD / "tests" / "live_session"],
            env=cli.environment(VLLM_PROFILING_SESSION=session),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.path = self.process.stdout.readline().strip()
        self.obey(f"attr model org/model-{i:03d}")

    def obey(self, line: str):
        self.process.stdin.write(line + "\n")
        assert self.process.stdout.readline() == "done\n"


@pytest.fixture
def engines(serve):
    running = []

    def start(n):
        running.extend(Engine(serve.cli, len(running)) for _ in range(n))
        for one in running:
            one.obey("steps 5")
        return running

    yield start
    for one in running:
        one.process.kill()
        one.process.wait()


@pytest.fixture
def opened(chromium):
    told, pages = [], []

    def open_(one, hash="", theme="light", width=1440, expected=()):
        page = browser.new_page(chromium, told, theme, width, allowed=("data:", one.url))
        page.goto(one.url + hash)
        pages.append(page)
        page.expected = expected
        return page

    yield open_
    for page in pages:
        page.context.close()
    # What a browser itself says of an answer that is 401, or of a server that is gone, was provoked.
    assert [line for line in told if "Failed to load resource" not in line] == []


def wait(page, expression, arg=None):
    """Until it is so. (wait_for_function would evaluate within the page, whose policy forbids that.)"""
    until(lambda: page.evaluate(expression, arg), f"never: {expression}")


def states(page, n):
    wait(page, f"Number(document.documentElement.dataset.states ?? 0) >= {n}")


@pytest.mark.parametrize(
    "n, theme, width", [(1, "light", 1440), (10, "dark", 1440), (100, "light", 1440), (10, "light", 400)]
)
def test_so_many_servers(serve, engines, opened, n, theme, width):
    engines(n)
    one = serve()
    until(lambda: len(one.sessions()) == n)
    page = opened(one, "#/", theme, width)
    wait(page, f"document.querySelectorAll('#servers tbody tr').length === {n}")
    states(page, 3)
    rows = page.evaluate("[...document.querySelectorAll('#servers tbody tr')].map(row => row.innerText)")
    assert {f"model-{i:03d}" for i in range(n)} == {row.split("session_")[0].split()[-1] for row in rows}
    wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1], "the page is wider than the window"
    # The order: by another column, by the same once more; a filter.
    for want in (sorted, lambda names: sorted(names, reverse=True)):
        page.locator("#servers th", has_text="server").locator("button").click()
        names = page.evaluate("[...document.querySelectorAll('#servers tbody tr b')].map(one => one.textContent)")
        assert names == want(names)
    page.keyboard.press("/")
    page.keyboard.type(f"model-{n - 1:03d}")
    assert page.locator("#servers tbody tr").count() == 1
    page.locator("#servers tbody tr").click()
    page.wait_for_selector("#session")
    assert f"org/model-{n - 1:03d}" in page.inner_text("#session")
    page.locator("#session h2").click()
    page.keyboard.press("Backspace")
    page.wait_for_selector("#servers")


def test_one_alone_is_shown_at_once_with_the_figures_of_top(serve, engines, opened):
    (engine,) = engines(1)
    engine.obey("request chatcmpl-1 50")
    one = serve()
    until(lambda: len(one.sessions()) == 1)
    page = opened(one)
    page.wait_for_selector("#throughput canvas")
    wait(page, "[...profilemate.history.engines.values()].some(past => past.t.length > 0 && past.last)")
    states(page, 3)  # the first only begins the history: what happens from here on is all in it
    engine.obey("steps 40")
    engine.obey("request chatcmpl-2 70 2")
    wait(page, "document.querySelector('.live-tiles').innerText.includes('45 in total')")
    for panel in ("throughput", "queues", "kv", "steps"):
        assert min(browser.painted(page, panel)) > 2, f"nothing is drawn in {panel}"
    # Paused, so that page and `top` tell of the same moment: totals stand still by now.
    page.keyboard.press("Space")
    assert page.inner_text(".status") == "paused"
    shown = serve.cli("top", "--once", "--json", engine.path)
    (session,) = json.loads(shown.stdout)["sessions"]
    total = session["engines"][0]["total"]
    assert (total["steps"], total["preemptions"]) == (45, 2)
    assert "2 in total" in page.locator(".tile", has_text="preempted").inner_text()
    cells = page.evaluate(
        "[...document.querySelectorAll('[data-time=ttft] td')].slice(5)"
        ".map(cell => cell.querySelector('span')?.title ?? cell.textContent)"
    )
    assert cells == [f"{total['ttft'][key]:g} ms" for key in ("p50_ms", "p95_ms", "p99_ms")] + [
        str(total["ttft"]["count"])
    ]
    # While paused nothing moves; afterwards it does.
    engine.obey("steps 5")
    states(page, 1 + int(page.evaluate("document.documentElement.dataset.states")))
    assert "45 in total" in page.inner_text(".live-tiles")
    page.keyboard.press("Space")
    wait(page, "document.querySelector('.live-tiles').innerText.includes('50 in total')")
    # The history is what happened between states: all steps after the first one, no more.
    steps = page.evaluate(
        "(() => { const past = [...profilemate.history.engines.values()][0]; let sum = 0;"
        " for (let i = 1; i < past.t.length; i++) sum += past.steps[i] * (past.t[i] - past.t[i - 1]); return sum; })()"
    )
    assert 44 < steps < 56, "45 since, and of the first 5 what the server tells of the seconds before"
    # The report of the last minutes, and back.
    page.keyboard.press("r")
    page.wait_for_selector("html[data-ready]", state="attached")
    assert page.locator("#timeline canvas").count() > 0 and "the last 60 s" in page.inner_text("header")
    page.locator("text=‹ live").click()
    page.wait_for_selector("#session")


def test_a_server_that_hangs(serve, opened):
    _, process = serve.cli.hold_session("steps=20")
    try:
        one = serve()
        until(lambda: len(one.sessions()) == 1)
        page = opened(one, "#/")
        page.wait_for_selector("#servers tbody tr")
        (state,) = one.sessions()
        wait(page, "state => document.querySelector('#servers .pill').textContent === state", state["state"])
        # Made up from here on, and looked at before the next state comes: a simulated engine does not hang in a kernel.
        page.evaluate(
            """() => {
                window.seen = [];
                const look = (health, sentence) => {
                    const state = structuredClone(profilemate.state());
                    Object.assign(state.sessions[0], { health, sentence });
                    profilemate.source.on.state(state);
                    const row = document.querySelector("#servers tbody tr");
                    const text = (place, from = row) => from.querySelector(place)?.textContent ?? "";
                    seen.push([row.className, text(".pill"), text(".sentence"), text("#servers .quiet", document)]);
                };
                look("stalled", "no step for 12 s: engine core pid 7 in state D </script><b>");
                look("killed", "killed by signal 9");
            }"""
        )
        stalled, killed = page.evaluate("seen")
        assert stalled[0].split() == ["choice", "hangs"] and stalled[1] == "stalled"
        assert stalled[2] == "no step for 12 s: engine core pid 7 in state D </script><b>"
        assert "1 hung" in stalled[3]
        assert killed[0].split() == ["choice", "over"] and killed[1:3] == ["killed", "killed by signal 9"]
        assert "1 ended" in killed[3]
    finally:
        process.communicate("")


def test_a_lost_connection_comes_back(serve, engines, opened):
    engines(2)
    one = serve()
    until(lambda: len(one.sessions()) == 2)
    page = opened(one, "#/")
    states(page, 2)
    one.end()
    page.wait_for_selector(".status.lost, .status.connecting")
    assert page.locator("#servers tbody tr").count() == 2, "what was known stays in sight"
    serve(port=one.port)
    page.wait_for_selector(".status.live")


def test_a_token_is_asked_for_and_kept_for_the_tab(serve, engines, opened):
    engines(1)
    one = serve(token=TOKEN)
    until(lambda: len(one.sessions()) == 1)
    page = opened(one, "#/")
    asked = []
    page.on("request", lambda request: asked.append((request.url, request.headers.get("authorization"))))
    page.wait_for_selector("dialog.token[open]")
    page.keyboard.type("wrong-token-wrong")
    page.keyboard.press("Enter")
    wait(page, "document.querySelector('dialog.token p').textContent.includes('not it')")
    page.keyboard.type(TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_selector("#servers tbody tr")
    assert page.locator("dialog.token[open]").count() == 0
    assert (one.url + "events", f"Bearer {TOKEN}") in asked and not any(TOKEN in url for url, _ in asked)
    page.reload()
    page.wait_for_selector("#servers tbody tr")
    assert page.evaluate("sessionStorage.getItem('profilemate-token')") == TOKEN
    assert page.evaluate("document.cookie") == ""


def test_the_page_is_sent_with_its_policy(serve):
    one = serve()
    status, headers, body = one.ask("/")
    assert status == 200 and headers["content-type"] == "text/html; charset=utf-8"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy and b"http://" not in body.split(b"<script>")[0].replace(b"http://www.w3.org", b"")
