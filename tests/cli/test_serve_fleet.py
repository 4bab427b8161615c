"""Several `profilemate serve`, found by their files, under a real Prometheus that sends on to a real VictoriaMetrics."""

import json
import os
import re
import signal
import stat
import subprocess

import monitoring
import pytest
from patience import until
from program import BUILD, ROOT, Cli, one_sentence
from served import Served
from test_serve import Engine, can_serve, crowd  # noqa: F401: fixtures

SHARE = ROOT / "share"
RULES = SHARE / "prometheus" / "profilemate-fleet-rules.yml"
LIVE = ("gpu1", "gpu2", "gpu3")
HOSTS = (*LIVE, "gpu4")
# What docs/FLEET_METRICS.md promises; a rule that makes more is a rule to think about.
SERIES_PER_SERVER, SERIES_PER_MODEL, SAMPLES_PER_SERVER = 24, 60, 2000


class Fleet:
    """Three machines, each with an engine that does as it is told and a `serve` that names itself in a file; and one
    with a server that has everything to tell of, and has ended."""

    def __init__(self, folder, ended):
        self.folder = folder
        self.targets = folder / "targets"
        self.targets.mkdir()
        self.engines, self.served = [], []
        for number, host in enumerate(HOSTS):
            (folder / host).mkdir()
            cli = Cli(folder / host)
            what = ended
            if host in LIVE:
                self.engines.append(Engine(cli, f"session_20261123_10101{number}"))
                self.engines[-1].obey("attr model org/model")
                what = f"--dir={cli.sessions}"
            port = monitoring.free_port()
            self.served.append(
                Served(
                    BUILD / "bin" / "profilemate", what, f"--listen=127.0.0.1:{port}",
                    f"--sd-file={self.targets}/{host}.json", f"--sd-target={host}:{port}", env=cli.environment(),
                )
            )  # fmt: skip

    def close(self):
        for engine in self.engines:
            engine.process.kill()
            engine.process.communicate()
        for served in self.served:
            with served:
                pass


@pytest.fixture(scope="module")
def fleet(crowd, tmp_path_factory):  # noqa: F811
    made = Fleet(tmp_path_factory.mktemp("fleet"), crowd)
    yield made
    made.close()


@pytest.fixture(scope="module")
def victoria(tmp_path_factory):
    with monitoring.victoria_metrics(tmp_path_factory.mktemp("victoria"), "") as running:
        yield running


@pytest.fixture(scope="module")
def prometheus(fleet, victoria, tmp_path_factory):
    """As shipped, but faster, with this VictoriaMetrics, and with the made-up hosts at this machine's loopback."""
    folder = tmp_path_factory.mktemp("prometheus")
    text = (SHARE / "prometheus" / "profilemate-fleet.yml").read_text()
    for old, new in (
        ("scrape_interval: 15s", "scrape_interval: 1s\n  scrape_timeout: 1s"),
        ("evaluation_interval: 30s", "evaluation_interval: 1s"),
        ("profilemate-fleet-rules.yml", str(RULES)),
        ("targets/*.json", f"{fleet.targets}/*.json"),
        ("refresh_interval: 1m", "refresh_interval: 1s"),
        ("127.0.0.1:8428", f"127.0.0.1:{victoria.port}"),
        ("max_samples_per_send: 5000", "batch_send_deadline: 200ms"),
        ("    sample_limit:", "    relabel_configs:\n      - {source_labels: [__address__], regex: 'gpu.:(.+)', "
         "target_label: __address__, replacement: '127.0.0.1:$1'}\n    sample_limit:"),
    ):  # fmt: skip
        assert old in text, old
        text = text.replace(old, new)
    (folder / "prometheus.yml").write_text(text)
    port = monitoring.free_port()
    command = [
        monitoring.program("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn",
    ]  # fmt: skip
    with monitoring.Monitor(command, port, folder / "prometheus.log") as running:
        yield running


@pytest.fixture(scope="module")
def busy(fleet, prometheus):
    """Every server that lives was seen, and has worked since: its rates are above nothing for five minutes."""
    prometheus.until_value("count(profilemate_requests_finished_total)", lambda value: value == len(HOSTS))

    def rates():
        for engine in fleet.engines:
            engine.obey("steps 20")
            engine.obey("request r 10 1")
        found = prometheus.query("profilemate:server_requests:rate5m > 0")
        return len(found) == len(LIVE)

    until(rates, "no rate was recorded")
    prometheus.until_value('count(profilemate:server_time_to_first_token_seconds:p95_5m > 0)', lambda value: value == len(LIVE))
    return prometheus


def test_what_is_shipped_passes_promtool(tmp_path):
    for name in ("profilemate-fleet.yml", "profilemate-kubernetes.yml"):
        # The files that they name lie elsewhere.
        text = (SHARE / "prometheus" / name).read_text().replace("profilemate-fleet-rules.yml", str(RULES))
        token = tmp_path / "token"
        token.write_text("t")
        text = text.replace("/etc/prometheus/profilemate/token", str(token))
        # Debian's Prometheus is built without discovery in Kubernetes: the rest of that file is checked.
        text = text.replace("kubernetes_sd_configs:\n      - role: pod", "file_sd_configs:\n      - files: [none.json]")
        assert "kubernetes_sd" not in text
        (tmp_path / name).write_text(text)
        done = subprocess.run([monitoring.program("promtool"), "check", "config", tmp_path / name], capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_make_of_series_what_they_should(tmp_path):
    text = (ROOT / "tests" / "cli" / "fleet_rules_test.yml").read_text()
    (tmp_path / "test.yml").write_text(text.replace("RULES", str(RULES)))
    done = subprocess.run([monitoring.program("promtool"), "test", "rules", tmp_path / "test.yml"], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_have_no_label_that_grows():
    """Aggregations keep the host, the model and buckets: nothing that comes with restarts, ranks or requests."""
    text = RULES.read_text()
    kept = set(re.findall(r"\b(?:by|on) \(([^)]*)\)", text))
    assert {label.strip() for each in kept for label in each.split(",")} == {"host", "model_name", "le"}
    recorded = re.findall(r"record: (\S+)", text)
    assert len(recorded) == len(set(recorded)) > 30 and all(re.match("profilemate:(server|model)_", each) for each in recorded)


def test_series_per_server_are_what_is_promised(busy, fleet):
    for served in fleet.served:
        assert 200 < len(served.metrics()) < SAMPLES_PER_SERVER
    print("samples of a scrape:", [len(served.metrics()) for served in fleet.served])
    per_server = busy.query('count by (host) ({__name__=~"profilemate:server_.+"})')
    assert {each["metric"]["host"] for each in per_server} == set(HOSTS)
    assert all(15 <= float(each["value"][1]) <= SERIES_PER_SERVER for each in per_server), per_server
    print("recorded for each server:", [each["value"][1] for each in per_server])
    (per_model,) = busy.query('count by (model_name) ({__name__=~"profilemate:model_.+"})')
    assert 15 <= float(per_model["value"][1]) <= SERIES_PER_MODEL
    labels = {name for each in busy.query('{__name__=~"profilemate:.+"}') for name in each["metric"]}
    assert labels == {"__name__", "host", "model_name", "le"}


def test_a_restart_makes_no_new_series(busy, fleet):
    """Another session of the same server, on the same host: `session` is another, what is recorded is not."""
    before = {json.dumps(each["metric"], sort_keys=True) for each in busy.query('{__name__=~"profilemate:server_.+"}')}
    cli_folder = fleet.folder / HOSTS[0]
    (cli_folder / "again").mkdir()
    cli = Cli(cli_folder / "again")
    cli.env["VLLM_PROFILING_DIR"] = str(cli_folder / "sessions")
    engine = Engine(cli, "session_20261123_111111")
    fleet.engines.append(engine)
    engine.obey("attr model org/model")
    engine.obey("steps 5")
    busy.until_value('count(count by (session) (profilemate_session_info{host="gpu1"}))', lambda value: value == 2)
    busy.until_value('profilemate:server_sessions:sum{host="gpu1"}', lambda value: value == 2)
    after = {json.dumps(each["metric"], sort_keys=True) for each in busy.query('{__name__=~"profilemate:server_.+"}')}
    assert after == before


def without_cluster(store, name: str) -> list[dict]:
    """The samples, without the label that says which Prometheus sent them."""
    found = store.query(f"profilemate:{name}")
    for each in found:
        assert each["metric"].pop("cluster") == "default"
    return found


def test_what_was_recorded_arrives_at_the_store(busy, victoria):
    for name in ("server_requests:rate5m", "server_time_to_first_token_seconds:p95_5m", "model_output_tokens:rate5m"):
        wanted = {json.dumps(each["metric"], sort_keys=True) for each in busy.query(f"profilemate:{name}") if each["value"][1] != "NaN"}
        assert wanted  # (NaN, the quantile of no request, is nothing that the store keeps)
        until(lambda n=name, w=wanted: w <= {json.dumps(each["metric"], sort_keys=True) for each in without_cluster(victoria, n)}, name)
    victoria.until_value('count(up{job="profilemate"})', lambda value: value == len(HOSTS))
    names = {each["metric"]["__name__"] for each in victoria.query('{__name__!=""}')}
    assert not [name for name in names if not re.match("profilemate:|ALERTS$|up$", name)], "the rest stays where it was scraped"
    # The quantile over the fleet's buckets is one of all requests together.
    median = victoria.until_value("profilemate:model_time_to_first_token_seconds:p50_5m", lambda value: value > 0)
    assert 0.01 < median < 0.04  # each request had its first token after 20 ms


def test_the_dashboard_is_answered_by_both(busy, victoria):
    dashboard = json.loads((SHARE / "grafana" / "profilemate-fleet.json").read_text())
    recorded = set(re.findall(r"record: (\S+)", RULES.read_text()))
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(places) == len(set(places)) and all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in dashboard["panels"])
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(places) >= 18
    # Those that have something to show only when something is wrong, or that no record of these engines feeds.
    may_be_empty = {"Servers that are not well", "Stragglers", "Prefix cache"}
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            expression = target["expr"].replace("$model", ".*").replace("$host", ".*")
            assert set(re.findall(r"profilemate:[\w:]+", expression)) <= recorded, expression
            for store in (busy, victoria):
                answer = store.fetch("/api/v1/query", query=expression)
                assert answer and answer["status"] == "success", (panel["title"], expression, answer)
                if panel["title"] not in may_be_empty:
                    until(lambda s=store, e=expression: s.query(e), f"{panel['title']}: {expression} has no answer")
    rules = [rule for group in busy.fetch("/api/v1/rules")["data"]["groups"] for rule in group["rules"]]
    assert not [rule["lastError"] for rule in rules if rule.get("lastError")]


def test_a_target_file_comes_whole_and_goes(fleet, tmp_path):
    for host, served in zip(HOSTS, fleet.served, strict=True):
        file = fleet.targets / f"{host}.json"
        assert json.loads(file.read_text()) == [{"targets": [f"{host}:{served.port}"], "labels": {"host": host}}]
        assert stat.S_IMODE(file.stat().st_mode) == 0o644
    cli = Cli(tmp_path)
    own, other = tmp_path / "own.json", tmp_path / "other.json"
    with Served(BUILD / "bin" / "profilemate", f"--sd-file={own}", env=cli.environment()) as served:
        (told,) = json.loads(own.read_text())
        assert told["targets"] == [f"127.0.0.1:{served.port}"] and told["labels"] == {"host": os.uname().nodename}
        assert served.end()[0] == 0
    assert list(tmp_path.glob("*.json*")) == []
    # Of two that were given one file the second has it: the first leaves it alone.
    with Served(BUILD / "bin" / "profilemate", f"--sd-file={other}", env=cli.environment()) as first:
        with Served(BUILD / "bin" / "profilemate", f"--sd-file={other}", env=cli.environment()) as second:
            assert first.end(signal.SIGTERM)[0] == 0
            assert str(second.port) in other.read_text()
            second.end()
    assert not other.exists()


def test_a_target_file_that_cannot_be_written_is_told(cli):
    done = cli("serve", "--listen=127.0.0.1:0", f"--sd-file={cli.tmp}/none/x.json")
    assert done.returncode == 1 and "cannot be written" in one_sentence(done.stderr)
    for words, told in (
        (("--sd-target=a:1",), "give that too"),
        (("--sd-file=x.json", "--sd-target=gpu1"), "give HOST:PORT"),
        (("--sd-file=x.json", "--sd-target=a b:1"), "give HOST:PORT"),
        (("--sd-file=x.json", "--textfile=x.prom"), "give --listen too"),
    ):
        done = cli("serve", *words)
        assert done.returncode == 2 and told in done.stderr, words
