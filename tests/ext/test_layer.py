"""Layers on modules that look like torch's: which are timed and as what, what they add up to, what is left in them, and what they
must not notice. (Real models: tests/e2e/test_layer_timing.py.)"""

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
    "torch/nn.py": """
        class Module:
            def __init__(self, **children):
                self._modules = children
                for name, child in children.items():
                    self.__dict__[name] = child

            def __call__(self, *args, **kwargs):
                return self.forward(*args, **kwargs)

            def forward(self, *args, **kwargs):
                raise NotImplementedError

            def named_modules(self, prefix=""):
                yield prefix, self
                for name, child in self._modules.items():
                    yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

        class ModuleList(Module):
            def __init__(self, children):
                super().__init__(**{str(n): child for n, child in enumerate(children)})

            def __iter__(self):
                return iter(self._modules.values())
        """,
    "vllm/v1/worker/gpu_worker.py": """
        from types import SimpleNamespace as N

        class Worker:
            def __init__(self, vllm_config, local_rank, rank, distributed_init_method, is_driver_worker=False):
                self.rank = rank
                self.vllm_config = vllm_config
                self.device_config = N(device_type="cpu")

            def execute_model(self, scheduler_output):
                if scheduler_output.total_num_scheduled_tokens and self.calls:
                    return self.model_runner.model(1, scale=2)
                return N()

            def shutdown(self):
                pass
        """,
}
BEGIN = """
import copy, inspect, pickle, threading
from types import SimpleNamespace as N
from torch.nn import Module, ModuleList
from vllm.v1.worker.gpu_worker import Worker

class Leaf(Module):
    def forward(self, x, scale=1):
        return x + scale
class RMSNorm(Leaf): pass
class RowParallelLinear(Leaf): pass
class LlamaAttention(Module):
    def forward(self, x):
        return self.o_proj(self.q_norm(x))
class LlamaMLP(Module):
    def forward(self, x):
        return self.down(x)
class SparseBlock(Module):
    def forward(self, x):
        return self.experts(x)
class Qwen3MoeDecoderLayer(Module):
    broken = False
    def forward(self, x):
        if self.broken:
            raise ValueError("broken")
        return self.mlp(self.post(self.self_attn(self.pre(x))))
class Qwen3MoeModel(Module):
    def forward(self, x):
        x = self.embed_tokens(x)
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)
class Qwen3MoeForCausalLM(Module):
    def forward(self, x, *, scale):
        '''The model.'''
        return scale * self.model(x)

def layer(mlp):
    attention = LlamaAttention(q_norm=RMSNorm(), o_proj=RowParallelLinear())
    return Qwen3MoeDecoderLayer(pre=RMSNorm(), self_attn=attention, post=RMSNorm(), mlp=mlp)
def make():
    layers = ModuleList([layer(LlamaMLP(down=RowParallelLinear())),
                         layer(SparseBlock(gate=RowParallelLinear(), experts=RowParallelLinear()))])
    inner = Qwen3MoeModel(embed_tokens=Leaf(), layers=layers, norm=RMSNorm())
    return Qwen3MoeForCausalLM(model=inner, lm_head=RowParallelLinear())

worker = Worker(N(compilation_config=N(mode=MODE)), 0, 0, "tcp://")
model = make()
expected = model(1, scale=2)
worker.model_runner = N(model=model)
worker.calls = True

def step(tokens=2, request="r"):
    return worker.execute_model(N(num_scheduled_tokens={request: tokens} if tokens else {}, total_num_scheduled_tokens=tokens,
                                  scheduled_new_reqs=[], scheduled_spec_decode_tokens={}))
def timed():
    return sorted(name for name, module in worker.model_runner.model.named_modules() if "forward" in vars(module))
"""
TIMED = [
    "", "model.layers.0", "model.layers.0.mlp", "model.layers.0.post", "model.layers.0.pre", "model.layers.0.self_attn",
    "model.layers.0.self_attn.q_norm", "model.layers.1", "model.layers.1.mlp", "model.layers.1.post", "model.layers.1.pre",
    "model.layers.1.self_attn", "model.layers.1.self_attn.q_norm", "model.norm",
]  # fmt: skip


class Run:
    def __init__(self, base, done):
        (self.session,) = fake.sessions(base)
        (process,) = fake.records(self.session)
        self.attributes = process.attributes
        self.output = done.stdout.splitlines()
        for options in (("seed",), ("json", "-o", self.session / "native")):
            command = [PROGRAM, "export", "--format", *options, self.session]
            exported = subprocess.run(command, capture_output=True, text=True)
            assert exported.returncode == 0, exported.stderr

    def rows(self):
        with open(self.session / "layer_timing.csv", newline="") as file:
            return list(csv.DictReader(file))

    def counts(self):
        return {(row["layer_idx"], row["kind"]): int(row["count"]) for row in self.rows()}

    def summary(self):
        return json.loads((self.session / "layer_summary.json").read_text())

    def report(self, how):
        return subprocess.run([PROGRAM, "report", how, self.session], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def run(tmp_path):
    package = fake.write(tmp_path / "package", FILES)

    def run(script, python=fake.PYTHON, mode=0, enabled="1", **extra):
        env = fake.environment(tmp_path, fake.SITE, package, VLLM_ENABLE_PROFILING="1", PROFILEMATE_RUN="1",
                               VLLM_PROFILING_ENABLE_LAYER_TIMING=enabled, **extra)  # fmt: skip
        begin = BEGIN.replace("MODE", str(mode)) + f"PROGRAM = {str(PROGRAM)!r}\n"
        return Run(tmp_path, fake.run(python, ["-c", begin + textwrap.dedent(script)], env, tmp_path))

    return run


def per_pass(passes):
    counts = {("", "norm"): 1, ("", "other"): 1}
    for layer, block in (("0", "mlp"), ("1", "moe")):
        counts |= {(layer, "attention"): 1, (layer, block): 1, (layer, "norm"): 3, (layer, "other"): 1}
    return {key: passes * count for key, count in counts.items()}


@pytest.mark.parametrize("python", fake.PYTHONS)
def test_each_module_is_what_it_is_and_together_they_are_the_pass(run, python):
    done = run(
        """
        for n in range(3):
            assert step() == expected
        assert step(1) == expected
        print(timed())
        step(0)
        """,
        python=fake.PYTHONS[python],
    )
    assert done.output == [str(TIMED)]
    assert done.attributes["layers"] == "modules: 14 of 2 layers"
    assert json.loads((done.session / "metadata.json").read_text())["layers"] == "modules: 14 of 2 layers"
    assert done.counts() == per_pass(4)
    summary = done.summary()
    assert (summary["source"], summary["clock"], summary["passes"], summary["steps_not_seen"]) == ("modules", "host", 4, 0)
    assert sum(float(row["share_pct"]) for row in done.rows()) == pytest.approx(100, abs=0.01 * len(done.rows()))
    newest = {}
    for line in (done.session / "native" / "layer_time.jsonl").read_text().splitlines():
        row = json.loads(line)
        newest[row["layer"], row["kind"], row["phase"]] = row["ns"]
    passes = {}
    for line in (done.session / "native" / "layer_pass.jsonl").read_text().splitlines():
        passes[json.loads(line)["phase"]] = json.loads(line)["ns"]
    for phase, ns in passes.items():  # to the nanosecond: nothing twice, nothing left out
        assert ns == sum(value for (_, _, of), value in newest.items() if of == phase)
    assert sum(phase["passes"] for phase in summary["phases"].values()) == 4
    assert {kind: of["calls"] for kind, of in summary["kinds"].items()} == {
        "attention": 8, "mlp": 4, "moe": 4, "norm": 28, "other": 12,
    }  # fmt: skip
    assert json.loads(done.report("--json"))["engines"][0]["layers"] == summary
    text = done.report("--text")
    assert "Layers, ms per pass of the model (host clock)" in text and "layer 1" in text


def test_a_module_looks_and_copies_as_it_did(run):
    done = run(
        """
        before = inspect.signature(model.forward)
        step()
        forward = model.forward
        assert inspect.signature(forward) == before and forward.__doc__ == "The model." and forward.__name__ == "forward"
        assert forward.__self__ is model and forward.__wrapped__ == type(model).forward.__get__(model)
        other = copy.deepcopy(model)
        assert other.forward.__self__ is other and other(1, scale=2) == expected
        again = pickle.loads(pickle.dumps(model))
        assert again.forward.__self__ is again and again(1, scale=2) == expected
        norm = model._modules["model"]._modules["norm"]
        assert norm.forward(1, scale=5) == 6 and norm.forward(x=1) == 2
        try:
            model.forward(1)
        except TypeError as error:
            print(error)
        step(0)
        """
    )
    assert "scale" in done.output[0]
    assert done.counts() == per_pass(1)  # calls outside of steps are nobody's


def test_what_somebody_hangs_on_a_timed_forward_hangs_on_theirs(run):
    done = run(
        """
        import gc, weakref
        theirs = model._modules["model"]._modules["norm"]
        theirs.forward = lambda x: x + 1
        kept = theirs.forward
        step()
        assert theirs.forward is not kept and repr(kept) in repr(theirs.forward)
        theirs.forward.label = 5
        assert kept.label == 5
        del theirs.forward.label
        assert not hasattr(kept, "label")
        try:
            model.forward.label = 5  # a method takes none, timed or not
        except AttributeError as error:
            print(error)
        for _ in range(99):
            assert step() == expected
        step(0)
        # a model that nobody has any more goes away, with what was put into it
        gone, timer = weakref.ref(model), weakref.ref(model.forward)
        assert gone() is model and timer() is model.forward
        worker.model_runner.model = theirs = kept = None
        del model
        gc.collect()
        print(gone(), timer())
        """
    )
    assert "label" in done.output[0] and done.output[1] == "None None"
    assert done.counts() == per_pass(100)


def test_an_exception_goes_through_and_the_next_pass_is_whole(run):
    done = run(
        """
        step()
        Qwen3MoeDecoderLayer.broken = True
        try:
            step()
        except ValueError as error:
            print(error)
        Qwen3MoeDecoderLayer.broken = False
        assert step() == expected
        step(0)
        """
    )
    assert done.output == ["broken"]
    counts = per_pass(2)
    counts |= {("", "other"): 3, ("0", "other"): 3}
    assert done.counts() == counts and done.summary()["passes"] == 3


def test_a_compiled_model_is_left_alone_and_it_is_said(run):
    done = run("assert step() == expected\nprint(timed())\nstep(0)", mode=3)
    assert done.output == ["[]"] and done.rows() == []
    assert done.attributes["layers"] == "off: the model is compiled"
    assert "--enforce-eager" in done.attributes["note.layer"]
    assert done.summary()["source"] == "none" and done.summary()["hooks"] == "off: the model is compiled"


def test_off_it_is_not_there_and_has_no_files(run):
    done = run("assert step() == expected\nprint(timed())", enabled="0")
    assert done.output == ["[]"] and not list(done.session.glob("layer*")) and "layers" not in done.attributes
    assert json.loads(done.report("--json"))["engines"][0]["layers"] is None


def test_a_replayed_step_and_another_models_steps_are_told_apart(run):
    done = run(
        """
        step()
        worker.calls = False
        step()
        worker.calls = True
        first = worker.model_runner.model
        class CUDAGraphWrapper(Module):
            def forward(self, *args, **kwargs):
                return self.runnable(*args, **kwargs)
        worker.model_runner.model = CUDAGraphWrapper()
        worker.model_runner.model.runnable = make()
        assert step() == expected
        print([name for name, module in first.named_modules() if "forward" in vars(module)])
        step(0)
        """
    )
    assert done.output == ["[]"]
    assert done.counts() == per_pass(2)
    assert done.summary()["steps_not_seen"] == 1
    assert "In 1 steps the model was replayed" in done.report("--text")


def test_calls_of_other_threads_are_not_part_of_the_pass(run):
    done = run(
        """
        def beside(self, x, scale=1):
            thread = threading.Thread(target=lambda: model._modules["model"]._modules["norm"](1))
            thread.start()
            thread.join()
            return x + scale
        Leaf.forward, kept = beside, Leaf.forward
        RMSNorm.forward = RowParallelLinear.forward = kept
        assert step() == expected
        step(0)
        """
    )
    assert done.counts() == per_pass(1)


def test_switched_off_nothing_is_left_and_on_again_it_goes_on(run):
    done = run(
        """
        import os, subprocess, time
        import vllm.v1.engine.core  # what may be controlled

        def switch(value):
            words = [PROGRAM, "set", str(os.getpid()), f"layer={value}", "--wait=180"]
            asked = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            while asked.poll() is None:
                time.sleep(0.01)
            assert asked.returncode == 0, asked.stdout.read()

        theirs = model._modules["model"]._modules["norm"]
        theirs.forward = lambda x: x + 1  # somebody's own, in the instance
        kept = theirs.forward
        step()
        assert len(timed()) == 14 and theirs.forward is not kept
        switch(0)
        print(timed(), theirs.forward is kept)
        assert step() == expected
        switch(1)
        assert step() == expected
        print(len(timed()))
        step(0)
        """
    )
    assert done.output == ["['model.norm'] True", "14"]
    assert done.counts() == per_pass(2)


@pytest.mark.parametrize("broken", [
    "worker.model_runner = None", "worker.model_runner.model = object()", "worker.model_runner.model.named_modules = lambda: 1 / 0",
    "worker.model_runner.model.named_modules = lambda: iter([3, (), ('a',), (None, None), ('x', 1)])", "Module._modules = 3",
])  # fmt: skip
def test_where_nothing_can_be_looked_at_nothing_is_disturbed(run, broken):
    done = run(f"{broken}\nworker.calls = False\nstep()\nstep(0)\nprint('on')")
    assert done.output == ["on"]
