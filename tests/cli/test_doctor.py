"""profilemate doctor: wrong set-ups made on purpose, each with its finding, its advice and its exit code."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from program import PROGRAM, ROOT, SITE, one_sentence

# Each place once, however many probes hook it.
TARGETS = {
    match[:2]: match
    for file in sorted((ROOT / "src" / "probe").glob("*.def"))
    for match in re.findall(
        r'^T\(\w+,\s*"([\w.]+)",\s*"([\w.]+)",\s*\w+,\s*([^,]+),\s*"([^"]+)"', file.read_text(), re.M
    )
}.values()


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> str:
    """A Python with nothing installed, whatever the one that runs the tests has."""
    venv = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=600)
    return str(venv / "bin" / "python")


class Doctor:
    """A set-up that is right, for a test to spoil: a folder with a vLLM made up of empty classes, and the extension."""

    def __init__(self, cli, python):
        self.cli = cli
        self.python = python
        self.vllm = cli.tmp / "packages"
        self.env = {"PYTHONPATH": f"{SITE}:{self.vllm}"}
        self.make_vllm("0.32.0")

    def make_vllm(self, version: str, without: tuple[str, ...] = ()):
        shutil.rmtree(self.vllm, ignore_errors=True)
        modules: dict[str, dict[str, list[str]]] = {}
        for module, qualname, _, _ in TARGETS:
            owner, _, method = qualname.rpartition(".")
            if f"{module}:{qualname}" not in without:
                modules.setdefault(module, {}).setdefault(owner, []).append(method)
        for module, classes in modules.items():
            # What was a module in one release is a package in another: here it is a package with both.
            package = any(other.startswith(f"{module}.") for other in modules)
            path = self.vllm.joinpath(*module.split("."), *(["__init__"] if package else [])).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(
                "raise ImportError('the doctor must not import this')\n"
                + "".join(
                    f"class {owner}:\n" + "".join(f"    def {each}(self): pass\n" for each in methods)
                    if owner
                    else "".join(f"def {each}(): pass\n" for each in methods)
                    for owner, methods in classes.items()
                )
            )
        for folder in [self.vllm / "vllm", *(p for p in (self.vllm / "vllm").rglob("*") if p.is_dir())]:
            if not (folder / "__init__.py").exists():
                (folder / "__init__.py").write_text("raise ImportError('the doctor must not import this')\n")
        (self.vllm / "vllm" / "_version.py").write_text(f"__version__ = version = {version!r}\n")

    def __call__(self, *words, python="", **env):
        """Its findings, checked against the exit code. What is in `env` is set, or unset where it is None. python: the
        one named with --python, None for no such option."""
        flags = [] if python is None else ["--python", python or self.python]
        shown = self.cli("doctor", "--json", *flags, *words, env={**self.env, **env})
        assert shown.stderr == "", shown.stderr
        document = json.loads(shown.stdout)
        problems = [check for check in document["checks"] if check["status"] == "problem"]
        assert document["healthy"] == (not problems) and document["problems"] == len(problems)
        assert shown.returncode == (1 if problems else 0)
        for check in document["checks"]:
            assert set(check) == {"section", "id", "status", "text", "advice"}
            assert check["text"] and "\n" not in check["text"]
        return Findings(document["checks"])


class Findings:
    def __init__(self, checks):
        self.checks = checks

    def problems(self):
        return [check["id"] for check in self.checks if check["status"] == "problem"]

    def one(self, ident):
        found = [check for check in self.checks if check["id"] == ident]
        assert len(found) == 1, f"{len(found)} findings {ident} in {json.dumps(self.checks, indent=1)}"
        return found[0]

    def only_problem(self, ident):
        assert self.problems() == [ident], json.dumps(self.checks, indent=1)
        (check,) = (each for each in self.checks if each["status"] == "problem")
        return check["text"], check["advice"]


@pytest.fixture
def doctor(cli, bare):
    return Doctor(cli, bare)


@pytest.fixture
def fake_python(script):
    """A Python that answers as a test wants: lines of the probe's protocol."""

    def make(**answers):
        lines = {
            "python.version": "3.12.1",
            "python.implementation": "cpython",
            "python.executable": "/opt/python",
            "python.free_threaded": "0",
            "python.no_site": "0",
            "python.ignore_environment": "0",
        }
        lines.update({key.replace("__", "."): value for key, value in answers.items()})
        text = "".join(f"{key}\\t{value}\\n" for key, value in lines.items())
        return script("python-fake", f"printf '{text}end\\n'", interpreter="#!/bin/sh")

    return make


# ---- all is well ----


def test_a_right_set_up_is_healthy(doctor):
    found = doctor()
    assert found.problems() == []
    assert str(SITE / "sitecustomize.abi3.so") in found.one("way-sitecustomize")["text"]
    assert found.one("python-version")["text"].endswith("CPython " + ".".join(map(str, sys.version_info[:3])))
    assert "vLLM 0.32.0 in " in found.one("vllm")["text"]
    assert found.one("hooks")["text"] == f"{len(TARGETS)} of {len(TARGETS)} hooks exist in this vLLM"
    assert len(TARGETS) > 10


def test_the_text_is_a_checklist(doctor):
    shown = doctor.cli("doctor", "--python", doctor.python, env=doctor.env)
    assert shown.returncode == 0 and shown.stdout.endswith("\n0 problems, 0 warnings.\n")
    assert [line for line in shown.stdout.splitlines() if line and not line.startswith("  ")][:-1] == [
        "Python", "Extension", "vLLM", "Settings", "Activation", "Output", "Clock"]  # fmt: skip
    shown = doctor.cli("doctor", "--python", doctor.python, env={**doctor.env, "VLLM_ENABLE_PROFILING": "0"})
    assert shown.returncode == 1
    assert "  ✗ VLLM_ENABLE_PROFILING is 0: nothing is profiled" in shown.stdout
    assert "\n      → unset VLLM_ENABLE_PROFILING" in shown.stdout


def test_it_leaves_nothing_behind(doctor):
    before = sorted(map(str, doctor.cli.tmp.rglob("*")))
    doctor(VLLM_ENABLE_PROFILING="1")
    doctor("--", doctor.python, "-m", "vllm.entrypoints.openai.api_server")
    assert sorted(map(str, doctor.cli.tmp.rglob("*"))) == before


def test_the_real_vllm_has_every_hook_of_its_release(doctor):
    python = Path.home() / ".cache" / "profilemate" / "venv" / "bin" / "python"
    if not python.exists():
        pytest.skip("no environment with vLLM (scripts/setup-vllm makes it)")
    found = doctor(python=python, PYTHONPATH=str(SITE))
    assert found.problems() == []
    assert re.fullmatch(r"(\d+) of \d+ hooks exist in this vLLM", found.one("hooks")["text"])


# ---- wrong set-ups: the extension ----


def test_wrong_nothing_on_pythonpath(doctor):
    text, advice = doctor(PYTHONPATH=str(doctor.vllm)).only_problem("way-none")
    assert "this Python does not find the extension" in text
    assert "profilemate run -- COMMAND" in advice and f'export PYTHONPATH="{SITE}:$PYTHONPATH"' in advice


def test_wrong_pythonpath_names_the_folder_above(doctor):
    found = doctor(PYTHONPATH=f"{SITE.parent}:{doctor.vllm}")
    assert found.problems() == ["way-none"]
    entry = found.one("pythonpath-entry")
    assert entry["text"] == f"PYTHONPATH names {SITE.parent}, but the extension lies below it"
    assert entry["advice"] == f"name {SITE} instead"


def test_wrong_pythonpath_names_a_folder_that_is_not_there(doctor):
    found = doctor(PYTHONPATH=f"/no/such/site:{doctor.vllm}")
    assert found.problems() == ["way-none"]
    assert found.one("pythonpath-entry")["text"] == "PYTHONPATH names /no/such/site, which is no folder"


def test_wrong_another_sitecustomize_comes_first(doctor, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "sitecustomize.py").write_text("")
    text, advice = doctor(PYTHONPATH=f"{tmp_path}/other:{SITE}:{doctor.vllm}").only_problem("way-shadowed")
    assert text.startswith(f"{tmp_path}/other/sitecustomize.py comes first on sys.path and shadows the extension")
    assert f'export PYTHONPATH="{SITE}:$PYTHONPATH"' in advice
    found = doctor(PYTHONPATH=f"{SITE}:{tmp_path}/other:{doctor.vllm}")
    assert found.problems() == []
    assert found.one("way-shadows")["text"] == f"it shadows {tmp_path}/other/sitecustomize.py, and runs that too"


def test_wrong_two_copies(doctor, tmp_path):
    shutil.copytree(SITE, tmp_path / "copy")
    found = doctor(PYTHONPATH=f"{SITE}:{tmp_path}/copy:{doctor.vllm}")
    assert found.problems() == []
    check = found.one("way-copies")
    assert check["status"] == "warning"
    assert f"{SITE}/sitecustomize.abi3.so and {tmp_path}/copy/sitecustomize.abi3.so" in check["text"]


def test_wrong_a_broken_extension(doctor, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "sitecustomize.abi3.so").write_bytes(b"\x7fELF, but not for long")
    text, advice = doctor(PYTHONPATH=f"{tmp_path}/broken:{doctor.vllm}").only_problem("way-load")
    assert "was found but not loaded: ImportError" in text and "build it again" in advice


def test_wrong_python_is_told_to_ignore_it(doctor):
    command = ["-m", "vllm.entrypoints.openai.api_server", "--model", "m"]
    found = doctor("--", doctor.python, "-I", *command, python=None)
    assert set(found.problems()) == {"python-isolated", "way-none", "vllm"}
    assert "the option -I makes Python ignore PYTHONPATH" in found.one("python-isolated")["text"]
    found = doctor("--", doctor.python, "-X", "utf8", "-S", *command, python=None)
    assert found.problems() == ["python-no-site"]
    assert found.one("python-no-site")["advice"] == "leave out -S"


def make_wheel(python: Path, tmp_path: Path) -> Path:
    """An environment in which the package is installed as the wheel does it; its Python."""
    venv = tmp_path / "venv"
    subprocess.run([python, "-m", "venv", "--without-pip", venv], check=True, timeout=600)
    (site,) = venv.glob("lib/python3*/site-packages")
    shutil.copy(SITE / "sitecustomize.abi3.so", site / "_profilemate.abi3.so")
    (site / "profilemate.pth").write_text("import _profilemate\n")
    info = site / "profilemate-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: profilemate\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[vllm.general_plugins]\nprofilemate = profilemate.plugin:register\n")
    return venv / "bin" / "python"


def test_an_installed_package_needs_no_pythonpath(doctor, tmp_path):
    python = make_wheel(doctor.python, tmp_path)
    found = doctor(python=python, PYTHONPATH=str(doctor.vllm))
    assert found.problems() == []
    assert "loads the extension at every start" in found.one("way-pth")["text"]
    assert "plug-in `profilemate`" in found.one("way-plugin")["text"]


def test_wrong_the_plugin_is_kept_out(doctor, tmp_path):
    python = make_wheel(doctor.python, tmp_path)
    found = doctor(python=python, PYTHONPATH=str(doctor.vllm), VLLM_PLUGINS="lora, other")
    assert found.problems() == [], "the .pth file is enough"
    assert found.one("way-plugin")["status"] == "note"
    (pth,) = tmp_path.rglob("profilemate.pth")
    pth.unlink()
    text, advice = doctor(
        python=python, PYTHONPATH=str(doctor.vllm), VLLM_PLUGINS="lora, other").only_problem("way-plugin")  # fmt: skip
    assert text == "VLLM_PLUGINS=lora, other keeps vLLM from loading the plug-in `profilemate`"
    assert advice == "add profilemate to VLLM_PLUGINS, or unset it"
    found = doctor(python=python, PYTHONPATH=str(doctor.vllm), VLLM_PLUGINS="lora, profilemate")
    assert found.problems() == []


def test_wrong_half_an_installed_package(doctor, tmp_path):
    python = make_wheel(doctor.python, tmp_path)
    (module,) = tmp_path.rglob("_profilemate.abi3.so")
    module.unlink()
    found = doctor(python=python, PYTHONPATH=str(doctor.vllm))
    assert found.problems() == ["way-pth"]
    assert "the module _profilemate that it loads is not" in found.one("way-pth")["text"]


# ---- wrong set-ups: Python and vLLM ----


def test_wrong_an_old_python(doctor, fake_python):
    found = doctor(python=fake_python(python__version="3.9.18"))
    assert "python-version" in found.problems()
    check = found.one("python-version")
    assert check["text"] == (
        "/opt/python is CPython 3.9.18: the extension needs 3.10 or newer and stays out of it, silently"
    )
    assert check["advice"] == "run vLLM with CPython 3.10 to 3.14"


def test_a_real_old_python_answers_too(doctor):
    olds = sorted(Path.home().glob(".pyenv/versions/3.[89].*/bin/python3"))
    if not olds:
        pytest.skip("no CPython 3.8 or 3.9 here")
    for python in olds:
        assert "stays out of it, silently" in doctor(python=python).one("python-version")["text"]


@pytest.mark.parametrize("version", ["3.10.0", "3.14.2"])
def test_the_oldest_and_the_newest_python(doctor, fake_python, version):
    assert doctor(python=fake_python(python__version=version)).one("python-version")["status"] == "ok"


def test_a_python_of_the_future_is_a_warning(doctor, fake_python):
    assert doctor(python=fake_python(python__version="3.15.0")).one("python-version")["status"] == "warning"


def test_wrong_a_free_threaded_python(doctor, fake_python):
    found = doctor(python=fake_python(python__version="3.13.0", python__free_threaded="1"))
    assert "is a free-threaded build" in found.one("python-free-threaded")["text"]
    assert "python-free-threaded" in found.problems()


def test_wrong_another_kind_of_python(doctor, fake_python):
    found = doctor(python=fake_python(python__implementation="pypy"))
    assert "the extension works in CPython only" in found.one("python-kind")["text"]


def test_wrong_no_python_at_all(doctor, script):
    text, advice = doctor(python="/no/such/python").only_problem("python")
    assert text.startswith("cannot run the Python /no/such/python (No such file") and "--python" in text
    text, _ = doctor(python="/bin/false").only_problem("python")
    assert "/bin/false does not answer as a Python does (exit code 1)" in text
    shouting = script("python-shouting", "echo hello; echo 'cannot go on' >&2; exit 3", interpreter="#!/bin/sh")
    assert "(exit code 3: cannot go on)" in doctor(python=shouting).only_problem("python")[0]
    dying = script("python-dying", "kill -9 $$", interpreter="#!/bin/sh")
    assert "was ended by signal 9" in doctor(python=dying).only_problem("python")[0]


def test_wrong_no_vllm(doctor):
    text, advice = doctor(PYTHONPATH=str(SITE)).only_problem("vllm")
    assert text.startswith("vLLM is not installed in ") and "--python" in advice


def test_wrong_an_old_vllm(doctor):
    doctor.make_vllm("0.10.2")
    text, advice = doctor().only_problem("vllm")
    assert "vLLM 0.10.2 in" in text and "is too old" in text and "0.11.0 or newer" in advice


def test_a_newer_vllm_is_a_note(doctor):
    doctor.make_vllm("0.99.0rc1")
    found = doctor()
    assert found.problems() == [] and found.one("vllm")["status"] == "note"


def test_wrong_a_vllm_without_a_hook(doctor):
    gone = next(f"{m}:{q}" for m, q, flags, since in TARGETS if "OPTIONAL" not in flags and q.count(".") == 1)
    doctor.make_vllm("0.32.0", without=(gone,))
    text, advice = doctor().only_problem("hook")
    assert text.startswith(f"{gone} is not there (no ") and "the probe" in text and advice


def test_a_hook_that_came_later_or_is_optional_is_a_note(doctor):
    later = next(f"{m}:{q}" for m, q, flags, since in TARGETS if since == "0.12.0+")
    doctor.make_vllm("0.11.2", without=(later,))
    found = doctor()
    assert found.problems() == []
    assert found.one("hook")["text"] == f"{later} is not there: vLLM has it in 0.12.0+, this is 0.11.2"
    doctor.make_vllm("0.32.0", without=(later,))
    assert "ProfileMate does without it" in doctor().one("hook")["text"]


def test_a_module_that_cannot_be_read_is_told(doctor):
    module = next(m for m, q, flags, since in TARGETS if "OPTIONAL" not in flags)
    doctor.vllm.joinpath(*module.split(".")).with_suffix(".py").write_text("def broken(:\n")
    found = doctor()
    assert "hook" in found.problems()
    assert any("(unreadable: " in check["text"] for check in found.checks)


# ---- wrong set-ups: settings ----


@pytest.mark.parametrize(
    "name, meant",
    [
        ("VLLM_PROFILING_VEBROSE", "VLLM_PROFILING_VERBOSE"),
        ("VLLM_PROFILING_KV_CACHE_TRACKING", "VLLM_PROFILING_ENABLE_KV_CACHE_TRACKING"),
        ("PROFILEMATE_PRESETT", "PROFILEMATE_PRESET"),
        ("VLLM_ENABLE_PROFILE", "VLLM_ENABLE_PROFILING"),
    ],
)
def test_wrong_a_name_that_is_no_setting(doctor, name, meant):
    text, advice = doctor(**{name: "1"}).only_problem("setting-unknown")
    assert text == f"{name} is no setting, it does nothing"
    assert advice == f"did you mean {meant}? else unset it"


def test_a_name_near_to_none(doctor):
    _, advice = doctor(VLLM_PROFILING_FROBNICATE_ALL="1").only_problem("setting-unknown")
    assert "lists the settings" in advice


def test_vllms_own_names_are_not_ours(doctor):
    found = doctor(VLLM_NVTX_SCOPES_FOR_PROFILING="1", VLLM_CUSTOM_SCOPES_FOR_PROFILING="1", VLLM_LOGGING_LEVEL="x")
    assert found.problems() == []


def test_wrong_malformed_values(doctor):
    found = doctor(VLLM_PROFILING_LOG_INTERVAL="many", PROFILEMATE_VERBOSE="perhaps", VLLM_ENABLE_PROFILING="certainly")
    assert found.problems() == ["setting-malformed"] * 3
    texts = [check["text"] for check in found.checks if check["id"] == "setting-malformed"]
    assert any("VLLM_PROFILING_LOG_INTERVAL=many is not a whole number" in text for text in texts)
    assert any("PROFILEMATE_VERBOSE=perhaps" in text for text in texts)
    assert any("VLLM_ENABLE_PROFILING=certainly" in text for text in texts)


def test_wrong_a_session_that_is_none(doctor):
    text, advice = doctor(VLLM_PROFILING_SESSION="mine").only_problem("session-token")
    assert "does not hold a session" in text and "unset VLLM_PROFILING_SESSION" in advice


# ---- wrong set-ups: activation ----


def test_wrong_switched_off(doctor):
    text, advice = doctor(VLLM_ENABLE_PROFILING="0").only_problem("gate-switch")
    assert "nothing is profiled" in text and "unset" in advice
    doctor(PROFILEMATE_ENABLE="0", VLLM_ENABLE_PROFILING="1").only_problem("gate-switch")


@pytest.mark.parametrize(
    "words, switch, active",
    [
        (["-m", "vllm.entrypoints.openai.api_server", "--model", "m"], None, True),
        (["-m", "vllm.entrypoints.cli.main", "serve", "m"], None, True),
        (["-m", "vllm.entrypoints.cli.main", "bench", "serve"], None, False),
        (["train.py", "--model", "m"], None, False),
        (["train.py", "--model", "m"], "1", True),
        (["-m", "pip", "install", "vllm"], None, False),
    ],
)
def test_would_this_command_be_profiled(doctor, words, switch, active):
    found = doctor("--", doctor.python, *words, python=None, VLLM_ENABLE_PROFILING=switch)
    assert ("would be profiled" in found.one("gate")["text"]) == active
    assert found.problems() == ([] if active else ["gate"])


def test_a_scripts_python_is_found_by_its_first_line(doctor, script):
    for interpreter in (f"#!{doctor.python}", "#!/usr/bin/env python3", f"#!/usr/bin/env -S {doctor.python}"):
        vllm = script("bin/vllm", "raise SystemExit", interpreter=interpreter)
        found = doctor("--", vllm, "serve", "m", python=None, PATH=f"{Path(doctor.python).parent}:{os.environ['PATH']}")
        assert found.problems() == [], interpreter
        assert "it starts a vLLM engine" in found.one("gate")["text"]
    long = script("bin/vllm", f"'''exec' {doctor.python} \"$0\" \"$@\"\n' '''\nraise SystemExit", interpreter="#!/bin/sh")
    assert "it starts a vLLM engine" in doctor("--", long, "serve", "m", python=None).one("gate")["text"]
    assert doctor("--", long, "bench", "serve", python=None).problems() == ["gate"]


def test_wrong_a_command_that_is_not_there(doctor):
    text, advice = doctor("--", "no-such-vllm", "serve").only_problem("command-found")
    assert text == "the command no-such-vllm was not found" and "activate the environment" in advice


def test_a_command_that_is_no_python_is_told_apart(doctor):
    found = doctor("--", "sh", "serve.sh")
    assert found.problems() == [] and found.one("command-python")["status"] == "note"


def test_what_run_would_start_is_judged_as_run_would_start_it(doctor):
    command = [doctor.python, "my_llm.py"]
    assert set(doctor("--", *command, python=None, PYTHONPATH=str(doctor.vllm)).problems()) == {"way-none", "gate"}
    found = doctor("--", PROGRAM, "run", "--preset", "simple", "--", *command, python=None, PYTHONPATH=str(doctor.vllm))
    assert found.problems() == []
    assert "VLLM_ENABLE_PROFILING is 1" in found.one("gate")["text"]


# ---- wrong set-ups: output ----


def test_wrong_the_sessions_folder_is_a_file(doctor, tmp_path):
    (tmp_path / "file").write_text("")
    text, advice = doctor(VLLM_PROFILING_DIR=str(tmp_path / "file")).only_problem("output-folder")
    assert "it is not a folder" in text and "VLLM_PROFILING_DIR" in advice


def test_wrong_the_sessions_folder_cannot_be_made(doctor, tmp_path):
    text, _ = doctor(VLLM_PROFILING_DIR=str(tmp_path / "no" / "such")).only_problem("output-folder")
    assert "nor does the folder that it is to lie in" in text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_wrong_the_sessions_folder_may_not_be_written(doctor, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    text, _ = doctor(VLLM_PROFILING_DIR=str(tmp_path / "locked")).only_problem("output-folder")
    assert "Permission denied" in text


def test_a_relative_folder_is_a_warning(doctor):
    assert doctor(VLLM_PROFILING_DIR="here").one("output-relative")["status"] == "warning"


def test_a_full_or_small_file_system(doctor, tmp_path):
    """On a tmpfs of its own, filled to the last page."""
    mount = tmp_path / "mount"
    mount.mkdir()
    shell = (
        f'mount -t tmpfs -o size=1m none "{mount}" && head -c 1040000 /dev/zero > "{mount}/fill"; '
        f'VLLM_PROFILING_DIR="{mount}" exec "{PROGRAM}" doctor --json --python "{doctor.python}"'
    )
    shown = subprocess.run(
        ["unshare", "--mount", "sh", "-c", shell],
        env=doctor.cli.environment(**doctor.env), capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    if not shown.stdout:
        pytest.skip(f"mounts may not be made here: {shown.stderr}")
    found = Findings(json.loads(shown.stdout)["checks"])
    text, advice = found.only_problem("free-space")
    assert "less than the 5 %" in text and "sessions --prune" in advice
    assert "is on tmpfs, which is memory" in found.one("file-system")["text"]


# ---- a session ----


def session_findings(cli, session) -> Findings:
    shown = cli("doctor", "--json", session)
    document = json.loads(shown.stdout)
    assert shown.returncode == (0 if document["healthy"] else 1)
    return Findings(document["checks"])


def hooks(state="patched", fired=(), without=()):
    """What a process says about its hooks, as words for make_session."""
    words = []
    for module, qualname, _, _ in TARGETS:
        target = f"{module}:{qualname}"
        if target in without:
            continue
        words.append(f"attr.hook.{target}={state}")
        if target in fired:
            words.append(f"attr.fired.{target}=12345")
    return words


ALWAYS = [f"{m}:{q}" for m, q, flags, _ in TARGETS if q.endswith("__init__")]


def test_a_healthy_session(cli):
    session = cli.make_session(*hooks(fired=ALWAYS), "attr.version.vllm=0.32.0", "attr.entry=pth")
    found = session_findings(cli, session)
    assert found.problems() == []
    assert "by the installed package (.pth)" in found.one("way")["text"]
    quiet = [c["text"] for c in found.checks if c["id"] == "hook" and "never called; normal where" in c["text"]]
    assert len(quiet) == len(TARGETS) - len(ALWAYS)
    assert f"{ALWAYS[0]}: called in 1 process" in [c["text"] for c in found.checks]


def test_a_hook_that_must_fire_and_did_not(cli):
    session = cli.make_session(*hooks(fired=ALWAYS[1:]))
    text, advice = session_findings(cli, session).only_problem("hook")
    assert text == f"{ALWAYS[0]}: in place, never called, though steps were recorded" and "replaced it" in advice


def test_hooks_that_are_missing(cli):
    later = next(f"{m}:{q}" for m, q, _, since in TARGETS if since == "0.12.0+")
    session = cli.make_session(*hooks(fired=ALWAYS, without=(later,)), f"attr.hook.{later}=missing",
                               "attr.version.vllm=0.11.0")  # fmt: skip
    found = session_findings(cli, session)
    assert found.problems() == []
    assert f"{later}: vLLM has it in 0.12.0+, this was 0.11.0" in [c["text"] for c in found.checks]
    session = cli.make_session(*hooks(fired=ALWAYS, without=(ALWAYS[0],)), f"attr.hook.{ALWAYS[0]}=missing",
                               "attr.version.vllm=0.32.0")  # fmt: skip
    text, _ = session_findings(cli, session).only_problem("hook")
    assert text.startswith(f"{ALWAYS[0]}: this vLLM (0.32.0) does not have it")


def test_hooks_that_need_no_attention_are_counted(cli):
    """Dozens of them: the text names one only where there is something to do, or with --all."""
    session = cli.make_session(*hooks(fired=ALWAYS), "end=close")
    rows = [check for check in session_findings(cli, session).checks if check["id"] == "hook"]
    fine, note = (sum(row["status"] == status for row in rows) for status in ("ok", "note"))
    assert fine > 1 and note > 1 and fine + note == len(rows)
    short, long = cli("doctor", session).stdout, cli("doctor", "--all", session).stdout
    assert f"  ✓ {fine} hooks were called\n" in short
    assert f"  · {note} hooks were not called, or not in this vLLM: normal here, --all says why\n" in short
    assert not any(row["text"] in short for row in rows)
    assert all(row["text"] in long for row in rows) and "hooks were" not in long
    broken = cli.make_session("steps=3", *hooks(fired=ALWAYS[1:]))
    assert cli("doctor", broken).stdout.count("  ✗ ") == 1, "a hook with a problem is named"


def test_probes_that_were_off_are_a_note(cli):
    found = session_findings(cli, cli.make_session(*hooks(state="off")))
    assert found.problems() == []
    assert all("was off" in c["text"] for c in found.checks if c["id"] == "hook")


def test_a_session_in_which_nothing_was_patched(cli):
    _, advice = session_findings(cli, cli.make_session()).only_problem("hooks-none")
    assert "doctor -- COMMAND" in advice


def test_losses_faults_and_disarmed_probes(cli):
    session = cli.make_session(*hooks(fired=ALWAYS), "lost=7", "faults=3",
                               "attr.probe.sched_step=disarmed: 3 faults", "attr.note.one=something to know")  # fmt: skip
    found = session_findings(cli, session)
    assert sorted(found.problems()) == ["faults", "lost", "probe-disarmed"]
    assert "lost 7 records of steps and requests" in found.one("lost")["text"]
    assert "hooks failed 3 times" in found.one("faults")["text"]
    assert "the probe sched_step disarmed: 3 faults" in found.one("probe-disarmed")["text"]
    assert "something to know" in found.one("note")["text"]


def test_how_processes_ended(cli):
    assert "ended by itself" in session_findings(cli, cli.make_session(*hooks())).one("process")["text"]
    killed = session_findings(cli, cli.make_session(*hooks(), "end=kill")).one("process")
    assert "was killed" in killed["text"] and killed["status"] == "note"
    session, process = cli.hold_session(*hooks())
    assert "is running" in session_findings(cli, session).one("process")["text"]
    process.communicate()


def test_damage_is_a_problem(cli):
    session = cli.make_session(*hooks(fired=ALWAYS), "steps=3000")
    (record,) = session.glob("records/*.pmrec")
    with open(record, "r+b") as file:
        file.seek(record.stat().st_size // 2)
        file.write(os.urandom(60_000))
    assert "damage" in session_findings(cli, session).problems()


def test_a_session_without_a_process(cli):
    found = session_findings(cli, cli.make_session("end=none"))
    assert "processes-none" in found.problems()


def test_a_session_that_is_none(cli):
    shown = cli("doctor", "nothing")
    assert shown.returncode == 1 and "there is no session nothing" in one_sentence(shown.stderr)
