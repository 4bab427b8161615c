"""profilemate run: the command's environment, exit code and signals, and what becomes of its session."""

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from patience import until
from program import MAKE_SESSION, PROGRAM, SITE, one_sentence

# A command that says which signals it got, one a line, and ends with 3 at SIGTERM.
LISTENER = r"""
import os, signal, sys
read, write = os.pipe()
names = ("SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2")
for name in names:
    signal.signal(getattr(signal, name), lambda number, frame: os.write(write, bytes([number])))
sys.stdout.write("ready\n"); sys.stdout.flush()
while True:
    number = os.read(read, 1)[0]
    sys.stdout.write(signal.Signals(number).name + "\n"); sys.stdout.flush()
    if number == signal.SIGTERM:
        sys.exit(3)
"""


def settings_seen(cli, *words, env=None) -> dict[str, str]:
    """The environment that `run` gives to a command."""
    shown = cli("run", "-q", *words, "--", sys.executable, "-c", "import os, json; print(json.dumps(dict(os.environ)))",
                env=env)  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    return json.loads(shown.stdout)


# ---- the environment ----


def test_the_command_gets_the_switch_the_extension_and_a_session(cli):
    seen = settings_seen(cli)
    assert seen["VLLM_ENABLE_PROFILING"] == "1"
    assert seen["PYTHONPATH"] == str(SITE)
    assert re.fullmatch(r"session_\d{8}_\d{6}:[0-9a-f]{32}:\d+:\d+:\d+", seen["VLLM_PROFILING_SESSION"])
    assert seen["PROFILEMATE_RUN"].isdigit()
    same = set(cli.env) - {"VLLM_PROFILING_DIR"}
    assert {name: seen[name] for name in same} == {name: cli.env[name] for name in same}


def test_every_run_has_a_session_of_its_own(cli):
    outer = {"VLLM_PROFILING_SESSION": "session_20260101_000000:" + "0" * 32 + ":1:2:3"}
    first, second = settings_seen(cli, env=outer), settings_seen(cli, env=outer)
    tokens = {each["VLLM_PROFILING_SESSION"].split(":")[1] for each in (first, second)} | {"0" * 32}
    assert len(tokens) == 3


def test_options_become_variables_and_win_over_what_is_set(cli):
    before = {
        "VLLM_PROFILING_LOG_INTERVAL": "7",
        "PROFILEMATE_VERBOSE": "0",
        "PROFILEMATE_MAX_MB": "5",
        "VLLM_PROFILING_CUSTOM": "mine:Untouched.method",
    }
    seen = settings_seen(
        cli, "--verbose", "--log-interval=9", "--no-cpu-timing", "--preset", "simple", "--moe-expert-tracking=auto",
        env=before,
    )  # fmt: skip
    assert seen["VLLM_PROFILING_VERBOSE"] == "1" and "PROFILEMATE_VERBOSE" not in seen
    assert seen["VLLM_PROFILING_LOG_INTERVAL"] == "9"
    assert seen["VLLM_PROFILING_ENABLE_CPU_TIMING"] == "0"
    assert seen["VLLM_PROFILING_PRESET"] == "simple"
    assert seen["VLLM_PROFILING_ENABLE_MOE_EXPERT_TRACKING"] == "auto"
    assert seen["PROFILEMATE_MAX_MB"] == "5"
    assert seen["VLLM_PROFILING_CUSTOM"] == "mine:Untouched.method"
    assert "VLLM_PROFILING_NVTX" not in seen, "a setting that was not given is not set"


def test_values_arrive_untouched(cli):
    value = " two  words, 'single' \"double\" $HOME `id` \\ \n second line ü * "
    seen = settings_seen(cli, "--custom", value)
    assert seen["VLLM_PROFILING_CUSTOM"] == value


def test_arguments_arrive_untouched(cli):
    words = ["", " ", "a b", "'", '"', "$HOME", "\\", "line\nline", "--help", "--", "-q", "ü"]
    shown = cli("run", "-q", "--", sys.executable, "-c", "import sys, json; print(json.dumps(sys.argv[1:]))", *words)
    assert json.loads(shown.stdout) == words


def test_a_relative_folder_counts_from_where_run_was_started(cli):
    assert settings_seen(cli, "--dir", "here/below")["VLLM_PROFILING_DIR"] == str(cli.tmp / "here/below")


def test_pythonpath_is_kept_behind_the_extension(cli):
    seen = settings_seen(cli, env={"PYTHONPATH": "/some/where:/else"})
    assert seen["PYTHONPATH"] == f"{SITE}:/some/where:/else"
    seen = settings_seen(cli, env={"PYTHONPATH": f"{SITE}:/else"})
    assert seen["PYTHONPATH"] == f"{SITE}:/else"
    seen = settings_seen(cli, "--no-pythonpath", env={"PYTHONPATH": "/else"})
    assert seen["PYTHONPATH"] == "/else"
    assert "PYTHONPATH" not in settings_seen(cli, "--no-pythonpath")


@pytest.mark.parametrize("name", ["VLLM_ENABLE_PROFILING", "PROFILEMATE_ENABLE"])
def test_off_beats_run(cli, name):
    shown = cli("run", "--", "sh", "-c", "env", env={name: "0"})
    assert shown.returncode == 0
    assert "is set and wins, the command runs without profiling" in one_sentence(shown.stderr)
    assert "PYTHONPATH" not in shown.stdout and "PROFILEMATE_RUN" not in shown.stdout


def test_without_the_extension_it_says_so_and_runs_nothing(cli, tmp_path):
    lonely = tmp_path / "bin" / "profilemate"
    lonely.parent.mkdir()
    shutil.copy(PROGRAM, lonely)
    marker = tmp_path / "ran"
    command = [lonely, "run", "--", "touch", marker]
    shown = subprocess.run(command, env=cli.environment(), capture_output=True, text=True)
    assert shown.returncode == 1 and not marker.exists()
    assert "was not found beside this program" in one_sentence(shown.stderr)
    shown = subprocess.run([lonely, "run", "--no-pythonpath", "--", "touch", marker], env=cli.environment(), timeout=180)
    assert shown.returncode == 0 and marker.exists()


def test_the_extension_of_an_installed_package_is_found(cli, tmp_path):
    prefix = tmp_path / "a [prefix]"
    site = prefix / "lib" / "python3.11" / "site-packages" / "profilemate" / "site"
    site.mkdir(parents=True)
    (site / "sitecustomize.abi3.so").write_bytes(b"")
    (prefix / "bin").mkdir()
    shutil.copy(PROGRAM, prefix / "bin" / "profilemate")
    shown = subprocess.run(
        [prefix / "bin" / "profilemate", "run", "-q", "--no-export", "--", "printenv", "PYTHONPATH"],
        env=cli.environment(), capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert shown.stdout == f"{site}\n"


# ---- exit codes ----


@pytest.mark.parametrize("code", [0, 1, 2, 77, 127, 255])
def test_the_exit_code_comes_back(cli, code):
    assert cli("run", "--", "sh", "-c", f"exit {code}").returncode == code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGINT])
def test_a_signals_number_comes_back(cli, number):
    shown = cli("run", "--", "sh", "-c", f"ulimit -c 0; kill -{int(number)} $$")
    assert shown.returncode == 128 + number


def test_a_command_that_cannot_be_run(cli, tmp_path):
    def said(*words):
        shown = cli("run", "--", *words)
        return shown.returncode, one_sentence(shown.stderr)

    assert said("no-such-command-here") == (
        127, "profilemate: cannot run `no-such-command-here`, it is not in PATH, check its name or give its path",
    )  # fmt: skip
    code, sentence = said("/no/such/file")
    assert code == 127 and "there is no such file" in sentence
    (tmp_path / "plain").write_text("not for running")
    code, sentence = said(tmp_path / "plain")
    assert code == 126 and "chmod +x" in sentence
    code, sentence = said(tmp_path)
    assert code == 126 and "it is not executable" in sentence
    (tmp_path / "orphan").write_text("#!/no/such/interpreter\n")
    (tmp_path / "orphan").chmod(0o755)
    code, sentence = said(tmp_path / "orphan")
    assert code == 127 and "no interpreter that its first line names" in sentence


def test_streams_are_the_commands_own(cli):
    shown = cli("run", "-q", "--", "sh", "-c", "cat; echo out; echo err >&2", stdin=None, input="in\n")
    assert shown.stdout == "in\nout\n"
    assert shown.stderr.startswith("err\n")


def test_a_parent_that_ignores_its_children_does_not_lose_the_exit_code(cli):
    code = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    shown = subprocess.run(
        [sys.executable, "-c", code, PROGRAM, "run", "-q", "--", "sh", "-c", "exit 5"],
        env=cli.environment(), capture_output=True, timeout=180,
    )  # fmt: skip
    assert shown.returncode == 5


# ---- signals ----


def lines_of(process):
    for line in process.stdout:
        yield line.strip()


def test_signals_sent_to_run_reach_the_command_once(cli):
    process = cli.start("run", "-q", "--", sys.executable, "-c", LISTENER)
    lines = lines_of(process)
    assert next(lines) == "ready"
    for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2"):
        process.send_signal(getattr(signal, name))
        assert next(lines) == name
    process.send_signal(signal.SIGTERM)
    assert list(lines) == ["SIGTERM"], "each signal arrives once"
    assert process.wait(timeout=180) == 3


def test_an_ignored_signal_stays_ignored(cli):
    """As under nohup: the command inherits what run was started with."""
    code = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    child = "import signal; print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, signal.pthread_sigmask(0, []))"
    shown = subprocess.run(
        [sys.executable, "-c", code, PROGRAM, "run", "-q", "--", sys.executable, "-c", child],
        env=cli.environment(), capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert shown.stdout == "True set()\n"


class Terminal:
    """The program on a terminal of its own, as the foreground job of its session."""

    def __init__(self, cli, *words):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(cli.tmp)
            os.execve(PROGRAM, ["profilemate", *map(str, words)], cli.environment())
        self.shown = ""

    def type(self, text: bytes):
        os.write(self.fd, text)

    def wait_for(self, text: str):
        deadline = time.monotonic() + 180
        while text not in self.shown:
            assert self.read(deadline), f"the terminal closed without {text!r}: {self.shown!r}"

    def read(self, deadline: float) -> bool:
        """False once nobody has the terminal open any more."""
        ready, _, _ = select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"nothing more came after {self.shown!r}; on the terminal: {self.processes()}"
        try:
            chunk = os.read(self.fd, 65536)
        except OSError:
            return False
        self.shown += chunk.decode(errors="replace")
        return bool(chunk)

    def processes(self) -> list[str]:
        """Of its session: number, state, group and the signals that wait or are blocked, as the kernel has them."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                fields = (path / "stat").read_text().rpartition(")")[2].split()
                signals = re.findall(r"^((?:Shd|Sig)\w+):\s*(\w+)", (path / "status").read_text(), re.M)
                words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:  # it ended meanwhile
                continue
            if int(fields[3]) == self.pid:
                found.append(f"{path.name} {fields[0]} of group {fields[2]} {dict(signals)} {words[:60]!r}")
        return found

    def finish(self) -> int:
        deadline = time.monotonic() + 180
        while self.read(deadline):
            pass
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.fd)
        return code


def test_ctrl_c_on_a_terminal_reaches_the_command_once(cli):
    terminal = Terminal(cli, "run", "-q", "--", sys.executable, "-c", LISTENER)
    terminal.wait_for("ready")
    terminal.type(b"\x03")
    terminal.wait_for("SIGINT")
    terminal.type(b"\x1c")
    terminal.wait_for("SIGQUIT")
    os.kill(terminal.pid, signal.SIGTERM)
    assert terminal.finish() == 3
    assert re.findall(r"SIG\w+", terminal.shown) == ["SIGINT", "SIGQUIT", "SIGTERM"]


def test_ctrl_c_reaches_a_command_that_left_the_group(cli):
    """It is then not the terminal's to send: run passes it on."""
    code = "import os; os.setpgid(0, 0)\n" + LISTENER
    terminal = Terminal(cli, "run", "-q", "--", sys.executable, "-c", code)
    terminal.wait_for("ready")
    terminal.type(b"\x03")
    terminal.wait_for("SIGINT")
    os.kill(terminal.pid, signal.SIGTERM)
    assert terminal.finish() == 3


def test_a_hang_up_is_passed_on(cli, tmp_path):
    """run leads the session here, as in `ssh -t` or `docker run -t`: only it is told."""
    log = tmp_path / "log"
    code = LISTENER.replace("sys.stdout", "log").replace("import os", f"log = open({str(log)!r}, 'w')\nimport os")
    code = code.replace("== signal.SIGTERM", "== signal.SIGHUP")
    terminal = Terminal(cli, "run", "-q", "--", sys.executable, "-c", code)
    deadline = time.monotonic() + 180
    while not (log.exists() and log.read_text() == "ready\n"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.close(terminal.fd)
    assert os.waitstatus_to_exitcode(os.waitpid(terminal.pid, 0)[1]) == 3
    assert log.read_text() == "ready\nSIGHUP\n"


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait_for_state(pid: int, states: str):
    deadline = time.monotonic() + 180
    while state_of(pid) not in states:
        assert time.monotonic() < deadline, f"process {pid} is {state_of(pid)}, not {states}"
        time.sleep(0.01)


def test_ctrl_z_stops_both_and_continuing_goes_on_with_both(cli, tmp_path):
    """A shell puts the job into a group of its own, with itself as the parent: sh -m does that here."""
    shell = tmp_path / "job.sh"
    shell.write_text(f"'{PROGRAM}' run -q -- {sys.executable} -c \"$LISTENER\" & echo job $!; fg; echo back; fg; echo $?\n")
    pid, fd = pty.fork()
    if pid == 0:
        os.execvpe("bash", ["bash", "--norc", "-m", str(shell)], {**cli.environment(), "LISTENER": LISTENER})
    terminal = Terminal.__new__(Terminal)
    terminal.pid, terminal.fd, terminal.shown = pid, fd, ""
    terminal.wait_for("ready")
    job = int(re.search(r"job (\d+)", terminal.shown).group(1))
    child = int(Path(f"/proc/{job}/task/{job}/children").read_text().split()[0])
    # The command may be quicker than the shell's `fg`, before which Ctrl-Z is the shell's, which nobody can stop.
    until(lambda: os.tcgetpgrp(fd) == os.getpgid(job), "the job in the foreground")
    terminal.type(b"\x1a")
    terminal.wait_for("back")  # the shell saw its job stop, and goes on with it
    wait_for_state(job, "SR")
    wait_for_state(child, "SR")
    os.kill(job, signal.SIGTERM)
    terminal.finish()
    assert terminal.shown.rstrip().endswith("3")


def test_a_stop_sent_to_run_alone_stops_both(cli):
    # In a process group of its own: one that nobody in its session looks after (tests started in the background by a
    # shell that has gone) is never stopped by SIGTSTP, by the kernel's rule.
    process = cli.start("run", "-q", "--", sys.executable, "-c", LISTENER, preexec_fn=os.setpgrp)
    lines = lines_of(process)
    assert next(lines) == "ready"
    child = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
    process.send_signal(signal.SIGTSTP)
    wait_for_state(child, "T")
    wait_for_state(process.pid, "T")
    process.send_signal(signal.SIGCONT)
    wait_for_state(process.pid, "SR")
    wait_for_state(child, "SR")
    process.send_signal(signal.SIGTERM)
    assert list(lines) == ["SIGTERM"]
    assert process.wait(timeout=180) == 3


# ---- PID 1 ----

UNSHARE = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"]


@pytest.fixture
def in_namespace(cli):
    if shutil.which("unshare") is None or subprocess.run([*UNSHARE, "true"], capture_output=True).returncode != 0:
        pytest.skip("PID namespaces may not be made here")

    def start(*words):
        return subprocess.Popen(
            [*UNSHARE, PROGRAM, *map(str, words)], env=cli.environment(), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return start


REAPED = r"""
import os, subprocess, time
for _ in range(5):
    subprocess.run(["sh", "-c", "sleep 0.01 &"])
until, looks = time.monotonic() + 180, 0
while time.monotonic() < until or looks < 30:
    looks += 1
    left = [pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) not in (1, os.getpid())]
    if not left:
        break
    time.sleep(0.02)
print("parent", os.getppid(), "left", left)
"""


def test_as_pid_1_it_reaps_orphans(in_namespace):
    """No zombie stays behind: those whose parent is gone become children of PID 1."""
    process = in_namespace("run", "-q", "--", sys.executable, "-c", REAPED)
    out, err = process.communicate(timeout=180)
    assert (process.returncode, out) == (0, "parent 1 left []\n"), err


def test_as_pid_1_it_waits_for_what_the_command_left_behind(in_namespace, tmp_path):
    late = tmp_path / "late"
    process = in_namespace("run", "-q", "--", "sh", "-c", f"(sleep 0.4; echo done > {late}) & exit 6")
    process.communicate(timeout=180)
    assert process.returncode == 6
    assert late.read_text() == "done\n"


def test_as_pid_1_it_passes_the_end_on(in_namespace):
    process = in_namespace("run", "-q", "--", sys.executable, "-c", LISTENER)
    assert process.stdout.readline() == "ready\n"
    init = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
    os.kill(init, signal.SIGTERM)  # from outside of the namespace: no sender is known
    out, _ = process.communicate(timeout=180)
    assert (out, process.returncode) == ("SIGTERM\n", 3)


# ---- the session ----


def test_a_command_that_is_no_server_leaves_no_session(cli):
    shown = cli("run", "--", "sh", "-c", "exit 4")
    assert shown.returncode == 4
    sentence = one_sentence(shown.stderr)
    assert "no session was born" in sentence and "`sh` never started a vLLM engine" in sentence
    assert "profilemate doctor -- profilemate run -- sh ..." in sentence
    assert not cli.sessions.exists()


@pytest.mark.parametrize("end, code", [("close", 0), ("kill", 128 + 9)])
def test_the_session_is_completed_whatever_its_end(cli, end, code):
    shown = cli("run", "--", MAKE_SESSION, "session.env=1", f"end={end}", "steps=20")
    assert shown.returncode == code
    (session,) = cli.sessions.iterdir()
    rows = (session / "forward_pass_timing.csv").read_text().splitlines()
    assert len(rows) == 1 + 20
    assert json.loads((session / "forward_pass_summary.json").read_text())["prefill"]["count"] == 5
    assert json.loads((session / "metadata.json").read_text())
    assert f"Session: {session}\n" in shown.stderr
    assert shown.stdout == f"{session}\n", "stdout is the command's own"


def test_the_session_is_found_where_it_fell_back_to(cli):
    cli.sessions.write_text("a file where the folder should be")
    shown = cli("run", "--", MAKE_SESSION, "session.env=1", "steps=4")
    assert shown.returncode == 0
    (session,) = (cli.tmp / "home" / ".local" / "state" / "profilemate").iterdir()
    assert (session / "forward_pass_timing.csv").exists()
    assert f"Session: {session}\n" in shown.stderr


def test_an_engine_that_outlives_the_command_is_waited_for(cli, script, tmp_path):
    """The server's front end was killed; its engine notices a little later. Its last records count."""
    engine = script("engine", f'(sleep 0.7) | "{MAKE_SESSION}" session.env=1 end=hold steps=8 >"{tmp_path}/path"',
                    interpreter="#!/bin/sh")  # fmt: skip
    server = f'"{engine}" & while [ ! -s "{tmp_path}/path" ]; do sleep 0.02; done; kill -9 $$'
    shown = cli("run", "--", "sh", "-c", server)
    assert shown.returncode == 128 + 9
    session = Path((tmp_path / "path").read_text().strip())
    listed = json.loads(cli("sessions", "--json").stdout)["sessions"]
    assert [(each["path"], each["state"]) for each in listed] == [(str(session), "ended")]
    metadata = json.loads((session / "metadata.json").read_text())
    assert "running" not in json.dumps(metadata["processes"])


def test_quiet_and_no_export(cli):
    shown = cli("run", "-q", "--", MAKE_SESSION, "session.env=1")
    assert shown.stderr == ""
    (session,) = cli.sessions.iterdir()
    assert (session / "forward_pass_timing.csv").exists()
    shutil.rmtree(session)
    shown = cli("run", "--no-export", "--", MAKE_SESSION, "session.env=1")
    assert shown.stderr == ""
    (session,) = cli.sessions.iterdir()
    assert not (session / "forward_pass_timing.csv").exists()


def test_older_sessions_beyond_the_limit_go(cli):
    old = cli.make_session("start=1700000000", "name=session_20231114_221320", "steps=50")
    shown = cli("run", "--keep-mb=0", "--", MAKE_SESSION, "session.env=1")
    (session,) = cli.sessions.iterdir()
    assert session != old, "the new one stays"
    assert "removed 1 older session" in shown.stderr
