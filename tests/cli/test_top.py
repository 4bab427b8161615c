"""profilemate top: its screens as they were looked at, its figures against the tables, servers that hang, die, come back."""

import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import termios
import time
from fcntl import ioctl
from pathlib import Path

import pytest
from patience import until
from program import BUILD, PROGRAM, one_sentence
from served import Engine

GOLDEN = Path(__file__).resolve().parent / "golden"
UTF8 = {"LC_ALL": "C.UTF-8"}


def served(sessions: Path, *words: str) -> Path:
    """A session of a made-up server, the same each time (bench/make_day.c)."""
    sessions.mkdir(exist_ok=True)
    command = (BUILD / "bench" / "make_day", sessions, "start=1795422301", "vllm=0.32.0", "model=org/model", *words)
    made = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert made.returncode == 0, made.stderr
    return Path(made.stdout.splitlines()[0])


@pytest.fixture(scope="module")
def crowd(tmp_path_factory) -> Path:
    """Three minutes of a server whose cache is too small, killed under load."""
    words = ("hours=0.05", "requests_per_s=30", "kv_blocks=500", "end=kill")
    return served(tmp_path_factory.mktemp("crowd"), *words)


def top(cli, *words, env=None) -> dict:
    shown = cli("top", "--once", "--json", *words, env=env)
    assert (shown.returncode, shown.stderr) == (0, ""), shown.stderr
    return json.loads(shown.stdout)


@pytest.fixture(scope="module")
def tables(crowd) -> dict[str, list[dict]]:
    """The native tables of the crowd, by name."""
    done = subprocess.run([PROGRAM, "export", "-q", "--format", "json", crowd], capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    rows: dict[str, list[dict]] = {}
    for row in map(json.loads, done.stdout.splitlines()):
        rows.setdefault(row["table"], []).append(row)
    return rows


def golden(name: str, text: str) -> None:
    """What differs from run to run is the process's id."""
    text = re.sub(r"^(engine\S*)( +)(\d+) ", lambda m: f"{m[1]}{'PID':>{len(m[2] + m[3])}} ", text, flags=re.M)
    path = GOLDEN / name
    if os.environ.get("PM_UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text(), f"{path} is no longer what is drawn; look at it, then PM_UPDATE_GOLDEN=1"


@pytest.mark.parametrize(("width", "height", "locale"), [(80, 24, "C.UTF-8"), (120, 40, "C.UTF-8"), (80, 24, "C")])
def test_screens_are_those_that_were_looked_at(cli, crowd, width, height, locale):
    env = {"LC_ALL": locale, "COLUMNS": str(width), "LINES": str(height)}
    shown = cli("top", "--once", crowd, env=env)
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    assert len(lines) == height and max(map(len, lines)) <= width
    golden(f"top_{width}x{height}_{locale}.txt", shown.stdout)


@pytest.mark.parametrize(("width", "height"), [(20, 10), (40, 12), (79, 11), (300, 100), (1000, 200)])
def test_no_size_breaks_the_screen(cli, crowd, width, height):
    shown = cli("top", "--once", crowd, env={**UTF8, "COLUMNS": str(width), "LINES": str(height)})
    assert (shown.returncode, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    assert len(lines) == height and max(map(len, lines)) <= width


def test_the_last_ten_seconds_are_those_of_the_tables(cli, crowd, tables):
    (session,) = top(cli, crowd)["sessions"]
    (engine,) = session["engines"]
    window = engine["window"]
    start, end = window["from_sec"], window["to_sec"]
    assert 10 <= end - start < 10.25
    steps = tables["steps"]
    requests = tables["requests"]
    began = int(re.search(r"start_mono_ns (\d+)", (crowd / "session").read_text())[1])
    inside = [row for row in steps if row["tokens"] and start <= (row["schedule_start_ns"] - began) / 1e9 <= end]
    assert window["steps"] == len(inside) > 100
    assert window["step_tokens"] == sum(row["tokens"] for row in inside)
    assert window["prefill_tokens"] == sum(row["prefill_tokens"] for row in inside)
    over = [row for row in requests if row["finished_sec"] and start <= row["finished_sec"] <= end]
    assert window["finished"] == len(over) > 10
    first = [row["ttft_ns"] / 1e6 for row in requests if row["first_token_sec"] and start <= row["first_token_sec"] <= end]
    assert window["ttft"]["count"] == len(first)
    assert window["ttft"]["p50_ms"] == pytest.approx(quantile(first, 0.5), abs=0.002)
    assert window["ttft"]["p99_ms"] == pytest.approx(quantile(first, 0.99), abs=0.002)
    assert engine["open_requests"] == sum(not row["finished_sec"] for row in requests) > 0


def quantile(values: list[float], q: float) -> float:
    """NumPy's default."""
    values = sorted(values)
    place = q * (len(values) - 1)
    low = int(place)
    return values[low] + (values[min(low + 1, len(values) - 1)] - values[low]) * (place - low)


def test_totals_are_those_of_all_records(cli, crowd, tables):
    (engine,) = top(cli, crowd)["sessions"][0]["engines"]
    steps = tables["steps"]
    requests = tables["requests"]
    total = engine["total"]
    assert total["steps"] == sum(bool(row["tokens"]) for row in steps)
    assert total["output_tokens"] == sum(row["output_tokens"] or 0 for row in steps)
    assert total["finished"] == sum(bool(row["finished_sec"]) for row in requests)
    assert total["preemptions"] == sum(row["preemptions"] for row in requests) > 0
    assert engine["ranks"][0]["total"]["steps"] == total["steps"]


def test_requests_under_way_are_those_of_the_table(cli, crowd, tables):
    """Also those of which the beginning lies before the records that were walked."""
    (shown,) = top(cli, crowd)["sessions"]
    (engine,), now = shown["engines"], shown["now_sec"]
    ours = {row["request_id"]: row for row in engine["requests"]}
    requests = tables["requests"]
    theirs = {row["request_id"]: row for row in requests if not row["finished_sec"]}
    assert ours.keys() == theirs.keys()
    for name, row in theirs.items():
        assert ours[name]["prompt_tokens"] == row["prompt_tokens"]
        assert ours[name]["preemptions"] == row["preemptions"]
        assert ours[name]["output_tokens"] == row["output_tokens"]
        assert ours[name]["age_sec"] == pytest.approx(now - row["arrived_sec"], abs=2e-6)


# ---- servers that run ----


def test_a_stopped_process_is_told_of(cli):
    session, process = cli.hold_session("steps=20")
    try:
        assert top(cli, session)["sessions"][0]["health"] in ("serving", "idle", "stalled")
        process.send_signal(signal.SIGSTOP)
        (shown,) = top(cli, session)["sessions"]
        assert shown["health"] == "stopped"
        assert f"pid {process.pid} is in state T (stopped by a signal)" in shown["sentence"]
        text = cli("postmortem", session).stdout
        assert "does not get on" in text and f"pid {process.pid} is in state T" in text
    finally:
        process.kill()
        process.wait()
    (shown,) = top(cli, session)["sessions"]
    assert shown["health"] == "killed"


def test_servers_of_the_host_are_found_by_what_they_have_open(cli):
    """Wherever their folder lies; and by the id of a process."""
    session, process = cli.hold_session("steps=20")
    elsewhere = {"VLLM_PROFILING_DIR": str(cli.tmp / "nothing")}
    try:
        found = [row["path"] for row in top(cli, env=elsewhere)["sessions"]]
        assert str(session) in found
        (shown,) = top(cli, str(process.pid), env=elsewhere)["sessions"]
        assert shown["path"] == str(session)
        assert shown["processes"][0]["host_pid"] == process.pid
    finally:
        process.communicate("")


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0,
    reason="mount namespaces may not be made here",
)
def test_a_server_in_another_mount_namespace_is_found(cli):
    """Its folder is a tmpfs that only it has."""
    hidden = cli.tmp / "hidden"
    hidden.mkdir()
    script = f"mount -t tmpfs none {hidden} && exec {BUILD}/tests/make_session dir={hidden} end=hold steps=20"
    process = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=cli.env
    )
    try:
        session = Path(process.stdout.readline().strip())
        assert not session.exists()
        (shown,) = top(cli, str(process.pid))["sessions"]
        assert shown["name"] == session.name
        assert shown["path"] == f"/proc/{process.pid}/root{session}"
        assert shown["engines"][0]["total"]["steps"] == 20
    finally:
        process.communicate("")


def test_a_restart_is_followed(cli):
    first, process = cli.hold_session("steps=20")
    shown = cli.start("top", "--json", "--interval", "0.1", first.name)
    try:
        assert json.loads(shown.stdout.readline())["sessions"][0]["path"] == str(first)
        process.communicate("")
        second, process = cli.hold_session("steps=30", "name=session_20991231_000000")
        deadline = time.monotonic() + 180
        for line in shown.stdout:
            names = [row["name"] for row in json.loads(line)["sessions"]]
            if names == [second.name]:
                break
            assert time.monotonic() < deadline, names
    finally:
        shown.kill()
        shown.wait()
        process.communicate("")


# ---- the screen in a terminal ----


class Terminal:
    """`top` in a pseudo-terminal; what it has written so far."""

    def __init__(self, cli, *words, term="xterm-256color", size=(24, 80), **env):
        self.leader, follower = pty.openpty()
        ioctl(self.leader, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        self.process = subprocess.Popen(
            [PROGRAM, "top", *words],
            env=cli.environment(TERM=term, **UTF8, **env), stdin=follower, stdout=follower, stderr=follower,
            start_new_session=True,
        )  # fmt: skip
        os.close(follower)
        self.text, self.size = "", size

    def until(self, mark: str) -> str:
        """Reads on until the mark was written; what was read for it."""
        deadline, got = time.monotonic() + 180, ""
        while not re.search(mark, got):
            assert time.monotonic() < deadline, f"no {mark!r} in {got[-2000:]!r}"
            if select.select([self.leader], [], [], 0.2)[0]:
                got += os.read(self.leader, 65536).decode(errors="replace")
        self.text += got
        return got

    def shows(self, mark: str) -> None:
        """Until it stands there. Drawn anew for each look, by another size: else only differences are drawn."""

        def look():
            self.size = (self.size[0], self.size[1] ^ 2)
            ioctl(self.leader, termios.TIOCSWINSZ, struct.pack("HHHH", *self.size, 0, 0))
            os.kill(self.process.pid, signal.SIGWINCH)
            got = ""
            while select.select([self.leader], [], [], 0.1)[0]:
                got += os.read(self.leader, 65536).decode(errors="replace")
            self.text += got
            seen.append(got)
            return re.search(mark, got, re.S)

        seen: list[str] = []
        until(look, lambda: f"no {mark!r} in {seen[-1]!r}", every=0)

    def press(self, keys: str) -> None:
        os.write(self.leader, keys.encode())

    def close(self) -> int:
        if self.process.poll() is None:
            self.process.kill()
        os.close(self.leader)
        return self.process.wait()


def leave(terminal: Terminal) -> None:
    terminal.press("q")
    assert terminal.process.wait(180) == 0


def test_keys_in_a_terminal(cli, crowd):
    terminal = Terminal(cli, crowd)
    try:
        terminal.until("REQUESTS")
        terminal.press("h")
        terminal.until("refresh more often")
        terminal.press("h")
        terminal.until("REQUESTS")
        terminal.press("p")
        terminal.until("PAUSED")
        terminal.press("/decode\n")
        terminal.until("Esc: none")
        leave(terminal)
    finally:
        terminal.close()


def test_requests_are_sorted_scrolled_and_filtered(cli, crowd):
    terminal = Terminal(cli, crowd, size=(30, 100))
    try:
        terminal.until("REQUESTS")
        terminal.shows("vAGE")
        for column in ("PHASE", "PROMPT", "OUT", "PRE", "TTFT", "GAP", "AGE"):
            terminal.press("s")
            terminal.shows(f"v{column}")
        terminal.press("S")
        terminal.shows("vGAP")
        terminal.press("r")
        terminal.shows(r"\^GAP")
        terminal.press("Sr/x\x7fdecode\x1b")  # what was typed is dropped
        terminal.shows("vTTFT.*h help")
        terminal.press("/decod\x7fdeqq\x7f\x7f\n")
        terminal.shows("filter: decode")
        terminal.press("\x1b")
        terminal.shows("h help")
        terminal.press("-")
        terminal.shows(r"2\.0 s")
        terminal.press("--------")
        terminal.shows(r"10\.0 s")
        terminal.press("+++++++++++")
        terminal.shows(r"0\.[23] s")
        terminal.press("f")
        terminal.shows("Following restarts is off")  # a new size takes no note away
        # Keys at both ends of the list: nothing is beyond.
        terminal.press("\x1bOF\x1b[6~\x1bOB\x1bOB\x1b[5~\x1bOA\x1bOH\x1bOA\x1b[5~")
        terminal.shows("h help")
        leave(terminal)
    finally:
        terminal.close()


def test_several_servers_and_engines(cli):
    """Two servers, of which one has two engines, a worker and a front end of their own."""
    first, second = "session_20261123_101010", "session_20261123_111111"
    one = Engine(cli, first)
    one.obey("attr model tiny/one")
    crew = [Engine(cli, second)]
    crew += [crew[0].beside(*words) for words in (("role=engine", "engine=1"), ("role=worker", "engine=1", "rank=1"), ("role=frontend",))]
    crew[0].obey("attr model tiny/two")
    for engine in (one, *crew[:2]):
        engine.obey("steps 4")
    try:
        shown = cli("top", "--once", "--dir", cli.sessions, env=UTF8)
        assert "SERVERS" in shown.stdout and "tiny/one" in shown.stdout and "tiny/two" in shown.stdout
        both = top(cli, "--dir", str(cli.sessions))["sessions"]
        assert sorted((row["name"], len(row["engines"])) for row in both) == [(first, 1), (second, 2)]
        shown = cli("top", "--once", second, env={**UTF8, "LINES": "40"}).stdout
        assert re.search(r"^ENGINES +RUN", shown, re.M), shown
        assert re.search(r"^engine 0  1 rank .*\nengine 1  ", shown, re.M), shown
        for name in ("engine 0.0", "engine 1", "worker 1.1", "front end"):
            assert re.search(rf"^ *{re.escape(name)}", shown, re.M), (name, shown)

        terminal = Terminal(cli, "--dir", cli.sessions, size=(40, 100))
        try:
            terminal.until("SERVERS")
            # Of the two the title says which one is looked at.
            title = r"profilemate top  tiny/%s"
            terminal.shows(title % "(one|two)")
            before = re.findall(title % "(one|two)", terminal.text)[-1]
            other = {"one": "two", "two": "one"}[before]
            for keys, name in (("\t", other), ("\x1bOD", before), ("\x1b[Z", other), ("\x1bOC", before)):
                terminal.press(keys)
                terminal.shows(title % name)
            terminal.press("\t" if before == "one" else "")
            terminal.shows(title % "two")
            terminal.press("eee")  # behind the last engine the first comes again
            terminal.shows("ENGINES")
            leave(terminal)
        finally:
            terminal.close()
    finally:
        for engine in (one, *crew):
            engine.end()


def test_a_restart_is_followed_on_the_screen(cli):
    first = Engine(cli, "session_20261123_101010")
    terminal = second = None
    try:
        first.obey("attr model tiny/one")
        terminal = Terminal(cli, first.path, "--interval", "0.2", size=(30, 100))
        terminal.until(Path(first.path).name)
        first.end()
        terminal.shows("ended")
        second = Engine(cli, "session_20261123_111111")
        second.obey("attr model tiny/one")
        terminal.shows(f"profilemate top  tiny/one  {Path(second.path).name}")
        leave(terminal)
    finally:
        if terminal is not None:
            terminal.close()
        for engine in filter(None, (first, second)):
            engine.process.kill()
            engine.process.communicate()


def test_a_terminal_that_goes_away_ends_it(cli, crowd):
    terminal = Terminal(cli, crowd, "--interval", "0.1")
    terminal.until("REQUESTS")
    os.close(terminal.leader)
    assert terminal.process.wait(180) in (0, 1, -signal.SIGHUP)


def test_screen_after_screen_for_a_log(cli, crowd):
    shown = cli("top", "--batch", "--count", "2", "--interval", "0.1", crowd, env=UTF8)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("profilemate top") == 2
    shown = cli("top", "--json", "--count", "2", "--interval", "0.1", crowd)
    assert [json.loads(line)["sessions"][0]["path"] for line in shown.stdout.splitlines()] == [str(crowd)] * 2


def test_resizing(cli, crowd):
    terminal = Terminal(cli, crowd)
    try:
        terminal.until("REQUESTS")
        ioctl(terminal.leader, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        os.kill(terminal.process.pid, signal.SIGWINCH)
        terminal.until(r"\x1b\[40[;d]")  # something is drawn in the 40th line
        leave(terminal)
    finally:
        terminal.close()


def test_no_color_draws_without_colours(cli, crowd):
    for env, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        terminal = Terminal(cli, crowd, **env)
        try:
            terminal.until("REQUESTS")
            leave(terminal)
        finally:
            terminal.close()
        assert bool(re.search(r"\x1b\[[0-9;]*(3[1-6]|4[1-6])[;m]", terminal.text)) == coloured


def test_an_unknown_terminal_is_one_sentence(cli, crowd):
    terminal = Terminal(cli, crowd, term="no-such-terminal")
    try:
        terminal.until("--batch")
        assert terminal.process.wait(180) == 1
    finally:
        terminal.close()


# ---- misuse ----


def test_nothing_runs(cli):
    shown = cli("top", "--once", "--dir", cli.tmp / "nothing")
    assert shown.returncode == 1
    assert "no server" in one_sentence(shown.stderr)


def test_a_process_without_a_session(cli):
    shown = cli("top", "--once", str(os.getpid()))
    assert shown.returncode == 1
    assert "records a session" in one_sentence(shown.stderr)


@pytest.mark.parametrize("value", ["0", "-1", "x", "1s", "61", "nan"])
def test_a_bad_interval(cli, value):
    shown = cli("top", "--once", f"--interval={value}")
    assert shown.returncode == 2
    assert "seconds from 0.1 to 60" in shown.stderr
