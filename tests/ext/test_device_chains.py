"""The device's own times of layers and of collective operations: events at the borders of modules and round collectives, on classes
that look like vLLM's and a driver that looks like CUDA's, whose log says when each event came by on its stream."""

import csv
import json
import subprocess
import sys
import textwrap
from collections import defaultdict

import pytest

import fake
import test_collective
import test_device_events
import test_layer

sys.path.insert(0, str(fake.ROOT / "tests" / "gpu"))
import stand_in

PROGRAM = fake.BUILD / "bin" / "profilemate"
FILES = {
    **test_device_events.FILES,
    "vllm/v1/worker/gpu_worker.py": test_device_events.FILES["vllm/v1/worker/gpu_worker.py"].replace(
        "self.rank = rank", "self.rank, self.vllm_config = rank, vllm_config"
    ),
    "torch/nn.py": test_layer.FILES["torch/nn.py"],
    "vllm/forward_context.py": "_forward_context = None",
    "vllm/distributed/__init__.py": "",
    "vllm/distributed/parallel_state.py": test_collective.FILES["vllm/distributed/parallel_state.py"],
    "vllm/v1/worker/gpu_model_runner.py": """
        class GPUModelRunner:
            before = after = wait = None  # called beside the model
            model = None

            def _model_forward(self, tokens):
                if self.before:
                    self.before()
                return self.model(1, scale=2)

            def _sample(self, logits):
                if self.after:
                    self.after()
                self._bookkeeping_sync()
                return logits

            def _bookkeeping_sync(self):
                if self.wait:
                    self.wait()
        """,
}
BEGIN = test_device_events.BEGIN.replace('worker = Worker(N(), 0, 0, "tcp://")', "")
MODELS = test_layer.BEGIN.split("def step(")[0].replace("MODE", "0").replace("worker.model_runner = N(model=model)", "")
BEGIN = f"""
{MODELS}
{BEGIN}
from torch.cuda.graphs import CUDAGraph
from vllm.distributed.parallel_state import GroupCoordinator as Group
from vllm.v1.worker.gpu_model_runner import GPUModelRunner
runner = worker.model_runner = GPUModelRunner()
runner.model = model
t = lambda nbytes: N(nbytes=nbytes)
in_mlp = None
def mlp(self, x):
    if in_mlp:
        in_mlp()
    return self.down(x)
LlamaMLP.forward = mlp
"""
GAPS = [3 + 7 * k % 59 for k in range(59)]  # microseconds: a prime number of different ones
# Slack of a time: what comes as single precision of milliseconds has been rounded at both ends.
SLACK = 2000


def borders():
    """The module (layer, kind) whose the time is after each border of a pass, and whether a call of it begins there."""
    root = (None, "other")
    found = [(root, 1)]
    for layer, block in ((0, "mlp"), (1, "moe")):
        whole, norm, attention = (layer, "other"), (layer, "norm"), (layer, "attention")
        found += [(whole, 1), (norm, 1), (whole, 0), (attention, 1), (norm, 1), (attention, 0), (whole, 0), (norm, 1),
                  (whole, 0), ((layer, block), 1), (whole, 0), (root, 0)]  # fmt: skip
    return [*found, ((None, "norm"), 1), (root, 0), (None, 0)]


class Run(test_device_events.Run):
    def __init__(self, base, done, log):
        super().__init__(base, done, log)
        for options in (("seed",), ("json", "-o", self.session / "native")):
            subprocess.run([PROGRAM, "export", "--format", *options, self.session], check=True, capture_output=True)

    def records(self):
        """(stream, microsecond on it) of each event that was recorded, in order."""
        now, count = defaultdict(float), defaultdict(int)
        for call in stand_in.calls(self.log):
            if call.name == "cuEventRecord" and call.result == 0:
                now[call.second] += GAPS[count[call.second] % len(GAPS)]
                count[call.second] += 1
                yield call.second, now[call.second]

    def layers(self):
        newest = {}
        kinds = ["other", "attention", "mlp", "moe", "norm"]
        for row in self.table("layer_time"):
            layer = row["layer"] if row["layer"] >= 0 else None
            newest[layer, kinds[row["kind"]], row["phase"]] = (row["device_ns"], row["device_calls"], row["calls"])
        return newest

    def passes(self):
        newest = {row["phase"]: row for row in self.table("layer_pass")}
        return {name: sum(row[name] for row in newest.values()) for name in ("device_ns", "passes", "device_passes")}

    def misses(self, what):
        return [(row["step"], row["why"]) for row in self.table("device_miss") if row["what"] == what]

    def summary(self, name):
        return json.loads((self.session / f"{name}_summary.json").read_text())

    def rows(self, name):
        with open(self.session / f"{name}_timing.csv", newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return stand_in.build(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return fake.write(tmp_path_factory.mktemp("package"), FILES)


@pytest.fixture
def run(tmp_path, library, package):
    def run(script, layers="1", **extra):
        log = tmp_path / "driver.log"
        extra.setdefault("STAND_IN_GAPS", ",".join(map(str, GAPS)))
        env = fake.environment(
            tmp_path, fake.SITE, package, VLLM_ENABLE_PROFILING="1", PROFILEMATE_RUN="1", STAND_IN_LOG=str(log),
            STAND_IN=str(library), PROFILEMATE_TEST_DRIVER=str(library), VLLM_PROFILING_ENABLE_LAYER_TIMING=layers, **extra,
        )  # fmt: skip
        return Run(tmp_path, fake.run(fake.PYTHON, ["-c", BEGIN + textwrap.dedent(script)], env, tmp_path), log)

    return run


ALLOWED = {"cuEventCreate", "cuEventRecord", "cuEventQuery", "cuEventElapsedTime", "cuEventDestroy_v2", "cuStreamIsCapturing"}


def test_each_layers_time_is_its_own_although_it_comes_late(run):
    """Events are complete 100 records (three passes) late, and read in batches. What each module must have is worked out
    from the driver's log and the order in which the modules are called."""
    passes = 12
    done = run(
        f"for _ in range({passes}): step()\nidle()\nworker.shutdown()",
        STAND_IN_BEHIND="100", VLLM_PROFILING_CUDA_EVENT_BATCH_SIZE="10",
    )  # fmt: skip
    assert set(done.calls) <= ALLOWED and not stand_in.live(done.log), "events are left"
    times = [at for _, at in done.records()]
    expected, whole = defaultdict(float), 0.0
    calls = defaultdict(int)
    order = borders()
    for n in range(passes):
        own = times[n * 32 + 1 : n * 32 + 29]  # without the pairs round model and sampling
        for (module, begins), begun, ended in zip(order, own, own[1:]):
            expected[module] += (ended - begun) * 1000
            calls[module] += begins
        whole += (own[-1] - own[0]) * 1000
    found, told = defaultdict(int), 0
    for (layer, kind, _), (ns, of, all_calls) in done.layers().items():
        assert of == all_calls == calls[layer, kind]
        found[layer, kind] += ns
        told += ns
    assert found.keys() == expected.keys()
    for module, ns in expected.items():
        assert found[module] == pytest.approx(ns, abs=SLACK), module
    of = done.passes()
    assert of["device_ns"] == told == pytest.approx(whole, abs=20 * SLACK)  # to the nanosecond: nothing twice, nothing left out
    assert (of["passes"], of["device_passes"]) == (passes, passes)
    summary = done.summary("layer")
    assert (summary["clock"], summary["passes"], summary["passes_without_times"]) == ("device", passes, 0)
    assert summary["forward_ms"] == pytest.approx(told / 1e6, abs=0.001)
    assert summary["host_forward_ms"] > 0 and summary["host_ms"].keys() == summary["kinds"].keys()
    rows = {(row["layer_idx"], row["kind"]): row for row in done.rows("layer")}
    assert float(rows["1", "moe"]["total_ms"]) == pytest.approx(expected[1, "moe"] / 1e6, abs=0.003)
    assert int(rows["1", "moe"]["count"]) == passes
    metadata = json.loads((done.session / "metadata.json").read_text())
    assert metadata["layer_clock"] == "device" and "collective_clock" not in metadata
    report = subprocess.run([PROGRAM, "report", "--text", done.session], capture_output=True, text=True, check=True).stdout
    assert "Layers, ms per pass of the model (the device's events)" in report
    assert done.summary("forward_pass") and len(done.table("device_step")) == passes  # the step's own pairs beside them


def test_without_device_events_it_is_the_launch_and_nothing_is_called(run):
    done = run("for _ in range(3): step()\nidle()", VLLM_PROFILING_USE_CUDA_EVENTS="0")
    assert not done.calls
    assert done.summary("layer")["clock"] == "launch" and done.passes()["device_passes"] == 0
    assert json.loads((done.session / "metadata.json").read_text())["layer_clock"] == "launch"


COLLECTIVES = """
tp, pp, alone = Group("tp:0", 2), Group("pp:0", 2), Group("dp:0", 1)
pp.coming = {"a": t(40)}
tp.all_reduce(t(5000))  # warm-up: outside of steps
def in_mlp():
    tp.all_reduce(t(100))
    tp.all_reduce(t(100))
    alone.broadcast(t(1))
def before():
    pp.recv_tensor_dict(all_gather_group=tp)  # a call of another group inside of it
    pp.send_tensor_dict({"a": t(8)}, dst=1)
runner.before, runner.after = before, lambda: tp.gather(t(64))
"""
OPERATIONS = [
    "all_reduce", "all_gather", "reduce_scatter", "gather", "broadcast", "send", "recv", "dispatch", "combine",
]  # fmt: skip


def test_collectives_have_their_own_time_in_their_own_step(run):
    steps = 9
    done = run(
        COLLECTIVES + f"for _ in range({steps}): step()\nidle()\nworker.shutdown()",
        layers="0", STAND_IN_BEHIND="60", VLLM_PROFILING_CUDA_EVENT_BATCH_SIZE="4",
    )  # fmt: skip
    assert set(done.calls) <= ALLOWED and not stand_in.live(done.log)
    times = [at for _, at in done.records()]
    # A group of one rank is known for one once it was met: in the first step its call has an event more.
    at, expected = 0, {}
    for step in range(steps):
        own = times[at + 1 :]
        pairs = {("pp:0", "recv"): [(0, 3)], ("tp:0", "all_gather"): [(1, 2)], ("pp:0", "send"): [(4, 5)],
                 ("tp:0", "all_reduce"): [(6, 7), (8, 9)]}  # fmt: skip
        gather = 10 + (step == 0) + 2  # the model's end and sampling's begin in between
        pairs["tp:0", "gather"] = [(gather, gather + 1)]
        for key, of in pairs.items():
            expected[(step, *key)] = (len(of), sum(own[b] - own[a] for a, b in of) * 1000)
        at += 1 + gather + 2 + 1
    assert at == len(times)
    found = {(row["step"], row["group"], OPERATIONS[row["operation"]]): (row["calls"], row["device_ns"])
             for row in done.table("collective_device")}  # fmt: skip
    assert found.keys() == expected.keys()
    for key, (calls, ns) in expected.items():
        assert found[key] == (calls, pytest.approx(ns, abs=SLACK)), key
    # The host's counts are all there beside them.
    host = {(row["step"], row["group"], OPERATIONS[row["operation"]]): row["calls"]
            for row in done.table("collective_step") if not row["flags"] & 2}  # fmt: skip
    assert host == {key: calls for key, (calls, _) in expected.items()}
    summary = done.summary("collective")
    assert summary["clock"] == "device" and summary["timed_calls"] == summary["calls"] == 6 * steps
    reduce = summary["groups"]["tp"]["all_reduce"]
    total = sum(ns for (_, _, name), (_, ns) in expected.items() if name == "all_reduce")
    assert reduce["total_ms"] == pytest.approx(total / 1e6, abs=0.003) and reduce["steps"] == steps
    assert reduce["host_ms"] > 0
    durations = [float(row["duration_ms"]) for row in done.rows("collective") if row["operation"] == "all_reduce"]
    assert durations == [pytest.approx(expected[n, "tp:0", "all_reduce"][1] / 1e6, abs=0.003) for n in range(steps)]
    metadata = json.loads((done.session / "metadata.json").read_text())
    assert metadata["collective_clock"] == "device" and "layer_clock" not in metadata
    report = subprocess.run([PROGRAM, "report", "--text", done.session], capture_output=True, text=True, check=True).stdout
    assert "By the device's events: waiting" in report and "have no events" not in report


def test_both_at_once_and_collectives_inside_of_layers(run):
    """A collective's two events lie inside of a module's time on the same stream, and change nothing of whose it is."""
    done = run(COLLECTIVES + "for _ in range(5): step()\nidle()\nworker.shutdown()", STAND_IN_GAPS="10")
    mlp = {key: value for key, value in done.layers().items() if key[:2] == (0, "mlp")}
    # Five intervals of 10 us: two pairs inside; in the first step a fifth event, of the group of one rank.
    assert sum(ns for ns, _, _ in mlp.values()) == pytest.approx(5 * 50e3 + 10e3, abs=SLACK)
    rows = [row for row in done.table("collective_device") if OPERATIONS[row["operation"]] == "all_reduce"]
    assert [(row["step"], row["calls"]) for row in rows] == [(n, 2) for n in range(5)]
    assert [row["device_ns"] for row in rows] == [pytest.approx(20e3, abs=SLACK)] * 5
    assert not stand_in.live(done.log)


def test_streams_end_out_of_order(run):
    """Every third step runs on a stream that is 2,000 records behind: the others' times are told before."""
    done = run(
        COLLECTIVES + """
        for n in range(12):
            torch.stream = 82 if n % 3 == 1 else 81
            step()
        idle()
        worker.shutdown()
        """.replace("\n        ", "\n"),
        STAND_IN_GAPS="10", STAND_IN_LATE="82:2000", VLLM_PROFILING_CUDA_EVENT_BATCH_SIZE="4",
    )  # fmt: skip
    told = [row["step"] for row in done.table("collective_device") if OPERATIONS[row["operation"]] == "recv"]
    assert sorted(told) == list(range(12)) and told != sorted(told)
    assert [n for n in told if n % 3 != 1] == [0, 2, 3, 5, 6, 8, 9, 11]
    assert done.passes()["device_passes"] == 12
    assert [row["captured"] for row in done.rows("collective")] == ["False"] * 60
    assert done.summary("collective")["timed_calls"] == done.summary("collective")["calls"] == 72


def test_a_module_on_another_stream_takes_no_time_of_the_passs(run):
    """As shared experts do: on the pass's own stream nothing of it happens."""
    done = run("""
        class Aside(RMSNorm):
            def forward(self, x):
                return x + 1
        norm = model._modules["model"]._modules["norm"]
        call = type(model._modules["model"]).forward
        def aside(self, x):
            x = self.embed_tokens(x)
            for layer in self.layers:
                x = layer(x)
            torch.stream = 9
            x = self.norm(x)
            torch.stream = 81
            return x
        type(model._modules["model"]).forward = aside
        for _ in range(4): step()
        idle()
        worker.shutdown()
    """, STAND_IN_GAPS="10")  # fmt: skip
    layers = done.layers()
    outer = [value for key, value in layers.items() if key[:2] == (None, "norm")]
    assert [value[:2] for value in outer] == [(0, 0)] and outer[0][2] == 4
    of = done.passes()
    assert of["device_passes"] == 4 and of["device_ns"] == pytest.approx(4 * 25 * 10e3, abs=SLACK * 100)
    assert of["device_ns"] == sum(value[0] for value in layers.values())
    assert not done.misses(1) and not stand_in.live(done.log)


def test_several_devices_have_pools_of_their_own(run):
    done = run("""
        other = Worker(N(compilation_config=N(mode=0)), 1, 1, "tcp://")
        other.model_runner = GPUModelRunner()
        other.model_runner.model = make()
        tp = Group("tp:0", 2)
        in_mlp = lambda: tp.all_reduce(t(5))
        for _ in range(4):
            driver.stand_in_context(1); step()
            driver.stand_in_context(2); torch.stream = 9; step(worker=other); torch.stream = 81
        driver.stand_in_context(1); idle()
        driver.stand_in_context(2); driver.stand_in_idle(); step(0, 0, worker=other)
        driver.stand_in_context(1)
        worker.shutdown()
    """, STAND_IN_GAPS="10")  # fmt: skip
    rows = done.table("collective_device")
    assert sorted((row["instance"], row["step"]) for row in rows) == [(i, n) for i in (0, 1) for n in range(4)]
    assert {row["device_ns"] for row in rows} <= set(range(9000, 11001))
    assert not stand_in.live(done.log)


def test_the_pools_have_an_end_and_count_what_they_refused(run):
    """Nothing completes for 700 passes: as many as the pool has events for are told when it does."""
    done = run(
        "for _ in range(700): step()\nidle()\nfor _ in range(3): step()\nidle()\nworker.shutdown()",
        STAND_IN_BEHIND="10000000", VLLM_PROFILING_CUDA_EVENT_BATCH_SIZE="2",
    )  # fmt: skip
    missed = done.misses(1)
    held = 512  # chains; 16,384 events would do for 585 of these passes
    assert missed == [(n, 0) for n in range(held, 700)]
    assert done.passes()["device_passes"] == held + 3 and done.passes()["passes"] == 703
    assert done.summary("layer")["passes_without_times"] == 700 - held
    assert not stand_in.live(done.log)
    report = subprocess.run([PROGRAM, "report", "--text", done.session], capture_output=True, text=True, check=True).stdout
    assert f"{700 - held} passes more have no events." in report


def test_nothing_is_called_while_a_graph_is_captured(run):
    """A call in between would end the process (stand_in_capture). What is captured is counted for the graph and has no
    time of its own; a pass with a capture in its midst has none either; the rest goes on."""
    done = run("""
        tp, graph = Group("tp:0", 2), CUDAGraph()
        def captured():
            graph.capture_begin()
            driver.stand_in_capture(1)
            tp.all_reduce(t(1000))
            driver.stand_in_capture(0)
            graph.capture_end()
        in_mlp = lambda: tp.all_reduce(t(5))
        step()
        plain = in_mlp
        def in_mlp():
            plain()
            captured()
            plain()
        step()
        in_mlp = plain
        step()
        driver.stand_in_capture(2)  # the stream itself is captured, by whomever
        step()
        driver.stand_in_capture(0)
        step()
        idle()
        worker.shutdown()
    """, STAND_IN_GAPS="10")  # fmt: skip
    # The pass of step 1 goes on after the capture: its events on both sides are there, the border inside was not met.
    assert done.misses(1) == [(3, 1)] and done.misses(2) == [(3, 1)]
    assert done.passes() | {"device_ns": 0} == {"device_ns": 0, "passes": 5, "device_passes": 4}
    found = {row["step"]: row["calls"] for row in done.table("collective_device")}
    assert found == {0: 1, 1: 2, 2: 1, 4: 1}
    summary = done.summary("collective")
    assert (summary["calls"], summary["timed_calls"]) == (6, 5)
    assert not stand_in.live(done.log)


ERRORS = {
    "cuEventCreate:2:3": "making an event",
    "cuEventRecord:700:90": "recording an event",
    "cuEventQuery:700:2": "asking whether an event is complete",
    "cuEventElapsedTime:700:40": "asking for the time between two events",
    "cuStreamIsCapturing:700:33": "asking a stream for a capture",
    "cuCtxGetCurrent:3:77": "asking for the device in use",
    "cuCtxGetDevice:3:77": "asking for the device in use",
    "cuEventDestroy_v2:4": None,
}


@pytest.mark.parametrize("fail", ERRORS)
def test_an_error_turns_events_off_and_nothing_else(run, fail):
    done = run(
        COLLECTIVES + "for _ in range(20): step()\nidle()\nprint(worker.shutdown())",
        STAND_IN_FAIL=fail, VLLM_PROFILING_CUDA_EVENT_BATCH_SIZE="8",
    )  # fmt: skip
    assert done.output == ["down"] and "Traceback" not in done.errors
    assert [row["step"] for row in done.steps()] == list(range(20))
    of = done.passes()
    assert of["passes"] == 20
    assert done.summary("collective")["calls"] == 6 * 20
    if ERRORS[fail] is None:
        assert of["device_passes"] == 20
        return
    assert of["device_passes"] < 20 and done.attributes["device_events"].startswith(f"off: {ERRORS[fail]} gave CUDA_ERROR_")
    # After the first error the driver is left alone, whoever met it.
    after = stand_in.calls(done.log)
    wrong = [i for i, call in enumerate(after) if call.result not in (0, 600)]
    assert not wrong or wrong == [len(after) - 1]
    # A pass is told whole, or not at all.
    assert of["device_ns"] == sum(ns for ns, _, _ in done.layers().values())


def test_a_child_of_fork_never_touches_the_parents_events(run):
    done = run(COLLECTIVES + """
for _ in range(5): step()
child = os.fork()
if child == 0:
    for _ in range(5): step()
    os._exit(0)
os.waitpid(child, 0)
for _ in range(5): step()
idle()
worker.shutdown()
print(os.getpid())
""")  # fmt: skip
    parent = int(done.output[0])
    theirs = [call for call in stand_in.calls(done.log) if call.pid != parent]
    made = {call.first for call in theirs if call.name == "cuEventCreate"}
    assert made and {call.first for call in theirs if call.name.startswith("cuEvent")} <= made
    assert not any(call.result == 400 for call in stand_in.calls(done.log)), "an event of another process was used"


def test_switched_off_and_on_again_while_events_are_under_way(run):
    """What was under way when layers were switched off still lands where it belongs; afterwards nothing is recorded."""
    done = run(f"""
        import subprocess, time
        import vllm.v1.engine.core  # what may be controlled
        def switch(value):
            asked = subprocess.Popen([{str(PROGRAM)!r}, "set", str(os.getpid()), f"layer={{value}}", "--wait=180"])
            while asked.poll() is None:
                time.sleep(0.01)
            assert asked.returncode == 0
        for _ in range(3): step()
        in_mlp = lambda: switch(0)  # in the midst of a pass, which is given up
        step()
        in_mlp = None
        driver.stand_in_idle()
        for _ in range(4): step()
        switch(1)
        for _ in range(2): step()
        idle()
        worker.shutdown()
    """, STAND_IN_BEHIND="1000000")  # fmt: skip
    of = done.passes()
    assert (of["passes"], of["device_passes"]) == (5, 5)
    assert of["device_ns"] == sum(ns for ns, _, _ in done.layers().values())
    assert not stand_in.live(done.log)


def test_the_lightweight_time_is_the_events_and_a_little_more(run):
    """Both of the same steps: 60 ms of model, 1 ms of sampling on a device that works by the host's clock, and a host that waits
    for it as vLLM does. The lightweight time has the sampling and the host's lateness in it. A busy host is late at any step;
    of 30 one is as the guide says."""
    done = run("""
        import time
        driver.stand_in_work.argtypes = [ctypes.c_void_p, ctypes.c_double]
        driver.stand_in_left.argtypes, driver.stand_in_left.restype = [ctypes.c_void_p], ctypes.c_double
        runner.before = lambda: driver.stand_in_work(torch.stream, 60000)
        runner.after = lambda: driver.stand_in_work(torch.stream, 1000)
        def wait():
            while left := driver.stand_in_left(torch.stream):
                time.sleep(left / 1e6)
        runner.wait = wait
        for _ in range(30): step()
        step(0, 0)
        worker.shutdown()
    """, STAND_IN_HOST="1", layers="0")  # fmt: skip
    told = {row["step"]: row["gpu_ns"] for row in done.table("device_step")}
    steps = {row["step"]: row["sync_ns"] for row in done.table("worker_step") if row["tokens"]}
    assert sorted(told) == sorted(steps) == list(range(30))
    assert [row["forward_ns"] for row in done.steps()] == [told[n] for n in range(30)]
    # A device that works by the clock is never early; how late the host looks nobody knows.
    assert min(told.values()) >= 60e6 - SLACK * 10 and min(steps.values()) >= 61e6 - SLACK * 10
    assert min(abs(1 - told[n] / steps[n]) for n in told) <= 0.05, (told, steps)
