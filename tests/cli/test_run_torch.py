"""run --torch-profile: the window, the server's endpoints and what they may do wrong, what the server is given."""

import json
import os
import signal
import sys
import time

import pytest
from program import one_sentence
from serving_run import SERVER, Run, free_port

LIGHT = ("-q", "--torch-profile", "light")


@pytest.fixture
def run(cli):
    started = []

    def start(*options, **kwargs) -> Run:
        started.append(Run(cli, *options, **kwargs))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()


def traces(run) -> list:
    return sorted((run.cli.tmp / "profiler_output").glob("*.json.gz"))


# ---- the window ----


def test_steps_bound_the_window(run):
    it = run(*LIGHT, "--steps", "30")
    it.hear(r"torch profiler on \(light\) after 0 requests and 0 steps, for at most 30 steps")
    it.obey("steps 29")
    assert it.calls() == ["/start_profile"]
    it.obey("steps 1")
    it.hear("torch profiler off after 30 steps and 0 requests, written in")
    it.hear(r"profiler_output/rank0\.\d+\.pt\.trace\.json\.gz \(0\.0 MB\)")
    assert it.calls() == ["/start_profile", "/stop_profile"]
    assert json.loads(it.asked()[1]["body"]) == {"max_iterations": 30}
    assert it.end() == 0
    assert "read the traces with: profilemate trace" in it.text() and len(traces(it)) == 1


def test_requests_bound_the_window(run):
    it = run(*LIGHT, "--requests", "3:5")
    it.obey("steps 10")
    it.requests(2)
    it.obey("steps 10")
    assert it.calls() == []
    it.requests(1)
    it.hear("on .* after 3 requests and 20 steps, for at most 1000 steps")
    it.requests(1)
    it.obey("steps 7")
    assert it.calls() == ["/start_profile"]
    it.requests(1)
    it.hear("off after 7 steps and 2 requests")
    assert it.end() == 0


def test_a_window_without_bounds_ends_after_a_hundred_steps(run):
    it = run(*LIGHT)
    it.hear("for at most 100 steps")
    it.obey("steps 250")
    it.hear("off after 100 steps")
    assert it.end() == 0


def test_a_window_without_bounds_ends_when_the_server_falls_quiet(run):
    it = run(*LIGHT)
    it.hear("for at most 100 steps")
    it.obey("steps 5")
    it.hear("off after 5 steps")
    assert it.end() == 0


def test_windows_come_again(run):
    it = run(*LIGHT, "--steps", "5", "--every", "1s")
    for _ in range(3):
        it.hear("torch profiler on")
        it.obey("steps 5")
        it.hear("torch profiler off after 5 steps")
    it.end()
    assert it.calls()[:6] == ["/start_profile", "/stop_profile"] * 3
    assert len(traces(it)) >= 3


def test_a_size_limit_is_learned_and_kept(run):
    it = run(*LIGHT, "--steps", "100", "--every", "1s", "--size-limit", "100k", fake={"trace": 20000})
    it.hear("on .*a short window to learn how large traces get.* at most 10 steps")
    it.obey("steps 10")
    it.hear("off after 10 steps")
    # 2000 bytes a step: nine tenths of the limit are 46 steps
    it.hear("this window is 46 steps, to stay below --size-limit")
    it.behave(trace=90000)
    it.hear("for at most 46 steps")
    it.obey("steps 46")
    it.hear("off after 46 steps")
    it.hear("removed 1 older trace of this run")
    assert [path.stat().st_size for path in traces(it)] == [90000]
    it.end()


# ---- what the server may do wrong ----


def test_a_slow_flush_is_waited_for_with_a_line(run):
    it = run(*LIGHT, "--steps", "5", fake={"slow": 6})
    it.hear("torch profiler on")
    it.obey("steps 5")
    it.hear(r"the server writes its trace: \d+ s, 0\.0 MB so far")
    it.hear(r"off after 5 steps and 0 requests, written in")
    assert it.end() == 0


def test_a_flush_that_hangs_is_given_up(run):
    it = run(*LIGHT, "--steps", "5", "--flush-timeout", "1s", fake={"stop": "hang"})
    it.hear("torch profiler on")
    it.obey("steps 5")
    it.hear(r"did not answer /stop_profile within 1 s \(--flush-timeout\)")
    assert it.end() == 0


def test_a_start_that_hangs_does_not_hang_us(run):
    it = run(*LIGHT, fake={"start": "hang"})
    while it.calls() != ["/start_profile"]:
        time.sleep(0.01)
    it.process.send_signal(signal.SIGTERM)
    it.process.send_signal(signal.SIGINT)  # the second one is not held back
    assert it.finish() == 0


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        (404, "this server has no /start_profile"),
        (500, "answered /start_profile with 500"),
        ("drop", "the connection to the server at 127.0.0.1:.* broke at /start_profile"),
    ],
)
def test_a_start_that_fails_is_told(run, how, sentence):
    it = run(*LIGHT, fake={"start": how})
    it.hear(sentence)
    it.obey("steps 200")
    assert it.end() == 0 and it.calls() == ["/start_profile"]


def test_a_stop_that_fails_is_told(run):
    it = run(*LIGHT, "--steps", "5", fake={"stop": 500})
    it.hear("torch profiler on")
    it.obey("steps 5")
    it.hear("answered /stop_profile with 500: its log says why")
    assert it.end() == 0


@pytest.mark.parametrize("where", ["start", "stop"])
def test_a_server_that_dies(run, where):
    it = run(*LIGHT, "--steps", "5", fake={where: "die"})
    if where == "stop":
        it.hear("torch profiler on")
        it.obey("steps 5")
    it.hear(f"broke at /{where}_profile|the server ended while it was profiled")
    assert it.finish() == 128 + signal.SIGKILL


def test_the_server_ends_in_the_window(run):
    it = run(*LIGHT)
    it.hear("torch profiler on")
    it.obey("steps 5")
    os.kill(int(open(f"/proc/{it.process.pid}/task/{it.process.pid}/children").read().split()[0]), signal.SIGKILL)
    it.hear("the server ended while it was profiled: this window's trace is lost")
    assert it.finish() == 128 + signal.SIGKILL


def test_a_trace_that_does_not_appear_is_told(run, cli):
    it = run(*LIGHT, "--steps", "5", env={"FAKE_PROFILER": "torch"})
    it.hear("torch profiler on")
    elsewhere = cli.tmp / "elsewhere"
    (cli.tmp / "profiler_output").rename(elsewhere)
    (cli.tmp / "profiler_output").symlink_to(elsewhere)
    it.behave(stop=200)
    it.obey("steps 5")
    it.hear("but no trace has appeared in .*profiler_output: the server's log says why")
    it.end()


def test_another_profiler_of_the_commands_own(run):
    it = run(*LIGHT, env={"FAKE_PROFILER": "cuda"})
    it.hear("the command's own --profiler-config asks for the cuda profiler")
    assert it.end() == 0 and it.calls() == []


def test_no_server_at_that_address(run):
    it = run(*LIGHT, "--server", "http://127.0.0.1:1")
    it.obey("steps 5")
    assert it.end() == 0
    assert "no server answered at 127.0.0.1:1, nothing was profiled" in it.text()


def test_too_few_requests(run):
    it = run(*LIGHT, "--requests", "10:20")
    it.requests(2)
    time.sleep(1)
    assert it.end() == 0
    assert "nothing was profiled: 2 requests ended, the window was to begin after 10" in it.text()


# ---- signals ----


def test_a_signal_waits_until_the_trace_is_written(run):
    it = run(*LIGHT, fake={"slow": 1})
    it.hear("torch profiler on")
    it.obey("steps 5")
    assert it.end() == 0
    asked = [each.get("path") or each.get("signal") for each in it.asked()[1:]]
    assert asked == ["/start_profile", "/stop_profile", "SIGTERM"]
    assert "off after 5 steps" in it.text() and len(traces(it)) == 1


def test_a_second_signal_does_not_wait(run):
    it = run(*LIGHT, fake={"stop": "hang"})
    it.hear("torch profiler on")
    it.process.send_signal(signal.SIGTERM)
    while it.calls() != ["/start_profile", "/stop_profile"]:
        time.sleep(0.01)
    it.process.send_signal(signal.SIGTERM)
    assert it.finish() == 0
    assert "the server ended while it was profiled" in it.text()


# ---- what the server is given ----


def test_the_variables_of_the_modes(run, cli):
    light = run(*LIGHT)
    assert light.end() == 0
    seen = light.environment()
    switches = ("RECORD_SHAPES", "WITH_FLOPS", "WITH_PROFILE_MEMORY", "WITH_STACK")
    assert seen["VLLM_TORCH_PROFILER_DIR"] == str(cli.tmp / "profiler_output")
    assert [seen[f"VLLM_TORCH_PROFILER_{name}"] for name in switches] == ["0"] * 4
    assert seen["VLLM_TORCH_PROFILER_DISABLE_ASYNC_LLM"] == "1" and seen["VLLM_PROFILER_MAX_ITERS"] == "100"
    assert "VLLM_PROFILING_TRACE_FUNCTION" not in seen


@pytest.mark.parametrize("mode", ["detailed", "deep"])
def test_the_variables_of_more(run, cli, mode):
    it = run("-q", "--torch-profile", mode, "--trace-dir", "some/where", "--steps", "7",
             env={"VLLM_TORCH_PROFILER_WITH_STACK": "0"})  # fmt: skip
    assert it.end() == 0
    seen = it.environment()
    assert seen["VLLM_TORCH_PROFILER_DIR"] == str(cli.tmp / "some/where")
    assert seen["VLLM_TORCH_PROFILER_WITH_STACK"] == "0", "what the user has set is kept"
    assert seen["VLLM_TORCH_PROFILER_WITH_FLOPS"] == seen["VLLM_TORCH_PROFILER_RECORD_SHAPES"] == "1"
    assert seen["VLLM_PROFILER_MAX_ITERS"] == "7"
    assert seen.get("VLLM_PROFILING_TRACE_FUNCTION") == ("all" if mode == "deep" else None)


def test_the_guides_directory_is_taken(run, cli):
    it = run(*LIGHT, env={"VLLM_TORCH_PROFILER_DIR": str(cli.tmp / "mine")})
    assert it.end() == 0 and it.environment()["VLLM_TORCH_PROFILER_DIR"] == str(cli.tmp / "mine")


def test_launch_blocking_is_warned_of(run):
    it = run(*LIGHT, env={"CUDA_LAUNCH_BLOCKING": "1"})
    it.hear("CUDA_LAUNCH_BLOCKING=1 makes every kernel launch wait")
    it.end()


# ---- the address ----


@pytest.mark.parametrize("way", ["key", "environment", "config", "url", "underscores"])
def test_address_and_key(run, cli, way):
    (cli.tmp / "config.yaml").write_text("# mine\nmodel: x\nport: 'PORT'\napi-key: [secret]  # hidden\n")
    base = [sys.executable, SERVER, "serve"]
    words, env, options = {
        "key": (["--port", "PORT", "--api-key", "secret"], {}, []),
        "environment": (["--port=PORT", "--port", "PORT"], {"VLLM_API_KEY": "secret"}, []),
        "config": (["--config", "config.yaml", "--portable", "1"], {}, []),
        "url": (["--host", "0.0.0.0"], {"VLLM_API_KEY": "secret"}, ["--server", "localhost:PORT"]),
        "underscores": (["--port", "PORT", "--api_key=secret"], {}, []),
    }[way]
    if way in ("config", "url"):
        port = str(free_port())
        (cli.tmp / "config.yaml").write_text((cli.tmp / "config.yaml").read_text().replace("PORT", port))
        shim = cli.tmp / "server.sh"
        shim.write_text(f"exec {sys.executable} {SERVER} serve --port {port}\n")
        it = run(*LIGHT, *(each.replace("PORT", port) for each in options), command=["sh", shim, *words], env=env)
        it.port = int(port)
    else:
        it = run(*LIGHT, *options, command=[*base, *words], env=env)
    it.hear("torch profiler on")
    it.end()
    assert it.asked()[1]["authorization"] == "Bearer secret"


# ---- misuse ----


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--torch-profile", "heavy"], "--torch-profile=heavy is not valid, give light, detailed or deep"),
        (["--torch-profile", "light", "--requests", "20:10"], "--requests=20:10 is not valid, give FROM:TO"),
        (["--torch-profile", "light", "--requests", "a"], "--requests=a is not valid"),
        (["--torch-profile", "light", "--steps", "0"], "--steps=0 would profile nothing"),
        (["--torch-profile", "light", "--every", "5 apples"], "--every=5 apples is not valid"),
        (["--torch-profile", "light", "--size-limit", "-1"], "--size-limit=-1 is not valid"),
        (["--torch-profile", "light", "--flush-timeout", "0"], "--flush-timeout=0 is not valid"),
        (["--torch-profile", "light", "--server", "https://x:1"], "speaks https, which --torch-profile does not"),
        (["--torch-profile", "light", "--server", "nowhere"], "is no address of a server"),
        (["--steps", "5"], "--steps is about torch's profiler, give --torch-profile as well"),
        (["--requests", "5"], "--requests is about torch's profiler"),
    ],
)
def test_misuse(cli, options, sentence):
    shown = cli("run", *options, "--", "touch", "ran")
    assert shown.returncode == 2 and not (cli.tmp / "ran").exists()
    assert sentence in one_sentence(shown.stderr)


def test_a_certificate_is_refused(cli):
    shown = cli("run", *LIGHT, "--", "touch", "ran", "--ssl-certfile", "x.pem")
    assert shown.returncode == 2 and "speaks https" in one_sentence(shown.stderr)


def test_requests_that_are_not_followed_cannot_be_counted(cli):
    shown = cli("run", *LIGHT, "--requests", "5", "--no-preemption-tracking", "--", "touch", "ran")
    assert shown.returncode == 1 and not (cli.tmp / "ran").exists()
    assert "--requests needs the life of requests" in one_sentence(shown.stderr)


def test_a_folder_that_cannot_be_written(cli):
    (cli.tmp / "file").write_text("")
    shown = cli("run", *LIGHT, "--trace-dir", "file/below", "--", "touch", "ran")
    assert shown.returncode == 1 and not (cli.tmp / "ran").exists()
    assert "the folder file/below cannot be written: Not a directory" in one_sentence(shown.stderr)


def test_switched_off_nothing_is_profiled(cli):
    shown = cli("run", *LIGHT, "--", "env", env={"VLLM_ENABLE_PROFILING": "0"})
    assert shown.returncode == 0 and "TORCH_PROFILER" not in shown.stdout
