"""profilemate export --with-trace: a torch trace on the session's clock, beneath the process that wrote it."""

import gzip
import json

import pftrace
import pytest
from program import one_sentence

CPU, GPU = "execute_context_1(24)_generation_0(0)", "flash_fwd_kernel"


def clocks_of(session):
    told = dict(line.split(" ", 1) for line in (session / "session").read_text().splitlines() if " " in line)
    return int(told["start_mono_ns"]), int(told["start_real_ns"])


def events(at_us, pid):
    """Two operators in an annotation, a launch and its kernel, kernels of two streams, one beside the other."""

    def event(cat, name, tid, ts, dur, on=pid, **args):
        return {"ph": "X", "cat": cat, "name": name, "pid": on, "tid": tid, "ts": at_us + ts, "dur": dur, "args": args}

    return [
        event("user_annotation", CPU, 7, 0, 100),
        event("cpu_op", "aten::mm", 7, 10, 40.5, **{"Input Dims": [[2, 3], [3, 4]]}),
        event("cpu_op", "aten::copy_", 7, 30, 20.5004),  # ends a rounding later than the one round it
        event("cuda_runtime", "cudaLaunchKernel", 7, 60, 5, correlation=11),
        event("kernel", GPU, "stream 7", 70, 30, on=0, correlation=11, stream=7, device=0),
        event("kernel", "overlapping", "stream 7", 90, 30, on=0, correlation=12, stream=7, device=0),
        event("python_function", "model.py(1): forward", 7, 5, 90),
        event("python_function", "contextlib.py(132): __enter__", 7, -2, 4),  # the annotation begins in it
    ]


@pytest.fixture
def made(cli, tmp_path):
    """A session, and writes traces that begin so many seconds after its start."""
    session = cli.make_session("steps=12")

    def write(after_s=0.001, base=True, pid=None, name="trace.json.gz", cut=None):
        _, real_ns = clocks_of(session)
        if pid is None:
            (record,) = (session / "records").glob("*.pmrec")
            pid = int(record.name[1:].split("-")[0])
        at_ns = real_ns + int(after_s * 1e9)
        base_ns = at_ns - at_ns % 10**15 if base else 0
        document = {
            "schemaVersion": 1, "baseTimeNanoseconds": base_ns,
            "traceEvents": events(0, pid),
        }  # fmt: skip
        for event in document["traceEvents"]:
            ns = at_ns - base_ns + round(event["ts"] * 1000)
            event["ts"] = f"@{ns // 1000}.{ns % 1000:03}@"  # torch writes three decimals; a double would lose them
        text = json.dumps(document).replace('"@', "").replace('@"', "")
        path = tmp_path / name
        path.write_bytes(gzip.compress(text[:cut].encode()) if name.endswith("gz") else text[:cut].encode())
        return path

    return session, write


def exported(cli, tmp_path, trace):
    out = tmp_path / "both.pftrace"
    shown = cli("export", "--format=perfetto", "--with-trace", trace, "--out", out)
    assert shown.returncode == 0, shown.stderr
    return pftrace.read(out), shown.stderr


@pytest.mark.parametrize("base", [True, False], ids=["base time", "no base time, as before 2024"])
def test_on_one_clock(cli, tmp_path, made, base):
    session, write = made
    both, said = exported(cli, tmp_path, write(base=base))
    mono_ns, _ = clocks_of(session)
    slices = {s.name: s for s in both.slices}
    # The process read its two clocks a moment after the session did: both pairs are the same to a few µs.
    assert abs(slices[CPU].begin_ns - (mono_ns + 1_000_000)) < 100_000
    assert slices[CPU].end_ns - slices[CPU].begin_ns == 100_000
    assert slices["aten::mm"].begin_ns - slices[CPU].begin_ns == 10_000
    assert (slices["aten::mm"].depth, slices["aten::copy_"].depth, slices["model.py(1): forward"].depth) == (1, 2, 0)
    assert slices["aten::copy_"].end_ns == slices["aten::mm"].end_ns
    assert slices["aten::mm"].args == {"Input Dims": "[[2, 3], [3, 4]]"}
    assert slices["cudaLaunchKernel"].flows == slices[GPU].flows != []
    assert slices["overlapping"].track != slices[GPU].track, "no slice ends within another one"
    assert "With 8 events of " in said and "from 0.001 s to 0.001 s of the session\n" in said
    assert sum(s.category == "step" and s.depth == 0 for s in both.slices) == 12, "the session is there as well"


def test_beneath_the_process_that_wrote_it(cli, tmp_path, made):
    session, write = made
    both, _ = exported(cli, tmp_path, write())
    slices = {s.name: s for s in both.slices}
    step = next(s for s in both.slices if s.category == "step")
    parent = {name: both.tracks[both.tracks[slices[name].track][1]][0] for name in (CPU, GPU)}
    assert both.tracks[slices[CPU].track][1] == both.tracks[step.track][1]
    assert both.tracks[slices[CPU].track][0] == "torch: thread 7, annotations"
    assert both.tracks[slices["aten::mm"].track][0] == "torch: thread 7" and parent[GPU].startswith("torch: 0")
    both, said = exported(cli, tmp_path, write(pid=1))
    assert "none of the session's processes wrote it" in said


@pytest.mark.parametrize("after_s, where", [(-3600, "before the session begins"), (86400, "after the session's end")])
def test_a_trace_of_another_run_is_refused(cli, tmp_path, made, after_s, where):
    out = tmp_path / "both.pftrace"
    shown = cli("export", "--format=perfetto", "--with-trace", made[1](after_s), "--out", out)
    assert shown.returncode == 1 and not out.exists()
    assert where in shown.stderr and "give a trace of the same run" in shown.stderr
    one_sentence(shown.stderr)


def test_what_is_not_whole_or_not_there(cli, tmp_path, made):
    trace = made[1](name="cut.json", cut=900)
    both, said = exported(cli, tmp_path, trace)
    assert "cut.json is not whole: it is cut off" in said and CPU in {s.name for s in both.slices}
    for words, code, what in (
        (("--format=perfetto", "--with-trace", tmp_path / "none.json"), 1, "cannot open"),
        (("--format=chrome", "--with-trace", trace), 2, "--with-trace belongs to --format=perfetto"),
    ):
        shown = cli("export", *words, "--out", tmp_path / "x")
        assert shown.returncode == code and what in shown.stderr
