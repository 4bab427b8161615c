"""`profilemate trace --format html`: its shape, its bounds, and in a real browser its drawings, search, zoom and figures."""

from __future__ import annotations

import json
import re

import pytest
from program import Cli, one_sentence

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>&amp;\u2028"


def x(cat, name, tid, ts, dur, pid=1, **args):
    return {"ph": "X", "cat": cat, "name": name, "pid": pid, "tid": tid, "ts": ts, "dur": dur, "args": args}


def worker(rank=0, steps=6, extra=()):
    """Steps of two layers: an operator inside an annotation, two kernels, a copy; a gap before each step."""
    events = [
        {"ph": "M", "name": "process_name", "pid": 1, "tid": 0, "ts": 0, "args": {"name": "python"}},
        {"ph": "M", "name": "thread_name", "pid": 1, "tid": 1, "ts": 0, "args": {"name": "thread 1 (main)"}},
    ]
    for i in range(steps):
        t, c = 1000 * i, 100 * i
        events += [
            x("user_annotation", f"execute_context_0(0)_generation_{i + 1}({i + 1})", 1, t, 600, **{"External id": c + 1}),
            x("cpu_op", "aten::linear", 1, t + 10, 200, **{"External id": c + 2}),
            x("cpu_op", "aten::mm", 1, t + 20, 150, **{"External id": c + 3}),
            x("cuda_runtime", "cudaLaunchKernel", 1, t + 30, 10, **{"External id": c + 3, "correlation": c + 3}),
            x("kernel", "sm90_xmma_gemm_f16", 7, t + 60, 300, pid=0, **{"External id": c + 3, "correlation": c + 3, "device": rank, "stream": 7}),
            x("cpu_op", "vllm::flash_attn", 1, t + 250, 100, **{"External id": c + 4}),
            x("cuda_runtime", "cudaLaunchKernel", 1, t + 260, 10, **{"External id": c + 4, "correlation": c + 4}),
            x("kernel", "flash_fwd_splitkv_kernel", 7, t + 400, 100.5, pid=0, **{"External id": c + 4, "correlation": c + 4, "device": rank, "stream": 7}),
            x("cuda_runtime", "cudaMemcpyAsync", 1, t + 500, 10, correlation=c + 5),
            x("gpu_memcpy", "Memcpy DtoH (Device -> Pinned)", 7, t + 520, 20, pid=0, correlation=c + 5, device=rank, stream=7, bytes=800),
        ]  # fmt: skip
    return {"distributedInfo": {"rank": rank, "world_size": 2}, "traceEvents": [*events, *extra], "traceName": "x"}


@pytest.fixture(scope="module")
def cli(tmp_path_factory):
    return Cli(tmp_path_factory.mktemp("trace_page"))


def make(cli, name, *documents, words=()):
    """The page of some traces, and what --format=json says of them."""
    paths = []
    for i, document in enumerate(documents):
        path = cli.tmp / f"{name}{i}.json"
        path.write_text(json.dumps(document))
        paths.append(path)
    out = cli.tmp / f"{name}.html"
    made = cli("trace", "--format=html", "-o", out, *words, *paths)
    assert made.returncode == 0, made.stderr
    assert made.stdout.strip() == str(out)
    figures = json.loads(cli("trace", "--format=json", *words, *paths).stdout)
    return out, figures


def data_of(page):
    return json.loads(re.search(r'id="pm-data">(.*?)</script>', page.read_text(), re.S)[1])


@pytest.fixture(scope="module")
def one(cli):
    return make(cli, "one", worker(extra=[x("cpu_op", HOSTILE, 2, 100, 50)]))


# ---- the file --------------------------------------------------------------------------------------------------------


def test_the_figures_are_those_of_json(one):
    page, figures = one
    data = data_of(page)
    assert data["figures"] == figures
    assert data["rows"] == len(figures["key_averages"])


def test_names_stay_text(one):
    page, _ = one
    text = page.read_text()
    assert text.count("<script") == 2 and text.count("</script>") == 2
    assert HOSTILE in data_of(page)["names"]
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy


def slices(drawing):
    for track in drawing["tracks"]:
        at = 0
        for i, step in enumerate(track["t"]):
            at += step
            yield track, i, at


def test_every_event_is_on_its_track(one):
    data = data_of(one[0])
    (drawing,) = data["drawings"]
    assert drawing["grain"] == 0
    by_name = {}
    for track, i, at in slices(drawing):
        by_name.setdefault(data["names"][track["name"][i]], []).append(
            (at, track["d"][i], track["row"][i], track["stream"])
        )
    assert by_name["sm90_xmma_gemm_f16"] == [(1000_000 * i + 60_000, 300_000, 0, 7) for i in range(6)]
    assert by_name["aten::mm"] == [(1000_000 * i + 20_000, 150_000, 2, None) for i in range(6)]
    assert by_name["flash_fwd_splitkv_kernel"][0] == (400_000, 100_500, 0, 7)


def totals(data, flame):
    """path -> (CPU ns, device ns, calls) of its own."""
    paths = []
    for i, outer in enumerate(flame["outer"]):
        name = data["names"][flame["name"][i]] if flame["name"][i] >= 0 else f"({flame['paths'][i]} smaller)"
        assert outer < i, "a path stands before those inside it"
        paths.append((*(paths[outer] if outer >= 0 else ()), name))
    return {path: (flame["cpu"][i], flame["device"][i], flame["calls"][i]) for i, path in enumerate(paths)}


def test_the_flame_graph_has_the_times_of_the_table(one):
    page, figures = one
    data = data_of(page)
    flame = data["drawings"][0]["nesting"]
    paths = totals(data, flame)
    step = "execute_context_*(*)_generation_*(*)"
    assert paths[(step, "aten::linear", "aten::mm")] == (6 * 140_000, 0, 6)
    assert paths[(step, "aten::linear", "aten::mm", "sm90_xmma_gemm_f16")] == (0, 6 * 300_000, 6)
    assert sum(flame["cpu"]) / 1000 == pytest.approx(figures["self_cpu_us"])
    assert sum(flame["device"]) / 1000 == pytest.approx(figures["self_device_us"])
    assert data["drawings"][0]["python"] is None, "there are no Python frames"


def test_python_stacks(cli):
    events = [
        x("python_function", "serve.py(10): main", 1, 0, 1000, **{"Python id": 1}),
        x("python_function", "model.py(20): forward", 1, 100, 500, **{"Python id": 2, "Python parent id": 1}),
        x("cpu_op", "aten::mm", 1, 200, 300, **{"External id": 5}),
    ]
    data = data_of(make(cli, "python", {"traceEvents": events})[0])
    paths = totals(data, data["drawings"][0]["python"])
    frames = ("serve.py(10): main", "model.py(20): forward")
    assert paths[(*frames, "aten::mm")][0] == 300_000
    assert paths[frames][0] == 200_000


def huge(n):
    """n kernels and operators of 100 ns, one long one now and then, and paths that are all different."""
    events = []
    for i in range(n):
        t = i * 0.5
        events.append(x("cpu_op", f"op{i % 40000}", 1, t, 0.1, **{"External id": i + 1}))
        events.append(x("kernel", f"kernel{i % 50}", 7, t, 500 if i % 10000 == 0 else 0.1, pid=0, device=0, stream=7 + (i % 10000 == 0)))  # fmt: skip
    return {"traceEvents": events}


def test_a_huge_trace_becomes_a_page_of_a_few_mb(cli):
    n = 100_000
    page, figures = make(cli, "huge", huge(n))
    data = data_of(page)
    (drawing,) = data["drawings"]
    assert page.stat().st_size < 8e6
    shown = sum(len(track["t"]) for track in drawing["tracks"])
    assert shown <= 165_000 and drawing["grain"] > 0
    # Every event is counted in one slice, with its time; long ones stand alone.
    assert sum(sum(track["n"]) for track in drawing["tracks"]) == 2 * n
    kernels = sum(row["us"] for row in figures["files"][0]["kernels"])
    assert sum(
        sum(track["busy"]) for track in drawing["tracks"] if track["device"] is not None
    ) / 1000 == pytest.approx(kernels)
    long = [(track["d"][i], track["n"][i]) for track, i, _ in slices(drawing) if track["d"][i] >= drawing["grain"]]
    assert long.count((500_000, 1)) == n // 10000
    # In the whole stretch nothing is joined.
    first, last = drawing["whole"]
    assert last > first
    inside = [track["n"][i] for track, i, at in slices(drawing) if first <= at < last]
    assert len(inside) > 100 and set(inside) == {1}
    # The flame graph is cut, its sums are not.
    flame = drawing["nesting"]
    assert flame["left_out"] > 30_000 and len(flame["name"]) < 7_000
    assert sum(flame["cpu"]) / 1000 == pytest.approx(figures["self_cpu_us"])
    assert len(data["figures"]["key_averages"]) == 2000 and data["rows"] == len(figures["key_averages"])


def test_odd_traces_have_a_page(cli):
    deep = [x("cpu_op", f"level{i}", 1, i, 2000 - 2 * i) for i in range(300)]
    for name, document in {
        "empty": {"traceEvents": []},
        "instant": {"traceEvents": [x("cpu_op", "a", 1, 5, 0)]},
        "deep": {"traceEvents": deep},
        "long": {"traceEvents": [x("cpu_op", "ü" * 100_000, 1, 5, 3)]},
        "wild": {"traceEvents": [x("cpu_op", "a", 1, -1e15, 1e300), x("kernel", "k", 1, 1e300, 1e300, pid="x\u0000y")]},
    }.items():
        page, figures = make(cli, name, document)
        data = data_of(page)
        assert data["figures"] == figures, name
        if name == "deep":
            (track,) = data["drawings"][0]["tracks"]
            assert (track["depth"], track["too_deep"], len(track["t"])) == (64, 236, 64)
        if name == "long":
            assert max(map(len, data["names"])) < 400


def test_the_name_of_the_file(cli):
    path = cli.tmp / "rank0.pt.trace.json"
    path.write_text(json.dumps(worker()))
    made = cli("trace", "--format=html", path)
    assert made.stdout == "rank0.pt.trace.html\n"
    assert (cli.tmp / "rank0.pt.trace.html").stat().st_size > 10_000


@pytest.mark.parametrize(
    "words, says",
    [
        (("-o", "x.html"), "--output is for the page"),
        (("--format=html", "--output="), "--output is empty"),
        (("--format=htm",), "give table, csv, json or html"),
        (("--format=html", "-o", "none/x.html"), "none: there is no such folder"),
    ],
)
def test_misuse(cli, words, says):
    path = cli.tmp / "misuse.json"
    path.write_text(json.dumps(worker(steps=1)))
    result = cli("trace", *words, path)
    assert result.returncode in (1, 2) and says in one_sentence(result.stderr)


# ---- in a browser ----------------------------------------------------------------------------------------------------

browser = pytest.importorskip("browser")
chromium = browser.chromium
PANELS = "summary findings timeline flame device classes averages kernels steps about".split()


@pytest.fixture(scope="module")
def opened(chromium):
    told, pages = [], []

    def open_(path, theme="light", width=1440):
        page = browser.new_page(chromium, told, theme, width)
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]", state="attached")
        pages.append(page)
        return page

    yield open_
    for page in pages:
        page.context.close()
    assert told == []


@pytest.mark.parametrize("theme, width", [("light", 1440), ("dark", 1440), ("light", 400)])
def test_every_panel_is_drawn(opened, one, theme, width):
    page = opened(one[0], theme, width)
    browser.settle(page)
    assert page.evaluate("[...document.querySelectorAll('main section')].map(section => section.id)") == PANELS
    for panel in ("timeline", "flame"):
        assert min(browser.painted(page, panel)) > 8, f"nothing is drawn in {panel}"
    for panel in PANELS:
        assert len(page.inner_text(f"#{panel}")) > 30, f"{panel} is empty"
    wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1], "the page is wider than the window"
    assert page.title() != "owned"


def cells(page, panel):
    """Rows of a panel's table: what the first cell says, then the exact figures that stand behind the times."""
    return page.evaluate(
        """panel => [...document.querySelectorAll(`#${panel} tbody tr`)].map(row => [row.cells[0].innerText,
            ...[...row.querySelectorAll('td.number span[title$="µs"]')].map(cell => parseFloat(cell.title))])""",
        panel,
    )


def test_tables_show_the_figures_of_json(opened, one):
    path, figures = one
    page = opened(path)
    shown = {row[0]: row[1:] for row in cells(page, "averages")}
    for row in figures["key_averages"]:
        assert shown[row["name"]] == [
            row[key] for key in ("self_cpu_us", "cpu_us", "self_device_us", "device_us")
        ] or any(other["name"] == row["name"] and other is not row for other in figures["key_averages"]), row["name"]
    (file,) = figures["files"]
    assert [row[1] for row in cells(page, "kernels")] == [row["us"] for row in file["kernels"]]
    (device,) = file["devices"]
    assert f"{100 * device['busy_us'] / device['span_us']:.1f} %" in page.inner_text("#device")
    for name, part in file["classes"].items():
        assert name in page.inner_text("#classes") and f"{part['calls']} calls" in page.inner_text("#classes")
    assert len(cells(page, "steps")) == len(file["steps"])
    # Sorted by a click, ascending by the next.
    head = page.locator("#averages th", has_text="calls").locator("button")
    head.click()
    calls = page.evaluate(
        "[...document.querySelectorAll('#averages tbody tr')].map(row => Number(row.cells[2].innerText))"
    )
    assert calls == sorted(calls, reverse=True)
    page.locator("#averages th", has_text="calls").locator("button").click()
    calls = page.evaluate(
        "[...document.querySelectorAll('#averages tbody tr')].map(row => Number(row.cells[2].innerText))"
    )
    assert calls == sorted(calls)
    # The order stays when rows are left out.
    page.evaluate("profilemate.store.setSearch('a')")
    assert page.locator("#averages th[aria-sort=ascending]").inner_text().startswith("calls")


def test_search_zoom_and_hover(opened, one):
    path, _ = one
    page = opened(path)
    view = "profilemate.store.view"
    full = page.evaluate("profilemate.store.full")
    # Search: tables, the flame graph's sum, the next match in the timeline.
    page.keyboard.press("/")
    page.keyboard.type("flash_fwd")
    browser.settle(page)
    assert [row[0] for row in cells(page, "averages")] == ["flash_fwd_splitkv_kernel"]
    page.keyboard.press("Enter")
    assert "flash_fwd_splitkv_kernel" in page.inner_text(".tl-detail")
    page.locator("#flame button[data-choice=device]").click()
    assert "603 µs" in page.inner_text(".path"), "six kernels of 100.5 µs"
    page.keyboard.press("Escape")
    assert len(cells(page, "averages")) > 5
    # The chosen slice fills the view; the way back.
    page.keyboard.press("f")
    low, high = page.evaluate(view)
    assert low < 400 < 500.5 < high and high - low < 200
    page.keyboard.press("0")
    assert page.evaluate(view) == full
    # A drag, a hover and a click in the timeline.
    box = browser.show(page, "#timeline .tl-stick")
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 60, steps=4)
    page.mouse.up()
    low, high = page.evaluate(view)
    wide = full[1] - full[0]
    assert low == pytest.approx(wide * 0.25, abs=wide * 0.01) and high == pytest.approx(wide * 0.5, abs=wide * 0.01)
    page.keyboard.press("0")
    browser.settle(page)
    kernel = page.evaluate(
        "(() => { const t = profilemate.timeline.tracks.find((one) => one.device !== null);"
        " return { y: t.y + 18 + 8, x: (t.rows[0].from[0] + t.rows[0].to[0]) / 2 / profilemate.store.full[1] } })()"
    )
    page.mouse.move(box["x"] + box["width"] * kernel["x"], box["y"] + kernel["y"])
    page.wait_for_selector(".tip:not([hidden])")
    assert "sm90_xmma_gemm_f16" in page.inner_text(".tip") and "300 µs" in page.inner_text(".tip")
    # The flame graph: a click zooms, the keys walk.
    page.locator("#flame button[data-choice=cpu]").click()
    box = browser.show(page, ".flame")
    page.mouse.move(box["x"] + 20, box["y"] + 19 * 1.5)
    page.wait_for_selector(".tip:not([hidden])")
    assert "execute_context_*" in page.inner_text(".tip")
    page.mouse.click(box["x"] + 20, box["y"] + 19 * 1.5)
    assert "execute_context_*" in page.inner_text(".path")
    page.locator(".flame").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert "aten::linear" in page.inner_text(".path")
    page.keyboard.press("Escape")
    assert page.evaluate("profilemate.flame.state.focus") is None


def test_several_ranks(opened, cli):
    page_file, figures = make(cli, "ranks", worker(0), worker(1, steps=3))
    page = opened(page_file)
    assert page.evaluate("profilemate.trace.files.map((file) => file.label)") == ["rank 0", "rank 1"]
    assert "GPU 0" in page.inner_text("#device")
    page.keyboard.press("]")
    assert "GPU 1" in page.inner_text("#device")
    assert len(cells(page, "steps")) == 3
    assert data_of(page_file)["figures"] == figures


def test_a_thinned_timeline(opened, cli):
    page = opened(cli.tmp / "huge.html")
    page.locator(".whole button").click()
    first, last = data_of(cli.tmp / "huge.html")["drawings"][0]["whole"]
    assert page.evaluate("profilemate.store.view") == pytest.approx([first / 1000, last / 1000], rel=0.01)
    page.keyboard.press("0")
    blocks = page.evaluate(
        "Math.max(...profilemate.timeline.tracks.flatMap((one) => one.rows.flatMap((row) => row.n)))"
    )
    assert blocks > 1
