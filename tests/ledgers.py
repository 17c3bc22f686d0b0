"""A ledger with a hand on its clock, and claims in few words: for the tests of admission."""

from __future__ import annotations

from collections.abc import Sequence

from streamgate.admission.claim import Bound, Claim, Level, Limits, Priority
from streamgate.admission.ledger import Changed, Ledger
from streamgate.admission.queue import QueueSettings
from streamgate.admission.ticket import State, Ticket

FAST_AND_SLOW = (Priority(name="interactive", weight=4.0), Priority(name="batch", weight=1.0))


def streams(level: Level, count: int, name: str = "") -> Bound:
    return Bound(level, name, Limits(concurrent=count))


def gateway(count: int) -> Bound:
    return streams(Level.GLOBAL, count)


def claim(
    *shared: Bound, own: Sequence[Bound] = (), upstreams: Sequence[Bound] = (), tenant: str = "t", priority: str = "",
    route: str = "r",
) -> Claim:  # fmt: skip
    return Claim(
        own=tuple(own), shared=shared, upstreams=tuple(upstreams), tenant=tenant, priority=priority, route=route
    )


class Played:
    """A ledger whose time moves when it is told to."""

    def __init__(self, queue: int = 0, max_wait: float = 1e9, priorities: tuple[Priority, ...] = ()) -> None:
        self.settings = QueueSettings(queue=queue, max_wait=max_wait, priorities=priorities)
        self.ledger = Ledger(self.settings)
        self.now = 0.0

    def arrive(self, claim: Claim, tokens: int = 0, order: Sequence[str] = ()) -> Ticket:
        ticket = Ticket(claim, tokens, lambda: order)
        self.changed = self.ledger.arrive(ticket, self.now)
        return ticket

    def some(self, count: int, claim: Claim) -> list[Ticket]:
        return [self.arrive(claim) for _ in range(count)]

    def leave(self, ticket: Ticket) -> Changed:
        self.changed = self.ledger.leave(ticket, self.now)
        return self.changed

    def next(self, ticket: Ticket) -> Ticket:
        """Who has the slot of this one."""
        (granted,) = self.leave(ticket)
        assert granted.state is State.HELD
        return granted

    @property
    def books(self) -> tuple[int, int]:
        return self.ledger.taken, self.ledger.waiting

    def empty(self) -> bool:
        """Nothing is held, waited for, or parked anywhere."""
        register, queue = self.ledger.register, self.ledger.queue
        return (
            self.books == (0, 0)
            and all(count.used == 0 and not count.parked for count in register.counts.values())
            and all(tenant.leases == 0 for tenant in register.tenants.values())
            and all(rank.held == rank.waiting == 0 and not rank.lines for rank in queue.ranks.values())
            and not queue.lines
            and queue.filled == sum(rank.quota for rank in queue.ranks.values())
        )
