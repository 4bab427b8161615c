"""The manual pages say what the program takes, all of it and nothing else, and format without a warning."""

import re
import shutil
import subprocess

import pytest
from program import ROOT

MAN = ROOT / "man"
COMMANDS = re.findall(r'^X\((\w+),\s*\w+,\s*\w+,', (ROOT / "src" / "cmd" / "cmds.def").read_text(), re.M)
SETTINGS = re.findall(
    r'^X\(\w+,\s*(\w+),\s*"(\w+)",\s*"([\w-]+)",\s*"([^"]*)",\s*(-?\d+),\s*(-?\d+)',
    (ROOT / "src" / "base" / "settings.def").read_text(),
    re.M,
)


def plain(roff: str) -> str:
    return re.sub(r"\\f[BIRP]|\\&", "", roff).replace("\\-", "-").replace("\\e", "\\")


def options_of_help(text: str) -> dict[str, str]:
    """Long options to their metavar, as --help lists them; --[no-]x gives both."""
    found = {}
    for letter, name, metavar in re.findall(r"^  (-\w, |    )--(\S+?)(?:=(\S+))?(?:  .*)?$", text, re.M):
        names = [name[5:], "no-" + name[5:]] if name.startswith("[no-]") else [name]
        found.update({each: (letter.strip(" ,"), metavar) for each in names})
    return found


def options_of_page(text: str) -> dict[str, str]:
    """The same from the tags of a page: what follows .TP and begins with an option."""
    found = {}
    for tag in re.findall(r"^\.TP\n(\\fB\\-.*)$", text, re.M):
        tag = plain(tag)
        letter = re.match(r"(-\w), ", tag)
        for name, metavar in re.findall(r"--([\w-]+)(?:=(\S+))?", tag):
            found[name] = (letter.group(1) if letter else "", metavar)
    return found


def test_each_command_has_its_page_and_each_page_its_command():
    assert {p.name for p in MAN.iterdir()} == {
        "profilemate.1",
        "profilemate-session.5",
        *(f"profilemate-{command}.1" for command in COMMANDS),
    }
    overview = plain((MAN / "profilemate.1").read_text())
    for command in COMMANDS:
        assert f".BR profilemate-{command} (1)" in overview


@pytest.mark.parametrize("command", COMMANDS)
def test_a_page_has_the_options_of_its_command(cli, command):
    taken = options_of_help(cli(command, "--help").stdout)
    told = options_of_page((MAN / f"profilemate-{command}.1").read_text())
    assert "help" in taken
    if command == "env":  # its page refers to that of run for the settings
        settings = {name for _, _, name, *_ in SETTINGS}
        taken = {n: v for n, v in taken.items() if n.removeprefix("no-") not in settings or n == "no-pythonpath"}
        assert "profilemate-run" in plain((MAN / "profilemate-env.1").read_text())
    assert told == taken


def test_run_and_env_take_every_setting(cli):
    for command in ("run", "env"):
        taken = options_of_help(cli(command, "--help").stdout)
        for kind, _, option, *_ in SETTINGS:
            assert option in taken
            assert ("no-" + option in taken) == (kind == "BOOL")


def test_the_page_of_run_has_each_settings_variable_range_and_default():
    page = plain((MAN / "profilemate-run.1").read_text())
    assert len(SETTINGS) > 20
    for kind, variable, option, default, low, high in SETTINGS:
        entry = re.search(rf"^--{option}[=,].*\n((?:(?!\.TP).*\n)*)", page, re.M)
        assert entry, f"no entry for --{option}"
        assert f"Variable VLLM_PROFILING_{variable}" in entry.group(1)
        shown = {"1": "on", "0": "off"}[default] if kind == "BOOL" else default or "none"
        assert f"Default: {shown}.\n" in entry.group(1)
        if kind == "INT":
            assert f"a whole number from {low} to {high}." in entry.group(1)
    variables = set(re.findall(r"VLLM_PROFILING_([A-Z_]+)", page)) - {"SESSION", "X"}
    assert variables == {variable for _, variable, *_ in SETTINGS}


@pytest.mark.parametrize("page", sorted(MAN.iterdir()), ids=lambda p: p.name)
def test_a_page_formats_without_a_warning(page):
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("groff is not installed")
    shown = subprocess.run(
        [groff, "-t", "-man", "-Tutf8", "-ww", page], capture_output=True, text=True, encoding="utf-8", timeout=60
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"{page.stem.upper()}({page.suffix[1:]})" in shown.stdout


@pytest.mark.parametrize("page", sorted(MAN.iterdir()), ids=lambda p: p.name)
def test_a_page_names_only_pages_that_exist(page):
    for name, section in re.findall(r"(profilemate[\w-]*)\s*\((\d)\)", plain(page.read_text())):
        assert (MAN / f"{name}.{section}").exists(), f"{page.name} names {name}({section})"


def test_the_formats_page_has_the_offsets_of_the_layout(tmp_path):
    """Each row of the page's tables lies where the compiler puts that field."""
    fields = {
        "pm_file_head": "magic version header_bytes segment_bytes live_offset live_bytes pid ppid uid token "
        "process_start_ticks opened comm roles engine rank state heartbeat_ns closed_ns slots lost recycled faults "
        "hook_calls hook_ns live_index threads",
        "pm_segment_head": "magic index stream flags first_ordinal first_fact clock sealed_bytes",
    }
    prints = "".join(
        f'printf("%zu %zu\\n", offsetof(struct {s}, {m}), sizeof(((struct {s} *)0)->{m}));\n'
        for s, members in fields.items()
        for m in members.split()
    )
    source = tmp_path / "offsets.c"
    source.write_text(
        f'#include <stdio.h>\n#include <stddef.h>\n#include "session/layout.h"\nint main(void) {{\n{prints}}}\n'
    )
    subprocess.run(["cc", "-std=gnu11", f"-I{ROOT / 'src'}", source, "-o", tmp_path / "offsets"], check=True)
    compiled = subprocess.run([tmp_path / "offsets"], capture_output=True, text=True, check=True).stdout
    sizes = {"u32": 4, "i32": 4, "u64": 8, "u64[4]": 32, "triple": 24, "16 bytes": 16, "char[16]": 16}
    sizes["16 bytes x 16"] = 256
    page = plain((MAN / "profilemate-session.5").read_text())
    rows = re.findall(r"^(\d+)@([^@]+)@", page, re.M)
    assert [f"{offset} {sizes[kind]}" for offset, kind in rows] == compiled.split("\n")[:-1]
