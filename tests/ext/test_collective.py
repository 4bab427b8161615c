"""Collective operations on classes that look like vLLM's: what is counted, where, and what is left alone.

(Real ranks that exchange real tensors: tests/e2e/test_ranks.py.)
"""

import csv
import json
import subprocess
import textwrap

import pytest

import fake

PROGRAM = fake.BUILD / "bin" / "profilemate"
FILES = {
    **fake.FILES,
    "torch/__init__.py": "",
    "torch/cuda/__init__.py": "",
    "torch/cuda/graphs.py": """
        class CUDAGraph:
            broken = False

            def capture_begin(self, pool=None):
                pass

            def capture_end(self):
                if self.broken:
                    raise RuntimeError("no graph")

            def replay(self):
                pass
        """,
    "vllm/forward_context.py": "_forward_context = None",
    "vllm/distributed/__init__.py": "",
    "vllm/distributed/parallel_state.py": """
        class GroupCoordinator:
            def __init__(self, name, world_size, use_custom_op_call=True):
                self.unique_name, self.world_size = name, world_size
                self.use_custom_op_call = use_custom_op_call

            def all_reduce(self, x):
                return self._all_reduce_out_place(x)

            def _all_reduce_out_place(self, x):
                return x

            def _all_gather_out_place(self, x, dim):
                return x

            def _reduce_scatter_out_place(self, x, dim):
                raise ValueError("broken")

            def all_gatherv(self, x, dim=0, sizes=None):
                return x

            def gather(self, x, dst=0, dim=-1):
                return None

            def broadcast(self, x, src=0):
                return x

            def broadcast_tensor_dict(self, tensor_dict=None, src=0):
                return tensor_dict

            def send(self, x, dst=None):
                pass

            def send_tensor_dict(self, tensor_dict, dst=None, all_gather_group=None):
                self.send(tensor_dict)

            def recv_tensor_dict(self, src=None, all_gather_group=None):
                result = self.irecv_tensor_dict(src)[0]
                all_gather_group._all_gather_out_place(result["a"], 0)
                return result

            def irecv_tensor_dict(self, src=None):
                return self.coming, [], []

            def dispatch(self, hidden, weights, ids, sequence_parallel=False):
                return hidden, weights, ids

            def combine(self, hidden, sequence_parallel=False):
                return hidden

        class StatelessGroupCoordinator(GroupCoordinator):
            pass
        """,
    "vllm/v1/worker/gpu_worker.py": """
        from types import SimpleNamespace as N
        import torch.cuda.graphs
        import vllm.forward_context
        from vllm.distributed.parallel_state import GroupCoordinator

        class Worker:
            inside = after = None  # called in the places of model and sampler

            def __init__(self, vllm_config, local_rank, rank, distributed_init_method, is_driver_worker=False):
                self.rank = rank
                self.device_config = N(device_type="cuda")

            def execute_model(self, scheduler_output):
                if self.inside:
                    self.inside()
                return None

            def sample_tokens(self, grammar=None):
                if self.after:
                    self.after()
                return N()
        """,
}
BEGIN = """
import enum
from types import SimpleNamespace as N
from vllm.v1.worker.gpu_worker import Worker
from vllm.distributed.parallel_state import GroupCoordinator as Group, StatelessGroupCoordinator
import vllm.forward_context as forward
from torch.cuda.graphs import CUDAGraph

worker = Worker(N(compilation_config=N(mode=MODE)), 0, 0, "tcp://")
t = lambda nbytes: N(nbytes=nbytes)

def step(inside=None, after=None, tokens=2):
    worker.inside, worker.after = inside, after
    worker.execute_model(N(num_scheduled_tokens={"r": tokens}, total_num_scheduled_tokens=tokens,
                           scheduled_new_reqs=[], scheduled_spec_decode_tokens={}))
    worker.sample_tokens()
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return fake.write(tmp_path_factory.mktemp("package"), FILES)


class Run:
    def __init__(self, base, done):
        (self.session,) = fake.sessions(base)
        (process,) = fake.records(self.session)
        self.attributes, self.output = process.attributes, done.stdout.split()
        for options in (("seed",), ("json", "-o", self.session / "native")):
            command = [PROGRAM, "export", "--format", *options, self.session]
            exported = subprocess.run(command, capture_output=True, text=True)
            assert exported.returncode == 0, exported.stderr

    def table(self, name):
        path = self.session / "native" / f"{name}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def calls(self):
        """(step, group, operation, calls, bytes, flags but that of the device) of each record, in order."""
        names = ("step", "group", "operation", "calls", "bytes")
        rows = self.table("collective_step")
        return [(*(row[name] for name in names), row["flags"] & ~DEVICE) for row in rows]

    def rows(self):
        with open(self.session / "collective_timing.csv", newline="") as file:
            return list(csv.DictReader(file))

    def summary(self):
        return json.loads((self.session / "collective_summary.json").read_text())


@pytest.fixture
def run(tmp_path, package):
    def run(script, python=fake.PYTHON, mode=3, **extra):
        env = fake.environment(
            tmp_path, fake.SITE, package, VLLM_ENABLE_PROFILING="1", PROFILEMATE_RUN="1", **extra
        )  # fmt: skip
        begin = BEGIN.replace("MODE", str(mode))
        return Run(tmp_path, fake.run(python, ["-c", begin + textwrap.dedent(script)], env, tmp_path))

    return run


REDUCE, GATHER_ALL, SCATTER, GATHER, BROADCAST, SEND, RECV, DISPATCH, COMBINE = range(9)
FAILED, OUTSIDE, DEVICE = 1, 2, 4


@pytest.mark.parametrize("python", fake.PYTHONS)
def test_calls_are_counted_per_step_group_and_operation(run, python):
    done = run(
        """
        tp, pp, ep, alone = Group("tp:0", 2), Group("pp:0", 2), StatelessGroupCoordinator("ep:1", 4), Group("dp:0", 1)
        pp.coming = {"a": t(40), "b": t(2), "c": 7}
        tp.all_reduce(t(5000))  # warm-up

        def inside():
            for n in range(3):
                tp.all_reduce(t(100 + n))
            ep.dispatch(t(1000), t(10), t(1), True)
            ep.combine(hidden=t(1000))
            alone.broadcast(t(1))
            assert pp.recv_tensor_dict(all_gather_group=tp) is pp.coming
            pp.send_tensor_dict({"a": t(8), "b": [t(4), 3]}, dst=1)

        def after():
            tp.gather(t(64))
            pp.broadcast(t(16), src=1)
            pp.broadcast_tensor_dict(None)

        step(inside, after)
        tp.all_gatherv([t(3), t(4)])  # between steps
        step()
        step(after=lambda: tp.all_reduce(t(7)))
        """,
        python=fake.PYTHONS[python],
    )
    assert sorted(done.calls()) == sorted([
        (0, "tp:0", REDUCE, 1, 5000, OUTSIDE),
        (0, "tp:0", REDUCE, 3, 303, 0),
        (0, "ep:1", DISPATCH, 1, 1011, 0),
        (0, "ep:1", COMBINE, 1, 1000, 0),
        (0, "tp:0", GATHER_ALL, 1, 40, 0),  # inside the receiving one, of another group
        (0, "pp:0", RECV, 1, 42, 0),
        (0, "pp:0", SEND, 1, 12, 0),
        (0, "tp:0", GATHER, 1, 64, 0),
        (0, "pp:0", BROADCAST, 2, 16, 0),
        (1, "tp:0", GATHER_ALL, 1, 7, OUTSIDE),
        (2, "tp:0", REDUCE, 1, 7, 0),
    ])  # fmt: skip
    summary = done.summary()
    assert summary["outside_steps"] == {"calls": 2, "bytes": 5007}
    assert summary["clock"] == "launch" and summary["calls"] == 12
    assert {group: set(found) for group, found in summary["groups"].items()} == {
        "tp": {"all_reduce", "all_gather", "gather"},
        "ep:1": {"dispatch", "combine"},
        "pp": {"recv", "send", "broadcast"},
    }
    assert summary["groups"]["tp"]["all_reduce"]["calls"] == 4 and summary["groups"]["tp"]["all_reduce"]["steps"] == 2
    assert len(done.rows()) == 9 and {row["captured"] for row in done.rows()} == {"False"}


def test_a_call_that_raises_is_told_and_what_it_raised_arrives(run):
    done = run(
        """
        tp = Group("tp:0", 2)
        def inside():
            try:
                tp._reduce_scatter_out_place(t(9), 0)
            except ValueError as error:
                print(error)
        step(inside)
        """
    )
    assert done.output == ["broken"]
    assert done.calls() == [(0, "tp:0", SCATTER, 1, 9, FAILED)]


PLACES = """
tp = Group("tp:0", 2, use_custom_op_call={custom})
step(lambda: (tp.all_reduce(t(1)), tp.gather(t(2))))
print(*(type(vars(Group)[name]).__name__ for name in ("all_reduce", "_all_reduce_out_place", "combine", "gather")))
"""


@pytest.mark.parametrize(
    ("custom", "mode", "hooked"), [(True, 3, True), (False, 0, True), (False, 3, False), ("None", "None", False)]
)
def test_what_torch_compile_may_trace_is_left_alone(run, custom, mode, hooked):
    done = run(PLACES.format(custom=custom), mode=mode)
    kinds = [kind == "function" for kind in done.output]
    assert kinds == [True, not hooked, not hooked, False]
    assert [row[2] for row in done.calls()] == ([REDUCE, GATHER] if hooked else [GATHER])
    assert ("note.collective" in done.attributes) == (not hooked)


GRAPHS = """
class Mode(enum.IntEnum):
    NONE, PIECEWISE, FULL = range(3)

tp = Group("tp:0", 2)

def capture(graph, tokens, calls):
    forward._forward_context = N(cudagraph_runtime_mode=Mode.PIECEWISE, batch_descriptor=N(num_tokens=tokens))
    graph.capture_begin()
    for _ in range(calls):
        tp.all_reduce(t(10 * tokens))
    graph.capture_end()
    forward._forward_context = None

small, large = [CUDAGraph() for _ in range(3)], [CUDAGraph() for _ in range(3)]
broken = CUDAGraph()
broken.broken = True
try:
    capture(broken, 8, 5)
except RuntimeError:
    pass
for tokens, graph in ((8, small), (16, large)):
    for piece, calls in zip(graph, (1, 0, 2)):
        capture(piece, tokens, calls)

def replay(graph):
    for piece in graph:
        piece.replay()
    tp._all_gather_out_place(t(5), 0)

for _ in range(4):
    step(lambda: replay(small), tokens=8)
step(lambda: replay(large), tokens=16)
"""


def test_what_a_graph_holds_counts_once_per_replay(run):
    done = run(GRAPHS)
    held = [(row["num_tokens"], row["piece"], row["calls"], row["bytes"]) for row in done.table("collective_capture")]
    assert sorted(held) == [(8, 0, 1, 80), (8, 2, 2, 160), (16, 0, 1, 160), (16, 2, 2, 320)]
    assert [row[2] for row in done.calls()] == [GATHER_ALL] * 5
    reduce = done.summary()["groups"]["tp"]["all_reduce"]
    assert (reduce["calls"], reduce["captured_calls"], reduce["captured_bytes"]) == (0, 15, 4 * 240 + 480)
    rows = [(row["operation"], row["bytes"], row["duration_ms"] == "", row["captured"]) for row in done.rows()]
    wanted = [("all_reduce", "240", True, "True"), ("all_gather", "5", False, "False")]
    assert rows == wanted * 4 + [("all_reduce", "480", True, "True"), wanted[1]]
    page = subprocess.run([PROGRAM, "report", "--text", done.session], capture_output=True, text=True, check=True).stdout
    assert "15      1.4 KiB  in CUDA graphs, not timed" in page


def test_where_replays_are_not_seen_it_says_so(run):
    done = run(GRAPHS, VLLM_PROFILING_ENABLE_CUDA_GRAPH_TRACKING="0")
    assert not done.table("collective_capture")
    assert "CUDA_GRAPH_TRACKING" in done.attributes["note.collective.graphs"]


def test_switched_off_nothing_is_hooked_and_no_file_is_written(run):
    done = run(PLACES.format(custom=True), VLLM_PROFILING_ENABLE_COLLECTIVE_TIMING="0")
    assert set(done.output) == {"function"}
    assert not list(done.session.glob("collective*"))
