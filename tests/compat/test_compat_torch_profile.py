"""What `run --torch-profile` and src/probe/torch_profiler.c ask of vLLM, held against the sources of all releases: each has
either the variables or the profiler configuration, and the server's endpoints depend on what we set."""

import pathlib
import re

SOURCE = pathlib.Path(__file__).resolve().parents[2] / "src/probe/torch_profiler.c"
ROWS = re.findall(r'\{"(VLLM_\w+)",\s*"(\w+)",\s*(?:SWITCH|COUNT)\}', SOURCE.read_text())
ENDPOINTS = ("/start_profile", "/stop_profile")


def text(release, path):
    return release.archive.read(path).decode() if path in release.names else ""


def test_the_rows_are_read():
    assert len(ROWS) == 9 and ("VLLM_PROFILER_MAX_ITERS", "max_iterations") in ROWS


def test_each_release_takes_one_or_the_other(release):
    known = [name for name, _ in ROWS if f'"{name}"' in text(release, "vllm/envs.py")]
    config = text(release, "vllm/config/profiler.py")
    fields = [field for _, field in ROWS if re.search(rf"^    {field}:", config, re.M)]
    reads_variables = '"VLLM_TORCH_PROFILER_DIR"' in text(release, "vllm/envs.py")
    assert reads_variables == (release.number < (0, 16, 0))
    assert bool(config) == (release.number >= (0, 13, 0))
    if reads_variables:
        assert len(known) >= 4 and (release.number < (0, 12, 0) or len(known) == len(ROWS))
    else:
        assert known == [] and len(fields) == len(ROWS), "each variable has its field"
        assert "ProfilerConfig" in text(release, "vllm/config/__init__.py")
        assert "profiler_config:" in text(release, "vllm/engine/arg_utils.py")


def test_the_endpoints_depend_on_it(release):
    found = [name for name in release.names if all(end in text(release, name) for end in ENDPOINTS)
             and name.startswith("vllm/entrypoints/")]  # fmt: skip
    assert found, "no endpoints"
    gate = "envs.VLLM_TORCH_PROFILER_DIR" if release.number < (0, 13, 0) else "profiler_config.profiler is not None"
    assert any(gate in text(release, name) for name in found)


def test_names_end_a_bare_vllm(release):
    """Why src/hook/guide.c moves them: int() of the value, in every release."""
    envs = text(release, "vllm/envs.py")
    for name in ("VLLM_TRACE_FUNCTION", "VLLM_NVTX_SCOPES_FOR_PROFILING", "VLLM_CUSTOM_SCOPES_FOR_PROFILING"):
        assert re.search(rf'int\(\s*os\.getenv\("{name}", "0"\)\s*\)', envs), name
