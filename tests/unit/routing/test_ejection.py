"""Upstreams that keep failing are left out for a while."""

from __future__ import annotations

from streamgate.routing.ejection import Ejections


def failing(ejections: Ejections, name: str, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        ejections.failed(name, now)


def test_five_in_a_row_are_out_for_thirty_seconds() -> None:
    """Not four; and back when the time is over."""
    ejections = Ejections(["a", "b"])
    failing(ejections, "a", 4)
    assert not ejections.ejected(0.0)
    failing(ejections, "a", 1)
    assert ejections.ejected(29.9) == {"a"}
    assert not ejections.ejected(30.0)


def test_a_success_between_starts_the_count_again() -> None:
    """Only failures in a row count, and a success brings it back at once."""
    ejections = Ejections(["a", "b"])
    failing(ejections, "a", 4)
    ejections.succeeded("a")
    failing(ejections, "a", 4)
    assert not ejections.ejected(0.0)
    failing(ejections, "a", 1)
    assert ejections.ejected(0.0) == {"a"}
    ejections.succeeded("a")
    assert not ejections.ejected(0.0)


def test_a_change_is_told_once() -> None:
    """To be sent out, and to be trusted again after that, are news; more of the same is not."""
    ejections = Ejections(["a", "b"])
    assert [ejections.failed("a", 0.0) for _ in range(6)] == [False] * 4 + [True, False]
    assert [ejections.succeeded("a") for _ in range(2)] == [True, False]
    failing(ejections, "a", 4)
    assert not ejections.succeeded("a")


def test_one_failure_after_the_return_is_enough() -> None:
    """An upstream that is still broken costs one try every 30 s, not five."""
    ejections = Ejections(["a", "b"])
    failing(ejections, "a", 5)
    assert not ejections.ejected(31.0)
    failing(ejections, "a", 1, 31.0)
    assert ejections.ejected(31.0) == {"a"}


def test_half_of_the_pool_at_most_and_never_the_last() -> None:
    """When all fail, half stay in."""
    ejections = Ejections(["a", "b", "c", "d"])
    for name in "abcd":
        failing(ejections, name, 9)
    assert ejections.ejected(0.0) == {"a", "b"}
    alone = Ejections(["a"])
    failing(alone, "a", 99)
    assert not alone.ejected(0.0)


def test_strangers_do_not_count() -> None:
    """A name that is not in the pool is not remembered."""
    ejections = Ejections(["a", "b"])
    failing(ejections, "z", 9)
    assert not ejections.ejected(0.0)
