"""`profilemate trace` on small traces made here: what it prints, writes, refuses."""

from __future__ import annotations

import csv
import gzip
import io
import json

import pytest
from program import one_sentence


def x(cat, name, tid, ts, dur, **args):
    return {"ph": "X", "cat": cat, "name": name, "pid": 1, "tid": tid, "ts": ts, "dur": dur, "args": args}


def server(rank: int = 0, steps: int = 4, slow: float = 1.0) -> dict:
    """A made-up worker: in each step two operators, three kernels, one copy."""
    events = [{"ph": "M", "name": "process_name", "pid": 1, "tid": 0, "ts": 0, "args": {"name": "worker"}}]
    for i in range(steps):
        t, c = 1000 * i, 100 * i
        events += [
            x(
                "user_annotation",
                f"execute_context_0(0)_generation_{i + 1}({i + 1})",
                1,
                t,
                400,
                **{"External id": c + 1},
            ),
            x("cpu_op", "aten::linear", 1, t + 10, 100, **{"External id": c + 2}),
            x("cpu_op", "aten::mm", 1, t + 20, 80, **{"External id": c + 3, "Input Dims": [[i + 1, 64], [64, 32]]}),
            x("cuda_runtime", "cudaLaunchKernel", 1, t + 30, 10, **{"External id": c + 3, "correlation": c + 3}),
            x(
                "kernel",
                "void gemm<float>(float, float)",
                7,
                t + 60,
                200 * slow,
                **{"External id": c + 3, "correlation": c + 3, "device": rank, "stream": 7},
            ),
            {"ph": "s", "id": c + 3, "pid": 1, "tid": 1, "ts": t + 30, "cat": "ac2g", "name": "ac2g"},
            {"ph": "f", "id": c + 3, "pid": 0, "tid": 7, "ts": t + 60, "cat": "ac2g", "name": "ac2g", "bp": "e"},
            x("cuda_runtime", "cudaLaunchKernel", 1, t + 200, 10, correlation=c + 4),
            x("kernel", "ncclDevKernel_AllReduce_Sum", 9, t + 300, 100, correlation=c + 4, device=rank, stream=9),
            x("cuda_runtime", "cudaMemcpyAsync", 1, t + 380, 10, correlation=c + 5),
            x(
                "gpu_memcpy",
                "Memcpy DtoH (Device -> Pinned)",
                7,
                t + 500,
                10,
                correlation=c + 5,
                device=rank,
                stream=7,
                bytes=8000,
            ),
        ]
    return {
        "schemaVersion": 1,
        "deviceProperties": [{"id": rank, "name": "NVIDIA Test"}],
        "distributedInfo": {"backend": "nccl", "rank": rank, "world_size": 2},
        "traceEvents": events,
        "traceName": "x",
    }


@pytest.fixture
def trace(tmp_path):
    """Writes a trace; its path."""

    def write(document: dict | str | bytes, name: str = "trace.json"):
        path = tmp_path / name
        data = (
            document
            if isinstance(document, bytes)
            else (document if isinstance(document, str) else json.dumps(document)).encode()
        )
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write


def rows(shown) -> list[dict]:
    assert shown.returncode == 0, shown.stderr
    return list(csv.DictReader(io.StringIO(shown.stdout)))


# ---- the tables ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--kernels"],
        ["--steps"],
        ["--findings"],
        ["--group-by-shape"],
        ["--sort", "flops"],
        ["--kernels", "--steps"],
    ],
)
def test_the_text_keeps_to_100_columns(cli, trace, words):
    for documents in ([server()], [server(0), server(1)]):
        files = [trace(d, f"r{i}.json") for i, d in enumerate(documents)]
        shown = cli("trace", *words, *files)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert max(map(len, shown.stdout.splitlines())) <= 100
        assert "What to look into" in shown.stdout
        assert "\x1b" not in shown.stdout


def test_the_default_is_sorted_by_device_time(cli, trace):
    table = rows(cli("trace", "--format", "csv", trace(server())))
    times = [float(r["self_device_us"]) for r in table]
    assert times == sorted(times, reverse=True) and times[0] == 800
    assert table[0]["name"] in ("aten::mm", "void gemm<float>(float, float)")
    without = [e for e in server()["traceEvents"] if e.get("cat") in ("cpu_op", "user_annotation")]
    table = rows(cli("trace", "--format", "csv", trace({"traceEvents": without})))
    times = [float(r["self_cpu_us"]) for r in table]
    assert times == sorted(times, reverse=True)


def test_the_csv_columns(cli, trace):
    path = trace(server())
    shown = cli("trace", "--format", "csv", path)
    assert shown.stdout.split("\n")[0].startswith("name,calls,self_cpu_us,cpu_us,self_device_us,device_us,")
    table = {r["name"]: r for r in rows(shown)}
    assert table["aten::mm"]["calls"] == "4"
    assert table["aten::mm"]["self_cpu_us"] == "280.000"
    assert table["aten::mm"]["flops"] == str(2 * 64 * 32 * (1 + 2 + 3 + 4))
    assert table["aten::linear"]["device_us"] == "800.000" and table["aten::linear"]["self_device_us"] == "0.000"
    assert table["void gemm<float>(float, float)"]["on"] == "device"
    kernels = rows(cli("trace", "--format", "csv", "--kernels", path))
    assert {k["class"] for k in kernels} == {"gemm", "collective", "copy"}
    steps = rows(cli("trace", "--format", "csv", "--steps", path))
    assert [s["period_us"] for s in steps] == ["1000.000"] * 3 + ["400.000"]
    assert [s["works"] for s in steps] == ["3"] * 4
    findings = rows(cli("trace", "--format", "csv", "--findings", path))
    assert "cpu-bound" in {f["id"] for f in findings}


def test_limit(cli, trace):
    path = trace(server())
    every = rows(cli("trace", "--format", "csv", path))
    assert rows(cli("trace", "--format", "csv", "-n", "2", path)) == every[:2]
    assert "more rows, --limit 0 shows them" in cli("trace", "--limit", "2", path).stdout
    assert "more rows" not in cli("trace", "--limit", "0", path).stdout


def test_several_ranks(cli, trace):
    files = [trace(server(1, slow=2.0), "b_rank1.json.gz"), trace(server(0), "a.json")]
    shown = json.loads(cli("trace", "--format", "json", *files).stdout)
    assert [f["rank"] for f in shown["files"]] == [0, 1]
    table = {r["name"]: r for r in shown["key_averages"]}
    assert table["aten::mm"]["calls"] == 8
    assert "straggler" in {f["id"] for f in shown["findings"]}
    text = cli("trace", *files).stdout
    assert "Ranks" in text and "rank 1" in text


def test_the_rank_may_come_from_the_name(cli, trace):
    document = server()
    del document["distributedInfo"]
    for name, rank in (
        ("dp0_pp0_tp1_rank_12.pt.trace.json.gz", 12),
        ("worker-rank3.177.pt.trace.json", 3),
        ("frank.json", None),
    ):
        shown = json.loads(cli("trace", "--format", "json", trace(document, name)).stdout)
        assert shown["files"][0]["rank"] == rank


def test_rules_of_ones_own(cli, trace, tmp_path):
    rules = tmp_path / "my.rules"
    rules.write_text("# mine\nmatmul *gemm*\n")
    kernels = rows(cli("trace", "--kernels", "--format", "csv", "--rules", rules, trace(server())))
    assert "matmul" in {k["class"] for k in kernels}
    builtin = cli("trace", "--print-rules").stdout
    assert builtin.startswith("# Classes of GPU kernels") and "\ncollective " in builtin
    rules.write_text(builtin)  # what is printed can be given back
    assert cli("trace", "--rules", rules, trace(server())).returncode == 0


def test_names_do_not_drive_the_terminal_or_the_csv(cli, trace):
    name = '\x1b[31mred\u0007, "quoted"\nsecond line'
    document = {"traceEvents": [x("cpu_op", name, 1, 0, 5)]}
    shown = cli("trace", trace(document))
    assert "\x1b" not in shown.stdout and "\x07" not in shown.stdout and "?[31mred?" in shown.stdout
    assert rows(cli("trace", "--format", "csv", trace(document)))[0]["name"] == name
    assert json.loads(cli("trace", "--format", "json", trace(document)).stdout)["key_averages"][0]["name"] == name


def test_broken_utf8_comes_out_as_utf8(cli, trace):
    path = trace(b'{"traceEvents": [{"ph": "X", "name": "a\xff\xfe\xc3", "ts": 1, "dur": 2}]}')
    for words in (["--format", "csv"], ["--format", "json"], []):
        shown = cli("trace", *words, path)
        assert shown.returncode == 0
        shown.stdout.encode("utf-8")
    assert rows(cli("trace", "--format", "csv", path))[0]["name"] == "a\ufffd\ufffd\ufffd"


# ---- damage ----------------------------------------------------------------------------------------------------------


def test_a_trace_that_is_cut_off(cli, trace):
    text = json.dumps(server())
    cut = text[: text.index("cudaMemcpyAsync") + 5]
    shown = cli("trace", "--format", "json", trace(cut))
    assert shown.returncode == 0
    said = one_sentence(shown.stderr)
    loss = json.loads(shown.stdout)["files"][0]["loss"]
    assert f"cut off at byte {len(cut)}" in said and loss["at_byte"] == len(cut)
    assert loss["lost_bytes"] == len(cut) - cut.rindex("}}, {") - 2
    assert json.loads(shown.stdout)["files"][0]["events"] == 10


def test_a_gzip_that_is_cut_off(cli, trace):
    packed = gzip.compress(json.dumps(server(steps=300)).encode())
    shown = cli("trace", "--format", "json", trace(packed[: len(packed) // 2], "half"))
    assert shown.returncode == 0
    assert f"the gzip stream is cut off after {len(packed) // 2} bytes" in one_sentence(shown.stderr)
    assert json.loads(shown.stdout)["files"][0]["events"] > 500


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "no torch trace"),
        (b"hello", "byte 0"),
        (b'{"a": 1}', "no traceEvents"),
        (b"\x1f\x8b\x08\x00", "gzip"),
    ],
)
def test_what_is_no_trace(cli, trace, content, words):
    shown = cli("trace", trace(content))
    assert (shown.returncode, shown.stdout) == (1, "")
    assert words in one_sentence(shown.stderr)


def test_files_that_cannot_be_read(cli, tmp_path):
    assert "No such" in (said := one_sentence(cli("trace", tmp_path / "none.json").stderr)) or "not found" in said
    assert "is a folder" in one_sentence(cli("trace", tmp_path).stderr)
    assert cli("trace", tmp_path).returncode == 1


@pytest.mark.parametrize(
    "words, said",
    [
        ([], "needs a file"),
        (["--sort", "self_gpu", "x"], "--sort=self_gpu"),
        (["--sort", "self_cpux", "x"], "did you mean self_cpu"),
        (["--format", "xml", "x"], "--format=xml"),
        (["--metric", "self_cpu_time_total", "x"], "--export-stacks"),
        (["--export-stacks", "o", "--metric", "count", "x"], "--metric=count"),
        (["--format", "csv", "--steps", "--kernels", "x"], "one table"),
        (["--group-by-stack", "65", "x"], "at most 64"),
        (["diff", "x"], "BEFORE AFTER"),
        (["diff", "--by", "count", "x", "y"], "--by=count"),
        (["cut", "x"], "--output"),
        (["cut", "-o", "o", "x"], "--step"),
        (["cut", "-o", "o", "--from", "1", "--step", "2", "x"], "choose one"),
        (["cut", "-o", "o", "--from", "1h", "x"], "--from=1h"),
        (["cut", "-o", "o", "--from", "-1", "x"], "--from=-1"),
        (["cut", "-o", "o", "--from", "2", "--to", "1", "x"], "later"),
    ],
)
def test_misuse(cli, words, said):
    shown = cli("trace", *words)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert said in one_sentence(shown.stderr)


# ---- stacks ----------------------------------------------------------------------------------------------------------


def test_device_time_by_stack(cli, trace, tmp_path):
    document = server()
    document["traceEvents"] += [
        x("python_function", "serve.py(1): main", 1, -10, 10000),
        x("python_function", "model.py(7): forward; x", 1, -5, 9000),
    ]
    out = tmp_path / "gpu.folded"
    shown = cli("trace", "--findings", "--export-stacks", out, "--metric", "self_cuda_time_total", trace(document))
    assert (shown.returncode, shown.stderr) == (0, "")
    assert out.read_text().splitlines() == [
        "serve.py(1):_main;model.py(7):_forward__x;aten::mm;void_gemm<float>(float,_float) 800",
        "ncclDevKernel_AllReduce_Sum 400",
        "Memcpy_DtoH_(Device_->_Pinned) 40",
    ]


def test_without_python_frames_operators_stand_for_them(cli, trace, tmp_path):
    out = tmp_path / "cpu.folded"
    shown = cli("trace", "--findings", "--export-stacks", out, trace(server(steps=1)))
    assert "no Python stacks" in one_sentence(shown.stderr)
    lines = dict(line.rsplit(" ", 1) for line in out.read_text().splitlines())
    step = "execute_context_0(0)_generation_1(1)"
    assert lines[f"{step};aten::linear;aten::mm"] == "70"
    assert lines[f"{step};aten::linear;aten::mm;cudaLaunchKernel"] == "10"


def test_stacks_that_cannot_be_written(cli, trace, tmp_path):
    shown = cli("trace", "--export-stacks", tmp_path / "no" / "x", trace(server()))
    assert shown.returncode == 1 and "cannot write" in one_sentence(shown.stderr.splitlines()[-1])


# ---- diff ------------------------------------------------------------------------------------------------------------


def test_diff(cli, trace):
    before, after = trace(server(), "a.json"), trace(server(slow=2.5), "b.json.gz")
    changes = json.loads(cli("trace", "diff", "--format", "json", before, after).stdout)
    assert changes["metric"] == "self_device"
    first = changes["changes"][0]
    assert (first["before_us"], first["after_us"], first["change_us"], first["change_pct"]) == (800, 2000, 1200, 150)
    assert {c["name"] for c in changes["changes"] if c["change_us"]} == {"aten::mm", "void gemm<float>(float, float)"}
    assert [c["before_us"] for c in changes["changes"] if c["name"].startswith("nccl")] == [400]
    table = rows(cli("trace", "diff", "--format", "csv", before, after))
    assert table[0]["change_us"] == "1200.000" and table[0]["calls_before"] == table[0]["calls_after"] == "4"
    text = cli("trace", "diff", before, after).stdout
    assert "+1.200ms" in text and "150.0%" in text
    assert max(map(len, text.splitlines())) <= 100
    assert "nccl" not in text  # did not change
    cpu = rows(cli("trace", "diff", "--by", "self_cpu", "--format", "csv", before, after))
    assert len(cpu) > 5 and {r["change_us"] for r in cpu} == {"0.000"}


@pytest.mark.parametrize("by", ["cpu", "self_cpu", "device", "self_device"])
def test_diff_says_by_what(cli, trace, by):
    """Of the same table as --sort shows of one trace."""
    before, after = trace(server(), "a.json"), trace(server(slow=2.5), "b.json")
    changes = json.loads(cli("trace", "diff", "--by", by, "--format", "json", before, after).stdout)
    assert changes["metric"] == by
    column = f"{by}_us"
    for path, side in ((before, "before_us"), (after, "after_us")):
        table = {(row["name"], row["on"]): float(row[column]) for row in rows(cli("trace", "--format", "csv", path))}
        told = {(c["name"], c["on"]): c[side] for c in changes["changes"]}
        assert {key: table[key] for key in told} == told


def test_diff_of_what_comes_and_goes(cli, trace):
    before = trace({"traceEvents": [x("cpu_op", "gone", 1, 0, 5), x("cpu_op", "same", 1, 10, 5)]}, "a.json")
    after = trace({"traceEvents": [x("cpu_op", "new", 1, 0, 7), x("cpu_op", "same", 1, 10, 5)]}, "b.json")
    table = rows(cli("trace", "diff", "--format", "csv", before, after))
    assert [(r["name"], r["calls_before"], r["calls_after"], r["change_us"], r["change_pct"]) for r in table] == [
        ("new", "0", "1", "7.000", ""),
        ("gone", "1", "0", "-5.000", "-100.00"),
        ("same", "1", "1", "0.000", "0.00"),
    ]


# ---- cut -------------------------------------------------------------------------------------------------------------


def names(path) -> list[str]:
    data = path.read_bytes()
    document = json.loads(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    return [e["name"] for e in document["traceEvents"]]


def test_cut_keeps_events_and_the_rest_byte_for_byte(cli, trace, tmp_path):
    document = server()
    path, out = trace(document), tmp_path / "out.json"
    shown = cli("trace", "cut", "--from", "1ms", "--to", "2ms", "-o", out, path)
    assert (shown.returncode, shown.stdout) == (0, "")
    assert "12 of 45 events" in shown.stderr
    cut = json.loads(out.read_text())
    assert {k: v for k, v in cut.items() if k != "traceEvents"} == {
        k: v for k, v in document.items() if k != "traceEvents"
    }
    assert list(cut) == list(document)
    expected = [e for e in document["traceEvents"] if e["ph"] == "M" or 1000 <= e["ts"] < 2000]
    assert cut["traceEvents"] == expected
    again = json.loads(cli("trace", "--format", "json", out).stdout)
    assert again["files"][0]["loss"] is None and len(again["files"][0]["steps"]) == 1


def test_cut_keeps_what_was_launched_in_the_range(cli, trace, tmp_path):
    out = tmp_path / "out.json.gz"
    path = trace(server())
    cli("trace", "cut", "--from", "0", "--to", "35us", "-o", out, path)
    assert "void gemm<float>(float, float)" in names(out)
    assert "ncclDevKernel_AllReduce_Sum" not in names(out)
    cli("trace", "cut", "--from", "0.00025", "--to", "0.3ms", "-o", out, path)
    assert "void gemm<float>(float, float)" not in names(out)


def test_cut_of_a_step(cli, trace, tmp_path):
    out = tmp_path / "out.json"
    path = trace(server())
    assert cli("trace", "cut", "--step", "2", "-o", out, path).returncode == 0
    assert [n for n in names(out) if n.startswith("execute")] == ["execute_context_0(0)_generation_3(3)"]
    assert names(out).count("ncclDevKernel_AllReduce_Sum") == 1
    shown = cli("trace", "cut", "--step", "9", "-o", tmp_path / "none.json", path)
    assert shown.returncode == 1 and "no step 9" in one_sentence(shown.stderr)
    assert not (tmp_path / "none.json").exists()
    document = server()
    for i, event in enumerate(e for e in document["traceEvents"] if e.get("cat") == "user_annotation"):
        event["name"] = f"ProfilerStep#{i + 70}"
    cli("trace", "cut", "--step", "71", "-o", out, trace(document))
    assert [n for n in names(out) if n.startswith("Profiler")] == ["ProfilerStep#71"]


def test_cut_of_an_array_and_of_a_damaged_trace(cli, trace, tmp_path):
    out = tmp_path / "out.json"
    events = server()["traceEvents"]
    cli("trace", "cut", "--from", "1ms", "--to", "2ms", "-o", out, trace(json.dumps(events)))
    assert len(json.loads(out.read_text())) == 12
    cli("trace", "cut", "--from", "1ms", "--to", "2ms", "-o", out, trace(json.dumps(server())[:-700]))
    assert len(json.loads(out.read_text())["traceEvents"]) == 12


def test_cut_never_harms_what_is_there(cli, trace, tmp_path):
    path = trace(server())
    before = path.read_bytes()
    shown = cli("trace", "cut", "--to", "1ms", "-o", path, path)
    assert shown.returncode == 1 and "is the trace itself" in one_sentence(shown.stderr)
    assert path.read_bytes() == before
    assert cli("trace", "cut", "--to", "1ms", "-o", tmp_path / "no" / "x.json", path).returncode == 1
    assert [p.name for p in tmp_path.iterdir() if "part" in p.name] == []


def test_a_full_disk(cli, trace):
    if not __import__("os").path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    with open("/dev/full", "w") as full:
        shown = cli("trace", trace(server()), stdout=full)
    assert shown.returncode == 1
