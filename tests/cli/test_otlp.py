"""`serve --otlp`: what a collector receives, by OpenTelemetry's own Python classes; and collectors that fail."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from patience import PATIENCE_S, until
from program import PROGRAM, one_sentence
from test_serve import Engine

metrics_service = pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")
trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")


class Collector:
    """Takes pushes, and answers as it is told: answers(path, number) -> (status, headers, body, seconds to wait)."""

    def __init__(self, answers=lambda path, number: (200, {}, b"", 0)):
        self.metrics, self.traces, self.seen, self.lock = [], [], [], threading.Lock()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with collector.lock:
                    number = sum(path == self.path for path, _ in collector.seen)
                    collector.seen.append((self.path, dict(self.headers)))
                status, headers, answer, wait = answers(self.path, number)
                if wait:
                    collector.woken.wait(wait)
                if status == 200:
                    kind = metrics_service.ExportMetricsServiceRequest if "metrics" in self.path else (
                        trace_service.ExportTraceServiceRequest
                    )  # fmt: skip
                    message = kind()
                    message.ParseFromString(body)
                    with collector.lock:
                        (collector.metrics if "metrics" in self.path else collector.traces).append(message)
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)
                except OSError:
                    pass  # it has gone

            def log_message(self, *_):
                pass

        self.woken = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def count(self, path: str) -> int:
        with self.lock:
            return sum(seen == path for seen, _ in self.seen)

    def spans(self) -> list:
        with self.lock:
            return [
                span for message in self.traces for resource in message.resource_spans
                for scope in resource.scope_spans for span in scope.spans
            ]  # fmt: skip

    def values(self) -> dict[str, dict]:
        """Of the newest push: name -> labels -> point."""
        with self.lock:
            (resource,) = self.metrics[-1].resource_metrics
        (scope,) = resource.scope_metrics
        found = {}
        for metric in scope.metrics:
            data = getattr(metric, metric.WhichOneof("data"))
            found[metric.name] = {
                tuple(sorted((pair.key, pair.value.string_value) for pair in point.attributes)): (metric, point)
                for point in data.data_points
            }
        return found

    def close(self):
        self.woken.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def collector():
    made = []

    def make(*arguments) -> Collector:
        made.append(Collector(*arguments))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def push(cli):
    """`serve --otlp`, ended at the end."""
    running = []

    def start(url: str, *options: str, **env) -> subprocess.Popen:
        running.append(
            subprocess.Popen(
                [PROGRAM, "serve", "--otlp", url, "--interval", "1", "--dir", cli.sessions, *options],
                env=cli.environment(**env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                text=True, cwd=cli.tmp,
            )  # fmt: skip
        )
        return running[-1]

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def end(process: subprocess.Popen) -> tuple[int, str]:
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=PATIENCE_S)
    return process.returncode, errors


@pytest.fixture
def engine(cli):
    made = Engine(cli, "session_20261123_101010")
    made.obey("attr model tiny/model")
    made.obey("steps 3")
    yield made
    made.process.kill()
    made.process.wait()


def attributes(span) -> dict:
    def value(any_value):
        kind = any_value.WhichOneof("value")
        if kind == "array_value":
            return [value(each) for each in any_value.array_value.values]
        return getattr(any_value, kind)

    return {pair.key: value(pair.value) for pair in span.attributes}


def test_metrics_and_spans_arrive(cli, collector, push, engine):
    there = collector()
    process = push(there.url + "/", OTEL_EXPORTER_OTLP_HEADERS="x-team=blue,authorization=Bearer abc")
    until(lambda: there.count("/v1/metrics") >= 1)
    engine.obey("request chatcmpl-one 5 2")
    engine.obey("request cmpl-two 0")
    until(lambda: len(there.spans()) == 7)
    until(lambda: len(there.metrics) >= 3)

    until(lambda: sum(p.count for _, p in there.values().get("profilemate_time_to_first_token_seconds", {}).values()) == 1,
          lambda: sorted(there.values()))  # fmt: skip
    metric, point = next(iter(there.values()["profilemate_time_to_first_token_seconds"].values()))
    assert metric.unit == "s" and metric.exponential_histogram.aggregation_temporality == 2
    assert point.scale == 3 and abs(point.sum - 0.02) < 1e-9
    (index,) = [i for i, count in enumerate(point.positive.bucket_counts) if count]
    low = 2 ** ((point.positive.offset + index) / 8)
    assert low / 1.02 < 0.02 <= low * 2 ** (1 / 8) * 1.02
    assert dict(next(iter(there.values()["profilemate_time_to_first_token_seconds"])))["model_name"] == "tiny/model"
    steps = there.values()["profilemate_steps"]
    assert sum(point.as_double for _, point in steps.values()) == 3
    assert all(metric.sum.is_monotonic and metric.sum.aggregation_temporality == 2 for metric, _ in steps.values())

    spans = there.spans()
    roots = {attributes(span)["gen_ai.response.id"]: span for span in spans if not span.parent_span_id}
    one, two = roots["chatcmpl-one"], roots["cmpl-two"]
    assert (one.name, two.name) == ("chat tiny/model", "text_completion tiny/model")
    told = attributes(one)
    assert told["gen_ai.usage.input_tokens"] == 33 and told["gen_ai.usage.output_tokens"] == 5
    assert told["gen_ai.response.finish_reasons"] == ["length"] and told["gen_ai.provider.name"] == "vllm"
    assert told["gen_ai.request.max_tokens"] == 64 and told["profilemate.preemptions"] == 2
    assert abs(told["gen_ai.latency.time_to_first_token"] - 0.02) < 1e-9
    assert one.end_time_unix_nano - one.start_time_unix_nano == 100_000_000
    assert abs(one.end_time_unix_nano / 1e9 - time.time()) < PATIENCE_S
    children = {span.name: span for span in spans if span.parent_span_id == one.span_id}
    assert set(children) == {"queue", "prefill", "decode"}
    for name, length in (("queue", 5), ("prefill", 14), ("decode", 80)):
        child = children[name]
        assert child.trace_id == one.trace_id and len(child.trace_id) == 16 and len(child.span_id) == 8
        assert child.end_time_unix_nano - child.start_time_unix_nano == length * 1_000_000
    assert {span.name for span in spans if span.parent_span_id == two.span_id} == {"queue", "prefill"}
    assert len({span.span_id for span in spans}) == len(spans)
    with there.lock:
        headers = there.seen[0][1]
    assert headers["Content-Type"] == "application/x-protobuf" and headers["User-Agent"].startswith("profilemate/")
    assert headers["x-team"] == "blue" and headers["authorization"] == "Bearer abc"
    assert end(process) == (0, "")


def test_what_came_before_is_not_told_and_nothing_twice(cli, collector, push, engine):
    engine.obey("request cmpl-before 5")
    there = collector()
    process = push(there.url)
    until(lambda: there.count("/v1/metrics") >= 1)
    for number in range(600):  # more than one message holds
        engine.obey(f"request cmpl-{number} 5")
    until(lambda: len(there.spans()) >= 2400)
    end(process)
    names = [attributes(span)["gen_ai.response.id"] for span in there.spans() if not span.parent_span_id]
    assert sorted(names) == sorted(f"cmpl-{number}" for number in range(600))


@pytest.mark.parametrize("status", [429, 503])
def test_it_tries_again_when_it_may(collector, push, engine, status):
    there = collector(lambda path, number: (status, {"Retry-After": "1"}, b"", 0) if number < 2 else (200, {}, b"", 0))
    process = push(there.url)
    until(lambda: there.count("/v1/metrics") >= 1)
    engine.obey("request cmpl-one 5")
    until(lambda: len(there.spans()) == 4)
    until(lambda: there.metrics)
    code, errors = end(process)
    assert code == 0 and f"answered {status}" in errors and "takes it again" in errors


def test_what_is_refused_is_dropped_and_told(collector, push, engine):
    there = collector(lambda path, number: (400 if "traces" in path else 500, {}, b"no", 0))
    process = push(there.url)
    until(lambda: there.count("/v1/metrics") >= 2)
    engine.obey("request cmpl-one 5")
    until(lambda: there.count("/v1/traces") >= 1)
    code, errors = end(process)
    assert code == 0 and there.count("/v1/traces") == 1, "a refusal for good is not tried again"
    assert "answered 400" in errors or "answered 500" in errors
    assert "were dropped so far" in errors


def test_a_partial_success_is_told(collector, push, engine):
    partial = trace_service.ExportTraceServiceResponse()
    partial.partial_success.rejected_spans = 3
    partial.partial_success.error_message = "too old"
    there = collector(lambda path, number: (200, {}, partial.SerializeToString() if "traces" in path else b"", 0))
    process = push(there.url)
    until(lambda: there.count("/v1/metrics") >= 1)
    engine.obey("request cmpl-one 5")
    until(lambda: there.spans())
    code, errors = end(process)
    assert code == 0 and "did not take 3 spans: too old" in errors


def test_nobody_there_and_then_somebody(collector, push, engine):
    """Spans wait for a collector that comes late; metrics are pushed as they are then."""
    there = collector()
    port = there.server.server_port
    there.close()
    process = push(f"http://127.0.0.1:{port}")
    time.sleep(1.2)  # it has found nobody by then, or will: either is right
    engine.obey("request cmpl-one 5")
    code, errors = end(process)
    assert code == 0 and f"http://127.0.0.1:{port}/v1/" in errors


def test_a_collector_that_does_not_answer_holds_nothing_up(cli, collector, push, engine):
    there = collector(lambda path, number: (200, {}, b"", 600))
    process = push(there.url, "--listen", "127.0.0.1:0")
    address = process.stdout.readline().strip()
    until(lambda: there.count("/v1/metrics") >= 1)
    import urllib.request

    with urllib.request.urlopen(address + "api/sessions", timeout=PATIENCE_S) as reply:
        assert json.loads(reply.read())["sessions"]
    assert end(process)[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["serve", "--otlp", "localhost:4318"], "is no address of a collector, give http://HOST:4318"),
        (["serve", "--otlp", "http://x", "--once", "--textfile", "x.prom"], "--once does not go with --otlp"),
    ],
)
def test_misuse(cli, words, said):
    done = cli(*words)
    assert done.returncode in (1, 2) and said in one_sentence(done.stderr)
