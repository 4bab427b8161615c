"""What can only be seen on a real GPU, by hand:  python tests/gpu/check_gpu.py [--steps N]

Needs torch built for CUDA or ROCm and a C compiler; vLLM is not needed. Checks
  1. the event pool (src/gpu) against torch.cuda.Event, both round the same kernels of known length: within 2 us;
  2. a tiny model captured in a real CUDA graph while the pool is in use: the capture succeeds, replays are counted and timed;
  3. that nothing waited: the host's time for the calls of a step does not grow with the kernels' length;
  4. chains (what layers and collectives are timed with) against torch.cuda.Event at the same borders, on two streams, with a
     graph captured in their midst, and a chain's sum against the pair round all of it;
  5. the lightweight time (host clock, from the launch to the wait for the output) against the events of the same steps: 95 %;
  6. with two GPUs or more, a pair round a real NCCL all-reduce against torch's own events;
and prints what a step's four events, a border and a pair cost the host. Exits with 0, 1 where a check failed, 77 without a GPU.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NO_GPU = 77
MODEL, MODEL_END, SAMPLE, SAMPLE_END = range(4)


class Times(ctypes.Structure):
    """struct pm_event_times of src/gpu/events.h."""

    _fields_ = [
        *((name, ctypes.c_uint64) for name in ("step", "begun_ns", "model_ns", "wait_ns", "after_ns", "sample_ns")),
        ("device", ctypes.c_uint32), ("instance", ctypes.c_uint16), ("phase", ctypes.c_uint8),
        ("has_wait", ctypes.c_bool), ("has_sample", ctypes.c_bool),
    ]  # fmt: skip


TELL = ctypes.CFUNCTYPE(None, ctypes.POINTER(Times), ctypes.c_void_p)


class Of(ctypes.Structure):
    """struct pm_chain_of of src/gpu/chain.h."""

    _fields_ = [
        *((name, ctypes.c_uint64) for name in ("key", "step", "begun_ns")),
        ("instance", ctypes.c_uint16), ("phase", ctypes.c_uint8),
    ]  # fmt: skip


TELL_CHAIN = ctypes.CFUNCTYPE(None, ctypes.POINTER(Of), ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p)
NO_MARK = WHOLE = 0xFFFFFFFF


class Pool:
    """src/gpu/events.c, compiled on the spot."""

    def __init__(self, folder: str, batch: int):
        library = os.path.join(folder, "libpm_gpu.so")
        sources = [str(ROOT / "src" / "gpu" / name) for name in ("driver.c", "calls.c", "events.c", "chain.c")]
        subprocess.run(
            [os.environ.get("CC", "cc"), "-O2", "-std=gnu11", "-D_GNU_SOURCE", "-fPIC", "-shared", f"-I{ROOT / 'src'}",
             "-o", library, *sources, "-ldl"],
            check=True,
        )  # fmt: skip
        self.c = ctypes.CDLL(library)
        self.driver, self.events, self.told = ctypes.create_string_buffer(256), ctypes.c_void_p(), []
        if self.c.pm_driver_find(self.driver, None) != 0:
            raise SystemExit("FAILED: torch has a GPU, and no driver library with the functions needed is loaded")
        assert self.c.pm_events_open(ctypes.byref(self.events), self.driver, batch) == 0
        self.tell = TELL(lambda times, _: self.told.append(Times.from_buffer_copy(times.contents)))
        self.step = 0

    def begin(self):
        self.c.pm_events_begin(self.events, ctypes.c_uint64(self.step), 0, 2)
        self.step += 1

    def mark(self, mark: int, stream: int) -> int:
        return self.c.pm_events_mark(self.events, mark, ctypes.c_void_p(stream), ctypes.c_uint64(time.monotonic_ns()))

    def end(self):
        self.c.pm_events_end(self.events)

    def read(self, everything: bool = True) -> list[Times]:
        self.told.clear()
        self.c.pm_events_read(self.events, ctypes.c_bool(everything), self.tell, None)
        return list(self.told)

    def failed(self) -> str:
        text = ctypes.create_string_buffer(200)
        self.c.pm_events_failed.restype = ctypes.c_bool
        return text.value.decode() if self.c.pm_events_failed(self.events, text, ctypes.c_size_t(200)) else ""


class Chains:
    """src/gpu/chain.c, from the library of a Pool."""

    def __init__(self, pool: Pool, marks: int, batch: int):
        self.c, self.chains, self.told, self.step = pool.c, ctypes.c_void_p(), [], 0
        assert self.c.pm_chains_open(ctypes.byref(self.chains), pool.driver, marks, batch) == 0
        self.tell = TELL_CHAIN(lambda of, tag, ns, _: self.told.append((of.contents.step, tag, ns)))

    def begin(self):
        self.c.pm_chains_begin(self.chains, ctypes.byref(Of(step=self.step, begun_ns=time.monotonic_ns())))
        self.step += 1

    def mark(self, stream: int, last: int, tag: int) -> tuple[int, int]:
        """What became of it, and its number."""
        number = ctypes.c_uint32(NO_MARK)
        return self.c.pm_chains_mark(self.chains, ctypes.c_void_p(stream), last, tag, ctypes.byref(number)), number.value

    def end(self):
        self.c.pm_chains_end(self.chains)

    def read(self) -> list[tuple[int, int, int]]:
        self.told.clear()
        self.c.pm_chains_read(self.chains, ctypes.c_bool(True), self.tell, None)
        return list(self.told)

    def failed(self) -> str:
        text = ctypes.create_string_buffer(200)
        self.c.pm_chains_failed.restype = ctypes.c_bool
        return text.value.decode() if self.c.pm_chains_failed(self.chains, text, ctypes.c_size_t(200)) else ""

    def close(self):
        self.c.pm_chains_close(self.chains)


failures: list[str] = []


def check(good: bool, words: str) -> None:
    print(("ok      " if good else "FAILED  ") + words)
    if not good:
        failures.append(words)


def against_torch(torch, pool: Pool, steps: int, stream: int) -> None:
    """Both pairs round the same matmuls; ours inside of torch's, then the other way round."""
    a = torch.randn(2048, 2048, device="cuda")
    off, lengths = [], []
    for n in range(steps):
        ours_inside, work = n % 2 == 0, 1 + n % 8
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        pool.begin()
        if ours_inside:
            first.record()
        pool.mark(MODEL, stream)
        if not ours_inside:
            first.record()
        for _ in range(work):
            a = torch.nn.functional.normalize(a @ a)
        if not ours_inside:
            last.record()
        pool.mark(MODEL_END, stream)
        if ours_inside:
            last.record()
        pool.mark(SAMPLE, stream)
        pool.mark(SAMPLE_END, stream)
        pool.end()
        torch.cuda.synchronize()  # this script's own
        (told,) = pool.read()
        lengths.append(told.model_ns / 1e3)
        off.append(told.model_ns / 1e3 - first.elapsed_time(last) * 1e3)
    print(f"        kernels of {min(lengths):.0f} to {max(lengths):.0f} us; difference {statistics.median(off):+.2f} us at the "
          f"median, {min(off):+.2f} to {max(off):+.2f} us")  # fmt: skip
    check(abs(statistics.median(off)) <= 2, "events agree with torch.cuda.Event within 2 us at the median")


def in_graphs(torch, pool: Pool, stream: int) -> None:
    layer = torch.nn.Sequential(torch.nn.Linear(512, 512), torch.nn.ReLU(), torch.nn.Linear(512, 512)).cuda().eval()
    x = torch.randn(64, 512, device="cuda")
    graph, beside = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.no_grad():
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(3):
                layer(x)
        torch.cuda.current_stream().wait_stream(beside)
        pool.begin()
        pool.mark(MODEL, stream)
        outcome = None
        with torch.cuda.graph(graph):  # a global capture: our mark on its stream must refuse, and not break it
            outcome = pool.mark(MODEL_END, torch.cuda.current_stream().cuda_stream)
            y = layer(x)
        pool.end()
        check(outcome == 2, "no event is recorded on a stream that is being captured")
        check(not pool.failed(), "the driver gave no error: " + (pool.failed() or "none"))
        replays = 50
        for _ in range(replays):
            pool.begin()
            pool.mark(MODEL, stream)
            graph.replay()
            pool.mark(MODEL_END, stream)
            pool.mark(SAMPLE, stream)
            pool.mark(SAMPLE_END, stream)
            pool.end()
        torch.cuda.synchronize()
        told = pool.read()
        check(len(told) == replays and all(times.model_ns > 1 for times in told), f"{replays} replays have {replays} times")
        check(bool(torch.allclose(y, layer(x), atol=1e-4)), "the captured graph computes what the model does")


def cost(torch, pool: Pool, steps: int, stream: int) -> None:
    medians = []
    for work in (1, 40):
        a, host = torch.randn(1024, 1024, device="cuda"), []
        for n in range(steps):
            begun = time.perf_counter_ns()
            pool.begin()
            pool.mark(MODEL, stream)
            spent = time.perf_counter_ns() - begun
            for _ in range(work):
                a = a @ a * 1e-3
            begun = time.perf_counter_ns()
            pool.mark(MODEL_END, stream)
            pool.mark(SAMPLE, stream)
            pool.mark(SAMPLE_END, stream)
            pool.end()
            host.append((spent + time.perf_counter_ns() - begun) / 1e3)
            if n % 16 == 15:
                torch.cuda.synchronize()
                pool.read()
        medians.append(statistics.median(host))
    print(f"        four events a step: {medians[0]:.1f} us of host time (ctypes in it); with kernels 40 times as long {medians[1]:.1f} us")
    check(medians[1] < 3 * medians[0] + 20, "the calls do not wait for the kernels")
    stream_of = torch._C._cuda_getCurrentRawStream
    begun = time.perf_counter_ns()
    for _ in range(10000):
        stream_of(0)
    print(f"        torch._C._cuda_getCurrentRawStream: {(time.perf_counter_ns() - begun) / 10000:.0f} ns")


def chains_against_torch(torch, pool: Pool, steps: int, stream: int) -> None:
    """Borders as layers have them: each time against torch's pair at the same place, and their sum against the whole."""
    chains, borders = Chains(pool, 4096, 64), 12
    a, aside = torch.randn(1024, 1024, device="cuda"), torch.cuda.Stream()
    off, sums = [], []
    for n in range(steps):
        theirs = [torch.cuda.Event(enable_timing=True) for _ in range(borders + 1)]
        chains.begin()
        _, last = chains.mark(stream, NO_MARK, 0)
        theirs[0].record()
        for i in range(borders):
            for _ in range(1 + (n + i) % 5):
                a = torch.nn.functional.normalize(a @ a)
            outcome, last = chains.mark(stream, last, i)
            theirs[i + 1].record()
        with torch.cuda.stream(aside):  # from stream to stream there is no time
            chains.mark(aside.cuda_stream, last, 99)
        chains.end()
        torch.cuda.synchronize()  # this script's own
        told = chains.read()
        parts = [ns for _, tag, ns in told if tag != WHOLE]
        assert [tag for _, tag, _ in told] == [*range(borders), WHOLE], told
        off += [ns / 1e3 - first.elapsed_time(second) * 1e3 for ns, first, second in zip(parts, theirs, theirs[1:])]
        sums.append(sum(parts) / 1e3 - theirs[0].elapsed_time(theirs[-1]) * 1e3)
    print(f"        {borders} borders a chain: difference {statistics.median(off):+.2f} us at the median, of the whole "
          f"{statistics.median(sums):+.2f} us")  # fmt: skip
    check(abs(statistics.median(off)) <= 2, "the times between borders agree with torch.cuda.Event within 2 us at the median")
    check(abs(statistics.median(sums)) <= 4, "they add up to the whole")
    graph, x = torch.cuda.CUDAGraph(), torch.randn(64, 64, device="cuda")
    chains.begin()
    _, first = chains.mark(stream, NO_MARK, 0)
    with torch.cuda.graph(graph):
        outcome, _ = chains.mark(torch.cuda.current_stream().cuda_stream, first, 1)
        y = x @ x
    graph.replay()
    good, _ = chains.mark(stream, first, 2)
    chains.end()
    torch.cuda.synchronize()
    told = chains.read()
    check(outcome == 2 and good == 0 and [tag for _, tag, _ in told] == [2, WHOLE], "a capture keeps its mark out and no other")
    check(bool(torch.allclose(y, x @ x, atol=1e-3)), "what was captured is right")
    for name, marks, pairs in (("border", 400, False), ("pair", 400, True)):
        spent = []
        for _ in range(20):
            chains.begin()
            begun, last = time.perf_counter_ns(), NO_MARK
            for i in range(marks):
                _, last = chains.mark(stream, NO_MARK if pairs and i % 2 == 0 else last, i)
            spent.append((time.perf_counter_ns() - begun) / (marks / 2 if pairs else marks))
            chains.end()
            torch.cuda.synchronize()
            chains.read()
        print(f"        a {name}: {statistics.median(spent) / 1e3:.2f} us of host time (ctypes in it)")
    check(not chains.failed(), "the driver gave no error: " + (chains.failed() or "none"))
    chains.close()


def lightweight(torch, pool: Pool, steps: int, stream: int) -> None:
    """Steps as vLLM's are: model, sampling, copying the tokens to the host, and the wait for them, which is where the time of
    lightweight mode ends."""
    a, shares = torch.randn(4096, 4096, device="cuda") / 64, []
    tokens = torch.empty(64, dtype=torch.int64, pin_memory=True)
    for n in range(steps):
        torch.cuda.synchronize()
        begun = time.perf_counter_ns()
        pool.begin()
        pool.mark(MODEL, stream)
        x = a
        for _ in range(24 + n % 8):
            x = torch.tanh(x @ a)
        pool.mark(MODEL_END, stream)
        pool.mark(SAMPLE, stream)
        tokens.copy_(x[:64].argmax(dim=-1), non_blocking=True)
        done = torch.cuda.Event()
        done.record()
        pool.mark(SAMPLE_END, stream)
        pool.end()
        done.synchronize()
        spent = time.perf_counter_ns() - begun
        (told,) = pool.read()
        shares.append(told.model_ns / spent)
    shares.sort()
    print(f"        events / lightweight: {100 * statistics.median(shares):.1f} % at the median, {100 * shares[len(shares) // 10]:.1f} % "
          f"at the tenth, steps of {told.model_ns / 1e6:.1f} ms")  # fmt: skip
    check(0.95 <= statistics.median(shares) <= 1.02, "the lightweight time agrees with the events within 5 % at the median")


RANK = """
import ctypes, sys
sys.path.insert(0, sys.argv[1])
import check_gpu, tempfile, torch
import torch.distributed as dist
rank, port = int(sys.argv[2]), sys.argv[3]
torch.cuda.set_device(rank)
dist.init_process_group("nccl", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
x, off = torch.ones(1 << 22, device="cuda"), []
stream = torch._C._cuda_getCurrentRawStream(rank)
dist.all_reduce(x)
with tempfile.TemporaryDirectory() as folder:
    chains = check_gpu.Chains(check_gpu.Pool(folder, batch=8), 256, 8)
    for _ in range(50):
        first, second = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        chains.begin()
        first.record()
        _, last = chains.mark(stream, check_gpu.NO_MARK, 0)
        dist.all_reduce(x)
        chains.mark(stream, last, 7)
        second.record()
        chains.end()
        torch.cuda.synchronize()
        (_, tag, ns), _ = chains.read()
        assert tag == 7
        off.append(abs(ns / 1e3 - first.elapsed_time(second) * 1e3))
print(sorted(off)[len(off) // 2])
"""


def collectives(torch) -> None:
    if torch.cuda.device_count() < 2:
        print("        one GPU: no all-reduce between two was timed")
        return
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ranks = [
        subprocess.Popen([sys.executable, "-c", RANK, str(Path(__file__).parent), str(rank), port], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=300)[0] for rank in ranks]
    good = all(rank.returncode == 0 for rank in ranks)
    check(good and all(float(text.split()[-1]) <= 4 for text in said), f"an all-reduce of NCCL against torch's events, us: {said}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200)
    steps = parser.parse_args().steps
    try:
        import torch
    except ImportError:
        print("no GPU: torch is not installed, nothing was checked")
        return NO_GPU
    if not torch.cuda.is_available():
        print("no GPU: torch finds no CUDA or ROCm device, nothing was checked")
        return NO_GPU
    torch.cuda.init()
    torch.zeros(1, device="cuda")
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}")
    stream = torch._C._cuda_getCurrentRawStream(torch.cuda.current_device())
    with tempfile.TemporaryDirectory() as folder:
        pool = Pool(folder, batch=100)
        against_torch(torch, pool, steps, stream)
        in_graphs(torch, pool, stream)
        cost(torch, pool, steps, stream)
        chains_against_torch(torch, pool, steps, stream)
        lightweight(torch, pool, steps, stream)
        collectives(torch)
        check(not pool.failed(), "no error of the driver: " + (pool.failed() or "none"))
    print(f"{len(failures)} checks failed" if failures else "all checks passed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
