"""Folders with the CSV files of the public Python profiler: converted, and read as they are."""

import csv
import json
import subprocess
from pathlib import Path

import pytest
from program import BUILD, Cli, one_sentence

FORWARD = "timestamp_sec,phase,batch_size,num_tokens,forward_time_ms,throughput_tokens_per_sec\n"
SIMPLE = "timestamp_sec,phase,batch_size,num_tokens,duration_ms,throughput_tokens_per_sec\n"
BATCH = (
    "timestamp_sec,num_seqs,max_num_seqs,seq_utilization_pct,num_tokens,max_tokens,token_utilization_pct,phase,"
    "running_queue_len,waiting_queue_len\n"
)


def old_session(folder: Path, steps: int = 400, slow: float = 1.0) -> Path:
    """As the Python profiler wrote it: every step a decode of one request, clock stopped behind the pass."""
    folder.mkdir(parents=True)
    now, forward, batch, operations, kv = 0.5, [FORWARD], [BATCH], ["timestamp_sec,operation,duration_ms,context\n"], []
    for i in range(steps):
        prefill = i % 10 == 0
        seqs, tokens = (1, 64 + i % 7) if prefill else (4 + i // 20 % 4, 4 + i // 20 % 4)
        took = (9.0 if prefill else 5.0) * slow + 0.1 * (i * 7919 % 13) / 13
        batch.append(f"{now:.6f},{seqs},256,{seqs / 2.56:.2f},{tokens},2048,{tokens / 20.48:.2f},decode,{seqs},0\n")
        operations.append(f"{now:.6f},scheduling,0.050000,step={i}\n")
        now += 0.001 + took / 1000
        operations.append(f"{now - took / 1000:.6f},model_execution,{took + 0.2:.6f},\n")
        forward.append(f"{now - took / 1000:.6f},decode,1,{tokens},{took:.3f},{tokens / took * 1000:.1f}\n")
        kv.append(f"{now:.6f},10.00,{40 + i % 8},400\n" if i % 2 else f"{now:.6f},0.00,1,0\n")
    (folder / "forward_pass_timing.csv").write_text("".join(forward))
    (folder / "batch_utilization.csv").write_text("".join(batch))
    (folder / "cpu_operations_timing.csv").write_text("".join(operations))
    (folder / "kv_cache_usage.csv").write_text("timestamp_sec,usage_pct,num_blocks,total_blocks\n" + "".join(kv))
    (folder / "kv_cache_evictions.csv").write_text("timestamp_sec,lifetime_sec,idle_sec\n1.234,12.34,3.45\n")
    (folder / "preemption_events.csv").write_text(
        "timestamp_sec,request_id,event,reason,running_time_sec,extra_info\n"
        "1.000,req-1,preempted,kv_cache_exhausted,0.5,\n1.200,req-1,preempted,kv_cache_exhausted,0.1,\n"
    )
    (folder / "request_lifecycle.csv").write_text(
        "request_id,started_sec,preempted_sec,resumed_sec,finished_sec,total_time_sec,preemption_delay_sec\n"
        'req-1,0.500,1.000,1.300,2.000,1.500,0.300\n"req,2",0.600,,,1.500,0.900,\nreq-3,0.700,,,,,\n'
    )
    (folder / "cuda_graph_usage.csv").write_text("runtime_mode,num_tokens,num_reqs,uniform,has_lora,replay_count\n")
    return folder


@pytest.fixture
def old(tmp_path) -> Path:
    return old_session(tmp_path / "old" / "session_20260124_123456")


def rows(path: Path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_session_of_old_becomes_one_of_ours(cli, old):
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    shown = cli("convert", old, "new")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "400 passes, 400 schedules, 2 requests, 2 preemption events, 200 KV cache levels, 1 evictions" in shown.stdout
    assert "40 steps called decode compute more tokens than they have requests: taken as prefill" in shown.stdout
    assert "200 rows of kv_cache_usage.csv have no total to go by: left out" in shown.stdout
    assert shown.stdout.splitlines()[-1] == "new"
    assert {path.name: path.read_bytes() for path in old.iterdir()} == before
    assert sorted(path.name for path in cli.tmp.iterdir() if path.name.startswith(".")) == []

    report = json.loads(cli("report", "--json", cli.tmp / "new").stdout)
    assert report["state"] == "ended" and report["device"] == "cuda"
    text = cli("report", "--text", cli.tmp / "new").stdout
    assert "400: 40 prefill (0 mixed), 360 decode" in text and "2026-01-24T12:34:56" in text
    assert cli("export", cli.tmp / "new", "--out", "files").returncode == 0
    passes, theirs = rows(cli.tmp / "files" / "forward_pass_timing.csv"), rows(old / "forward_pass_timing.csv")
    assert [(row["num_tokens"], row["forward_time_ms"]) for row in passes] == [
        (row["num_tokens"], row["forward_time_ms"]) for row in theirs
    ]
    assert {row["phase"] for row in passes} == {"prefill", "decode"}
    assert [row["batch_size"] for row in passes[:3]] == ["1", "4", "4"]
    assert rows(cli.tmp / "files" / "kv_cache_evictions.csv") == [
        {"timestamp_sec": "1.234000", "lifetime_sec": "12.340000", "idle_sec": "3.450000"}
    ]
    lives = {row["request_id"]: row for row in rows(cli.tmp / "files" / "request_lifecycle.csv")}
    assert lives["req-1"]["total_time_sec"] == "1.500000" and lives["req-1"]["preemption_delay_sec"] == "0.300000"
    assert lives["req,2"]["finished_sec"] == "1.500000"
    summary = json.loads((cli.tmp / "files" / "preemption_summary.json").read_text())
    assert summary["total_preemptions"] == 2


def test_quotes_and_controls_in_old_files(cli, old):
    """A quote within a quoted cell is written twice (RFC 4180); what a terminal obeys does not reach it."""
    path = old / "request_lifecycle.csv"
    path.write_text(path.read_text().replace('"req,2"', '"req ""2"", b"'))
    shown = cli("convert", f"{old}///", "new///")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert cli("export", cli.tmp / "new", "--out", "files").returncode == 0
    assert 'req "2", b' in {row["request_id"] for row in rows(cli.tmp / "files" / "request_lifecycle.csv")}
    path = old / "forward_pass_timing.csv"
    path.write_text(path.read_text() + "9.0,decode,1,\x1b[31m\x07,5.0,1.0\n")
    refused = cli("convert", old, "other")
    assert refused.returncode == 1 and "\x1b" not in refused.stderr and "\x07" not in refused.stderr
    assert "is no number that can stand here" in one_sentence(refused.stderr)
    assert not (cli.tmp / "other").exists()


def test_a_file_of_old_that_is_not_ones_own_to_read(cli, old):
    """A folder, and a device that never ends, where a table should be."""
    path = old / "kv_cache_usage.csv"
    path.unlink()
    path.symlink_to("/dev/zero")
    refused = cli("convert", old, "new")
    assert refused.returncode == 1, refused.stdout
    one_sentence(refused.stderr)
    path.unlink()
    path.mkdir()
    refused = cli("convert", old, "new")
    assert refused.returncode == 1, refused.stdout
    one_sentence(refused.stderr)
    assert not (cli.tmp / "new").exists()


def test_our_own_files_come_back_as_they_were(cli):
    """What export writes, convert reads, and export writes again."""
    made = subprocess.run(
        [BUILD / "bench" / "make_day", cli.tmp / "day", "hours=0.01", "kv_blocks=120"],
        capture_output=True, text=True, timeout=180, check=True,
    )  # fmt: skip
    first, second = cli.tmp / "first", cli.tmp / "second"
    assert cli("export", made.stdout.splitlines()[0], "--out", first).returncode == 0
    assert cli("convert", "--quiet", first, "new").stdout == "new\n"
    assert cli("export", cli.tmp / "new", "--out", second).returncode == 0
    for name in ("forward_pass_timing.csv", "batch_utilization.csv", "kv_cache_usage.csv", "kv_cache_evictions.csv"):
        assert len(rows(first / name)) > 0 or name == "kv_cache_evictions.csv"
        theirs, ours = rows(first / name), rows(second / name)
        for row in theirs + ours:  # of a time that was rounded
            row.pop("throughput_tokens_per_sec", None)
        assert ours == theirs, name
    ended = [row for row in rows(first / "request_lifecycle.csv") if row["finished_sec"]]
    again = {row["request_id"]: row for row in rows(second / "request_lifecycle.csv")}
    assert len(ended) > 20 and sum(row["preempted_sec"] != "" for row in ended) > 0
    for row in ended:  # a difference of two times that were rounded
        assert float(again[row["request_id"]]["total_time_sec"]) == pytest.approx(float(row["total_time_sec"]), abs=2e-6)
    operations = [[row for row in rows(at / "cpu_operations_timing.csv") if row["operation"] == "scheduling"]
                  for at in (first, second)]  # fmt: skip
    assert [row["duration_ms"] for row in operations[0]] == [row["duration_ms"] for row in operations[1]]


def test_every_command_reads_such_a_folder_as_it_is(cli, old, tmp_path):
    slow = old_session(tmp_path / "slow", slow=1.1)
    before = sorted(path.name for path in old.iterdir())
    assert "400: 40 prefill" in cli("report", "--text", old).stdout
    assert json.loads(cli("report", "--json", old).stdout)["path"] == str(old)
    answer = json.loads(cli("diff", "--json", old, slow).stdout)
    assert [f"{row['of']} {row['what']}" for row in answer["slower"]][0] == "decode model"
    assert answer["steps"]["decode"]["model"]["change_pct"] == pytest.approx(9.9, abs=1)
    assert any("CSV files" in note for note in answer["notes"])
    assert "sample" not in answer["steps"]["decode"] and "idle" not in answer["steps"]["decode"]
    assert cli("diff", "--fail-over", "5%", old, slow).returncode == 3
    shown = cli("export", old)
    assert shown.returncode == 1 and "they are not replaced" in one_sentence(shown.stderr)
    assert cli("export", old, "--out", "elsewhere").returncode == 0
    assert sorted(path.name for path in old.iterdir()) == before


def test_nothing_is_left_in_the_temporary_folder(cli, old, tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    assert cli("report", "--text", old, env={"TMPDIR": str(temporary)}).returncode == 0
    assert list(temporary.iterdir()) == []
    shown = cli("report", "--text", old, env={"TMPDIR": str(tmp_path / "missing")})
    assert shown.returncode == 1 and "cannot make the folder" in one_sentence(shown.stderr)


def test_the_simple_preset(cli, tmp_path):
    folder = tmp_path / "simple"
    folder.mkdir()
    lines = [f"{0.5 + i / 100:.3f},{'prefill' if i == 0 else 'decode'},2,{64 if i == 0 else 2},{5 + i % 3}.000,1.0\n"
             for i in range(100)]  # fmt: skip
    (folder / "forward_pass_timing.csv").write_text(SIMPLE + "".join(lines))
    text = cli("report", "--text", folder).stdout
    assert "prefill       1" in text and "decode       99" in text
    assert cli("diff", folder, folder).returncode == 0


@pytest.mark.parametrize(
    "name, text, sentence",
    [
        ("forward_pass_timing.csv", "time,phase\n", "line 1: there is no column timestamp_sec, this is no file of the profiler"),
        ("forward_pass_timing.csv", FORWARD.replace("forward_time_ms", "took"), "line 1: there is no column forward_time_ms or duration_ms"),
        ("forward_pass_timing.csv", FORWARD + "0.5,decode,1,1,fast,1\n", 'line 2: "fast" is no number that can stand here'),
        ("forward_pass_timing.csv", FORWARD + "0.5,decode,1,1,5.0,1\n0.6,decode,-3,1,5.0,1\n", 'line 3: "-3" is no number that can stand here'),
        ("forward_pass_timing.csv", FORWARD + "0.5,decode,1,1,nan,1\n", 'line 2: "nan" is no number'),
        ("forward_pass_timing.csv", FORWARD + "0.5,decode,1,1,1e300,1\n", 'line 2: "1e300" is no number'),
        ("forward_pass_timing.csv", FORWARD + "0.5,decode,1,5000000000,5.0,1\n", "line 2: a number in it is larger than it can be"),
        ("forward_pass_timing.csv", FORWARD + "0.5,decode,1\n0.6,decode,1,1,5.0,1\n", "line 2: 3 fields, the header has 6"),
        ("forward_pass_timing.csv", FORWARD + '0.5,"decode,1,1,5.0,1\nx\n', "line 2: a quoted field does not end on its line"),
        ("forward_pass_timing.csv", FORWARD + '0.5,"decode"x,1,1,5.0,1\nx\n', "line 2: there is text behind a quoted field"),
        ("forward_pass_timing.csv", FORWARD + "\0\0\0\n", "line 2: there is a NUL byte in it"),
        ("forward_pass_timing.csv", "," * 100 + "\n", "line 1: there are more than 32 fields in it"),
        ("forward_pass_timing.csv", "x" * 70000 + "\n", "line 1: the line is longer than 64 KiB"),
        ("kv_cache_usage.csv", "timestamp_sec,usage_pct,num_blocks,total_blocks\n1,2,x,4\n", 'line 2: "x" is no number'),
        ("request_lifecycle.csv", "request_id\na\n", "line 1: there is no column started_sec"),
        ("preemption_events.csv", "timestamp_sec,request_id,event\nsoon,a,preempted\n", 'line 2: "soon" is no number'),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence_with_file_and_line(cli, tmp_path, name, text, sentence):
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / name).write_text(text)
    for command in (("convert", folder, "new"), ("report", "--text", folder), ("diff", folder, folder)):
        shown = cli(*command)
        assert shown.returncode == 1
        said = one_sentence(shown.stderr)
        assert f"{folder}/{name}, {sentence}" in said
    assert not (cli.tmp / "new").exists()


def test_half_a_last_line_is_the_end(cli, tmp_path):
    folder = tmp_path / "killed"
    folder.mkdir()
    (folder / "forward_pass_timing.csv").write_text(FORWARD + "0.5,decode,1,1,5.0,1\n" * 3 + "0.6,deco")
    shown = cli("convert", folder, "new")
    assert shown.returncode == 0 and shown.stdout.startswith("3 passes")


def test_files_with_a_header_only_or_nothing_at_all(cli, tmp_path):
    for name, text in (("header", FORWARD), ("empty", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "forward_pass_timing.csv").write_text(text)
        assert cli("report", "--text", tmp_path / name).returncode == 0
        assert "Nothing to compare" in cli("diff", tmp_path / name, tmp_path / name).stdout


def test_misuse(cli: Cli, old, tmp_path):
    assert cli("convert", old).returncode == 2
    (tmp_path / "there").mkdir()
    for words, sentence in (
        ((old, "there"), "there is there already, give another name"),
        ((old, "missing/new"), "there is no folder missing"),
        (("nowhere", "new"), "there is no folder nowhere"),
        (("there", "new"), "has no CSV file of the profiler"),
        ((cli.make_session(), "new"), "it is a session already"),
    ):
        shown = cli("convert", *words)
        assert shown.returncode == 1 and sentence in one_sentence(shown.stderr)
    (tmp_path / "folder" / "forward_pass_timing.csv").mkdir(parents=True)
    (tmp_path / "folder" / "kv_cache_usage.csv").write_text("timestamp_sec,num_blocks,total_blocks\n")
    assert "is no plain file" in one_sentence(cli("convert", "folder", "new").stderr)
