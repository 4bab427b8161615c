"""Names and addresses as nobody would choose them: what is drawn, quoted and listened on stays whole."""

import http.client
import json
import re
import shutil
import socket
import subprocess
import unicodedata

import pytest
from patience import PATIENCE_S
from program import PROGRAM
from served import Served

ODD = {
    "greek and cyrillic": "\u03a9mega/\u0416uk",
    "boxes and dashes": "a\u2502b\u2500c\u2013d\u2014e\u2026f",
    "wide": "\u6f22\u5b57/\u30e2\u30c7\u30eb",
    "beyond the plane": "\U0001f600/smile",
    "right to left": "\u202egnp.exe",
    "combining": "e\u0301tude/\u200bhidden",
    "controls": "a\x1b[31mb\x07c\u0085d\u009b31m",
    "markup": "<b>&\"'</b>",
    "long": "x" * 300,
}


@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
@pytest.mark.parametrize("name", ODD.values(), ids=ODD)
def test_no_models_name_breaks_the_screen(cli, name, locale):
    """Each line of the screen keeps its width, and nothing that a terminal obeys comes through."""
    session = cli.make_session("steps=4", f"attr.model={name}")
    for command in (("top", "--once", "--dir", cli.sessions, session), ("sessions",), ("postmortem", session)):
        shown = cli(*command, env={"LC_ALL": locale, "COLUMNS": "80", "LINES": "24"})
        assert shown.returncode == 0, shown.stderr
        assert not [c for c in shown.stdout if unicodedata.category(c) == "Cc" and c != "\n"], command
        assert "\u202e" not in shown.stdout or command[0] != "top"
        if command[0] == "top":
            assert all(len(line) <= 80 for line in shown.stdout.splitlines())
            assert locale != "C" or shown.stdout.isascii()
    assert json.loads(cli("top", "--once", "--json", session).stdout)["sessions"][0]["model"]


def test_quotes_in_the_environment(cli):
    """The shell reads back what was meant."""
    odd = "it's $HOME \\ \"here\" `date`"
    shown = cli("env", f"--dir={cli.tmp}/{odd}")
    assert shown.returncode == 0, shown.stderr
    told = subprocess.run(["sh", "-c", shown.stdout + 'printf %s "$VLLM_PROFILING_DIR"'], capture_output=True, text=True)
    assert told.stdout == f"{cli.tmp}/{odd}"
    fish = cli("env", "--shell=fish", f"--dir={cli.tmp}/{odd}").stdout
    quoted = re.search(r"^set -gx VLLM_PROFILING_DIR '(.*)'$", fish, re.M)[1]
    assert re.sub(r"\\(['\\])", r"\1", quoted) == f"{cli.tmp}/{odd}"
    if shutil.which("fish"):
        told = subprocess.run(["fish", "-c", fish + 'printf %s "$VLLM_PROFILING_DIR"'], capture_output=True, text=True)
        assert told.stdout == f"{cli.tmp}/{odd}"


def serves() -> bool:
    said = subprocess.run([PROGRAM, "serve", "--listen=127.0.0.1:0", "no-such-session"], capture_output=True, text=True).stderr
    return "HTTP server" not in said and "libmicrohttpd" not in said


def six() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as tried:
            tried.bind(("::1", 0))
        return True
    except OSError:
        return False


def test_listening_on_localhost(cli):
    if not serves():
        pytest.skip("no HTTP server in this build")
    with Served(PROGRAM, "--listen", "localhost:0", "--dir", cli.sessions, env=cli.environment()) as served:
        assert served.url.startswith("http://127.0.0.1:")
        assert served.sessions() == []
        code, _ = served.end()
    assert code == 0


def test_listening_on_ipv6(cli):
    if not serves() or not six():
        pytest.skip("no HTTP server in this build, or no IPv6 here")
    process = cli.start("serve", "--listen=[::1]:0", "--dir", cli.sessions)
    try:
        url = process.stdout.readline().strip()
        port = re.fullmatch(r"http://\[::1\]:(\d+)/", url)
        assert port, url
        connection = http.client.HTTPConnection("::1", int(port[1]), timeout=PATIENCE_S)
        connection.request("GET", "/api/sessions")
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["sessions"]) == (200, [])
        connection.close()
        # The port is taken: one sentence, with the address as it is written.
        second = cli("serve", f"--listen=[::1]:{port[1]}")
        assert second.returncode == 1 and f"cannot listen on [::1]:{port[1]}" in second.stderr
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors
