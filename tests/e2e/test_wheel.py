"""The wheel: `pip install` alone is enough, it touches nothing but vLLM, and uninstalling leaves nothing behind.

Built once with `pip wheel`, installed into an empty environment of each CPython. vLLM itself is not in those
environments: what the extension decides there, and what it leaves alone, does not need it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import serving

VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
# A package named vllm that only says whether a finder instance of somebody is there when it is imported.
FAKE_VLLM = "import sys\nprint('hooked' if any(not isinstance(finder, type) for finder in sys.meta_path) else 'bare')\n"


def interpreter(version: str) -> str:
    """A CPython of that version, as scripts/lib.sh finds it; the test is skipped where there is none."""
    script = f'. "{serving.ROOT}/scripts/lib.sh"; python_named {version}'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no CPython {version} on the PATH or under pyenv")
    return done.stdout.strip()


def test_the_tag_and_the_contents(wheel):
    assert re.fullmatch(r"profilemate-[\d.]+-cp310-abi3-linux_\w+\.whl", wheel.name)
    names = set(zipfile.ZipFile(wheel).namelist())
    scripts = {name for name in names if ".data/scripts/" in name}
    assert {Path(name).name for name in scripts} == {"profilemate"}
    shared = {name for name in names if ".data/data/share/" in name}
    assert {"profilemate.1", "profilemate-session.5"} <= {Path(name).name for name in shared}
    outside = {name for name in names - scripts - shared if ".dist-info/" not in name}
    sources = serving.ROOT / "python"
    assert outside == {
        *(str(path.relative_to(sources)) for path in sources.glob("profilemate/**/*.py*") if path.suffix != ".pyc"),
        *(str(path.relative_to(sources)) for path in sources.glob("profilemate/**/*.sql")),
        "profilemate/py.typed",
        "profilemate/_reader.abi3.so",
        "_profilemate.abi3.so",
        "profilemate.pth",
        "profilemate.start",
        "profilemate/site/sitecustomize.abi3.so",
        "profilemate/site/simple/sitecustomize.abi3.so",
    }


def test_it_would_run_on_any_manylinux(wheel):
    """auditwheel: nothing is linked but what every distribution has, at the C library's version of this machine."""
    pytest.importorskip("auditwheel", reason="auditwheel is not installed")
    shown = subprocess.run(
        [sys.executable, "-m", "auditwheel", "show", wheel], capture_output=True, text=True, timeout=300
    )
    assert shown.returncode == 0, shown.stderr
    said = " ".join(shown.stdout.split())
    assert re.search(r'consistent with the following platform tag: "manylinux_2_\d+_\w+"', said), said


def test_the_pth_is_one_line_that_cannot_fail(wheel):
    """`site` prints what a failing line raised to stderr, in every Python process of the environment."""
    text = zipfile.ZipFile(wheel).read("profilemate.pth").decode()
    assert text.count("\n") == 1 and text.startswith("import ")
    done = subprocess.run([sys.executable, "-I", "-S", "-c", text], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")  # without the extension


class Environment:
    def __init__(self, folder: Path, python: str, wheel: Path):
        self.folder = folder
        subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
        self.python = folder / "bin" / "python"
        self.site = Path(self.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())
        self.before = self.files()
        self.pip("install", "--no-index", "--no-deps", wheel)
        self.sessions = folder.parent / f"{folder.name}-sessions"

    def pip(self, *arguments: str | Path) -> None:
        """pip from the outside, so that the environment itself stays empty."""
        command = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", self.python, *arguments)
        done = subprocess.run(command, capture_output=True, text=True, env=serving.clean_environment())
        assert done.returncode == 0, done.stdout + done.stderr

    def run(self, *arguments: str | Path, **extra: str) -> subprocess.CompletedProcess:
        env = serving.clean_environment(**extra)
        if hasattr(self, "sessions"):
            env["VLLM_PROFILING_DIR"] = str(self.sessions)
        return subprocess.run([self.python, *arguments], capture_output=True, text=True, env=env, cwd=self.folder)

    def files(self) -> set[Path]:
        found = {path.relative_to(self.folder) for path in self.folder.rglob("*") if not path.is_dir()}
        return {path for path in found if "__pycache__" not in path.parts}

    def fake_vllm(self) -> None:
        for package in ("vllm", "vllm/entrypoints", "vllm/entrypoints/openai"):
            (self.site / package).mkdir(exist_ok=True)
            (self.site / package / "__init__.py").write_text(FAKE_VLLM if package == "vllm" else "")
        (self.site / "vllm" / "entrypoints" / "openai" / "api_server.py").write_text("print('served')\n")
        (self.folder / "bin" / "vllm").write_text("import vllm\n")


@pytest.fixture(scope="session", params=VERSIONS)
def installed(request, tmp_path_factory, wheel):
    return Environment(tmp_path_factory.mktemp("installed") / request.param, interpreter(request.param), wheel)


def test_the_program_is_there(installed):
    done = subprocess.run([installed.folder / "bin" / "profilemate", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and re.search(r"\d+\.\d+\.\d+", done.stdout), done
    version = re.search(r"\d+\.\d+\.\d+", done.stdout)[0]
    assert installed.run("-c", "import profilemate; print(profilemate.__version__)").stdout.strip() == version
    assert installed.run("-m", "profilemate", "--version").stdout == done.stdout


def test_the_program_finds_the_extension(installed):
    done = subprocess.run([installed.folder / "bin" / "profilemate", "env"], capture_output=True, text=True)
    assert done.returncode == 0, done
    assert str(installed.site / "profilemate" / "site") in done.stdout


def test_other_processes_are_left_alone(installed):
    for arguments in (
        ("-c", "pass"),
        ("-c", "import json"),
        ("-m", "json.tool", "--help"),
        ("-c", "pass", "--model", "x"),
    ):
        bare = installed.run("-S", *arguments)
        done = installed.run(*arguments)
        assert (done.returncode, done.stdout, done.stderr) == (bare.returncode, bare.stdout, bare.stderr)
    assert not installed.sessions.exists()
    hooks = installed.run("-c", "import sys; print([f for f in sys.meta_path if not isinstance(f, type)])")
    assert hooks.stdout.strip() == "[]"


def test_a_vllm_server_gets_the_hook_and_a_bare_import_does_not(installed):
    installed.fake_vllm()
    server = installed.run("-m", "vllm.entrypoints.openai.api_server")
    assert (server.stdout.split(), server.stderr) == (["hooked", "served"], "")
    assert installed.run("-c", "import vllm").stdout.strip() == "bare"
    assert installed.run("-c", "import vllm", VLLM_ENABLE_PROFILING="1").stdout.strip() == "hooked"
    assert installed.run("bin/vllm", "serve", "model").stdout.strip() == "hooked"
    assert installed.run("bin/vllm", "collect-env").stdout.strip() == "bare"
    # Nothing was served, so nothing was recorded.
    assert not installed.sessions.exists()


def test_the_entry_point_is_vllms(installed):
    code = (
        "from importlib.metadata import entry_points\n"
        "(e,) = [e for e in entry_points(group='vllm.general_plugins') if e.name == 'profilemate']\n"
        "print(e.value, e.load()())"
    )
    done = installed.run("-c", code)
    assert (done.stdout.strip(), done.stderr) == ("profilemate.plugin:register None", "")


def test_half_uninstalled_it_says_nothing(installed, tmp_path):
    """pip removes file by file; a process that starts in between must not notice."""
    for name in ("_profilemate.abi3.so", "profilemate"):
        there, away = installed.site / name, tmp_path / name
        shutil.move(there, away)
        try:
            done = installed.run("-c", "print('fine')")
            assert (done.stdout, done.stderr) == ("fine\n", ""), name
        finally:
            shutil.move(away, there)


def test_uninstalling_leaves_nothing(installed):
    shutil.rmtree(installed.site / "vllm", ignore_errors=True)
    (installed.folder / "bin" / "vllm").unlink(missing_ok=True)
    installed.pip("uninstall", "--yes", "profilemate")
    assert installed.files() == installed.before
    assert not os.path.exists(installed.site / "profilemate")
    done = installed.run("-m", "json.tool", "--help")
    assert done.returncode == 0 and done.stderr == ""
