"""The books of connections, as a table of moves."""

from __future__ import annotations

import pytest

from streamgate.upstream.pool import Pool, PoolStatistics
from streamgate.upstream.settings import PoolSettings, origin_of

A, B = origin_of("a", "http://a"), origin_of("b", "http://b")
SETTINGS = PoolSettings(idle=4.0, life=600.0, max_idle=2, settle=1.0)


def pooled(*names: str, at: float = 0.0) -> Pool[str]:
    pool: Pool[str] = Pool(SETTINGS)
    for name in names:
        pool.opened(A, name, at)
    for name in names:
        assert pool.give_back(name, at)
    return pool


def test_the_last_one_in_is_the_first_out() -> None:
    """The warmest connection serves; the coldest ages out."""
    pool = pooled("x", "y")
    assert pool.take(A, 1.0) == ("y", ())
    assert pool.take(A, 1.0) == ("x", ())
    assert pool.take(A, 1.0) == (None, ())


def test_connections_serve_only_their_own_origin() -> None:
    """Another upstream, and the same name with another address, get none of them."""
    pool = pooled("x")
    assert pool.take(B, 1.0) == (None, ())
    assert pool.take(origin_of("a", "http://elsewhere"), 1.0) == (None, ())
    assert pool.take(A, 1.0) == ("x", ())


@pytest.mark.parametrize("now, served", [(3.999, "x"), (4.0, None)])
def test_an_idle_connection_is_kept_four_seconds(now: float, served: str | None) -> None:
    """Just before the limit it serves, at the limit it is to be closed."""
    pool = pooled("x")
    assert pool.take(A, now) == (served, () if served else ("x",))


def test_a_connection_lives_ten_minutes_at_most() -> None:
    """Too old when it comes back, it is not kept; too old when it is wanted, it is to be closed."""
    pool: Pool[str] = Pool(SETTINGS)
    pool.opened(A, "x", 0.0)
    assert pool.give_back("x", 599.0)
    assert pool.take(A, 600.0) == (None, ("x",))
    assert not pool.give_back("x", 600.0)
    pool.lost("x")
    assert pool.statistics()["a"] == PoolStatistics(opened=1, closed=1)


def test_only_so_many_are_kept() -> None:
    """Beyond `max_idle` a returned connection is to be closed."""
    pool = pooled("x", "y")
    pool.opened(A, "z", 0.0)
    assert not pool.give_back("z", 0.0)


def test_overdue_ones_are_named_in_time() -> None:
    """Idle after 4 s, settling after 1 s; `next_due` says when to ask."""
    pool = pooled("x")
    pool.opened(B, "s", 0.0)
    pool.settle("s", 0.5)
    assert pool.next_due() == 1.5
    assert pool.overdue(1.4) == []
    assert pool.overdue(1.5) == ["s"]
    pool.lost("s")
    assert pool.next_due() == 4.0
    assert pool.overdue(4.0) == ["x"]
    pool.lost("x")
    assert pool.next_due() == float("inf")


def test_a_settled_connection_serves_again() -> None:
    """Once its body ended, it is pooled like any other."""
    pool: Pool[str] = Pool(SETTINGS)
    pool.opened(A, "x", 0.0)
    pool.settle("x", 0.0)
    assert pool.statistics()["a"] == PoolStatistics(opened=1, settling=1)
    assert pool.take(A, 0.1) == (None, ())
    assert pool.give_back("x", 0.2)
    assert pool.take(A, 0.3) == ("x", ())
    assert pool.statistics()["a"] == PoolStatistics(opened=1, active=1)


def test_after_closing_nothing_is_kept() -> None:
    """Those at rest are to be closed at once, those in use when they come back."""
    pool = pooled("x", "y")
    pool.take(A, 0.0)
    assert pool.close() == ["x"]
    assert not pool.give_back("y", 0.0)


def test_a_lost_one_is_lost_wherever_it_was() -> None:
    """Closed by the peer while idle, it is no longer handed out."""
    pool = pooled("x", "y")
    pool.lost("y")
    assert pool.take(A, 0.0) == ("x", ())
    with pytest.raises(KeyError):
        pool.lost("y")


def test_statistics_add_up_origins_of_one_name() -> None:
    """An upstream whose address changed is still one upstream."""
    pool = pooled("x")
    pool.opened(origin_of("a", "http://moved"), "y", 0.0)
    assert pool.statistics() == {"a": PoolStatistics(opened=2, pooled=1, active=1)}


def test_an_origin_has_its_own_patience() -> None:
    """An upstream that closes sooner, or later, says how long; 0 keeps none."""
    patient, hasty = origin_of("p", "http://p", idle=60.0), origin_of("h", "http://h", idle=0.0)
    pool: Pool[str] = Pool(SETTINGS)
    pool.opened(patient, "x", 0.0)
    pool.opened(hasty, "y", 0.0)
    assert pool.give_back("x", 0.0) == 60.0
    assert pool.give_back("y", 0.0) == 0.0
    assert pool.next_due() == 60.0
    assert pool.take(patient, 59.0) == ("x", ())
