"""Loads _pmtest, the wrapper with probes written in Python, and the small tools that its tests share."""

import importlib.machinery
import importlib.util
import os
import pathlib
from typing import NamedTuple

import pytest

BUILD = pathlib.Path(os.environ.get("PM_BUILD", pathlib.Path(__file__).parents[2] / "build" / "release"))


def load(name):
    path = BUILD / "tests" / f"{name}.abi3.so"
    if not path.exists():
        pytest.skip(f"{path} is not built", allow_module_level=True)
    loader = importlib.machinery.ExtensionFileLoader(name, str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


pm = load("_pmtest")


class Event(NamedTuple):
    """One half: what a probe was given."""

    half: str
    probe: int
    args: tuple
    nargs: int
    kwnames: tuple
    result: tuple  # (value,), or () where there is none
    enter_ns: int
    start_ns: int
    end_ns: int
    scratch: int


class Probe:
    """A fresh probe of a number; keeps its events unless told otherwise."""

    def __init__(self, number, events=None, enter=None, leave=None, outermost=False, with_enter=True, keep=True):
        self.number = number
        self.events = [] if events is None else events
        self.do_enter, self.do_leave, self.keep = enter, leave, keep
        pm.probe(number, self._enter, self._leave, outermost, with_enter)

    def _half(self, half, do, args, nargs, kwnames, result, times, scratch):
        if self.keep:
            self.events.append(Event(half, self.number, args, nargs, kwnames or (), result, *times, scratch))
        return do() if do else None

    def _enter(self, *given):
        return self._half("enter", self.do_enter, *given)

    def _leave(self, *given):
        return self._half("leave", self.do_leave, *given)

    @property
    def halves(self):
        return [event.half for event in self.events]

    @property
    def armed(self):
        return pm.state(self.number)[0]

    @property
    def faults(self):
        return pm.state(self.number)[1]


@pytest.fixture(autouse=True)
def recorder():
    """A recorder is attached in every test; returns what the guard wrote as attributes."""
    pm.attach(False)
    pm.attach(True)
    pm.attrs.clear()
    pm.fired.clear()
    yield pm.attrs
    pm.attach(False)


def wrap_in(cls, name, *numbers):
    """Puts a wrapper into a class's own dict, as the installer does."""
    setattr(cls, name, pm.wrap(cls.__dict__[name], *numbers))


class Bare:
    """The oracle: leaves everything as it is."""

    hooked = False

    def place(self, cls, *names):
        return cls

    def function(self, function):
        return function


class Hooked(Bare):
    hooked = True

    def __init__(self, probes):
        self.probes = [Probe(n) for n in range(probes)]

    def place(self, cls, *names):
        for name in names:
            wrap_in(cls, name, *range(len(self.probes)))
        return cls

    def function(self, function):
        return pm.wrap(function, *range(len(self.probes)))


@pytest.fixture(params=["bare", "passing", "one", "three"])
def how(request):
    """Each test with it runs on the bare callable, and wrapped with no, one and three probes."""
    if request.param == "bare":
        return Bare()
    return Hooked({"passing": 0, "one": 1, "three": 3}[request.param])
