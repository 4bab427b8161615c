"""The import hook: a module is imported as it would be without it, and comes out hooked.

Most tests run one script with the profiler on and off: what it prints must be the same, but for the word that the
hook is there. The scripts import a package that looks like vLLM (fake.py).
"""

import sys
import zipfile

import pytest

import fake

PRELUDE = """
import importlib, importlib.util, sys
TARGET = "vllm.engine.arg_utils"

def is_hooked():
    raw = vars(sys.modules[TARGET].EngineArgs)["create_engine_config"]
    return type(raw).__module__ == "profilemate"

def is_clean(module):
    loader = module.__spec__.loader
    names = [type(loader).__module__, type(loader).__name__, type(module.__loader__).__name__]
    held = sorted(getattr(loader, "__dict__", {}))
    return names, held, module.__loader__ is loader, "profilemate" in repr(loader) + repr(module.__spec__)
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return fake.write(tmp_path_factory.mktemp("package"), fake.FILES)


@pytest.fixture(params=fake.PYTHONS)
def python(request):
    return fake.PYTHONS[request.param]


def both(python, base, script, *path, hooked=True, **extra):
    """Runs the script with the profiler off and on; returns what it printed, which is the same."""
    env = fake.environment(base, fake.SITE, *path, **extra)
    printed = []
    for switch in ("0", "1"):
        done = fake.run(python, ["-c", PRELUDE + script + "\nprint('HOOKED', is_hooked())"],
                        {**env, "VLLM_ENABLE_PROFILING": switch}, base)  # fmt: skip
        assert done.stderr == ""
        lines = done.stdout.splitlines()
        assert lines.pop() == f"HOOKED {hooked if switch == '1' else False}"
        printed.append(lines)
    assert printed[0] == printed[1]
    return printed[1]


def test_module_spec_and_loader_are_untouched(python, package, tmp_path):
    lines = both(python, tmp_path, """
import vllm.engine.arg_utils as m
print(is_clean(m), m.__spec__ == importlib.util.find_spec(TARGET), m.__file__, m.__spec__.origin, m.__package__)
print(sorted(vars(m)), m.__spec__._initializing if hasattr(m.__spec__, "_initializing") else None)
""", package)  # fmt: skip
    assert "SourceFileLoader" in lines[0] and "False" in lines[0]


def test_source_code_resources_and_pickles(python, package, tmp_path):
    (package / "vllm/engine/data.txt").write_text("resource")
    both(python, tmp_path, """
import inspect, pickle, importlib.resources
import vllm.engine.arg_utils as m
print(inspect.getsource(m.EngineArgs), inspect.getsource(m.EngineArgs.create_engine_config))
print(inspect.getfile(m.EngineArgs), inspect.signature(m.EngineArgs.create_engine_config))
print(m.__loader__.get_code(TARGET).co_names, len(m.__loader__.get_source(TARGET)), m.__loader__.is_package(TARGET))
print(importlib.resources.files("vllm.engine").joinpath("data.txt").read_text())
args = pickle.loads(pickle.dumps(m.EngineArgs()))
print(type(args) is m.EngineArgs, pickle.loads(pickle.dumps(m.EngineArgs)) is m.EngineArgs)
method = pickle.loads(pickle.dumps(args.create_engine_config))
print(method.__name__, pickle.loads(pickle.dumps(m.EngineArgs.create_engine_config)).__qualname__)
""", package)  # fmt: skip


def test_reload_hooks_the_new_class(python, package, tmp_path):
    both(python, tmp_path, """
import vllm.engine.arg_utils as m
old = m.EngineArgs
for _ in range(3):
    print(importlib.reload(m) is m, m.EngineArgs is old, is_clean(m))
    if type(vars(old)["create_engine_config"]).__module__ == "profilemate":
        assert is_hooked(), "the class of a reloaded module"
""", package)  # fmt: skip


def test_a_module_that_fails_raises_what_it_raises_and_is_hooked_when_it_works(python, tmp_path):
    text = fake.FILES["vllm/engine/arg_utils.py"]
    fake.write(tmp_path, {**fake.FILES, "vllm/engine/arg_utils.py": text + "\n        import sys; sys.hurdle()\n"})
    both(python, tmp_path, """
import traceback
error = LookupError("not yet")
def hurdle(): raise error
sys.hurdle = hurdle
for _ in range(2):
    try:
        import vllm.engine.arg_utils
    except LookupError as raised:
        print(raised is error, [frame.name for frame in traceback.extract_tb(raised.__traceback__)][-2:])
        print(TARGET in sys.modules)
sys.hurdle = lambda: None
import vllm.engine.arg_utils as m
print(is_clean(m))
""", tmp_path)  # fmt: skip


def test_import_cycle(python, tmp_path):
    fake.write(tmp_path, {
        **fake.FILES,
        "vllm/engine/arg_utils.py": "import vllm.engine.other\n" + "class EngineArgs:\n"
        "    def create_engine_config(self): pass\n",
        "vllm/engine/other.py": """
            import importlib, sys
            partial = importlib.import_module("vllm.engine.arg_utils")
            print("partly there:", hasattr(partial, "EngineArgs"), partial is sys.modules["vllm.engine.arg_utils"])
            from vllm.engine import arg_utils
        """,
    })  # fmt: skip
    assert both(python, tmp_path, "import vllm.engine.arg_utils", tmp_path) == ["partly there: False True"]


def test_runpy(python, package, tmp_path):
    """Run as a script a module is no import: it works, and is hooked when it is imported."""
    both(python, tmp_path, """
import runpy, warnings
warnings.simplefilter("ignore")
names = runpy.run_module(TARGET, run_name="__main__")
print(sorted(names), type(names["__spec__"].loader).__name__, type(names["__loader__"]).__name__)
import vllm.engine.arg_utils as m
names = runpy.run_module(TARGET)
print(is_clean(m), names["EngineArgs"].__module__)
""", package)  # fmt: skip


def test_zip_archive(python, package, tmp_path):
    """The loader of an archive belongs to all its modules."""
    archive = tmp_path / "vllm.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for path in sorted(package.rglob("*.py")):
            out.write(path, path.relative_to(package))
    both(python, tmp_path, """
import inspect
import vllm.engine, vllm.engine.arg_utils as m, vllm.v1.engine.core as other
print(is_clean(m), is_clean(other), m.__loader__ is other.__loader__ or m.__loader__ == other.__loader__)
print(inspect.getsource(m.EngineArgs)[:20], m.__loader__.get_code(TARGET.replace(".", "/").split("/")[-1]) is None
      if False else type(m.__loader__).__name__)
importlib.reload(m)
""", archive)  # fmt: skip


@pytest.mark.parametrize("touch", ["m.EngineArgs", "vars(m)", "dir(m)", "importlib.reload(m)"])
def test_lazy_loader(python, package, tmp_path, touch):
    both(python, tmp_path, f"""
import vllm.engine
spec = importlib.util.find_spec(TARGET)
spec.loader = importlib.util.LazyLoader(spec.loader)
m = importlib.util.module_from_spec(spec)
sys.modules[TARGET] = m
spec.loader.exec_module(m)
print(type(m).__name__, "EngineArgs" in object.__getattribute__(m, "__dict__"))
{touch}
m.EngineArgs
print(type(m).__name__, is_clean(m))
""", package)  # fmt: skip


def test_a_finder_that_gives_lazy_loaders(python, package, tmp_path):
    """The module's code must still run late, and be hooked then."""
    both(python, tmp_path, """
from importlib.machinery import PathFinder
class LazyFinder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        spec = PathFinder.find_spec(name, path, target)
        if name == TARGET:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec
sys.meta_path.insert(len(sys.meta_path) - 1, LazyFinder)
sys.meta_path.remove(PathFinder)
import vllm.engine.arg_utils as m
print(type(m).__name__, "EngineArgs" in object.__getattribute__(m, "__dict__"))
m.EngineArgs
print(type(m).__name__, is_clean(m))
""", package)  # fmt: skip


SHARED = """
import importlib.abc
from importlib.machinery import ModuleSpec
source = open({path!r} + "/vllm/engine/arg_utils.py").read()
class Loader(importlib.abc.Loader):
    {slots}
    def create_module(self, spec):
        calls.append(("create", spec.name, type(spec.loader).__name__ if {show_loader} else None))
        return None
    def exec_module(self, module):
        calls.append(("exec", module.__name__, type(module.__spec__.loader).__name__, type(module.__loader__).__name__))
        exec(source, vars(module))
    def extra(self):
        return "extra"
calls = []
loader = Loader()
class Finder:
    def find_spec(name, path=None, target=None):
        if name == TARGET:
            return ModuleSpec(name, loader, origin="nowhere")
sys.meta_path.insert(len(sys.meta_path) - 1, Finder)
import vllm.engine.arg_utils as m
print(calls, is_clean(m), m.__loader__ is loader, m.__loader__.extra())
importlib.reload(m)
print(calls, is_clean(m), m.__loader__ is loader)
"""


@pytest.mark.parametrize("slots", ["pass", "__slots__ = ()"], ids=["shared", "without a dict"])
def test_a_loader_that_is_not_of_one_module(python, package, tmp_path, slots):
    both(python, tmp_path, SHARED.format(path=str(package), slots=slots, show_loader=False), package)


def test_attributes_of_the_stand_in_are_those_of_the_loader(python, package, tmp_path):
    script = SHARED.format(path=str(package), slots="pass", show_loader=False).split("import vllm.engine.arg_utils")[0]
    both(python, tmp_path, script + """
spec = importlib.util.find_spec(TARGET)
print(spec.loader.extra(), hasattr(spec.loader, "get_code"), spec.origin)
import vllm.engine.arg_utils as m
print(calls, m.__loader__ is loader)
""", package)  # fmt: skip


def test_finding_a_spec_does_not_import(python, package, tmp_path):
    both(python, tmp_path, """
spec = importlib.util.find_spec(TARGET)
again = importlib.util.find_spec(TARGET)
print(TARGET in sys.modules, spec == again, type(spec.loader).__name__)
m = importlib.util.module_from_spec(spec)
print(type(m.__loader__).__name__)
spec.loader.exec_module(m)
print("profilemate" in repr(vars(spec.loader)))
import vllm.engine.arg_utils as imported
print(imported is m, is_clean(imported))
""", package)  # fmt: skip


def test_a_module_that_is_not_there(python, package, tmp_path):
    both(python, tmp_path, """
import shutil
for name in ("vllm.v1.worker.gpu_model_runner", "vllm.v1.core.sched.scheduler", "vllm.none"):
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        print(error, error.name)
    try:
        print(importlib.util.find_spec(name))
    except ModuleNotFoundError as error:
        print(error, error.name)
import vllm.engine.arg_utils
""", package)  # fmt: skip


def test_a_finder_that_raises(python, package, tmp_path):
    both(python, tmp_path, """
class Broken:
    asked = 0
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name == TARGET:
            cls.asked += 1
            raise LookupError("broken finder")
sys.meta_path.insert(len(sys.meta_path) - 1, Broken)
for _ in range(2):
    try:
        import vllm.engine.arg_utils
    except LookupError as error:
        print(error, TARGET in sys.modules)
sys.meta_path.remove(Broken)
import vllm.engine.arg_utils as m
print(is_clean(m))
""", package)  # fmt: skip


def test_finders_that_search_again_do_not_recurse(python, package, tmp_path):
    """As the public Python implementation did: a hook that asks importlib for the spec itself."""
    both(python, tmp_path, """
class Again:
    busy = set()
    def find_spec(name, path=None, target=None):
        if name in Again.busy:
            return None
        Again.busy.add(name)
        try:
            return importlib.util.find_spec(name)
        finally:
            Again.busy.discard(name)
for place in (0, 1, len(sys.meta_path)):
    sys.meta_path.insert(place, Again)
    sys.modules.pop(TARGET, None)
    m = importlib.import_module(TARGET)
    print(is_clean(m))
    sys.meta_path.remove(Again)
""", package)  # fmt: skip


def test_threads(python, tmp_path):
    """One thread imports, the others wait for the same module: all see it hooked."""
    fake.write(tmp_path, {
        **fake.FILES,
        "vllm/engine/arg_utils.py": "import time; time.sleep(0.05)\n"
        "class EngineArgs:\n    def create_engine_config(self): return 1\n",
    })  # fmt: skip
    both(python, tmp_path, """
import threading
seen, gate = [], threading.Barrier(8)
def work(n):
    gate.wait()
    m = importlib.import_module(TARGET if n % 2 else "vllm.v1.engine.core")
    importlib.import_module(TARGET)
    seen.append(is_hooked() or sys.meta_path[0].__class__.__module__ != "profilemate")
threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(seen)
""", tmp_path)  # fmt: skip


def test_a_module_that_replaces_itself(python, tmp_path):
    fake.write(tmp_path, {
        **fake.FILES,
        "vllm/engine/arg_utils.py": """
            import sys, types
            class EngineArgs:
                def create_engine_config(self): return 1
            new = types.ModuleType(__name__)
            new.EngineArgs, new.__spec__, new.__loader__ = EngineArgs, __spec__, __loader__
            sys.modules[__name__] = new
        """,
    })  # fmt: skip
    both(python, tmp_path, "import vllm.engine.arg_utils as m\nprint(is_clean(m))", tmp_path)


def test_a_namespace_package_in_place_of_a_target(python, tmp_path):
    files = {name: text for name, text in fake.FILES.items() if name != "vllm/engine/arg_utils.py"}
    fake.write(tmp_path, {**files, "vllm/engine/arg_utils/real.py": ""})
    both(python, tmp_path, """
import vllm.engine.arg_utils as m
print(type(m.__path__).__name__, m.__spec__.origin)
m.EngineArgs = type("EngineArgs", (), {"create_engine_config": 1})
""", tmp_path, hooked=False)  # fmt: skip


def test_module_level_getattr_is_not_asked(python, tmp_path):
    fake.write(tmp_path, {
        **fake.FILES,
        "vllm/engine/arg_utils.py": """
            def __getattr__(name):
                if not name.startswith("__"):
                    print("asked for", name)
                raise AttributeError(name)
        """,
    })  # fmt: skip
    assert both(python, tmp_path, """
import vllm.engine.arg_utils as m
m.EngineArgs = type("EngineArgs", (), {"create_engine_config": 1})
""", tmp_path, hooked=False) == []  # fmt: skip


def test_there_is_one_finder_whatever_is_imported_again(python, package, tmp_path):
    env = fake.environment(tmp_path, fake.SITE, package, VLLM_ENABLE_PROFILING="1")
    done = fake.run(python, ["-c", PRELUDE + """
import gc, sitecustomize
first = sitecustomize
del sys.modules["sitecustomize"]
import sitecustomize
importlib.reload(sitecustomize)
sitecustomize.register(); first.register()
del sys.modules["sitecustomize"], sitecustomize, first
gc.collect()
import vllm.engine.arg_utils
import sitecustomize
sitecustomize.register()
importlib.invalidate_caches()
print(sum(type(finder).__module__ == "profilemate" for finder in sys.meta_path), is_hooked())
m = sys.modules[TARGET]
print(type(vars(m.EngineArgs)["create_engine_config"].__wrapped__).__name__)
"""], env, tmp_path)  # fmt: skip
    assert done.stdout.split() == ["1", "True", "function"] and done.stderr == ""


# ---- beside other import hooks, on the interpreter that has them ----


def with_library(name):
    pytest.importorskip(name)
    return sys.executable


def test_beside_wrapt(package, tmp_path):
    python = with_library("wrapt")
    for script in ("", "import vllm.engine\n"):
        both(python, tmp_path, """
import wrapt
seen = []
@wrapt.when_imported(TARGET)
def imported(module):
    seen.append((module.__name__, hasattr(module, "EngineArgs")))
""" + script + """
import vllm.engine.arg_utils as m
print(seen, type(m.__spec__.loader).__name__)
""", package)  # fmt: skip


def test_beside_wrapt_patches_of_the_same_method(package, tmp_path):
    python = with_library("wrapt")
    both(python, tmp_path, """
import wrapt
import vllm.engine.arg_utils as m
calls = []
@wrapt.patch_function_wrapper(m, "EngineArgs.create_engine_config")
def around(wrapped, instance, args, kwargs):
    calls.append(type(instance).__name__)
    return wrapped(*args, **kwargs)
print(m.EngineArgs.__dict__["create_engine_config"].__name__, calls)
m.EngineArgs.create_engine_config = vars(m.EngineArgs)["create_engine_config"].__wrapped__
""", package)  # fmt: skip


def test_beside_typeguard(package, tmp_path):
    """typeguard's finder stands before ours and answers for vllm: its loader stays, and the module is hooked once it
    is complete and anything else is imported."""
    python = with_library("typeguard")
    both(python, tmp_path, """
from typeguard import install_import_hook
with install_import_hook("vllm"):
    import vllm.engine.arg_utils as m
    import colorsys
    print(is_clean(m))
""", package)  # fmt: skip


def test_another_tool_replaces_the_loaders_exec_module(python, package, tmp_path):
    """The way of Python profilers of old: what stood there, ours, is called from within theirs, once."""
    lines = both(python, tmp_path, """
class Theirs:
    def find_spec(self, name, path=None, target=None):
        if name != TARGET:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module
        def exec_module(module):
            print("theirs")
            run(module)
            print(module.EngineArgs.__name__)
        spec.loader.exec_module = exec_module
        return spec
sys.meta_path.insert(0, Theirs())
import vllm.engine.arg_utils
""", package)  # fmt: skip
    assert lines == ["theirs", "EngineArgs"]
