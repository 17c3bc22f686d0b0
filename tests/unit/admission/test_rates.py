"""Buckets that hold a minute's worth, kept as one time."""

from __future__ import annotations

import pytest

from streamgate.admission.rates import Rate


def filled(limit: int, *taken: int, now: float = 0.0) -> Rate:
    rate = Rate(limit)
    for amount in taken:
        rate.take(amount, now)
    return rate


@pytest.mark.parametrize("limit", [1, 7, 60, 1000])
def test_a_minute_has_room_for_the_limit(limit: int) -> None:
    """All of it at once, not one more, and the next as soon as said."""
    rate = Rate(limit)
    for _ in range(limit):
        assert rate.wait(1, 5.0) == 0.0
        rate.take(1, 5.0)
    late = rate.wait(1, 5.0)
    assert late == pytest.approx(60 / limit)
    assert rate.wait(1, 5.0 + late * 0.99) > 0.0
    assert rate.wait(1, 5.0 + late) == 0.0


def test_without_a_limit_there_is_always_room() -> None:
    """And nothing is counted."""
    rate = filled(0, 10**9)
    assert (rate.wait(10**9, 0.0), rate.remaining(0.0), rate.reset(0.0)) == (0.0, 0, 0.0)


def test_more_than_the_bucket_holds_waits_until_it_is_full() -> None:
    """And leaves a debt that later ones wait for."""
    rate = Rate(100)
    assert rate.wait(1000, 0.0) == 0.0
    rate.take(1000, 0.0)
    assert rate.wait(1, 0.0) == pytest.approx(540.6)
    assert rate.wait(0, 0.0) == pytest.approx(540.0)
    assert rate.remaining(0.0) == 0
    assert filled(100, 1).wait(1000, 0.0) == pytest.approx(0.6)


@pytest.mark.parametrize(("back", "left"), [(30, 40), (90, 100), (500, 100)])
def test_what_comes_back_is_there_again(back: int, left: int) -> None:
    """But never more than the limit."""
    rate = filled(100, 90)
    rate.take(-back, 0.0)
    assert rate.remaining(0.0) == left
    rate.take(left, 0.0)
    assert rate.remaining(0.0) == 0 and rate.wait(1, 0.0) > 0


def test_another_limit_keeps_the_share_that_was_used() -> None:
    """Half used stays half used."""
    rate = filled(100, 50)
    rate.resize(1000)
    assert (rate.remaining(0.0), rate.reset(0.0)) == (500, pytest.approx(30.0))
    rate.resize(10)
    assert rate.remaining(0.0) == 5


def test_it_fills_evenly() -> None:
    """And is full after what `reset` says."""
    rate = filled(60, 30)
    assert [rate.remaining(now) for now in (0.0, 10.0, 29.9, 30.0, 90.0)] == [30, 40, 59, 60, 60]
    assert [rate.reset(now) for now in (0.0, 10.0, 30.0, 90.0)] == [30.0, 20.0, 0.0, 0.0]
