"""What the hooks on CUDA graphs cost a step whose model is replayed in pieces, against a plain Python wrapper.

    PYTHONPATH=build/release/site python bench/bench_graph.py [--rounds N]

Runs without torch and vLLM: packages of these names are made on the spot, whose classes have the methods that are hooked,
and the same source again under other names, which nobody hooks. Each figure is a step of the one minus a step of the
other, interleaved, the median over rounds: all hooks of the worker's step, and what each piece adds to them.
"""

import argparse
import functools
import importlib
import os
import statistics
import sys
import tempfile
import time

GRAPHS = '''
class Base:
    def capture_begin(self):
        pass
    def capture_end(self):
        pass
    def replay(self):
        pass

class CUDAGraph(Base):
    def capture_begin(self):
        super().capture_begin()
    def capture_end(self):
        super().capture_end()
    def replay(self):
        super().replay()
'''
CONTEXT = '''
_forward_context = None
'''
RUNNER = '''
class GPUModelRunner:
    graphs = ()
    def capture_model(self):
        for graph in self.graphs:
            graph.capture_begin()
            graph.capture_end()
    def _model_forward(self):
        for graph in self.graphs:
            graph.replay()
'''
WORKER = '''
class Worker:
    def __init__(self):
        pass
    def execute_model(self, scheduler_output):
        self.model_runner._model_forward()
    def sample_tokens(self, grammar_output):
        return grammar_output
'''
FILES = {
    ("torch", "cuda/graphs.py"): GRAPHS,
    ("vllm", "forward_context.py"): CONTEXT,
    ("vllm", "v1/worker/gpu_model_runner.py"): RUNNER,
    ("vllm", "v1/worker/gpu_worker.py"): WORKER,
}


class Has:
    def __init__(self, **has):
        self.__dict__.update(has)


def make_packages(folder):
    for prefix in ("", "bare_"):
        for (package, name), text in FILES.items():
            path = os.path.join(folder, prefix + package, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w") as file:
                file.write(text)
            while os.path.dirname(path) != folder:
                path = os.path.dirname(path)
                open(os.path.join(path, "__init__.py"), "a").close()


class Side:
    """A worker, its runner and its graphs, hooked or bare; each number of pieces is a graph of its own."""

    def __init__(self, prefix, pieces, counts=None):
        modules = {name: importlib.import_module(f"{prefix}{name}") for name in (
            "torch.cuda.graphs", "vllm.forward_context", "vllm.v1.worker.gpu_model_runner", "vllm.v1.worker.gpu_worker",
        )}  # fmt: skip
        graphs, self.context, runner, worker = modules.values()
        graph_class = graphs.CUDAGraph
        if counts is not None:
            graph_class = type("CUDAGraph", (graph_class,), {"replay": in_python(graph_class.replay, counts)})
        self.worker, self.runner = worker.Worker(), runner.GPUModelRunner()
        self.worker.model_runner = self.runner
        self.graphs = {n: [graph_class() for _ in range(n)] for n in pieces}
        for n in pieces:
            self.use(n)
            self.runner.capture_model()

    def use(self, n):
        self.runner.graphs = self.graphs[n]
        self.context._forward_context = Has(
            cudagraph_runtime_mode=Has(_value_=1), skip_compiled=False,
            batch_descriptor=Has(num_tokens=8 + n, num_reqs=None, uniform=False, has_lora=False),
        )  # fmt: skip

    def step(self, output):
        self.worker.execute_model(output)
        self.worker.sample_tokens(output)


def in_python(replay, rows):
    now = time.perf_counter_ns

    @functools.wraps(replay)
    def wrapper(self):
        start = now()
        replay(self)
        rows.append((id(self), start, now()))

    return wrapper


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4000)
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="bench_graph_")
    if os.environ.get("VLLM_ENABLE_PROFILING") != "1":
        os.environ.update(VLLM_ENABLE_PROFILING="1", VLLM_PROFILING_DIR=os.path.join(folder, "sessions"))
        os.execv(sys.executable, [sys.executable, *sys.argv])
    make_packages(folder)
    sys.path.insert(0, folder)
    pieces, rows = (0, 1, 3, 33, 81), []
    hooked, bare, plain = Side("", pieces), Side("bare_", pieces), Side("bare_", pieces, rows)
    if not hasattr(type(hooked.graphs[1][0]).replay, "__wrapped__"):
        sys.exit("bench_graph: the extension is not loaded: put build/release/site on PYTHONPATH")
    output = Has(num_scheduled_tokens={"request": 8}, total_num_scheduled_tokens=8, scheduled_new_reqs=[],
                 scheduled_spec_decode_tokens={}, finished_req_ids=set())  # fmt: skip
    time.sleep(2.2)  # the clock is steered once a second
    print(f"{'pieces':>6} {'added us':>9} {'ns a piece':>11} {'plain Python us':>16}")
    without = 0.0
    for n in pieces:
        taken = {hooked: [], bare: [], plain: []}
        for side in taken:
            side.use(n)
        for _ in range(arguments.rounds):
            for side, times in taken.items():
                start = time.perf_counter_ns()
                side.step(output)
                times.append(time.perf_counter_ns() - start)
            rows.clear()
        us = {side: statistics.median(times) / 1000 for side, times in taken.items()}
        added = us[hooked] - us[bare]
        without = added if n == 0 else without
        each = f"{(added - without) / n * 1000:11.0f}" if n else f"{'':11}"
        print(f"{n:6} {added:9.2f} {each} {us[plain] - us[bare]:16.2f}")


if __name__ == "__main__":
    main()
