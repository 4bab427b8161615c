"""The HTML report of a real server that preempts, in a real browser: what it says is what vLLM counted, every panel is
drawn, and request ids that clients chose stay text."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
from types import SimpleNamespace

import pytest
import results
import serving
import tiny

HOSTILE = '</script><script>document.title="taken"</script>'


@pytest.fixture(scope="module")
def crowded(llama, folder):
    """Too many tokens at once for the pool, so that requests are preempted; some ids chosen by the client."""
    sessions = folder / "page"
    environment = serving.clean_environment(**serving.profiled(sessions, preset="full"))
    arguments = ("--num-gpu-blocks-override", "36", "--block-size", "32", "--max-num-batched-tokens", "128",
                 "--max-num-seqs", "12")  # fmt: skip
    rng = random.Random(9)

    def prompt(n):
        return [rng.randrange(3, tiny.VOCABULARY) for _ in range(n)]

    with serving.Server(llama, folder / "page-server", environment, arguments) as server:
        server.wait_ready()
        server.complete_all([{"prompt": prompt(rng.randrange(20, 160)), "max_tokens": 120} for _ in range(24)])
        server.headers["X-Request-Id"] = HOSTILE
        server.complete(prompt(20), 5)
        metrics = server.metrics()
        server.stop(signal.SIGINT)
    session = results.only_session(sessions)
    page = results.profilemate("report", session).stdout.strip()
    text = open(page).read()
    data = json.loads(re.search(r'id="pm-data">(.*?)</script>', text, re.S).group(1))
    return SimpleNamespace(session=session, page=page, text=text, data=data, metrics=metrics)


def test_it_says_what_vllm_counted(crowded):
    (engine,) = crowded.data["engines"]
    requests, cols = engine["requests"], engine["requests"]["cols"]
    assert requests["total"] == 25 == len(cols["id"])
    assert requests["output_tokens"] == crowded.metrics.sum("vllm:generation_tokens_total") == sum(cols["out"])
    assert requests["prompt_tokens"] == crowded.metrics.sum("vllm:prompt_tokens_total")
    assert engine["preemptions"]["rows"] == crowded.metrics.sum("vllm:num_preemptions_total") > 0
    assert engine["preemptions"]["rows"] == sum(cols["preemptions"]) == sum(map(len, requests["away"].values()))
    assert sum(engine["ranks"][0]["steps"]["cols"]["rtok"]) == requests["recomputed_tokens"] > 0
    assert engine["latency"]["ttft"]["count"] == 25
    report = json.loads(results.profilemate("report", "--json", crowded.session).stdout)["engines"][0]["requests"]
    for key in ("ttft", "tpot", "itl", "queue", "e2e"):
        assert engine["latency"][key]["count"] == report[key]["count"]
        for name in ("p50", "p90", "p99", "max"):
            assert engine["latency"][key][name] / 1e3 == pytest.approx(report[key][f"{name}_ms"], abs=0.0011)


def test_ids_of_clients_stay_text(crowded):
    assert crowded.text.count("</script>") == 2
    assert any(HOSTILE in name for name in crowded.data["engines"][0]["requests"]["cols"]["id"])


def test_in_a_browser(crowded):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("no Chromium on the PATH (Debian: chromium)")
    told = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda one: told.append(one.url) if not one.url.startswith(("file:", "data:")) else None)
        page.goto(f"file://{crowded.page}")
        page.wait_for_selector("html[data-ready]", state="attached")
        assert "taken" not in page.title()
        for panel in ("findings", "timeline", "kv", "latency", "requests", "waste", "about", "profile"):
            assert page.locator(f"#{panel}").is_visible(), panel
        page.keyboard.press("/")
        page.keyboard.type("</script>")
        page.keyboard.press("Enter")
        page.keyboard.press("ArrowDown")
        assert HOSTILE in page.inner_text(".detail")
        assert page.inner_text("#requests .quiet").startswith("1 of 25")
        page.keyboard.press("Escape")
        page.locator(".wf-heads button", has_text="longest gap").click()
        page.locator("#throughput").scroll_into_view_if_needed()
        box = page.locator("#throughput .u-over").bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 40)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + 40, steps=4)
        page.mouse.up()
        assert page.evaluate("profilemate.store.zoomed")
        browser.close()
    assert told == []
