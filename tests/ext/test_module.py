"""The module itself: on every interpreter, beside a sitecustomize that it shadows, and as the seeds' configuration."""

import os
import subprocess

import pytest

import fake

ALL_PYTHONS = {**fake.OLD_PYTHONS, **fake.PYTHONS}
SERVE = {"VLLM_ENABLE_PROFILING": "1"}


@pytest.fixture(params=fake.PYTHONS)
def python(request):
    return fake.PYTHONS[request.param]


@pytest.fixture(params=ALL_PYTHONS)
def any_python(request):
    return ALL_PYTHONS[request.param]


def script(python, base, text, *path, check=True, **extra):
    return fake.run(python, ["-c", text], fake.environment(base, *path, **extra), base, check=check)


# ---- loading ----


@pytest.mark.parametrize("switch", ["", "0", "1"])
def test_every_interpreter_loads_it_silently(any_python, tmp_path, switch):
    done = script(any_python, tmp_path, "import sitecustomize; print(sitecustomize.__file__)", fake.SITE,
                  VLLM_ENABLE_PROFILING=switch)  # fmt: skip
    assert done.stdout.strip() == str(fake.EXTENSION) and done.stderr == ""
    assert not (tmp_path / "sessions").exists()


@pytest.mark.parametrize("version", fake.OLD_PYTHONS)
def test_below_3_10_nothing_is_installed(tmp_path, version):
    done = script(fake.OLD_PYTHONS[version], tmp_path,
                  "import sys; print(sys.meta_path[0], hasattr(sys, '_profilemate'))", fake.SITE, **SERVE)  # fmt: skip
    assert "profilemate" not in done.stdout.split()[0].lower() and done.stdout.strip().endswith("False")


def test_it_imports_nothing_that_a_bare_start_does_not(python, tmp_path):
    text = "import sys; print(*sorted(sys.modules))"
    bare = script(python, tmp_path, text).stdout.split()
    for switch in ("0", "1"):
        ours = script(python, tmp_path, text, fake.SITE, VLLM_ENABLE_PROFILING=switch).stdout.split()
        assert set(ours) - set(bare) == {"sitecustomize"}


@pytest.mark.parametrize("flag", ["-I", "-E", "-S", "-Es"])
def test_interpreter_flags_that_keep_it_out(python, tmp_path, flag):
    env = fake.environment(tmp_path, fake.SITE, **SERVE)
    done = fake.run(python, [flag, "-c", "import sys; print('sitecustomize' in sys.modules)"], env, tmp_path)
    assert done.stdout.strip() == "False" and done.stderr == ""


SUBINTERPRETER = """
import sys
try:
    import _interpreters as sub
    create = lambda: sub.create(own)
except ImportError:
    import _xxsubinterpreters as sub
    create = sub.create
for own in ("isolated", "legacy"):
    try:
        number = create()
    except TypeError:
        number = sub.create()
    failed = sub.run_string(number, '''
import sys
import sitecustomize
print(sitecustomize.ProfilingConfig.LOG_INTERVAL, sitecustomize.register(), type(sys.meta_path[0]).__module__ == "profilemate")
print(getattr(sitecustomize, "shadowed_ran_in", None), flush=True)
''')
    assert not failed, failed
    sub.destroy(number)
print(type(sys.meta_path[0]).__module__)
"""


def test_subinterpreters_are_left_alone(python, tmp_path):
    shadowed = fake.write(tmp_path / "shadowed", {"sitecustomize.py": "shadowed_ran_in = 'it'"})
    done = script(python, tmp_path, SUBINTERPRETER, fake.SITE, shadowed, **SERVE)
    assert done.stderr == ""
    lines = done.stdout.split("\n")
    assert lines[-2] == "profilemate"
    assert lines[:-2] == ["100 None False", "it"] * (len(lines[:-2]) // 2) and len(lines) >= 4


def test_a_fork_of_an_interpreter_goes_on(python, tmp_path):
    done = script(python, tmp_path, """
import os, sys
child = os.fork()
if child == 0:
    import sitecustomize
    print(sitecustomize.ProfilingConfig.LOG_INTERVAL, flush=True)
    sys.exit(3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
""", fake.SITE, **SERVE)  # fmt: skip
    assert done.stdout.split() == ["100", "3"] and done.stderr == ""


def test_closed_standard_error(python, tmp_path):
    env = fake.environment(tmp_path, fake.SITE, **SERVE)
    done = subprocess.run(["/bin/sh", "-c", f'exec "{python}" -c "print(1)" 2>&-'], env=env, capture_output=True)
    assert done.returncode == 0 and done.stdout == b"1\n"


def test_a_copy_of_another_release_is_not_joined(python, tmp_path):
    """Whatever lies at sys._profilemate and is not ours to understand: hands off."""
    early = fake.write(tmp_path / "early", {"usercustomize.py": "", "sitecustomize.py": f"""
        import sys
        sys._profilemate = object()
        del sys.modules["sitecustomize"]
        sys.path.insert(0, {str(fake.SITE)!r})
        import sitecustomize
        """})  # fmt: skip
    done = script(python, tmp_path, "import sys, sitecustomize\nprint(sitecustomize.register(), "
                  "type(sys.meta_path[0]).__module__ == 'profilemate')", early, **SERVE)  # fmt: skip
    assert done.stdout.split() == ["None", "False"] and done.stderr == ""


# ---- the sitecustomize that ours shadows ----

SHADOWED = {
    "plain": "import sys; sys.ran = __name__, __file__, __spec__.name, sys.modules['sitecustomize'] is not None\nX = 1",
    "raises": "import sys; sys.ran = 1\nraise ValueError('broken: ü')",
    "raises without words": "assert False",
    "its own name": "raise ImportError('no', name='sitecustomize')",
    "another name": "import there_is_no_such_module",
    "syntax": "def",
    "system exit": "import sys; sys.ran = 1\nraise SystemExit(4)",
    "keyboard interrupt": "raise KeyboardInterrupt",
    "prints": "import sys; print('out'); print('err', file=sys.stderr)",
    "is in sys.modules": "import sys; sys.ran = sys.modules[__name__].__dict__ is globals()",
    "changes the path": "import sys; sys.path.append('/added'); sys.ran = 1",
    "none": None,
}
TELL = "import sys; print(getattr(sys, 'ran', None), '/added' in sys.path)"


@pytest.mark.parametrize("what", SHADOWED)
def test_a_shadowed_one_runs_as_it_does_alone(any_python, tmp_path, what):
    """The same output, the same errors, the same exit code as without ours."""
    shadowed = tmp_path / "shadowed"
    shadowed.mkdir()
    if SHADOWED[what] is not None:
        (shadowed / "sitecustomize.py").write_text(SHADOWED[what])
    for extra in ({}, {"PYTHONVERBOSE": "1"}):
        if extra and what not in ("raises", "its own name"):
            continue
        alone = script(any_python, tmp_path, TELL, shadowed, check=False, **extra)
        ours = script(any_python, tmp_path, TELL, fake.SITE, shadowed, check=False, **extra)
        assert (ours.stdout, ours.returncode) == (alone.stdout, alone.returncode)
        if extra:
            assert ("ValueError: broken" in ours.stderr) == ("ValueError: broken" in alone.stderr)
        elif what in ("keyboard interrupt",):
            assert ours.stderr.splitlines()[-1:] == alone.stderr.splitlines()[-1:]
        elif what != "system exit":
            assert ours.stderr == alone.stderr


def test_both_are_to_be_had(python, tmp_path):
    shadowed = fake.write(tmp_path / "shadowed", {"sitecustomize.py": "X = 1\ndef f(): return __name__"})
    done = script(python, tmp_path, """
import sitecustomize
from sitecustomize import ProfilingConfig, X, f
print(ProfilingConfig.LOG_INTERVAL, X, f(), sitecustomize.__file__.endswith(".so"))
try:
    sitecustomize.nothing
except AttributeError as error:
    print(error)
""", fake.SITE, shadowed)  # fmt: skip
    assert done.stdout.splitlines() == ["100 1 sitecustomize True", "module 'sitecustomize' has no attribute 'nothing'"]


def test_a_missing_attribute_without_a_shadowed_one(python, tmp_path):
    done = script(python, tmp_path, """
import sitecustomize
try:
    sitecustomize.nothing
except AttributeError as error:
    print(error)
""", fake.SITE)  # fmt: skip
    assert done.stdout.strip() == "module 'sitecustomize' has no attribute 'nothing'"


def test_a_package_as_the_shadowed_one(python, tmp_path):
    shadowed = fake.write(tmp_path / "shadowed", {
        "sitecustomize/__init__.py": "import sys\nfrom . import part\nsys.ran = part.X",
        "sitecustomize/part.py": "X = 5",
    })  # fmt: skip
    alone = script(python, tmp_path, TELL, shadowed)
    assert script(python, tmp_path, TELL, fake.SITE, shadowed).stdout == alone.stdout == "5 False\n"


def test_one_that_chains_itself(python, tmp_path):
    """ddtrace's drops `sitecustomize` from sys.modules and imports it again, to run what it shadows."""
    chaining = fake.write(tmp_path / "chaining", {"sitecustomize.py": """
        import os, sys
        here = os.path.dirname(__file__)
        index = sys.path.index(here)
        del sys.path[index]
        own = sys.modules.pop("sitecustomize")
        try:
            import sitecustomize
        except ImportError:
            sys.modules["sitecustomize"] = own
        finally:
            sys.path.insert(index, here)
        sys.ran = getattr(sys, "ran", []) + ["chaining"]
        """})  # fmt: skip
    last = fake.write(tmp_path / "last", {"sitecustomize.py": "import sys; sys.ran = ['last']"})
    for path in ((fake.SITE, chaining, last), (chaining, fake.SITE, last), (chaining, last, fake.SITE)):
        done = script(python, tmp_path, TELL + "\nprint(type(sys.meta_path[0]).__module__)", *path, **SERVE)
        assert done.stderr == ""
        lines = done.stdout.split("\n")
        if path[0] == fake.SITE:
            assert "chaining" in lines[0] and lines[1] == "profilemate"
        elif path[1] == fake.SITE:
            assert lines[0] == "['last', 'chaining'] False" and lines[1] == "profilemate"


def test_the_same_folder_by_another_name(python, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(fake.SITE)
    shadowed = fake.write(tmp_path / "shadowed", {"sitecustomize.py": "import sys; sys.ran = 1"})
    for path in ((link, shadowed), (link, fake.SITE, shadowed), (fake.SITE, link, fake.SITE / "simple", shadowed)):
        assert script(python, tmp_path, TELL, *path, **SERVE).stdout == "1 False\n"


# ---- ProfilingConfig ----

SEEDS = {
    "ENABLE_FORWARD_PASS_TIMING": True,
    "ENABLE_CPU_TIMING": True,
    "ENABLE_BATCH_UTILIZATION_TRACKING": True,
    "ENABLE_PREEMPTION_TRACKING": True,
    "ENABLE_ENCODER_DECODER_TIMING": True,
    "ENABLE_CUDA_GRAPH_TRACKING": True,
    "ENABLE_KV_CACHE_TRACKING": True,
    "USE_CUDA_EVENTS": True,
    "CUDA_EVENT_BATCH_SIZE": 100,
    "LOG_INTERVAL": 100,
    "VERBOSE": False,
    "OUTPUT_DIR": "/somewhere",
}


@pytest.mark.parametrize("switch", ["", "0", "1"])
def test_the_seeds_configuration(python, tmp_path, switch):
    done = script(python, tmp_path, f"""
from sitecustomize import ProfilingConfig
assert ProfilingConfig.ENABLE_FORWARD_PASS_TIMING == True
assert ProfilingConfig.USE_CUDA_EVENTS == True
print("Config OK")
print({{name: getattr(ProfilingConfig, name) for name in {sorted(SEEDS)}}} == {SEEDS!r})
for change in (lambda: setattr(ProfilingConfig, "LOG_INTERVAL", 1), lambda: delattr(ProfilingConfig, "VERBOSE"),
               lambda: setattr(ProfilingConfig, "NEW", 1)):
    try:
        change()
        print("changed")
    except AttributeError as error:
        print(error)
import sitecustomize
print(sitecustomize.ProfilingConfig is ProfilingConfig, ProfilingConfig.__name__, isinstance(ProfilingConfig, type))
""", fake.SITE, VLLM_ENABLE_PROFILING=switch, VLLM_PROFILING_DIR="/somewhere")  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines[:2] == ["Config OK", "True"] and lines[-1] == "True ProfilingConfig True"
    assert lines[2] == "ProfilingConfig.LOG_INTERVAL is read-only: set VLLM_PROFILING_LOG_INTERVAL in the environment"
    assert "changed" not in lines and done.stderr == ""


def test_configuration_follows_the_environment(python, tmp_path):
    done = script(python, tmp_path, """
from sitecustomize import ProfilingConfig as C
print(C.ENABLE_KV_CACHE_TRACKING, C.LOG_INTERVAL, C.VERBOSE, C.ENABLE_MOE_EXPERT_TRACKING, C.PRESET, C.MAX_MB)
""", fake.SITE, VLLM_PROFILING_ENABLE_KV_CACHE_TRACKING="0", PROFILEMATE_LOG_INTERVAL="7", VLLM_PROFILING_VERBOSE="1",
        VLLM_PROFILING_PRESET="simple", VLLM_PROFILING_MAX_MB="lots")  # fmt: skip
    assert done.stdout.split() == ["False", "7", "True", "auto", "simple", "0"] and done.stderr == ""


def test_the_folder_selects_the_simple_preset(python, tmp_path):
    text = "from sitecustomize import ProfilingConfig as C; print(C.PRESET)"
    for switch in ("0", "1"):
        for named, expected in (("", "simple"), ("full", "full")):
            done = script(python, tmp_path, text, fake.SITE / "simple", VLLM_ENABLE_PROFILING=switch,
                          VLLM_PROFILING_PRESET=named)  # fmt: skip
            assert done.stdout.strip() == expected


# ---- what it needs of the interpreter ----


def test_symbols_exist_in_every_interpreter(tmp_path):
    """What the interpreter lacks must be weak: else the file does not load there at all."""
    listing = subprocess.run(["nm", "-D", "--undefined-only", fake.EXTENSION], capture_output=True, text=True, check=True)
    strong = [line.split()[-1] for line in listing.stdout.splitlines() if line.split()[0] == "U"]
    strong = [name for name in strong if name.startswith(("Py", "_Py"))]
    assert len(strong) > 30
    for version, python in ALL_PYTHONS.items():
        text = "import ctypes, sys; print(*(n for n in sys.argv[1:] if not hasattr(ctypes.pythonapi, n)))"
        done = fake.run(python, ["-ISc", text, *strong], dict(os.environ), tmp_path)
        assert done.stdout.split() == [], f"CPython {version} lacks them"


def test_it_links_libc_only():
    listing = subprocess.run(["readelf", "-d", fake.EXTENSION], capture_output=True, text=True, check=True)
    needed = [line.split("[")[1].rstrip("]") for line in listing.stdout.splitlines() if "(NEEDED)" in line]
    needed = [name for name in needed if "san.so" not in name]  # a build with sanitizers
    assert needed and all(name.startswith(("libc.", "libpthread.", "libdl.", "ld-")) for name in needed), needed
