"""Lets vLLM's newer model runner start on the CPU, with Triton's interpreter.

Used with TRITON_INTERPRET=1 and VLLM_USE_V2_MODEL_RUNNER=1 and this folder on PYTHONPATH, behind the profiler's: a
sitecustomize that ours shadows still runs. vLLM refuses that runner unless Triton lists a backend named "cpu"; the
interpreter needs none, so an entry that is never active is enough.
"""

import os

if os.environ.get("TRITON_INTERPRET") == "1":
    import triton.backends

    class NeverActive:
        @staticmethod
        def is_active():
            return False

    triton.backends.backends["cpu"] = triton.backends.Backend(compiler=None, driver=NeverActive)
