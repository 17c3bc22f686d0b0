"""One heap, one timer: what is watched is looked at when it is due, and what is forgotten is gone at once."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from streamgate.sse.clocks import NEVER, Clocks, clocks_of


class Timer:
    """One `call_later` of the bench."""

    def __init__(self, due: float, callback: Callable[[], None]) -> None:
        self.due = due
        self.callback = callback
        self.over = False  # fired or cancelled

    def cancel(self) -> None:
        self.over = True


class Bench:
    """Time that the test moves, and a loop whose timers fire when it does."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.timers: list[Timer] = []

    def monotonic(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None], context: object = None) -> Timer:
        assert delay >= 0
        self.timers.append(Timer(self.now + delay, callback))
        return self.timers[-1]

    @property
    def running(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.over]

    def advance(self, seconds: float) -> None:
        """Move time on, and stop at each timer on the way."""
        end = self.now + seconds
        while due := [timer for timer in self.running if timer.due <= end]:
            first = min(due, key=lambda timer: timer.due)
            self.now = max(self.now, first.due)
            first.over = True
            first.callback()
        self.now = end


class Thing:
    """Something watched: notes when it was looked at, and answers with the next of `answers`."""

    def __init__(self, bench: Bench, *answers: float) -> None:
        self.bench = bench
        self.looks: list[float] = []
        self.answers = list(answers)

    def look(self, now: float) -> float:
        self.looks.append(round(now - 1000, 3))
        return 1000 + self.answers.pop(0) if self.answers else NEVER


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench()
    monkeypatch.setattr("streamgate.sse.clocks.time", bench)
    return bench


@pytest.fixture
def clocks(bench: Bench) -> Clocks:
    return Clocks(bench)  # type: ignore[arg-type]


def test_a_thing_is_looked_at_when_it_asked_to_be(bench: Bench, clocks: Clocks) -> None:
    """At the time given, then at each time it answers with, a millisecond late, until it says never."""
    thing = Thing(bench, 5, 7)
    clocks.watch(thing, 1002)
    bench.advance(1.9)
    assert thing.looks == []
    bench.advance(100)
    assert thing.looks == [2.001, 5.001, 7.001]
    assert not bench.running
    assert len(clocks) == 0


def test_there_is_one_timer_for_all(bench: Bench, clocks: Clocks) -> None:
    """However many things are watched, and whichever is due first, one timer is running."""
    things = [Thing(bench) for _ in range(50)]
    for number, thing in enumerate(things):
        clocks.watch(thing, 1000 + (number * 7) % 50 + 1)
        assert len(bench.running) == 1
    bench.advance(10)
    assert sum(bool(thing.looks) for thing in things) == 9, "due at 1 to 9, and 10.001 has not come"
    assert len(bench.running) == 1
    bench.advance(50)
    assert all(len(thing.looks) == 1 for thing in things)
    assert not bench.running


def test_what_is_due_together_is_looked_at_together(bench: Bench, clocks: Clocks) -> None:
    """One ring serves all that are overdue, in the order of their deadlines."""
    order: list[str] = []

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        def look(self, now: float) -> float:
            order.append(self.name)
            return NEVER

    for name, due in (("c", 1003), ("a", 1001), ("b", 1002)):
        clocks.watch(Named(name), due)
    bench.now = 1010  # the loop was busy
    bench.running[0].over = True
    clocks._ring()
    assert order == ["a", "b", "c"]
    assert not bench.running


def test_a_deadline_in_the_past_is_looked_at_soon_and_not_at_once(bench: Bench, clocks: Clocks) -> None:
    """Watching calls nothing by itself: the caller may not be ready yet."""
    thing = Thing(bench)
    clocks.watch(thing, 990)
    assert thing.looks == []
    bench.advance(0.001)
    assert thing.looks == [0.001]


def test_a_look_that_is_due_again_at_once_lets_the_loop_turn(bench: Bench, clocks: Clocks) -> None:
    """Answering with the past is looked at once a millisecond, and never spins."""
    thing = Thing(bench, *[-5.0] * 100)
    clocks.watch(thing, 1001)
    bench.advance(1.0105)
    assert 3 <= len(thing.looks) <= 10


def test_never_takes_no_room(bench: Bench, clocks: Clocks) -> None:
    """A thing without a deadline is not in the heap until it has one."""
    thing = Thing(bench)
    watch = clocks.watch(thing, NEVER)
    assert len(clocks) == 0
    assert not bench.running
    watch.hasten(1001)
    bench.advance(2)
    assert thing.looks == [1.001]


def test_hasten_brings_a_look_forward(bench: Bench, clocks: Clocks) -> None:
    """The look comes at the earlier time; what was set before does not make a second one."""
    thing = Thing(bench)
    watch = clocks.watch(thing, 1010)
    watch.hasten(1002)
    assert watch.due == 1002
    assert len(bench.running) == 1
    bench.advance(20)
    assert thing.looks == [2.001]
    assert len(clocks) == 0


def test_hasten_to_a_later_time_is_ignored(bench: Bench, clocks: Clocks) -> None:
    """The look at the earlier time asks when to come again."""
    thing = Thing(bench, 10)
    watch = clocks.watch(thing, 1002)
    watch.hasten(1010)
    assert watch.due == 1002
    bench.advance(20)
    assert thing.looks == [2.001, 10.001]


def test_the_answer_of_a_look_stands_over_what_it_hastened(bench: Bench, clocks: Clocks) -> None:
    """Whatever is said to the watch inside `look`, the time that `look` returns is the time."""
    bench_looks: list[float] = []

    class Hasty:
        def look(self, now: float) -> float:
            bench_looks.append(round(now - 1000, 3))
            watch.hasten(1000.5)
            watch.hasten(1020)
            return 1005 if len(bench_looks) == 1 else NEVER

    watch = clocks.watch(Hasty(), 1001)
    bench.advance(30)
    assert bench_looks == [1.001, 5.001]


def test_what_is_forgotten_is_let_go_at_once(bench: Bench, clocks: Clocks) -> None:
    """No reference outlives `forget`, however far the deadline is and without the garbage collector."""
    thing = Thing(bench)
    gone = weakref.ref(thing)
    watch = clocks.watch(thing, 9999)
    del thing
    assert gone() is not None
    watch.forget()
    assert gone() is None
    watch.forget()
    watch.hasten(1001)
    bench.advance(10000)
    assert len(clocks) == 0


def test_a_thing_may_forget_itself_while_it_is_looked_at(bench: Bench, clocks: Clocks) -> None:
    """It is not looked at again, whatever it answered."""

    class Leaving(Thing):
        def look(self, now: float) -> float:
            watch.forget()
            return super().look(now)

    thing = Leaving(bench, 5)
    watch = clocks.watch(thing, 1001)
    bench.advance(20)
    assert thing.looks == [1.001]
    assert len(clocks) == 0


def test_shells_are_swept(bench: Bench, clocks: Clocks) -> None:
    """2,000 short streams with far deadlines leave no 2,000 entries behind."""
    staying = Thing(bench)
    clocks.watch(staying, 1060)
    largest = 0
    for _ in range(2000):
        watch = clocks.watch(Thing(bench), 1120)
        watch.hasten(1060)
        watch.forget()
        largest = max(largest, len(clocks))
    assert largest <= 200
    bench.advance(70)
    assert staying.looks == [60.001]


def test_sweeping_spares_the_living(bench: Bench, clocks: Clocks) -> None:
    """Every other of 400 is forgotten, and each of the rest is still looked at exactly once."""
    things = [Thing(bench) for _ in range(400)]
    watches = [clocks.watch(thing, 1001 + number) for number, thing in enumerate(things)]
    for watch in watches[:-2:2] + watches[1:200:2]:
        watch.forget()
    assert len(clocks) < 400
    bench.advance(500)
    looked = [number for number, thing in enumerate(things) if thing.looks]
    assert looked == [*range(201, 398, 2), 398, 399]
    assert all(len(thing.looks) <= 1 for thing in things)


@pytest.mark.anyio
async def test_on_a_real_loop_a_look_is_never_early() -> None:
    """On either event loop, at most once per deadline and after it: an early look would be repeated."""
    looked: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    class Once:
        looks = 0

        def look(self, now: float) -> float:
            self.looks += 1
            looked.set_result(now)
            return NEVER

    loop = asyncio.get_running_loop()
    clocks = clocks_of(loop)
    once = Once()
    watch = clocks.watch(once, due := time.monotonic() + 0.03)
    assert due <= await asyncio.wait_for(looked, 5) < due + 1
    assert once.looks == 1
    watch.forget()


@pytest.mark.anyio
async def test_each_loop_has_its_clocks() -> None:
    """The same loop gives the same clocks, another loop others, and clocks made without one belong to the running."""
    loop: Any = asyncio.get_running_loop()
    assert clocks_of(loop) is clocks_of(loop)
    assert Clocks()._loop is loop

    class Other:
        pass

    assert clocks_of(Other()) is not clocks_of(loop)  # type: ignore[arg-type]
