"""When a plugin is no longer called, and when it is asked again."""

from __future__ import annotations

from streamgate.hooks.breaker import FAILURES, OPEN_FOR, STALLS, STALLS_WITHIN, Breaker, State


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES):
        breaker.failed(now)
    return breaker


def test_five_failures_in_a_row_open_it():
    """A success in between starts the count anew; the last failure says that it opened."""
    breaker = Breaker()
    for _ in range(FAILURES - 1):
        assert not breaker.failed(0.0)
    assert not breaker.succeeded()
    assert [breaker.failed(0.0) for _ in range(FAILURES)] == [False] * (FAILURES - 1) + [True]
    assert breaker.state is State.OPEN
    assert not breaker.failed(0.0), "it opens once"


def test_one_call_is_tried_after_a_while():
    """Open bars all calls for its time; then one passes, and nobody else while that one is under way."""
    breaker = opened(100.0)
    assert breaker.bars(129.9) and not breaker.allows(129.9)
    assert not breaker.bars(130.0) and breaker.allows(130.0)
    assert breaker.state is State.HALF_OPEN
    assert not breaker.allows(130.1)
    assert breaker.succeeded()
    assert breaker.state is State.CLOSED and breaker.allows(130.2)
    assert not breaker.bars(1e9)


def test_a_failed_trial_opens_it_again():
    """One failure is enough, and the time begins anew."""
    breaker = opened()
    assert breaker.allows(OPEN_FOR) and breaker.failed(OPEN_FOR)
    assert not breaker.allows(OPEN_FOR + 1)
    assert breaker.allows(2 * OPEN_FOR)


def test_a_trial_that_never_came_back_is_given_up():
    """The client left in the middle of it: another call is tried."""
    breaker = opened()
    assert breaker.allows(OPEN_FOR)
    assert breaker.allows(2 * OPEN_FOR)


def test_three_stalls_open_it():
    """Each came back with an answer, and success in between does not forgive it."""
    breaker = Breaker()
    outcomes = []
    for at in range(STALLS):
        outcomes.append(breaker.stalled(float(at)))
        breaker.succeeded()
    assert outcomes == [False, False, True]


def test_old_stalls_are_forgotten():
    """Three within ten minutes, not three in a month; and none from before it was closed again."""
    breaker = Breaker()
    assert not any(breaker.stalled(at * STALLS_WITHIN) for at in range(5))
    breaker = Breaker()
    for at in range(STALLS):
        breaker.stalled(float(at))
    assert breaker.allows(100.0) and breaker.succeeded()
    assert breaker.stalls == []


def test_a_stall_on_trial_opens_it_again():
    """A trial that stops everybody is no success."""
    breaker = opened()
    assert breaker.allows(OPEN_FOR) and breaker.stalled(OPEN_FOR)
