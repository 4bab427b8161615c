"""The completion of bash: what Tab offers at each place."""

import re
import shutil
import subprocess

import pytest
from program import PROGRAM, ROOT

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")


def offered(cli, *words: str) -> list[str]:
    """What Tab offers for the last word."""
    quoted = " ".join(f"'{word}'" for word in (str(PROGRAM), *words))
    script = (
        f"source '{ROOT}/completion/profilemate.bash'; COMP_WORDS=({quoted}); COMP_CWORD={len(words)}; "
        f"_profilemate '{PROGRAM}'; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    shown = subprocess.run(
        ["bash", "--norc", "-c", script], env=cli.environment(), capture_output=True, text=True, timeout=180
    )
    assert shown.stderr == ""
    return sorted(shown.stdout.split())


def test_commands(cli):
    assert offered(cli, "") == sorted(
        [*re.findall(r"^X\((\w+),", (ROOT / "src" / "cmd" / "cmds.def").read_text(), re.M), "--help", "--version"]
    )
    assert offered(cli, "sess") == ["sessions"]
    assert offered(cli, "help", "do") == ["doctor"]


def test_options(cli):
    assert offered(cli, "run", "--no-py") == ["--no-pythonpath"]
    assert offered(cli, "run", "--preset") == ["--preset"]
    assert set(offered(cli, "run", "--")) >= {"--nvtx", "--no-nvtx", "--quiet", "--dir", "--help", "--moe-expert-tracking"}
    assert offered(cli, "export", "--f") == ["--format"]


def test_sessions(cli):
    session = cli.make_session()
    for command in ("export", "report", "functions", "doctor"):
        assert offered(cli, command, "session_") == [session.name]


def test_the_command_behind_the_dashes_is_not_ours(cli):
    (cli.tmp / "home").mkdir(exist_ok=True)
    assert "--preset" not in offered(cli, "run", "--", "ls", "--p")


def test_the_formats_of_export(cli):
    formats = ["arrow", "chrome", "csv-native", "json", "openmetrics", "parquet", "perfetto", "seed"]
    assert offered(cli, "export", "--format", "") == formats
    assert offered(cli, "export", "-f", "p") == ["parquet", "perfetto"]
    assert offered(cli, "export", "--format", "=", "cs") == ["csv-native"]
    assert offered(cli, "export", "--format", "=") == formats


def test_the_formats_of_trace(cli):
    assert offered(cli, "trace", "--format", "") == ["csv", "html", "json", "table"]
    assert offered(cli, "trace", "--format", "=", "h") == ["html"]


def test_the_queries_of_fleet(cli):
    queries = sorted(path.stem for path in (ROOT / "python" / "profilemate" / "fleet").glob("*.sql"))
    assert len(queries) == 7 and set(queries) <= set(offered(cli, "fleet", ""))
    assert offered(cli, "fleet", "strag") == ["stragglers"]
    assert offered(cli, "fleet", "--pa") == ["--param"]
