"""profilemate serve: its figures against `top` and the export, its forms, who is let in, what it does with a file."""

import json
import os
import secrets
import stat
import subprocess

import metrics_proto
import pytest
from patience import until
from program import BUILD, one_sentence
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families
from served import OPENMETRICS, PROTOBUF, Engine, Served, one, samples, values
from test_top import served as made_session

TOKEN = "a-token.of_0123456789~+/="
NO_SERVER = "this build has no HTTP server"


@pytest.fixture(scope="module", autouse=True)
def can_serve():
    said = subprocess.run(
        [BUILD / "bin" / "profilemate", "serve", "--listen", "127.0.0.1:0", "no-such-session"], capture_output=True, text=True
    ).stderr
    if NO_SERVER in said or "libmicrohttpd" in said:
        pytest.skip(said.strip())


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """Two minutes of a made-up server, which has ended: its figures stand still."""
    return made_session(tmp_path_factory.mktemp("crowd"), "hours=0.03", "requests_per_s=20", "kv_blocks=400")


@pytest.fixture(scope="module")
def still(crowd, tmp_path_factory):
    env = {name: os.environ[name] for name in ("PATH", "ASAN_OPTIONS", "UBSAN_OPTIONS") if name in os.environ}
    env["VLLM_PROFILING_DIR"] = str(tmp_path_factory.mktemp("none"))
    with Served(BUILD / "bin" / "profilemate", crowd, env=env) as served:
        yield served


@pytest.fixture
def serve(cli):
    """Starts one; all are ended at the end."""
    running = []

    def start(*options, token: str | None = None, **env) -> Served:
        if token is not None:
            file = cli.tmp / "token"
            file.write_text(token + "\n")
            file.chmod(0o600)
            options = (*options, "--token-file", file)
        served = Served(BUILD / "bin" / "profilemate", *options, env=cli.environment(**env), cwd=cli.tmp)
        served.token = token
        running.append(served)
        return served

    yield start
    for served in running:
        with served:
            pass


@pytest.fixture
def engine(cli):
    running = []

    def start(name: str = "session_20261123_101010") -> Engine:
        running.append(Engine(cli, name))
        return running[-1]

    yield start
    for each in running:
        each.process.kill()
        each.process.wait()


# ---- figures ----


def labels_without(key: tuple, *names: str) -> tuple:
    return (key[0], *(label for label in key[1:] if label[0] not in names))


def test_what_comes_from_records_is_what_the_export_says(cli, crowd, still):
    """Each sample of `export --format openmetrics`, to the last digit."""
    done = cli("export", "-q", "--format", "openmetrics", crowd)
    assert (done.returncode, done.stderr) == (0, "")
    theirs = samples(done.stdout)
    ours = {labels_without(key, "session"): value for key, value in still.metrics().items()}
    from_records = {key: value for key, value in theirs.items() if "session_info" not in key[0] and "process" not in key[0]}
    assert len(from_records) > 300
    for key, value in from_records.items():
        if "pid" in dict(key[1:]):
            found = [v for k, v in ours.items() if k[0] == key[0] and set(key[1:]) <= set(k[1:])]
            assert found == [value], key
        else:
            assert ours.get(key) == value, key


def test_totals_and_levels_are_those_of_top(cli, crowd, still):
    (session,) = json.loads(cli("top", "--once", "--json", crowd).stdout)["sessions"]
    (engine,), metrics = session["engines"], still.metrics()
    total = engine["total"]
    for name, key in {
        "output_tokens": "output_tokens", "requests_finished": "finished", "prompt_tokens": "prompt_tokens",
        "preemptions": "preemptions", "kv_cache_evictions": "evicted_blocks", "prefix_cache_hit_tokens": "hit_tokens",
    }.items():  # fmt: skip
        assert one(metrics, f"profilemate_{name}_total") == total[key], name
    assert total["preemptions"] > 0
    steps = {phase: one(metrics, "profilemate_steps_total", phase=phase) for phase in ("prefill", "decode")}
    assert sum(steps.values()) == total["steps"] > 1000
    assert one(metrics, "profilemate_time_to_first_token_seconds_count") == total["ttft"]["count"] > 100
    assert one(metrics, "profilemate_open_requests") == engine["open_requests"]
    assert one(metrics, "profilemate_running_requests") == engine["running"]
    assert one(metrics, "profilemate_kv_cache_usage_ratio") == pytest.approx(
        engine["kv"]["used_blocks"] / engine["kv"]["total_blocks"]
    )
    assert one(metrics, "profilemate_session_health", health=session["health"]) == 1
    assert sum(v for k, v in metrics.items() if k[0] == "profilemate_session_health") == 1
    assert one(metrics, "profilemate_session_info", session=session["name"], vllm="0.32.0", model_name="org/model") == 1


def test_the_three_forms_say_the_same(still):
    text, _ = still.get("/metrics").decode(), still.get("/metrics", "*/*")
    plain = {
        (s.name, *sorted(s.labels.items())): s.value for family in text_families(text) for s in family.samples
    }
    opened = still.get("/metrics", OPENMETRICS).decode()
    assert opened.endswith("# EOF\n")
    strict = {
        (s.name, *sorted(s.labels.items())): s.value for family in openmetrics_families(opened) for s in family.samples
    }

    def stands(values):
        return {k: v for k, v in values.items() if not k[0].startswith("profilemate_serve_") and k[0] != "profilemate_no_work_ratio"}

    assert stands(plain) == stands(strict) == stands(samples(text)) and len(stands(plain)) > 400
    families = metrics_proto.families(still.get("/metrics", PROTOBUF))
    assert len({family.name for family in families}) == len(families) > 40
    told = {}
    for family in families:
        assert family.metric and family.help
        for metric in family.metric:
            labels = sorted((pair.name, pair.value) for pair in metric.label)
            kind = metrics_proto.TYPES[family.type]
            if kind == "HISTOGRAM":
                histogram = metric.histogram
                told[family.name + "_count", *labels] = histogram.sample_count
                told[family.name + "_sum", *labels] = histogram.sample_sum
                for bucket in histogram.bucket:
                    bound = next(v for v in BOUNDS if float(v) == bucket.upper_bound)
                    told[family.name + "_bucket", *sorted([*labels, ("le", bound)])] = bucket.cumulative_count
            else:
                told[family.name, *labels] = getattr(metric, kind.lower()).value
    without_inf = {k: v for k, v in stands(plain).items() if ("le", "+Inf") not in k}
    assert stands(told) == pytest.approx(without_inf, rel=1e-12)


def seconds(exponent: int) -> str:
    text = f"{2**exponent:010d}"
    return f"{text[:-9]}.{text[-9:].rstrip('0') or '0'}"


BOUNDS = [seconds(exponent) for exponent in range(10, 39)]


def test_native_histograms_have_the_quantiles_of_the_values(cli, crowd, still):
    done = cli("export", "-q", "--format", "json", crowd)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    requests = [row for row in rows if row["table"] == "requests" and row["finished_sec"]]
    families = {family.name: family for family in metrics_proto.families(still.get("/metrics", PROTOBUF))}
    for name, column in {
        "time_to_first_token": "ttft_ns", "request_duration": "e2e_ns", "request_queue": "queue_ns",
    }.items():  # fmt: skip
        (metric,) = families[f"profilemate_{name}_seconds"].metric
        values = sorted(row[column] / 1e9 for row in requests if row[column])
        histogram = metric.histogram
        assert histogram.schema == 3 and histogram.zero_count == 0
        assert sum(count for *_, count in metrics_proto.native_buckets(histogram)) == histogram.sample_count == len(values)
        assert histogram.sample_sum == pytest.approx(sum(values))
        for q in (0.5, 0.9, 0.99):
            exact = values[min(int(q * len(values)), len(values) - 1)]
            # A bucket is 9 % wide, and lies 1.6 % off at most.
            assert metrics_proto.native_quantile(histogram, q) == pytest.approx(exact, rel=0.13), (name, q)


def test_the_documents(cli, crowd, still):
    (session,) = still.sessions()
    shown = json.loads(cli("top", "--once", "--json", crowd).stdout)
    assert session["id"] == session["name"] == crowd.name
    assert session["path"] == str(crowd) and session["label"] == "org/model"
    assert (session["state"], session["running"], session["engines"]) == ("ended", False, 1)
    assert still.json(f"/api/sessions/{session['id']}") == shown["sessions"][0]
    seconds_ = still.json(f"/api/sessions/{session['id']}/seconds")
    (engine,) = seconds_["engines"]
    assert {len(engine[name]) for name in ("in_tokens", "out_tokens", "steps", "running", "waiting", "kv")} == {120}
    assert sum(engine["out_tokens"]) > 0
    report = still.json(f"/api/sessions/{session['id']}/report?last=20s")
    assert report["window"] == "the last 20 s" and report["engines"][0]["ranks"][0]["steps"]["rows"] > 100
    longer = still.json(f"/api/sessions/{session['id']}/report?last=60s")
    assert longer["engines"][0]["ranks"][0]["steps"]["rows"] > report["engines"][0]["ranks"][0]["steps"]["rows"]
    events = still.listen()
    _, state = events.next()
    assert state["sessions"] == shown["sessions"] and state["ids"] == [session["id"]]
    events.close()


def test_what_is_not_there(still):
    name = still.sessions()[0]["id"]
    for path in ("/nothing", "/api", "/api/sessions/x", "/api/sessions/x/report", f"/api/sessions/{name}/metadata.json",
                 f"/api/sessions/{name}/../{name}", f"/api/sessions/%2e%2e/{name}", "/../../etc/passwd"):  # fmt: skip
        status, headers, body = still.ask(path)
        assert (status, headers["content-type"]) == (404, "text/plain; charset=utf-8"), path
        assert len(body.splitlines()) == 1
    assert still.ask(f"/api/sessions/{name}/report?last=1h")[0] == 400
    assert still.ask("/metrics", "POST")[0] == 405
    assert still.ask("/metrics", "DELETE")[1]["allow"] == "GET, HEAD"
    assert still.ask("/" + "a" * 2000)[0] == 414
    assert still.ask("/metrics", headers={"Host": "evil.example"})[0] == 421


def test_a_head_is_an_answer_without_its_body(still):
    for path in ("/", "/metrics", "/events", "/api/sessions", "/healthz"):
        status, headers, body = still.ask(path, "HEAD")
        assert (status, body) == (200, b""), path
        assert headers["content-type"]


def test_each_answer_has_the_headers_that_keep_browsers_safe(still):
    for path in ("/", "/metrics", "/api/sessions", "/nothing", "/healthz"):
        _, headers, _ = still.ask(path)
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers


# ---- servers that run ----


def test_it_follows_what_happens(cli, serve, engine):
    """A server that comes, works, and ends, while somebody listens and scrapes."""
    served = serve("--dir", cli.sessions)
    assert served.sessions() == []
    events = served.listen()
    assert events.next()[1]["sessions"] == []
    first = engine()
    state = events.until(lambda state: state["sessions"])
    assert state["sessions"][0]["path"] == first.path and state["sessions"][0]["model"] == "made-up/model"
    for n in range(7):
        first.obey("steps 3")
        first.obey(f"request chatcmpl-{n} 5 1")
    metrics = until(lambda: (m := served.metrics()) and values(m, "profilemate_requests_finished_total") == [7] and m)
    assert one(metrics, "profilemate_steps_total", phase="decode") == 21
    assert one(metrics, "profilemate_prompt_tokens_total") == 7 * 33
    assert one(metrics, "profilemate_preemptions_total") == 7
    assert one(metrics, "profilemate_process_up") == 1
    assert one(metrics, "profilemate_process_resident_memory_bytes") > 100_000
    assert one(metrics, "profilemate_serve_listeners") == 1
    events.until(lambda state: state["sessions"][0]["engines"][0]["total"]["finished"] == 7)
    second = engine("session_20261123_101011")
    state = events.until(lambda state: len(state["sessions"]) == 2)
    assert state["ids"] == ["session_20261123_101010", "session_20261123_101011"]
    first.end()
    state = events.until(lambda state: state["sessions"][0]["health"] == "ended")
    # The second one may be found before its process has said anything; the first one's last figures are told of for
    # another minute.
    up = {"session": "session_20261123_101011"}
    metrics = until(lambda: (m := served.metrics()) and values(m, "profilemate_process_up", **up) and m)
    assert one(metrics, "profilemate_requests_finished_total", session="session_20261123_101010") == 7
    assert one(metrics, "profilemate_process_up", session="session_20261123_101010") == 0
    assert one(metrics, "profilemate_process_up", session="session_20261123_101011") == 1
    second.end()
    assert served.end() == (0, "")


def test_sessions_of_one_name_are_told_apart(cli, serve, engine):
    """As of two containers that were started in the same second."""
    name = f"session_20261123_{secrets.randbelow(10**6):06d}"
    original = cli.env["VLLM_PROFILING_DIR"]
    for folder in ("a", "b"):
        (cli.tmp / folder).mkdir()
        cli.env["VLLM_PROFILING_DIR"] = str(cli.tmp / folder)
        engine(name)
    cli.env["VLLM_PROFILING_DIR"] = original
    served = serve()
    ours = until(lambda: len(s := [s for s in served.sessions() if s["path"].startswith(str(cli.tmp))]) == 2 and s)
    first, second = (session["id"] for session in ours)
    assert {session["name"] for session in ours} == {name}
    assert first == name and second.startswith(first + ".")
    for session in ours:
        assert served.json(f"/api/sessions/{session['id']}")["path"] == session["path"]
    served.metrics()  # no sample is there twice


def test_signals_end_it_also_with_listeners(cli, serve):
    for number in (2, 15):
        served = serve("--dir", cli.sessions)
        listeners = [served.listen() for _ in range(5)]
        for each in listeners:
            each.next()
        assert served.end(number) == (0, "")
        for each in listeners:
            each.answer.read()  # the stream ends, whole
            each.close()


# ---- who is let in ----


def test_the_token(cli, serve):
    served = serve("--dir", cli.sessions, token=TOKEN)
    assert served.ask("/metrics")[0] == 200
    events = served.listen()
    events.next()
    events.close()
    served.token = None
    status, headers, body = served.ask("/metrics")
    assert (status, headers["www-authenticate"]) == (401, 'Bearer realm="profilemate"')
    for wrong in ("Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN, ""):
        for path in ("/metrics", "/events", "/api/sessions", "/nothing"):
            assert served.ask(path, headers={"Authorization": wrong})[0] == 401, wrong
    assert served.ask("/healthz")[0] == 200
    assert served.ask("/")[0] == 200, "the page alone holds no figures; it asks for the token"
    # A browser: once in the address, then as a cookie.
    assert served.ask(f"/?token={TOKEN}x")[0] == 401
    status, headers, body = served.ask(f"/?token={TOKEN}")
    assert (status, headers["location"], body) == (303, "/", b"")
    cookie, *rest = headers["set-cookie"].split("; ")
    assert set(rest) == {"HttpOnly", "SameSite=Strict", "Path=/"}
    assert served.ask("/", headers={"Cookie": f"other=1; {cookie}"})[0] == 200
    assert served.ask("/api/sessions", headers={"Cookie": cookie})[0] == 200
    assert served.ask("/api/sessions", headers={"Cookie": cookie + "x"})[0] == 401
    assert TOKEN not in served.end()[1]


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:9810", "0.0.0.0"])
def test_beyond_loopback_a_token_is_needed(cli, address):
    said = cli("serve", "--listen", address)
    assert said.returncode == 2
    assert "--token-file" in one_sentence(said.stderr)


def test_with_a_token_it_listens_anywhere(cli, serve):
    served = serve("--dir", cli.sessions, "--allow-host", "proxy.example", "--listen", "0.0.0.0:0", token=TOKEN)
    assert served.ask("/metrics", headers={"Host": f"127.0.0.1:{served.port}"})[0] == 200
    assert served.ask("/metrics", headers={"Host": "any.example"})[0] == 200  # who has it is no other site's page
    served.token = None
    cookie = {"Cookie": f"profilemate_token={TOKEN}"}
    assert served.ask("/metrics", headers={"Host": "any.example", **cookie})[0] == 421
    assert served.ask("/metrics", headers={"Host": "proxy.example", **cookie})[0] == 200


MISUSES = [
    (("--listen", "nowhere"), "ADDR:PORT"),
    (("--listen", "127.0.0.1:99999"), "ADDR:PORT"),
    (("--listen", "::1:80"), "ADDR:PORT"),
    (("--listen", "[::1"), "ADDR:PORT"),
    (("--listen", "127.0.0.1:"), "ADDR:PORT"),
    (("--once",), "--textfile"),
    (("--interval", "5"), "--textfile"),
    (("--textfile", "x.prom", "--interval", "0"), "1 to 3600"),
    (("--textfile", "x.prom", "--interval", "5s"), "1 to 3600"),
    (("--textfile", "x.prom", "--once", "--listen", "127.0.0.1:0"), "--listen"),
]


@pytest.mark.parametrize(("words", "hint"), MISUSES, ids=lambda v: " ".join(v) if isinstance(v, tuple) else "")
def test_misuse(cli, words, hint):
    said = cli("serve", *words)
    assert (said.returncode, said.stdout) == (2, "")
    assert hint in one_sentence(said.stderr)


@pytest.mark.parametrize("content", ["", "short", "has a blank in it, and is long", "x" * 300])
def test_a_bad_token_is_refused(cli, content):
    file = cli.tmp / "token"
    file.write_text(content)
    file.chmod(0o600)
    said = cli("serve", "--listen", "127.0.0.1:0", "--token-file", file)
    assert said.returncode == 1
    assert str(file) in one_sentence(said.stderr) and (not content or content[:30] not in said.stderr)


def test_what_cannot_be(cli, serve):
    missing = cli("serve", "--token-file", cli.tmp / "none")
    assert missing.returncode == 1 and "No such file" in one_sentence(missing.stderr)
    taken = cli("serve", "--listen", f"127.0.0.1:{serve('--dir', cli.sessions).port}")
    assert taken.returncode == 1 and "something listens there already" in one_sentence(taken.stderr)
    unknown = cli("serve", "no-such-session")
    assert unknown.returncode == 1 and "no-such-session" in one_sentence(unknown.stderr)


# ---- the file ----


def test_the_file(cli, crowd, still):
    file = cli.tmp / "node" / "profilemate.prom"
    file.parent.mkdir()
    file.write_text("old")
    done = cli("serve", "--textfile", file, "--once", crowd)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    told = samples(file.read_text())
    ours = still.metrics()
    assert {k for k in told if not k[0].startswith("profilemate_serve")} == {
        k for k in ours if not k[0].startswith("profilemate_serve")
    }
    assert one(told, "profilemate_requests_finished_total") == one(ours, "profilemate_requests_finished_total")


def test_the_file_is_written_again_and_again(cli, serve, engine):
    file = cli.tmp / "profilemate.prom"
    session = engine()
    served = serve("--dir", cli.sessions, "--textfile", file, "--interval", "1")
    until(lambda: file.exists() and "requests_finished" in file.read_text())
    session.obey("request chatcmpl-1 5")
    until(lambda: values(samples(file.read_text()), "profilemate_requests_finished_total") == [1])
    assert one(served.metrics(), "profilemate_requests_finished_total") == 1
    assert served.end() == (0, "")
    alone = cli.start("serve", "--dir", cli.sessions, "--textfile", file, "--interval", "1")
    session.obey("request chatcmpl-2 5")
    until(lambda: values(samples(file.read_text()), "profilemate_requests_finished_total") == [2])
    alone.terminate()
    assert alone.wait(600) == 0
    assert [path.name for path in cli.tmp.glob("*.tmp")] == []


def test_a_file_that_cannot_be_written(cli):
    said = cli("serve", "--textfile", cli.tmp / "none" / "x.prom", "--once")
    assert said.returncode == 1 and "x.prom: cannot be written" in one_sentence(said.stderr)
    folder = cli.tmp / "folder.prom"
    folder.mkdir()
    said = cli("serve", "--textfile", folder, "--once")
    assert said.returncode == 1 and "folder.prom: cannot be written" in one_sentence(said.stderr)
    assert list(cli.tmp.glob("*.tmp")) == []
