#!/usr/bin/env python3
"""MB of trace JSON per second and core, read and aggregated (key_averages), against rivals in the same run.

    bench/bench_trace.py [--build build/release] [--events N] [--rounds N] [FILE…]

Without files it makes them: a trace like a GPU worker's and one with Python frames, each of about N events. The rivals
do less: Python's json and simdjson only parse (and simdjson only builds its tree); HTA is not run here (see the docs).
CPU time of the best of the rounds counts, so that a busy machine disturbs little; wall time is printed beside.
"""

import argparse
import gzip
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def event(cat, name, tid, ts, dur, args):
    """As Kineto prints one."""
    listed = ",".join(f'"{k}": {json.dumps(v)}' for k, v in args.items())
    return (
        f'  {{\n    "ph": "X", "cat": "{cat}", "name": "{name}", "pid": 4711, "tid": {tid},\n'
        f'    "ts": {ts / 1000:.3f}, "dur": {dur / 1000:.3f},\n    "args": {{\n      {listed}\n    }}\n  }}'
    )


def arrow(ph, ident, tid, ts):
    end = ', "bp": "e"' if ph == "f" else ""
    return (
        f'  {{\n    "ph": "{ph}", "id": {ident}, "pid": 4711, "tid": {tid}, "ts": {ts / 1000:.3f},\n'
        f'    "cat": "ac2g", "name": "ac2g"{end}\n  }}'
    )


OPERATORS = [
    "aten::linear",
    "aten::matmul",
    "aten::mm",
    "aten::add_",
    "aten::copy_",
    "vllm::unified_attention_with_output",
]
KERNELS = [
    "void flash::flash_fwd_splitkv_kernel<Flash_fwd_kernel_traits<128, 64, 128, 4, false, false, cutlass::bfloat16_t>>",
    "nvjet_tst_128x64_64x8_1x2_h_bz_coopB_TNT",
    "void vllm::fused_add_rms_norm_kernel<c10::BFloat16, 8>(c10::BFloat16*, c10::BFloat16 const*, float)",
    "triton_poi_fused_mul_silu_slice_0",
]


def gpu_worker(count):
    ts, made, number = 4_567_183_743_949_173, [], 0
    while len(made) < count:
        number += 1
        name = OPERATORS[number % len(OPERATORS)]
        shapes = [[1 + number % 256, 4096], [4096, 4096]]
        made.append(
            event(
                "cpu_op",
                name,
                4711,
                ts,
                40_000,
                {
                    "External id": number,
                    "Record function id": 0,
                    "Concrete Inputs": ["", ""],
                    "Input type": ["c10::BFloat16", "c10::BFloat16"],
                    "Input Strides": [[4096, 1], [1, 4096]],
                    "Input Dims": shapes,
                    "Ev Idx": number,
                },
            )
        )
        made.append(
            event(
                "cuda_runtime",
                "cudaLaunchKernel",
                4711,
                ts + 5_000,
                4_200,
                {"External id": number, "cbid": 211, "correlation": 900_000 + number},
            )
        )
        made.append(arrow("s", 900_000 + number, 4711, ts + 5_000))
        made.append(
            event(
                "kernel",
                KERNELS[number % len(KERNELS)],
                7,
                ts + 15_000,
                21_337,
                {
                    "External id": number,
                    "queued": 0,
                    "device": 0,
                    "context": 1,
                    "stream": 7,
                    "correlation": 900_000 + number,
                    "registers per thread": 168,
                    "shared memory": 98304,
                    "blocks per SM": 0.969697,
                    "warps per SM": 3.878788,
                    "grid": [128, 1, 1],
                    "block": [128, 1, 1],
                    "est. achieved occupancy %": 6,
                },
            )
        )
        made.append(arrow("f", 900_000 + number, 7, ts + 15_000))
        ts += 43_219
    return made


def python_frames(count):
    ts, made, number = 4_567_183_743_949_173, [], 0
    while len(made) < count:
        begin = ts
        for depth in range(12):
            number += 1
            made.append(
                event(
                    "python_function",
                    f"vllm/model_executor/models/llama.py({100 + depth * 7}): forward",
                    4711,
                    begin + depth * 900,
                    60_000 - depth * 2_000,
                    {"Python parent id": number - 1, "Python id": number, "Ev Idx": number},
                )
            )
        made.append(
            event(
                "cpu_op",
                OPERATORS[number % len(OPERATORS)],
                4711,
                begin + 12_000,
                3_000,
                {"External id": number, "Record function id": 0, "Ev Idx": number},
            )
        )
        ts += 61_003
    return made


def write(folder, name, events):
    path = folder / f"{name}.json"
    text = (
        '{\n  "schemaVersion": 1,\n  "deviceProperties": [],\n  "traceEvents": [\n' + ",\n".join(events) + "\n  ]\n}\n"
    )
    path.write_text(text)
    packed = folder / f"{name}.json.gz"
    packed.write_bytes(gzip.compress(text.encode(), 6))
    return [path, packed]


def ours(program, rounds, path):
    return json.loads(subprocess.run([program, str(rounds), path], check=True, capture_output=True, text=True).stdout)


def python_json(path):
    data = path.read_bytes()
    begin = time.process_time()
    json.loads(data)
    return time.process_time() - begin


def simdjson_parse(path):
    if importlib.util.find_spec("simdjson") is None:
        return None
    import simdjson

    data = path.read_bytes()
    best = None
    for _ in range(3):
        begin = time.process_time()
        simdjson.Parser().parse(data)
        took = time.process_time() - begin
        best = took if best is None else min(best, took)
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default="build/release", type=Path)
    parser.add_argument("--events", default=1_000_000, type=int)
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("files", nargs="*", type=Path)
    options = parser.parse_args()
    program = (ROOT / options.build if not options.build.is_absolute() else options.build) / "bench" / "bench_trace"
    if not program.exists():
        sys.exit(f"{program} is missing: cmake --build {options.build} --target bench_trace")
    with tempfile.TemporaryDirectory() as folder:
        files = options.files
        if not files:
            files = write(Path(folder), "gpu_worker", gpu_worker(options.events))
            files += write(Path(folder), "python_frames", python_frames(options.events))
        print(f"{'file':<34}{'MB':>7}{'events':>9}{'read':>8}{'+averages':>11}{'wall':>8}{'memory':>8}   rivals")
        for path in files:
            one = ours(program, options.rounds, path)
            mb = one["json_bytes"] / 1e6
            rivals = []
            if path.suffix == ".json":
                took = python_json(path)
                rivals.append(f"json {mb / took:.0f} MB/s ({took / one['cpu_s']:.0f} times slower)")
                took = simdjson_parse(path)
                rivals.append(f"simdjson, parse only, {mb / took:.0f} MB/s" if took else "simdjson is not installed")
            print(
                f"{path.name[:33]:<34}{mb:7.1f}{one['events']:9d}{mb / one['load_s']:8.0f}{mb / one['cpu_s']:11.0f}"
                f"{mb / one['wall_s']:8.0f}{one['peak_bytes'] / one['json_bytes']:8.2f}   {'; '.join(rivals)}"
            )
    print("read, +averages: MB of JSON per second of CPU time (all threads); wall: per second; memory: peak / JSON")


if __name__ == "__main__":
    main()
