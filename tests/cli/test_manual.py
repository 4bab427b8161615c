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
        [groff, "-t", "-man", "-Tutf8", "-ww", page], capture_output=True, text=True, encoding="utf-8", timeout=180
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


# ---- environment variables and exit codes: those of the code and those of the pages ----

# Read by the code and told nowhere, each for a reason.
NOT_FOR_USERS = {
    "PROFILEMATE_RUN": "`run` sets it for its command",
    "PROFILEMATE_PRESET": "a setting, by its other spelling",
    "PROFILEMATE_TEST_DRIVER": "stands for the device's library in tests",
}


def all_pages() -> str:
    return "\n".join(plain(page.read_text()) for page in sorted(MAN.iterdir()))


def variables_of_the_code() -> set[str]:
    found = set()
    for path in (ROOT / "src").rglob("*.c"):
        found |= set(re.findall(r'getenv\("([A-Z][A-Z0-9_]+)"\)', path.read_text()))
    return found


def test_every_variable_that_is_read_is_in_the_manual():
    read, told = variables_of_the_code(), all_pages()
    assert len(read) > 10
    missing = {name for name in read - set(NOT_FOR_USERS) if not re.search(rf"(?<![A-Z_]){name}(?![A-Z_])", told)}
    assert missing == set()
    assert set(NOT_FOR_USERS) <= read | {"PROFILEMATE_TEST_DRIVER"}


def test_every_variable_of_the_manual_is_read():
    code = "\n".join(p.read_text() for p in (ROOT / "src").rglob("*") if p.suffix in (".c", ".h", ".def", ".py"))
    for page in sorted(MAN.iterdir()):
        section = re.search(r"^\.SH ENVIRONMENT\n(.*?)(?=^\.SH |\Z)", page.read_text(), re.M | re.S)
        tags = re.findall(r"^\.TP\n(.*)$", plain(section.group(1)), re.M) if section else []
        for name in re.findall(r"[A-Z][A-Z0-9_]{2,}(?<!_)", " ".join(tags)):
            known = name in code or name.removeprefix("VLLM_PROFILING_") in code
            assert known, f"{page.name}: nothing reads {name}"


def test_exit_codes_are_those_of_the_code():
    header = (ROOT / "src" / "cmd" / "cmd.h").read_text()
    codes = {name: int(value) for name, value in re.findall(r"^    PM_EXIT_(\w+) = (\d+),", header, re.M)}
    assert codes.keys() >= {"OK", "FAILED", "MISUSE"}
    used = {
        path.stem: set(re.findall(r"PM_EXIT_(\w+)", path.read_text())) for path in (ROOT / "src" / "cmd").glob("*.c")
    }
    for command in COMMANDS:
        page = plain((MAN / f"profilemate-{command}.1").read_text())
        section = re.search(r"^\.SH EXIT STATUS\n(.*?)(?=^\.SH |\Z)", page, re.M | re.S)
        assert section, f"profilemate-{command}.1 has no EXIT STATUS"
        told = {int(n) for n in re.findall(r"(?<![\d+-])\d+\b", section.group(1))}
        special = {codes[name] for name in used.get(command, set()) - {"OK", "FAILED", "MISUSE"}}
        own = {126, 127, 128} if command == "run" else set()
        assert told >= {codes["MISUSE"]} | special, command
        assert told <= {codes["OK"], codes["FAILED"], codes["MISUSE"]} | special | own, command


def test_a_misuse_is_2_and_a_failure_1(cli):
    for command in COMMANDS:
        shown = cli(command, "--no-such-option")
        assert shown.returncode == 2 and shown.stderr.startswith("profilemate"), command
    assert cli("no-such-command").returncode == 2
    assert cli("report", "--text", "no-such-session").returncode == 1
