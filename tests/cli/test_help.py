"""How the program speaks: help, misuse, suggestions, exit codes, colours."""

import os
import pty
import re
import subprocess

import pytest
from program import PROGRAM, ROOT, one_sentence

COMMANDS = tuple(re.findall(r"^X\((\w+),", (ROOT / "src" / "cmd" / "cmds.def").read_text(), re.M))


def test_all_commands_are_listed(cli):
    listed = re.findall(r"^  (\w+) {2,}\S", cli("help").stdout, re.M)
    assert sorted(listed) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_with_an_example(cli, command):
    shown = cli(command, "--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith(f"usage: profilemate {command}")
    assert "\nOptions\n" in shown.stdout
    assert "\nExamples\n" in shown.stdout and f"profilemate {command}" in shown.stdout.split("\nExamples\n")[1]
    assert cli(command, "-h").stdout == shown.stdout
    assert cli("help", command).stdout == shown.stdout


def test_help_comes_before_what_is_missing_or_wrong_after_it(cli):
    assert cli("run", "--help", "--nonsense").returncode == 0


def test_version(cli):
    for flag in ("--version", "-V"):
        shown = cli(flag)
        assert shown.returncode == 0
        assert re.fullmatch(r"profilemate \d+\.\d+\.\d+\n", shown.stdout)


def test_without_a_command_it_shows_them_and_fails(cli):
    shown = cli()
    assert shown.returncode == 2
    assert shown.stdout == "" and "usage: profilemate" in shown.stderr


def test_help_as_an_option(cli):
    shown = cli("help").stdout
    assert cli("--help").stdout == cli("-h").stdout == shown


@pytest.mark.parametrize(
    "typed, meant", [("rn", "run"), ("runn", "run"), ("session", "sessions"), ("exprot", "export"), ("docter", "doctor")]
)
def test_an_unknown_command_suggests_the_nearest(cli, typed, meant):
    shown = cli(typed)
    assert shown.returncode == 2
    assert one_sentence(shown.stderr) == f"profilemate: there is no command `{typed}`, did you mean `{meant}`?"


def test_nothing_is_suggested_for_what_is_near_to_nothing(cli):
    shown = cli("frobnicate")
    assert shown.returncode == 2
    assert one_sentence(shown.stderr) == "profilemate: there is no command `frobnicate`"
    assert one_sentence(cli("x" * 5000).stderr).startswith("profilemate: there is no command `xxx")
    assert cli("--frobnicate").returncode == 2
    assert cli("help", "frobnicate").returncode == 2


MISUSES = [
    (("run",), "run needs"),
    (("run", "--presett", "full", "--", "true"), "did you mean --preset?"),
    (("run", "--preset", "half", "--", "true"), "--preset=half is not valid, give simple or full"),
    (("run", "--log-interval=0", "--", "true"), "--log-interval=0 is not valid, give a whole number from 1 to"),
    (("run", "--mode=0700", "--", "true"), "--mode=0700 is not valid"),
    (("run", "--verbose=maybe", "--", "true"), "--verbose=maybe is not valid, give 0 or 1"),
    (("run", "--no-verbose=1", "--", "true"), "--no-verbose takes no value"),
    (("run", "--quiet=1", "--", "true"), "--quiet takes no value"),
    (("run", "--dir"), "--dir needs a value"),
    (("run", "--dir", "--", "true"), "--dir needs a value"),
    (("run", "-x", "--", "true"), "run has no option -x"),
    (("env", "--shell", "tcsh"), "--shell=tcsh is not known"),
    (("env", "more"), "does not know what to do with more"),
    (("sessions", "--jsno"), "did you mean --json?"),
    (("sessions", "--dry-run"), "belong to --prune"),
    (("sessions", "--prune", "--keep-mb", "much"), "--keep-mb=much is not valid, give a whole number"),
    (("sessions", "--prune", "--older-than", "7"), "--older-than=7 is not valid"),
    (("sessions", "--prune", "--older-than", "d"), "--older-than=d is not valid"),
    (("sessions", "here"), "does not know what to do with here"),
    (("export", "--format", "xml"), "--format=xml is not known, give seed, json, csv-native"),
    (("export", "--format", "json", "--preset", "full"), "leave it out with --format=json"),
    (("export", "a", "b"), "does not know what to do with b"),
    (("functions", "--format", "xml"), "--format=xml is not known, give table, csv, json, folded or chrome"),
    (("functions", "--sort", "age"), "--sort=age is not known"),
    (("functions", "--format", "folded", "--limit", "3"), "do not go with --format=folded"),
    (("report", "--json", "--text"), "choose one"),
    (("doctor", "a", "b"), "a command goes after `--`"),
    (("doctor", "a", "--", "b"), "do not go together"),
    (("doctor", "--python", "python3", "a"), "--python does not go with a session"),
    (("doctor", "--dir", "x"), "--dir goes with a session"),
    (("export", "--format", "parquet", "--partition", "--last", "3s", "--out", "x"), "leave out --last, --steps and --request"),
    (("set",), "nothing is to be set"),
    (("serve", "--listen", "[::1"), "--listen=[::1 is not valid, give ADDR:PORT or [ADDR6]:PORT"),
    (("top", "--count=x"), "--count=x is not valid, give a whole number"),
    (("fleet",), "no query"),
    (("fleet", "--on=sql", "slo", "lake"), "--on=sql is not known, give duckdb or spark"),
    (("fleet", "--format=xml", "slo", "lake"), "--format=xml is not known, give table, csv, html or json"),
    (("fleet", "--list", "--sql"), "two things, give one"),
    (("fleet", "--list", "slo", "lake"), "--list asks no lake"),
    (("fleet", "--sql", "slo", "lake"), "--sql asks no lake"),
    (("fleet", "--sql"), "--sql of which query?"),
    (("fleet", "slo"), "no lake to ask"),
    (("fleet", "--master=local", "slo", "lake"), "--master belongs to --on=spark"),
    (("fleet", "--master=local", "--on=duckdb", "slo", "lake"), "--master belongs to --on=spark"),
    (("fleet", "-p", "=3", "slo", "lake"), "--param==3 is no NAME=VALUE"),
    (("fleet", "-p", "n", "slo", "lake"), "--param=n is no NAME=VALUE"),
    (("fleet", *(["-p", "a=b"] * 33), "slo", "lake"), "--param more than 32 times"),
    (("ship",), "ship needs"),
    (("ship", "--fetch", "--list", "a"), "two things, give one"),
    (("ship", "--fetch", "--delete", "a", "b"), "--fetch goes with none of"),
    (("ship", "--list", "--all", "a"), "--list goes with none of"),
    (("ship", "--fetch", "a"), "takes the URL of a session and a folder"),
    (("ship", "--list", "a", "b"), "--list takes a target"),
    (("ship", "--all", "a", "b"), "--all takes a target and no session"),
    (("ship", "http://host/x"), "http://host/x is no target"),
    (("ship", "--interval=3s", "file:///x"), "--interval belongs to --watch"),
    (("ship", "--for=3s", "file:///x"), "--for belongs to --watch"),
    (("ship", "--watch", "--for=", "file:///x"), "--for= is no time"),
    *((("ship", "--watch", f"--interval={text}", "file:///x"), f"--interval={text} is no time") for text in ("5x", "5ss", "nan", "inf", "-1", "0", "1e9")),
]


@pytest.mark.parametrize("words, says", MISUSES, ids=[" ".join(words)[:60] for words, _ in MISUSES])
def test_a_misuse_says_what_where_and_what_to_do(cli, words, says):
    shown = cli(*words)
    assert shown.returncode == 2, shown.stderr
    assert says in one_sentence(shown.stderr)
    assert shown.stdout == ""
    assert f"See `profilemate {words[0]} --help`." in shown.stderr


def test_control_characters_do_not_reach_the_terminal(cli):
    shown = cli("\x1b[31mred\x07\nnext")
    assert shown.returncode == 2
    assert "\x1b" not in shown.stderr and "\x07" not in shown.stderr
    assert "?[31mred??next" in one_sentence(shown.stderr)


def on_terminal(cli, *words, **env) -> str:
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, *words], env=cli.environment(**env), stdin=child, stdout=child, stderr=child, close_fds=True
    )
    os.close(child)
    shown = b""
    try:
        while chunk := os.read(parent, 65536):
            shown += chunk
    except OSError:  # EIO: the other end is closed
        pass
    process.wait(timeout=180)
    os.close(parent)
    return shown.decode()


def test_colours_only_on_a_terminal_that_wants_them(cli):
    assert "\x1b[" in on_terminal(cli, "help", TERM="xterm")
    assert "\x1b[" not in on_terminal(cli, "help", TERM="xterm", NO_COLOR="1")
    assert "\x1b[" in on_terminal(cli, "help", TERM="xterm", NO_COLOR="")
    assert "\x1b[" not in on_terminal(cli, "help", TERM="dumb")
    assert "\x1b[" not in cli("help", env={"TERM": "xterm"}).stdout


def test_a_full_disk_for_stdout_is_a_failure(cli):
    with open("/dev/full", "w") as full:
        shown = cli("help", stdout=full)
    assert shown.returncode == 1
    assert "cannot write to standard output" in one_sentence(shown.stderr)
