"""Attribute reads of probes: whatever the object is, an answer or None, and never an exception (the test module aborts
the process if one is left)."""

import enum
import gc
import sys

import pytest

from wrapping import Probe, pm, recorder  # noqa: F401


class Thing:
    def __init__(self, **attributes):
        self.__dict__.update(attributes)


class Hostile:
    def __getattr__(self, name):
        raise {"odd": RuntimeError, "memory": MemoryError, "recursion": RecursionError}.get(name, AttributeError)(name)

    @property
    def prop(self):
        raise ValueError("no")

    @property
    def exits(self):
        raise OSError


class Int(int):
    def __index__(self):
        raise RuntimeError

    __int__ = __bool__ = __index__


class Text(str):
    def __str__(self):
        raise RuntimeError

    __len__ = __str__


class Convertible:
    """As a tensor: converting it would synchronise its device."""

    def __index__(self):
        raise AssertionError("converted")

    __int__ = __float__ = __bool__ = __index__


class Len:
    def __init__(self, value):
        self.value = value

    def __len__(self):
        if isinstance(self.value, type):
            raise self.value
        return self.value


class Colour(enum.IntEnum):
    RED = 3


@pytest.mark.parametrize("value, want", [
    (0, 0), (7, 7), (2**64 - 1, 2**64 - 1), (2**64, None), (-1, None), (-(2**70), None), (True, 1), (Int(9), 9),
    (Colour.RED, 3), (1.0, None), ("1", None), (None, None), (Convertible(), None),
])  # fmt: skip
def test_u64(value, want):
    assert pm.read("u64", Thing(x=value), "x") == want


@pytest.mark.parametrize("value, want", [
    (-1, -1), (2**63 - 1, 2**63 - 1), (-(2**63), -(2**63)), (2**63, None), (-(2**70), None), (Int(-9), -9), (1.5, None),
    (Convertible(), None),
])  # fmt: skip
def test_i64(value, want):
    assert pm.read("i64", Thing(x=value), "x") == want


@pytest.mark.parametrize("value, want", [
    (True, True), (False, False), (0, False), (5, True), (2**80, True), (-(2**80), True), (Int(1), True), ("", None),
    ([], None), (None, None), (Convertible(), None),
])  # fmt: skip
def test_bool(value, want):
    assert pm.read("bool", Thing(x=value), "x") is want


@pytest.mark.parametrize("value, want", [
    (1.5, 1.5), (-1.0, -1.0), (3, 3.0), (True, 1.0), (10**400, None), ("1", None), (Convertible(), None),
])  # fmt: skip
def test_f64(value, want):
    assert pm.read("f64", Thing(x=value), "x") == want


@pytest.mark.parametrize("value, want", [
    ([1, 2], 2), ({}, 0), ("abc", 3), (Len(4), 4), (Len(-1), None), (Len(2**70), None), (Len("x"), None),
    (Len(ValueError), None), (Len(RecursionError), None), (5, None), (None, None),
])  # fmt: skip
def test_len(value, want):
    assert pm.read("len", Thing(x=value), "x") == want


@pytest.mark.parametrize("value, want", [
    ("abc", ("abc", 3)), ("", ("", 0)), ("é" * 7, ("é" * 7, 14)), ("é" * 9, ("é" * 7, 14)), ("a" * 15, ("a" * 15, 15)),
    ("a" * 99, ("a" * 15, 15)), ("a" * 13 + "€", ("a" * 13, 13)), ("a" * 12 + "€", ("a" * 12 + "€", 15)),
    ("😀" * 5, ("😀" * 3, 12)), ("\ud800", None), (b"abc", None), (5, None), (None, None),
    pytest.param(Text("abc"), ("abc", 3), id="subclass"),
])  # fmt: skip
def test_text(value, want):
    """The buffer of the test has 16 bytes."""
    assert pm.read("text", Thing(x=value), "x") == want


@pytest.mark.parametrize("how", ["attr", "u64", "i64", "bool", "f64", "len", "text", "item"])
@pytest.mark.parametrize("name", ["missing", "odd", "memory", "recursion", "prop", "exits"])
def test_hostile_objects(how, name, capfd):
    assert pm.read(how, Hostile(), name) is None
    assert capfd.readouterr() == ("", "")


def test_attr_and_item():
    value = object()
    count = sys.getrefcount(value)
    for _ in range(50):
        assert pm.read("attr", Thing(x=value), "x") is value
        assert pm.read("item", {"x": value}, "x") is value
    assert sys.getrefcount(value) == count
    assert pm.read("item", {"y": 1}, "x") is None and pm.read("item", [1], "x") is None

    class Key:
        def __hash__(self):
            return hash("x")

        def __eq__(self, other):
            raise RuntimeError

    assert pm.read("item", {Key(): 1}, "x") is None


def test_slots_class_attributes_and_modules():
    class Slotted:
        __slots__ = ("x", "unset")
        shared = 8

    obj = Slotted()
    obj.x = 5
    assert pm.read("u64", obj, "x") == 5 and pm.read("u64", obj, "shared") == 8 and pm.read("u64", obj, "unset") is None
    assert pm.read("text", sys, "byteorder") == (sys.byteorder, len(sys.byteorder))


def test_reads_hold_nothing():
    thing = Thing(x=10**15)
    count = sys.getrefcount(thing.x)
    for how in ("u64", "i64", "bool", "f64", "len", "text"):
        for _ in range(20):
            pm.read(how, thing, "x")
    after = sys.getrefcount(thing.x)
    assert after == count


def test_names_come_back_after_a_reset():
    assert pm.read("u64", Thing(x=1), "x") == 1
    for _ in range(3):
        pm.names_reset()
        gc.collect()
        assert pm.read("u64", Thing(x=1, y=2), "y") == 2 and pm.read("u64", Thing(x=1), "x") == 1


def test_arguments_by_position_and_name():
    got = []

    def leave():
        got.append((pm.arg(0, None), pm.arg(1, "b"), pm.arg(2, "c"), pm.arg(-1, "d"), pm.arg(9, None)))

    Probe(0, leave=leave)
    hooked = pm.wrap(lambda *args, **kwargs: None, 0)
    hooked()
    hooked("s", 1, 2, d=3)
    hooked("s", c=None, b=0)
    hooked(*["s"], **{"".join(["b"]): 1, "zz": 4})
    assert got == [
        (None, None, None, None, None),
        (("s",), (1,), (2,), (3,), None),
        (("s",), (0,), (None,), None, None),
        (("s",), (1,), None, None, None),
    ]


def test_a_name_that_is_not_interned():
    got = []
    Probe(0, leave=lambda: got.append((pm.arg(-1, "other"), pm.arg(0, "missing"))))
    made = "".join(["oth", "er"])  # one letter would be the same object whoever makes it
    assert made is not sys.intern("other")
    pm.wrap(lambda **kwargs: None, 0)(**{"first": 1, made: 7, "zz": 4})
    assert got == [((7,), None)]
