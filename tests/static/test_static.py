"""What compilers and analysers say of src/: nothing, or what known.txt has with the reason why it stands.

gcc's warnings are errors in every build. Here come those of clang, of clang-tidy (.clang-tidy has the checks and why
others are off), of cppcheck, and of gcc's own analyser. What a tool finds depends on its release: known.txt was written
for those in KNOWN_FOR, others are skipped.
"""

import os
import re
import shutil
import subprocess

import pytest
import tools

KNOWN_FOR = {"clang-tidy": "14.0", "cppcheck": "2.10", "gcc": "12."}


def needs(tool: str) -> None:
    version = tools.version(tool)
    if not version:
        pytest.skip(f"{tool} is not installed")
    if not version.startswith(KNOWN_FOR[tool]):
        pytest.skip(f"{tool} {version}: tests/static/known.txt is for {KNOWN_FOR[tool].rstrip('.')}")


@pytest.fixture(scope="session")
def units():
    found = tools.units()
    here = {str(path.relative_to(tools.ROOT)) for path in (tools.ROOT / "src").rglob("*.c")}
    assert here - {unit.file for unit in found} == set(), "files that no target compiles (configure the build anew?)"
    return found


def test_clang_takes_every_file(units):
    """With the warnings that gcc has, as errors."""
    if shutil.which("clang") is None:
        pytest.skip("clang is not installed")

    def check(unit):
        words = [word for word in unit.words if word not in tools.ONLY_GCC]
        shown = tools.run("clang", *words, "-Wno-unknown-warning-option", "-fsyntax-only", unit.file)
        return shown.stderr if shown.returncode != 0 or shown.stderr else ""

    assert tools.over(units, check) == ""


def findings(text: str, pattern: str) -> dict[tuple[str, str, str], str]:
    """(file, function, check) to the line of the tool, of what is said of src/."""
    found = {}
    for match in re.finditer(pattern, text, re.M):
        file = os.path.relpath(os.path.join(tools.ROOT, match["file"]), tools.ROOT)
        where = tools.function_at(file, int(match["line"]))
        for check in match["check"].split(","):
            found[file, where, check] = f"{file}:{match['line']}: in {where}: {match['text']} [{check}]"
    return found


def test_clang_tidy(units, tmp_path):
    needs("clang-tidy")
    tools.database(units, tmp_path)

    def check(unit):
        return tools.run("clang-tidy", "-p", str(tmp_path), "--quiet", unit.file).stdout

    text = tools.over(units, check)
    pattern = r"^(?P<file>[^\s:]+):(?P<line>\d+):\d+: (?:warning|error): (?P<text>.*) \[(?P<check>[\w.,-]+?)(?:,-warnings-as-errors)?\]$"
    assert tools.judge("clang-tidy", findings(text, pattern)) == ""


def test_cppcheck(tmp_path):
    needs("cppcheck")
    shown = tools.run(
        "cppcheck", "--quiet", "--std=c11", "--enable=warning,portability,performance", f"-j{tools.JOBS}",
        "-Isrc", f"-I{tools.BUILD}/generated", "-D_GNU_SOURCE", "-D__GNUC__=12", '-DPM_VERSION="0"',
        "-DPy_RETURN_NONE=return NULL", "--template={file}:{line}: {message} [{id}]", "src",
    )  # fmt: skip
    found = findings(shown.stderr, r"^(?P<file>[^\s:]+):(?P<line>\d+): (?P<text>.*) \[(?P<check>\w+)\]$")
    assert shown.returncode == 0, shown.stderr[-2000:]
    assert tools.judge("cppcheck", found) == ""


@pytest.mark.skipif(os.environ.get("PM_STATIC") != "all", reason="takes minutes: PM_STATIC=all, or ./test soak")
def test_gcc_analyzer(units):
    """-fanalyzer of gcc, which follows a path through a function and what it calls."""
    needs("gcc")

    def check(unit):
        words = [word for word in unit.words if word not in ("-O2", "-g", "-Werror", "-D_FORTIFY_SOURCE=2")]
        shown = tools.run(
            "gcc", *words, "-O0", "-fanalyzer", "-fdiagnostics-path-format=none", "-c", "-o", os.devnull, unit.file
        )
        return shown.stderr

    text = tools.over(units, check)
    pattern = r"^(?P<file>[^\s:]+):(?P<line>\d+):\d+: warning: (?P<text>.*) \[-W(?P<check>analyzer-[\w-]+)\]$"
    assert "error:" not in text, text[-2000:]
    assert tools.judge("gcc", findings(text, pattern)) == ""


def test_the_checks_find_what_they_are_for(tmp_path):
    """A file with one fault for each tool: a check that never finds anything proves nothing."""
    source = tmp_path / "faulty.c"
    source.write_text(
        "#include <stdlib.h>\n"
        "int same(const char *b) { return b[0] == b[0] ? 1 : 2; }\n"
        "int twice(int *p) { free(p); free(p); return 1; }\n"
        "int past(void) { int a[3]; a[0] = 1; return a[3]; }\n"
        "static int narrow(long n) { int k = n; return k; }\nint narrowed(void) { return narrow(3); }\n"
    )
    heard = {}
    if shutil.which("clang"):
        shown = tools.run("clang", "-fsyntax-only", "-Wconversion", "-Werror", str(source))
        heard["clang"] = "shorten-64-to-32" in shown.stderr
    if shutil.which("clang-tidy"):
        config = f"--config-file={tools.ROOT / '.clang-tidy'}"
        shown = tools.run("clang-tidy", config, str(source), "--", "-std=gnu11")
        heard["clang-tidy"] = "misc-redundant-expression" in shown.stdout
    if shutil.which("cppcheck"):
        heard["cppcheck"] = "arrayIndexOutOfBounds" in tools.run("cppcheck", "--quiet", str(source), "--template={id}").stderr
    if tools.version("gcc").startswith(KNOWN_FOR["gcc"]):
        shown = tools.run("gcc", "-fanalyzer", "-O0", "-c", "-o", os.devnull, str(source))
        heard["gcc"] = "-Wanalyzer-double-free" in shown.stderr
    if not heard:
        pytest.skip("no tool is installed")
    assert all(heard.values()), heard


def test_known_has_a_reason_for_each_row():
    for line in (tools.ROOT / "tests/static/known.txt").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        cells = [cell.strip() for cell in line.split("|")]
        assert len(cells) == 5 and cells[0] in KNOWN_FOR, line
        assert (tools.ROOT / cells[1]).exists() and len(cells[4]) > 10, line


def test_nothing_is_silenced_in_the_code():
    """No NOLINT, no cppcheck-suppress, no pragma: what is accepted stands in known.txt, where it is seen."""
    shown = subprocess.run(
        ["grep", "-rnE", r"NOLINT|cppcheck-suppress|#\s*pragma\s+(GCC|clang)\s+diagnostic", "src"],
        cwd=tools.ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert shown.stdout == ""
