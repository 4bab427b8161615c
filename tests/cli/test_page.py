"""The page of a report in a real browser: every panel is drawn, a span chosen in one is the span of all, hover, search,
sorting and keys work, and text of a session never becomes markup."""

from __future__ import annotations

import json
import re

import page_data
import pytest
from browser import chromium, new_page, painted, settle, show  # noqa: F401

PANELS = (
    "summary findings timeline time forward throughput batches tokens queues sizes kv latency requests sampling graphs moe"
    " encoder layers device collectives transfers memory waste host about profile"
).split()


@pytest.fixture(scope="module")
def frame(tmp_path_factory):
    """A page that the program wrote, as what stands before and after its data."""
    from program import Cli

    cli = Cli(tmp_path_factory.mktemp("page"))
    cli.make_session("steps=20")
    shown = cli("report")
    assert shown.returncode == 0, shown.stderr
    text = open(shown.stdout.strip()).read()
    before, data, after = re.fullmatch(r'(.*id="pm-data">)(.*?)(</script>.*)', text, re.S).groups()
    return before, json.loads(data), after


@pytest.fixture(scope="module")
def opened(chromium, frame, tmp_path_factory):  # noqa: F811
    """Opens a page with the given data; whatever the console says, and every request, is a failure at the end."""
    told, pages = [], []

    def open_(data, theme="light", width=1440):
        before, _, after = frame
        file = tmp_path_factory.mktemp("html") / "report.html"
        file.write_text(before + json.dumps(data).replace("<", "\\u003c") + after)
        page = new_page(chromium, told, theme, width)
        page.goto(file.as_uri())
        page.wait_for_selector("html[data-ready]", state="attached")
        pages.append(page.context)
        return page

    yield open_
    for context in pages:
        context.close()
    assert told == []


@pytest.fixture(scope="module")
def full(opened):
    """One page for the tests that leave it as they found it."""
    return opened(page_data.page_data())


@pytest.fixture
def page(full):
    full.keyboard.press("Escape")
    full.keyboard.press("Escape")
    full.evaluate("scrollTo({top: 0, behavior: 'instant'})")
    assert not view(full)["zoomed"]
    yield full


def view(page):
    return page.evaluate(
        "(() => { const s = profilemate.store; return { view: s.view, full: s.full, zoomed: s.zoomed, request: s.request,"
        " latency: s.latency, search: s.search, engine: s.engine, hover: s.hover } })()"
    )


def drag(page, box, start, end, y=0.5):
    height = box["y"] + box["height"] * y
    page.mouse.move(box["x"] + box["width"] * start, height)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * (start + end) / 2, height, steps=3)
    page.mouse.move(box["x"] + box["width"] * end, height, steps=3)
    page.mouse.up()
    settle(page)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("thin", [False, True], ids=["rows", "buckets"])
def test_every_panel_is_drawn(opened, theme, thin):
    page = opened(page_data.page_data(thin=thin, steps=900, requests=50), theme)
    settle(page)
    assert page.evaluate("[...document.querySelectorAll('main section')].map(section => section.id)") == PANELS
    for panel in ("timeline", "throughput", "batches", "tokens", "queues", "sizes", "kv", "latency", "requests", "sampling", "moe", "transfers", "memory"):
        assert min(painted(page, panel)) > 3, f"nothing is drawn in {panel}"
    for panel in ("summary", "findings", "time", "forward", "graphs", "encoder", "layers", "device", "collectives", "waste", "host", "about", "profile"):
        assert len(page.inner_text(f"#{panel}")) > 60, f"{panel} is empty"
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1], "the page is wider than the window"


def test_what_the_program_writes_has_the_same_shape(frame):
    """The data of the other tests here is made up: it has the members that src/html writes."""

    def shape(value, made, path=""):
        if isinstance(value, dict) and isinstance(made, dict):
            for key in value:
                if path.endswith(
                    (".away", ".numbers", ".units", ".engine_config", ".parallel", ".finished", ".metadata")
                ):
                    continue
                assert key in made, f"{path}.{key} is not in page_data.py"
                shape(value[key], made[key], f"{path}.{key}")
        elif isinstance(value, list) and isinstance(made, list) and value and made:
            shape(value[0], made[0], f"{path}[0]")

    _, data, _ = frame
    made = page_data.page_data()
    shape(data, made)
    assert data["engines"][0]["ranks"][0]["steps"]["rows"] == 20
    for name, column in data["engines"][0]["ranks"][0]["steps"]["cols"].items():
        assert len(column) == 20, name


def test_a_span_chosen_in_one_panel_is_the_span_of_all(page):
    tiles, requests = page.inner_text("#summary"), page.inner_text("#requests .quiet")
    before = painted(page, "kv")
    drag(page, show(page, "#throughput .u-over"), 0.3, 0.5)
    now = view(page)
    full = now["full"][1] - now["full"][0]
    assert now["view"][1] - now["view"][0] == pytest.approx(0.2 * full, rel=0.05)
    assert now["view"][0] - now["full"][0] == pytest.approx(0.3 * full, rel=0.05)
    assert page.inner_text("#summary") != tiles and page.inner_text("#requests .quiet") != requests
    assert page.locator(".chip").count() == 1
    assert painted(page, "kv") and before
    narrow = now["view"]
    drag(page, show(page, "#timeline .canvas-host"), 0.4, 0.6)
    inner = view(page)["view"]
    assert narrow[0] < inner[0] < inner[1] < narrow[1]
    page.keyboard.press("b")
    assert view(page)["view"] == narrow
    page.locator(".chip").click()
    assert not view(page)["zoomed"] and page.inner_text("#summary") == tiles


def test_the_strip_moves_and_resizes_the_span(page):
    page.evaluate("(() => { const s = profilemate.store; const w = s.full[1] - s.full[0];"
                  " s.setView(s.full[0] + 0.4 * w, s.full[0] + 0.6 * w) })()")  # fmt: skip
    settle(page)
    strip = page.locator(".minimap").bounding_box()
    before = view(page)["view"]
    drag(page, strip, 0.5, 0.7, 0.3)
    moved = view(page)["view"]
    assert moved[0] > before[0] and moved[1] - moved[0] == pytest.approx(before[1] - before[0])
    drag(page, strip, 0.8, 0.9, 0.3)
    wider = view(page)["view"]
    assert wider[0] == pytest.approx(moved[0]) and wider[1] > moved[1]


def test_hover_shows_numbers_and_the_moment_everywhere(page):
    for selector in ("#timeline .canvas-host", "#batches .u-over", "#kv .u-over", "#requests .wf-stick"):
        box = show(page, selector)
        page.mouse.move(box["x"] + box["width"] * 0.62, box["y"] + 40)
        settle(page)
        tip = page.locator(".tip")
        assert tip.is_visible() and re.search(r"\d", tip.inner_text()), selector
        assert view(page)["hover"] is not None
    box = show(page, "#moe .canvas-host")
    page.mouse.move(box["x"] + 120, box["y"] + 60)
    assert "selections" in page.locator(".tip").inner_text()
    page.mouse.move(5, 5)
    settle(page)
    assert not page.locator(".tip").is_visible()


def test_search_and_sort(page):
    ids = page.evaluate("profilemate.engines[0].requests.map(row => row.id)")
    page.keyboard.press("/")
    page.keyboard.type(ids[5][:14])
    settle(page)
    assert page.inner_text("#requests .quiet").startswith("1 of ")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    assert view(page)["request"] == 5
    assert ids[5] in page.inner_text(".detail")
    page.keyboard.press("Enter")
    assert view(page)["zoomed"], "Enter shows its span"
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    for title, key in (("TTFT", "ttft"), ("TPOT", "tpot"), ("longest gap", "gap")):
        page.locator(".wf-heads button", has_text=title).click()
        page.locator(".wf-scroll").press("ArrowDown")
        worst = page.evaluate(
            f"profilemate.engines[0].requests.slice().sort((a, b) => (b.{key} ?? -1) - (a.{key} ?? -1))[0].{key}"
        )
        assert page.evaluate(f"profilemate.engines[0].requests[profilemate.store.request].{key}") == worst
        page.evaluate("profilemate.store.setRequest(null)")
    page.locator(".wf-heads button", has_text="arrived").click()


def test_a_drag_over_a_latency_filters_the_requests(page):
    box = show(page, "#latency .latency-plot")
    drag(page, box, 0.5, 0.99)
    chosen = view(page)["latency"]
    assert chosen["metric"] == "ttft" and chosen["from"] < chosen["to"]
    wanted = page.evaluate(
        "(l => profilemate.engines[0].requests.filter(r => r.ttft !== null && r.ttft >= l.from && r.ttft <= l.to).length)"
        "(profilemate.store.latency)"
    )
    assert 0 < wanted < 90
    assert page.inner_text("#requests .quiet").startswith(f"{wanted} of ")
    page.mouse.click(box["x"] + 5, box["y"] + 60)
    assert view(page)["latency"] is None


def test_keys(page):
    page.keyboard.press("w")
    first = view(page)["view"]
    assert view(page)["zoomed"]
    page.keyboard.press("d")
    assert view(page)["view"][0] > first[0]
    page.keyboard.press("a")
    assert view(page)["view"][0] == pytest.approx(first[0])
    page.keyboard.press("s")
    page.keyboard.press("0")
    assert not view(page)["zoomed"]
    page.keyboard.press("?")
    assert page.locator("dialog.help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("dialog.help").is_visible()
    page.keyboard.press("t")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.keyboard.press("t")
    page.keyboard.press("n")
    assert page.evaluate("document.activeElement.id") == "finding-0"
    page.keyboard.press("n")
    assert page.evaluate("document.activeElement.id") == "finding-1"
    page.keyboard.press("p")
    page.keyboard.press("Enter")
    assert view(page)["view"] == pytest.approx([4e6, 6e6])


def test_ctrl_and_the_wheel_zoom_round_the_pointer(page):
    box = show(page, "#timeline .canvas-host")
    x, y = box["x"] + box["width"] * 0.7, box["y"] + 60
    page.mouse.move(x, y)
    at = view(page)["hover"]
    page.keyboard.down("Control")
    page.mouse.wheel(0, -200)
    page.keyboard.up("Control")
    settle(page)
    now = view(page)
    assert now["zoomed"] and now["view"][0] < at < now["view"][1]
    page.mouse.dblclick(x, y)
    assert not view(page)["zoomed"]


def test_text_of_a_session_stays_text(page):
    settle(page)
    assert "taken" not in page.title()
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 2, "the data and the page's own"
    for panel in ("findings", "about", "profile"):
        assert page_data.HOSTILE in page.inner_text(f"#{panel}")
    page.locator(".finding button", has_text="</script>").first.click()
    assert page_data.HOSTILE in page.inner_text(".detail")
    assert "taken" not in page.title()


def test_findings_lead_to_their_span(page):
    page.locator(".finding button", has_text="Show").first.click()
    assert view(page)["view"] == pytest.approx([4e6, 6e6])


def test_tables_sort(page):
    head = page.locator("#host th button", has_text="operation")
    head.click()
    names = page.locator("#host tbody tr td:first-child").all_inner_texts()
    assert names == sorted(names)
    head.click()
    assert page.locator("#host tbody tr td:first-child").all_inner_texts() == sorted(names, reverse=True)


def test_device_memory_exchange_and_layers_show_the_figures_of_the_report(page):
    text = {panel: page.inner_text(f"#{panel}") for panel in ("device", "memory", "collectives", "layers")}
    for words in ("2.5 ms", "25.0 %", "70.0 %", "250 ms"):  # waiting: its mean, its share; the model's; all of it
        assert words in text["device"], words
    for words in ("57.7 GiB", "4.69 %", "kv cache", "40 GiB", "21.5 s"):
        assert words in text["memory"], words
    rows = page.locator("#collectives tbody tr").all_inner_texts()
    assert [row.split("\t")[:2] for row in rows] == [["tp", "all-reduce"], ["tp", "gather"], ["pp", "send"]]
    assert rows[0].split("\t")[2:] == ["6\u202f500", "1 GiB", "512 ms", "5.12 ms", "500 µs", "9 ms", "1.95 GiB/s", "–"]
    assert rows[2].split("\t")[-2:] == ["–", "64, 4 KiB"]
    kinds, layers = (page.locator("#layers table").nth(n).locator("tbody tr").all_inner_texts() for n in (0, 1))
    assert [row.split("\t")[0] for row in kinds] == ["attention", "mlp", "moe", "norm", "other"]
    assert kinds[0].split("\t")[1:] == ["800", "300 ms", "30.0 %", "3 ms", "3 ms", "3 ms"]
    assert len(layers) == 9 and layers[0].split("\t")[:3] == ["0", "120 ms", "12.0 %"] and layers[8].startswith("no layer")
    assert "replayed steps, not seen" in text["layers"].lower()


def test_the_axis_of_time_has_its_moments_from_the_first_drawing_on(opened):
    page = opened(page_data.page_data(steps=120, requests=12))
    show(page, "#throughput .u-over")
    below = page.evaluate(
        """(() => {
            const canvas = document.querySelector("#throughput canvas");
            const tall = Math.round(20 * devicePixelRatio);
            const { data } = canvas.getContext("2d").getImageData(0, canvas.height - tall, canvas.width, tall);
            let marked = 0;
            for (let i = 3; i < data.length; i += 4) marked += data[i] > 0;
            return marked;
        })()"""
    )
    assert below > 100, "no moments stand below the plot"


def test_sampling_says_what_a_setting_costs_and_what_cannot_be_told(page):
    rows = [row.split("\t") for row in page.locator("#sampling table").nth(0).locator("tbody tr").all_inner_texts()]
    assert [row[0].split("\n")[0] for row in rows] == ["top_p", "temperature", "seed", "penalties"], "the dearest first"
    assert "as one with top_k" in rows[0][0] and "+401 µs" in rows[0] and "+390 µs to +412 µs" in rows[0]
    assert "+2 µs ?" in rows[2] and "−11 µs to +15 µs" in rows[2] and "too few steps alike in all the rest" in rows[3]
    text = page.inner_text("#sampling")
    assert "top_p (+401 µs)" in text and "cannot be told from these steps: penalties." in text and "12 in 3.5 ms" in text
    strategies = page.locator("#sampling table").nth(1).locator("tbody tr").all_inner_texts()
    assert strategies[0].split("\t") == ["greedy + temperature + top_p + top_k", "640", "12.5", "620 µs", "775 µs", "930 µs", "70.5 %"]


def test_the_mix_of_a_batch_is_told_at_each_moment(page):
    """The lane of a setting has the share of the requests that ask for it; the interval's mark lies inside of it."""
    box = show(page, "#sampling .u-over")
    page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 40)
    settle(page)
    tip = dict(zip(*[iter(page.locator(".tip .tip-row > *").all_inner_texts())] * 2, strict=False))
    assert list(tip) == ["greedy", "temperature", "top_p", "top_k", "seed", "penalties"]
    shares = {name: float(value.split()[0]) for name, value in tip.items()}
    assert shares["greedy"] + shares["temperature"] == pytest.approx(100, abs=0.2) and shares["top_p"] == shares["top_k"]
    page.mouse.move(5, 5)
    for line in page.locator("#sampling .interval").all():
        mark, reach = (line.locator(f".{part}").bounding_box() for part in ("mark", "reach"))
        assert reach["x"] - 2 <= mark["x"] <= reach["x"] + reach["width"] + 2


def test_transfers_show_what_was_loaded_and_how_long_that_held_up(page):
    text = page.inner_text("#transfers")
    prompts = page.evaluate("profilemate.engines[0].json.requests.prompt_tokens")
    for words in ("5\u202f120 tokens, 640 MiB", f"{100 * 5120 / prompts:.1f} %", "128 tokens, 16 MiB", "A token is 128 KiB"):
        assert words in text, words
    assert "3\u202f200 times a layer was given" in text and "steps with a failed call\n2" in text
    rows = [row.split("\t") for row in page.locator("#transfers tbody tr").all_inner_texts()]
    assert [row[1] for row in rows] == ["lookup", "load", "start\u00a0load", "wait\u00a0load", "save", "wait\u00a0save", "finished"]
    assert rows[1][:6] == ["ExampleConnector", "load", "40", "5\u202f120", "640 MiB", "100"]
    assert rows[3][6:8] == ["820 ms", "8.2 ms"] and rows[0][4] == "–"


def test_what_was_not_there_has_no_panel_and_a_compiled_model_says_so(opened):
    data = page_data.page_data(steps=60, requests=6)
    engine = data["engines"][0]
    engine.update(device=None, memory=None, memory_series=None, collectives=None, sampling=None, sampling_series=None,
                  kv_transfers=None, kv_transfer_series=None)  # fmt: skip
    engine["layers"] = {"source": "none", "hooks": "off: the model is compiled", "clock": "host", "passes": 0,
                        "passes_without_times": 0, "steps_not_seen": 0, "forward_ms": 0, "kinds": {}, "phases": {},
                        "layers": []}  # fmt: skip
    page = opened(data)
    settle(page)
    assert page.locator("#device, #memory, #collectives, #sampling, #transfers").count() == 0
    assert "the model is compiled" in page.inner_text("#layers")


def test_two_engines(opened):
    page = opened(page_data.page_data(engines=2, steps=600, requests=30))
    first = page.inner_text("#summary")
    page.keyboard.press("]")
    settle(page)
    assert view(page)["engine"] == 1 and page.inner_text("#summary") != first
    page.locator("select").select_option("0")
    assert view(page)["engine"] == 0


def test_a_narrow_window_and_paper(opened):
    page = opened(page_data.page_data(steps=400, requests=20), width=480)
    wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1], "the page is wider than the window"
    paper = page.pdf(format="A4")
    assert paper.startswith(b"%PDF") and len(paper) > 20_000


def test_a_long_step_among_many_is_drawn_whole(opened):
    """From far away each column of pixels adds up shares of steps: none is left out between two columns."""
    data = page_data.page_data(steps=1200, requests=60)
    steps = data["engines"][0]["ranks"][0]["steps"]
    steps["t"][601] += 5_000_000
    steps["cols"]["total"][600] += 5_000_000
    steps["cols"]["kind"][600] = 1
    page = opened(data)
    settle(page)
    part = page.evaluate(
        """(() => {
            const { store, engines } = profilemate;
            const { t, cols } = engines[0].steps;
            const canvas = document.querySelector("#timeline canvas");
            const area = canvas.width - 58 - 8;
            const x = time => 58 + (time - store.view[0]) / (store.view[1] - store.view[0]) * area;
            const [from, to] = [Math.ceil(x(t[600])) + 1, Math.floor(x(t[600] + cols.total[600])) - 1];
            const seen = new Set();
            const { data } = canvas.getContext("2d").getImageData(from, 48, to - from, 1);
            for (let i = 0; i < data.length; i += 4) seen.add(data.slice(i, i + 3).join());
            return { wide: to - from, colours: [...seen] };
        })()"""
    )
    assert part["wide"] > 200 and part["colours"] == ["224,122,31"], "all of it has the colour of prefills"


def test_a_session_without_a_step(opened, frame):
    data = page_data.page_data(steps=50, requests=6)
    data.update(engines=[], findings=[])
    page = opened(data)
    assert "No engine step was recorded" in page.inner_text("main")
    assert page.locator("#profile").is_visible()
