"""How many requests run and wait: as vLLM's get_request_counts says, of every version, and learnt once where that can be."""

import json
import subprocess
import textwrap

import fake
import pytest

FILES = {
    "vllm/__init__.py": "",
    "vllm/v1/core/sched/scheduler.py": """
        from collections import deque
        from types import SimpleNamespace as N

        class FCFSRequestQueue(deque):
            def __len__(self):
                asked.append("queue")
                return super().__len__()

        class PriorityRequestQueue:
            def __init__(self, items):
                self._heap = list(items)
            def __len__(self):
                asked.append("heap")
                return len(self._heap)

        asked = []

        class Scheduler:
            def __init__(self):
                self.requests, self.running, self.waiting = {}, [], FCFSRequestQueue()
                self.skipped_waiting, self.kv_holding_waiting = FCFSRequestQueue(), FCFSRequestQueue()

            def schedule(self):
                del asked[:]
                return N(num_scheduled_tokens={}, scheduled_spec_decode_tokens={}, finished_req_ids=set(), total_num_scheduled_tokens=0)

            FORMULA
        """,
}
FORMULAS = {
    "0.11.0": ("len(self.running), len(self.waiting)", (3, 5), []),
    "0.18.0": ("len(self.running), len(self.waiting) + len(self.skipped_waiting)", (3, 12), []),
    "0.31.0": ("len(self.running), len(self.waiting) + len(self.kv_holding_waiting)", (3, 16), []),
    "all three": ("len(self.running), len(self.waiting) + len(self.skipped_waiting) + len(self.kv_holding_waiting)", (3, 23), []),
    # what the stand-in does not tell is asked each time
    "odd": ("len(self.running) + len(self.waiting), len(self.waiting)", (8, 5), ["method", "queue", "queue"]),
    "twice": ("len(self.running), 2 * len(self.waiting)", (3, 10), ["method", "queue"]),
    "of itself": ("len(self.running), self.own()", (3, 7), ["method"]),
    "raises": ("1 // 0, 0", (3, 5), ["method", "queue"]),
    "no tuple": ("[len(self.running), 4]", (3, 5), ["method", "queue"]),
}
SCRIPT = """
from vllm.v1.core.sched import scheduler as module
one = module.Scheduler()
one.running += [1, 2, 3]
one.waiting.extend(range(5))
one.skipped_waiting.extend(range(7))
one.kv_holding_waiting.extend(range(11))
for _ in range(3):
    one.schedule()
import json
print(json.dumps(module.asked))
"""


PROGRAM = fake.BUILD / "bin" / "profilemate"


def native(session):
    done = subprocess.run([PROGRAM, "export", "--quiet", "--format", "json", session], capture_output=True, text=True, check=True)
    return [row for row in map(json.loads, done.stdout.splitlines()) if row["table"] == "steps"]


@pytest.fixture
def run(tmp_path):
    def run(formula, script=SCRIPT, python=fake.PYTHON):
        method = f"def get_request_counts(self):\n    asked.append('method')\n    return {formula}\ndef own(self):\n    return 7\n"
        text = textwrap.dedent(FILES["vllm/v1/core/sched/scheduler.py"]).replace("    FORMULA", textwrap.indent(method, "    "))
        package = fake.write(tmp_path / "package", {**FILES, "vllm/v1/core/sched/scheduler.py": text})
        env = fake.environment(tmp_path, fake.SITE, package, VLLM_ENABLE_PROFILING="1", PROFILEMATE_RUN="1")
        done = fake.run(python, ["-c", textwrap.dedent(script)], env, tmp_path)
        (session,) = fake.sessions(tmp_path)
        steps = [(row["running"], row["waiting"]) for row in native(session)]
        return json.loads(done.stdout.strip().splitlines()[-1]), steps

    return run


@pytest.mark.parametrize("name", FORMULAS)
def test_counts_are_those_that_vllm_says(run, name):
    formula, counts, asked = FORMULAS[name]
    assert run(formula) == (asked, [counts] * 3), "what was called in the last step, and what was recorded of each"


@pytest.mark.parametrize("version", fake.PYTHONS)
def test_each_interpreter(run, version):
    formula, counts, asked = FORMULAS["0.31.0"]
    assert run(formula, python=fake.PYTHONS[version]) == (asked, [counts] * 3)


def test_a_queue_of_another_kind_is_asked_for_its_length(run):
    script = SCRIPT.replace("one.waiting.extend(range(5))", "one.waiting = module.PriorityRequestQueue(range(4))")
    assert run(FORMULAS["0.11.0"][0], script) == (["heap"], [(3, 4)] * 3)
