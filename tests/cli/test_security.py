"""What SECURITY.md promises of the binaries and of values that others choose.

Who else could plant what in the sessions' folder is in test_sessions.py and tests/unit/test_birth.c; that nothing of a
prompt is recorded, in tests/e2e/test_full_preset.py; damaged files, in tests/unit and tests/fuzz.
"""

import os
import re
import shlex
import shutil
import subprocess
import tempfile

import pytest
from program import BUILD, PROGRAM, SITE, one_sentence

EXTENSIONS = [SITE / "sitecustomize.abi3.so", SITE / "simple" / "sitecustomize.abi3.so"]
READER = BUILD / "python" / "profilemate" / "_reader.abi3.so"
BINARIES = [PROGRAM, *EXTENSIONS, READER]
SANITIZED = b"__asan_init" in PROGRAM.read_bytes() or b"__tsan_init" in PROGRAM.read_bytes() if PROGRAM.exists() else False


def read(tool: str, *words) -> str:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    return subprocess.run([tool, *words], capture_output=True, text=True, check=True, env={**os.environ, "LC_ALL": "C"}).stdout


# ---- the binaries ----


@pytest.mark.skipif(SANITIZED, reason="a sanitizer's build is not hardened")
@pytest.mark.parametrize("binary", BINARIES, ids=lambda path: str(path.relative_to(BUILD)))
def test_the_usual_hardening(binary):
    """Position independent, all of it; relocations read-only and bound at the start; no executable stack; canaries
    and checked copies; no search path of its own."""
    segments = read("readelf", "-lW", binary)
    assert re.search(r"^Elf file type is DYN", segments, re.M)
    assert "GNU_RELRO" in segments
    assert re.search(r"GNU_STACK\s+(?:0x\w+\s+){5}RW ", segments), "the stack may be executed"
    assert not re.search(r"LOAD\s.*RWE", segments), "a segment may be written and executed"
    dynamic = read("readelf", "-dW", binary)
    assert "BIND_NOW" in dynamic and not re.search(r"R(UN)?PATH|TEXTREL", dynamic)
    symbols = read("nm", "-D", "--undefined-only", binary)
    assert "__stack_chk_fail" in symbols
    assert re.search(r"__\w+_chk\b(?<!__stack_chk_fail)", symbols), "not built with _FORTIFY_SOURCE"


def imports(binary) -> set[str]:
    return {line.split()[-1].split("@")[0] for line in read("nm", "-D", "--undefined-only", binary).splitlines()}


@pytest.mark.parametrize("binary", BINARIES, ids=lambda path: str(path.relative_to(BUILD)))
def test_nothing_that_starts_a_shell_or_makes_guessable_files(binary):
    banned = {"system", "popen", "wordexp", "gets", "tmpnam", "tempnam", "mktemp", "tmpfile", "dlmopen"}
    assert not imports(binary) & banned


@pytest.mark.parametrize("binary", [*EXTENSIONS, READER], ids=lambda path: str(path.relative_to(BUILD)))
def test_the_serving_process_has_no_network_of_ours(binary):
    names = imports(binary)
    assert len(names) > 20
    assert not names & {"connect", "accept", "accept4", "listen", "getaddrinfo", "gethostbyname", "sendto", "recvfrom"}


# ---- values are values ----

HOSTILE = "x'; touch pwned; $(touch pwned) `touch pwned` \"$HOME\" && touch pwned\n|touch pwned; #"


def no_one_was_started(folder) -> bool:
    return not list(folder.rglob("pwned"))


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "zsh"])
def test_what_env_prints_is_quoted(cli, tmp_path, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    place = tmp_path / "a dir; touch pwned $(touch pwned)'\"`touch pwned`"
    place.mkdir()
    shown = cli("env", "--dir", place, "--custom-scopes", HOSTILE.replace("\n", " ").replace(",", ""))
    assert shown.returncode == 0, shown.stderr
    done = subprocess.run(
        [shell, "-c", f"{shown.stdout}\nprintf %s \"$VLLM_PROFILING_DIR\""], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, str(place), "")
    assert no_one_was_started(tmp_path)


def test_run_passes_words_on_as_they_are(cli, tmp_path):
    shown = cli("run", "--", "printf", "%s|", HOSTILE, "$HOME", "*", "")
    assert shown.stdout.startswith(f"{HOSTILE}|$HOME|*||"), shown.stdout
    assert no_one_was_started(tmp_path)


def test_a_session_full_of_hostile_values(cli, tmp_path):
    """As a model's or a session's name, in every form that the program writes."""
    session = cli.make_session(f"attr.model={HOSTILE}", f"attr.command={HOSTILE}", f"attr.note.x={HOSTILE}", "steps=40")
    hostile = session.with_name("session_$(touch pwned);touch pwned`touch pwned`'")
    session.rename(hostile)
    for words in (
        ("report", "--text"), ("report", "--json"), ("report",), ("explain",), ("doctor",), ("postmortem",),
        ("export", "--out", tmp_path / "o"), ("export", "--format=openmetrics"), ("export", "--format=chrome"),
    ):  # fmt: skip
        shown = cli(*words, hostile)
        assert shown.returncode in (0, 1), (words, shown.stderr)
        assert "\x1b" not in shown.stdout + shown.stderr
    assert no_one_was_started(tmp_path)


def test_the_export_is_started_without_a_shell(cli, tmp_path):
    """--format=arrow starts Python: the words reach it as they are."""
    seen = tmp_path / "seen"
    fake = tmp_path / "python $(touch pwned);'"
    fake.write_text(f"#!/bin/sh\nfor word; do printf '%s\\0' \"$word\"; done >{shlex.quote(str(seen))}\n")
    fake.chmod(0o755)
    session = cli.make_session("steps=4")
    target = tmp_path / "out $(touch pwned) `touch pwned`"
    cli("export", "--format=arrow", f"--python={fake}", f"--out={target}", session)
    assert str(target) in seen.read_text().split("\0")
    assert no_one_was_started(tmp_path)


# ---- writing where somebody else could plant something ----


def test_no_link_that_waits_at_an_output_is_written_through(cli, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    session = cli.make_session("steps=40")
    names = ("forward_pass_timing.csv", "metadata.json", "report.html", "session_info.json", "batch_utilization.csv")
    for name in names:
        (session / name).unlink(missing_ok=True)
        (session / name).symlink_to(victim)
    for words in (("export",), ("report",)):
        shown = cli(*words, session)
        assert shown.returncode in (0, 1), shown.stderr
    assert victim.read_text() == "mine"


def test_links_pipes_and_devices_among_the_records_are_not_opened(cli, tmp_path):
    """Nothing hangs on a pipe, reads /dev/zero to its end, or follows a link out of the session."""
    session = cli.make_session("steps=40")
    (record,) = session.glob("records/*.pmrec")
    elsewhere = tmp_path / "elsewhere.pmrec"
    shutil.copy(record, elsewhere)
    records = record.parent
    os.mkfifo(records / "engine-1.pmrec")
    (records / "engine-2.pmrec").symlink_to("/dev/zero")
    (records / "engine-3.pmrec").symlink_to(elsewhere)
    (records / "engine-4.pmrec").mkdir()
    for words in (("report", "--json"), ("doctor", "--json"), ("export", "--format=json"), ("sessions",)):
        shown = cli(*words, *(() if words[0] == "sessions" else (session,)), timeout=600)
        assert shown.returncode in (0, 1), (words, shown.stderr)
    whole = cli("export", "--format=json", session).stdout
    assert whole.count('"table":"sched_step"') == 40 or whole.count('"table": "sched_step"') == 40


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a second user")
def test_another_user_cannot_read_a_session(cli):
    """In a folder that all may enter, with a program that all may run: the session's own mode keeps them out."""
    with tempfile.TemporaryDirectory(prefix="profilemate-test-") as folder:
        os.chmod(folder, 0o755)
        session = cli.make_session("steps=4", directory=os.path.join(folder, "sessions"))
        program = shutil.copy(PROGRAM, folder)

        def read_as(uid: int) -> subprocess.CompletedProcess:
            return subprocess.run(
                [program, "report", "--text", session],
                user=uid, group=uid, extra_groups=[], cwd="/", env=cli.environment(HOME="/nonexistent"),
                capture_output=True, text=True, timeout=600,
            )  # fmt: skip

        assert read_as(0).returncode == 0
        theirs = read_as(12345)
        assert theirs.returncode == 1 and "may not read the session" in one_sentence(theirs.stderr), theirs
