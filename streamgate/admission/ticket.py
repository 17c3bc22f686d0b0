"""One request before the ledger, and what the ledger says to it. Plain values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from streamgate.admission.claim import Claim, Level
from streamgate.errors import Reason

if TYPE_CHECKING:
    from streamgate.admission.counts import Count
    from streamgate.admission.queue import Line, Rank
    from streamgate.admission.terms import Terms

Order = Callable[[], Sequence[str]]


class State(Enum):
    """NEW -> HELD, WAITING, DENIED; WAITING -> HELD, DENIED, GONE; HELD -> GONE, or back to WAITING when a store that
    several replicas share had no slot after all."""

    NEW = "new"
    WAITING = "waiting"
    HELD = "held"
    DENIED = "denied"
    GONE = "gone"


class Unit(Enum):
    """What a limit counts."""

    STREAMS = "streams"
    REQUESTS = "requests"
    TOKENS = "tokens"


@dataclass(frozen=True, slots=True)
class Denied:
    """Come back in about `retry_after` seconds. `level` is where the limit stands, `own` whether it is the asker's."""

    reason: Reason
    level: Level
    retry_after: float
    own: bool = False
    unit: Unit = Unit.STREAMS


class Note(NamedTuple):
    """One line of the ledger's log. `what`: arrive, grant, refuse, leave. `number` counts the arrivals, `latest`
    is that of the last one who had come by then; `line` is (priority, tenant, route); `said` seconds were told with a
    refusal."""

    at: float
    what: str
    number: int
    latest: int
    line: tuple[str, str, str]
    said: float = 0.0
    reason: Reason | None = None


def no_order() -> Sequence[str]:
    return ()


class Ticket:
    """A request from its arrival until its lease is given back. `tokens` is the estimate that it is charged with.

    `order` gives the route's upstreams, the preferred one first, in the moment of the grant. `seat` is the count of the
    upstream whose slot it holds (`upstream` by name), `spare` another's while it moves there; `paid` is the upstream
    whose rates were charged, since it began to wait.
    """

    __slots__ = (
        "arrived",
        "charged",
        "claim",
        "deadline",
        "denied",
        "granted",
        "line",
        "names",
        "number",
        "order",
        "paid",
        "rank",
        "seat",
        "settled",
        "spare",
        "state",
        "terms",
        "tokens",
        "upstream",
    )

    terms: Terms
    rank: Rank

    def __init__(self, claim: Claim, tokens: int = 0, order: Order = no_order) -> None:
        self.claim = claim
        self.tokens = tokens
        self.order = order
        self.state = State.NEW
        self.number = 0
        self.arrived = self.granted = 0.0
        self.deadline = math.inf  # of its wait; before that has begun there is none
        self.upstream = ""
        self.names: Sequence[str] = ()  # as `order` gave them
        self.seat: Count | None = None
        self.spare: Count | None = None
        self.paid: Count | None = None
        self.line: Line | None = None
        self.denied: Denied | None = None
        self.charged = self.settled = False
