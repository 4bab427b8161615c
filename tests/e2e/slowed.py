"""offline.py with delays inside of vLLM: what a regression in sampling or scheduling would be.

  slowed.py '{"sample": 0.02, "schedule": 0.01}' SPECIFICATION

Seconds by part. vLLM's own functions are wrapped inside those that the profiler times, so that it sees them as slow.
"""

from __future__ import annotations

import json
import runpy
import sys
import time
from pathlib import Path


def delay(owner: type, name: str, seconds: float) -> None:
    original = getattr(owner, name)

    def slowed(self, *args, **kwargs):
        time.sleep(seconds)
        return original(self, *args, **kwargs)

    setattr(owner, name, slowed)


if __name__ == "__main__":
    delays = json.loads(sys.argv.pop(1))
    if "sample" in delays:
        from vllm.v1.worker.gpu_model_runner import GPUModelRunner

        delay(GPUModelRunner, "_sample", delays["sample"])
    if "schedule" in delays:
        from vllm.v1.core.sched.scheduler import Scheduler

        delay(Scheduler, "_update_after_schedule", delays["schedule"])
    runpy.run_path(str(Path(__file__).with_name("offline.py")), run_name="__main__")
