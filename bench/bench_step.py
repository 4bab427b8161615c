"""What one engine step costs by the default step probes, against the same facts collected in plain Python.

    PYTHONPATH=build/release/site python bench/bench_step.py [--rounds N]

Runs without vLLM: a package named vllm is made on the spot whose Scheduler and Worker have the attributes that the
probes read. Each figure is the hooked call minus the bare one (`__wrapped__`) of the same process, interleaved, the
median over rounds. Cold: the caches are swept between calls, as a model's step does to them.
"""

import argparse
import importlib
import os
import statistics
import sys
import tempfile
import time

SCHEDULER = '''
class Request:
    def __init__(self, name, prompt):
        self.request_id, self.num_prompt_tokens = name, prompt
        self.num_computed_tokens = self.num_tokens = prompt

class Output:
    pass

class Holder:
    def __init__(self, **has):
        self.__dict__.update(has)

class Scheduler:
    def __init__(self):
        queue = Holder(num_free_blocks=500)
        pool = Holder(free_block_queue=queue, num_gpu_blocks=1000, enable_caching=True)
        self.kv_cache_manager = Holder(block_pool=pool)
        self.requests, self.running, self.waiting = {}, [], []
        self.output = None
    def get_request_counts(self):
        return len(self.running), len(self.waiting)
    def schedule(self):
        return self.output
    def update_from_output(self, scheduler_output, model_runner_output):
        return {}
'''
WORKER = '''
class Worker:
    def __init__(self):
        pass
    def compile_or_warm_up_model(self):
        pass
    def execute_model(self, scheduler_output):
        return RUNNER._model_forward()
    def sample_tokens(self, grammar_output):
        return RESULT
'''
RUNNER = '''
class GPUModelRunner:
    def _model_forward(self):
        return None
    def _bookkeeping_sync(self):
        return None
'''


def make_vllm(folder):
    files = {
        "vllm/v1/core/sched/scheduler.py": SCHEDULER,
        "vllm/v1/worker/gpu_worker.py": WORKER,
        "vllm/v1/worker/gpu_model_runner.py": RUNNER,
    }
    for name, text in files.items():
        path = os.path.join(folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)
    for root, _, _ in os.walk(os.path.join(folder, "vllm")):
        open(os.path.join(root, "__init__.py"), "a").close()


class PlainPython:
    """The same facts as sched_step, by an ordinary wrapper."""

    def __init__(self):
        self.rows, self.last = [], set()

    def schedule(self, scheduler, bare):
        start = time.perf_counter_ns()
        output = bare(scheduler)
        end = time.perf_counter_ns()
        prefill = decode = 0
        for name, n in output.num_scheduled_tokens.items():
            request = scheduler.requests[name]
            if request.num_computed_tokens - n < request.num_prompt_tokens:
                prefill += n
            else:
                decode += n
        members = set(output.num_scheduled_tokens)
        joined, left = len(members - self.last), len(self.last - members)
        self.last = members
        running, waiting = scheduler.get_request_counts()
        self.rows.append(
            (start, end - start, len(members), output.total_num_scheduled_tokens, prefill, decode, joined, left, running, waiting)
        )
        return output


def timed(call, argument, sweep):
    if sweep is not None:
        sweep()
    start = time.perf_counter_ns()
    call(argument)
    return time.perf_counter_ns() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2000)
    arguments = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="bench_step_")
    if os.environ.get("VLLM_ENABLE_PROFILING") != "1":
        os.environ.update(VLLM_ENABLE_PROFILING="1", VLLM_PROFILING_DIR=os.path.join(folder, "sessions"))
        os.execv(sys.executable, [sys.executable, *sys.argv])
    make_vllm(folder)
    sys.path.insert(0, folder)
    scheduler_module = importlib.import_module("vllm.v1.core.sched.scheduler")
    worker_module = importlib.import_module("vllm.v1.worker.gpu_worker")
    runner_module = importlib.import_module("vllm.v1.worker.gpu_model_runner")
    Scheduler, Worker = scheduler_module.Scheduler, worker_module.Worker
    if not hasattr(Scheduler.schedule, "__wrapped__"):
        sys.exit("bench_step: the extension is not loaded: put build/release/site on PYTHONPATH")
    worker_module.RUNNER, worker_module.RESULT = runner_module.GPUModelRunner(), object()
    bare_schedule = Scheduler.schedule.__wrapped__
    bare_update = Scheduler.update_from_output.__wrapped__
    bare_execute, bare_sample = Worker.execute_model.__wrapped__, Worker.sample_tokens.__wrapped__
    junk = bytearray(8 << 20)

    def sweep():
        junk[::64] = bytes(len(junk) // 64)

    print(f"{'requests':>8} {'caches':>6} {'schedule':>10} {'update':>8} {'worker':>8} {'sum':>8} {'plain Python':>13} {'ratio':>6}   us per step")
    for n in (1, 32, 256):
        scheduler, worker = Scheduler(), Worker()
        worker.compile_or_warm_up_model()
        for i in range(n):
            request = scheduler_module.Request(f"request-{i}", 100)
            scheduler.requests[request.request_id] = request
            scheduler.running.append(request)
        outputs = []
        for _ in range(64):
            output = scheduler_module.Output()
            output.num_scheduled_tokens = dict.fromkeys(scheduler.requests, 1)
            output.total_num_scheduled_tokens = n
            output.scheduled_spec_decode_tokens, output.finished_req_ids = {}, set()
            output.scheduled_new_reqs = []
            outputs.append(output)
        for request in scheduler.requests.values():
            request.num_computed_tokens = 150
            request.num_tokens = 150
        sampled = scheduler_module.Holder(sampled_token_ids=[[7] for _ in range(n)])
        plain = PlainPython()

        def hooked_update(output):
            Scheduler.update_from_output(scheduler, output, sampled)

        def unhooked_update(output):
            bare_update(scheduler, output, sampled)

        def hooked_worker(output):
            worker.execute_model(output)
            worker.sample_tokens(None)

        def bare_worker(output):
            bare_execute(worker, output)
            bare_sample(worker, None)

        for caches, sweeper in (("hot", None), ("cold", sweep)):
            rounds = arguments.rounds if sweeper is None else max(50, arguments.rounds // 20)
            taken = {name: [] for name in ("schedule", "bare schedule", "update", "bare update", "worker", "bare worker", "plain")}
            for i in range(rounds):
                scheduler.output = outputs[i % 64]
                taken["schedule"].append(timed(Scheduler.schedule, scheduler, sweeper))
                taken["bare schedule"].append(timed(bare_schedule, scheduler, sweeper))
                taken["update"].append(timed(hooked_update, scheduler.output, sweeper))
                taken["bare update"].append(timed(unhooked_update, scheduler.output, sweeper))
                taken["worker"].append(timed(hooked_worker, scheduler.output, sweeper))
                taken["bare worker"].append(timed(bare_worker, scheduler.output, sweeper))
                taken["plain"].append(timed(lambda s: plain.schedule(s, bare_schedule), scheduler, sweeper))
            us = {name: statistics.median(values) / 1000 for name, values in taken.items()}
            schedule, work = us["schedule"] - us["bare schedule"], us["worker"] - us["bare worker"]
            update = us["update"] - us["bare update"]
            rival = us["plain"] - us["bare schedule"]
            print(
                f"{n:8} {caches:>6} {schedule:10.2f} {update:8.2f} {work:8.2f} {schedule + update + work:8.2f} {rival:13.2f} {rival / schedule:6.1f}"
            )


if __name__ == "__main__":
    main()
