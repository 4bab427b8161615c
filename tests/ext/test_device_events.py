"""Device events on classes that look like vLLM's and a driver that looks like CUDA's (tests/gpu/stand_in_cuda.c)."""

import json
import re
import subprocess
import sys
import textwrap

import pytest

import fake

sys.path.insert(0, str(fake.ROOT / "tests" / "gpu"))
import stand_in

PROGRAM = fake.BUILD / "bin" / "profilemate"
FILES = {
    **fake.FILES,
    "torch/__init__.py": """
        from types import SimpleNamespace

        stream = 0x51
        asked = []

        def _cuda_getCurrentRawStream(device):
            asked.append(device)
            return stream

        _C = SimpleNamespace(_cuda_getCurrentRawStream=_cuda_getCurrentRawStream)
        """,
    "torch/cuda/__init__.py": "",
    "torch/cuda/graphs.py": """
        class CUDAGraph:
            broken = False

            def capture_begin(self, pool=None, capture_error_mode="global"):
                if self.broken:
                    raise RuntimeError("no capture")

            def capture_end(self):
                pass

            def replay(self):
                pass
        """,
    "vllm/v1/worker/gpu_model_runner.py": """
        class GPUModelRunner:
            inside = None  # called in the model's place

            def _model_forward(self, tokens):
                if self.inside:
                    self.inside()
                return tokens

            def _sample(self, logits):
                return logits
        """,
    "vllm/v1/worker/gpu_worker.py": """
        from types import SimpleNamespace as N
        from vllm.v1.worker.gpu_model_runner import GPUModelRunner
        import torch.cuda.graphs

        class Worker:
            def __init__(self, vllm_config, local_rank, rank, distributed_init_method, is_driver_worker=False):
                self.rank = rank
                self.device_config = N(device_type=getattr(vllm_config, "device", "cuda"))
                self.model_runner = GPUModelRunner()

            def execute_model(self, scheduler_output):
                if scheduler_output.total_num_scheduled_tokens == 0:
                    return N()
                self.model_runner._model_forward(1)
                return None

            def sample_tokens(self, grammar=None):
                self.model_runner._sample(1)
                return N()

            def shutdown(self):
                return "down"
        """,
}
BEGIN = """
import ctypes, os, sys
from types import SimpleNamespace as N
import torch
from vllm.v1.worker.gpu_worker import Worker
driver = ctypes.CDLL(os.environ.get("PROFILEMATE_TEST_DRIVER") or os.environ["STAND_IN"])
worker = Worker(N(), 0, 0, "tcp://")

def schedule(requests, tokens):
    return N(num_scheduled_tokens={str(i): 1 for i in range(requests)}, total_num_scheduled_tokens=tokens,
             scheduled_new_reqs=[], scheduled_spec_decode_tokens={})

def step(requests=2, tokens=2, worker=worker):
    if worker.execute_model(schedule(requests, tokens)) is None:
        worker.sample_tokens()

def idle():
    driver.stand_in_idle()
    step(0, 0)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return stand_in.build(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return fake.write(tmp_path_factory.mktemp("package"), FILES)


class Run:
    def __init__(self, base, done, log):
        (self.session,) = fake.sessions(base)
        self.processes = fake.records(self.session)
        self.attributes = self.processes[0].attributes
        self.output = done.stdout.split()
        self.errors = done.stderr
        self.log = log
        self.calls = stand_in.counts(log)

    def table(self, name):
        done = subprocess.run(
            [PROGRAM, "export", "--format", "json", self.session, "-o", self.session / "native"],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        path = self.session / "native" / f"{name}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def steps(self):
        return [row for row in self.table("steps") if row["tokens"]]


@pytest.fixture
def run(tmp_path, library, package):
    def run(script, python=fake.PYTHON, test_driver=True, **extra):
        log = tmp_path / "driver.log"
        env = fake.environment(
            tmp_path, fake.SITE, package, VLLM_ENABLE_PROFILING="1", PROFILEMATE_RUN="1", STAND_IN_LOG=str(log),
            **{"STAND_IN": str(library), "PROFILEMATE_TEST_DRIVER": str(library) if test_driver else "", **extra},
        )  # fmt: skip
        done = fake.run(python, ["-c", BEGIN + textwrap.dedent(script)], env, tmp_path)
        return Run(tmp_path, done, log)

    return run


GAPS = ["device_wait_ns", "device_model_ns", "device_after_ns", "device_sample_ns"]


@pytest.mark.parametrize("python", fake.PYTHONS)
def test_times_come_later_and_land_in_their_step(run, python):
    """Events are complete 20 records (5 steps) late; each step's numbers are its own."""
    gaps = ",".join(str(10 * k + 1) for k in range(40))
    done = run(
        "for _ in range(10): step()\nidle()\nworker.shutdown()",
        python=fake.PYTHONS[python], STAND_IN_BEHIND="20", STAND_IN_GAPS=gaps,
        VLLM_PROFILING_CUDA_EVENT_BATCH_SIZE="1",
    )  # fmt: skip
    rows = done.steps()
    assert [row["step"] for row in rows] == list(range(10))
    for n, row in enumerate(rows):
        assert (row["forward_clock"], row["device"]) == ("events", 0)
        expected = [(10 * (4 * n + k) + 1) * 1000 for k in range(4)]
        if n == 0:
            expected[0] = None  # nothing came before it
        measured = [row[name] for name in GAPS]
        assert measured == [pytest.approx(ns, abs=600) if ns else None for ns in expected]
        assert row["forward_ns"] == row["device_model_ns"] and row["model_ns"] is not None
    assert done.attributes["forward_clock"] == "events" and done.attributes["device_events"] == "cuda"
    assert not stand_in.live(done.log), "events are left"
    assert set(done.calls) <= {"cuEventCreate", "cuEventRecord", "cuEventQuery", "cuEventElapsedTime",
                               "cuEventDestroy_v2", "cuStreamIsCapturing"}  # fmt: skip


def test_events_are_used_again(run):
    done = run(
        "for n in range(2000):\n    step()\n    if n % 7 == 0: driver.stand_in_idle()\nidle()\nworker.shutdown()",
        STAND_IN_BEHIND="1000000", VLLM_PROFILING_CUDA_EVENT_BATCH_SIZE="20",
    )  # fmt: skip
    assert done.calls["cuEventRecord"] == 8000
    assert done.calls["cuEventCreate"] <= 4 * (10 + 128)
    assert done.calls["cuEventCreate"] == done.calls["cuEventDestroy_v2"]
    assert len(done.table("device_step")) == 2000 and not done.table("device_miss")
    assert all(row["forward_clock"] == "events" for row in done.steps())


def test_what_is_no_batch_yet_is_lost_with_the_process(run):
    """That a batch is read at once, and not before, is tested where the clock is the test's own (test_events.c): here a
    slow machine may let a second pass, after which a step is read without one."""
    done = run("for _ in range(60): step()\nos._exit(0)", VLLM_PROFILING_CUDA_EVENT_BATCH_SIZE="50")
    told = len(done.table("device_step"))
    assert 50 <= told < 60
    clocks = [row["forward_clock"] for row in done.steps()]
    assert clocks[:told] == ["events"] * told and "events" not in clocks[told:]


def test_lightweight_mode_makes_no_call(run):
    done = run("for _ in range(10): step()\nidle()", VLLM_PROFILING_USE_CUDA_EVENTS="0")
    assert not done.calls and not done.log.exists()
    assert "forward_clock" in done.attributes and done.attributes["forward_clock"] == "sync"
    assert "probe.device" in done.attributes and done.attributes["probe.device"] == "off"
    assert not done.table("device_step")


def test_on_a_cpu_nothing_is_asked(run):
    """The driver is loaded by somebody else; the worker runs on a CPU."""
    done = run(
        "worker = Worker(N(device='cpu'), 0, 0, 'tcp://')\nfor _ in range(10): step(worker=worker)", test_driver=False
    )
    assert not done.calls
    assert done.attributes["forward_clock"] == "wall" and "device_events" not in done.attributes


def test_a_loaded_driver_is_found_by_its_name(run):
    done = run("for _ in range(3): step()\nidle()", test_driver=False)
    assert done.attributes["device_events"] == "cuda" and len(done.table("device_step")) == 3


def test_without_a_driver_the_session_says_so(run, library):
    done = run("for _ in range(3): step()", test_driver=False, STAND_IN="libc.so.6")
    assert done.attributes["device_events"].startswith("off: no CUDA or HIP driver")
    assert done.attributes["forward_clock"] == "sync" and not done.calls


def test_nothing_is_called_while_a_graph_is_captured_anywhere(run):
    """A call in between would end the process (stand_in_capture)."""
    done = run("""
        import threading
        graph = torch.cuda.graphs.CUDAGraph()
        step()
        def capture():
            graph.capture_begin()
            driver.stand_in_capture(1)
        thread = threading.Thread(target=capture)  # of another thread
        thread.start(); thread.join()
        for _ in range(200): step()
        step(0, 0)
        driver.stand_in_capture(0)
        graph.capture_end()
        step()
        worker.model_runner.inside = lambda: (graph.capture_begin(), driver.stand_in_capture(1), driver.stand_in_capture(0), graph.capture_end())
        step()                                      # captured inside of its model's call
        worker.model_runner.inside = None
        graph.broken = True
        try: graph.capture_begin()
        except RuntimeError: pass
        step()
        idle()
        worker.shutdown()
    """, VLLM_PROFILING_CUDA_EVENT_BATCH_SIZE="2")  # fmt: skip
    told = [row["step"] for row in done.table("device_step")]
    assert told == [0, 202, 203, 204]
    missed = done.table("device_miss")
    assert [row["step"] for row in missed] == list(range(1, 201)) and {row["why"] for row in missed} == {1}
    rows = {row["step"]: row for row in done.steps()}
    assert rows[202]["device_wait_ns"] is None and rows[203]["device_wait_ns"] is not None
    assert not stand_in.live(done.log)


def test_a_stream_that_is_captured_gets_no_event(run):
    done = run("""
        step()
        driver.stand_in_capture(2)
        for _ in range(3): step()
        driver.stand_in_capture(0)
        step()
        idle()
    """)
    assert [row["step"] for row in done.table("device_step")] == [0, 4]
    assert [(row["step"], row["why"]) for row in done.table("device_miss")] == [(1, 1), (2, 1), (3, 1)]


def test_streams_end_out_of_order(run):
    """Stream 82 is 1,000 records behind: the steps of stream 81 between its own are told first."""
    done = run("""
        for n in range(12):
            torch.stream = 82 if n % 3 == 1 else 81
            step()
        idle()
        worker.shutdown()
    """, STAND_IN_LATE="82:1000", VLLM_PROFILING_CUDA_EVENT_BATCH_SIZE="4")  # fmt: skip
    told = [row["step"] for row in done.table("device_step")]
    assert sorted(told) == list(range(12)) and told != sorted(told)
    assert [n for n in told if n % 3 != 1] == [0, 2, 3, 5, 6, 8, 9, 11]
    rows = done.steps()
    assert [row["forward_clock"] for row in rows] == ["events"] * 12
    # Of two streams nothing follows about a wait.
    assert [row["step"] for row in rows if row["device_wait_ns"] is not None] == [3, 6, 9]


def test_several_devices(run):
    done = run("""
        other = Worker(N(), 1, 1, "tcp://")
        for _ in range(4):
            driver.stand_in_context(1); step()
            driver.stand_in_context(2); torch.stream = 9; step(worker=other); torch.stream = 81
        driver.stand_in_context(1); idle()
        driver.stand_in_context(2); driver.stand_in_idle(); worker = other; step(0, 0, worker=other)
        driver.stand_in_context(0); step()
        driver.stand_in_context(1)
        print(*sorted(set(torch.asked)))
        worker.shutdown()
    """)  # fmt: skip
    rows = done.table("device_step")
    assert sorted((row["instance"], row["device"], row["step"]) for row in rows) == [
        (instance, instance, step) for instance in (0, 1) for step in range(4)
    ]
    assert done.output == ["0", "1"]
    assert [row["why"] for row in done.table("device_miss")] == [2]
    assert not stand_in.live(done.log)


def test_a_device_that_changes_inside_a_step(run):
    done = run("""
        step()
        worker.model_runner.inside = lambda: driver.stand_in_context(2)
        step()
        worker.model_runner.inside = None
        driver.stand_in_context(1)
        step()
        idle()
    """)
    assert [row["step"] for row in done.table("device_step")] == [0, 2]
    assert [(row["step"], row["why"]) for row in done.table("device_miss")] == [(1, 2)]
    assert done.steps()[2]["device_wait_ns"] is None


def test_the_pool_has_an_end_and_counts_what_it_refused(run):
    done = run(
        "for _ in range(300): step()\nidle()\nfor _ in range(3): step()\nidle()\nworker.shutdown()",
        STAND_IN_BEHIND="1000000", VLLM_PROFILING_CUDA_EVENT_BATCH_SIZE="2",
    )  # fmt: skip
    told, missed = done.table("device_step"), done.table("device_miss")
    assert len(told) == 129 + 3 and len(missed) == 300 - 129 and {row["why"] for row in missed} == {0}
    assert not stand_in.live(done.log)
    report = subprocess.run([PROGRAM, "report", "--text", done.session], capture_output=True, text=True, check=True).stdout
    assert "171 of 303 passes have no events" in report


ERRORS = {
    "cuEventCreate:2": "making an event",
    "cuEventRecord:700:9": "recording an event",
    "cuEventQuery:700": "asking whether an event is complete",
    "cuEventElapsedTime:700": "asking for the time between two events",
    "cuStreamIsCapturing:700:5": "asking a stream for a capture",
    "cuCtxGetCurrent:3:30": "asking for the device in use",
    "cuCtxGetDevice:3:30": "asking for the device in use",
    "cuEventDestroy_v2:4": None,
}


@pytest.mark.parametrize("fail", ERRORS)
def test_an_error_turns_events_off_and_nothing_else(run, fail):
    done = run(
        "for _ in range(40): step()\nidle()\nprint(worker.shutdown())",
        STAND_IN_FAIL=fail, VLLM_PROFILING_CUDA_EVENT_BATCH_SIZE="8",
    )  # fmt: skip
    assert done.output == ["down"] and "Traceback" not in done.errors
    rows = done.steps()
    assert [row["step"] for row in rows] == list(range(40))
    if ERRORS[fail] is None:
        assert all(row["forward_clock"] == "events" for row in rows)
        return
    assert done.attributes["device_events"].startswith(f"off: {ERRORS[fail]} gave CUDA_ERROR_")
    metadata = subprocess.run(
        [PROGRAM, "export", done.session], capture_output=True, text=True, check=True
    ) and json.loads((done.session / "metadata.json").read_text())
    (note,) = (note for note in metadata["notes"] if "device events are off" in note)
    assert ERRORS[fail] in note and metadata["device_events"].startswith("off: ")
    # After the first error the driver is left alone.
    after = stand_in.calls(done.log)
    wrong = [i for i, call in enumerate(after) if call.result not in (0, 600)]
    assert not wrong or wrong == [len(after) - 1]


def test_a_child_of_fork_never_touches_the_parents_events(run):
    done = run("""
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
    """)
    parent = int(done.output[0])
    theirs = [call for call in stand_in.calls(done.log) if call.pid != parent]
    ours = {call.first for call in stand_in.calls(done.log) if call.pid == parent and call.name == "cuEventCreate"}
    made = {call.first for call in theirs if call.name == "cuEventCreate"}
    assert {call.first for call in theirs if call.name.startswith("cuEvent")} <= made
    assert not any(call.result == 400 for call in stand_in.calls(done.log)), "an event of another process was used"
    assert ours


def test_a_failed_model_has_no_times(run):
    done = run("""
        step()
        def fail(): raise ValueError("model")
        worker.model_runner.inside = fail
        try: step()
        except ValueError: print("raised")
        worker.model_runner.inside = None
        step()
        idle()
    """)
    assert done.output == ["raised"]
    assert [row["step"] for row in done.table("device_step")] == [0, 2]


def test_verbose_lines_and_the_banner_say_the_mode(run):
    done = run("step()\nidle()", VLLM_PROFILING_VERBOSE="1")
    assert "CUDA Events mode: True" in done.errors


def test_reports_say_which_clock(run):
    done = run("for _ in range(5): step()\nidle()", STAND_IN_GAPS="1000,2000,3000,4000")
    text = subprocess.run([PROGRAM, "report", "--text", done.session], capture_output=True, text=True, check=True).stdout
    assert "Forward passes, ms (device events)" in text and "The device's time by its own events" in text
    report = json.loads(
        subprocess.run([PROGRAM, "report", "--json", done.session], capture_output=True, check=True).stdout
    )
    (rank,) = report["engines"][0]["ranks"]
    assert rank["forward_clock"] == "events" and rank["decode"]["p50_ms"] == 2.0
    device = rank["device"]
    assert (device["wait_ms"], device["model_ms"], device["after_ms"], device["sample_ms"]) == (1, 2, 3, 4)
    csv = subprocess.run([PROGRAM, "export", done.session], capture_output=True, check=True) and (
        done.session / "forward_pass_timing.csv"
    ).read_text().splitlines()
    assert [line.split(",")[4] for line in csv[1:]] == ["2.000"] * 5
    metrics = subprocess.run(
        [PROGRAM, "export", "--format", "openmetrics", done.session], capture_output=True, text=True, check=True
    ).stdout
    (line,) = re.findall(r'^profilemate_device_model_seconds_sum\{.*rank="0".*phase="decode".*\} (\S+)', metrics, re.M)
    assert float(line) == pytest.approx(0.010, abs=1e-6)
    timeline = json.loads(
        subprocess.run([PROGRAM, "export", "--format", "chrome", done.session], capture_output=True, check=True).stdout
    )
    steps = [event["args"] for event in timeline["traceEvents"] if "forward_clock" in event.get("args", {})]
    assert [step["forward_clock"] for step in steps if step["tokens"]] == ["events"] * 5
    assert steps[1]["device_wait_ns"] == 1000000


def test_top_takes_the_devices_word_when_it_comes(run):
    """Until then a step counts by vLLM's own synchronisation; here nothing of that was seen."""
    done = run(f"""
        import subprocess
        def top():
            found = subprocess.run([{str(PROGRAM)!r}, "top", "--once", "--json"], capture_output=True, text=True, check=True)
            print(found.stdout.replace(" ", ""), end="#")
        for _ in range(5): step()
        top()
        idle()
        top()
    """, STAND_IN_GAPS="1000,2000,3000,4000", STAND_IN_BEHIND="1000000")  # fmt: skip
    before, after = (json.loads(text) for text in "".join(done.output).split("#")[:2])
    ranks = [seen["sessions"][0]["engines"][0]["ranks"][0] for seen in (before, after)]
    assert [(rank["total"]["forward_ms"], rank["forward_clock"]) for rank in ranks] == [(0, "none"), (10, "events")]
