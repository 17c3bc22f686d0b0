"""What a refused client is told: is it true?"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from itertools import count

import pytest
from admission_log import median_error, told
from ledgers import FAST_AND_SLOW, Played, claim, gateway, streams

from streamgate.admission.claim import Claim, Level
from streamgate.admission.estimate import UNKNOWN, Pace
from streamgate.admission.ledger import Changed
from streamgate.admission.ticket import Note, State
from streamgate.errors import Reason

Times = Callable[[random.Random], float]


def even(choose: random.Random) -> float:
    return choose.uniform(0.5, 1.5)


def at_random(choose: random.Random) -> float:
    return choose.expovariate(1.0)


def with_long_ones(choose: random.Random) -> float:
    return choose.lognormvariate(-0.5, 1.0)


class Overload:
    """Arrivals at random, at so many times what the slots can serve, by five tenants and two classes; virtual time."""

    def __init__(
        self, lasts: Times, *, over: float = 5.0, slots: int = 20, queue: int = 50, leavers: float = 0.0
    ) -> None:
        self.play = Played(queue=queue, max_wait=10.0, priorities=FAST_AND_SLOW)
        self.play.ledger.log = []
        self.choose = random.Random(5)
        self.lasts, self.over, self.slots, self.leavers = lasts, over, slots, leavers
        self.claims = [
            claim(gateway(slots), tenant=name, priority=each.name) for name in "abcde" for each in FAST_AND_SLOW
        ]
        self.numbers = count()
        self.events: list[tuple[float, int, Callable[[], Changed]]] = []

    def later(self, seconds: float, do: Callable[[], Changed]) -> None:
        heapq.heappush(self.events, (self.play.now + seconds, next(self.numbers), do))

    def run(self, seconds: float) -> list[Note]:
        ledger = self.play.ledger
        self.later(0.0, lambda: self.arrive(seconds))
        while self.events:
            self.play.now, _, do = heapq.heappop(self.events)
            for ticket in do():
                if ticket.state is State.HELD:
                    self.later(self.lasts(self.choose), lambda ticket=ticket: ledger.leave(ticket, self.play.now))
            assert ledger.taken <= self.slots and ledger.waiting <= ledger.queue.settings.queue
        assert self.play.empty() and ledger.log is not None
        return ledger.log

    def arrive(self, until: float) -> Changed:
        ledger = self.play.ledger
        if self.play.now < until:
            self.later(self.choose.expovariate(self.over * self.slots), lambda: self.arrive(until))
        ticket = self.play.arrive(self.choose.choice(self.claims))
        if ticket.state is State.WAITING:
            self.later(10.0, lambda: ledger.expire(ticket, self.play.now))
            if self.choose.random() < self.leavers:
                patience = self.choose.uniform(0, 3)
                self.later(
                    patience, lambda: (ticket.state is State.WAITING and ledger.withdraw(ticket, self.play.now)) or ()
                )
        return [ticket, *self.play.changed]


@pytest.mark.parametrize(
    "lasts, bar",
    [(even, 0.15), (at_random, 0.25), (with_long_ones, 0.25)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_under_steady_overload_the_said_wait_is_true(lasts: Times, bar: float) -> None:
    """At five times the load the median error is at most a quarter of the wait."""
    log = Overload(lasts).run(90)
    refused = told(log, since=10, until=80)
    assert len(refused) > 4000
    assert median_error(log, since=10, until=80) <= bar


def test_it_stays_true_when_some_leave_the_queue() -> None:
    """A tenth of those who wait lose patience."""
    assert median_error(Overload(even, leavers=0.1).run(90), since=10, until=80) <= 0.25


def test_a_pace_is_that_of_the_last_times() -> None:
    """Nothing is known before a few; then the mean; then that of the last 32."""
    pace = Pace(0.0)
    for second in range(1, 4):
        pace.note(float(second))
    assert pace.rate(3.0) == 0.0 and pace.until(1, 3.0) == 0.0
    pace.note(4.0)
    assert pace.rate(4.0) == 1.0
    for tenth in range(1, 100):
        pace.note(4.0 + tenth / 10)
    assert pace.rate(13.9) == pytest.approx(10.0)
    assert pace.until(5, 13.9) == pytest.approx(0.5)
    assert pace.until(1, 13.97) == pytest.approx(0.03, rel=0.1), "the next one is due soon"
    assert pace.until(1, 14.5) > 0.015, "but never at once"


def test_before_anything_has_ended_a_second_is_said() -> None:
    """For want of anything better; but nobody is refused for it."""
    play = Played()
    play.arrive(claim(gateway(1)))
    denied = play.arrive(claim(gateway(1))).denied
    assert denied is not None and (denied.reason, denied.retry_after) == (Reason.CONCURRENCY, UNKNOWN)
    play = Played(queue=9, max_wait=0.1)
    assert [ticket.state for ticket in play.some(11, claim(gateway(1)))][1:] == [State.WAITING] * 9 + [State.DENIED]


def ended(play: Played, mine: Claim, seconds: float, slots: int) -> None:
    """So many streams of that length, and as many again that are running."""
    tickets = play.some(slots, mine)
    play.now += seconds
    for ticket in tickets:
        play.leave(ticket)
    play.some(slots, mine)


def test_without_a_line_s_own_history_slots_are_shared_evenly() -> None:
    """By how long slots are kept: 10 slots of 20 s are one in 2 s; a quiet time before does not count."""
    play = Played(queue=20, max_wait=5.0, priorities=FAST_AND_SLOW)
    fast = claim(gateway(10), priority="interactive")
    slow = claim(gateway(10), priority="batch")
    ended(play, fast, 20.0, 10)
    play.now += 3600.0
    assert [play.arrive(fast).state for _ in range(2)] == [State.WAITING] * 2
    third = play.arrive(fast)
    assert third.denied is not None and (third.denied.reason, third.denied.retry_after) == (
        Reason.QUEUE_TIMEOUT, pytest.approx(6.0),
    )  # fmt: skip
    assert play.arrive(slow).denied.retry_after == pytest.approx(10.0), "one of five slots"  # type: ignore[union-attr]


def test_a_class_tells_of_a_new_line_in_it() -> None:
    """One more line in a class that gets a slot a second waits its share of the turns."""
    play = Played(queue=30, max_wait=1.5)
    mine, other = claim(gateway(1), tenant="a"), claim(gateway(1), tenant="b")
    play.ledger.queue.settings = Played(queue=30).settings
    running = play.arrive(mine)
    play.some(20, mine)
    for _ in range(10):
        play.now += 1.0
        running = play.next(running)
    play.ledger.queue.settings = play.settings
    denied = play.arrive(other).denied
    assert denied is not None and denied.retry_after == pytest.approx(2.0)


def test_who_will_have_left_by_then_is_not_waited_for() -> None:
    """Five wait, one each 4 s gets a slot: with 5 s left, four of them are gone before their turn."""
    play = Played(queue=30, max_wait=20.0)
    mine = claim(gateway(1))
    ended(play, mine, 4.0, 1)
    waiting = play.some(5, mine)
    denied = play.arrive(mine).denied
    assert denied is not None and denied.retry_after == pytest.approx(24.0)
    for ticket in waiting:
        ticket.deadline = play.now + 5.0
    assert play.arrive(mine).state is State.WAITING, "8 s, and it has 20"


def test_several_upstreams_are_waited_for_together() -> None:
    """Two that come free each 10 s give a slot in 5 s."""
    play = Played()
    mine = claim(upstreams=[streams(Level.UPSTREAM, 1, name) for name in "ab"])
    ended(play, mine, 10.0, 2)
    denied = play.arrive(mine).denied
    assert denied is not None and denied.level is Level.UPSTREAM and denied.retry_after == pytest.approx(5.0)
