"""The wrapper looks and behaves as the callable in whose place it stands: each test that takes `how` runs on the bare
callable too and expects the same of both."""

import abc
import contextlib
import copy
import functools
import gc
import inspect
import pickle
import sys
import types
import unittest.mock
import weakref

import pytest

from wrapping import Probe, how, pm, recorder, wrap_in  # noqa: F401


class Own:
    """A descriptor that binds by functools.partial."""

    def __init__(self, function):
        self.function = function
        self.__code__ = function.__code__

    def __get__(self, obj, objtype=None):
        return functools.partial(self.function, obj)

    def __call__(self, *args):
        return self.function(*args)


class Both:
    """One that binds to an object with a mind of its own."""

    def __init__(self, function):
        self.function = function

    def __get__(self, obj, objtype=None):
        return Bound(obj)

    def __call__(self, *args):
        return self.function(*args)


class Bound:
    rebinds = False

    def __init__(self, obj):
        self.obj = obj

    def __call__(self, *args):
        return ("bound", *args)

    def __get__(self, obj, objtype=None):
        return "bound again" if self.rebinds else self

    def __eq__(self, other):
        return self.obj == other.obj if hasattr(other, "obj") else NotImplemented

    def __hash__(self):
        return hash(self.obj)

    def __reduce__(self):
        return Bound, (7,)

    def __repr__(self):
        return "<a bound one>"


class Base:
    tag = "base"

    def method(self, a, b: int = 2, *rest, c=3, **more) -> tuple:
        """Does a thing."""
        return self, a, b, rest, c, more

    @staticmethod
    def static(a, b=2):
        """Static."""
        return a, b

    @classmethod
    def klass(cls, a, b=2):
        """Class."""
        return cls, a, b


NAMES = ("method", "static", "klass")


@pytest.fixture
def cls(how):
    """A fresh copy of Base with its methods hooked; its functions are the copy's own."""
    def fresh(function):
        made = types.FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
        )
        for name in ("__kwdefaults__", "__annotations__", "__qualname__", "__doc__", "__module__"):
            setattr(made, name, getattr(function, name))
        return made

    space = {"tag": "base", "__module__": __name__}
    for name in NAMES:
        raw = Base.__dict__[name]
        space[name] = fresh(raw) if inspect.isfunction(raw) else type(raw)(fresh(raw.__func__))
    return how.place(type("Base", (), space), *NAMES)


# ---- calls ----


def test_arguments_arrive_as_given(cls):
    obj = cls()
    assert obj.method(1) == (obj, 1, 2, (), 3, {})
    assert obj.method(1, 5, 6, 7, c=8, d=9) == (obj, 1, 5, (6, 7), 8, {"d": 9})
    assert obj.method(*[1, 2], **{"c": 4}) == (obj, 1, 2, (), 4, {})
    assert obj.method(b=1, a=0) == (obj, 0, 1, (), 3, {})
    assert cls.method(obj, 1) == (obj, 1, 2, (), 3, {})
    assert cls.static(1) == cls().static(1) == (1, 2)
    assert cls.klass(1, b=4) == cls().klass(1, b=4) == (cls, 1, 4)
    keywords = {f"k{i}": i for i in range(40)}
    assert obj.method(1, *range(50), **keywords)[3:] == (tuple(range(1, 50)), 3, keywords)


def test_wrong_calls_say_the_same(cls):
    with pytest.raises(TypeError, match=r"Base\.method\(\) missing 1 required positional argument: 'a'|missing 1"):
        cls().method()
    with pytest.raises(TypeError, match="multiple values for argument 'a'"):
        cls().method(1, a=2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        cls.static(1, z=2)
    with pytest.raises(TypeError):
        cls.method()


def test_call_through_tuple_and_dict(cls):
    """tp_call, as slots, partial objects and functools.reduce use it."""
    obj = cls()
    assert type(obj.__class__.__dict__["method"]).__call__(cls.__dict__["method"], obj, 1, c=5)[4] == 5
    assert list(map(obj.method, [7])) == [(obj, 7, 2, (), 3, {})]
    assert functools.reduce(cls.static, [1, 2, 3]) == ((1, 2), 3)
    assert sorted([3, 1, 2], key=how_key(cls)) == [1, 2, 3]


def how_key(cls):
    return lambda value: cls.static(value)[0]


def test_special_methods_of_a_class(how):
    class Callable:
        def __call__(self, x):
            return x + 1

        def __len__(self):
            return 7

        def __eq__(self, other):
            return other == 5

        __hash__ = None

        def __getitem__(self, i):
            if i > 2:
                raise IndexError(i)
            return i * 10

        def __enter__(self):
            return "in"

        def __exit__(self, kind, value, traceback):
            return kind is ValueError

    how.place(Callable, "__call__", "__len__", "__eq__", "__getitem__", "__enter__", "__exit__")
    obj = Callable()
    assert obj(1) == 2 and len(obj) == 7 and obj == 5 and not obj == 6
    assert list(obj) == [0, 10, 20]
    with obj as entered:
        assert entered == "in"
        raise ValueError
    with pytest.raises(KeyError):
        with obj:
            raise KeyError


def test_init_and_new(how):
    class Thing:
        def __new__(cls, *args):
            made = super().__new__(cls)
            made.args = args
            return made

        def __init__(self, *args):
            self.seen = args

    how.place(Thing, "__init__", "__new__")
    thing = Thing(1, 2)
    assert thing.args == thing.seen == (1, 2)


def test_override_that_calls_super(how):
    class A:
        def run(self, x):
            return ["A", x]

        @classmethod
        def make(cls, x):
            return [cls.__name__, x]

    class B(A):
        def run(self, x):
            return ["B", *super().run(x)]

        @classmethod
        def make(cls, x):
            return ["B", *super().make(x)]

    how.place(A, "run", "make")
    how.place(B, "run", "make")
    assert B().run(1) == ["B", "A", 1]
    assert B.make(1) == ["B", "B", 1]
    assert super(B, B()).run(2) == ["A", 2]


def test_property_and_slots_beside(how):
    class Slotted:
        __slots__ = ("x", "__weakref__")

        def method(self):
            return self.x

        @property
        def double(self):
            return 2 * self.method()

    how.place(Slotted, "method")
    obj = Slotted()
    obj.x = 4
    assert obj.double == 8


# ---- binding ----


def test_binding(cls):
    obj = cls()
    bound = obj.method
    assert inspect.ismethod(bound) and bound.__self__ is obj
    assert bound.__func__ is cls.__dict__["method"] is cls.method
    assert bound == obj.method and hash(bound) == hash(obj.method) and bound != cls().method
    assert cls.klass.__self__ is cls and cls.klass.__func__ is cls.__dict__["klass"].__func__
    assert isinstance(cls.__dict__["static"], staticmethod) and isinstance(cls.__dict__["klass"], classmethod)
    assert cls.static is cls().static is cls.__dict__["static"].__func__
    assert cls.__dict__["method"].__get__(obj, cls)(1)[1] == 1
    assert cls.__dict__["method"].__get__(None, cls) is cls.__dict__["method"]


def test_bound_method_survives_its_instance_dict(cls):
    obj = cls()
    obj.method = "shadow"
    assert obj.method == "shadow"
    del obj.method
    assert obj.method(1)[1] == 1


def test_builtins_bind_as_they_do(how):
    class WithBuiltins:
        length = how.function(len)  # a builtin function does not bind
        upper = how.function(str.upper)  # a method descriptor does

    class Text(str):
        upper = how.function(str.upper)

    assert WithBuiltins().length([1, 2]) == 2 and WithBuiltins.length("abc") == 3
    assert Text("ab").upper() == "AB" and Text.upper(Text("ab")) == "AB"
    with pytest.raises(TypeError):
        WithBuiltins().upper()


def test_callable_objects_do_not_bind(how):
    class Plain:
        def __call__(self, *args):
            return args

    class Holder:
        plain = how.function(Plain())
        bound = how.function([3, 1].count)

    assert Holder().plain(2) == (2,) and Holder.plain(2) == (2,)
    assert Holder().bound(3) == 1


def test_descriptor_with_its_own_binding(how):
    class Logged:
        """Another profiler's wrapper: binds to an object of its own."""

        def __init__(self, function):
            self.function = function

        def __get__(self, obj, objtype=None):
            return Bound(self.function, obj)

        def __call__(self, *args):
            return ("unbound", self.function(*args))

    class Bound:
        def __init__(self, function, obj):
            self.function, self.obj = function, obj

        def __call__(self, *args, **kwargs):
            return ("bound", self.function(self.obj, *args, **kwargs))

    class Holder:
        @Logged
        def method(self, x, y=0):
            return (self, x, y)

    how.place(Holder, "method")
    obj = Holder()
    assert obj.method(1, y=2) == ("bound", (obj, 1, 2))
    assert obj.method(*[1]) == ("bound", (obj, 1, 0))
    assert Holder.method(5) == ("bound", (None, 5, 0))
    assert obj.method.obj is obj and isinstance(obj.method, Bound)
    if how.hooked and how.probes:
        seen = how.probes[0].events
        assert seen[0].args == (obj, 1, 2) and seen[0].nargs == 2 and seen[0].kwnames == ("y",)
        many = tuple(range(30))
        with pytest.raises(TypeError):
            obj.method(*many)
        assert seen[-1].args == (obj, *many) and seen[-1].half == "leave" and seen[-1].result == ()


def test_what_ones_own_descriptor_bound_stays_what_it_is(how):
    """Its comparison, hash, attributes, weak references, pickle and further binding are the inner object's."""

    class Holder:
        def method(self, *args):
            return args

        both = Both(method)

    how.place(Holder, "both")
    obj = Holder()
    bound = obj.both
    assert bound == obj.both and not bound != obj.both and bound != Holder().both
    assert bound == Bound(obj) and Bound(obj) == bound
    assert {bound: 1}[obj.both] == 1 and {Bound(obj): 2}[bound] == 2
    with pytest.raises(TypeError, match="not supported between"):
        bound < 3  # noqa: B015
    bound.label = "of the inner object"
    assert bound.label == "of the inner object" and bound.__dict__ == {"obj": obj, "label": "of the inner object"}
    del bound.label
    assert not hasattr(bound, "label")
    with pytest.raises(AttributeError):
        del bound.label
    assert bound.__reduce__() == (Bound, (7,)) and pickle.loads(pickle.dumps(bound)) == Bound(7)
    assert repr(bound).strip("<>").removeprefix("hooked ").strip("<>") == "a bound one"

    gone = weakref.ref(bound, lambda _: left.append(1))
    left = []
    assert gone() is bound
    del bound
    gc.collect()
    assert gone() is None and left == [1]


def test_binding_what_is_bound_once_more(how):
    class Holder:
        both = Both(len)
        again = Both(len)

    class Other:
        pass

    how.place(Holder, "both", "again")
    obj = Holder()
    Other.taken = obj.both
    Bound.rebinds = True
    try:
        assert Other().taken == "bound again"
    finally:
        Bound.rebinds = False
    assert Other().taken == Bound(obj)
    Other.partial = functools.partial(obj.both, 1)
    assert Other().partial(2) == ("bound", 1, 2)


def test_recursion_through_ones_own_descriptor():
    """Only the outermost of them runs halves."""

    class Holder:
        def down(self, n):
            return n if n == 0 else self.own(n - 1)

        own = Own(down)

    probe = Probe(0, outermost=True)
    wrap_in(Holder, "own", 0)
    assert Holder().own(3) == 0 and probe.halves == ["enter", "leave"]
    assert Holder().own(2) == 0 and probe.halves == ["enter", "leave"] * 2


def test_coroutine_function_of_ones_own_descriptor(how):
    class Holder:
        async def later(self, a):
            return self, a

        own = Own(later)

    how.place(Holder, "own")
    obj = Holder()
    coroutine = obj.own(4)
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    assert stop.value.value == (obj, 4)
    if how.hooked and how.probes:
        assert how.probes[0].events[-1].half == "leave" and how.probes[0].events[-1].result == ((obj, 4),)


# ---- attributes ----


def test_attributes_are_the_originals(cls):
    method = cls.__dict__["method"]
    assert method.__name__ == "method" and method.__qualname__ == "Base.method"
    assert method.__doc__ == "Does a thing." and method.__module__ == __name__
    assert method.__defaults__ == (2,) and method.__kwdefaults__ == {"c": 3}
    assert method.__code__.co_name == "method" and method.__globals__ is globals()
    assert method.__annotations__ == {"b": int, "return": tuple}
    assert isinstance(method, types.FunctionType) and inspect.isfunction(method) and inspect.isroutine(method)
    assert method.__class__ is types.FunctionType
    assert not inspect.isclass(method) and not inspect.isbuiltin(method) and not inspect.ismethoddescriptor(method)
    assert callable(method)
    assert {"__code__", "__name__", "__get__", "__call__"} <= set(dir(method))
    assert "method" in [name for name, _ in inspect.getmembers(cls, inspect.isfunction)]
    assert not hasattr(method, "nothing")
    with pytest.raises(AttributeError, match="'function' object has no attribute 'nothing'"):
        method.nothing


def test_attributes_of_static_and_class_methods(cls):
    for name, doc in (("static", "Static."), ("klass", "Class.")):
        raw = cls.__dict__[name]
        assert raw.__doc__ == doc and raw.__name__ == name and raw.__qualname__ == f"Base.{name}"
        assert raw.__func__.__name__ == name and raw.__wrapped__ is raw.__func__
        assert getattr(cls, name).__doc__ == doc
        assert inspect.signature(getattr(cls, name)) == inspect.signature(lambda a, b=2: None)
    assert {member.name: member.kind for member in inspect.classify_class_attrs(cls)}.items() >= {
        "method": "method", "static": "static method", "klass": "class method"
    }.items()


def test_attributes_set_on_a_static_method(how):
    raw = staticmethod(lambda: 1)
    raw.mark = "m"
    assert how.function(raw).mark == "m"


def test_written_attributes(cls):
    method = cls.__dict__["method"]
    method.mark = 1
    assert method.mark == 1 and method.__dict__ == {"mark": 1} and cls().method.mark == 1
    assert inspect.unwrap(method).mark == 1
    with pytest.raises(AttributeError):
        cls().method.mark = 2
    method.__doc__ = "New."
    assert inspect.getdoc(cls().method) == "New."
    method.__defaults__ = (77,)
    assert cls().method(1)[2] == 77
    del method.mark
    assert not hasattr(method, "mark")
    with pytest.raises(TypeError):
        method.__code__ = 3


def test_signature_source_and_file(cls):
    want = "(self, a, b: int = 2, *rest, c=3, **more) -> tuple"
    assert str(inspect.signature(cls.method)) == want
    assert str(inspect.signature(cls().method)) == want.replace("self, ", "")
    assert inspect.getsource(cls.method).strip().startswith("def method(self")
    assert inspect.getsourcefile(cls.method).endswith("test_wrapper.py")
    assert inspect.getfullargspec(cls.method).args == ["self", "a", "b"]
    assert inspect.getdoc(cls.method) == "Does a thing."
    assert inspect.getcallargs(cls().method, 1)["a"] == 1
    assert str(inspect.signature(functools.partial(cls().method, 1))) == want.replace("self, a, ", "")


def test_a_given_signature_wins(how):
    def function(*args):
        return args

    function.__signature__ = inspect.signature(lambda x, y: None)
    assert list(inspect.signature(how.function(function)).parameters) == ["x", "y"]


def test_functools(how):
    def function(a, b=2):
        """Doc."""
        return a, b

    function.mark = "m"
    hooked = how.function(function)

    @functools.wraps(hooked)
    def outer(*args, **kwargs):
        return ("outer", hooked(*args, **kwargs))

    assert outer.__name__ == "function" and outer.__doc__ == "Doc." and outer.mark == "m"
    assert outer.__wrapped__ is hooked and inspect.unwrap(outer) is function
    assert str(inspect.signature(outer)) == "(a, b=2)" and outer(1) == ("outer", (1, 2))
    assert functools.partial(hooked, 1)(b=5) == (1, 5)
    assert functools.lru_cache(hooked)(1) == (1, 2)

    class Holder:
        run = functools.partialmethod(how.function(lambda self, a, b: (self, a, b)), 1)
        cached = functools.cached_property(how.function(lambda self: [self]))

    obj = Holder()
    assert obj.run(2) == (obj, 1, 2)
    Holder.cached.__set_name__(Holder, "cached")
    assert obj.cached is obj.cached and obj.cached == [obj]

    @functools.singledispatch
    def dispatch(value):
        return "other"

    dispatch.register(int, how.function(lambda value: "int"))
    assert dispatch(1) == "int" and dispatch("") == "other"
    if how.hooked:  # done to the bare one, it would be its own __wrapped__
        functools.update_wrapper(hooked, function)
        assert inspect.unwrap(hooked) is function


def test_context_manager_and_abstract(how):
    class Abstract(abc.ABC):
        @abc.abstractmethod
        def method(self):
            """Must."""

        @classmethod
        @abc.abstractmethod
        def klass(cls):
            """Must."""

        @staticmethod
        @abc.abstractmethod
        def static():
            """Must."""

    how.place(Abstract, "method", "klass", "static")
    assert all(getattr(Abstract.__dict__[name], "__isabstractmethod__") for name in ("method", "klass", "static"))
    with pytest.raises(TypeError, match="abstract"):
        Abstract()
    abc.update_abstractmethods(Abstract) if hasattr(abc, "update_abstractmethods") else None
    with pytest.raises(TypeError, match="abstract"):
        type("Half", (Abstract,), {"method": lambda self: 1})()

    @contextlib.contextmanager
    def manager():
        yield 5

    with how.function(manager)() as value:
        assert value == 5


# ---- identity, copies, pickles ----


def module_function(a):
    return a + 1


def test_what_has_no_name_is_pickled_as_it_is(how):
    binary = how.function(functools.partial(int, base=2))
    again = pickle.loads(pickle.dumps(binary))
    assert isinstance(again, functools.partial) and again("101") == 5
    gone = weakref.ref(binary)
    del binary
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_by_name(how, protocol, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "module_function", how.function(module_function))
    assert pickle.loads(pickle.dumps(module_function, protocol)) is module_function

    with monkeypatch.context() as patch:
        for name in NAMES:
            raw = Base.__dict__[name]
            patch.setattr(Base, name, how.function(raw))
        if protocol:  # protocol 0 cannot name what lies in a class
            assert pickle.loads(pickle.dumps(Base.method, protocol)) is Base.method
            assert pickle.loads(pickle.dumps(Base.static, protocol)) is Base.static
        again = pickle.loads(pickle.dumps(Base().method, protocol))
        assert again(1)[1] == 1 and again.__func__ is Base.method
        assert pickle.loads(pickle.dumps(Base.klass, protocol))(1)[0] is Base


def test_pickle_of_what_has_no_name(how):
    with pytest.raises((AttributeError, pickle.PicklingError)):
        pickle.dumps(how.function(lambda: 1))


def test_copies_are_the_same(how):
    hooked = how.function(module_function)
    assert copy.copy(hooked) is hooked and copy.deepcopy(hooked) is hooked
    assert copy.deepcopy({"f": hooked})["f"] is hooked


def test_identity_hash_and_equality(how):
    hooked, other = how.function(module_function), how.function(lambda: 1)
    assert hooked == hooked and hooked != other and hash(hooked) == hash(hooked) and len({hooked, other}) == 2
    with pytest.raises(TypeError):
        hooked < other


def test_repr_says_what_it_is(how):
    text = repr(how.function(module_function))
    assert "<function module_function at 0x" in text
    assert text.startswith("<hooked ") is how.hooked


def test_weak_references_and_collection(how):
    def make():
        def function():
            return 1

        return how.function(function)

    function = make()
    seen = []
    ref = weakref.ref(function, seen.append)
    assert ref() is function
    function.itself = function  # a cycle through the original's dict
    del function
    gc.collect()
    assert ref() is None and seen == [ref]

    class Holder:
        def method(self):
            return self

    how.place(Holder, "method")
    ref = weakref.ref(Holder)
    bound = weakref.WeakMethod(Holder().method)
    assert bound() is None
    del Holder
    gc.collect()
    assert ref() is None


def test_mock_and_patch(how):
    class Holder:
        def method(self, a):
            return a

    how.place(Holder, "method")
    raw = Holder.__dict__["method"]
    with unittest.mock.patch.object(Holder, "method", autospec=True, return_value=5) as mock:
        assert Holder().method(1) == 5
        with pytest.raises(TypeError):
            Holder().method(1, 2)
        mock.assert_called_once()
    assert Holder.__dict__["method"] is raw
    with unittest.mock.patch.object(Holder, "method", wraps=Holder().method):
        assert Holder.method(3) == 3


def test_inside_of_other_tools(how):
    """A wrapt decorator over ours, and ours over one."""
    wrapt = pytest.importorskip("wrapt", reason="wrapt is not installed")

    @wrapt.decorator
    def passing(wrapped, instance, args, kwargs):
        return (instance, wrapped(*args, **kwargs))

    class Holder:
        def method(self, a):
            return a

        @passing
        def under(self, a):
            return a

        @passing
        @classmethod
        def under_class(cls, a):
            return a

        @passing
        @staticmethod
        def under_static(a):
            return a

    how.place(Holder, "method", "under", "under_class", "under_static")
    Holder.method = passing(Holder.__dict__["method"])
    obj = Holder()
    assert obj.method(1) == (obj, 1) and obj.under(1) == (obj, 1)
    assert Holder.under(obj, 1) == (obj, 1)
    assert obj.under_class(2) == (Holder, 2) and Holder.under_class(2) == (Holder, 2)
    assert obj.under_static(3) == (None, 3) and Holder.under_static(3) == (None, 3)
    assert str(inspect.signature(Holder.under)) == "(self, a)" and str(inspect.signature(obj.method)) == "(a)"
    assert obj.under.__self__ is obj and obj.under.__name__ == "under"


def test_typeguard_beside(how):
    typeguard = pytest.importorskip("typeguard", reason="typeguard is not installed")

    @typeguard.typechecked
    def checked(a: int) -> int:
        return a

    hooked = how.function(checked)
    assert hooked(1) == 1
    with pytest.raises(typeguard.TypeCheckError):
        hooked("x")

    def later(a: int) -> int:
        return a

    assert typeguard.check_type(how.function(later), type(later)) is not None


# ---- only the wrapper ----


def test_what_cannot_be_hooked():
    for thing in (int, property(lambda self: 1), 5, None, type("C", (), {}), classmethod(property(lambda c: 1))):
        with pytest.raises(TypeError, match="cannot hook"):
            pm.wrap(thing)


def test_original_is_given_back():
    for name in NAMES:
        raw = Base.__dict__[name]
        wrapper = pm.wrap(raw)
        assert pm.original(wrapper) is raw and pm.check(wrapper) and not pm.check(raw)
        assert type(wrapper) is type(raw) or name == "method"
    assert pm.wrap(Base.method).__wrapped__ is Base.method
    assert pm.original(5) is None and not pm.check(5) and not pm.check(staticmethod(len))


def test_abstract_kinds_keep_their_type():
    class Special(staticmethod):
        pass

    wrapper = pm.wrap(Special(module_function))
    assert type(wrapper) is Special and pm.check(wrapper)


def test_targets_of_one_wrapper():
    probes = [Probe(n) for n in range(13)]
    hooked = pm.wrap(module_function, *range(12))
    assert hooked(1) == 2
    with pytest.raises(RuntimeError, match="12 targets"):
        pm.add(hooked, 12)
    pm.add(hooked, 0)  # again: no effect
    assert pm.counts(hooked)[2] == 12
    assert all(probe.halves == ["enter", "leave"] for probe in probes[:12])
    assert pm.remove(hooked, 3) == 11 and hooked(1) == 2
    assert len(probes[3].events) == 2 and len(probes[4].events) == 4
    pm.add(hooked, 3)
    assert hooked(1) == 2 and len(probes[3].events) == 4
    assert pm.remove(hooked, -1) == 0 and hooked(1) == 2 and len(probes[0].events) == 6
    with pytest.raises(TypeError):
        pm.add(module_function, 0)


def test_order_of_halves():
    events = []
    Probe(0, events), Probe(1, events), Probe(2, events)
    pm.wrap(module_function, 0, 1, 2)(1)
    assert [(e.half, e.probe) for e in events] == [
        ("enter", 0), ("enter", 1), ("enter", 2), ("leave", 2), ("leave", 1), ("leave", 0)
    ]


def test_removed_during_a_call_is_still_left():
    probe = Probe(0)

    def function():
        pm.remove(hooked, 0)
        Probe(1)
        pm.add(hooked, 1)
        return "r"

    hooked = pm.wrap(function, 0)
    assert hooked() == "r"
    assert probe.halves == ["enter", "leave"] and probe.events[1].result == ("r",)


def test_types_cannot_be_made_or_changed():
    kind = type(pm.wrap(module_function))
    with pytest.raises(TypeError):
        kind()
    with pytest.raises(TypeError):
        kind.__call__ = None
    with pytest.raises(TypeError):
        type("Sub", (kind,), {})


# ---- vectorcall ----


@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("probes", [0, 1, 3])
def test_vectorcall_arguments_are_untouched(offset, probes):
    """The very array, count, flag and names of keywords reach the original."""
    for n in range(probes):
        Probe(n)
    hooked = pm.wrap(pm.Spy(), *range(probes))
    for args, kwnames in (((), None), ((1, 2), None), ((1, 2, 3), ("x",)), ((1,), ("x",))):
        assert pm.vectorcall(hooked, args, kwnames, offset) == (None, True, True)


def test_vectorcall_of_a_callable_without():
    """A builtin with METH_VARARGS | METH_KEYWORDS has no vectorcall function."""
    Probe(0)
    hooked = pm.wrap(functools.reduce, 0)
    assert hooked(lambda a, b: a + b, [1, 2, 3]) == 6
    hooked = pm.wrap("{} {x}".format, 0)
    assert hooked(1, x=2) == "1 2"
    assert pm.vectorcall(hooked, (1, 2), ("x",), True)[0] == "1 2"
