"""docs/compatibility.md: what each vLLM release has of what the probes ask for. `python3 tests/compat/table.py --write`."""

import json
import pathlib
import re
import sys

import hooks
import releases

DOCUMENT = pathlib.Path(__file__).resolve().parents[2] / "docs" / "compatibility.md"
REALLY_RUN = pathlib.Path(__file__).with_name("really_run.json")

HEAD = """# vLLM releases and what ProfileMate finds in them

Made by `python3 tests/compat/table.py --write` from the released sources, which `tests/compat` reads at every run of `./test`: every hook of
every probe, the arguments that hooks look at, and every attribute that a probe reads. A release that moves one of them turns the test red with
its name. `profilemate doctor` says the same of the vLLM that is installed, and which hooks fired.

No release has all hooks: many stand for each other, as vLLM moved what they watch. Forward passes, batches, host operations, requests, preemptions,
the KV cache, CUDA graphs and the front end are there in all of them; the columns say what came later.

"""

RUN = """
## Really run

What `python tests/e2e/really_run.py` saw: each of these served a tiny model on the CPU twice, without and with the full preset, in an environment of
its own. With the profiler the greedy answers were the same and no warning was new; every step had its scheduler's and its worker's half; prompt tokens,
output tokens and preemptions were vLLM's own counts; every request had its life; `forward_pass_timing.csv`, `cpu_operations_timing.csv`,
`batch_utilization.csv`, `preemption_events.csv`, `request_lifecycle.csv` and `kv_cache_usage.csv` had rows; no probe disarmed itself.
(`./test` runs far more than that, on the vLLM of `scripts/setup-vllm`.)

"""
RUN_END = """
Where torch is a build for CUDA (`+cu…`), pip's index had no other of that release and CPython: it was installed with `--no-deps`, beside stand-ins for the
CUDA libraries that it links to, each of whose functions answers that there is no device; vLLM's CPU path calls none of them.
"""

# What a release offers, by the hook that it takes (a part of its name).
FEATURES = {
    "preemptions with their blocks": "Scheduler._preempt_request",
    "newer model runner": "CudaGraphManager.capture",
    "cross-attention": "CrossAttention.__init__",
    "streaming sessions": "Scheduler._update_request_as_session",
    "experts": "BaseRouter.set_capture_fn",
    "prefix hits by vLLM's own count": "KVCacheManager.record_prefix_cache_stats",
}


def rows():
    seen = {}
    for hook in hooks.hooks():
        if hook.module.startswith("vllm.") and hook.kind != "MODULE":
            seen.setdefault((hook.module, hook.qualname), []).append(hook)
    return seen


def versions_in(text):
    return re.findall(r"^\| (\d+\.\d+\.\d+) \|", text, re.M) or ["0.32.0"]


def really_run():
    """The section on what was run for real, of what really_run.py left."""
    found = json.loads(REALLY_RUN.read_text()) if REALLY_RUN.exists() else []
    if not found:
        return ""
    lines = ["| release | CPython | torch | steps | requests | preemptions | files with rows |\n", "| --- " * 7 + "|\n"]
    lines += [
        f"| vLLM {row['vllm']} | {row['python']} | {row['torch']} | {row['steps']} | {row['requests']} | {row['preemptions']} | {row['files']} |\n"
        for row in found
    ]
    one = len({row["extension"] for row in found}) == 1
    lines.append("\nOne file, `sitecustomize.abi3.so` of one build, was loaded by all of them.\n" if one else "")
    return RUN + "".join(lines) + RUN_END


def document(versions):
    everything = rows()
    lines = [HEAD, "## Releases\n\n| vLLM | hooks | " + " | ".join(FEATURES) + " |\n", "| --- " * (2 + len(FEATURES)) + "|\n"]
    for version in versions:
        number = releases.number(version)
        having = [name for (_, name), found in everything.items() if hooks.within(found[0].versions, number)]
        marks = ["yes" if hook in having else "–" for hook in FEATURES.values()]
        lines.append(f"| {version} | {len(having)} of {len(everything)} | {' | '.join(marks)} |\n")
    lines.append(really_run())
    lines.append("\n## Hooks\n\n| probe | hook | module | releases |\n| --- | --- | --- | --- |\n")
    for (module, name), found in sorted(everything.items(), key=lambda item: (item[1][0].probe, item[0])):
        probes = ", ".join(sorted({hook.probe for hook in found}))
        needed = "" if found[0].optional else ", all"
        lines.append(f"| {probes} | `{name}` | `{module}` | {found[0].versions}{needed} |\n")
    return "".join(lines)


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python3 tests/compat/table.py --write")
    DOCUMENT.write_text(document(releases.released()))
