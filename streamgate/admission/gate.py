"""The lease as an `async with`: what the ledger decides is waited for here.

Giving back is a plain call: a cancelled task cannot be interrupted in it, so no slot can leak. Whatever is awaited on
the way in (a turn, the store) gives everything back when it is cancelled.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from types import TracebackType
from typing import Self

from streamgate.admission.books import Books, Quota, books, quota
from streamgate.admission.claim import Bound, Claim, Level
from streamgate.admission.ledger import Changed, Ledger
from streamgate.admission.queue import QueueSettings
from streamgate.admission.refusals import refusal, unavailable
from streamgate.admission.remote import Answer, Remote, Verdict
from streamgate.admission.terms import OWN
from streamgate.admission.ticket import Denied, Order, State, Ticket, Unit, no_order
from streamgate.errors import Reason, Refusal

__all__ = ["Gate", "Lease", "QueueSettings"]

ASK_AGAIN = 0.25  # s: at the latest, when the store was full and nobody said that something came free


class Gate:
    """Lets streams in as the ledger says and, with a `remote`, as the store says that several replicas share."""

    def __init__(self, settings: QueueSettings, clock: Callable[[], float], remote: Remote | None = None) -> None:
        self.ledger = Ledger(settings)
        self.clock = clock
        self.remote = remote
        self._prefix = secrets.token_hex(8)
        self._timer: asyncio.TimerHandle | None = None
        if remote is not None:
            remote.on_freed(self._freed)

    def lease(self, claim: Claim, *, tokens: int = 0, order: Order = no_order) -> Lease:
        """Permission to stream while inside; raises `Refusal` instead (429 or 503: concurrency, rate, queue_full,
        queue_timeout, overload). `tokens`: the estimate it is charged with; `order` gives the route's upstreams by
        name, the preferred one first, and is asked in the moment of the grant, if any of them has a limit."""
        return Lease(self, claim, tokens, order)

    def quota(self, claim: Claim) -> Quota | None:
        """What is left of the claim's own rates, at the level nearest to its limit; None: it has none."""
        if not claim.own:
            return None
        now = self.clock()
        return quota(self.ledger.register.terms(claim, now), now)

    def books(self) -> Books:
        """Slots of the shared limits, leases, and who waits."""
        return books(self.ledger, self.clock())

    def reload(self, settings: QueueSettings) -> None:
        """Other settings of the queue; other limits come with new claims, those of the newest hold."""
        self._tell(self.ledger.reload(settings, self.clock()))

    def close(self) -> None:
        """Ask the store no more by itself."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ------------------------------------------------------------------ the lease's way

    def arrive(self, lease: Lease) -> bool:
        """Whether it may start at once; else `enter` waits, or raises Refusal."""
        changed = self.ledger.arrive(lease, self.clock())
        if changed:
            self._tell(changed)
        return lease.state is State.HELD and self.remote is None

    async def enter(self, lease: Lease) -> None:
        if lease.state is not State.HELD:
            await self._turn(lease)
        if self.remote is not None:
            await self._ask(lease, self.remote)

    async def _turn(self, lease: Lease) -> None:
        """Until it has its slots. Raises Refusal."""
        if lease.state is State.WAITING:
            lease.turn = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(lease.deadline - self.clock()):
                    await lease.turn
            except TimeoutError:
                self._tell(self.ledger.expire(lease, self.clock()))
            except BaseException:
                self._tell(self.ledger.withdraw(lease, self.clock()))
                raise
        if lease.denied is not None:
            raise refusal(lease.denied)

    async def _ask(self, lease: Lease, remote: Remote) -> None:
        """The store has the last word; who finds it full waits on. Raises Refusal."""
        lease.name = f"{self._prefix}-{lease.number}"
        full: Bound | None
        while True:
            try:
                verdict = await remote.take(lease.name, lease.claim, lease.tokens, lease.choices())
            except BaseException:
                self._tell(self.ledger.withdraw(lease, self.clock()))
                raise
            if verdict.answer is Answer.TAKEN:
                if self._taken(lease, verdict.upstream):
                    return
                remote.give_back(lease.name, lease.claim)
                full = next(bound for bound in lease.claim.upstreams if bound.name == verdict.upstream)
            elif verdict.answer is Answer.FULL and not (verdict.bound and verdict.bound.level in OWN):
                full = verdict.bound
            else:
                self._tell(self.ledger.withdraw(lease, self.clock()))
                raise denied_by_store(verdict)
            await self._again(lease, full)

    def _taken(self, lease: Lease, upstream: str) -> bool:
        """The store has a slot; False: at an upstream that has none here any more."""
        ledger, now = self.ledger, self.clock()
        if upstream and upstream != lease.upstream:
            if not ledger.shift(lease, upstream, now):
                return False
            self._tell(ledger.shifted(lease, upstream, now, moved=True))
        self._tell(ledger.confirmed(lease, now))
        return True

    async def _again(self, lease: Lease, full: Bound | None) -> None:
        """The store is full there."""
        self._tell(self.ledger.returned(lease, full, self.clock()))
        self._ask_later()
        await self._turn(lease)

    def leave(self, lease: Lease) -> None:
        """Give all back, and to those who wait what they wait for."""
        if lease.state is State.HELD:
            if self.remote is not None:
                self.remote.give_back(lease.name, lease.claim)
            changed = self.ledger.leave(lease, self.clock())
            if changed:
                self._tell(changed)

    async def move(self, lease: Lease, upstream: str) -> bool:
        ledger = self.ledger
        if not ledger.shift(lease, upstream, self.clock()):
            return False
        moved = self.remote is None
        try:
            if self.remote is not None:
                moved = await self.remote.move(lease.name, lease.claim, upstream)
        finally:
            self._tell(ledger.shifted(lease, upstream, self.clock(), moved=moved))
        return moved

    def settle(self, lease: Lease, tokens: int) -> None:
        more = self.ledger.settle(lease, tokens, self.clock())
        if more and self.remote is not None:
            self.remote.settle(lease.claim, more, lease.upstream)

    # ------------------------------------------------------------------ telling

    def _tell(self, changed: Changed) -> None:
        for ticket in changed:
            if isinstance(ticket, Lease) and ticket.turn is not None and not ticket.turn.done():
                ticket.turn.set_result(None)

    def _freed(self) -> None:
        self.close()
        self._tell(self.ledger.reopen(self.clock()))
        self._ask_later()

    def _ask_later(self) -> None:
        if self.ledger.barred and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(ASK_AGAIN, self._freed)


class Lease(Ticket):
    """Slots at all levels, held lexically. `upstream` is the one whose slot it holds; "": none has a limit."""

    __slots__ = ("_gate", "name", "turn")

    def __init__(self, gate: Gate, claim: Claim, tokens: int, order: Order) -> None:
        super().__init__(claim, tokens, order)
        self._gate = gate
        self.name = ""  # at the store
        self.turn: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Self:
        if not self._gate.arrive(self):
            await self._gate.enter(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gate.leave(self)

    async def move(self, upstream: str) -> bool:
        """Exchange the upstream's slot for another's, at a failover; False: that one is full, and this one is kept."""
        return await self._gate.move(self, upstream)

    def settle(self, tokens: int) -> None:
        """What the stream really used takes the place of the estimate; the first call counts."""
        self._gate.settle(self, tokens)

    def choices(self) -> list[str]:
        """Upstreams that have a slot here, the one it holds first."""
        upstreams = self.terms.upstreams
        free = [name for name in self.names if name not in upstreams or not upstreams[name].full]
        return list(dict.fromkeys([self.upstream, *free])) if self.upstream else []


def denied_by_store(verdict: Verdict) -> Refusal:
    """What the store says of a level that is not waited for."""
    if verdict.answer is Answer.UNAVAILABLE:
        return unavailable(verdict.retry_after or 1.0)
    level = verdict.bound.level if verdict.bound is not None else Level.GLOBAL
    reason = Reason.RATE if verdict.answer is Answer.RATE else Reason.CONCURRENCY
    unit = Unit.REQUESTS
    return refusal(Denied(reason, level, verdict.retry_after or 1.0, own=level in OWN, unit=unit))
