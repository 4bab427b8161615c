"""The three ways in: PYTHONPATH, the wheel's .pth line, the vllm.general_plugins entry point. Alone and together they
lead to one installation per process.

The wheel is stood in for by a user site: _profilemate.abi3.so (the same file under its other name), a .pth with the
import line, and a distribution that names the entry point.
"""

import os
import shutil

import pytest

import fake

# As vLLM does it (vllm/plugins/__init__.py), late: after its own modules were imported.
PLUGINS = """
def load_general_plugins():
    from importlib.metadata import entry_points
    for plugin in entry_points(group="vllm.general_plugins"):
        plugin.load()()
"""
LATE = """
import sys
import vllm.engine.arg_utils, vllm.v1.engine.core
from vllm.engine.arg_utils import EngineArgs
before = type(vars(EngineArgs)["create_engine_config"]).__module__
from vllm.plugins import load_general_plugins
load_general_plugins()
load_general_plugins()
"""
USE = """
config = EngineArgs().create_engine_config()
from vllm.v1.engine.core import EngineCore
EngineCore(config)
raw = vars(EngineArgs)["create_engine_config"]
print(before, sum(type(finder).__module__ == "profilemate" for finder in sys.meta_path),
      type(getattr(raw, "__wrapped__", None)).__name__)
"""


@pytest.fixture(params=fake.PYTHONS)
def version(request):
    return request.param


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return fake.write(tmp_path_factory.mktemp("package"), {**fake.FILES, "vllm/plugins.py": PLUGINS})


@pytest.fixture
def wheel(tmp_path, version):
    """Makes a user site with the chosen parts of the wheel in it; returns the variable that selects it."""

    def make(pth=True, entry_point=True):
        site = tmp_path / "user" / "lib" / f"python{version}" / "site-packages"
        site.mkdir(parents=True)
        shutil.copy(fake.EXTENSION, site / "_profilemate.abi3.so")
        if pth:
            (site / "profilemate.pth").write_text("import _profilemate\n")
        if entry_point:
            fake.write(site / "profilemate-0.1.0.dist-info", {
                "METADATA": "Metadata-Version: 2.1\nName: profilemate\nVersion: 0.1.0\n",
                "entry_points.txt": "[vllm.general_plugins]\nprofilemate = _profilemate:register\n",
            })  # fmt: skip
        return {"PYTHONUSERBASE": str(tmp_path / "user")}

    return make


def run(version, base, package, script, *path, **extra):
    env = fake.environment(base, *path, package, **extra)
    return fake.run(fake.PYTHONS[version], ["-c", script], env, base)


ON = {"VLLM_ENABLE_PROFILING": "1"}


@pytest.mark.parametrize(
    ("by_path", "pth", "entry_point", "entry", "early"),
    [
        (True, False, False, "pythonpath", True),
        (False, True, False, "pth", True),
        (False, False, True, "plugin", False),
        (True, True, False, "pth", True),
        (True, False, True, "pythonpath", True),
        (False, True, True, "pth", True),
        (True, True, True, "pth", True),
    ],
)
def test_they_install_once(version, package, tmp_path, wheel, by_path, pth, entry_point, entry, early):
    user = wheel(pth, entry_point)
    done = run(version, tmp_path, package, LATE + USE, *([fake.SITE] if by_path else []), **user, **ON)
    before, finders, wrapped = done.stdout.split()
    assert before == ("profilemate" if early else "builtins")
    assert (finders, wrapped) == ("1", "function"), "one finder, and a wrapper straight around the original"
    assert done.stderr.count("Instrumentation Loaded") == 1
    [session] = fake.sessions(tmp_path)
    [record] = fake.records(session)
    assert record.attributes["entry"] == entry and record.roles == 3
    name = "sitecustomize" if entry == "pythonpath" else "_profilemate"
    assert os.path.basename(record.attributes["extension"]) == f"{name}.abi3.so"
    both = by_path and (pth or entry_point)
    assert ("note.copy" in record.attributes) == both, "the copy that was left alone is named"
    if both:
        assert record.attributes["note.copy"].count("abi3.so") == 2


def test_the_entry_point_decides_afresh(version, package, tmp_path, wheel):
    """Ray sets a worker's environment when its interpreter has long started: off then is not off for good."""
    script = """
import os
os.environ["VLLM_ENABLE_PROFILING"] = "1"
""" + LATE + USE  # fmt: skip
    user = wheel()
    for path in ([], [fake.SITE]):
        done = run(version, tmp_path, package, script, *path, **user)
        assert done.stdout.split() == ["builtins", "1", "function"]
        [session] = fake.sessions(tmp_path)
        shutil.rmtree(session)


def test_a_session_that_arrives_late_is_joined(version, package, tmp_path, wheel):
    token = f"session_20260101_000000:{'cd' * 16}:1:1:1"
    script = f"""
import os
os.environ["VLLM_PROFILING_SESSION"] = {token!r}
""" + LATE + USE  # fmt: skip
    run(version, tmp_path, package, script, **wheel())
    [session] = fake.sessions(tmp_path)
    assert fake.session_token(session) == "cd" * 16


@pytest.mark.parametrize("variables", [{}, {"VLLM_ENABLE_PROFILING": "0"}], ids=str)
def test_off_stays_off_at_the_entry_point(version, package, tmp_path, wheel, variables):
    done = run(version, tmp_path, package, LATE + USE, fake.SITE, **wheel(), **variables)
    assert done.stdout.split() == ["builtins", "0", "NoneType"]
    assert done.stderr == "" and fake.sessions(tmp_path) == []


def test_switched_off_before_the_entry_point(version, package, tmp_path, wheel):
    """The hooks are there already, but no session is born."""
    script = 'import os\nos.environ["VLLM_ENABLE_PROFILING"] = "0"\n' + LATE + USE
    done = run(version, tmp_path, package, script, fake.SITE, **wheel(), **ON)
    assert done.stdout.split()[0] == "profilemate" and done.stderr == "" and fake.sessions(tmp_path) == []


def test_the_simple_folder_counts_though_the_wheel_came_first(version, package, tmp_path, wheel):
    done = run(version, tmp_path, package, LATE + USE, fake.SITE / "simple", **wheel(), **ON)
    assert done.stderr.startswith("[Simple Profiler]")
    [record] = fake.records(fake.sessions(tmp_path)[0])
    assert record.attributes["entry"] == "pth" and record.attributes["setting.preset"] == "simple"


def test_the_wheel_alone_knows_the_seeds_configuration(version, package, tmp_path, wheel):
    script = "from _profilemate import ProfilingConfig, register; print(ProfilingConfig.LOG_INTERVAL)"
    done = run(version, tmp_path, package, script, **wheel())
    assert done.stdout == "100\n" and done.stderr == ""


def test_a_module_half_imported_at_the_entry_point_is_hooked_at_the_next(version, tmp_path, wheel):
    """Plug-ins may be loaded from within an import; that module has no classes yet."""
    arg_utils = fake.FILES["vllm/engine/arg_utils.py"]
    early = "\n        import vllm.plugins; vllm.plugins.load_general_plugins()\n"
    own = fake.write(tmp_path / "own", {
        **fake.FILES, "vllm/plugins.py": PLUGINS, "vllm/engine/arg_utils.py": early + arg_utils,
    })  # fmt: skip
    done = run(version, tmp_path, own, LATE + USE, **wheel(pth=False), **ON)
    assert done.stdout.split() == ["builtins", "1", "function"] and done.stderr.count("Loaded") == 1


def test_ways_in_without_an_engine_leave_nothing(version, package, tmp_path, wheel):
    done = run(version, tmp_path, package, "print(1)", fake.SITE, **wheel(), **ON)
    assert done.stdout == "1\n" and done.stderr == "" and not (tmp_path / "sessions").exists()
