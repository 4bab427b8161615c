"""What the tests of function tracing run, under the tracer and under an oracle in pure Python: calls of every kind."""

import asyncio
import contextlib
import threading


def leaf(x):
    return x


def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def even(n):
    return True if n == 0 else odd(n - 1)


def odd(n):
    return False if n == 0 else even(n - 1)


def deep(n):
    return leaf(n) if n == 0 else deep(n - 1)


# ---- exceptions


def raises(depth):
    if depth == 0:
        raise ValueError("no")
    try:
        raises(depth - 1)
    finally:
        leaf(depth)


def swallows():
    for depth in range(3):
        try:
            raises(depth)
        except ValueError:
            leaf(0)


# ---- generators


def numbers(n):
    for i in range(n):
        yield i


def delegates(n):
    yield from numbers(n)
    got = yield n
    return got


def cleans():
    try:
        while True:
            yield leaf(1)
    finally:
        leaf(2)


def catches():
    while True:
        try:
            yield 1
        except KeyError:
            yield 2


def fails():
    yield 1
    raise LookupError


def generators():
    assert list(numbers(4)) == [0, 1, 2, 3]
    one = delegates(2)
    assert [next(one), next(one), next(one)] == [0, 1, 2]
    try:
        one.send("x")
    except StopIteration as stop:
        assert stop.value == "x"
    two = cleans()
    next(two)
    next(two)
    two.close()
    three = catches()
    next(three)
    assert three.throw(KeyError) == 2
    three.close()
    try:
        list(fails())
    except LookupError:
        pass
    inner = [leaf(i) for i in range(3)]
    assert sum(leaf(i) for i in inner) == 3
    # two of them, in turns
    assert list(zip(numbers(3), cleans())) == [(0, 1), (1, 1), (2, 1)]


def dropped():
    never = numbers(3)
    del never
    half = numbers(3)
    next(half)
    del half
    fresh = catches()
    try:
        fresh.throw(TypeError)
    except TypeError:
        pass


# ---- coroutines


@contextlib.asynccontextmanager
async def managed():
    await asyncio.sleep(0)
    yield leaf(1)
    await asyncio.sleep(0)


async def counts(n):
    for i in range(n):
        await asyncio.sleep(0)
        yield i


async def works(n):
    total = 0
    async with managed() as one:
        async for i in counts(n):
            total += leaf(i) + one
    return total


async def cancelled():
    try:
        await asyncio.Event().wait()
    finally:
        leaf(9)


async def breaks():
    await asyncio.sleep(0)
    raises(1)


async def coroutines():
    assert await asyncio.gather(works(3), works(2)) == [6, 3]
    task = asyncio.ensure_future(cancelled())
    await asyncio.sleep(0)
    task.cancel()
    results = await asyncio.gather(task, breaks(), return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["CancelledError", "ValueError"]


# ---- classes


class Thing:
    limit = (lambda: 3)()

    def __init__(self):
        self.n = 0

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        leaf(self.n)

    @property
    def value(self):
        return leaf(self.n)

    @staticmethod
    def static(n):
        return n

    @classmethod
    def of_class(cls, n):
        return cls.static(n)

    def __del__(self):
        leaf(0)

    class Inner:
        def method(self):
            def nested():
                return leaf(1)

            return nested() + (lambda: leaf(2))()


def classes():
    with Thing() as thing:
        thing.n = 2
        assert thing.value == 2 and Thing.of_class(4) == 4 and Thing.Inner().method() == 3
    del thing
    assert sorted([3, 1, 2], key=lambda n: -n) == [3, 2, 1]
    space = {"__name__": __name__, "leaf": leaf}
    exec("def made(n):\n    return leaf(n)\nmade(1)", space)


def in_threads():
    threads = [threading.Thread(target=fib, args=(n,), name=f"fib-{n}") for n in (5, 6, 7)]
    for thread in threads:
        thread.start()
        thread.join()


def everything(threads=True):
    fib(9)
    even(7)
    deep(200)
    swallows()
    generators()
    dropped()
    asyncio.run(coroutines())
    classes()
    if threads:
        in_threads()
