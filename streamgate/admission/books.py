"""What the books say, as plain values: to metrics and consoles, and to a client about its own limits. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from streamgate.admission.claim import Level
from streamgate.admission.rates import Rate
from streamgate.admission.terms import OWN

if TYPE_CHECKING:
    from streamgate.admission.ledger import Ledger
    from streamgate.admission.terms import Terms


class Row(NamedTuple):
    """Slots of one shared limit: in use, and how many there are (0: no limit)."""

    level: Level
    name: str
    used: int
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """`waiting` by priority; `oldest`: seconds that one has waited for the longest time."""

    leases: int
    rows: tuple[Row, ...]
    waiting: dict[str, int]
    oldest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What is left of a client's own rates; None where there is no limit. `reset` in seconds, until all is there."""

    limit_requests: int | None = None
    remaining_requests: int | None = None
    reset_requests: float | None = None
    limit_tokens: int | None = None
    remaining_tokens: int | None = None
    reset_tokens: float | None = None


def books(ledger: Ledger, now: float) -> Books:
    queue = ledger.queue
    return Books(
        leases=ledger.taken,
        rows=tuple(
            Row(level, name, count.used, count.limits.concurrent)
            for (level, name), count in ledger.register.counts.items()
            if level not in OWN
        ),
        waiting={name: rank.waiting for name, rank in queue.ranks.items()},
        oldest=max((now - line.head.arrived for line in queue.lines), default=0.0),
    )


def quota(terms: Terms, now: float) -> Quota | None:
    """Of the own level nearest to its limit; None: none has a rate."""
    limited = [count for count in terms.own if count.requests.limit or count.tokens.limit]
    if not limited:
        return None
    nearest = min(limited, key=lambda count: min(_left(count.requests, now), _left(count.tokens, now)))
    requests, tokens = nearest.requests, nearest.tokens
    return Quota(
        limit_requests=requests.limit or None,
        remaining_requests=requests.remaining(now) if requests.limit else None,
        reset_requests=requests.reset(now) if requests.limit else None,
        limit_tokens=tokens.limit or None,
        remaining_tokens=tokens.remaining(now) if tokens.limit else None,
        reset_tokens=tokens.reset(now) if tokens.limit else None,
    )


def _left(rate: Rate, now: float) -> float:
    """The share that is left."""
    return rate.remaining(now) / rate.limit if rate.limit else 1.0
