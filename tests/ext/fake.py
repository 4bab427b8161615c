"""What the tests of the extension share: interpreters, a package that looks like vLLM, and what a session recorded."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("PM_BUILD", ROOT / "build" / "release")).resolve()
SITE = BUILD / "site"
EXTENSION = SITE / "sitecustomize.abi3.so"


def find_interpreters(*versions: str) -> dict[str, str]:
    """The CPythons of this machine by version: those of $PM_PYTHONS (paths, separated by colons), else those of
    pyenv and of the search path, each asked itself, since a shim may stand for another."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found: dict[str, str] = {}
    named = [path for path in os.environ.get("PM_PYTHONS", "").split(os.pathsep) if path]
    for version in versions:
        candidates = named or [
            *map(str, sorted(pyenv.glob(f"{version}.*/bin/python3"))),
            shutil.which(f"python{version}") or "",
        ]
        for candidate in filter(None, candidates):
            asked = subprocess.run(
                [candidate, "-ISc", "import sys; print('%d.%d' % sys.version_info[:2], sys.executable)"],
                capture_output=True, text=True,
            )  # fmt: skip
            if asked.returncode == 0 and asked.stdout.split()[0] == version:
                found[version] = asked.stdout.split(maxsplit=1)[1].strip()
                break
    return found


PYTHONS = find_interpreters("3.10", "3.11", "3.12", "3.13", "3.14")
OLD_PYTHONS = find_interpreters("3.8", "3.9")
PYTHON = PYTHONS.get("3.11") or next(iter(PYTHONS.values()), sys.executable)

FILES = {
    "vllm/__init__.py": '__version__ = "0.32.0"',
    "vllm/envs.py": 'environment_variables = {"VLLM_KNOWN": lambda: 1}',
    "vllm/platforms/__init__.py": "",
    "vllm/platforms/interface.py": """
        import os
        from vllm import envs

        class Platform:
            @classmethod
            def validate_environ(cls, hard_fail):
                unknown = []
                for env in os.environ:
                    if env.startswith("VLLM_") and env not in envs.environment_variables:
                        if hard_fail:
                            raise ValueError(f"Unknown vLLM environment variable detected: {env}")
                        unknown.append(env)
                return unknown

        class CpuPlatform(Platform):
            pass
        """,
    "vllm/engine/__init__.py": "",
    "vllm/engine/arg_utils.py": """
        from types import SimpleNamespace as N
        from vllm.platforms.interface import CpuPlatform

        class EngineArgs:
            model = "tiny"

            def create_engine_config(self, usage_context=None, headless=False):
                CpuPlatform.validate_environ(False)
                return N(
                    model_config=N(model=self.model, max_model_len=128, dtype="float32", enforce_eager=True),
                    scheduler_config=N(max_num_seqs=4, max_num_batched_tokens=64, async_scheduling=False),
                    cache_config=N(gpu_memory_utilization=0.5, num_gpu_blocks=None, block_size=16),
                    parallel_config=N(tensor_parallel_size=1, data_parallel_index=0, data_parallel_rank=0),
                    device_config=N(device_type="cpu"),
                    instance_id="abc123",
                )
        """,
    "vllm/v1/__init__.py": "",
    "vllm/v1/engine/__init__.py": "",
    "vllm/v1/engine/core.py": """
        class EngineCore:
            def __init__(self, vllm_config, executor_class=None, log_stats=False):
                self.vllm_config = vllm_config
                vllm_config.cache_config.num_gpu_blocks = 77
        """,
    "vllm/v1/worker/__init__.py": "",
    "vllm/v1/worker/gpu_worker.py": """
        class Worker:
            def __init__(self, vllm_config, local_rank, rank, distributed_init_method, is_driver_worker=False):
                self.rank = rank

            def execute_model(self, scheduler_output):
                return None
        """,
    "vllm/entrypoints/__init__.py": "",
    "vllm/entrypoints/openai/__init__.py": "",
}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip())
    return folder


def environment(base: Path, *path: str | Path, **extra: str) -> dict[str, str]:
    """An environment with nothing of vLLM and Python but what is given; sessions go below base."""
    ours = ("VLLM_", "PROFILEMATE_", "PYTHON", "PYTEST_", "PM_", "XDG_")
    made = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    made.update(
        PYTHONPATH=os.pathsep.join(map(str, path)),
        PYTHONDONTWRITEBYTECODE="1",
        VLLM_PROFILING_DIR=str(base / "sessions"),
    )
    made.update(extra)
    return {name: value for name, value in made.items() if value}


def run(python: str, arguments: list[str], env: dict[str, str], cwd: Path, timeout: float = 180, check: bool = True):
    done = subprocess.run(
        [python, *arguments], env=env, cwd=cwd, timeout=timeout, capture_output=True, text=True, errors="replace"
    )
    assert not check or done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@dataclass
class Records:
    """One process's record file, as far as these tests look into it."""

    path: Path
    pid: int
    roles: int
    engine: int
    rank: int
    state: int
    attributes: dict[str, str] = field(default_factory=dict)


HEAD = struct.Struct("<QIIIIIIII16sQ3Q16sIiiI")


def read_records(path: Path) -> Records:
    """Walks the KEEP stream of a file by src/session/layout.h, apart from our own reader."""
    data = path.read_bytes()
    head = HEAD.unpack_from(data)
    header_bytes, segment_bytes, pid = head[2], head[3], head[6]
    found = Records(path, pid, roles=head[15], engine=head[16], rank=head[17], state=head[18])
    for start in range(header_bytes, len(data) - 127, segment_bytes):
        if data[start : start + 8] != b"PFMESEG1":
            continue
        at = start + 128
        while at + 8 <= min(start + segment_bytes, len(data)):
            word = int.from_bytes(data[at : at + 8], "little")
            if word == 0:
                break
            schema, words = word & 0xFFFF, word >> 16 & 0xFFFF
            if schema == 3:
                _, key_bytes, value_bytes = struct.unpack_from("<QII", data, at + 8)
                key = data[at + 24 : at + 24 + key_bytes].decode()
                value = data[at + 24 + key_bytes : at + 24 + key_bytes + value_bytes].decode()
                found.attributes[key] = value
            at += words * 8
    return found


def sessions(base: Path) -> list[Path]:
    folder = base / "sessions"
    return sorted(path for path in folder.glob("session_*") if path.is_dir()) if folder.exists() else []


def records(session: Path) -> list[Records]:
    return sorted((read_records(path) for path in session.glob("records/*.pmrec")), key=lambda found: found.pid)


def session_token(session: Path) -> str:
    return re.search(r"^token (\S+)$", (session / "session").read_text(), re.M).group(1)
