"""Hooked coroutine functions: what the program sees is what it sees without hooks, and the call ends when the awaitable
does. Generators and async generators: the call ends when it returns them."""

import asyncio
import collections.abc
import gc
import inspect
import sys
import types
import warnings
import weakref

import pytest

from wrapping import Probe, how, pm, recorder, wrap_in  # noqa: F401


@types.coroutine
def pause(value):
    """Yields value to whoever drives, and returns what is sent."""
    return (yield value)


async def steps(n, log=None):
    """Pauses n times and returns what was sent."""
    got = []
    try:
        for i in range(n):
            got.append(await pause(i))
    except ValueError as error:
        return ("caught", error.args)
    finally:
        if log is not None:
            log.append("end")
    return got


def drive(coroutine, sends):
    """All that comes out of it: yields, and how it ended."""
    out = []
    try:
        for value in sends:
            out.append(coroutine.send(value))
    except BaseException as error:
        out.append((type(error), error.args, getattr(error, "value", None)))
    return out


def test_is_a_coroutine_function(how):
    hooked = how.function(steps)
    assert inspect.iscoroutinefunction(hooked) and not inspect.isgeneratorfunction(hooked)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert asyncio.iscoroutinefunction(hooked)

    class Holder:
        async def method(self):
            return self

        @classmethod
        async def klass(cls):
            return cls

        @staticmethod
        async def static():
            return "static"

    how.place(Holder, "method", "klass", "static")
    obj = Holder()
    assert all(inspect.iscoroutinefunction(f) for f in (Holder.method, obj.method, obj.klass, obj.static))
    assert asyncio.run(obj.method()) is obj and asyncio.run(Holder.klass()) is Holder
    assert asyncio.run(Holder.static()) == "static"


def test_what_it_returns_is_a_coroutine(how):
    coroutine = how.function(steps)(1)
    assert inspect.iscoroutine(coroutine) and inspect.isawaitable(coroutine) and asyncio.iscoroutine(coroutine)
    assert isinstance(coroutine, collections.abc.Coroutine) and isinstance(coroutine, types.CoroutineType)
    assert coroutine.__name__ == coroutine.__qualname__ == "steps" and coroutine.cr_code is steps.__code__
    assert inspect.getcoroutinestate(coroutine) == "CORO_CREATED" and not coroutine.cr_running
    assert coroutine.cr_frame.f_locals["n"] == 1
    coroutine.send(None)
    assert inspect.getcoroutinestate(coroutine) == "CORO_SUSPENDED" and coroutine.cr_await is not None
    assert "steps" in repr(coroutine)
    coroutine.__name__ = "renamed"
    assert coroutine.__name__ == "renamed" and weakref.ref(coroutine)() is coroutine
    coroutine.close()
    assert inspect.getcoroutinestate(coroutine) == "CORO_CLOSED"


@pytest.mark.parametrize("sends", [[None], [None, "a"], [None, "a", "b"], [None] * 4, ["early"], [None, 1, 2, 3, 4]])
def test_send(how, sends):
    assert drive(hooked := how.function(steps)(2), sends) == drive(bare := steps(2), sends)
    hooked.close(), bare.close()


def test_driven_by_its_iterator(how):
    """As yield from does in a generator."""
    iterator = how.function(steps)(2).__await__()
    assert iter(iterator) is iterator
    bare = steps(2).__await__()
    assert [next(iterator), next(iterator)] == [next(bare), next(bare)]
    with pytest.raises(StopIteration) as ours:
        next(iterator)
    with pytest.raises(StopIteration) as theirs:
        next(bare)
    assert ours.value.args == theirs.value.args
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        next(iterator)


def test_a_weak_reference_to_it(how):
    coroutine = how.function(steps)(0)
    gone = weakref.ref(coroutine)
    assert gone() is coroutine
    coroutine.close()
    del coroutine
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("value", [None, 5, (1, 2), (), [1], ValueError("v"), StopIteration(3)])
def test_returned_value(how, value):
    async def give():
        return value

    with pytest.raises(StopIteration) as caught:
        how.function(give)().send(None)
    assert caught.value.value is value

    async def outer():
        return await how.function(give)()

    assert asyncio.run(outer()) is value

    class Awaitable:
        def __await__(self):
            return (yield from how.function(give)().__await__())

    async def through():
        return await Awaitable()

    assert asyncio.run(through()) is value


@pytest.mark.parametrize("kind", [ValueError, StopIteration, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit])
def test_raised(how, kind):
    error = kind("mine")

    async def fail():
        await asyncio.sleep(0)
        raise error

    async def outer():
        try:
            await how.function(fail)()
        except BaseException as caught:
            return caught

    caught = asyncio.run(outer())
    if kind is StopIteration:
        assert isinstance(caught, RuntimeError) and caught.__cause__ is error
    else:
        assert caught is error
    if how.hooked:
        for probe in how.probes:
            assert probe.halves == ["enter", "leave"] and probe.events[1].result == ()


def test_throw(how):
    coroutine = how.function(steps)(2)
    coroutine.send(None)
    with pytest.raises(StopIteration) as caught:
        coroutine.throw(ValueError("x"))
    assert caught.value.value == ("caught", ("x",))
    coroutine = how.function(steps)(2)
    coroutine.send(None)
    error = KeyError("y")
    with pytest.raises(KeyError) as caught:
        coroutine.throw(error)
    assert caught.value is error
    coroutine = how.function(steps)(2)
    with pytest.raises(OSError):
        coroutine.throw(OSError)  # before the start
    with pytest.raises(RuntimeError, match="cannot reuse"):
        coroutine.send(None)
    if how.hooked:
        for probe in how.probes:
            leaves = [event.result for event in probe.events if event.half == "leave"]
            assert leaves == [(("caught", ("x",)),), (), ()]


def test_throw_that_goes_on(how):
    async def stubborn():
        try:
            await pause(1)
        except KeyError:
            return await pause(2)

    coroutine = how.function(stubborn)()
    assert coroutine.send(None) == 1 and coroutine.throw(KeyError()) == 2
    if how.hooked:
        assert all(probe.halves == ["enter"] for probe in how.probes)
    with pytest.raises(StopIteration) as caught:
        coroutine.send("done")
    assert caught.value.value == "done"
    if how.hooked:
        assert all(probe.events[1].result == ("done",) for probe in how.probes)


def test_close(how):
    log = []
    coroutine = how.function(steps)(2, log)
    coroutine.send(None)
    assert coroutine.close() is None and log == ["end"]
    assert coroutine.close() is None

    async def stays():
        try:
            await pause(1)
        except GeneratorExit:
            await pause(2)

    coroutine = how.function(stays)()
    coroutine.send(None)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        coroutine.close()
    if how.hooked:
        for probe in how.probes:
            assert probe.halves[:2] == ["enter", "leave"] and probe.events[1].result == ()


def test_never_awaited(how):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        how.function(steps)(1)
        gc.collect()
    assert ["coroutine 'steps' was never awaited" in str(warning.message) for warning in caught] == [True]
    if how.hooked:
        assert all(probe.halves == ["enter", "leave"] for probe in how.probes)


def test_dropped_while_suspended(how):
    log = []
    coroutine = how.function(steps)(2, log)
    coroutine.send(None)
    del coroutine
    gc.collect()
    assert log == ["end"]

    holder = []
    coroutine = how.function(steps)(2, holder)
    holder.append(coroutine)  # a cycle
    coroutine.send(None)
    ref = weakref.ref(coroutine)
    del coroutine, holder
    for probe in how.probes if how.hooked else ():
        assert probe.halves == ["enter", "leave", "enter"]
        probe.events.clear()  # they hold the arguments
    gc.collect()
    assert ref() is None
    for probe in how.probes if how.hooked else ():
        assert probe.halves == ["leave"] and probe.events[0].result == ()


def test_running_coroutine_refuses(how):
    async def selfish():
        with pytest.raises(ValueError, match="already executing"):
            box[0].send(None)
        with pytest.raises(ValueError, match="already executing"):
            box[0].throw(KeyError())
        return "fine"

    box = [how.function(selfish)()]
    with pytest.raises(StopIteration) as caught:
        box[0].send(None)
    assert caught.value.value == "fine"
    if how.hooked:
        for probe in how.probes:
            assert probe.halves == ["enter", "leave"] and probe.events[1].result == ("fine",)


def test_awaited_twice(how):
    async def outer():
        coroutine = how.function(steps)(0)
        await coroutine
        with pytest.raises(RuntimeError, match="cannot reuse already awaited"):
            await coroutine

        coroutine = how.function(steps)(1)
        coroutine.send(None)
        with pytest.raises(RuntimeError, match="is being awaited already"):
            await coroutine
        coroutine.close()

    asyncio.run(outer())


def test_call_that_fails_at_once(how):
    with pytest.raises(TypeError, match="missing 1 required"):
        how.function(steps)()
    if how.hooked:
        assert all(probe.halves == ["enter", "leave"] for probe in how.probes)


def test_tasks(how):
    async def work(n):
        await asyncio.sleep(0)
        if n == 3:
            await asyncio.Event().wait()
        return n

    async def main():
        hooked = how.function(work)
        task = asyncio.create_task(hooked(3), name="three")
        done = await asyncio.gather(*[hooked(n) for n in range(3)], asyncio.wait_for(hooked(5), 20))
        assert "work" in repr(task.get_coro()) and "work" in repr(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return done

    assert asyncio.run(main(), debug=True) == [0, 1, 2, 5]
    if how.hooked:
        for probe in how.probes:
            leaves = {event.args[0]: event.result for event in probe.events if event.half == "leave"}
            assert leaves == {0: (0,), 1: (1,), 2: (2,), 3: (), 5: (5,)}


def test_origin_tracking(how):
    sys.set_coroutine_origin_tracking_depth(2)
    try:
        coroutine = how.function(steps)(1)
        assert coroutine.cr_origin[0][2] == "test_origin_tracking"
        coroutine.close()
    finally:
        sys.set_coroutine_origin_tracking_depth(0)


def test_generators_end_when_they_are_returned(how):
    def generator(n):
        yield from range(n)

    async def agenerator(n):
        for i in range(n):
            yield i

    assert inspect.isgeneratorfunction(how.function(generator)) and list(how.function(generator)(3)) == [0, 1, 2]

    async def collect():
        return [i async for i in how.function(agenerator)(3)]

    assert inspect.isasyncgenfunction(how.function(agenerator)) and asyncio.run(collect()) == [0, 1, 2]
    made = how.function(generator)(1)
    assert type(made) is types.GeneratorType
    if how.hooked and how.probes:
        assert how.probes[0].events[-1].half == "leave" and how.probes[0].events[-1].result == (made,)


def test_async_context_manager(how):
    class Manager:
        async def __aenter__(self):
            await asyncio.sleep(0)
            return "in"

        async def __aexit__(self, kind, value, traceback):
            await asyncio.sleep(0)
            return kind is KeyError

    how.place(Manager, "__aenter__", "__aexit__")

    async def main():
        async with Manager() as value:
            assert value == "in"
            raise KeyError
        return "after"

    assert asyncio.run(main()) == "after"


# ---- only hooked ----


def test_times_cover_the_awaiting():
    probe = Probe(0)

    async def main():
        middle = []

        async def function(x, *, y):
            await asyncio.sleep(0)
            middle.append(pm.clock())
            return "r"

        coroutine = pm.wrap(function, 0)(1, y=2)
        assert probe.halves == ["enter"]
        assert await coroutine == "r"
        return middle[0]

    middle = asyncio.run(main())
    leave = probe.events[1]
    assert leave.args == (1, 2) and leave.nargs == 1 and leave.kwnames == ("y",) and leave.result == ("r",)
    assert leave.enter_ns <= leave.start_ns <= middle <= leave.end_ns


def test_arguments_are_held_until_the_end_and_no_longer():
    class Thing:
        pass

    async def function(thing):
        del thing
        await pause(1)

    Probe(0, keep=False)
    thing = Thing()
    ref = weakref.ref(thing)
    coroutine = pm.wrap(function, 0)(thing)
    del thing
    coroutine.send(None)
    assert ref() is not None
    with pytest.raises(StopIteration):
        coroutine.send(None)
    assert ref() is None


def test_outermost_of_interleaved_tasks():
    probe = Probe(0, outermost=True)

    async def inner(n):
        await asyncio.sleep(0)
        return n

    hooked_inner = pm.wrap(inner, 0)

    async def outer(n):
        await asyncio.sleep(0)
        got = await hooked_inner(n)  # nested: not seen
        await asyncio.sleep(0)
        return got

    hooked = pm.wrap(outer, 0)

    async def main():
        await asyncio.gather(hooked("a"), hooked("b"), hooked("c"))
        await hooked_inner("d")

    asyncio.run(main())
    assert sorted(event.args[0] for event in probe.events if event.half == "leave") == ["a", "b", "c", "d"]


def test_faults_and_interrupts():
    def fail():
        raise ValueError

    probe = Probe(0, leave=fail)
    assert asyncio.run(pm.wrap(steps, 0)(0)) == [] and probe.faults == 1

    def interrupt():
        raise KeyboardInterrupt

    Probe(0, leave=interrupt)
    with pytest.raises(KeyboardInterrupt):
        pm.wrap(steps, 0)(0).send(None)
    Probe(0, enter=interrupt)
    with pytest.raises(KeyboardInterrupt):
        pm.wrap(steps, 0)(0)


def test_somebodys_wrapper_of_a_coroutine_function():
    """Its __code__ says coroutine, and it may return anything."""
    class Wrapper:
        def __init__(self, function):
            self.function = function
            self.__code__ = function.__code__

        def __call__(self, plain):
            return "plain" if plain else self.function(0)

    probe = Probe(0)
    hooked = pm.wrap(Wrapper(steps), 0)
    assert hooked(True) == "plain" and probe.halves == ["enter", "leave"]
    coroutine = hooked(False)
    assert len(probe.events) == 3 and asyncio.run(coroutine) == [] and len(probe.events) == 4


def test_no_leak():
    Probe(0, keep=False)
    hooked = pm.wrap(steps, 0)
    sentinel = []

    def once():
        for ending in ("run", "close", "throw", "drop"):
            coroutine = hooked(1, sentinel)
            coroutine.send(None)
            if ending == "run":
                with pytest.raises(StopIteration):
                    coroutine.send(None)
            elif ending == "close":
                coroutine.close()
            elif ending == "throw":
                with pytest.raises(KeyError):
                    coroutine.throw(KeyError())
            del coroutine
        sentinel.clear()

    once()
    gc.collect()
    count, objects = sys.getrefcount(sentinel), len(gc.get_objects())
    for _ in range(100):
        once()
    gc.collect()
    assert sys.getrefcount(sentinel) == count and len(gc.get_objects()) - objects < 100
