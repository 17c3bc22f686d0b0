"""The order in which upstreams are tried."""

from __future__ import annotations

from collections import Counter

import pytest

from streamgate.routing.balance import Balance, order

NAMES = ["a", "b", "c"]


def ordered(balance: Balance, **changes: object) -> list[str]:
    arguments: dict[str, object] = {"active": {}, "weights": {}, "turn": 0, "ejected": ()}
    return order(NAMES, balance, **{**arguments, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "active, weights, expected",
    [
        ({"a": 2, "b": 1}, {}, ["c", "b", "a"]),
        ({"a": 3, "b": 1, "c": 1}, {"a": 4.0}, ["a", "b", "c"]),
        ({}, {"b": 2.0}, ["b", "a", "c"]),
        ({"a": 9, "b": 9}, {"c": 0.0}, ["a", "b", "c"]),
    ],
)
def test_least_streams(active: object, weights: object, expected: list[str]) -> None:
    """Fewest streams for its weight first; weight 0 only after the others."""
    assert ordered(Balance.LEAST_STREAMS, active=active, weights=weights) == expected


def test_equals_take_turns() -> None:
    """With nothing between them, upstreams rotate."""
    firsts = [ordered(Balance.LEAST_STREAMS, turn=turn)[0] for turn in range(6)]
    assert firsts == ["a", "b", "c", "a", "b", "c"]


def test_round_robin_goes_around_those_not_ejected() -> None:
    """The neighbour of an ejected upstream does not get its share on top of its own."""
    assert [ordered(Balance.ROUND_ROBIN, turn=turn)[0] for turn in range(4)] == ["a", "b", "c", "a"]
    assert ordered(Balance.ROUND_ROBIN, turn=1) == ["b", "c", "a"]
    firsts = Counter(ordered(Balance.ROUND_ROBIN, turn=turn, ejected={"b"})[0] for turn in range(100))
    assert firsts == {"a": 50, "c": 50}


def test_round_robin_by_weight() -> None:
    """Shares follow the weights, spread evenly and not in bursts."""
    firsts = [ordered(Balance.ROUND_ROBIN, turn=turn, weights={"a": 3.0})[0] for turn in range(50)]
    assert Counter(firsts) == {"a": 30, "b": 10, "c": 10}
    assert "aaaa" not in "".join(firsts)


def test_in_order() -> None:
    """The configuration's order, always."""
    assert ordered(Balance.IN_ORDER, turn=7, active={"a": 99}) == NAMES


@pytest.mark.parametrize("balance", Balance)
def test_ejected_ones_come_last_but_come(balance: Balance) -> None:
    """A bad upstream is better than none."""
    assert ordered(balance, ejected={"a"})[-1] == "a"
    assert sorted(ordered(balance, ejected=set(NAMES))) == NAMES
    assert sorted(ordered(balance, weights=dict.fromkeys(NAMES, 0.0))) == NAMES
    assert order([], balance, active={}, weights={}, turn=0, ejected=()) == []
