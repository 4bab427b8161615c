"""The second half of ./demo: a real server under `profilemate run`, real requests, and what came of them.

Runs with the interpreter of the environment that vLLM is in. Everything it makes lies in demo-output/.
"""

import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

import serving  # noqa: E402
import tiny  # noqa: E402

OUTPUT = ROOT / "demo-output"


def say(text: str) -> None:
    print(f"[demo] {text}", flush=True)


def requests(seed: int = 3) -> list[dict]:
    """A mix: short and long prompts, prompts that begin alike, a few and many tokens, some streamed."""
    rng = random.Random(seed)
    shared = " ".join(tiny.CORPUS)
    mix = []
    for i in range(48):
        if i % 3 == 0:
            prompt: str | list[int] = shared + f" Question {i}: what comes next?"
        elif i % 3 == 1:
            prompt = [rng.randrange(3, tiny.VOCABULARY) for _ in range(rng.randrange(300, 700))]
        else:
            prompt = rng.choice(tiny.CORPUS)
        mix.append({"prompt": prompt, "max_tokens": rng.randrange(8, 120), "stream": i % 4 == 0})
    return mix


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def main() -> int:
    sessions = OUTPUT / "sessions"
    sessions.mkdir(parents=True, exist_ok=True)
    before = set(sessions.iterdir())
    run = (str(serving.PROGRAM), "run", "--dir", str(sessions), "--")

    began = time.monotonic()
    server = serving.Server(
        tiny.make("llama"), OUTPUT / "server", serving.clean_environment(), launcher="serve", before=run
    )
    with server:
        say(f"starting: profilemate run --dir {relative(sessions)} -- vllm serve …  (about half a minute)")
        say(f"its output goes to {relative(server.stdout)} and {relative(server.stderr)}")
        server.wait_ready()
        say(f"the server answers on port {server.port} after {time.monotonic() - began:.0f} s; sending 48 requests")
        began = time.monotonic()
        server.complete_all(requests(), concurrency=12)
        metrics = server.metrics()
        say(
            f"done in {time.monotonic() - began:.1f} s; vLLM counted {metrics.sum('vllm:prompt_tokens_total')} prompt "
            f"and {metrics.sum('vllm:generation_tokens_total')} generated tokens"
        )
        say("stopping it, as Ctrl+C would")
        code = server.stop(signal.SIGINT)
    if code not in (0, 130):
        say(f"the server ended with {code}:\n{server.tail()}")
        return 1

    made = sorted(set(sessions.iterdir()) - before)
    if not made:
        say(f"no session was made:\n{server.tail()}")
        return 1
    session = made[-1]
    command = [str(serving.PROGRAM), "report", "--text", str(session)]
    say(shlex.join([relative(Path(command[0])), *command[1:-1], relative(session)]))
    print(flush=True)
    if subprocess.run(command).returncode != 0:
        return 1
    print(flush=True)
    say(f"the files of this session, in {relative(session)}:")
    for path in sorted(p for p in session.rglob("*") if p.is_file() and "records" not in p.parts):
        print(f"    {path.relative_to(session)}  {path.stat().st_size} bytes")
    say(f"the facts they were made from: {relative(session / 'records')}")
    say(f"for yours: {relative(serving.PROGRAM)} run -- vllm serve MODEL    (more in README.md)")
    say("the same as a page for a browser (profilemate report):")
    return subprocess.run([str(serving.PROGRAM), "report", str(session)]).returncode


if __name__ == "__main__":
    sys.exit(main())
