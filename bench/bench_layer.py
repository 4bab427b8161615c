"""What the timers of layers cost per module, on, off and switched off: a made-up model of 32 layers, in turns in processes of their own.

Needs nothing but the extension ($PM_BUILD, else build/release): the modules are those of tests/ext/test_layer.py, whose work is
next to nothing, so that a step is the calls alone. Processor time, the least of five turns.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "ext"))
import fake  # noqa: E402
import test_layer  # noqa: E402

TURNS = 5
WORK = """
import json, time
layers = ModuleList([layer(LlamaMLP(down=RowParallelLinear())) for _ in range(32)])
worker.model_runner.model = Qwen3MoeForCausalLM(model=Qwen3MoeModel(embed_tokens=Leaf(), layers=layers, norm=RMSNorm()))
for _ in range(50):
    step()
steps, began = STEPS, time.thread_time_ns()
for _ in range(steps):
    step()
print(json.dumps({"ns": (time.thread_time_ns() - began) / steps, "timers": len(timed())}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="?", type=int, default=400, help="of each turn (400)")
    steps = str(parser.parse_args().steps)
    found = {"0": [], "1": []}
    with tempfile.TemporaryDirectory() as base:
        package = fake.write(Path(base) / "package", test_layer.FILES)
        for turn in range(2 * TURNS):
            on = str(turn % 2)
            env = fake.environment(Path(base), fake.SITE, package, VLLM_ENABLE_PROFILING="1", PROFILEMATE_RUN="1",
                                   VLLM_PROFILING_ENABLE_LAYER_TIMING=on)  # fmt: skip
            script = test_layer.BEGIN.replace("MODE", "0") + WORK.replace("STEPS", steps)
            found[on].append(json.loads(fake.run(fake.PYTHON, ["-c", script], env, Path(base)).stdout))
    off, on = (min(run["ns"] for run in found[key]) for key in "01")
    timers = found["1"][0]["timers"]
    print(f"off {off / 1000:9.1f} µs a step   ({found['0'][0]['timers']} timers)")
    print(f"on  {on / 1000:9.1f} µs a step   ({timers} timers): {(on - off) / timers:.0f} ns a module")


if __name__ == "__main__":
    main()
