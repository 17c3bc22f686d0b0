"""Whatever is watched, hastened and forgotten, each look comes when it is due, and the heap stays small."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from streamgate.sse.clocks import NEVER, Clocks, Watch
from tests.unit.sse.test_clocks import Bench

DELAYS = st.one_of(st.integers(-50, 3000).map(lambda milliseconds: milliseconds / 1000), st.just(NEVER))
RING = 0.001  # the timer is this late on purpose


class Looked:
    """Something watched that knows when it ought to be looked at."""

    def __init__(self, bench: Bench, due: float, answers: list[float]) -> None:
        self.bench = bench
        self.due = due
        self.answers = answers
        self.watch: Watch | None = None
        self.watched_since = bench.now
        self.forgotten = False

    def look(self, now: float) -> float:
        assert not self.forgotten
        assert now >= self.due, "early"
        assert now <= max(self.due, self.watched_since) + 2 * RING + 1e-6, "late"
        delay = self.answers.pop() if self.answers else NEVER
        # What is due at once again is looked at after a millisecond.
        self.due = max(now + delay, now + RING)
        return now + delay


class Watching(RuleBasedStateMachine):
    """Many things and one timer, on a bench whose time the test moves."""

    things = Bundle("things")

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.patched = patch("streamgate.sse.clocks.time", self.bench)
        self.patched.start()
        self.clocks = Clocks(self.bench)  # type: ignore[arg-type]
        self.alive: list[Looked] = []

    def teardown(self) -> None:
        for thing in self.alive:
            assert thing.watch is not None
            thing.watch.forget()
        self.bench.advance(10000)
        assert len(self.clocks) == 0 and not self.bench.running
        self.patched.stop()

    @rule(target=things, delay=DELAYS, answers=st.lists(DELAYS, max_size=5))
    def watch(self, delay: float, answers: list[float]) -> Looked:
        thing = Looked(self.bench, self.bench.now + delay, answers)
        thing.watch = self.clocks.watch(thing, thing.due)
        self.alive.append(thing)
        return thing

    @rule(thing=things, delay=DELAYS)
    def hasten(self, thing: Looked, delay: float) -> None:
        assert thing.watch is not None
        thing.watch.hasten(self.bench.now + delay)
        if self.bench.now + delay < thing.due:
            thing.due, thing.watched_since = self.bench.now + delay, self.bench.now

    @rule(thing=consumes(things))
    def forget(self, thing: Looked) -> None:
        assert thing.watch is not None
        thing.watch.forget()
        thing.forgotten = True
        self.alive.remove(thing)
        assert len(self.clocks) <= 64 + 2 * len(self.alive)

    @rule(seconds=st.integers(0, 2000).map(lambda milliseconds: milliseconds / 1000))
    def wait(self, seconds: float) -> None:
        self.bench.advance(seconds)

    @invariant()
    def nothing_is_overdue(self) -> None:
        """Everything that was due has been looked at, and one timer at the most is running."""
        for thing in self.alive:
            assert self.bench.now <= max(thing.due, thing.watched_since) + 2 * RING + 1e-6
        assert len(self.bench.running) <= 1
        due = [thing for thing in self.alive if thing.due < NEVER]
        assert not due or self.bench.running, "somebody waits and nobody will ring"


TestWatching = Watching.TestCase
TestWatching.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
