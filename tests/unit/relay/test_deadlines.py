"""When a route's clocks are due, and what a client's leaving is called."""

from __future__ import annotations

import pytest

from streamgate.record import Outcome
from streamgate.relay.deadlines import Deadlines
from streamgate.sse.clocks import NEVER
from streamgate.sse.outlet import Lost

OFF = Deadlines(first_token=0, idle=0, total=0, answer=0)


def test_the_whole_answer() -> None:
    """A stream has the total clock, an answer its own; neither runs before the lease."""
    clocks = Deadlines(total=30, answer=20)
    assert clocks.answer_due(100, stream=True) == 130
    assert clocks.answer_due(100, stream=False) == 120
    assert clocks.answer_due(0, stream=True) == clocks.answer_due(0, stream=False) == NEVER


def test_tokens() -> None:
    """From the start of the try to the first, then from one to the next."""
    clocks = Deadlines(first_token=5, idle=3)
    assert clocks.first_token_due(10) == 15
    assert clocks.idle_due(10) == 13


def test_zero_is_off() -> None:
    """A clock of 0 never rings."""
    assert OFF.answer_due(1, stream=True) == OFF.answer_due(1, stream=False) == NEVER
    assert OFF.first_token_due(1) == OFF.idle_due(1) == NEVER


def test_defaults() -> None:
    """Those of the contract."""
    assert Deadlines() == Deadlines(
        first_token=120, idle=60, total=0, answer=600, stall=10, send=30, heartbeat=15, early_commit=10
    )


@pytest.mark.parametrize(
    ("lost", "last", "now", "outcome"),
    [
        (Lost.CLOSED, 0.0, 100.0, Outcome.CLIENT_GAVE_UP),
        (Lost.CLOSED, 95.0, 100.0, Outcome.CLIENT_CLOSED),
        (Lost.CLOSED, 90.0, 100.0, Outcome.CLIENT_CLOSED),
        (Lost.CLOSED, 89.9, 100.0, Outcome.CLIENT_GAVE_UP),
        (Lost.SLOW, 0.0, 100.0, Outcome.SLOW_CLIENT),
        (Lost.SLOW, 1.0, 100.0, Outcome.SLOW_CLIENT),
    ],
)
def test_departures(lost: Lost, last: float, now: float, outcome: Outcome) -> None:
    """Before the first token, or after a stall without one, it gave up; in the middle it left; or it was too slow."""
    assert Deadlines(stall=10).departure(lost, last, now) is outcome
