"""profilemate diff: sessions of a made-up server (bench/make_day) compared, and what it says where it cannot compare."""

import json
import math
import re
import subprocess
from pathlib import Path

import pytest
from program import BUILD, ROOT, Cli, one_sentence
from test_completion import offered

MAKE_DAY = BUILD / "bench" / "make_day"


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """A minute and a half each: the same load thrice, a slower model, a slower scheduler, half of the load."""
    folder = tmp_path_factory.mktemp("runs")
    wanted = {
        "base": ("seed=1",),
        "same": ("seed=2",),
        "third": ("seed=3",),
        "model": ("seed=4", "slow_model=1.05"),
        "model2": ("seed=5", "slow_model=1.05"),
        "schedule": ("seed=6", "slow_schedule=3", "model=<b>&made-up"),
        "half": ("seed=7", "requests_per_s=12"),
    }
    made = {}
    for name, words in wanted.items():
        command = [MAKE_DAY, folder / name, "hours=0.025", *words]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
        made[name] = Path(shown.stdout.splitlines()[0])
    return made


def compared(cli: Cli, *words: str | Path) -> dict:
    shown = cli("diff", "--json", *words)
    assert shown.stderr == ""
    return {"code": shown.returncode, **json.loads(shown.stdout)}


def named(answer: dict, key: str = "slower") -> list[str]:
    return [f"{row['of']} {row['what']}" for row in answer[key]]


def test_the_same_load_twice_is_no_alarm(cli, runs):
    for before, after in (("base", "same"), ("same", "base"), ("base", "third"), ("base", "base")):
        answer = compared(cli, "--fail-over", "0%", runs[before], runs[after])
        assert (answer["code"], answer["slower"], answer["failed"]) == (0, [], False)
        assert answer["comparable"] and answer["before"]["matched_time_pct"] > 95
    shown = cli("diff", runs["base"], runs["same"])
    assert shown.returncode == 0
    assert "No change that is certain and larger than 1 %." in shown.stdout


def test_a_slower_part_is_named_first_and_its_interval_holds_the_truth(cli, runs):
    answer = compared(cli, runs["base"], runs["model"])
    assert answer["code"] == 0
    assert named(answer)[0] == "decode model" and "mixed model" in named(answer)
    assert not {"decode schedule", "decode sample", "decode pre", "decode output"} & set(named(answer))
    for kind in ("decode", "mixed"):
        row = answer["steps"][kind]["model"]
        assert row["low_pct"] < 5.0 < row["high_pct"] and row["high_pct"] - row["low_pct"] < 3
        assert row["verdict"] == "slower" and row["cost_s"] > 0
        assert abs(answer["steps"][kind]["sample"]["change_pct"]) < 1
    assert answer["steps"]["all"]["step"]["change_pct"] == pytest.approx(4.2, abs=0.8)
    back = compared(cli, runs["model"], runs["base"])
    assert back["slower"] == [] and named(back, "faster")[0] == "decode model"


def test_a_part_of_little_weight_is_found_as_well(cli, runs):
    answer = compared(cli, runs["base"], runs["schedule"])
    assert "decode schedule" in named(answer) and "decode model" not in named(answer)
    assert answer["steps"]["decode"]["schedule"]["change_pct"] == pytest.approx(200, abs=5)


def test_another_load_is_not_another_speed(cli, runs):
    for before, after in (("base", "half"), ("half", "base")):
        answer = compared(cli, runs[before], runs[after])
        assert answer["slower"] == []
        assert abs(answer["load"]["tokens_per_s"]["change_pct"]) > 30
        assert answer["before"]["matched_time_pct"] < 99.5
        assert answer[("before", "after")[before == "half"]]["unmatched"]


def exact_percentile(values: list[float], percent: int) -> float:
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def test_percentiles_are_those_of_the_requests(cli, runs):
    """Of all requests that were not aborted, whatever the load; and an interval where enough lie beyond."""
    answer = compared(cli, runs["base"], runs["model"])
    times = {"ttft": "ttft_ns", "tpot": "tpot_ns", "e2e": "e2e_ns"}
    for side, run in (("before", "base"), ("after", "model")):
        rows = cli("export", "--quiet", "--format", "json", runs[run]).stdout.splitlines()
        facts = [row for row in map(json.loads, rows) if row["table"] == "requests" and row["reason"] in ("stop", "length")]
        assert len(facts) > 300
        for key, field in times.items():
            values = [row[field] / 1e6 for row in facts if row[field] and (key != "tpot" or row["output_tokens"] > 1)]
            told = answer["requests_raw"][key]
            assert told[f"n_{side}"] == told["p99"][f"n_{side}"] == len(values)
            for percent in (50, 95, 99):
                shown = told[f"p{percent}"][f"{side}_ms"]
                assert shown == pytest.approx(exact_percentile(values, percent), rel=0.016), (key, percent)
    e2e = answer["requests_raw"]["e2e"]
    assert e2e["p50"]["low_pct"] < e2e["p50"]["change_pct"] < e2e["p50"]["high_pct"]
    same = compared(cli, runs["base"], runs["base"])["requests_raw"]["e2e"]["p99"]
    assert same["change_pct"] == 0
    text = cli("diff", runs["base"], runs["model"]).stdout
    assert "E2E p99" in text and "E2E p95" not in text
    assert "E2E p95" in cli("diff", "--all", runs["base"], runs["model"]).stdout


def test_the_exit_code_for_ci(cli, runs):
    assert cli("diff", "--fail-over", "3%", runs["base"], runs["model"]).returncode == 3
    assert cli("diff", "--fail-over=3", runs["base"], runs["model"]).returncode == 3
    assert cli("diff", "--fail-over", "8 %", runs["base"], runs["model"]).returncode == 0
    assert cli("diff", "--fail-over", "3%", runs["model"], runs["base"]).returncode == 0
    assert cli("diff", "--fail-over", "3%", "--min-change", "8%", runs["base"], runs["model"]).returncode == 0


def test_groups(cli, runs):
    sides = [runs["base"], runs["same"], runs["third"], "--", runs["model"], runs["model2"]]
    answer = compared(cli, *sides)
    assert [len(answer[side]["sessions"]) for side in ("before", "after")] == [3, 2]
    assert answer["method"]["degrees_of_freedom"] == 3
    assert "decode model" in named(answer)
    shown = cli("diff", *sides)
    assert "over sessions" in shown.stdout and "One session a side" not in shown.stdout
    assert compared(cli, runs["base"], runs["same"], "--", runs["third"])["slower"] == []


def test_the_same_twice_gives_the_same_bytes(cli, runs):
    first = cli("diff", "--json", runs["base"], runs["model"]).stdout
    assert cli("diff", "--json", runs["base"], runs["model"]).stdout == first
    other = json.loads(cli("diff", "--json", "--seed", "2", "--resamples", "200", runs["base"], runs["model"]).stdout)
    assert other != json.loads(first)
    assert other["steps"]["decode"]["model"]["change_pct"] == json.loads(first)["steps"]["decode"]["model"]["change_pct"]


def test_names_and_their_starts(cli, runs):
    for number, name in enumerate(("base", "model")):
        cli.sessions.mkdir(exist_ok=True)
        (cli.sessions / f"session_2026112{number}_082501").symlink_to(runs[name])
    shown = cli("diff", cli.sessions / "session_20261120_082501", cli.sessions / "session_20261121_082501")
    assert (shown.returncode, shown.stderr) == (0, "")


def test_a_page_that_needs_nothing_else(cli, runs):
    page = cli.tmp / "diff.html"
    shown = cli("diff", "--html", page, "--fail-over", "1%", runs["base"], runs["schedule"])
    assert shown.returncode == 3
    text = page.read_text()
    assert text.startswith("<!doctype html>") and text.rstrip().endswith("</html>")
    assert not re.search(r"<script|<link|https?://|url\(|@import", text)
    assert "<b>&made-up" not in text and "&lt;b&gt;&amp;made-up" in text
    assert text.count("<tr") == text.count("</tr>") and text.count("<table") == text.count("</table>") == 4
    assert "exceeded" in text and "200" in text
    assert cli("diff", "--html", cli.tmp / "no" / "diff.html", runs["base"], runs["same"]).returncode == 1


def test_the_manual_names_every_member_of_the_json(cli, runs):
    page = (ROOT / "man" / "profilemate-diff.1").read_text().replace("\\-", "-")
    answer = compared(cli, runs["base"], runs["model"])
    for key in set(answer) - {"code"} | set(answer["steps"]["decode"]["model"]) | {"sessions"}:
        assert f"\\fB{key}\\fR" in page, key


def test_text_fits_its_columns_and_has_no_colour_in_a_pipe(cli, runs):
    for words in ((), ("--all",)):
        shown = cli("diff", *words, runs["base"], runs["model"])
        assert "\033" not in shown.stdout
        assert max(len(line) for line in shown.stdout.splitlines()[3:]) <= 120
        assert all(len(line) <= 96 for line in shown.stdout.split("What this rests on")[1].splitlines())


def test_what_cannot_be_compared_is_said(cli, runs):
    empty = cli.make_session("end=none", "name=session_20261120_000000")
    for words, sentence in (
        ((empty, runs["base"]), "Nothing to compare: there is no step on one side."),
        ((runs["base"], empty), "Nothing to compare: there is no step on one side."),
    ):
        shown = cli("diff", *words)
        assert (shown.returncode, shown.stderr) == (0, "") and sentence in shown.stdout
        assert cli("diff", "--json", *words).returncode == 0
        shown = cli("diff", "--fail-over", "5%", *words)
        assert shown.returncode == 4 and "cannot tell" in one_sentence(shown.stderr)
    tiny = [cli.make_session("steps=8", f"name=session_2026112{n}_111111") for n in (1, 2)]
    shown = cli("diff", "--fail-over", "5%", *tiny)
    assert shown.returncode == 4 and "Nothing can be said" in shown.stdout and "too few" in shown.stdout
    other = cli.make_session("steps=2000", "name=session_20261123_111111")
    shown = cli("diff", other, runs["base"])
    assert shown.returncode == 0 and "the model differs: made-up/model" not in shown.stdout
    assert "in the KV cache is not known on one side" in shown.stdout


def test_damaged_and_running_sessions(cli, runs):
    cut = cli.tmp / "cut"
    subprocess.run(["cp", "-r", runs["same"], cut], check=True)
    record = next((cut / "records").glob("*.pmrec"))
    with record.open("r+b") as file:
        file.truncate(record.stat().st_size // 2)
    shown = cli("diff", runs["base"], cut)
    assert shown.returncode == 0 and "Steps of the same composition" in shown.stdout
    record.write_bytes(b"nonsense" * 1000)
    assert cli("diff", runs["base"], cut).returncode == 0
    held, process = cli.hold_session("steps=400")
    try:
        assert cli("diff", held, held).returncode == 0
    finally:
        process.stdin.close()
        process.wait(180)


@pytest.mark.parametrize(
    "words, sentence",
    [
        ((), "diff needs [options] BEFORE AFTER"),
        (("a",), "diff needs [options] BEFORE AFTER"),
        (("a", "b", "c"), "3 sessions and no `--`, put it between those before and those after"),
        (("--", "a", "b"), "there is no session before `--`, give at least one"),
        (("a", "--", "b", "--json"), "--json comes behind `--`, give options before it"),
        (("--fail-over", "fast", "a", "b"), "--fail-over=fast is no percentage, give for example 5%"),
        (("--fail-over=-3%", "a", "b"), "--fail-over=-3% is no percentage, give for example 5%"),
        (("--fail-over=nan", "a", "b"), "--fail-over=nan is no percentage, give for example 5%"),
        (("--min-change=5%%", "a", "b"), "--min-change=5%% is no percentage, give for example 1%"),
        (("--resamples=3", "a", "b"), "--resamples=3 is out of range, give 100 to 20000"),
    ],
)
def test_a_misuse_is_one_sentence(cli, words, sentence):
    shown = cli("diff", *words)
    assert (shown.returncode, shown.stdout) == (2, "")
    assert one_sentence(shown.stderr) == f"profilemate: {sentence}"


def test_what_is_no_session(cli, runs):
    (cli.tmp / "folder").mkdir()
    for words in ((cli.tmp / "folder", runs["base"]), (runs["base"], cli.tmp / "missing"), (runs["base"], "nobody")):
        shown = cli("diff", *words)
        assert (shown.returncode, shown.stdout) == (1, "")
        one_sentence(shown.stderr)


def test_completion_offers_sessions_on_both_sides_of_the_dashes(cli):
    session = cli.make_session()
    assert offered(cli, "diff", "session_") == [session.name]
    assert offered(cli, "diff", "one", "--", "session_") == [session.name]
    assert offered(cli, "diff", "--fail") == ["--fail-over"]
