"""A bounded queue in order of arrival, and the lease as an `async with`.

The clean-up of a lease is a plain call: a cancelled task cannot be interrupted in it, so no slot can leak.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType

from streamgate.admission.ledger import Books, Denied, Granted, Queued
from streamgate.errors import Reason, Refusal


class Gate:
    """Lets streams in as the ledger says."""

    def __init__(self, ledger: Books, clock: Callable[[], float]) -> None:
        self.ledger = ledger
        self.clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()

    def lease(self) -> Lease:
        """Permission to stream while inside; raises `Refusal` (concurrency, queue_full, queue_timeout) instead."""
        return Lease(self)

    async def enter(self) -> None:
        match await self.ledger.arrive(self.clock()):
            case Granted():
                return
            case Denied(reason, retry_after):
                raise _denied(reason, retry_after)
            case Queued(deadline):
                await self._wait(deadline)

    async def _wait(self, deadline: float) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            async with asyncio.timeout(max(0.0, deadline - self.clock())):
                return await turn
        except BaseException as exc:
            if turn.done() and not turn.cancelled():  # the slot came and this one left in the same moment: pass it on
                self.leave()
            elif turn in self._waiting:  # else `leave` has swept it out already
                self._waiting.remove(turn)
                self.ledger.left_queue()
            if isinstance(exc, TimeoutError):
                raise _denied(Reason.QUEUE_TIMEOUT, 1.0) from None
            raise

    def leave(self) -> None:
        """Give the slot back and offer it to the one that has waited longest."""
        now = self.clock()
        while self._waiting and self._waiting[0].cancelled():
            del self._waiting[0]
            self.ledger.left_queue()
        if self.ledger.give_back(now):
            self.ledger.granted_late(now)
            self._waiting.popleft().set_result(None)


class Lease:
    """One slot, held lexically."""

    __slots__ = ("_gate", "_held")

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._held = False

    async def __aenter__(self) -> None:
        await self._gate.enter()
        self._held = True

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._held:
            self._held = False
            self._gate.leave()


_WORDS = {
    Reason.CONCURRENCY: "All streams of this gateway are in use.",
    Reason.QUEUE_FULL: "All streams of this gateway are in use and its queue is full.",
    Reason.QUEUE_TIMEOUT: "No stream of this gateway became free in time.",
}


def _denied(reason: Reason, retry_after: float) -> Refusal:
    return Refusal(reason, 503, _WORDS[reason], retry_after=retry_after)
