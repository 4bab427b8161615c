"""The guard: whatever the halves do, and whatever happens during a call, the program sees what it would see without
hooks; and the counts are right."""

import gc
import os
import signal
import subprocess
import sys
import threading
import traceback
import tracemalloc

import pytest

from wrapping import Probe, how, pm, recorder, wrap_in  # noqa: F401


def boom(kind=ValueError):
    def raising(*args):
        raise kind("from a half")

    return raising


def plain(*args, **kwargs):
    return args, kwargs


# ---- exceptions of the program ----


class Odd(BaseException):
    pass


KINDS = [ValueError, KeyError, StopIteration, StopAsyncIteration, GeneratorExit, SystemExit, KeyboardInterrupt,
         RecursionError, MemoryError, Odd]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_exceptions_pass_exactly(how, kind):
    raised = kind("mine")
    cause, context = OSError("cause"), LookupError("context")

    def inner():
        raise raised from cause

    def function():
        try:
            raise context
        except LookupError:
            inner()

    hooked = how.function(function)
    with pytest.raises(kind) as caught:
        hooked()
    assert caught.value is raised and raised.args == ("mine",)
    assert raised.__cause__ is cause and raised.__context__ is context and raised.__suppress_context__
    frames = [frame.name for frame in traceback.extract_tb(raised.__traceback__)]
    assert frames[-2:] == ["function", "inner"] and frames.count("function") == 1
    assert sys.exc_info() == (None, None, None)
    if how.hooked:
        for probe in how.probes:
            assert probe.halves == ["enter", "leave"] and probe.events[1].result == ()


def test_exception_from_c_code(how):
    """Raised without an instance being made, as C code does."""
    hooked = how.function(int)  if not how.hooked else how.function(lambda text: int(text))
    with pytest.raises(ValueError, match="invalid literal"):
        hooked("x")
    with pytest.raises(TypeError):
        how.function([].append)()


def test_handled_exception_stays_current(how):
    """A half that raises and drops exceptions of its own leaves sys.exc_info() as it was."""
    def noisy():
        try:
            raise OSError
        except OSError:
            pass

    Probe(8, enter=noisy, leave=noisy)
    hooked = how.function(lambda: sys.exc_info()[1])
    if how.hooked:
        pm.add(hooked, 8)
    outer = ValueError("outer")
    try:
        raise outer
    except ValueError:
        assert hooked() is outer and sys.exc_info()[1] is outer
        with pytest.raises(ZeroDivisionError) as caught:
            how.function(lambda: 1 // 0)()
        assert caught.value.__context__ is outer


def test_raise_while_a_half_raises_too():
    probe = Probe(0, leave=boom())

    def function():
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine") as caught:
        pm.wrap(function, 0)()
    assert caught.value.__context__ is None and probe.faults == 1


# ---- faults of ours ----


@pytest.mark.parametrize("half", ["enter", "leave"])
def test_a_fault_is_discarded_and_counted(half, recorder, capfd):
    faults_before = pm.head()[0]
    probe = Probe(0, **{half: boom()})
    other = Probe(1)
    hooked = pm.wrap(plain, 0, 1)
    for i in range(5):
        assert hooked(i, k=i) == ((i,), {"k": i})
    assert probe.faults == 5 and pm.head()[0] - faults_before == 5 and probe.armed
    assert probe.halves.count("leave") == (0 if half == "enter" else 5)
    assert len(other.events) == 10 and other.faults == 0
    assert not recorder and capfd.readouterr() == ("", "")


def test_over_budget_disarms(recorder):
    probe, other = Probe(0, leave=boom(KeyError)), Probe(1)
    hooked = pm.wrap(plain, 0, 1)
    second = pm.wrap(plain, 0)
    for i in range(40):
        assert hooked(i) == ((i,), {})
    assert not probe.armed and probe.faults == 16
    assert len(probe.events) == 32 and len(other.events) == 80
    second()
    assert len(probe.events) == 32
    assert recorder == [("probe.probe0", "disarmed: 16 faults, the last one KeyError in leave of test_wrapper:probe0")]
    pm.attach(False)
    pm.attach(True)
    assert len(recorder) == 2 and recorder[0] == recorder[1]  # a new recorder is told too
    pm.disarm(0, "again")
    assert len(recorder) == 2


def test_disarmed_by_hand(recorder):
    probe = Probe(0)
    hooked = pm.wrap(plain, 0)
    pm.disarm(0, "switched off")
    assert hooked(1) == ((1,), {}) and not probe.events
    assert ("probe.probe0", "disarmed: switched off") in recorder


def test_disarmed_within_a_call():
    """Its leave is skipped at once."""
    probe = Probe(0)
    pm.wrap(lambda: pm.disarm(0, "now"), 0)()
    assert probe.halves == ["enter"]


def test_message_of_a_fault_stays_out(recorder):
    """The text of an exception may hold the program's data."""
    def secret():
        raise ValueError("prompt text")

    Probe(0, enter=secret)
    hooked = pm.wrap(plain, 0)
    for _ in range(20):
        hooked()
    assert len(recorder) == 1 and "prompt" not in str(recorder)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_hostile_exception_of_a_half():
    class Awkward(Exception):
        def __init__(self, *args):
            raise RuntimeError("no instance")

        def __del__(self):
            raise RuntimeError("and no end")

    class Meta(type):
        @property
        def __name__(cls):
            raise RuntimeError("no name")

    class Nameless(Exception, metaclass=Meta):
        pass

    def awkward():
        raise Awkward

    def nameless():
        raise Nameless

    for do in (awkward, nameless):
        probe = Probe(0, leave=do)
        hooked = pm.wrap(plain, 0)
        for i in range(20):
            assert hooked(i) == ((i,), {})
        assert not probe.armed


# ---- interrupts that come while a half runs ----


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):  # the handler runs between two bytecodes of this
        pass


@pytest.mark.parametrize("half", ["enter", "leave"])
def test_ctrl_c_within_a_half_reaches_the_program(half):
    called = []
    probe, other = Probe(0, **{half: interrupt}), Probe(1)
    hooked = pm.wrap(lambda: called.append(1), 0, 1)
    with pytest.raises(KeyboardInterrupt):
        hooked()
    assert called == ([] if half == "enter" else [1])
    assert probe.faults == 0 and probe.armed
    assert other.halves == ["enter", "leave"]
    probe.do_enter = probe.do_leave = None
    hooked()  # nothing lingers


def test_system_exit_keeps_its_code_and_context():
    def handler(*args):
        raise SystemExit(42)

    old = signal.signal(signal.SIGINT, handler)
    try:
        Probe(0, leave=interrupt)
        with pytest.raises(SystemExit) as caught:
            pm.wrap(lambda: 1, 0)()
        assert caught.value.code == 42
        with pytest.raises(SystemExit) as caught:
            pm.wrap(lambda: 1 // 0, 0)()
        assert caught.value.code == 42 and isinstance(caught.value.__context__, ZeroDivisionError)
    finally:
        signal.signal(signal.SIGINT, old)


def test_ctrl_c_within_a_read():
    """A property that a half reads runs bytecode, and with it the signal's handler."""
    class Thing:
        @property
        def value(self):
            interrupt()
            return 1

    probe = Probe(0, leave=lambda: pm.read("u64", Thing(), "value") and None)
    with pytest.raises(KeyboardInterrupt):
        pm.wrap(plain, 0)()
    assert probe.faults == 0


def test_ctrl_c_within_a_read_outside_of_hooks():
    class Thing:
        @property
        def value(self):
            interrupt()
            return 1

    with pytest.raises(KeyboardInterrupt):
        assert pm.read("u64", Thing(), "value") is None
        for _ in range(1000):
            pass


def test_ctrl_c_while_muted():
    class Thing:
        @property
        def value(self):
            interrupt()

    with pytest.raises(KeyboardInterrupt):
        pm.mute(True)
        try:
            assert pm.read("attr", Thing(), "value") is None
        finally:
            pm.mute(False)
        for _ in range(1000):
            pass


def test_ctrl_c_within_the_original(how):
    hooked = how.function(interrupt)
    with pytest.raises(KeyboardInterrupt):
        hooked()


# ---- re-entrancy ----


def test_halves_do_not_see_their_own_calls():
    inner = Probe(1)
    hooked_inner = pm.wrap(plain, 1)
    probe = Probe(0, enter=lambda: hooked_inner() and None, leave=lambda: hooked(2) and None)
    hooked = pm.wrap(plain, 0)
    assert hooked(1) == ((1,), {})
    assert probe.halves == ["enter", "leave"] and inner.events == []
    hooked_inner()
    assert inner.halves == ["enter", "leave"]


def test_recursion_is_seen_unless_outermost():
    for outermost, want in ((False, 5), (True, 1)):
        probe = Probe(0, outermost=outermost)

        def function(n):
            return hooked(n - 1) + 1 if n else 0

        hooked = pm.wrap(function, 0)
        assert hooked(4) == 4 and len(probe.events) == 2 * want
        assert probe.events[0].args == (4,) and probe.events[-1].result == (4,)
        assert hooked(4) == 4 and len(probe.events) == 4 * want  # the group was given back


def test_override_and_super_are_one_call():
    class A:
        def run(self):
            return ["A"]

    class B(A):
        def run(self):
            return ["B", *super().run()]

    probe = Probe(0, outermost=True)
    wrap_in(A, "run", 0)
    wrap_in(B, "run", 0)
    assert B().run() == ["B", "A"] and probe.halves == ["enter", "leave"] and probe.events[1].result == (["B", "A"],)
    assert A().run() == ["A"] and len(probe.events) == 4


def test_outermost_ends_with_an_exception():
    probe = Probe(0, outermost=True)

    def function():
        raise KeyError

    hooked = pm.wrap(function, 0)
    for i in range(3):
        with pytest.raises(KeyError):
            hooked()
    assert probe.halves == ["enter", "leave"] * 3
    failing = Probe(1, outermost=True, enter=boom())
    hooked = pm.wrap(plain, 1)
    hooked(), hooked()
    assert failing.halves == ["enter", "enter"]


def test_outermost_and_other_threads():
    probe = Probe(0, outermost=True)
    inside, go = threading.Event(), threading.Event()

    def function(wait):
        if wait:
            inside.set()
            assert go.wait(180)
        return wait

    hooked = pm.wrap(function, 0)
    thread = threading.Thread(target=hooked, args=(True,))
    thread.start()
    assert inside.wait(180)
    hooked(False)
    assert [event.args for event in probe.events] == [(True,), (False,), (False,)]
    go.set()
    thread.join()
    assert probe.events[-1].args == (True,) and probe.events[-1].result == (True,)


def test_muted():
    probe = Probe(0)
    hooked = pm.wrap(plain, 0)
    pm.mute(True)
    pm.mute(True)
    hooked()
    pm.mute(False)
    hooked()
    pm.mute(False)
    assert probe.events == []
    hooked()
    assert probe.halves == ["enter", "leave"]


# ---- times, scratch, counts ----


def test_times_and_scratch():
    ended = []

    def enter():
        ended.append(pm.clock())
        return 99

    probe, second = Probe(0, enter=lambda: 77), Probe(1, enter=enter)
    lone = Probe(2, with_enter=False)
    before = pm.clock()
    pm.wrap(plain, 0, 1)(1)
    pm.wrap(plain, 2)(1)
    after = pm.clock()
    leave, enter = probe.events[1], probe.events[0]
    assert leave.start_ns >= ended[0]  # our own enters are no part of the call
    assert before <= leave.enter_ns <= leave.start_ns <= leave.end_ns <= after
    assert enter.enter_ns == leave.enter_ns and enter.scratch == 0 and enter.end_ns == 0
    assert leave.scratch == 77 and second.events[1].scratch == 99
    assert second.events[1].start_ns == leave.start_ns and second.events[1].end_ns == leave.end_ns
    assert lone.halves == ["leave"] and lone.events[0].enter_ns == lone.events[0].start_ns <= lone.events[0].end_ns


def test_counts_reach_the_header():
    Probe(0, keep=False)
    hooked = pm.wrap(plain, 0)
    _, calls, ns = pm.head()
    assert pm.counts(hooked) == (0, 0, 1)
    hooked()
    assert pm.head()[1] - calls == 1 and pm.head()[2] == ns  # the first call is told, and not timed
    for _ in range(639):
        hooked()
    assert pm.head()[1] - calls == 640 and pm.counts(hooked)[0] == 640
    assert pm.head()[2] > ns
    assert 0 < pm.counts(hooked)[1] <= pm.clock()


def test_counts_without_a_recorder_are_kept():
    Probe(0, enter=boom())
    faults, calls, _ = pm.head()
    pm.attach(False)
    total = pm.totals()
    hooked = pm.wrap(plain, 0)
    Probe(1)
    pm.add(hooked, 1)
    for _ in range(64):
        hooked()
    assert pm.head()[:2] == (faults, calls)
    assert pm.totals()[:2] == (total[0] + 16, total[1] + 64)
    pm.attach(True)
    assert pm.head()[:2] == (faults + 16, calls + 64)


def test_fired_once_per_target():
    Probe(0), Probe(1)
    hooked, late = pm.wrap(plain, 0), pm.wrap(plain, 0)
    hooked(), hooked()
    assert [n for n, _ in pm.fired] == [0]
    pm.add(hooked, 1)
    hooked(), hooked()
    assert [n for n, _ in pm.fired] == [0, 1]
    late()
    assert [n for n, _ in pm.fired] == [0, 1, 0]  # each place on its own
    assert all(0 < at <= pm.clock() for _, at in pm.fired)


def test_failed_calls_count_and_fire():
    Probe(0)
    hooked = pm.wrap(lambda: 1 // 0, 0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            hooked()
    assert pm.counts(hooked)[0] == 3 and [n for n, _ in pm.fired] == [0]


def test_fork_child_counts_for_itself():
    Probe(0, keep=False)
    hooked = pm.wrap(plain, 0)
    hooked()
    before = pm.head()
    pid = os.fork()
    if pid == 0:
        try:
            good = pm.totals() == (0, 0, 0)
            for _ in range(200):
                hooked()
            good = good and pm.head() == before and pm.totals()[1] > 0
            os._exit(0 if good else 1)
        finally:
            os._exit(2)
    assert os.waitpid(pid, 0)[1] == 0


# ---- interpreter limits ----


def test_recursion_limit(how):
    def function(n):
        return hooked(n + 1)

    hooked = how.function(function)
    with pytest.raises(RecursionError):
        hooked(0)
    for probe in how.probes if how.hooked else ():
        assert probe.halves.count("enter") - probe.halves.count("leave") <= probe.faults + 1
        probe.events.clear()
    assert how.function(plain)(1) == ((1,), {})


def test_many_threads(how):
    done = []

    def work(n):
        total = 0
        for i in range(500):
            total += hooked(i)
            try:
                failing(i)
            except KeyError as error:
                total += error.args[0]
        done.append((n, total))

    def fail(i):
        raise KeyError(i)

    hooked, failing = how.function(lambda i: i), how.function(fail)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    finally:
        sys.setswitchinterval(interval)
    assert sorted(done) == [(n, 2 * sum(range(500))) for n in range(8)]
    if how.hooked and how.probes:
        assert pm.counts(hooked)[0] == pm.counts(failing)[0] == 4000
        events = how.probes[0].events
        assert len(events) == 16000
        assert all(event.start_ns <= event.end_ns for event in events if event.half == "leave")


# ---- leaks ----


def traffic(how):
    class Holder:
        def method(self, *args, **kwargs):
            return args

        @classmethod
        def klass(cls):
            return cls

        @staticmethod
        def static():
            raise KeyError

    how.place(Holder, "method", "klass", "static")
    obj = Holder()
    for i in range(20):
        obj.method(i, [i], key=i)
        obj.method.__name__, Holder.klass(), repr(Holder.method), dir(Holder.method)
        try:
            Holder.static()
        except KeyError:
            pass
    for probe in getattr(how, "probes", ()):
        probe.events.clear()
    pm.fired.clear()


def test_no_reference_leaks(how):
    sentinel = object()
    function = how.function(lambda *args, **kwargs: args)
    count = sys.getrefcount(sentinel)
    for _ in range(200):
        function(sentinel, sentinel, k=sentinel)
        for probe in getattr(how, "probes", ()):
            probe.events.clear()
    assert sys.getrefcount(sentinel) == count
    tracemalloc.start()
    try:
        seen = []
        for _ in range(6):
            for _ in range(100):
                traffic(how)
            gc.collect()
            seen.append((tracemalloc.get_traced_memory()[0], len(gc.get_objects())))
    finally:
        tracemalloc.stop()
    # A leak is there in every stretch; the interpreter's free lists fill and empty in some.
    for what, one_a_round in ((0, 48 * 100), (1, 100)):
        assert min(after[what] - before[what] for before, after in zip(seen, seen[1:])) < one_a_round


def test_faults_and_interrupts_do_not_leak():
    sentinel = object()
    holding = [ValueError, KeyboardInterrupt]

    def fail():
        raise holding[0](sentinel)

    for kind in (ValueError, KeyboardInterrupt):
        holding[0] = kind
        count = sys.getrefcount(sentinel)
        for _ in range(30):
            probe = Probe(0, leave=fail)  # noqa: F841
            hooked = pm.wrap(plain, 0)
            for _ in range(3):
                try:
                    hooked(sentinel)
                except KeyboardInterrupt:
                    pass
        del probe, hooked
        Probe(0)
        gc.collect()
        assert sys.getrefcount(sentinel) == count


def test_interpreter_ends_quietly():
    """Hooks that are still in place, and halves that run, while the interpreter is torn down."""
    code = """
import sys
sys.path.insert(0, %r)
from wrapping import Probe, pm, wrap_in
class Holder:
    def __del__(self):
        pass
    async def later(self):
        pass
probe = Probe(0)
wrap_in(Holder, "__del__", 0)
keep = Holder()
Holder.cycle = keep
wrap_in(Holder, "later", 0)
pm.attach(True)
"""
    here = os.path.dirname(__file__)
    done = subprocess.run([sys.executable, "-X", "dev", "-c", code % here], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_one_interpreter_only():
    """A second interpreter of the process gets no hooks: probes keep objects of the first."""
    code = """
import sys
sys.path.insert(0, %r)
from wrapping import Probe, pm
Probe(0)
pm.wrap(lambda: 1, 0)()
try:
    import _interpreters as interpreters
    make = lambda: interpreters.create("legacy")
except ImportError:
    import _xxsubinterpreters as interpreters
    make = lambda: interpreters.create(isolated=False)
inner = '''
import sys
sys.path.insert(0, %r)
from wrapping import pm
try:
    pm.wrap(lambda: 1)
except RuntimeError as error:
    assert "another interpreter" in str(error)
else:
    raise SystemError
'''
assert not interpreters.run_string(make(), inner)
"""
    here = os.path.dirname(__file__)
    done = subprocess.run([sys.executable, "-c", code % (here, here)], capture_output=True, text=True)
    if "No module named 'pytest'" in done.stderr:
        pytest.skip("pytest cannot be loaded in a second interpreter here")
    assert done.returncode == 0, done.stderr


# ---- calls that a probe counts by the look of the object alone ----


class Graph:
    def replay(self, fail=False):
        if fail:
            raise ValueError("as it came")
        return self


def test_a_quick_call_runs_no_half_and_is_counted(recorder):
    first, second = Graph(), Graph()
    probe = Probe(0)
    pm.expect(0, second)
    hooked = pm.wrap(Graph.__dict__["replay"], 0)
    before = pm.totals()
    for _ in range(64):
        assert hooked(first) is first
        assert hooked(second) is second
    with pytest.raises(ValueError, match="as it came"):
        hooked(second, fail=True)
    with pytest.raises(TypeError):
        hooked()
    assert {event.args[0] for event in probe.events if event.args} == {first}
    assert [event.half for event in probe.events if event.args] == ["enter", "leave"] * 64
    hooked(first)
    assert pm.counts(hooked)[0] == 66  # with the call that lacked its argument; quick ones are apart
    for _ in range(64):
        hooked(first)
    assert pm.totals()[1] - before[1] == 128 + 65  # told at every 64th call that is not quick


def test_another_probe_on_the_callable_sees_every_call(recorder):
    first, second = Graph(), Graph()
    Probe(0)
    pm.expect(0, second)
    hooked = pm.wrap(Graph.__dict__["replay"], 0)
    other = Probe(1)
    pm.add(hooked, 1)
    hooked(first)
    hooked(second)
    assert [event.args[0] for event in other.events if event.half == "leave"] == [first, second]
    pm.remove(hooked, 1)
    del other.events[:]
    hooked(second)
    assert other.events == []
