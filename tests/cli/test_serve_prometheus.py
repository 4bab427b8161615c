"""profilemate serve under a real Prometheus and a real VictoriaMetrics, and what is shipped for them."""

import json
import re
import subprocess

import metrics_proto
import monitoring
import pytest
from program import BUILD, ROOT
from served import PROTOBUF, Served, one
from test_serve import TOKEN, can_serve, crowd, still  # noqa: F401: fixtures

SHARE = ROOT / "share"
RULES = SHARE / "prometheus" / "profilemate-rules.yml"


def promtool(*words, cwd=None) -> subprocess.CompletedProcess:
    return subprocess.run([monitoring.program("promtool"), *map(str, words)], capture_output=True, text=True, cwd=cwd, timeout=600)


def test_the_rules_and_the_scrape_file_pass_promtool():
    for words in (("check", "rules", RULES), ("check", "config", SHARE / "prometheus" / "profilemate-scrape.yml")):
        checked = promtool(*words)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_rules_make_of_series_what_they_should(tmp_path):
    text = (ROOT / "tests" / "cli" / "rules_test.yml").read_text()
    (tmp_path / "test.yml").write_text(text.replace("RULES", str(RULES)))
    checked = promtool("test", "rules", tmp_path / "test.yml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_what_is_exposed_passes_promtool(still):  # noqa: F811
    command = [monitoring.program("promtool"), "check", "metrics"]
    checked = subprocess.run(command, input=still.get("/metrics"), capture_output=True, timeout=600)
    assert (checked.returncode, checked.stderr) == (0, b""), checked.stderr


def families() -> dict[str, str]:
    """Every metric that there is, by the names that its samples have, to its type; from the two lists."""
    found = {}
    rows = re.findall(r"^M\((\w+), (\w+),", (ROOT / "src/view/openmetrics.def").read_text(), re.M)
    rows += re.findall(r"^S\((\w+), (\w+),", (ROOT / "src/serve/metrics.def").read_text(), re.M)
    for name, kind in rows:
        if kind == "TIME":
            found.update({f"profilemate_{name}{more}": kind for more in ("", "_bucket", "_sum", "_count")})
        else:
            found[f"profilemate_{name}{ {'COUNTER': '_total', 'INFO': '_info'}.get(kind, '')}"] = kind
    return found


def named(expression: str) -> set[str]:
    """The metrics and recorded series that an expression names."""
    return set(re.findall(r"(?<![\w:])(profilemate[_:][\w:]*)", expression))


def test_rules_and_dashboard_name_only_what_there_is(still):  # noqa: F811
    known = families()
    exposed = {key[0] for key in still.metrics()}
    assert exposed <= set(known)
    text = RULES.read_text()
    recorded = set(re.findall(r"record: (\S+)", text))
    assert len(recorded) > 10
    expressions = re.findall(r"^ +expr: (\|\n(?: {10}.*\n)+|.*\n)", text, re.M)
    assert len(expressions) == text.count("expr:") > 25
    for expression in expressions:
        assert named(expression.replace('job="profilemate"', "")) <= set(known) | recorded, expression
    dashboard = json.loads((SHARE / "grafana" / "profilemate.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += [v["definition"] for v in dashboard["templating"]["list"] if v["type"] == "query"]
    assert len(expressions) > 20
    for expression in expressions:
        assert named(expression) and named(expression) <= set(known), expression
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    places = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in dashboard["panels"]]
    assert len(places) == len(set(places)) and all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in dashboard["panels"])
    # Of the two kinds of histograms one is there at a time: whoever names one names the other.
    for expression in expressions:
        if "_bucket" in expression:
            assert re.search(r"_seconds[{\[]", expression), expression


@pytest.fixture(scope="module")
def guarded(crowd, tmp_path_factory):  # noqa: F811
    """One that asks for a token, as it would be beyond loopback."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "token").write_text(TOKEN)
    (folder / "token").chmod(0o600)
    with Served(BUILD / "bin" / "profilemate", crowd, "--token-file", folder / "token", env={"PATH": "/usr/bin:/bin"}) as served:
        served.token = TOKEN
        served.folder = folder
        yield served


def config(served: Served, rules: bool) -> str:
    text = f"""
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
  - job_name: profilemate
    static_configs: [{{targets: ["127.0.0.1:{served.port}"]}}]
    authorization: {{credentials_file: {served.folder}/token}}
  - job_name: without_token
    static_configs: [{{targets: ["127.0.0.1:{served.port}"]}}]
"""
    return text.replace("scrape_timeout: 1s", "scrape_timeout: 1s, evaluation_interval: 1s") + f"rule_files: [{RULES}]\n" if rules else text


@pytest.fixture(scope="module")
def prometheus(guarded, tmp_path_factory):
    with monitoring.prometheus(tmp_path_factory.mktemp("prometheus"), config(guarded, rules=True)) as running:
        yield running


@pytest.fixture(scope="module")
def victoria(guarded, tmp_path_factory):
    with monitoring.victoria_metrics(tmp_path_factory.mktemp("victoria"), config(guarded, rules=False)) as running:
        yield running


def test_prometheus_scrapes_it(prometheus, guarded):
    prometheus.until_value('up{job="profilemate"}', lambda value: value == 1)
    prometheus.until_value('up{job="without_token"}', lambda value: value == 0)
    metrics = guarded.metrics()
    for name in ("requests_finished_total", "output_tokens_total", "kv_cache_usage_ratio", "preemptions_total", "process_up"):
        assert prometheus.value(f"profilemate_{name}") == one(metrics, f"profilemate_{name}"), name
    assert prometheus.value('profilemate_session_health{health="ended"}') == 1
    found = prometheus.query("profilemate_session_info")[0]["metric"]
    assert (found["model_name"], found["vllm"], found["job"]) == ("org/model", "0.32.0", "profilemate")
    (target,) = (
        t for t in prometheus.fetch("/api/v1/targets")["data"]["activeTargets"] if t["labels"]["job"] == "profilemate"
    )
    assert (target["health"], target["lastError"]) == ("up", "")


def test_native_histograms_arrive_whole(prometheus, guarded):
    told = {family.name: family for family in metrics_proto.families(guarded.get("/metrics", PROTOBUF))}
    for name in ("time_to_first_token", "time_per_output_token", "request_duration"):
        histogram = told[f"profilemate_{name}_seconds"].metric[0].histogram
        prometheus.until_value(
            f"histogram_count(profilemate_{name}_seconds)", lambda value, h=histogram: value == h.sample_count > 100
        )
        assert prometheus.value(f"histogram_sum(profilemate_{name}_seconds)") == pytest.approx(histogram.sample_sum)
        for q in (0.1, 0.5, 0.9, 0.99):
            theirs = prometheus.value(f"histogram_quantile({q}, profilemate_{name}_seconds)")
            assert theirs == pytest.approx(metrics_proto.native_quantile(histogram, q), rel=1e-9), (name, q)


def test_the_rules_are_evaluated(prometheus):
    prometheus.until_value("profilemate:output_tokens:rate1m", lambda value: value == 0)  # it has ended
    groups = prometheus.fetch("/api/v1/rules")["data"]["groups"]
    assert {group["name"] for group in groups} == {"profilemate", "profilemate-alerts"}
    rules = [rule for group in groups for rule in group["rules"]]
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"} and not any(rule.get("lastError") for rule in rules)


def test_the_dashboard_is_answered(prometheus):
    """Each of its expressions, with its variables filled in, is one that Prometheus takes."""
    dashboard = json.loads((SHARE / "grafana" / "profilemate.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            expression = target["expr"].replace("$model", ".*").replace("$session", ".*").replace("$__rate_interval", "1m")
            answer = prometheus.fetch("/api/v1/query", query=expression)
            assert answer and answer["status"] == "success", (panel["title"], expression)
            if panel["title"] in ("State", "KV cache in use", "Requests"):
                assert answer["data"]["result"], expression


def test_victoria_metrics_takes_the_same(victoria, guarded):
    victoria.until_value('up{job="profilemate"}', lambda value: value == 1)
    metrics = guarded.metrics()
    for name in ("requests_finished_total", "output_tokens_total", "time_to_first_token_seconds_count"):
        wanted = one(metrics, f"profilemate_{name}")
        victoria.until_value(f"profilemate_{name}", lambda value, wanted=wanted: value == wanted)
    # Buckets are powers of two: the quantile lies in the right one.
    bounds = sorted(
        (float(dict(key[1:])["le"]), value)
        for key, value in metrics.items()
        if key[0] == "profilemate_time_to_first_token_seconds_bucket"
    )
    count = bounds[-1][1]
    upper = next(bound for bound, below in bounds if below >= 0.5 * count)
    median = victoria.until_value("histogram_quantile(0.5, profilemate_time_to_first_token_seconds_bucket)", lambda v: v > 0)
    assert upper / 2 <= median <= upper
