"""Runs another vLLM, or another CPython, for real, with the full preset of one build, and checks what holds everywhere.

    python tests/e2e/really_run.py VENV/bin/python [NAME=VALUE…] [--write]

NAME=VALUE: environment that this vLLM needs to start. --write puts what was seen into tests/compat/really_run.json, of
which tests/compat/table.py makes a table. By hand: each needs an environment of some GB (docs/compatibility.md says
what is in it). The script that is run twice, without and with the profiler, is CHILD: an LLM() with its engine core in a
process of its own, greedy answers, preemptions on purpose, vLLM's own counters. Exit code 1 when a check fails.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import results
import serving
from patience import until

RECORD = HERE.parent / "compat" / "really_run.json"
MODEL = serving.ROOT / "build" / "models" / "llama"

CHILD = """
import json, sys, platform, threading
if __name__ == "__main__":
    import torch, vllm
    from vllm import LLM, SamplingParams
    spec = json.loads(sys.argv[1])
    llm = LLM(model=spec["model"], dtype="float32", max_model_len=256, enforce_eager=True, seed=7, block_size=32,
              num_gpu_blocks_override=14, max_num_seqs=8, max_num_batched_tokens=256, gpu_memory_utilization=0.2,
              disable_log_stats=False)
    tokens = []
    for batch in spec["batches"]:
        out = llm.generate([{"prompt_token_ids": each["prompt"]} for each in batch],
                           [SamplingParams(temperature=0, ignore_eos=True, max_tokens=each["max_tokens"]) for each in batch],
                           use_tqdm=False)
        tokens.append([list(each.outputs[0].token_ids) for each in out])
    metrics = {}
    for metric in llm.get_metrics():
        if hasattr(metric, "value"):
            metrics[metric.name] = metrics.get(metric.name, 0) + metric.value
    # Ended here, not by the interpreter's end: vLLM before 0.18 tells of an ended engine core, if its thread gets to it in time.
    llm.llm_engine.engine_core.shutdown()
    for thread in threading.enumerate():
        if thread.name == "MPClientEngineMonitor":
            thread.join(120)
    print("RESULT " + json.dumps({"tokens": tokens, "metrics": metrics, "vllm": vllm.__version__.split("+")[0],
          "torch": torch.__version__, "python": platform.python_version()}), flush=True)
"""


def batches() -> list[list[dict]]:
    """Short ones first; then eight at once, which a cache of 13 blocks of 32 does not hold."""
    short = [{"prompt": [5 + i, 9, 11 + i] * (4 + i), "max_tokens": 10 + i} for i in range(6)]
    return [[each] for each in short] + [[{"prompt": [20 + i] * 30, "max_tokens": 60} for i in range(8)]]


def run(python: str, environment: dict[str, str], folder: Path) -> tuple[dict, str]:
    script = folder / "child.py"
    script.write_text(CHILD)
    words = (python, str(script), json.dumps({"model": str(MODEL), "batches": batches()}))
    with (folder / "log").open("w+") as log:
        popen = subprocess.Popen(
            words, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=folder
        )
        try:
            popen.wait(900)
        finally:
            serving.kill_session(popen.pid)
        log.seek(0)
        text = log.read()
    found = [line for line in text.splitlines() if line.startswith("RESULT ")]
    if popen.returncode != 0 or not found:
        sys.exit(f"it ended with {popen.returncode}:\n{text[-6000:]}")
    return json.loads(found[-1].removeprefix("RESULT ")), text


def check(python: str, extra: dict[str, str], folder: Path) -> dict:
    environment = serving.clean_environment(**extra)
    environment["PATH"] = f"{Path(python).parent}{os.pathsep}{environment['PATH']}"
    plain, plain_log = run(python, environment, folder)
    sessions = folder / "sessions"
    profiled = {**environment, **serving.profiled(sessions, preset="full")}
    ours, log = run(python, profiled, folder)
    session = results.only_session(sessions)
    until((session / "forward_pass_timing.csv").exists)
    until((session / "metadata.json").exists)

    failed = []

    def holds(what: bool, name: str) -> None:
        if not what:
            failed.append(name)

    steps = [step for step in results.native(session, "steps") if step["tokens"]]
    rows = results.read_csv(session / "forward_pass_timing.csv")
    requests = results.native(session, "requests")
    metrics = {name: int(value) for name, value in ours["metrics"].items()}
    wanted = sum(len(batch) for batch in batches())
    generated = sum(each["max_tokens"] for batch in batches() for each in batch)
    holds(ours["tokens"][:-1] == plain["tokens"][:-1], "the answers are the same")
    holds([len(row) for row in ours["tokens"][-1]] == [len(row) for row in plain["tokens"][-1]], "and as long")
    new = results.warnings_in(log) - results.warnings_in(plain_log)
    holds(not new, f"no warning is new: {sorted(new)}")
    holds(len(steps) > 60 and all(step["matched"] for step in steps), "every step has both halves")
    holds([int(row["num_tokens"]) for row in rows] == [step["tokens"] for step in steps], "the rows are the steps")
    holds(all(float(row["forward_time_ms"]) > 0 for row in rows), "forward times")
    shown = json.loads(results.profilemate("top", "--once", "--json", session).stdout)["sessions"][0]
    total = shown["engines"][0]["total"]
    holds(total["output_tokens"] == metrics["vllm:generation_tokens"] == generated, "output tokens are vLLM's")
    holds(total["prompt_tokens"] == metrics["vllm:prompt_tokens"], "prompt tokens are vLLM's")
    holds(total["preemptions"] == metrics["vllm:num_preemptions"] > 0, "preemptions are vLLM's")
    holds(len(requests) == wanted and all(row["reason"] == "length" for row in requests), "every request has its life")
    filled = {
        name: len(results.read_csv(session / name)) for name in results.FILES if (session / name).exists()
    }  # fmt: skip
    expected = ("forward_pass_timing.csv", "cpu_operations_timing.csv", "batch_utilization.csv", "preemption_events.csv",
                "request_lifecycle.csv", "kv_cache_usage.csv")  # fmt: skip
    for name in expected:
        holds(filled.get(name, 0) > 0, f"{name} has rows")
    attributes = json.loads((session / "metadata.json").read_text())
    holds("disarmed" not in json.dumps(attributes), "no probe disarmed itself")
    doctor = results.profilemate("doctor", session, check=False)
    holds(doctor.returncode in (0, 1), "doctor reads it")
    found = results.profilemate("doctor", "--python", python, "--json", check=False)
    for name in failed:
        print(f"FAILED: {name}")
    if failed:
        print(doctor.stdout, found.stdout[-1500:], log[-3000:], sep="\n")
    binary = serving.BUILD / "site" / "sitecustomize.abi3.so"
    return {
        "vllm": ours["vllm"], "python": ours["python"], "torch": ours["torch"], "steps": len(steps),
        "preemptions": total["preemptions"], "requests": len(requests), "files": sum(rows > 0 for rows in filled.values()),
        "extension": hashlib.sha256(binary.read_bytes()).hexdigest()[:12], "good": not failed, "failed": failed,
    }  # fmt: skip


def main() -> int:
    words = [word for word in sys.argv[1:] if word != "--write"]
    if not words:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory(prefix="profilemate-version-") as folder:
        seen = check(words[0], dict(word.split("=", 1) for word in words[1:]), Path(folder))
    print(json.dumps(seen))
    if "--write" in sys.argv and seen["good"]:
        kept = json.loads(RECORD.read_text()) if RECORD.exists() else []
        kept = [row for row in kept if (row["vllm"], row["python"]) != (seen["vllm"], seen["python"])]
        kept.append({key: value for key, value in seen.items() if key not in ("good", "failed")})
        kept.sort(key=lambda row: ([int(part) for part in row["vllm"].split(".")], row["python"]))
        RECORD.write_text(json.dumps(kept, indent=1) + "\n")
    return 0 if seen["good"] else 1


if __name__ == "__main__":
    sys.exit(main())
