"""The variables of vLLM's profiling guide: what vLLM cannot parse is taken out of its sight, what it no longer knows is
done in its place."""

import json
import textwrap

import pytest

import fake

# What vllm/envs.py does with them in every release.
READ = textwrap.dedent("""
    import json, os
    print(json.dumps({
        "trace": int(os.getenv("VLLM_TRACE_FUNCTION", "0")),
        "nvtx": bool(int(os.getenv("VLLM_NVTX_SCOPES_FOR_PROFILING", "0"))),
        "custom": bool(int(os.getenv("VLLM_CUSTOM_SCOPES_FOR_PROFILING", "0"))),
        "kineto": os.getenv("KINETO_LOG_LEVEL"),
        "ours": {name: value for name, value in os.environ.items() if name.startswith("VLLM_PROFILING_")},
    }))
""")
VARIABLES = ("VLLM_TRACE_FUNCTION", "VLLM_NVTX_SCOPES_FOR_PROFILING", "VLLM_CUSTOM_SCOPES_FOR_PROFILING")

CONFIG = """
    from dataclasses import dataclass

    @dataclass
    class ProfilerConfig:
        profiler: str = None
        torch_profiler_dir: str = ""
        torch_profiler_with_stack: bool = True
        torch_profiler_with_flops: bool = False
        torch_profiler_record_shapes: bool = False
        torch_profiler_with_memory: bool = False
        ignore_frontend: bool = False
        max_iterations: int = 0

        def __post_init__(self):
            if self.profiler == "torch" and not self.torch_profiler_dir.startswith("/"):
                raise ValueError("no directory")
    """
ARGUMENTS = """
    from types import SimpleNamespace as N
    from vllm import envs, config
    from vllm.platforms.interface import CpuPlatform

    class EngineArgs:
        profiler_config = None

        @classmethod
        def from_cli_args(cls, args):
            self = cls()
            self.profiler_config = args.profiler_config
            return self

        def create_engine_config(self):
            self.unknown = CpuPlatform.validate_environ(False)
            return N(profiler_config=self.profiler_config)
    """
TORCH = {
    "VLLM_TORCH_PROFILER_DIR": "/tmp/traces of mine",
    "VLLM_TORCH_PROFILER_RECORD_SHAPES": "1",
    "VLLM_TORCH_PROFILER_WITH_STACK": "0",
    "VLLM_TORCH_PROFILER_WITH_FLOPS": "false",
    "VLLM_PROFILER_MAX_ITERS": "12",
    "VLLM_TORCH_PROFILER_USE_GZIP": "1",
}
SERVE = """
from types import SimpleNamespace as N
from vllm import config
from vllm.engine.arg_utils import EngineArgs
args = N(profiler_config={present})
made = EngineArgs.from_cli_args(args)
made.create_engine_config()
print(args.profiler_config, made.unknown)
"""


@pytest.fixture(params=fake.PYTHONS)
def python(request):
    return fake.PYTHONS[request.param]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    files = {**fake.FILES, "vllm/config.py": CONFIG, "vllm/engine/arg_utils.py": ARGUMENTS}
    return fake.write(tmp_path_factory.mktemp("package"), files)


@pytest.fixture(scope="module")
def old_package(tmp_path_factory):
    """A vLLM that knows the variables itself."""
    known = 'environment_variables = {name: None for name in %r}' % [*TORCH, "VLLM_ENABLE_PROFILING"]
    files = {**fake.FILES, "vllm/config.py": CONFIG, "vllm/engine/arg_utils.py": ARGUMENTS, "vllm/envs.py": known}
    return fake.write(tmp_path_factory.mktemp("old"), files)


def run(python, base, script, package, **extra):
    env = fake.environment(base, fake.SITE, package, **{"VLLM_ENABLE_PROFILING": "1", **extra})
    return fake.run(python, ["-c", script], env, base)


@pytest.mark.parametrize("value", ["all", "custom", "vllm.v1.core,my.module:function", "model_forward,attention", " ", "1.5", "__1"])
def test_what_is_no_number_becomes_a_setting(python, package, tmp_path, value):
    seen = json.loads(run(python, tmp_path, READ, package, **dict.fromkeys(VARIABLES, value)).stdout)
    assert (seen["trace"], seen["nvtx"], seen["custom"]) == (0, False, False)
    for name in ("TRACE_FUNCTION", "NVTX_SCOPES", "CUSTOM_SCOPES"):
        assert seen["ours"].get("VLLM_PROFILING_" + name) == (value if value.strip() else None)


@pytest.mark.parametrize("value", ["0", "1", " 1 ", "+1", "1_0"])
def test_a_number_is_left_to_vllm(python, package, tmp_path, value):
    seen = json.loads(run(python, tmp_path, READ, package, **dict.fromkeys(VARIABLES, value)).stdout)
    assert seen["trace"] == int(value) and seen["nvtx"] == seen["custom"] == bool(int(value))
    assert not any(name.endswith(("TRACE_FUNCTION", "SCOPES")) for name in seen["ours"])


def test_a_setting_that_is_given_wins(python, package, tmp_path):
    seen = json.loads(run(python, tmp_path, READ, package, VLLM_TRACE_FUNCTION="all",
                          VLLM_PROFILING_TRACE_FUNCTION="mine").stdout)  # fmt: skip
    assert seen["ours"]["VLLM_PROFILING_TRACE_FUNCTION"] == "mine" and seen["trace"] == 0


def test_switched_off_nothing_is_touched(python, package, tmp_path):
    done = run(python, tmp_path, "import os; print(os.environ['VLLM_TRACE_FUNCTION'], os.environ['KINETO_LOG_LEVEL'])",
               package, VLLM_ENABLE_PROFILING="0", VLLM_TRACE_FUNCTION="all", KINETO_LOG_LEVEL="WARNING")  # fmt: skip
    assert done.stdout.split() == ["all", "WARNING"]


@pytest.mark.parametrize(("word", "number"), [("INFO", "1"), ("WARNING", "2"), ("error", "4"), ("3", "3"), ("x", "x")])
def test_words_of_kinetos_log_level(python, package, tmp_path, word, number):
    assert json.loads(run(python, tmp_path, READ, package, KINETO_LOG_LEVEL=word).stdout)["kineto"] == number


def test_a_vllm_without_the_variables_gets_the_configuration(python, package, tmp_path):
    shown = run(python, tmp_path, SERVE.format(present=None), package, **TORCH).stdout
    assert "profiler='torch', torch_profiler_dir='/tmp/traces of mine'" in shown
    for part in ("with_stack=False", "with_flops=False", "record_shapes=True", "max_iterations=12"):
        assert part in shown
    assert shown.rstrip().endswith("[]"), "none of the variables is unknown to it"


def test_an_empty_configuration_counts_as_none_and_another_is_kept(python, package, tmp_path):
    shown = run(python, tmp_path, SERVE.format(present="config.ProfilerConfig()"), package, **TORCH).stdout
    assert "/tmp/traces of mine" in shown
    mine = "config.ProfilerConfig(profiler='torch', torch_profiler_dir='/mine')"
    assert "torch_profiler_dir='/mine'" in run(python, tmp_path, SERVE.format(present=mine), package, **TORCH).stdout


def test_an_llm_of_ones_own_gets_it_too(python, package, tmp_path):
    shown = run(python, tmp_path, "from vllm.engine.arg_utils import EngineArgs\n"
                "print(EngineArgs().create_engine_config().profiler_config)", package, **TORCH).stdout  # fmt: skip
    assert "torch_profiler_dir='/tmp/traces of mine'" in shown


def test_a_vllm_that_reads_the_variables_is_left_alone(python, old_package, tmp_path):
    assert run(python, tmp_path, SERVE.format(present=None), old_package, **TORCH).stdout.startswith("None ")


def test_without_a_directory_nothing_happens(python, package, tmp_path):
    assert run(python, tmp_path, SERVE.format(present=None), package).stdout.startswith("None ")


def test_what_vllm_refuses_does_not_end_it(python, package, tmp_path):
    shown = run(python, tmp_path, SERVE.format(present=None), package, VLLM_TORCH_PROFILER_DIR="relative")
    assert shown.stdout.startswith("None ")
