"""What the documents say is what there is: tables, files, options, variables, decisions, links."""

from __future__ import annotations

import functools
import json
import re
import shlex
import subprocess

import pytest
import tables
from blocks import ROOT, documents, parse
from running import serving

ALL = [pytest.param(path, id=str(path.relative_to(ROOT))) for path in documents()]


@pytest.mark.parametrize("path", [pytest.param(path, id=path.name) for path in tables.documents()])
def test_tables_are_up_to_date(path):
    text = path.read_text()
    assert text == tables.updated(text), "run: python3 tests/docs/tables.py --write"


def test_every_table_of_the_source_stands_somewhere():
    named = {match[2] for path in tables.documents() for match in tables.PLACE.finditer(path.read_text())}
    assert named == set(tables.TABLES)


# ---- files ----


def files_in_the_readme() -> dict[str, str]:
    """The names in the table of "What you get", and when they are there."""
    section = (ROOT / "README.md").read_text().split("## What you get")[1].split("\n## ")[0]
    found = {}
    for line in section.splitlines():
        if cells := re.fullmatch(r"\| (`[^|]*) \|[^|]*\| ([^|]*) \|", line):
            for name in re.findall(r"`([^`]+)`", cells[1]):
                found[name.rstrip("/")] = cells[2]
    return found


@pytest.mark.parametrize("preset", ["full", "simple"])
def test_the_readme_has_the_files_that_a_session_has(preset, session_of, world):
    session = world.copy_of(session_of(preset))
    promised = files_in_the_readme()
    real = {path.name for path in session.iterdir()} - {"session"}
    assert real <= set(promised), "these are not in README.md's table of files"
    missing = {name for name, when in promised.items() if when in ("always", f"preset `{preset}`")} - real
    assert not missing, f"README.md promises these, and a session with the preset {preset} does not have them"


# ---- commands and settings ----


@functools.cache
def options_of(command: str) -> set[str]:
    shown = subprocess.run([serving.PROGRAM, *command.split(), "--help"], capture_output=True, text=True, timeout=180)
    assert shown.returncode == 0, f"there is no `profilemate {command}`: {shown.stderr}"
    found = set()
    for both, name in re.findall(r"--(\[no-\])?([a-z][a-z-]*)", shown.stdout):
        found |= {f"--{name}", f"--no-{name}"} if both else {f"--{name}"}
    return found | set(re.findall(r"(?<!\S)-[a-zA-Z]\b", shown.stdout))


def calls(text: str) -> list[list[str]]:
    """The words of each `profilemate …` in a document's code, without what follows `--`."""
    code = [block for block in re.findall(r"```\w*\n(.*?)```", text, re.S)]
    code += re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"```.*?```", "", text, flags=re.S))
    found = []
    for part in code:
        part = re.sub(r"\$\([^)]*\)", "", part.replace("\\\n", " "))
        for match in re.finditer(r"(?:^|[\s(|;])profilemate ([^\n|;)#&]*)", part):
            words = [word.strip("\"'") for word in match[1].split()]
            found.append(words[: words.index("--")] if "--" in words else words)
    return found


def group_of(words: list[str]) -> str:
    """The sub-command, also where it has two words."""
    two = " ".join(words[:2])
    if len(words) > 1 and re.fullmatch(r"[a-z]+", words[1]):
        shown = subprocess.run([serving.PROGRAM, *words[:2], "--help"], capture_output=True, text=True, timeout=180)
        if shown.returncode == 0 and shown.stdout.startswith(f"usage: profilemate {two} "):
            return two
    return words[0]


@pytest.mark.parametrize("path", ALL)
def test_every_command_and_option_exists(path):
    for words in calls(path.read_text()):
        if not words or words[0].startswith("-"):
            assert not words or words[0] in ("--version", "--help"), words
            continue
        if not re.fullmatch(r"[a-z]+", words[0]):
            continue  # `profilemate COMMAND`
        known = options_of(group_of(words))
        used = {word.split("=")[0] for word in words[1:] if re.match(r"--?[a-zA-Z]", word)}
        assert used <= known, f"`profilemate {' '.join(words)}`: no such option"


def test_every_variable_exists():
    suffixes = {row[2] for row in tables.rows_of(ROOT / "src/base/settings.def", "X")}
    known = {f"{prefix}_{suffix}" for prefix in ("VLLM_PROFILING", "PROFILEMATE") for suffix in suffixes}
    known |= {"VLLM_ENABLE_PROFILING", "PROFILEMATE_ENABLE", "VLLM_PROFILING_SESSION", "PROFILEMATE_RUN"}
    known |= {"PROFILEMATE_VENV"}
    for path in documents():
        used = set(re.findall(r"\b(?:VLLM_PROFILING|VLLM_ENABLE|PROFILEMATE)_[A-Z_]*[A-Z]\b", path.read_text()))
        assert used <= known, path


# ---- when it is active ----


def decisions() -> list[tuple[str, bool]]:
    section = (ROOT / "docs" / "PATCH_FLOW.md").read_text().split("## When it is active")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)`[^|]* \| (on|off)\b", section, re.M)
    return [(command, word == "on") for command, word in rows]


def test_the_table_of_decisions_has_both():
    assert {on for _, on in decisions()} == {True, False} and len(decisions()) > 10


@pytest.mark.parametrize(("command", "on"), decisions())
def test_when_it_is_active(command, on, world, tmp_path):
    """What doctor says of the command, with our folder on PYTHONPATH; it asks the gate that the extension asks."""
    for script in ("train.py", "my_script.py"):
        (tmp_path / script).write_text("from vllm import LLM\n")
    environment = world.environment(tmp_path / "sessions", PYTHONPATH=str(serving.BUILD / "site"))
    shown = subprocess.run(
        [serving.PROGRAM, "doctor", "--json", "--", *shlex.split(command)],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    (verdict,) = [check for check in json.loads(shown.stdout)["checks"] if check["id"] == "gate"]
    assert (verdict["status"] == "ok") == on, verdict


# ---- links ----


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as they are made of them."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M):
        plain = re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return found


@pytest.mark.parametrize("path", ALL)
def test_links_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        there = (path.parent / name).resolve() if name else path
        assert there.exists(), f"{target}: there is no such file"
        if anchor:
            assert anchor in anchors(there.read_text()), f"{target}: there is no such heading"


@pytest.mark.parametrize("path", ALL)
def test_named_files_exist(path):
    """A path of the repository in backquotes is one."""
    for name in re.findall(r"`((?:src|docs|tests|bench|scripts|man|cmake)/[\w./-]+)`", path.read_text()):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("path", ALL)
def test_comments_of_the_runner_are_understood(path):
    parse(path)
