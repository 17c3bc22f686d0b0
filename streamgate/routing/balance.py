"""In which order are upstreams tried? The whole order, so that a failed try knows where to go next."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache

# Weights become turns in a cycle; 100 to 1 is as far apart as two of them can be.
MOST_TURNS = 100


class Balance(StrEnum):
    """How a route spreads its streams."""

    LEAST_STREAMS = "least_streams"
    ROUND_ROBIN = "round_robin"
    IN_ORDER = "in_order"


def order(
    names: Sequence[str],
    balance: Balance,
    *,
    active: Mapping[str, int],
    weights: Mapping[str, float],
    turn: int,
    ejected: Collection[str],
) -> list[str]:
    """All of `names`, best first; the ejected ones last, because a bad upstream is better than none.

    `active` is streams per upstream now (absent: 0), `weights` its share (absent: 1; 0: only when the others fail),
    `turn` counts the requests of the route.
    """
    ranks: tuple[list[str], list[str], list[str]] = ([], [], [])
    for name in names:
        ranks[2 if name in ejected else 1 if weights.get(name, 1.0) <= 0 else 0].append(name)
    return [name for rank in ranks if rank for name in _ordered(rank, balance, active, weights, turn)]


def _ordered(
    names: list[str], balance: Balance, active: Mapping[str, int], weights: Mapping[str, float], turn: int
) -> list[str]:
    match balance:
        case Balance.IN_ORDER:
            return names
        case Balance.ROUND_ROBIN:
            return _in_turn(names, [weights.get(name, 1.0) for name in names], turn)
        case Balance.LEAST_STREAMS:
            first = turn % len(names)
            rotated = names[first:] + names[:first]  # equals take turns: a sort keeps their order
            return sorted(rotated, key=lambda name: (active.get(name, 0) + 1) / _weight(weights, name))


def _weight(weights: Mapping[str, float], name: str) -> float:
    weight = weights.get(name, 1.0)
    return weight if weight > 0 else 1.0


def _in_turn(names: list[str], weights: list[float], turn: int) -> list[str]:
    positive = [weight for weight in weights if weight > 0]
    smallest = min(positive, default=1.0)
    turns = tuple(max(1, min(MOST_TURNS, round(weight / smallest))) for weight in weights)
    cycle = _cycle(turns)
    start = turn % len(cycle)
    following = cycle[start:] + cycle[:start]
    return [names[position] for position in dict.fromkeys(following)]


@lru_cache(maxsize=256)
def _cycle(turns: tuple[int, ...]) -> tuple[int, ...]:
    """Positions, each as often as it has turns, spread as evenly as can be: (3, 1) gives 0 0 1 0."""
    ideal = (((turn + 0.5) / many, position) for position, many in enumerate(turns) for turn in range(many))
    return tuple(position for _, position in sorted(ideal))
