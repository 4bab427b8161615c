"""Sessions of every format that a release has ever written are read for good.

`fixtures/sessions-vN.tar.xz` was made by the release that brought format N in: sessions of a made-up server, one closed and one
killed, and what `export --format json` printed of their records then. Fixtures are added, never made anew: a change
that cannot read one has to bring a new version, and keep reading this one.
"""

import json
import re
import shutil
import tarfile
from collections import defaultdict

import pytest
from program import ROOT

FIXTURES = sorted((ROOT / "tests" / "cli" / "fixtures").glob("sessions-v*.tar.xz"))


def rows_of(text: str) -> dict[str, list[dict]]:
    tables = defaultdict(list)
    for line in text.splitlines():
        row = json.loads(line)
        tables[row.pop("table")].append(row)
    return tables


@pytest.fixture(params=FIXTURES, ids=lambda path: path.name.removesuffix(".tar.xz"))
def old(request, tmp_path):
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    for path in (tmp_path / "sessions").rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return tmp_path


def test_there_is_a_fixture_of_this_format():
    (version,) = re.findall(r"#define PM_FORMAT_VERSION (\d+)", (ROOT / "src/session/layout.h").read_text())
    assert {f"sessions-v{n}.tar.xz" for n in range(1, int(version) + 1)} == {path.name for path in FIXTURES}


def test_every_record_is_read_as_it_was(cli, old):
    sessions = sorted((old / "sessions").iterdir())
    assert len(sessions) == 2
    for session in sessions:
        now = rows_of(cli("export", "--format=json", session).stdout)
        then = rows_of((old / f"{session.name}.jsonl").read_text())
        assert len(then) >= 5 and sum(map(len, then.values())) > 500
        for table, rows in then.items():
            assert len(now[table]) == len(rows), table
            for was, became in zip(rows, now[table], strict=True):
                assert {key: became.get(key) for key in was} == was, table


def test_every_command_reads_them(cli, old):
    closed, killed = sorted((old / "sessions").iterdir())
    listed = json.loads(cli("sessions", "--json", "--dir", old / "sessions").stdout)
    assert str(closed) in json.dumps(listed) and str(killed) in json.dumps(listed)
    for words in (("report", "--json"), ("explain", "--json"), ("doctor", "--json"), ("postmortem", "--json")):
        for session in (closed, killed):
            shown = cli(*words, session)
            assert shown.returncode in (0, 1) and json.loads(shown.stdout), (words, shown.stderr)
            assert '"damage"' not in shown.stdout and not re.search(r'"damaged_segments": [1-9]', shown.stdout), words
    for session in (closed, killed):
        shown = cli("export", session)
        assert shown.returncode == 0, shown.stderr
        assert (session / "forward_pass_timing.csv").read_text().count("\n") > 50


def test_a_format_of_the_future_is_told(cli, old):
    """An older program beside newer sessions: a sentence, and no guess."""
    closed, _ = sorted((old / "sessions").iterdir())
    future = shutil.copytree(closed, old / "sessions" / "session_20991231_235959")
    text = (future / "session").read_text()
    (future / "session").write_text(re.sub(r"^version \d+", "version 99", text, flags=re.M))
    shown = cli("report", "--text", future)
    assert shown.returncode == 1 and "99" in shown.stderr and len(shown.stderr.splitlines()) <= 2, shown.stderr
