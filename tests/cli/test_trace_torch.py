"""Profiles made on the spot by torch on the CPU, with torch's own tables as the oracle."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter, defaultdict

import pytest

torch = pytest.importorskip("torch", reason="torch makes the profiles")

from torch.profiler import ProfilerActivity, profile, record_function  # noqa: E402


def work(steps: int = 3) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 16 * 16, 32),
        torch.nn.LayerNorm(32),
        torch.nn.Linear(32, 10),
    )
    images = torch.randn(4, 3, 32, 32)
    for i in range(steps):
        with record_function(f"execute_context_{i}(0)_generation_4(4)"):
            loss = (model(images) ** 2).mean()
            loss.backward()
            torch.cat([images, images])
            torch.baddbmm(torch.randn(2, 3, 5), torch.randn(2, 3, 4), torch.randn(2, 4, 5))
            torch.bmm(torch.randn(2, 3, 4), torch.randn(2, 4, 5))
            torch.add(torch.randn(3, 4), torch.mul(torch.randn(3, 4), 2))
            torch.stack([torch.randn(2), torch.randn(2)])


CONFIGURATIONS = {
    "plain": {},
    "shapes": {"record_shapes": True},
    "memory": {"profile_memory": True},
    "all": {"record_shapes": True, "with_stack": True, "profile_memory": True, "with_flops": True},
}


@pytest.fixture(scope="module", params=CONFIGURATIONS)
def profiled(request, tmp_path_factory):
    """(name, profiler, trace file)"""
    folder = tmp_path_factory.mktemp("profile")
    config = dict(CONFIGURATIONS[request.param])
    if config.get("with_stack"):
        config["experimental_config"] = torch._C._profiler._ExperimentalConfig(verbose=True)
    work(1)
    with profile(activities=[ProfilerActivity.CPU], **config) as profiler:
        work()
    path = folder / "trace.json"
    profiler.export_chrome_trace(str(path))
    return request.param, profiler, path


def table(cli, *words) -> list[dict]:
    shown = cli("trace", "--format", "csv", *words)
    assert (shown.returncode, shown.stderr) == (0, "")
    return list(csv.DictReader(io.StringIO(shown.stdout)))


def compare(rows: list[dict], averages, key_of_row, key_of_average, flops: bool) -> None:
    expected = {key_of_average(a): a for a in averages}
    ours = {key_of_row(r): r for r in rows}
    assert len(ours) == len(rows) and len(expected) == len(averages)
    assert set(ours) == set(expected)
    for key, average in expected.items():
        row = ours[key]
        assert int(row["calls"]) == average.count, key
        assert float(row["self_cpu_us"]) == pytest.approx(average.self_cpu_time_total, abs=0.002), key
        assert float(row["cpu_us"]) == pytest.approx(average.cpu_time_total, abs=0.002), key
        assert int(row["cpu_bytes"]) == average.cpu_memory_usage, key
        assert int(row["self_cpu_bytes"]) == average.self_cpu_memory_usage, key
        if flops:
            assert int(row["flops"]) == average.flops, key


def test_by_name(cli, profiled):
    name, profiler, path = profiled
    averages = profiler.key_averages()
    rows = table(cli, path)
    compare(
        rows,
        averages,
        lambda r: (r["name"], "annotation" in r["kind"]),
        lambda a: (a.key, a.is_user_annotation),
        name == "all",
    )
    if name == "all":
        assert sum(int(r["flops"]) > 0 for r in rows) >= 7, "conv2d, mm, addmm, bmm, baddbmm, add, mul"


def test_by_shape(cli, profiled):
    name, profiler, path = profiled
    averages = profiler.key_averages(group_by_input_shape=True)
    rows = table(cli, "--group-by-shape", path)
    compare(
        rows,
        averages,
        lambda r: (r["name"], "annotation" in r["kind"], r["input_shapes"]),
        lambda a: (a.key, a.is_user_annotation, str(a.input_shapes)),
        name == "all",
    )


def test_by_stack(cli, profiled):
    name, profiler, path = profiled
    if name != "all":
        assert {r["stack"] for r in table(cli, "--group-by-stack", "4", path)} == {""}
        return
    averages = profiler.key_averages(group_by_stack_n=4)
    assert sum(bool(a.stack) for a in averages) > 50
    rows = table(cli, "--group-by-stack", "4", path)
    # torch tells groups apart by the frames beyond their number too where names repeat: compare the sums.
    expected, ours = defaultdict(list), defaultdict(list)
    for a in averages:
        expected[a.key, a.is_user_annotation, "\n".join(a.stack[:4])].append((a.count, a.cpu_time_total))
    for r in rows:
        ours[r["name"], "annotation" in r["kind"], r["stack"]].append((int(r["calls"]), float(r["cpu_us"])))
    assert set(ours) == set(expected)
    for key, parts in expected.items():
        assert sum(p[0] for p in ours[key]) == sum(p[0] for p in parts), key
        assert sum(p[1] for p in ours[key]) == pytest.approx(sum(p[1] for p in parts), abs=0.01), key


def test_stacks_for_flame_graphs(cli, profiled, tmp_path):
    name, profiler, path = profiled
    out = tmp_path / "out.folded"
    shown = cli("trace", "--export-stacks", out, "--metric", "self_cpu_time_total", "--format", "csv", path)
    assert shown.returncode == 0
    ours = Counter()
    for line in out.read_text().splitlines():
        frames, value = line.rsplit(" ", 1)
        ours[frames.rsplit(";", 1)[0] if ";" in frames else ""] += int(value)
    total = sum(a.self_cpu_time_total for a in profiler.key_averages())
    assert sum(ours.values()) == pytest.approx(total, rel=0.2)
    if name != "all":
        assert "no Python stacks" in shown.stderr
        return
    assert shown.stderr == ""
    # torch writes a line per event, with whole microseconds cut off; ours has the event's name behind the frames.
    theirs = Counter()
    profiler.export_stacks(str(tmp_path / "torch"), "self_cpu_time_total")
    for line in (tmp_path / "torch").read_text().splitlines():
        frames, value = line.rsplit(" ", 1)
        theirs[frames] += int(value)
    events = Counter()
    for event in profiler.events():
        if event.stack:
            events[";".join(f.translate(str.maketrans(" ;\t\n", "____")) for f in reversed(event.stack))] += 1
    assert theirs
    for frames, value in theirs.items():
        assert abs(ours[frames] - value) <= events[frames], frames


def test_json_says_what_the_csv_says(cli, profiled):
    _, profiler, path = profiled
    shown = json.loads(cli("trace", "--format", "json", path).stdout)
    rows = {(r["name"], r["kind"]): r for r in table(cli, path)}
    assert len(shown["key_averages"]) == len(rows)
    for entry in shown["key_averages"]:
        row = rows[entry["name"], entry["kind"]]
        assert entry["calls"] == int(row["calls"])
        assert entry["self_cpu_us"] == float(row["self_cpu_us"])
    assert shown["self_cpu_us"] == pytest.approx(profiler.key_averages().self_cpu_time_total, abs=0.01)
    assert [s["name"] for s in shown["files"][0]["steps"]] == [
        f"execute_context_{i}(0)_generation_4(4)" for i in range(3)
    ]


def test_the_sort_orders_are_torchs(cli, profiled):
    _, profiler, path = profiled
    for key in ("self_cpu_time_total", "cpu_time_total", "count", "cpu_time"):
        theirs = [
            getattr(a, key) for a in sorted(profiler.key_averages(), key=lambda a: getattr(a, key), reverse=True)[:10]
        ]
        rows = table(cli, "--sort", key, "--limit", "10", path)
        column = {
            "self_cpu_time_total": "self_cpu_us",
            "cpu_time_total": "cpu_us",
            "count": "calls",
            "cpu_time": "cpu_mean_us",
        }
        assert [float(r[column[key]]) for r in rows] == pytest.approx(theirs, abs=0.002)


def test_layers(cli, profiled):
    name, _profiler, path = profiled
    rows = table(cli, "--layers", path)
    modules = {r["name"] for r in rows}
    if name == "all":
        assert {
            "nn.Module: Conv2d_0",
            "nn.Module: Linear_0",
            "nn.Module: Linear_1",
            "nn.Module: LayerNorm_0",
        } <= modules
    else:
        assert not modules
