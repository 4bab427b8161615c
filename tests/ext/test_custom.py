"""Custom hooks: what VLLM_PROFILING_CUSTOM names is timed, whatever kind of callable it is; what must not be is refused."""

import csv
import json
import subprocess
import textwrap

import pytest

import fake

PROGRAM = fake.BUILD / "bin" / "profilemate"
MODULE = """
import asyncio

class A:
    def method(self, n):
        return n + 1

    @staticmethod
    def static(n):
        return n + 2

    @classmethod
    def of_class(cls, n):
        return cls, n

    async def coroutine(self):
        await asyncio.sleep(0.02)
        return 5

    def generator(self):
        yield 1

    @property
    def value(self):
        return 6

    class Inner:
        def deep(self):
            return 7

class B(A):
    pass

def function(fail=False):
    if fail:
        raise ValueError("no")
    return 8

def untouched():
    return 9
"""
SCRIPT = """
import asyncio
from pkg.mod import A, B, function
import pkg.mod
a = A()
assert [a.method(n) for n in range(5)] == [1, 2, 3, 4, 5]
assert B().method(1) == 2
assert A.static(1) == 3 and a.static(2) == 4 and A.of_class(1) == (A, 1)
assert asyncio.run(a.coroutine()) == 5
assert list(a.generator()) == [1] and a.value == 6 and A.Inner().deep() == 7
assert function() == 8 and pkg.mod.untouched() == 9
try:
    function(fail=True)
except ValueError as error:
    assert error.args == ("no",)
"""
NAMES = ["A.method", "A.static", "A.of_class", "A.coroutine", "A.generator", "A.Inner.deep", "function"]


@pytest.fixture(params=fake.PYTHONS)
def python(request):
    return fake.PYTHONS[request.param]


@pytest.fixture
def run(tmp_path):
    """Runs a script with these custom hooks; returns the session's folder and stderr."""
    package = fake.write(tmp_path / "package", {"pkg/__init__.py": "", "pkg/mod.py": MODULE})

    def run(custom, script=SCRIPT, python=fake.PYTHON, **extra):
        env = fake.environment(
            tmp_path, fake.SITE, package, VLLM_ENABLE_PROFILING="1", VLLM_PROFILING_CUSTOM=custom, **extra
        )
        done = fake.run(python, ["-c", textwrap.dedent(script)], env, tmp_path)
        found = fake.sessions(tmp_path)
        return (found[0] if found else None), done.stderr

    return run


def export(session):
    subprocess.run([PROGRAM, "export", session], check=True, capture_output=True)
    with (session / "custom_timing.csv").open() as lines:
        return list(csv.DictReader(lines))


def doctor(session):
    done = subprocess.run([PROGRAM, "doctor", "--json", session], capture_output=True, text=True)
    return [check for check in json.loads(done.stdout)["checks"] if "pkg.mod:" in check["text"] or "no.such" in check["text"]]


def test_every_kind_of_callable(run, python):
    session, stderr = run(",".join("pkg.mod:" + name for name in NAMES), python=python)
    rows = export(session)
    calls = {name: [row for row in rows if row["name"] == "pkg.mod:" + name] for name in NAMES}
    assert {name: len(found) for name, found in calls.items()} == {
        "A.method": 6, "A.static": 2, "A.of_class": 1, "A.coroutine": 1, "A.generator": 1, "A.Inner.deep": 1, "function": 2,
    }  # fmt: skip
    assert len(rows) == 14
    assert float(calls["A.coroutine"][0]["duration_ms"]) >= 20  # until it has returned, not until it was made
    assert "Successfully patched custom hooks" in stderr
    native = subprocess.run([PROGRAM, "export", "--format", "json", session], capture_output=True, text=True, check=True)
    failed = [row for row in map(json.loads, native.stdout.splitlines()) if row["table"] == "custom_call" and row["flags"]]
    assert [row["name"] for row in failed] == ["pkg.mod:function"]


def test_without_the_setting_nothing_is_wrapped(run):
    script = SCRIPT + "\nassert type(vars(A)['method']).__name__ == 'function' and type(function).__name__ == 'function'"
    session, _ = run("", script)
    assert session is None


def test_only_what_is_named_is_wrapped(run):
    script = SCRIPT + "\nassert type(pkg.mod.untouched).__name__ == 'function' != type(function).__name__"
    session, _ = run("pkg.mod:function", script)
    assert {row["name"] for row in export(session)} == {"pkg.mod:function"}


def test_bad_entries_warn_once_each_and_doctor_says_what_became_of_them(run):
    session, stderr = run("pkg.mod:A.method,pkg.mod:nothing,pkg.mod:B.method,pkg.mod:A,pkg.mod:A.value,9:x,torch:add,no.such:f")
    warnings = [line for line in stderr.splitlines() if "VLLM_PROFILING_CUSTOM" in line]
    assert len(warnings) == 2
    assert "'9:x' names no callable" in warnings[0] and "'torch:add' is refused" in warnings[1]
    assert {row["name"] for row in export(session)} == {"pkg.mod:A.method"}
    found = doctor(session)
    texts = {check["text"]: check["status"] for check in found}
    assert texts["pkg.mod:A.method: called in 1 process"] == "ok"
    assert texts["pkg.mod:nothing: its module was imported and has no such callable"] == "problem"
    assert texts["no.such:f: no process imported its module"] == "note"
    everything = "\n".join(texts)
    assert "inherits it, name it as pkg.mod:A.method" in everything
    assert "pkg.mod:A was refused: it is a class" in everything


MODULE_OF_TORCH = """
class Module:
    def __call__(self, *args):
        return self.forward(*args)
Module.__module__ = "torch.nn.modules.module"
"""


def test_methods_of_torch_modules_are_refused_but_those_known_to_be_safe(run, tmp_path):
    package = tmp_path / "package"
    fake.write(
        package,
        {
            "fake_torch.py": MODULE_OF_TORCH,
            "vllm/__init__.py": "",
            "vllm/out_of_tree.py": """
                from fake_torch import Module
                class Net(Module):
                    def forward(self, x):
                        return x
                    def helper(self):
                        pass
                    def load_weights(self):
                        pass
                class Plain:
                    def forward(self, x):
                        return x
                """,
        },
    )
    names = ["Net.forward", "Net.helper", "Net.load_weights", "Plain.forward"]
    script = """
        from vllm.out_of_tree import Net, Plain
        net = Net()
        net(1), net.helper(), net.load_weights(), Plain().forward(2)
        """
    session, _ = run(",".join("vllm.out_of_tree:" + name for name in names), script)
    rows = export(session)
    assert sorted(row["name"].split(":")[1] for row in rows) == ["Net.load_weights", "Plain.forward"]
    done = subprocess.run([PROGRAM, "doctor", session], capture_output=True, text=True)
    for name in ("Net.forward", "Net.helper"):
        assert f"{name} was refused: it is a method of a torch.nn.Module" in done.stdout


def test_a_child_of_fork_records_its_own(run):
    script = """
        import os
        from pkg.mod import function
        function()
        child = os.fork()
        function()
        if child == 0:
            function()
            os._exit(0)
        os.waitpid(child, 0)
        """
    session, _ = run("pkg.mod:function", script)
    assert len(export(session)) == 4
    assert len(list(session.glob("records/*.pmrec"))) == 2
