"""The accounting of slots, as plain functions of (state, now)."""

from __future__ import annotations

import pytest

from streamgate.admission.ledger import GRANTED, Denied, Granted, Ledger, Limits, Queued
from streamgate.errors import Reason


def full(limits: Limits) -> Ledger:
    ledger = Ledger(limits)
    for _ in range(limits.concurrent):
        assert ledger.decide(0.0) is GRANTED
    return ledger


def test_without_a_limit_everyone_starts() -> None:
    """The books are kept all the same."""
    ledger = Ledger(Limits())
    assert all(isinstance(ledger.decide(0.0), Granted) for _ in range(1000))
    assert ledger.taken == 1000
    assert not ledger.give_back(1.0)
    assert ledger.taken == 999


def test_a_queue_without_a_limit_is_never_used() -> None:
    """With nothing to wait for, nobody waits."""
    ledger = Ledger(Limits(concurrent=0, queue=5))
    assert all(isinstance(ledger.decide(0.0), Granted) for _ in range(50))
    assert ledger.waiting == 0


def test_above_the_limit_without_a_queue_is_denied() -> None:
    """By its own reason, and nothing is booked."""
    ledger = full(Limits(concurrent=2))
    assert ledger.decide(0.0) == Denied(Reason.CONCURRENCY, 1.0)
    assert (ledger.taken, ledger.waiting) == (2, 0)


def test_above_the_limit_one_waits_and_above_the_queue_one_is_denied() -> None:
    """Each until its own deadline; the queue's length is a limit too."""
    ledger = full(Limits(concurrent=1, queue=2, max_wait=7.0))
    assert ledger.decide(10.0) == Queued(17.0)
    assert ledger.decide(11.0) == Queued(18.0)
    assert ledger.decide(12.0) == Denied(Reason.QUEUE_FULL, 1.0)
    assert (ledger.taken, ledger.waiting) == (1, 2)


def test_a_slot_that_comes_back_belongs_to_who_waits() -> None:
    """`give_back` says so, and an arrival meanwhile does not overtake the queue."""
    ledger = full(Limits(concurrent=1, queue=2))
    ledger.decide(0.0)
    assert ledger.give_back(1.0) is True
    assert isinstance(ledger.decide(1.0), Queued), "the free slot is promised"
    ledger.granted_late(1.0)
    assert (ledger.taken, ledger.waiting) == (1, 1)
    ledger.left_queue()
    assert ledger.give_back(2.0) is False
    assert ledger.decide(2.0) is GRANTED


async def arrived(ledger: Ledger) -> object:
    return await ledger.arrive(3.0)


@pytest.mark.anyio
async def test_arriving_is_deciding() -> None:
    """Awaitable, so that one shared by many replicas fits the same place; this one never waits."""
    coroutine = arrived(full(Limits(concurrent=1, queue=1, max_wait=2.0)))
    with pytest.raises(StopIteration) as done:
        coroutine.send(None)
    assert done.value.value == Queued(5.0)


@pytest.mark.parametrize(
    ("endings", "now", "ahead", "seconds"),
    [
        ([], 100.0, 0, 1.0),
        ([50.0], 100.0, 5, 1.0),
        ([90.0, 100.0], 100.0, 0, 5.0),
        ([90.0, 100.0], 100.0, 3, 20.0),
        ([0.0, 1.0], 1000.0, 0, 60.0),
        ([100.0, 100.0], 100.0, 0, 1.0),
        ([99.9, 100.0], 100.0, 100, 5.05),
        ([90.0, 95.0], 10.0, 0, 1.0),
    ],
)
def test_the_wait_is_estimated_from_recent_endings(
    endings: list[float], now: float, ahead: int, seconds: float
) -> None:
    """Streams ended at this rate, so many are before you: between 1 and 60 seconds, also when nothing is known."""
    ledger = Ledger(Limits(concurrent=10))
    for ending in endings:
        ledger.decide(0.0)
        ledger.give_back(ending)
    assert ledger.estimate(now, ahead) == pytest.approx(seconds)


def test_only_recent_endings_count() -> None:
    """What happened an hour ago says nothing of now."""
    ledger = Ledger(Limits(concurrent=1))
    for ending in [*range(100), *(3600 + number for number in range(Ledger.REMEMBERED))]:
        ledger.decide(0.0)
        ledger.give_back(float(ending))
    assert ledger.estimate(3600.0 + Ledger.REMEMBERED, 9) == pytest.approx(10.0)
